// Follows a process and all it starts, by ptrace from a process of its own, and notes what each of
// them is at two moments: when it has begun to execute a program, and when it is about to end.
// Short-lived helpers are looked at that way without a race. Needs root.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/process.h"
#include "base/unique_fd.h"

namespace pulga::testing {

// Everything as "KEY:\tVALUE" lines: those of /proc/PID/status, `oom_score_adj`, `cwd`, `root`,
// `environ`, for each namespace `ns.KIND`, for each descriptor `fd.NUMBER`, for each cgroup
// hierarchy `cgroup`, for each resource limit its name with soft and hard limit.
struct SeenProcess {
  enum class When { kExec, kEnd } when = When::kExec;
  std::string program;  // its file's name
  std::string facts;
};

class ProcessWatch {
 public:
  // `pid` and its future children.
  explicit ProcessWatch(pid_t pid);
  ~ProcessWatch();

  // What has been seen up to now.
  std::vector<SeenProcess> Seen() const;

 private:
  UniqueFd notes_;
  PidFd watcher_;
};

}  // namespace pulga::testing
