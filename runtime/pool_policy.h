// PoolPolicy: every decision about one version's instances, as a pure function from a snapshot to a
// list of actions, each with its reason in one sentence. runtime/pool applies them.
// The fixed rule of today: start on demand up to scale.max; keep scale.min, and while the function
// is in use scale.parked sandboxes ready (exec); stop what has been idle, longest first; drop the
// spawner after twice that time; after failed starts wait 100 ms, doubling to 10 s.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "sandbox/sandbox.h"

namespace pulga {

enum class InstanceStep : uint8_t {
  kParking,   // exec: being built ahead of time
  kParked,    // exec: one execve away
  kStarting,  // http: not yet listening
  kWarm,      // http: takes requests
  kRunning,   // exec: has its one call
  kEnding,    // told to stop, not dead yet; its slot is taken until then
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
};

struct PoolSnapshot {
  SandboxMode mode = SandboxMode::kExec;
  PoolPhase phase = PoolPhase::kActive;
  SpawnerStep spawner = SpawnerStep::kNone;
  enum class Launcher : uint8_t { kUp, kDown } launcher = Launcher::kUp;
  enum class Refill : uint8_t { kLater, kNow } refill = Refill::kNow;  // parked ones: after replies
  uint32_t min = 0;  // scale.min, or what `pulga scale` asked for
  uint32_t max = 4;
  uint32_t concurrency = 1;
  uint32_t parked = 1;
  uint32_t slots = 5;
  Duration idle = std::chrono::seconds(60);
  TimePoint now;
  TimePoint last_used;   // the function's last call began or ended
  TimePoint retry_at;    // no builds and starts before
  uint32_t waiting = 0;  // calls without an instance
  std::vector<InstanceSnapshot> instances;
};

enum class PoolActionKind : uint8_t {
  kBuildSpawner,
  kDropSpawner,
  kStartForCall,  // exec: the first waiting call gets a cold instance
  kStart,         // http
  kPark,          // exec
  kStop,
};
struct PoolAction {
  PoolActionKind kind;
  uint16_t slot = 0;  // all but the spawner's
  std::string reason;
};
struct PoolPlan {
  std::vector<PoolAction> actions;
  std::optional<TimePoint> look_again;  // when time alone may change the answer
};

PoolPlan PlanPool(const PoolSnapshot& pool);

// How long to wait after the n-th failed start in a row, n >= 1.
Duration StartBackOff(uint32_t failures);
// How many calls may wait: the queue, and what instances not there yet will carry.
uint32_t WaitingLimit(const PoolSnapshot& pool, uint32_t queue);

}  // namespace pulga
