// ConnectionClock: how long one client may take for each part of a conversation. Pure: told what
// happens and when, says when patience is over. Needed because the library's own timeout is an
// inactivity timer that one byte every few seconds defeats (cases A01, A02).
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace pulga {

struct ConnectionPatience {
  Duration head = std::chrono::seconds(15);  // first byte of a connection to the end of the head
  Duration idle = std::chrono::seconds(60);  // last reply to the end of the next head
  Duration body = std::chrono::seconds(30);  // may be this long behind min_bytes_per_second
  Duration reply =
      std::chrono::seconds(30);  // each such window must see that rate, or an empty queue
  Duration linger = std::chrono::seconds(2);  // after a refusal, for the client to read it
  uint64_t min_bytes_per_second = 1024;
};

class ConnectionClock {
 public:
  enum class Phase : uint8_t { kHead, kIdle, kBody, kOurs, kReply, kLinger };

  ConnectionClock(const ConnectionPatience& patience, TimePoint now) : patience_(&patience) {
    Enter(Phase::kHead, now);
  }
  Phase phase() const { return phase_; }
  TimePoint entered() const { return entered_; }
  uint64_t body_bytes() const { return body_bytes_; }  // of all its requests
  // kOurs: we are the slow side; the client's time stands still.
  void Enter(Phase phase, TimePoint now);
  void OnBodyBytes(uint64_t bytes, TimePoint now);
  // kReply only: bytes the client's side has acknowledged so far, and what is still queued for it.
  void OnReplyProgress(uint64_t acknowledged, uint64_t queued, TimePoint now);
  bool Expired(TimePoint now) const { return phase_ != Phase::kOurs && now >= deadline_; }

 private:
  const ConnectionPatience* patience_;
  Phase phase_ = Phase::kHead;
  TimePoint entered_;
  TimePoint deadline_;
  Duration body_left_{0};
  bool in_body_ = false;
  uint64_t body_bytes_ = 0;
  uint64_t window_acknowledged_ = 0;
  bool window_known_ = false;
};

}  // namespace pulga
