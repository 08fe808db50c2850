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
#include "sandbox/attach_protocol.h"

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

StepResult NetnsPool::Init(uint16_t spare, int attach_fd) {
  spare_ = spare;
  attach_fd_ = attach_fd;
  own_.Reset(PULGA_SYS(open, kOwnNetns, O_RDONLY | O_CLOEXEC));
  if (!own_.valid()) return {"net-own", errno};
  return {};
}

StepResult NetnsPool::Refill(uint16_t at_most) {
  while (at_most-- > 0 && !full()) {
    if (PULGA_SYS(sys::MarkedUnshare, CLONE_NEWNET) != 0) return {"net-new", errno};
    StepResult prepared = PrepareNetns();
    UniqueFd fd(PULGA_SYS(open, kOwnNetns, O_RDONLY | O_CLOEXEC));
    if (prepared.ok() && !fd.valid()) prepared = {"net-new", errno};
    if (PULGA_SYS(sys::MarkedSetNs, own_.get(), CLONE_NEWNET) != 0) return {"net-own", errno};
    if (!prepared.ok()) return prepared;
    if (attach_fd_ < 0) {
      ready_.push_back({std::move(fd), 0});
      continue;
    }
    const StepResult asked = Attach(std::move(fd));
    if (!asked.ok()) return asked;
  }
  return {};
}

StepResult NetnsPool::Attach(UniqueFd fd) {
  AttachRequest request;
  request.number = next_number_++;
  iovec data = {&request, sizeof request};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = fd.get();
  memcpy(CMSG_DATA(head), &number, sizeof number);
  if (PULGA_SYS(sendmsg, attach_fd_, &message, MSG_NOSIGNAL) < 0) return {"net-attach", errno};
  waiting_.push_back({std::move(fd), request.number});
  return {};
}

void NetnsPool::OnAnswer() {
  AttachAnswer answer;
  const ssize_t n = recv(attach_fd_, &answer, sizeof answer, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n != sizeof answer) _exit(1);  // without the launcher there is nothing to live for
  for (size_t i = 0; i < waiting_.size(); ++i) {
    if (waiting_[i].number != answer.number) continue;
    refused_ = answer.sys_errno;
    if (refused_ == 0) ready_.push_back(std::move(waiting_[i]));
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(i));
    return;
  }
}

SpareNetns NetnsPool::Take(const std::function<bool()>& await) {
  if (ready_.empty() && waiting_.empty()) {
    const uint16_t spare = spare_;
    spare_ = 1;
    refused_ = 0;
    const StepResult made = Refill(1);
    spare_ = spare;
    if (!made.ok()) {
      errno = made.sys_errno;
      return {};
    }
  }
  while (ready_.empty() && !waiting_.empty()) {
    if (!await()) {
      errno = ETIMEDOUT;
      return {};
    }
    OnAnswer();
  }
  if (ready_.empty()) {
    errno = refused_;
    return {};
  }
  SpareNetns out = std::move(ready_.back());
  ready_.pop_back();
  return out;
}

void NetnsPool::Release(SpareNetns used) {
  if (attach_fd_ < 0 || !used.fd.valid()) return;
  const AttachRequest request{AttachKind::kRelease, used.number};
  if (send(attach_fd_, &request, sizeof request, MSG_NOSIGNAL) < 0) _exit(1);
}

int MakeTcpSockets(std::vector<UniqueFd>& fds, uint16_t count) {
  for (uint16_t i = 0; i < count; ++i) {
    UniqueFd fd(PULGA_SYS(socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd.valid()) return errno;
    fds.push_back(std::move(fd));
  }
  return 0;
}

int NetnsPool::MakeSockets(int netns, std::vector<UniqueFd>& fds, uint16_t count) const {
  if (PULGA_SYS(sys::MarkedSetNs, netns, CLONE_NEWNET) != 0) return errno;
  const int failed = MakeTcpSockets(fds, count);
  // Staying in an instance's namespace would hand it to the next one: better to die.
  if (PULGA_SYS(sys::MarkedSetNs, own_.get(), CLONE_NEWNET) != 0) _exit(1);
  return failed;
}

}  // namespace pulga
