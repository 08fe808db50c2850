// Giving privileges up for good, step by step. Async-signal-safe: raw system calls, no allocation,
// for use between clone and execve. Order: DropBounding, LockSecurebits, SetIds, NoNewPrivs,
// ClearAllCapabilities. Each step must succeed or the program must not be run.
// Source: capabilities(7), prctl(2).
#pragma once

#include <sys/types.h>

#include <span>

namespace pulga {

// `step` is a static name ("drop-bounding"), nullptr when all went well.
struct [[nodiscard]] StepResult {
  const char* step = nullptr;
  int sys_errno = 0;
  bool ok() const { return step == nullptr; }
};

// All five sets: bounding here (needs CAP_SETPCAP), the other four in ClearAllCapabilities.
StepResult DropBounding();
// noroot, no-setuid-fixup, no-ambient-raise, keep-caps off; all locked. Needs CAP_SETPCAP.
StepResult LockSecurebits();

struct Ids {
  uid_t uid = 0;
  gid_t gid = 0;
  std::span<const gid_t> groups;
};
// setgroups, setresgid, setresuid of this thread only (the caller is single-threaded).
StepResult SetIds(const Ids& ids);
StepResult NoNewPrivs();
StepResult ClearAllCapabilities();

}  // namespace pulga
