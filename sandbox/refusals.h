// Counts the system calls a version's instances are refused. The spawner's own filter, which all of
// them inherit, asks the spawner instead of refusing by itself (SECCOMP_RET_USER_NOTIF); it counts
// and always answers with the errno of syscalls.txt, never "go on". So a start pays nothing, and a
// refused call two switches to the spawner. A function that floods is held to kPerSecond answers
// after a burst: its calls wait their turn, and are refused all the same.
// Spawner only, which must not itself make a call that is refused: nobody would answer it. No
// allocation after Load. Before Linux 5.0, or where somebody listens above us, the plain filter is
// loaded and error() says why nothing is counted. Source: seccomp_unotify(2).
#pragma once

#include <cstdint>
#include <vector>

#include "base/unique_fd.h"
#include "sandbox/sandbox.h"
#include "sandbox/seccomp_profile.h"
#include "sandbox/spawn_protocol.h"

namespace pulga {

// How many answers may be given; pure.
class AnswerPace {
 public:
  static constexpr uint32_t kBurst = 256;
  static constexpr uint32_t kPerSecond = 1000;

  bool Take(uint64_t now_ns);  // one answer; false: wait first
  // Until the next lot of them, for poll(2): -1 while there are some left.
  int WaitMs(uint64_t now_ns);

 private:
  void Refill(uint64_t now_ns);

  uint32_t left_ = kBurst;
  uint64_t filled_ns_ = 0;
};

class RefusalListener {
 public:
  // Into the calling process, which has no_new_privs; 0 or the errno: no filter is loaded then.
  int Load(ProgramAbi abi = ProgramAbi::kBoard);
  int error() const { return error_; }  // of RefusalLayer (isolation.h): why there is no listener
  // Readable: call AnswerOne. -1: nothing to hear, or not yet; then for WaitMs.
  int fd(uint64_t now_ns) { return pace_.WaitMs(now_ns) < 0 ? fd_.get() : -1; }
  int WaitMs(uint64_t now_ns) { return pace_.WaitMs(now_ns); }
  void AnswerOne(uint64_t now_ns, RefusalRecord& record);

 private:
  UniqueFd fd_;
  int error_ = 0;
  AnswerPace pace_;
};

// Daemon's side: what has come to a spawner's record since the last time.
class RefusalReader {
 public:
  std::vector<RefusedCount> Take(const volatile RefusalRecord& record);

 private:
  uint32_t total_ = 0;
  uint32_t seen_[kMaxRefusedCalls] = {};
};

}  // namespace pulga
