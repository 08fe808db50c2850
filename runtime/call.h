// Call: what all kinds of invocations have in common, and the side of an invocation that its pool
// sees. It waits in the pool's queue, gets an instance, ends with an outcome. Loop thread.
// The front owns it; the pool only points to it, and Finish() or the destructor ends that.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "runtime/buffer_pool.h"
#include "runtime/failure_text.h"
#include "runtime/function_log.h"
#include "runtime/invocation.h"
#include "runtime/memory_budget.h"
#include "runtime/notifier.h"
#include "runtime/sense/pressure.h"
#include "runtime/version.h"
#include "sandbox/feature_shelf.h"
#include "sandbox/sandbox.h"

namespace pulga {

class Pool;
class RoomMaker;
struct Instance;

// What every pool and call works with; outlives them.
struct RuntimeContext {
  EventLoop& loop;
  const Clock& clock;
  Sandbox& sandbox;
  FunctionLogs& logs;
  Notifier& notifier;
  MemoryBudget& memory;
  RoomMaker* room = nullptr;  // null while the dispatcher goes
  BufferPool buffers = {};
  uint64_t open_calls = 0;
  std::function<void()> on_calls_gone;  // open_calls became 0
  FeatureShelf shelf = {};              // of versions whose spawner is gone
  PressureLevel pressure = PressureLevel::kCalm;
  std::string pressure_why = {};
};

// Per function, over all its versions.
struct OutcomeCounts {
  std::array<uint64_t, 12> by_kind = {};  // index: OutcomeKind
  uint64_t invocations = 0;
  void Add(const Outcome& outcome) { ++by_kind[static_cast<size_t>(outcome.kind)]; }
};

// What becomes of the instance when its call ends.
enum class AfterCall : uint8_t {
  kReturn,     // server: it may take the next request
  kCancelled,  // server: the same, but this call says nothing about its health
  kTimedOut,   // server: kept, unless it happens again and again
  kTerminate,  // SIGTERM, SIGKILL after the grace
  kKill,
  kDead,  // it is dead already
};

class Call : public Invocation, public Notifier::Target {
 public:
  Call(RuntimeContext& context, VersionPtr version, std::shared_ptr<OutcomeCounts> counts,
       InvocationRequest request, InvocationObserver& observer);
  ~Call() override;

  const ResponseHead& head() const override { return head_; }
  const Outcome& outcome() const override { return outcome_; }
  const Receipt& receipt() const override { return receipt_; }
  std::string FailureText() const override;

  // --- the pool's side
  virtual void OnInstance(Instance& instance, StartKind start) = 0;
  // The instance is dead; the pool has let go of it.
  virtual void OnInstanceExit(Instance& instance, const InstanceExit& exit,
                              const SlotTimes& times) = 0;
  // Could another instance take this call? Nothing of the request has reached one.
  virtual bool Movable() const = 0;
  // Back to waiting, after OnInstance and with Movable().
  virtual void OnMoved() = 0;
  // Does its duration say how long the function takes for a call?
  virtual bool ShowsLatency() const { return true; }
  // Ends it before it reached a function, or whatever it does now; an answer begun is broken off.
  void Fail(Outcome outcome, AfterCall after, uint32_t retry_after_s = 0);
  void Reject(std::string_view reason, uint32_t retry_after_s);

  Pool* pool = nullptr;  // set by the pool while it knows this call
  Instance* instance = nullptr;
  TimePoint submitted;
  TimePoint queue_deadline;
  bool moved_once = false;
  FailureFacts facts;  // for FailureText

  const Version& version() const { return *version_; }
  const InvocationRequest& request() const { return request_; }
  bool ended() const { return ended_; }
  TimePoint assigned() const { return assigned_; }  // when its instance was given it

 protected:
  void Deliver(Notifier::Kind kind) override;
  void Notify(Notifier::Kind kind) { context_.notifier.Notify(*this, kind); }
  void NotifyHead();
  // The outcome is known and the instance is let go; the answer may still be read.
  void Finish(Outcome outcome, AfterCall after);
  void StartTimeout(AfterCall after);
  void ClearTimeout();
  // For the destructor of the subclass: the client is gone.
  void Abandon(AfterCall after);
  double MillisSince(TimePoint begin) const;
  // What went by since the grant, up to now, that no earlier step of the receipt has.
  void StampFunction();
  // Back to waiting: the next grant makes the receipt anew.
  void ForgetGrant();
  // Subclass: drop what it holds towards the instance; called once, by Finish.
  virtual void CloseIo() = 0;
  bool head_told() const { return head_told_; }

  RuntimeContext& context_;
  VersionPtr version_;
  std::shared_ptr<OutcomeCounts> counts_;
  InvocationRequest request_;
  InvocationObserver& observer_;
  ResponseHead head_;
  Outcome outcome_;
  Receipt receipt_;
  TimePoint assigned_;
  TimePoint function_begun_;  // epoch value: not yet

 private:
  void LogOutcome();

  EventLoop::TimerId timeout_ = 0;
  bool head_told_ = false;
  bool ended_ = false;
};

}  // namespace pulga
