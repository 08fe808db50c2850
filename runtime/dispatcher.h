// Dispatcher: the running side of all functions. One pool per active version; admission, queueing,
// the readiness ladder, switching versions without a failed request, draining, idle removal.
// Loop thread, never blocks. Outlives every Invocation it made. Decisions are runtime/pool_policy's
// (pure); this applies them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "runtime/function_book.h"
#include "runtime/function_log.h"
#include "runtime/invocation.h"
#include "runtime/policy/rung.h"
#include "runtime/sense/pressure.h"
#include "runtime/version.h"
#include "sandbox/sandbox.h"

namespace pulga {

struct InstanceStatus {
  uint16_t slot = 0;
  std::string step;  // "starting", "parked", "warm", "busy", "frozen", "reclaimed", "draining"
  uint32_t open_calls = 0;
  InstanceMemory memory;
  int64_t age_ms = 0;
  std::optional<Duration> cpu_used;  // server: since it began; none: it is not told
  uint32_t children = 0;             // http: processes beside PID 1 when it was last frozen
};

// A rung of a function's ladder: as seen lately, or assumed where `starts` or `sights` is 0.
struct RungStatus {
  std::string_view rung;
  RungCost cost;
  uint32_t starts = 0;  // from there
  uint32_t sights = 0;  // of what is held there
};

struct FunctionActivity {
  uint32_t version = 0;                   // the number that gets the traffic; 0 = none
  std::vector<InstanceStatus> instances;  // of draining versions too
  uint32_t queued = 0;
  std::optional<uint32_t> scaled;            // by Scale, in place of scale.min
  std::map<std::string, uint64_t> outcomes;  // by OutcomeName's part before ':'
  uint64_t invocations = 0;
  // System calls its instances were refused, by name, since the daemon started.
  std::map<std::string_view, uint64_t> refused;
  std::string last_decision;        // one sentence: what the pool last did, and why
  std::vector<Decision> decisions;  // the last ones but for those of each call, the newest last
  InstanceSize size;                // what each instance may use now
  std::string keep_alive;           // how long idle instances stay, and why so long
  std::vector<RungStatus> costs;    // from warm down to cold
  std::string trouble;  // "the launcher is restarting", a build error, back-off; "" normally
  std::vector<std::string> warnings;  // what this kernel does not enforce, once a spawner was built
  std::vector<Feature> isolation;     // what its instances really got, once a spawner was built
};

struct DispatcherTotals {
  uint64_t memory_budget_bytes = 0;
  uint64_t memory_used_bytes = 0;  // by limits, not by what is resident; but for frozen ones
  uint32_t instances = 0;          // parked ones too
  uint64_t open_calls = 0;
  bool calls_need_room = false;  // one of them waits for memory, or for a place
};

struct DispatcherConfig {
  uint64_t memory_budget_bytes = 256ULL << 20;  // all instances together; DefaultMemoryBudget
  uint32_t max_instances = 512;
  Duration idle = std::chrono::seconds(60);           // the fixed rule behind scale.idle = auto
  Duration drain_timeout = std::chrono::seconds(60);  // a replaced version: as its calls may take
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

  // What was learned about functions since this was asked last, for a row.
  using LearnedByKey = std::vector<std::pair<FunctionKey, Learned>>;
  virtual LearnedByKey TakeLearned() = 0;
  // What was learned in an earlier life: before the function is restored.
  virtual void Recall(const FunctionKey& key, Learned learned) = 0;

  virtual FunctionActivity Activity(const FunctionKey& key) const = 0;
  // For lists of all functions, cheap: steps, counts, each instance's memory in one number.
  virtual FunctionActivity Glance(const FunctionKey& key) const = 0;
  virtual DispatcherTotals Totals() const = 0;
  // Rejects new calls (shutting-down), lets open ones finish until `deadline`, then ends each with
  // an outcome; `done` when none is left.
  virtual void Drain(TimePoint deadline, std::function<void()> done) = 0;
  // The launcher came back: spawners may be built again.
  virtual void OnSandboxAvailable() = 0;
  // What the board asks for, and in which words. Said again while it lasts: each time some idle
  // instances beyond scale.min go (kShrink: servers, from kDelay on parked ones too, at kShed all);
  // no server is started ahead of a call from kShrink on, nothing parked from kDelay on; at kShed
  // calls that find no instance are refused.
  virtual void SetPressure(PressureLevel level, const std::string& why) = 0;
};

}  // namespace pulga
