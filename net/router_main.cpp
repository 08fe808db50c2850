// pulga-router (router.h): started by the launcher with its final id, no capability and its
// descriptors; gives up what it does not need and serves until the launcher is gone.
#include <sys/prctl.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <span>

#include "base/log.h"
#include "base/seccomp.h"
#include "net/net_job.h"
#include "net/router.h"

namespace pulga {

// From net/router_syscalls.txt, made by cmake/seccomp.cmake.
std::span<const sock_filter> RouterSeccomp();

namespace {

constexpr rlim_t kMaxFiles = 8192;

Status Confine() {
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return LastError("router: rlimits");
  files.rlim_max = files.rlim_max < kMaxFiles ? files.rlim_max : kMaxFiles;
  files.rlim_cur = files.rlim_max;
  const rlimit none = {0, 0};
  if (setrlimit(RLIMIT_NOFILE, &files) != 0 || setrlimit(RLIMIT_CORE, &none) != 0 ||
      setrlimit(RLIMIT_FSIZE, &none) != 0) {
    return LastError("router: rlimits");
  }
  if (prctl(PR_SET_DUMPABLE, 0) != 0) return LastError("router: dumpable");
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const int failed = LoadSeccomp(RouterSeccomp());
  if (failed != 0) return ErrnoError("router: seccomp", failed);
#endif
  return OkStatus();
}

Status Serve(const MessageSocket& launcher, RouterSockets sockets, const char* resolv_conf) {
  PULGA_ASSIGN_OR_RETURN(auto loop, EventLoop::Create());
  PULGA_ASSIGN_OR_RETURN(HostRoutes routes, HostRoutes::Open());
  PULGA_RETURN_IF_ERROR(Confine());
  Router router(*loop, launcher, std::move(routes));
  PULGA_RETURN_IF_ERROR(router.Start(std::move(sockets), resolv_conf));
  loop->Run();
  return router.end();
}

int Main(const char* resolv_conf) {
  SetLogTag("router");
  prctl(PR_SET_NAME, "pulga-router");
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a log that is a file: its lines are lost, not we
  const MessageSocket launcher{UniqueFd(kRouterChannelFd)};
  int next = kRouterFirstSocketFd;
  RouterSockets sockets;
  for (UniqueFd* fd : {&sockets.tcp_relay, &sockets.udp_relay, &sockets.udp_reply, &sockets.dns_udp,
                       &sockets.dns_tcp}) {
    fd->Reset(next++);
  }
  const Status served = Serve(launcher, std::move(sockets), resolv_conf);
  if (served.ok()) return 0;
  LogError(served.error().message);
  // Its last word: the launcher starts another, or tells whoever waits for the first.
  (void)TellNetAnswer(launcher, Prefix("pulga-router", served.error()));
  return 1;
}

}  // namespace
}  // namespace pulga

int main(int argc, char** argv) {
  if (argc != 2) {
    fputs("pulga-router is started by pulga-launcher\n", stderr);
    return 2;
  }
  return pulga::Main(argv[1]);
}
