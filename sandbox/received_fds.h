// The descriptors that came with one message, for code that may not allocate: a forked child and
// the spawner's request path. Takes what a msghdr holds after recvmsg: none, one, the three of
// stdio, or these and a channel; of anything else every one is closed at once. Async-signal-safe.
// The kernel rounds a control buffer up, so that one may hold more than was sized for: no count is
// trusted.
#pragma once

#include <sys/socket.h>

namespace pulga {

inline constexpr int kStdioFds = 3;
inline constexpr int kStdioAndChannelFds = 4;
inline constexpr size_t kStdioControlBytes = CMSG_SPACE(kStdioAndChannelFds * sizeof(int));

// Room for one message and what comes with it; the bytes are the caller's.
class StdioMessage {
 public:
  StdioMessage(char* bytes, size_t size) : bytes_{bytes, size} {}
  StdioMessage(const StdioMessage&) = delete;
  StdioMessage& operator=(const StdioMessage&) = delete;
  // As recvmsg; every descriptor is CLOEXEC from birth.
  ssize_t Receive(int socket, int flags);
  msghdr& header() { return header_; }

 private:
  iovec bytes_;
  msghdr header_ = {};
  alignas(cmsghdr) char control_[kStdioControlBytes];
};

class ReceivedFds {
 public:
  // `message` as recvmsg left it; its control buffer must be aligned like a cmsghdr.
  explicit ReceivedFds(msghdr& message);
  ~ReceivedFds() { CloseAll(); }
  ReceivedFds(const ReceivedFds&) = delete;
  ReceivedFds& operator=(const ReceivedFds&) = delete;

  // False: a wrong number, a wrong kind of control data, or a cut message. Holds none then.
  bool proper() const { return proper_; }
  int count() const { return count_; }
  // As many as count() says, still owned by this object.
  const int* fds() const { return fd_; }
  // The caller owns them from now on.
  void Release() { count_ = 0; }

 private:
  void Take(const cmsghdr& header);
  void CloseAll();

  int fd_[kStdioAndChannelFds] = {-1, -1, -1, -1};
  int count_ = 0;
  bool proper_ = true;
};

}  // namespace pulga
