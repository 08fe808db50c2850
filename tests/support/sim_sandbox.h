// SimSandbox: sandboxes of a simulation. Nothing runs: programs are timers of the loop that write a
// line to a real pipe, servers answer by such timers (sim_server.h), are frozen, and reclaimed.
// What the pool may never do is noted in `broken`. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "sandbox/sandbox.h"
#include "tests/support/sandbox_without_layers.h"

namespace pulga::testing {

class SimSpawner;

class SimSandbox final : public SandboxWithoutLayers {
 public:
  struct Odds {  // one in so many
    uint32_t build_fails = 25, start_fails = 60, start_refused = 80, program_fails = 15, hangs = 60;
    uint32_t freeze_fails = 40, reclaim_fails = 20;
  };
  SimSandbox(EventLoop& loop, const Clock& clock, uint32_t seed)
      : loop_(loop), clock_(clock), random_(seed) {}

  bool available() const override { return available_; }
  void BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) override;

  void KillLauncher();  // until it is back all builds fail
  void Revive() { available_ = true; }

  // What there is now, as a board would count it.
  struct Count {
    uint32_t instances = 0;
    // Programs and servers by their limit; parked and frozen ones by what those hold.
    uint64_t bytes = 0;
  };
  // Where a version has more programs, or servers, than it may (those that were told to end do not
  // count), that is broken.
  Count Look();
  size_t spawners() const { return spawners_.size(); }
  // From none to `longest`, each as likely.
  Duration Within(Duration longest) {
    return Duration(static_cast<int64_t>(random_() % static_cast<uint64_t>(longest.count() + 1)));
  }

  Odds odds;
  Duration longest_call = std::chrono::milliseconds(300);
  bool swap = false;                 // what is frozen can be reclaimed
  struct Limits {                    // of a version
    uint32_t programs = UINT32_MAX;  // or servers
    uint32_t calls = UINT32_MAX;     // at once, at each of its servers
  };
  std::map<uint64_t, Limits> limits;  // by the version's id
  std::string broken;
  uint64_t builds = 0, programs = 0, freezes = 0, thaws = 0, reclaims = 0;

 private:
  friend class SimSpawner;
  uint32_t Below(uint32_t end) { return static_cast<uint32_t>(random_() % end); }
  bool Happens(uint32_t one_in) { return one_in != 0 && Below(one_in) == 0; }
  void Break(const std::string& what) {
    if (broken.empty()) broken = what;
  }

  EventLoop& loop_;
  const Clock& clock_;
  std::mt19937_64 random_;
  bool available_ = true;
  std::vector<SimSpawner*> spawners_;  // oldest first: a seed repeats whatever addresses they have
};

}  // namespace pulga::testing
