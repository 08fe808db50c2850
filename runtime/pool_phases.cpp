// Pool, third part: how a version comes and goes: its proof, its wanted size, its draining; what is
// idle, and is frozen or reclaimed.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "runtime/pool.h"

namespace pulga {
namespace {

// Servers keep idle connections for two seconds or more; one of them went by before the freeze.
constexpr Duration kKeptAliveFrozen = std::chrono::seconds(1);

}  // namespace

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
    use_ = PoolSnapshot::Use::kNone;
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
  scaled_ = instances;
  last_used_ = context_.clock.Now();
  use_ = instances == 0 ? PoolSnapshot::Use::kNone : PoolSnapshot::Use::kInUse;  // idle ones go now
  Evaluate();
}

void Pool::NoteRefusals() {
  if (spawner_ == nullptr) return;
  const std::string line = refusals_->Add(spawner_->TakeRefusals(), context_.clock.Now());
  if (line.empty()) return;
  LogWarning("function " + version_->key.name_space + "/" + version_->key.name + ": " + line);
  Remark(line);
}

void Pool::Drain(TimePoint deadline) {
  if (phase_ == PoolPhase::kDraining && deadline >= drain_deadline_) return;
  phase_ = PoolPhase::kDraining;
  drain_deadline_ = deadline;
  context_.loop.Cancel(drain_timer_);
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

bool Pool::IsQuiet(const Instance& instance) {
  return instance.calls.empty() &&
         (instance.step == InstanceStep::kWarm || instance.step == InstanceStep::kFrozen ||
          instance.step == InstanceStep::kReclaimed || instance.step == InstanceStep::kParked);
}

// The instance then idles as it always did. It may be this kernel that has no freezer, or a
// moment's trouble: so it is tried again, less and less often.
void Pool::FreezeFailed(const Error& error) {
  freeze_pause_ = NextFreezePause(freeze_pause_);
  freeze_again_at_ = context_.clock.Now() + freeze_pause_;
  ForgetFreezeWarning();
  freeze_warning_ = "idle instances are not frozen: " + error.message;
  warnings_.push_back(freeze_warning_);
  evaluate_again_ = true;  // by a ladder without that rung
}

void Pool::ForgetFreezeWarning() {
  if (!freeze_warning_.empty()) std::erase(warnings_, freeze_warning_);
  freeze_warning_.clear();
}

void Pool::Freeze(Instance& instance) {
  if (context_.clock.Now() < freeze_again_at_) return;  // another one's has just failed
  const Status frozen = spawner_ == nullptr ? OkStatus() : spawner_->Freeze(instance.slot);
  if (!frozen.ok()) return FreezeFailed(frozen.error());
  freeze_pause_ = Duration::zero();
  ForgetFreezeWarning();
  const uint32_t processes = spawner_ == nullptr ? 0 : spawner_->Processes(instance.slot);
  instance.children = processes > 0 ? processes - 1 : 0;
  instance.frozen_since = context_.clock.Now();
  instance.step = InstanceStep::kFrozen;
  Weigh(instance, Rung::kFrozen, spawner_ == nullptr ? 0 : spawner_->MemoryBytes(instance.slot));
  can_reclaim_ = spawner_ != nullptr && spawner_->CanReclaim().ok();
  if (can_reclaim_) evaluate_again_ = true;  // outside of its warmth it goes on down at once
}

// What is frozen cannot grow: it is counted by what it holds until it is thawed.
void Pool::Weigh(Instance& instance, Rung rung, uint64_t bytes) {
  if (bytes == 0) return;  // unreadable
  Changed();
  book_->costs().NoteBytes(rung, bytes);
  (void)context_.memory.Resize(&instance.memory, std::min(bytes, instance.memory.bytes()));
}

// A thaw, and the instance's end, cancel it.
void Pool::Reclaim(Instance& instance) {
  if (spawner_ == nullptr || instance.step != InstanceStep::kFrozen) return;
  const uint16_t slot = instance.slot;
  const Status asked = spawner_->Reclaim(slot, [this, slot](Result<Reclaimed> reclaimed) {
    const Notifier::Turn turn(context_.notifier);
    Instance* done = Find(slot);
    if (done == nullptr || done->step != InstanceStep::kFrozen) return;
    can_reclaim_ = reclaimed.ok();
    if (!reclaimed.ok()) return Evaluate();
    done->step = InstanceStep::kReclaimed;
    Weigh(*done, Rung::kReclaimed, reclaimed->after_bytes + reclaimed->zram_bytes);
    Evaluate();
  });
  instance.reclaim_asked = asked.ok();
  if (!asked.ok()) can_reclaim_ = false;  // until one is frozen again
}

// False: it cannot be, and is ended. The server's timers went on meanwhile, so it may be about to
// close what it kept alive; a call that cannot be repeated must not be sent into that.
bool Pool::Thaw(Instance& instance) {
  const TimePoint begun = context_.clock.Now();
  const Status thawed = spawner_ == nullptr ? OkStatus() : spawner_->Thaw(instance.slot);
  instance.thaw = context_.clock.Now() - begun;
  if (!thawed.ok()) {
    trouble_ = "an instance could not be thawed: " + thawed.error().message;
    Remark(trouble_);
    Kill(instance);
    return false;
  }
  // What page-ins add shows in the call, not here.
  if (instance.step == InstanceStep::kFrozen) {
    book_->costs().NoteStart(Rung::kFrozen, instance.thaw);
  }
  instance.step = InstanceStep::kWarm;
  instance.reclaim_asked = false;
  if (instance.upstream != nullptr &&
      context_.clock.Now() - instance.frozen_since >= kKeptAliveFrozen) {
    instance.upstream->DropKeptAlive();
  }
  return true;
}

}  // namespace pulga
