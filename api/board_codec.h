// The board's facts, readings and pressure as JSON, for GET /v1/system and pulga doctor --json.
#pragma once

#include <string>

#include "runtime/sense/board_sense.h"

namespace pulga {

// One object. What the board does not tell is null, or absent from a list.
std::string BoardJson(const BoardReport& board);

}  // namespace pulga
