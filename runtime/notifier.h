// Notifier: tells observers what happened, but never from inside a call of the front and never in
// the middle of our own work. Inside a Turn (a loop callback of ours) it waits for the turn's end;
// inside a FrontCall it waits for the loop's next timers, which costs no system call. Loop thread.
#pragma once

#include <cstdint>
#include <deque>

#include "base/event_loop.h"

namespace pulga {

class Notifier {
 public:
  enum Kind : uint8_t { kHead = 1, kReadable = 2, kWritable = 4 };
  class Target {
   public:
    virtual ~Target() = default;
    virtual void Deliver(Kind kind) = 0;  // may destroy the target
    uint8_t pending_notices = 0;          // the notifier's own note
  };

  explicit Notifier(EventLoop& loop) : loop_(loop) {}
  ~Notifier() { loop_.Cancel(timer_); }
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  class Turn {
   public:
    explicit Turn(Notifier& notifier) : notifier_(notifier) { ++notifier_.turns_; }
    ~Turn() {
      if (--notifier_.turns_ == 0) notifier_.EndTurn();
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Notifier& notifier_;
  };
  class FrontCall {
   public:
    explicit FrontCall(Notifier& notifier) : notifier_(notifier) { ++notifier_.front_calls_; }
    ~FrontCall() {
      if (--notifier_.front_calls_ == 0) notifier_.FlushLater();
    }
    FrontCall(const FrontCall&) = delete;
    FrontCall& operator=(const FrontCall&) = delete;

   private:
    Notifier& notifier_;
  };

  void Notify(Target& target, Kind kind);
  void Forget(Target& target);  // it is going away

 private:
  void EndTurn();
  void FlushLater();
  void Flush();

  EventLoop& loop_;
  std::deque<Target*> queue_;
  Target* current_ = nullptr;
  EventLoop::TimerId timer_ = 0;
  int turns_ = 0;
  int front_calls_ = 0;
  bool flushing_ = false;
};

}  // namespace pulga
