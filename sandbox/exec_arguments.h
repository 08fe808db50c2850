// argv and envp of one program start: the version's own plus what a request adds, in arrays made
// once, so that a start allocates nothing (between clone and execve nothing may).
#pragma once

#include <string>
#include <vector>

#include "sandbox/spawn_protocol.h"

namespace pulga {

class ExecArguments {
 public:
  // Keeps pointers into both, which must outlive it.
  ExecArguments(std::vector<std::string>& argv, std::vector<std::string>& env);
  // `blob` holds the request's env strings, then its args; it stays in use. False: malformed.
  // Async-signal-safe.
  bool Assemble(const SpawnRequest& request, char* blob, size_t size);

  char** argv() { return argv_.data(); }
  char** envp() { return envp_.data(); }

 private:
  size_t base_argc_;
  size_t base_envc_;
  std::vector<char*> argv_;
  std::vector<char*> envp_;
};

}  // namespace pulga
