// The board as pulga doctor shows it: what it is, what it reads now, what that would ask for.
#pragma once

#include <string>

#include "api/cli/output.h"
#include "runtime/sense/board_sense.h"

namespace pulga::cli {

std::string BoardTable(const BoardReport& board, const Style& style);

}  // namespace pulga::cli
