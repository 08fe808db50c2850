// A connected SOCK_SEQPACKET pair: whole messages with file descriptors beside them.
// Received fds are CLOEXEC and owned by the message; more than expected is the caller's check.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

inline constexpr size_t kMaxMessageFds = 253;  // the kernel's SCM_MAX_FD

struct Message {
  std::string bytes;
  std::vector<UniqueFd> fds;
  // Some of the fds were lost: this process had no descriptor free. The bytes are whole and the
  // sender is alive; what the message was about has failed.
  bool fds_lost = false;
};

// What a message with `fds_lost` means for the one who waited for it.
Error NoDescriptorFree(const std::string& what);

class MessageSocket {
 public:
  MessageSocket() = default;
  explicit MessageSocket(UniqueFd fd) : fd_(std::move(fd)) {}
  // Both ends blocking and CLOEXEC.
  static Result<std::pair<MessageSocket, MessageSocket>> Pair();

  bool valid() const { return fd_.valid(); }
  int fd() const { return fd_.get(); }
  UniqueFd TakeFd() { return std::move(fd_); }

  // kUnavailable when the peer is gone or, on a non-blocking socket, its queue is full.
  Status Send(std::span<const std::byte> bytes, std::span<const int> fds = {}) const;
  template <typename Pod>
  Status SendPod(const Pod& pod, std::span<const int> fds = {}) const {
    return Send(std::as_bytes(std::span(&pod, 1)), fds);
  }
  // Up to `max_bytes`; a longer message is kTooLarge and dropped. An empty `bytes` is end of file.
  // kUnavailable with EAGAIN when non-blocking and nothing waits.
  Result<Message> Receive(size_t max_bytes) const;

 private:
  UniqueFd fd_;
};

}  // namespace pulga
