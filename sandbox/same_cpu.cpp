#include "sandbox/same_cpu.h"

#include <cerrno>
#include <cstring>

#include "base/sys.h"

namespace pulga {

void SameCpu::Read() {
  CPU_ZERO(&all_);
  useful_ = sched_getaffinity(0, sizeof all_, &all_) == 0 && CPU_COUNT(&all_) > 1;
}

bool SameCpu::Stay() const {
  if (!useful_) return false;
  const int here = sched_getcpu();
  if (here < 0 || here >= CPU_SETSIZE) return false;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<size_t>(here), &one);
  return sched_setaffinity(0, sizeof one, &one) == 0;
}

int SameCpu::GiveBack() const {
  if (PULGA_SYS(sched_setaffinity, 0, sizeof all_, &all_) == 0) return 0;
  if (errno != EINVAL) return errno;
  // None of them is left to us (a cpuset changed): whatever there is.
  cpu_set_t every;
  memset(&every, 0xff, sizeof every);
  return sched_setaffinity(0, sizeof every, &every) == 0 ? 0 : errno;
}

}  // namespace pulga
