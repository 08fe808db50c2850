#include "sandbox/refusals.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/seccomp.h"
#include "base/sys.h"
#include "sandbox/seccomp_profile.h"

namespace pulga {
namespace {

constexpr uint64_t kNsPerAnswer = 1'000'000'000 / AnswerPace::kPerSecond;
constexpr uint32_t kLot = 10;  // so many at once, when it has to wait: the spawner wakes less often

// Structs that grew would be written past the end of ours. 0 or an errno.
int CheckSizes() {
  seccomp_notif_sizes sizes = {};
  if (PULGA_SYS(sys::Seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0) return errno;
  const bool fit = sizes.seccomp_notif <= sizeof(seccomp_notif) &&
                   sizes.seccomp_notif_resp <= sizeof(seccomp_notif_resp);
  return fit ? 0 : EINVAL;
}

// Of a record's counts: first those of the board's calls, then those of 32-bit ARM's.
size_t CountedCalls() { return RefusedCalls().size() + RefusedArm32Calls().size(); }

const RefusedCall& CallAt(size_t index) {
  const auto own = RefusedCalls();
  return index < own.size() ? own[index] : RefusedArm32Calls()[index - own.size()];
}

// Its size for a call that is not there.
size_t Find(std::span<const RefusedCall> calls, int number) {
  const auto before = [](const RefusedCall& call, int n) {
    return static_cast<int>(call.number) < n;
  };
  const auto found = std::lower_bound(calls.begin(), calls.end(), number, before);
  const bool same = found != calls.end() && static_cast<int>(found->number) == number;
  return same ? static_cast<size_t>(found - calls.begin()) : calls.size();
}

// CountedCalls() for a call that is not there.
size_t IndexOf(const seccomp_data& call) {
  const auto own = RefusedCalls();
  const auto arm32 = RefusedArm32Calls();
  if (call.arch == AUDIT_ARCH_ARM && !arm32.empty()) return own.size() + Find(arm32, call.nr);
  const size_t index = Find(own, call.nr);
  return index < own.size() ? index : CountedCalls();
}

void Count(RefusalRecord& record, size_t index, uint32_t by) {
  record.counts[index] += by;
  record.total += by;
}

// False: the caller no longer waits. Anything else would leave it waiting, so it is tried again.
bool Send(int fd, seccomp_notif_resp& answer) {
  constexpr int kTries = 5;
  for (int i = 0; i < kTries; ++i) {
    if (ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &answer) == 0) return true;
    if (errno == ENOENT) return false;
  }
  return false;
}

// How much a counter has gone up since it was `seen`. One that went down was counted too early, or
// is a lie: nothing is new then.
uint32_t NewIn(uint32_t now, uint32_t seen) {
  const auto more = static_cast<int32_t>(now - seen);
  return more > 0 ? static_cast<uint32_t>(more) : 0;
}

// A program of one machine may start one of the other: a call has one name.
void Add(std::vector<RefusedCount>& out, RefusedCount more) {
  for (RefusedCount& known : out) {
    if (known.name != more.name) continue;
    known.count += more.count;
    return;
  }
  out.push_back(std::move(more));
}

}  // namespace

void AnswerPace::Refill(uint64_t now_ns) {
  const uint64_t more = (now_ns - filled_ns_) / kNsPerAnswer;
  if (left_ + more >= kBurst) {
    left_ = kBurst;
    filled_ns_ = now_ns;
    return;
  }
  left_ += static_cast<uint32_t>(more);
  filled_ns_ += more * kNsPerAnswer;
}

bool AnswerPace::Take(uint64_t now_ns) {
  if (left_ == 0) Refill(now_ns);
  if (left_ == 0) return false;
  if (left_ == kBurst) filled_ns_ = now_ns;
  --left_;
  return true;
}

int AnswerPace::WaitMs(uint64_t now_ns) {
  if (left_ > 0) return -1;
  const uint64_t lot_ns = filled_ns_ + kLot * kNsPerAnswer;
  if (now_ns < lot_ns) return static_cast<int>((lot_ns - now_ns) / 1'000'000) + 1;
  Refill(now_ns);
  return -1;
}

int RefusalListener::Load(ProgramAbi abi) {
  const bool arm32 = abi == ProgramAbi::kArm32;
  error_ = CheckSizes();
  if (error_ == 0) {
    fd_.Reset(LoadSeccompWithListener(arm32 ? CountingSpawnerFilterWithArm32()
                                            : CountingSpawnerFilter()));
    if (fd_.valid()) return 0;
    error_ = errno;
  }
  if (error_ != EINVAL && error_ != EBUSY) return error_;
  return LoadSeccomp(arm32 ? SpawnerFilterWithArm32() : SpawnerFilter());
}

// A caller that was killed, frozen or interrupted meanwhile has taken its call back: ENOENT, and
// the call comes again, if at all.
void RefusalListener::AnswerOne(uint64_t now_ns, RefusalRecord& record) {
  if (!pace_.Take(now_ns)) return;
  seccomp_notif call = {};
  if (ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) return;
  const size_t index = IndexOf(call.data);
  const bool known = index < CountedCalls();
  seccomp_notif_resp answer = {};
  answer.id = call.id;
  answer.error = known ? -CallAt(index).sys_errno : -EPERM;
  // Before the answer: who has it may look for its count.
  if (known) Count(record, index, 1);
  if (!Send(fd_.get(), answer) && known) Count(record, index, -1U);
}

std::vector<RefusedCount> RefusalReader::Take(const volatile RefusalRecord& record) {
  std::vector<RefusedCount> out;
  const uint32_t total = record.total;
  if (total == total_) return out;
  total_ = total;
  for (size_t i = 0; i < CountedCalls(); ++i) {
    const uint32_t more = NewIn(record.counts[i], seen_[i]);
    if (more > 0) Add(out, {CallAt(i).name, more});
    seen_[i] += more;
  }
  return out;
}

}  // namespace pulga
