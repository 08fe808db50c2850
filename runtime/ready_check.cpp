#include "runtime/ready_check.h"

#include <sys/socket.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "base/text.h"

namespace pulga {
namespace {

constexpr Duration kPatience = std::chrono::seconds(1);
constexpr size_t kStatusEnd = std::string_view("HTTP/1.1 200").size();

std::string RequestFor(const std::string& path) {
  return "GET " + path +
         " HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: pulga-ready\r\nConnection: close\r\n\r\n";
}

// 0: no status.
int StatusOf(std::string_view answer) {
  if (!answer.starts_with("HTTP/1.") || answer[8] != ' ') return 0;
  return static_cast<int>(ParseUint(answer.substr(9, 3), 999).value_or(0));
}

}  // namespace

ReadyCheck::ReadyCheck(EventLoop& loop, Notifier& notifier, Upstream& upstream, ReadyProbe probe,
                       std::function<void()> ready)
    : loop_(loop),
      notifier_(notifier),
      upstream_(upstream),
      probe_(std::move(probe)),
      ready_(std::move(ready)),
      begun_(loop.Now()) {
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
  OnTimer(kPatience, &ReadyCheck::OnNoAnswer);
  auto connection = upstream_.Acquire(this, Upstream::Want::kAny);
  if (connection != nullptr) OnConnection(std::move(connection));
}

void ReadyCheck::AskAgain() {
  upstream_.Cancel(this);
  connection_.reset();
  OnTimer(probe_.period, &ReadyCheck::Ask);
}

void ReadyCheck::OnNoAnswer() {
  probe_.rule == ReadyProbe::Rule::kUnlessBusy ? IsReady() : AskAgain();
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
    if (sent.state == SendResult::State::kBroken) return OnNoAnswer();
    unsent_.erase(0, sent.size);
  }
  while (answer_.size() < kStatusEnd) {
    char bytes[kStatusEnd];
    const ssize_t n = recv(connection_->fd(), bytes, kStatusEnd - answer_.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) return;  // OnUpstream, or the timer
    if (n <= 0) return OnNoAnswer();
    answer_.append(bytes, static_cast<size_t>(n));
  }
  OnStatus();
}

void ReadyCheck::OnStatus() {
  const int status = StatusOf(answer_);
  const bool ready = probe_.rule == ReadyProbe::Rule::kSuccess
                         ? status / 100 == 2
                         : status != 503 || loop_.Now() - begun_ >= probe_.believed;
  ready ? IsReady() : AskAgain();
}

void ReadyCheck::IsReady() {
  upstream_.Cancel(this);
  connection_.reset();
  loop_.Cancel(std::exchange(timer_, 0));
  const std::function<void()> ready = std::exchange(ready_, nullptr);
  ready();
}

}  // namespace pulga
