// Finds what argv[0] means in the current root, and says in words of use why it cannot run: not
// found in PATH, not executable, made for another machine, script without its interpreter. Says too
// which machine's calls it makes, which decides its filter.
// Spawner (root already is the image's) and tests. Blocks on the disk; off the request path.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/arm32.h"
#include "base/result.h"
#include "sandbox/seccomp_profile.h"

namespace pulga {

std::string BoardPlatform();

// What runs here; tests pretend another.
struct ProgramBoard {
  std::string platform = BoardPlatform();
  Status (*try_arm32)() = RunArm32Program;  // asked on a 64-bit ARM board only
};

inline constexpr std::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct ProgramQuery {
  std::string name;               // argv[0]
  std::vector<std::string> env;   // PATH is taken from here; the last one wins
  std::string working_dir = "/";  // for names with a slash but not at the start
  int root_fd = -1;               // the root to look in
  ProgramBoard board = {};
};

struct FoundProgram {
  std::string path;  // absolute, inside the root, to hand to execve
  // Of the file itself, or of the interpreter that runs it; one that cannot be read is the board's.
  ProgramAbi abi = ProgramAbi::kBoard;
};
Result<FoundProgram> FindProgram(const ProgramQuery& query);

// The machine a file is for: "linux/amd64", "linux/arm64", "linux/arm", ...; empty when `head` (the
// first bytes of a file) is no ELF file.
std::string ElfPlatform(std::string_view head);
// "#!/usr/bin/env python3" -> "/usr/bin/env"; empty when there is none.
std::string ScriptInterpreter(std::string_view head);

}  // namespace pulga
