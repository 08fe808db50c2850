// Pool, third part: how a version comes and goes: its proof, its wanted size, its draining, and the
// room it makes for others.
#include <algorithm>
#include <utility>

#include "runtime/pool.h"

namespace pulga {

void Pool::Prove(Proof proof, std::function<void(Status)> done) {
  proof_ = proof;
  proof_done_ = std::move(done);
  if (!context_.sandbox.available()) {
    return EndProof(Error{Code::kUnavailable, 0, "the launcher is restarting; try again"});
  }
  if (proof == Proof::kInstance) {
    phase_ = PoolPhase::kProving;
  } else if (spawner_step_ == SpawnerStep::kNone) {
    // Nobody has called yet: the spawner stays for a while, but nothing is parked.
    last_used_ = context_.clock.Now() - idle_;
    BuildSpawner();
  }
  Evaluate();
}

void Pool::CheckProof() {
  if (!proof_done_ || spawner_step_ != SpawnerStep::kReady) return;
  const bool ready =
      proof_ == Proof::kSpawner ||
      std::any_of(instances_.begin(), instances_.end(), [](const auto& instance) {
        return instance->step == InstanceStep::kParked || instance->step == InstanceStep::kWarm;
      });
  if (ready) EndProof(OkStatus());
}

void Pool::EndProof(Status status) {
  if (phase_ == PoolPhase::kProving) phase_ = PoolPhase::kActive;
  const std::function<void(Status)> done = std::exchange(proof_done_, nullptr);
  if (done) done(std::move(status));
}

void Pool::SetWanted(uint32_t instances) {
  min_ = instances;
  if (instances == 0) last_used_ = context_.clock.Now() - idle_;  // idle ones go now
  for (const auto& instance : instances_) {
    if (instances == 0) instance->idle_since = std::min(instance->idle_since, last_used_);
  }
  Evaluate();
}

void Pool::Drain(TimePoint deadline) {
  phase_ = PoolPhase::kDraining;
  drain_timer_ = context_.loop.CallAt(deadline, [this] {
    const Notifier::Turn turn(context_.notifier);
    drain_timer_ = 0;
    EndAllCalls();
    for (const auto& instance : instances_) Kill(*instance);
    Evaluate();
  });
  Evaluate();
}

bool Pool::empty() const {
  return instances_.empty() && waiting_.empty() && expected_.empty() &&
         spawner_step_ == SpawnerStep::kNone;
}

// Told from the loop, because the dispatcher then destroys this pool.
void Pool::TellIfEmpty() {
  if (phase_ != PoolPhase::kDraining || !on_empty_ || !empty() || empty_timer_ != 0) return;
  empty_timer_ = context_.loop.CallAt(context_.loop.Now(), [this] {
    empty_timer_ = 0;
    const std::function<void()> tell = on_empty_;
    if (empty() && tell) tell();
  });
}

std::optional<TimePoint> Pool::IdleSince() const {
  std::optional<TimePoint> longest;
  for (const auto& instance : instances_) {
    const bool quiet =
        instance->step == InstanceStep::kWarm || instance->step == InstanceStep::kParked;
    if (!quiet || !instance->calls.empty()) continue;
    if (!longest || instance->idle_since < *longest) longest = instance->idle_since;
  }
  return longest;
}

bool Pool::StopLongestIdle() {
  const std::optional<TimePoint> longest = IdleSince();
  if (!longest) return false;
  for (const auto& instance : instances_) {
    const bool quiet =
        instance->step == InstanceStep::kWarm || instance->step == InstanceStep::kParked;
    if (!quiet || !instance->calls.empty() || instance->idle_since != *longest) continue;
    last_decision_ = "stops an instance: another function needs the memory";
    Stop(*instance);
    return true;
  }
  return false;
}

}  // namespace pulga
