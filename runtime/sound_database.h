// OpenSound: a database of ours, opened as every one of them is: found sound before anything in it
// is changed, brought to its newest schema, then in WAL mode with synchronous=FULL.
// Blocks: start-up, or the thread that will use it. On failure nothing was changed: kIo damaged,
// kUnsupported foreign or from a newer Pulga, kNoSpace; the message names the file and what to do.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "runtime/database.h"

namespace pulga {

struct DatabaseFile {
  std::string directory;
  std::string name;                         // "pulga.db"
  std::span<const char* const> migrations;  // as Migrate() takes them
  std::string advice;                       // after "FILE: is damaged: WHY."
};
Result<std::unique_ptr<Database>> OpenSound(const DatabaseFile& file);

}  // namespace pulga
