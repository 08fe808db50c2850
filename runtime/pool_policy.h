// PoolPolicy: every decision about one version's instances, as a pure function from a snapshot to a
// list of actions, each with its reason in one sentence. runtime/pool applies them.
// Starts on demand up to scale.max; keeps scale.min and what the autoscaler asks for; lets idle
// servers descend by policy/descent and brings one up again before a call that habits foretell;
// keeps scale.parked sandboxes ready (exec) for as long as the function's ladder says; drops the
// spawner after twice the keep-alive time; after failed starts waits 100 ms, doubling to 10 s. Room
// for others is the dispatcher's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "runtime/policy/autoscaler.h"
#include "runtime/policy/descent.h"
#include "runtime/policy/keep_alive.h"
#include "runtime/policy/rung.h"
#include "sandbox/sandbox.h"

namespace pulga {

enum class InstanceStep : uint8_t {
  kParking,    // exec: being built ahead of time
  kParked,     // exec: one execve away
  kStarting,   // http: not yet listening
  kWarm,       // http: takes requests
  kFrozen,     // http: takes requests, once thawed
  kReclaimed,  // http: frozen, and its pages pushed out
  kRunning,    // exec: has its one call
  kEnding,     // told to stop, not dead yet; its slot is taken until then
};
enum class SpawnerStep : uint8_t { kNone, kBuilding, kReady };
enum class PoolPhase : uint8_t {
  kActive,
  kProving,   // a new version that must show one ready instance before it gets traffic
  kDraining,  // no new calls; those it has are finished
};

struct InstanceSnapshot {
  uint16_t slot = 0;
  InstanceStep step = InstanceStep::kParking;
  uint32_t open_calls = 0;
  TimePoint idle_since;  // meaningful with no open call
  // It may still be reclaimed: it was not tried since it was frozen.
  enum class Pages : uint8_t { kIn, kAsked } pages = Pages::kIn;
};

struct PoolSnapshot {
  SandboxMode mode = SandboxMode::kExec;
  PoolPhase phase = PoolPhase::kActive;
  SpawnerStep spawner = SpawnerStep::kNone;
  enum class Launcher : uint8_t { kUp, kDown } launcher = Launcher::kUp;
  enum class Refill : uint8_t { kLater, kNow } refill = Refill::kNow;  // parked ones: after replies
  // kNone: under pressure nothing is made ahead of a call, but for scale.min.
  enum class Ahead : uint8_t { kParked, kNone } ahead = Ahead::kParked;
  uint32_t min = 0;  // scale.min, or what `pulga scale` asked for
  uint32_t max = 4;
  uint32_t concurrency = 1;
  uint32_t parked = 1;
  uint32_t slots = 5;
  Warmth warmth;                       // when a server is to be ready, after a call
  DescentRules descent;                // and how it goes down
  Ladder ladder;                       // the rungs it has; exec: parked
  std::optional<ScaleDecision> scale;  // http: how many its load asks for
  enum class Use : uint8_t { kInUse, kNone } use = Use::kInUse;  // none: nobody called yet
  TimePoint now;
  TimePoint last_used;                    // the version's last call began or ended
  std::optional<TimePoint> unused_since;  // the function's last call ended; none: one is open
  TimePoint retry_at;                     // no builds and starts before
  uint32_t waiting = 0;                   // calls without an instance
  std::vector<InstanceSnapshot> instances;
};

enum class PoolActionKind : uint8_t {
  kBuildSpawner,
  kDropSpawner,
  kStartForCall,  // exec: the first waiting call gets a cold instance
  kStart,         // http
  kPark,          // exec
  kStop,
  kFreeze,   // http
  kReclaim,  // http: of a frozen one
};
struct PoolAction {
  PoolActionKind kind;
  uint16_t slot = 0;  // all but the spawner's
  std::string reason;
  // Somebody waits, or it was promised; else it may only use what is free.
  enum class Urgency : uint8_t { kNow, kAhead } urgency = Urgency::kNow;
};
struct PoolPlan {
  std::vector<PoolAction> actions;
  std::optional<TimePoint> look_again;  // when time alone may change the answer
  // http: and so long after an instance's last call has ended.
  std::optional<Duration> rest;
};

PoolPlan PlanPool(const PoolSnapshot& pool);

// How long to wait after the n-th failed start in a row, n >= 1.
Duration StartBackOff(uint32_t failures);
// After a freeze that failed, and by the pause before that one, until the next is tried.
Duration NextFreezePause(Duration before);
// How many calls may wait: the queue, and what instances not there yet will carry.
uint32_t WaitingLimit(const PoolSnapshot& pool, uint32_t queue);

}  // namespace pulga
