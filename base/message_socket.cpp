#include "base/message_socket.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/sys.h"

namespace pulga {
namespace {

// A large buffer is not made for a small message: its zeros are memory that whoever is forked while
// the message is served inherits, and copies the page tables of. Fails as recvmsg would: a message
// that comes after a look that found none may be of any size.
Result<size_t> BytesToExpect(int fd, size_t max_bytes) {
  constexpr size_t kSmall = 4096;
  if (max_bytes <= kSmall) return max_bytes;
  ssize_t n;
  do {
    n = recv(fd, nullptr, 0, MSG_PEEK | MSG_TRUNC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return LastError("recvmsg");
  return std::min(static_cast<size_t>(n), max_bytes);
}

}  // namespace

Result<std::pair<MessageSocket, MessageSocket>> MessageSocket::Pair() {
  int fds[2];
  if (PULGA_SYS(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return LastError("socketpair");
  }
  return std::pair(MessageSocket(UniqueFd(fds[0])), MessageSocket(UniqueFd(fds[1])));
}

Status MessageSocket::Send(std::span<const std::byte> bytes, std::span<const int> fds) const {
  PULGA_CHECK(fds.size() <= kMaxMessageFds);
  iovec iov = {const_cast<std::byte*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxMessageFds)];
  msghdr msg = {};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  if (!fds.empty()) {
    msg.msg_control = control;
    msg.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&msg);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  ssize_t n;
  do {
    n = PULGA_SYS(sendmsg, fd_.get(), &msg, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return LastError("sendmsg");
  return OkStatus();
}

Result<Message> MessageSocket::Receive(size_t max_bytes) const {
  Message out;
  PULGA_ASSIGN_OR_RETURN(const size_t expected, BytesToExpect(fd_.get(), max_bytes));
  out.bytes.resize(expected);
  iovec iov = {out.bytes.data(), out.bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxMessageFds)];
  msghdr msg = {};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  msg.msg_control = control;
  msg.msg_controllen = sizeof control;
  ssize_t n;
  do {
    n = PULGA_SYS(recvmsg, fd_.get(), &msg, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return LastError("recvmsg");
  for (cmsghdr* h = CMSG_FIRSTHDR(&msg); h != nullptr; h = CMSG_NXTHDR(&msg, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
      out.fds.emplace_back(fd);
    }
  }
  out.fds_lost = (msg.msg_flags & MSG_CTRUNC) != 0;
  if ((msg.msg_flags & MSG_TRUNC) != 0) {
    return Error{Code::kTooLarge, EMSGSIZE, "recvmsg: message too large"};
  }
  out.bytes.resize(static_cast<size_t>(n));
  return out;
}

Error NoDescriptorFree(const std::string& what) {
  return Error{Code::kNoSpace, EMFILE,
               what + ": no file descriptor is free: raise the limit of open files (ulimit -n)"};
}

}  // namespace pulga
