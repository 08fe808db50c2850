#include "api/connection_clock.h"

#include <algorithm>

namespace pulga {

void ConnectionClock::Enter(Phase phase, TimePoint now) {
  if (phase == phase_ && phase == Phase::kOurs) return;
  if (phase_ == Phase::kBody && phase == Phase::kOurs) body_left_ = deadline_ - now;
  if (phase == Phase::kBody && !in_body_) {
    in_body_ = true;
    body_left_ = patience_->body;
  }
  if (phase == Phase::kHead || phase == Phase::kIdle) in_body_ = false;
  phase_ = phase;
  entered_ = now;
  switch (phase) {
    case Phase::kHead:
      deadline_ = now + patience_->head;
      break;
    case Phase::kIdle:
      deadline_ = now + patience_->idle;
      break;
    case Phase::kBody:
      deadline_ = now + body_left_;
      break;
    case Phase::kOurs:
      break;
    case Phase::kReply:
      // Judged by OnReplyProgress; the slack lets a sweep see the window's end first.
      deadline_ = now + 3 * patience_->reply;
      window_known_ = false;
      break;
    case Phase::kLinger:
      deadline_ = now + patience_->linger;
      break;
  }
}

void ConnectionClock::OnBodyBytes(uint64_t bytes, TimePoint now) {
  body_bytes_ += bytes;
  if (phase_ != Phase::kBody) return;
  const uint64_t worth_ms = bytes * 1000 / std::max<uint64_t>(patience_->min_bytes_per_second, 1);
  const auto worth = std::chrono::milliseconds(std::min<uint64_t>(worth_ms, 3600 * 1000));
  // Being fast earns no credit beyond one full patience.
  deadline_ = std::min(deadline_ + worth, now + patience_->body);
}

void ConnectionClock::OnReplyProgress(uint64_t acknowledged, uint64_t queued, TimePoint now) {
  if (phase_ != Phase::kReply) return;
  if (!window_known_) {
    window_known_ = true;
    window_acknowledged_ = acknowledged;
    return;
  }
  if (now - entered_ < patience_->reply) return;
  const double seconds = std::chrono::duration<double>(now - entered_).count();
  const double wanted = static_cast<double>(patience_->min_bytes_per_second) * seconds;
  const bool keeps_up =
      queued == 0 || static_cast<double>(acknowledged - window_acknowledged_) >= wanted;
  if (!keeps_up) {
    deadline_ = now;
    return;
  }
  Enter(Phase::kReply, now);
}

}  // namespace pulga
