#include "base/seccomp.h"

#include <linux/seccomp.h>

#include <cerrno>

#include "base/sys.h"

namespace pulga {

int LoadSeccomp(std::span<const sock_filter> program) {
  sock_fprog prog = {};
  prog.len = static_cast<unsigned short>(program.size());
  prog.filter = const_cast<sock_filter*>(program.data());
  const int result =
      PULGA_SYS(sys::Seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
  if (result == 0) return 0;
  return result > 0 ? ESRCH : errno;  // positive: the thread that could not follow
}

}  // namespace pulga
