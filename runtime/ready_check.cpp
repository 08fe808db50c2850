#include "runtime/ready_check.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace pulga {
namespace {

constexpr Duration kPatience = std::chrono::seconds(1);
constexpr size_t kStatusEnd = std::string_view("HTTP/1.1 200").size();

std::string RequestFor(const std::string& path) {
  return "GET " + path +
         " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: pulga-ready\r\nConnection: close\r\n\r\n";
}

bool IsSuccess(const std::string& answer) {
  return answer.size() >= kStatusEnd && answer.starts_with("HTTP/1.") && answer[8] == ' ' &&
         answer[9] == '2';
}

}  // namespace

ReadyCheck::ReadyCheck(EventLoop& loop, Notifier& notifier, Upstream& upstream, ReadyProbe probe,
                       std::function<void()> ready)
    : loop_(loop),
      notifier_(notifier),
      upstream_(upstream),
      probe_(std::move(probe)),
      ready_(std::move(ready)) {
  OnTimer(probe_.initial_delay, &ReadyCheck::Ask);
}

ReadyCheck::~ReadyCheck() {
  upstream_.Cancel(this);
  loop_.Cancel(timer_);
}

void ReadyCheck::OnTimer(Duration delay, void (ReadyCheck::*what)()) {
  loop_.Cancel(timer_);
  timer_ = loop_.CallAfter(delay, [this, what] {
    const Notifier::Turn turn(notifier_);
    timer_ = 0;
    (this->*what)();
  });
}

void ReadyCheck::Ask() {
  OnTimer(kPatience, &ReadyCheck::AskAgain);
  auto connection = upstream_.Acquire(this, Upstream::Want::kFresh);
  if (connection != nullptr) OnConnection(std::move(connection));
}

void ReadyCheck::AskAgain() {
  upstream_.Cancel(this);
  connection_.reset();
  OnTimer(probe_.period, &ReadyCheck::Ask);
}

void ReadyCheck::OnConnection(std::unique_ptr<UpstreamConnection> connection) {
  connection_ = std::move(connection);
  unsent_ = RequestFor(probe_.path);
  answer_.clear();
  Exchange();
}

void ReadyCheck::OnUpstream(uint32_t) {
  if (connection_ != nullptr) Exchange();
}

void ReadyCheck::Exchange() {
  if (!unsent_.empty()) {
    const SendResult sent = SendTwo(connection_->fd(), unsent_, {});
    if (sent.state == SendResult::State::kBroken) return AskAgain();
    unsent_.erase(0, sent.size);
  }
  while (answer_.size() < kStatusEnd) {
    char bytes[kStatusEnd];
    const ssize_t n = recv(connection_->fd(), bytes, kStatusEnd - answer_.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) return;  // OnUpstream, or the timer
    if (n <= 0) return AskAgain();
    answer_.append(bytes, static_cast<size_t>(n));
  }
  if (!IsSuccess(answer_)) return AskAgain();
  connection_.reset();
  loop_.Cancel(std::exchange(timer_, 0));
  const std::function<void()> ready = std::exchange(ready_, nullptr);
  ready();
}

}  // namespace pulga
