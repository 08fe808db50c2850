// Dispatcher: the running side of all functions. One pool per active version; admission, queueing,
// the readiness ladder, switching versions without a failed request, draining, idle removal.
// Loop thread, never blocks. Outlives every Invocation it made. Decisions are runtime/pool_policy's
// (pure); this applies them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "runtime/function_log.h"
#include "runtime/invocation.h"
#include "runtime/version.h"
#include "sandbox/sandbox.h"

namespace pulga {

struct InstanceStatus {
  uint16_t slot = 0;
  std::string step;  // "starting", "parked", "warm", "busy", "frozen", "draining"
  uint32_t open_calls = 0;
  uint64_t memory_bytes = 0;
  int64_t age_ms = 0;
};

struct FunctionActivity {
  uint32_t version = 0;                   // the number that gets the traffic; 0 = none
  std::vector<InstanceStatus> instances;  // of draining versions too
  uint32_t queued = 0;
  std::map<std::string, uint64_t> outcomes;  // by OutcomeName's part before ':'
  uint64_t invocations = 0;
  std::string last_decision;  // one sentence: what the pool last did, and why
  std::string trouble;        // "the launcher is restarting", a build error, back-off; "" normally
  std::vector<std::string> warnings;  // what this kernel does not enforce, once a spawner was built
};

struct DispatcherTotals {
  uint64_t memory_budget_bytes = 0;
  uint64_t memory_used_bytes = 0;  // by limits, not by what is resident
  uint32_t instances = 0;          // parked ones too
  uint64_t open_calls = 0;
};

struct DispatcherConfig {
  uint64_t memory_budget_bytes = 0;  // all instances together; 0 = from the board
  uint32_t max_instances = 512;
  Duration idle = std::chrono::seconds(60);  // the fixed rule behind scale.idle = auto
  Duration drain_timeout = std::chrono::seconds(60);
};

class Dispatcher {
 public:
  static std::unique_ptr<Dispatcher> Create(DispatcherConfig config, EventLoop& loop,
                                            const Clock& clock, Sandbox& sandbox,
                                            FunctionLogs& logs);
  virtual ~Dispatcher() = default;

  // Makes `version` the one that gets traffic once it has proven itself: its spawner is built, so
  // its command exists and runs on this board. One instance of it is ready as well with
  // scale.min > 0, and in place of another version in http mode, or of one that has instances.
  // Then the older one drains; on an error it stays. A first version for which there is no room
  // just now (kNoSpace) is taken unproven: nothing of it would fit before either.
  virtual void Activate(VersionPtr version, std::function<void(Status)> done) = 0;
  // The same for what has proven itself before, at once: nothing is built until it is needed.
  virtual void Restore(VersionPtr version, std::function<void()> done) = 0;
  // No new calls; running ones end by themselves or by drain_timeout; then everything is removed.
  virtual void Deactivate(const FunctionKey& key, std::function<void()> done) = 0;
  // How many instances to keep until changed (`pulga scale`), in place of scale.min; more are still
  // started on demand. 0: idle ones go at once. kInvalidArgument above scale.max.
  virtual Status Scale(const FunctionKey& key, uint32_t instances) = 0;

  // Never null: an unknown function or a rejection is told through head() and outcome().
  virtual std::unique_ptr<Invocation> Invoke(InvocationRequest request,
                                             InvocationObserver& observer) = 0;

  virtual FunctionActivity Activity(const FunctionKey& key) const = 0;
  virtual DispatcherTotals Totals() const = 0;
  // Rejects new calls (shutting-down), lets open ones finish until `deadline`, then ends each with
  // an outcome; `done` when none is left.
  virtual void Drain(TimePoint deadline, std::function<void()> done) = 0;
  // The launcher came back: spawners may be built again.
  virtual void OnSandboxAvailable() = 0;
};

}  // namespace pulga
