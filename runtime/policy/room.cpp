#include "runtime/policy/room.h"

#include <algorithm>

#include "base/units.h"

namespace pulga {
namespace {

using Verdict = RoomPlan::Verdict;

// Going from one rung to the next one that frees something.
struct Step {
  size_t holder;
  Rung to;
  uint64_t freed;
  double worth;
};

struct WorthMore {
  bool operator()(const Step& a, const Step& b) const {
    return a.worth != b.worth ? a.worth > b.worth : a.holder > b.holder;
  }
};

// Of `holder`, which is at `index`; it frees something.
Step StepOf(const Holder& holder, size_t index, Rung from, Rung to) {
  const Ladder& ladder = *holder.ladder;
  const uint64_t freed = ladder[from].bytes - ladder[to].bytes;
  const Duration longer = ladder[to].start - ladder[from].start;
  const double ms = std::chrono::duration<double, std::milli>(longer).count();
  const double mib = static_cast<double>(freed) / (1 << 20);
  return {index, to, freed, holder.clock + holder.frequency * std::max(ms, 0.0) / mib};
}

class Demoter {
 public:
  Demoter(std::span<const Holder> holders, uint64_t wanted) : holders_(holders), wanted_(wanted) {}

  RoomPlan Plan(double clock) {
    for (size_t i = 0; i < holders_.size(); ++i) {
      if (holders_[i].use == Holder::Use::kIdle) Offer(i, holders_[i].rung);
    }
    RoomPlan plan;
    plan.clock = clock;
    while (freed_ < wanted_ && !steps_.empty()) {
      std::pop_heap(steps_.begin(), steps_.end(), WorthMore());
      taken_.push_back(steps_.back());
      steps_.pop_back();
      freed_ += taken_.back().freed;
      Offer(taken_.back().holder, taken_.back().to);
    }
    if (freed_ < wanted_) {
      plan.verdict = Verdict::kQueue;
      return plan;
    }
    plan.clock = std::max(clock, taken_.back().worth);
    SpareTheNeedless();
    plan.freed = freed_;
    plan.demotions = Merged();
    return plan;
  }

 private:
  void Offer(size_t holder, Rung from) {
    const Ladder& ladder = *holders_[holder].ladder;
    const uint64_t bytes = ladder[from].bytes;
    Rung to = from;
    while (to != Rung::kCold && ladder[to].bytes >= bytes) to = ladder.Below(to);
    if (ladder[to].bytes >= bytes) return;
    steps_.push_back(StepOf(holders_[holder], holder, from, to));
    std::push_heap(steps_.begin(), steps_.end(), WorthMore());
  }

  // A large step at the end may have made smaller ones before it needless; the dearest are spared.
  // Only a holder's last step can be.
  void SpareTheNeedless() {
    std::vector<bool> goes_on(holders_.size(), false);
    for (size_t i = taken_.size(); i-- > 0;) {
      const Step& step = taken_[i];
      if (goes_on[step.holder] || freed_ - step.freed < wanted_) {
        goes_on[step.holder] = true;
        continue;
      }
      freed_ -= step.freed;
      taken_.erase(taken_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  std::vector<Demotion> Merged() const {
    std::vector<Demotion> out;
    std::vector<size_t> place(holders_.size(), SIZE_MAX);
    for (const Step& step : taken_) {
      if (place[step.holder] == SIZE_MAX) {
        place[step.holder] = out.size();
        out.push_back({step.holder, step.to});
      }
      out[place[step.holder]].to = step.to;
    }
    return out;
  }

  std::span<const Holder> holders_;
  uint64_t wanted_;
  uint64_t freed_ = 0;
  std::vector<Step> steps_;  // a heap: the least worth is at its front
  std::vector<Step> taken_;
};

}  // namespace

RoomPlan PlanRoom(std::span<const Holder> holders, const RoomRequest& request) {
  RoomPlan plan;
  plan.clock = request.clock;
  if (request.bytes > request.budget) {
    plan.verdict = Verdict::kRefuse;
    return plan;
  }
  const uint64_t most = request.budget - request.bytes;
  if (request.used <= most) return plan;
  return Demoter(holders, request.used - most).Plan(request.clock);
}

std::vector<size_t> WorthLeast(std::span<const Holder> holders, size_t most) {
  std::vector<Step> ends;
  for (size_t i = 0; i < holders.size(); ++i) {
    const Holder& holder = holders[i];
    const uint64_t cold = (*holder.ladder)[Rung::kCold].bytes;
    const bool frees = (*holder.ladder)[holder.rung].bytes > cold;
    if (holder.use != Holder::Use::kIdle || !frees) continue;
    ends.push_back(StepOf(holder, i, holder.rung, Rung::kCold));
  }
  most = std::min(most, ends.size());
  const auto last = ends.begin() + static_cast<std::ptrdiff_t>(most);
  std::partial_sort(ends.begin(), last, ends.end(), [](const Step& a, const Step& b) {
    return a.worth != b.worth ? a.worth < b.worth : a.holder > b.holder;
  });
  std::vector<size_t> chosen;
  for (auto it = ends.begin(); it != last; ++it) chosen.push_back(it->holder);
  return chosen;
}

std::string Why(const RoomPlan& plan, const RoomRequest& request) {
  const std::string bytes = HumanBytes(request.bytes);
  switch (plan.verdict) {
    case Verdict::kRefuse:
      return "refused: it needs " + bytes + ", the whole budget is " + HumanBytes(request.budget);
    case Verdict::kQueue:
      return "queued: it needs " + bytes + ", and calls under way hold " +
             HumanBytes(request.used) + " of " + HumanBytes(request.budget);
    case Verdict::kAdmit:
      break;
  }
  if (plan.demotions.empty()) return "admitted: " + bytes + " are free";
  const size_t n = plan.demotions.size();
  return "admitted after " + std::to_string(n) +
         (n == 1 ? " demotion that frees " : " demotions that free ") + HumanBytes(plan.freed);
}

}  // namespace pulga
