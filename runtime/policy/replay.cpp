#include "runtime/policy/replay.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/check.h"
#include "base/units.h"
#include "runtime/policy/room.h"

namespace pulga {
namespace {

// Recent use fades by half in an hour.
constexpr Duration kHalfLife = std::chrono::hours(1);

Ladder LadderOf(const TraceFunction& function, const ReplayPolicy& policy, const RungModel& model) {
  const double mib = static_cast<double>(function.bytes) / (1 << 20);
  const auto page_in = std::chrono::duration_cast<Duration>(model.page_in_mib * mib);
  const uint64_t reclaimed = function.bytes / 100 * model.reclaimed_percent;
  Ladder ladder;
  ladder[Rung::kCold].start = model.build + model.exec + function.init;
  ladder[Rung::kParked] = {model.exec + function.init, std::min(model.parked_bytes, reclaimed)};
  ladder[Rung::kReclaimed] = {model.thaw + page_in, reclaimed};
  ladder[Rung::kFrozen] = {model.thaw, function.bytes};
  ladder[Rung::kWarm] = {Duration::zero(), function.bytes};
  for (size_t i = 0; i < kRungs; ++i) ladder.rungs[i].offered = policy.offers[i];
  return ladder;
}

class Replayer {
 public:
  Replayer(const Trace& trace, const ReplayPolicy& policy, const RungModel& model, uint32_t seed)
      : trace_(trace), policy_(policy), random_(seed), functions_(trace.functions.size()) {
    for (size_t i = 0; i < functions_.size(); ++i) {
      functions_[i].ladder = LadderOf(trace.functions[i], policy, model);
    }
    FindNextCalls();
  }

  ReplayCost Run() {
    size_t at = 0;
    std::vector<size_t> turns;
    for (tick_ = 0; tick_ < trace_.ticks; ++tick_) {
      turns.clear();
      for (; at < trace_.calls.size() && trace_.calls[at].tick == tick_; ++at) turns.push_back(at);
      for (Function& function : functions_) Settle(&function);
      std::shuffle(turns.begin(), turns.end(), random_);
      for (const size_t call : turns) Serve(call);
      Account();
    }
    cost_.idle_bytes /= std::max<uint32_t>(1, trace_.ticks);
    return cost_;
  }

 private:
  struct Function {
    Ladder ladder;
    Rung rung = Rung::kCold;
    std::optional<uint32_t> last;  // tick of its last call
    IdleHistogram habit;
    Warmth warmth;
    double frequency = 0;
    double clock = 0;

    uint64_t bytes() const { return ladder[rung].bytes; }
  };

  // A timer's schedule is known to who set it: here, from what it did.
  void FindNextCalls() {
    std::vector<size_t> next(functions_.size(), SIZE_MAX);
    next_call_.resize(trace_.calls.size());
    for (size_t i = trace_.calls.size(); i-- > 0;) {
      next_call_[i] = next[trace_.calls[i].function];
      next[trace_.calls[i].function] = i;
    }
  }

  // The idle time that a distance of `ticks` stands for: just under it, for the first call of the
  // one tick may come late and that of the other early.
  Duration IdleOf(uint32_t ticks) const { return ticks * trace_.tick - Duration(1); }

  void MoveTo(Function* function, Rung rung) {
    used_ -= function->bytes();
    function->rung = rung;
    used_ += function->bytes();
  }

  // Down, and up again where a call is expected and memory is left.
  void Settle(Function* function) {
    if (!function->last) return;
    const Stage stage = StageAt(IdleOf(tick_ - *function->last), function->warmth, policy_.descent,
                                function->ladder);
    if (stage.rung <= function->rung) return MoveTo(function, stage.rung);
    const uint64_t more = function->ladder[stage.rung].bytes - function->bytes();
    if (function->warmth.from == Duration::zero() || used_ + more > policy_.budget) return;
    MoveTo(function, stage.rung);
    ++cost_.prewarmed;
  }

  void Serve(size_t at) {
    const TraceCall& call = trace_.calls[at];
    Function& function = functions_[call.function];
    if (function.last) {
      function.habit.Add(IdleOf(tick_ - *function.last));
      const double lives = static_cast<double>((tick_ - *function.last) * trace_.tick.count()) /
                           static_cast<double>(kHalfLife.count());
      if (policy_.frequency == ReplayPolicy::Frequency::kRecentCalls) {
        function.frequency *= std::exp2(-lives);
      }
    }
    function.frequency += call.calls;
    ++cost_.starts[static_cast<size_t>(function.rung)];
    cost_.calls += call.calls;
    cost_.waited += function.ladder[function.rung].start;
    BringUp(&function);
    function.clock = clock_;
    function.last = tick_;
    function.warmth = PlanWarmth(function.habit, policy_.keep_alive, NextFire(at));
  }

