#include "api/upgraded_connection.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace pulga {
namespace {

constexpr size_t kBlock = 32 * 1024;
constexpr int kBlocksPerTurn = 8;  // each way, so that a flood leaves the others their turn

}  // namespace

UpgradedConnection::UpgradedConnection(EventLoop& loop, Client client, HttpHandler& handler,
                                       std::function<void()> on_end)
    : loop_(loop),
      fd_(client.fd),
      handler_(handler),
      on_end_(std::move(on_end)),
      in_(std::move(client.received)) {}

Status UpgradedConnection::Start() {
  PULGA_RETURN_IF_ERROR(
      loop_.Watch(fd_, EPOLLIN | EPOLLOUT, [this](uint32_t events) { OnReady(events); }));
  watching_ = true;
  return OkStatus();
}

void UpgradedConnection::Stop() {
  ended_ = true;
  if (std::exchange(watching_, false)) loop_.Unwatch(fd_);
}

void UpgradedConnection::Continue() {
  if (!ended_) OnReady(0);
}

void UpgradedConnection::OnReady(uint32_t events) {
  PumpIn();
  // Gone for good. Its last bytes are of no use to a handler that does not take them.
  const bool gone = (events & (EPOLLERR | EPOLLHUP)) != 0;
  if (!ended_ && gone && (client_ended_ || !in_.empty())) End();
  if (!ended_) PumpOut();
  if (!ended_) Rearm();
}

void UpgradedConnection::PumpIn() {
  for (int blocks = 0; blocks < kBlocksPerTurn && !ended_; ++blocks) {
    if (in_.empty() && (client_ended_ || !Receive())) return;
    in_.erase(0, handler_.OnBody(in_));
    if (!in_.empty()) return;
  }
}

bool UpgradedConnection::Receive() {
  char block[kBlock];
  const ssize_t n = recv(fd_, block, sizeof block, MSG_DONTWAIT);
  if (n > 0) {
    in_.assign(block, static_cast<size_t>(n));
  } else if (n == 0) {
    client_ended_ = true;
    handler_.OnBodyEnd();
  } else if (errno != EAGAIN && errno != EINTR) {
    End();
  }
  return n > 0;
}

void UpgradedConnection::PumpOut() {
  char block[kBlock];
  may_have_more_ = false;
  for (int blocks = 0; blocks < kBlocksPerTurn; ++blocks) {
    if (!Send()) return;
    const ReadResult result = handler_.Read(block, sizeof block);
    if (result.state == ReadState::kWait) return;
    if (result.state != ReadState::kData) return End();
    out_.assign(block, result.size);
  }
  may_have_more_ = true;
}

bool UpgradedConnection::Send() {
  while (!out_.empty()) {
    const ssize_t n = send(fd_, out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      out_.erase(0, static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      End();
      return false;
    }
  }
  return true;
}

// Without any it still tells of a reset.
void UpgradedConnection::Rearm() {
  const uint32_t in = in_.empty() && !client_ended_ ? EPOLLIN : 0U;
  const uint32_t out = !out_.empty() || may_have_more_ ? EPOLLOUT : 0U;
  if (!loop_.Modify(fd_, in | out).ok()) End();
}

void UpgradedConnection::End() {
  if (ended_) return;
  Stop();
  on_end_();
}

}  // namespace pulga
