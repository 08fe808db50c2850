// Giving privileges up for good, step by step. Async-signal-safe: raw system calls, no allocation,
// for use between clone and execve. Order: DropBounding, LockSecurebits, SetIds, NoNewPrivs,
// KeepCapabilities. Each step must succeed or the program must not be run.
// Source: capabilities(7), prctl(2).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>

#include "base/result.h"

namespace pulga {

// `step` is a static name ("drop-bounding"), nullptr when all went well.
struct [[nodiscard]] StepResult {
  const char* step = nullptr;
  int sys_errno = 0;
  bool ok() const { return step == nullptr; }
};

// Bit N: the kernel's capability N. What a grant lets a function keep; else none.
using CapabilitySet = uint64_t;

// All five sets: bounding here (needs CAP_SETPCAP), the other four in KeepCapabilities.
StepResult DropBounding(CapabilitySet but = 0);
// noroot, no-setuid-fixup, no-ambient-raise, keep-caps off; all locked. Needs CAP_SETPCAP. Who is
// to keep capabilities over execve needs the ambient set, so its bit stays open then.
StepResult LockSecurebits(CapabilitySet keep = 0);

struct Ids {
  uid_t uid = 0;
  gid_t gid = 0;
  std::span<const gid_t> groups;
  bool keep_groups = false;  // where the kernel forbids setgroups: a user namespace of one id
};
// setgroups, setresgid, setresuid of this thread only (the caller is single-threaded).
StepResult SetIds(const Ids& ids);
StepResult NoNewPrivs();
// Exactly these in all four sets, and over execve.
StepResult KeepCapabilities(CapabilitySet keep);
inline StepResult ClearAllCapabilities() { return KeepCapabilities(0); }

// Whom the kernel ends when the machine is out of memory: -1000 never .. 1000 first. 0 as started.
// More than before needs no privilege; less without it leaves it as it is. An error: the caller may
// be spared as its parent is.
[[nodiscard]] Status SetOomScore(int score);
// The keeper, the launcher and the daemon; less needs CAP_SYS_RESOURCE.
inline constexpr int kSparedOomScore = -900;

}  // namespace pulga