  std::optional<Duration> NextFire(size_t at) const {
    const uint32_t function = trace_.calls[at].function;
    if (policy_.schedules == ReplayPolicy::Schedules::kUnknown || next_call_[at] == SIZE_MAX ||
        trace_.functions[function].trigger != TraceFunction::Trigger::kTimer) {
      return std::nullopt;
    }
    return IdleOf(trace_.calls[next_call_[at]].tick - tick_);
  }

  void BringUp(Function* function) {
    RoomRequest request;
    request.bytes = function->ladder[Rung::kWarm].bytes - function->bytes();
    request.used = used_;
    request.budget = policy_.budget;
    request.clock = clock_;
    holders_.clear();
    for (const Function& other : functions_) {
      holders_.push_back({&other == function ? Holder::Use::kBusy : Holder::Use::kIdle, other.rung,
                          &other.ladder, other.frequency, other.clock});
    }
    const RoomPlan plan = PlanRoom(holders_, request);
    clock_ = plan.clock;
    for (const Demotion& demotion : plan.demotions) {
      MoveTo(&functions_[demotion.holder], demotion.to);
    }
    if (plan.verdict == RoomPlan::Verdict::kAdmit) MoveTo(function, Rung::kWarm);
    PULGA_CHECK(used_ <= policy_.budget);
  }

  void Account() {
    cost_.peak_bytes = std::max(cost_.peak_bytes, used_);
    for (const Function& function : functions_) {
      if (function.last != tick_) cost_.idle_bytes += static_cast<double>(function.bytes());
    }
  }

  const Trace& trace_;
  const ReplayPolicy& policy_;
  std::mt19937 random_;
  std::vector<Function> functions_;
  std::vector<size_t> next_call_;  // by call: its function's next one
  std::vector<Holder> holders_;
  uint32_t tick_ = 0;
  uint64_t used_ = 0;
  double clock_ = 0;
  ReplayCost cost_;
};

ReplayPolicy Fixed(const std::string& name, Duration ttl) {
  ReplayPolicy policy;
  policy.name = name;
  policy.keep_alive.learning = KeepAliveRules::Learning::kOff;
  policy.keep_alive.fixed = ttl;
  return policy;
}

}  // namespace

ReplayCost Replay(const Trace& trace, const ReplayPolicy& policy, const RungModel& model,
                  uint32_t seed) {
  return Replayer(trace, policy, model, seed).Run();
}

std::vector<ReplayPolicy> StandardPolicies(uint64_t budget, const std::vector<Duration>& ttls) {
  using std::chrono::hours;
  using std::chrono::minutes;
  std::vector<ReplayPolicy> out;
  if (budget == 0) {
    for (const Duration ttl : ttls) out.push_back(Fixed("fixed " + FormatDuration(ttl), ttl));
    ReplayPolicy hybrid;  // as published
    hybrid.name = "hybrid histogram";
    hybrid.keep_alive.fixed = IdleHistogram::kRange;
    hybrid.keep_alive.least_observations = 2;
    out.push_back(hybrid);
  } else {
    ReplayPolicy greedy = Fixed("greedy-dual", hours(24 * 365));
    greedy.frequency = ReplayPolicy::Frequency::kAllCalls;
    out.push_back(greedy);
  }
  ReplayPolicy ladder;
  ladder.name = "ladder, no swap";
  ladder.keep_alive.fixed = hours(1);  // nothing between frozen and a program that must start
  ladder.offers = {true, true, false, true, true};
  out.push_back(ladder);
  ladder.name = "ladder, zram";
  ladder.keep_alive.fixed = minutes(10);
  ladder.offers = {true, true, true, true, true};
  out.push_back(ladder);
  ladder.name = "ladder, zram, timers known";
  ladder.schedules = ReplayPolicy::Schedules::kKnown;
  out.push_back(ladder);
  for (ReplayPolicy& policy : out) {
    if (budget > 0) policy.budget = budget;
  }
  return out;
}

}  // namespace pulga
