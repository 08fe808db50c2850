// Pool, sixth part: how large its instances are, where limits.memory or limits.cpu is a range. What
// they use is looked at while calls come and when they end; policy/resizer decides; the budget is
// asked before more memory is taken, and gets back what was given up only once the kernel has it.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/units.h"
#include "runtime/pool.h"

namespace pulga {
namespace {

// So much of its memory in use is pressure, though nothing slowed it down yet.
constexpr double kNearLimit = 0.9;
// So often held up by its quota, of all periods of 100 ms.
constexpr double kOftenHeldUp = 0.25;
constexpr Duration kQuotaPeriod = std::chrono::milliseconds(100);
// Shorter ones say nothing about how much processor a program could use.
constexpr Duration kLeastRun = std::chrono::milliseconds(200);
// What was refused: each ask makes others give way, and is told.
constexpr Duration kAskedAgain = std::chrono::seconds(10);

std::string Sizes(const ResizeDecision& decision, std::string (*format)(uint64_t)) {
  return " from " + format(decision.before) + " to " + format(decision.limit);
}

UseSnapshot& Seen(std::optional<UseSnapshot>* use) {
  return *use ? **use : *(*use = UseSnapshot());
}

// A file that could not be read says 0.
InstanceCpu Spent(const InstanceCpu& before, const InstanceCpu& now) {
  return {std::max(now.used - before.used, Duration::zero()),
          now.throttled > before.throttled ? now.throttled - before.throttled : 0};
}

std::string Cpu(uint64_t millis) { return FormatCpuMillis(static_cast<uint32_t>(millis)); }

}  // namespace

InstanceSize Pool::SmallestSize() const {
  const FunctionSpec& spec = version_->spec;
  return {spec.least_memory_bytes != 0 ? spec.least_memory_bytes : spec.sandbox.memory_bytes,
          spec.least_cpu_millis != 0 ? spec.least_cpu_millis : spec.sandbox.cpu_millis};
}

// As the function's last version had it, within this one's range. What was learned under a larger
// memory budget would never fit.
void Pool::StartSizes() {
  const InstanceSize least = SmallestSize();
  const InstanceSize most = {version_->spec.sandbox.memory_bytes,
                             version_->spec.sandbox.cpu_millis};
  const InstanceSize last = book_->size().value_or(least);
  const uint64_t room = std::min(most.memory_bytes, context_.memory.total());
  size_ = {std::clamp(last.memory_bytes, least.memory_bytes, std::max(least.memory_bytes, room)),
           std::clamp(last.cpu_millis, least.cpu_millis, most.cpu_millis)};
  if (least == most) return;
  sizer_ = std::make_unique<Sizer>();
  sizer_->has_memory = least.memory_bytes != most.memory_bytes;
  sizer_->has_cpu = least.cpu_millis != most.cpu_millis;
}

// --- looking

void Pool::NoteUse(const Instance& instance, std::optional<InstanceCpu> cpu, Duration time) {
  if (!sizer_ || spawner_ == nullptr) return;
  if (sizer_->has_memory) {
    const InstanceMemory memory = spawner_->Memory(instance.slot);
    if (memory.total != 0)
      NoteMemory(memory.anon + memory.kernel);  // files in memory make room by themselves
  }
  if (!sizer_->has_cpu || !cpu || !instance.cpu || time <= Duration::zero()) return;
  NoteCpu(Spent(*instance.cpu, *cpu), time);
}

void Pool::NoteMemory(uint64_t own) {
  UseSnapshot& use = Seen(&sizer_->memory_use);
  use.peak = std::max(use.peak, own);
  if (static_cast<double>(own) >= static_cast<double>(size_.memory_bytes) * kNearLimit)
    ++use.pressed;
}

void Pool::NoteCpu(const InstanceCpu& spent, Duration time) {
  UseSnapshot& use = Seen(&sizer_->cpu_use);
  use.peak = std::max<uint64_t>(use.peak, static_cast<uint64_t>(1000 * spent.used / time));
  const auto periods = static_cast<double>(time / kQuotaPeriod);
  if (static_cast<double>(spent.throttled) > std::max(periods, 1.0) * kOftenHeldUp) {
    use.pressed += spent.throttled;
  }
}

// A program's whole life, or a server's end.
void Pool::NoteEnd(const Instance& instance, const InstanceExit& exit, const SlotTimes& times) {
  const std::optional<InstanceCpu> cpu =
      spawner_ == nullptr ? std::nullopt : spawner_->Cpu(exit.slot);
  if (cpu && IsServer(version_->mode)) cpu_before_[exit.slot] = cpu->used;
  if (!sizer_ || phase_ == PoolPhase::kDraining) return;
  if (exit.oom_killed) ++Seen(&sizer_->memory_use).killed;
  if (version_->mode == SandboxMode::kExec) {
    const bool ran = times.exec != TimePoint();
    // The peak has files in it too: it may only keep the limit where it is.
    if (ran && exit.memory_peak_bytes != 0) {
      UseSnapshot& use = Seen(&sizer_->memory_use);
      use.peak = std::max(use.peak, exit.memory_peak_bytes);
    }
    const Duration time = context_.clock.Now() - std::max(times.exec, instance.launched);
    if (cpu) {  // else the next one would pay for all that this slot ever used
      const InstanceCpu before = std::exchange(sizer_->slots[exit.slot], *cpu);
      if (ran && time >= kLeastRun) NoteCpu(Spent(before, *cpu), time);
    }
  }
  PlanSizes();
}

// --- deciding

void Pool::PlanSizes() {
  if (!sizer_ || sizer_->asked || phase_ != PoolPhase::kActive) return;
  const InstanceSize least = SmallestSize();
  const SandboxLimits& most = version_->spec.sandbox;
  InstanceSize wanted = size_;
  std::vector<std::string> why;
  if (sizer_->has_memory) {
    const ResizeDecision decision =
        PlanSize(&sizer_->memory_use, size_.memory_bytes,
                 ResizeRules::Memory(least.memory_bytes, most.memory_bytes), &sizer_->memory);
    wanted.memory_bytes = decision.limit;
    Tell(decision, "limits.memory" + Sizes(decision, FormatBytes), &sizer_->memory_told, &why);
  }
  if (sizer_->has_cpu) {
    const ResizeDecision decision =
        PlanSize(&sizer_->cpu_use, size_.cpu_millis,
                 ResizeRules::Cpu(least.cpu_millis, most.cpu_millis), &sizer_->cpu);
    wanted.cpu_millis = static_cast<uint32_t>(decision.limit);
    Tell(decision, "limits.cpu" + Sizes(decision, Cpu), &sizer_->cpu_told, &why);
  }
  if (wanted == size_) return;
  if (wanted.memory_bytes > size_.memory_bytes && !TakeForSize(wanted.memory_bytes)) {
    wanted.memory_bytes = size_.memory_bytes;
    why.erase(why.begin());  // memory is told first
    if (wanted == size_) return;
  }
  for (const std::string& text : why) Note(text);
  SetSize(wanted);
}

ResizeDecision Pool::PlanSize(std::optional<UseSnapshot>* use, uint64_t limit,
                              const ResizeRules& rules, ResizeState* state) {
  if (!*use) return {limit, limit, ResizeDecision::Cause::kFits};
  UseSnapshot seen = **use;
  use->reset();
  seen.now = context_.clock.Now();
  seen.limit = limit;
  return PlanResize(seen, rules, state);
}

void Pool::Tell(const ResizeDecision& decision, const std::string& what,
                ResizeDecision::Cause* told, std::vector<std::string>* why) {
  using enum ResizeDecision::Cause;
  if (decision.limit == decision.before) {  // once, however often some calls need more
    if (decision.cause != kAtMost || std::exchange(*told, kAtMost) == kAtMost) return;
    return Note(what.substr(0, what.find(' ')) + " is not raised: " + Why(decision));
  }
  *told = decision.cause;
  if (decision.limit > decision.before) {
    why->push_back("raises " + what + ": " + Why(decision));
  } else {
    why->push_back("lowers " + what + ": " + Why(decision));
  }
}

void Pool::Note(const std::string& text) {
  LogInfo("function " + version_->key.name_space + "/" + version_->key.name + ": " + text);
  Remark(text);
  Decide(text);
}

// --- changing

// For each instance that is counted by its limit, or for none of them.
bool Pool::TakeForSize(uint64_t bytes) {
  const TimePoint now = context_.clock.Now();
  if (sizer_->refused && now < *sizer_->refused + kAskedAgain) return false;
  if (TakeMemoryForSize(bytes)) return true;
  Note("limits.memory stays at " + FormatBytes(size_.memory_bytes) +
       ": more is needed, but the memory budget has no room");
  sizer_->refused = now;
  return false;
}

bool Pool::TakeMemoryForSize(uint64_t bytes) {
  // Or no call of it would ever be taken again.
  if (context_.room != nullptr && !context_.room->CouldFit(*this, bytes)) return false;
  uint64_t more = 0;
  for (const auto& instance : instances_) {
    const uint64_t held = instance->memory.bytes();
    if (held >= size_.memory_bytes && held < bytes) more += bytes - held;
  }
  MemoryBudget& budget = context_.memory;
  if (budget.used() + more > budget.total() && context_.room != nullptr &&
      context_.room->MayTake(*this, std::nullopt)) {
    (void)context_.room->Make(*this, more, std::nullopt, RoomMaker::Slot::kHasOne);
  }
  if (budget.used() + more > budget.total()) return false;
  for (const auto& instance : instances_) {
    if (instance->memory.bytes() >= size_.memory_bytes)
      (void)budget.Resize(&instance->memory, bytes);
  }
  return true;
}

// What others were promised since leaves no room for one of this size.
bool Pool::ShrinkToFit() {
  if (!sizer_ || !sizer_->has_memory || phase_ != PoolPhase::kActive) return false;
  if (sizer_->asked != 0 && size_.memory_bytes < in_force_.memory_bytes) return true;  // under way
  const TimePoint now = context_.clock.Now();
  const uint64_t least = SmallestSize().memory_bytes;
  if (sizer_->asked != 0 || size_.memory_bytes <= least || !context_.room->CouldFit(*this, least) ||
      (sizer_->refused && now < *sizer_->refused + kAskedAgain)) {
    return false;
  }
  Note("lowers limits.memory from " + FormatBytes(size_.memory_bytes) + " to " +
       FormatBytes(least) + ": the memory budget has no room for more");
  SetSize({least, size_.cpu_millis});
  evaluate_again_ = spawner_ == nullptr;
  return true;
}

void Pool::SetSize(const InstanceSize& size) {
  size_ = size;
  book_->Resized(size);
  if (spawner_ == nullptr) return;  // it is built with it
  const uint64_t asked = sizer_->asked = ++sizer_->last_asked;
  spawner_->Resize(size, [this, size, asked, alive = std::weak_ptr<char>(alive_)](Status resized) {
    if (alive.expired() || sizer_->asked != asked) return;
    const Notifier::Turn turn(context_.notifier);
    sizer_->asked = 0;
    OnResized(size, resized);
  });
}

void Pool::OnResized(const InstanceSize& size, const Status& resized) {
  if (resized.ok()) {
    in_force_ = size;
  } else {
    Note("the limits stay as they are: " + resized.error().message);
    size_ = in_force_;
    if (phase_ == PoolPhase::kActive) book_->Resized(size_);  // else it is the next version's
    sizer_->refused = context_.clock.Now();
  }
  for (const auto& instance : instances_) {
    if (instance->memory.bytes() <= size_.memory_bytes) continue;
    (void)context_.memory.Resize(&instance->memory, size_.memory_bytes);
  }
  Evaluate();
}

// A spawner was built, or is gone with whatever was asked of it.
void Pool::SizeOfNewSpawner(const InstanceSize& built) {
  if (!sizer_) return;
  sizer_->asked = 0;
  sizer_->slots.clear();
  in_force_ = built;
  if (spawner_ != nullptr && size_ != built) SetSize(size_);
}

}  // namespace pulga
