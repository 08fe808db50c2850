#include "sandbox/netns_pool.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/sys.h"

namespace pulga {
namespace {

constexpr const char* kOwnNetns = "/proc/self/ns/net";
constexpr const char* kPortStart = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

StepResult OpenPorts() {
  const UniqueFd fd(PULGA_SYS(open, kPortStart, O_WRONLY | O_CLOEXEC));
  if (!fd.valid() || PULGA_SYS(write, fd.get(), "0", 1) != 1) return {"net-ports", errno};
  return {};
}

}  // namespace

StepResult PrepareNetns() {
  const UniqueFd fd(PULGA_SYS(socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return {"net-lo", errno};
  ifreq request = {};
  strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (PULGA_SYS(ioctl, fd.get(), SIOCSIFFLAGS, &request) != 0) return {"net-lo", errno};
  return OpenPorts();
}

StepResult NetnsPool::Init(uint16_t spare) {
  spare_ = spare;
  own_.Reset(PULGA_SYS(open, kOwnNetns, O_RDONLY | O_CLOEXEC));
  if (!own_.valid()) return {"net-own", errno};
  return {};
}

StepResult NetnsPool::Refill(uint16_t at_most) {
  while (at_most-- > 0 && !full()) {
    if (PULGA_SYS(unshare, CLONE_NEWNET) != 0) return {"net-new", errno};
    StepResult prepared = PrepareNetns();
    UniqueFd fd(PULGA_SYS(open, kOwnNetns, O_RDONLY | O_CLOEXEC));
    if (prepared.ok() && !fd.valid()) prepared = {"net-new", errno};
    if (setns(own_.get(), CLONE_NEWNET) != 0) return {"net-own", errno};
    if (!prepared.ok()) return prepared;
    ready_.push_back(std::move(fd));
  }
  return {};
}

UniqueFd NetnsPool::Take() {
  if (ready_.empty()) {
    const uint16_t spare = spare_;
    spare_ = 1;
    const StepResult made = Refill(1);
    spare_ = spare;
    if (!made.ok()) errno = made.sys_errno;
  }
  if (ready_.empty()) return UniqueFd();
  UniqueFd out = std::move(ready_.back());
  ready_.pop_back();
  return out;
}

int NetnsPool::MakeSockets(int netns, std::vector<UniqueFd>& fds, uint16_t count) const {
  if (PULGA_SYS(setns, netns, CLONE_NEWNET) != 0) return errno;
  int failed = 0;
  for (uint16_t i = 0; i < count && failed == 0; ++i) {
    UniqueFd fd(PULGA_SYS(socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid())
      failed = errno;
    else
      fds.push_back(std::move(fd));
  }
  // Staying in an instance's namespace would hand it to the next one: better to die.
  if (setns(own_.get(), CLONE_NEWNET) != 0) _exit(1);
  return failed;
}

}  // namespace pulga
