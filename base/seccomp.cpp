#include "base/seccomp.h"

#include <linux/seccomp.h>

#include <cerrno>

#include "base/sys.h"

namespace pulga {

namespace {

sock_fprog ToProg(std::span<const sock_filter> program) {
  sock_fprog prog = {};
  prog.len = static_cast<unsigned short>(program.size());
  prog.filter = const_cast<sock_filter*>(program.data());
  return prog;
}

}  // namespace

int LoadSeccomp(std::span<const sock_filter> program) {
  sock_fprog prog = ToProg(program);
  const int result =
      PULGA_SYS(sys::Seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
  if (result == 0) return 0;
  return result > 0 ? ESRCH : errno;  // positive: the thread that could not follow
}

// Without TSYNC: before Linux 5.7 the two do not go together.
int LoadSeccompWithListener(std::span<const sock_filter> program) {
  sock_fprog prog = ToProg(program);
  return PULGA_SYS(sys::Seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
}

}  // namespace pulga
