#include "base/outgoing_messages.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace pulga {
namespace {

// A full socket holds some hundred messages, more than the peer serves meanwhile. By time and not
// by EPOLLOUT: a user who has too many descriptors under way (ETOOMANYREFS) is not told when that
// ends.
constexpr Duration kRetry = std::chrono::milliseconds(2);

bool IsFull(const Error& error) {
  return error.sys_errno == EAGAIN || error.sys_errno == ETOOMANYREFS ||
         error.sys_errno == ENOBUFS || error.sys_errno == ENOMEM;
}

}  // namespace

Status OutgoingMessages::Send(std::span<const std::byte> bytes, std::span<const int> fds) {
  if (kept_.empty()) {
    const Status sent = socket_.Send(bytes, fds);
    if (sent.ok() || !IsFull(sent.error())) return sent;
  }
  Kept kept = {std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), {}};
  for (const int fd : fds) {
    kept.fds.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!kept.fds.back().valid()) return LastError("keep a descriptor for later");
  }
  kept_.push_back(std::move(kept));
  if (kept_.size() == 1) TryLater();
  return OkStatus();
}

void OutgoingMessages::TryLater() {
  retry_ = loop_.CallAfter(kRetry, [this] { SendKept(); });
}

void OutgoingMessages::SendKept() {
  retry_ = 0;
  for (; !kept_.empty(); kept_.pop_front()) {
    const Kept& next = kept_.front();
    std::vector<int> fds;
    for (const UniqueFd& fd : next.fds) fds.push_back(fd.get());
    const Status sent = socket_.Send(std::as_bytes(std::span(next.bytes)), fds);
    if (sent.ok()) continue;
    if (IsFull(sent.error())) return TryLater();
    // The peer is gone, or what it waits for will never come: either way this is the end of both.
    shutdown(socket_.fd(), SHUT_RDWR);
    return kept_.clear();
  }
}

void OutgoingMessages::Clear() {
  loop_.Cancel(std::exchange(retry_, 0));
  kept_.clear();
}

}  // namespace pulga
