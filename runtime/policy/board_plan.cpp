#include "runtime/policy/board_plan.h"

#include <algorithm>
#include <numeric>

#include "runtime/policy/room.h"

namespace pulga {
namespace {

using Kind = BoardAction::Kind;
using Cause = BoardAction::Cause;
using Motion = InstanceView::Motion;
using Door = InstanceView::Door;

bool IsIdle(const InstanceView& instance) {
  return instance.calls == 0 && instance.motion == Motion::kNone;
}
bool IsOpen(const InstanceView& instance) {
  return instance.door == Door::kOpen && instance.motion != Motion::kFalling;
}
// Takes calls, or will without being asked.
bool IsUp(const InstanceView& instance) { return IsOpen(instance) && instance.rung == Rung::kWarm; }

// Serves, if only after a thaw.
bool IsThere(const InstanceView& instance) {
  return IsOpen(instance) && instance.rung >= Rung::kReclaimed;
}
bool IsAlive(const InstanceView& instance) {
  return instance.rung != Rung::kCold || instance.motion != Motion::kNone;
}

std::string_view CauseText(Cause cause) {
  switch (cause) {
    case Cause::kCallsWait:
      return "calls wait for it";
    case Cause::kCallExpected:
      return "a call is expected";
    case Cause::kMinimum:
      return "scale.min";
    case Cause::kIdle:
      return "it has been idle";
    case Cause::kSurplus:
      return "fewer have been enough for a while";
    case Cause::kRoom:
      return "another function needs the memory";
    case Cause::kRetired:
      return "its version is being retired";
    case Cause::kStarving:
      return "another function's call has waited too long for memory";
    case Cause::kTooLarge:
      return "the function is larger than the whole budget";
    case Cause::kPromised:
      return "the function does not fit beside what scale.min keeps for others";
  }
  return "";
}

class BoardPlanner {
 public:
  explicit BoardPlanner(const BoardView& board) : board_(board) {
    plan_.clock = board.clock;
    for (const FunctionView& function : board.functions) {
      acted_.emplace_back(function.instances.size(), false);
      for (const InstanceView& instance : function.instances) Count(function, instance);
    }
  }

  BoardPlan Plan() {
    for (size_t f = 0; f < board_.functions.size(); ++f) Scale(f);
    for (size_t f = 0; f < board_.functions.size(); ++f) Descend(f);
    for (const size_t f : ByAge()) {
      if (!ServeWaiting(f)) return std::move(plan_);
    }
    for (size_t f = 0; f < board_.functions.size(); ++f) Grow(f);
    for (const BoardAction& rise : expected_) Prewarm(rise);
    return std::move(plan_);
  }

 private:
  enum class Answer : uint8_t { kNow, kSoon, kNo };

  void Count(const FunctionView& function, const InstanceView& instance) {
    used_ += instance.bytes;
    const uint64_t after = (*function.ladder)[instance.rung].bytes;
    if (instance.motion == Motion::kFalling) pending_ += instance.bytes - after;
    if (instance.door == Door::kClosed && instance.calls > 0) closing_ += instance.bytes;
  }
  void Act(const BoardAction& action) {
    if (action.kind != Kind::kStart && action.kind != Kind::kRefuse) {
      acted_[action.function][action.instance] = true;
    }
    plan_.actions.push_back(action);
  }
  void Lower(size_t f, size_t i, Rung to, Cause cause) {
    const FunctionView& function = board_.functions[f];
    pending_ += function.instances[i].bytes - (*function.ladder)[to].bytes;
    Act({Kind::kLower, cause, f, i, to});
  }
  void LookAgain(TimePoint when) {
    if (when <= board_.now) return;
    if (!plan_.look_again || when < *plan_.look_again) plan_.look_again = when;
  }

  void Scale(size_t f) {
    const FunctionView& function = board_.functions[f];
    LoadSnapshot load = function.load;
    load.now = board_.now;
    for (const InstanceView& instance : function.instances) {
      if (IsThere(instance)) ++load.instances;
    }
    there_.push_back(load.instances);
    const ScaleDecision decision = PlanScale(load, function.scale, function.state);
    if (decision.look_again) LookAgain(*decision.look_again);
    wanted_.push_back(decision.wanted);
  }

  // The longest idle last.
  std::vector<size_t> ByUse(const FunctionView& function) const {
    std::vector<size_t> order(function.instances.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      const InstanceView& x = function.instances[a];
      const InstanceView& y = function.instances[b];
      if (IsIdle(x) != IsIdle(y)) return IsIdle(y);
      return x.idle_since > y.idle_since;
    });
    return order;
  }

  void Descend(size_t f) {
    const FunctionView& function = board_.functions[f];
    uint32_t kept = 0;
    for (const size_t i : ByUse(function)) {
      const InstanceView& instance = function.instances[i];
      const bool retired = function.scale.max == 0;
      if (IsIdle(instance) && (retired || instance.door == Door::kClosed)) {
        Lower(f, i, Rung::kCold, retired ? Cause::kRetired : Cause::kStarving);
        continue;
      }
      if (!IsOpen(instance)) continue;
      ++kept;
      if (!IsIdle(instance) || function.load.waiting > 0) continue;
      // The last one goes step by step, whatever the autoscaler says.
      if (kept > std::max<uint32_t>(wanted_[f], 1)) {
        Lower(f, i, Rung::kCold, Cause::kSurplus);
      } else {
        Settle(f, i, kept <= function.scale.min);
      }
    }
  }
  void Settle(size_t f, size_t i, bool needed) {
    const FunctionView& function = board_.functions[f];
    const InstanceView& instance = function.instances[i];
    const Ladder& ladder = *function.ladder;
    const Stage stage =
        StageAt(board_.now - instance.idle_since, function.warmth, board_.descent, ladder);
    if (stage.until) LookAgain(instance.idle_since + *stage.until);
    const Rung least = !needed                         ? Rung::kCold
                       : ladder[Rung::kFrozen].offered ? Rung::kFrozen
                                                       : Rung::kWarm;
    const Rung to = std::max(stage.rung, least);
    if (to < instance.rung) Lower(f, i, to, Cause::kIdle);
    // Up only for a call that is expected later on: a keep-alive that was cut short is not resumed.
    const bool expected =
        stage.cause == Stage::Cause::kCallExpected && function.warmth.from > Duration::zero();
    const Rung rise = std::max(expected ? stage.rung : Rung::kCold, least);
    if (rise > instance.rung) {
      expected_.push_back(
          {Kind::kRaise, expected ? Cause::kCallExpected : Cause::kMinimum, f, i, rise});
    }
  }

  std::vector<size_t> ByAge() const {
    std::vector<size_t> order;
    for (size_t f = 0; f < board_.functions.size(); ++f) {
      const FunctionView& function = board_.functions[f];
      if (function.load.waiting > 0 && function.oldest_waiting) order.push_back(f);
    }
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return *board_.functions[a].oldest_waiting < *board_.functions[b].oldest_waiting;
    });
    return order;
  }

  // False: nobody younger gets memory now.
  bool ServeWaiting(size_t f) {
    const FunctionView& function = board_.functions[f];
    if ((*function.ladder)[Rung::kWarm].bytes > board_.budget) {
      Act({Kind::kRefuse, Cause::kTooLarge, f});
      return true;
    }
    auto up = static_cast<uint32_t>(
        std::count_if(function.instances.begin(), function.instances.end(), &IsUp));
    uint32_t alive = Alive(function);
    for (; up < wanted_[f]; ++up) {
      const std::optional<size_t> idle = BestIdle(f);
      if (!idle && alive >= function.scale.max) return true;
      const uint64_t held = idle ? function.instances[*idle].bytes : 0;
      const uint64_t more = (*function.ladder)[Rung::kWarm].bytes - held;
      if (idle) acted_[f][*idle] = true;  // nobody takes it meanwhile
      const Answer answer = MakeRoom(f, more);
      // Who has one already gets on, if slowly: others are not sent away for its second.
      if (answer == Answer::kNo) return up > 0 || !Starves(f, more);
      used_ += more;  // soon: what comes free is its own
      if (answer == Answer::kNow && idle) {
        Act({Kind::kRaise, Cause::kCallsWait, f, *idle, Rung::kWarm});
      } else if (answer == Answer::kNow) {
        Act({Kind::kStart, Cause::kCallsWait, f, 0, Rung::kWarm});
      }
      if (!idle) ++alive;
    }
    return true;
  }
  static uint32_t Alive(const FunctionView& function) {
    return static_cast<uint32_t>(
        std::count_if(function.instances.begin(), function.instances.end(), &IsAlive));
  }
  // The highest rung, which is the soonest ready.
  std::optional<size_t> BestIdle(size_t f) const {
    const FunctionView& function = board_.functions[f];
    std::optional<size_t> best;
    for (size_t i = 0; i < function.instances.size(); ++i) {
      const InstanceView& instance = function.instances[i];
      if (acted_[f][i] || !IsIdle(instance) || !IsOpen(instance)) continue;
      if (instance.rung == Rung::kWarm || instance.rung == Rung::kCold) continue;
      if (!best || instance.rung > function.instances[*best].rung) best = i;
    }
    return best;
  }

  Answer MakeRoom(size_t f, uint64_t bytes) {
    if (used_ + bytes <= board_.budget) return Answer::kNow;
    std::vector<Holder> holders;
    std::vector<std::pair<size_t, size_t>> places;
    for (size_t other = 0; other < board_.functions.size(); ++other) {
      AddHolders(other, board_.functions[f].oldest_waiting, &holders, &places);
    }
    reachable_ = 0;
    for (const Holder& holder : holders) reachable_ += (*holder.ladder)[holder.rung].bytes;
    const RoomPlan room =
        PlanRoom(holders, {bytes, used_ - std::min(used_, pending_), board_.budget, plan_.clock});
    if (room.verdict != RoomPlan::Verdict::kAdmit) return Answer::kNo;
    plan_.clock = room.clock;
    for (const Demotion& demotion : room.demotions) {
      const auto& [function, instance] = places[demotion.holder];
      Lower(function, instance, demotion.to, Cause::kRoom);
    }
    return Answer::kSoon;
  }
  // What may be taken: idle, beyond scale.min, and of nobody who has waited for longer.
  void AddHolders(size_t f, std::optional<TimePoint> since, std::vector<Holder>* holders,
                  std::vector<std::pair<size_t, size_t>>* places) const {
    const FunctionView& function = board_.functions[f];
    if (function.load.waiting > 0 && function.oldest_waiting <= since) return;
    uint32_t kept = 0;
    for (const size_t i : ByUse(function)) {
      const InstanceView& instance = function.instances[i];
      if (IsOpen(instance) && ++kept <= function.scale.min) continue;
      if (acted_[f][i] || !IsIdle(instance)) continue;
      holders->push_back(
          {Holder::Use::kIdle, instance.rung, function.ladder, function.frequency, function.clock});
      places->emplace_back(f, i);
    }
  }

  bool Starves(size_t f, uint64_t bytes) {
    const FunctionView& function = board_.functions[f];
    const TimePoint due = *function.oldest_waiting + board_.patience;
    if (board_.now < due) {
      LookAgain(due);
      return false;
    }
    if ((*function.ladder)[Rung::kWarm].bytes + Promised(f) > board_.budget) {
      Act({Kind::kRefuse, Cause::kPromised, f});
      return false;
    }
    while (used_ + bytes > board_.budget + pending_ + closing_ + reachable_) {
      if (!CloseOne(&function)) break;
    }
    return true;
  }
  // What scale.min keeps for the others, come what may.
  uint64_t Promised(size_t f) const {
    uint64_t bytes = 0;
    for (const FunctionView& function : board_.functions) {
      if (&function == &board_.functions[f]) continue;
      bytes +=
          std::min(function.scale.min, function.scale.max) * (*function.ladder)[Rung::kWarm].bytes;
    }
    return bytes;
  }
  // The one of the least used function that can spare one.
  bool CloseOne(const FunctionView* hungry) {
    std::optional<BoardAction> least;
    for (size_t f = 0; f < board_.functions.size(); ++f) {
      const FunctionView& function = board_.functions[f];
      if (&function == hungry) continue;
      if (least && board_.functions[least->function].frequency <= function.frequency) continue;
      uint32_t open = 0;
      std::optional<size_t> busy;
      for (size_t i = 0; i < function.instances.size(); ++i) {
        const InstanceView& instance = function.instances[i];
        if (!IsOpen(instance) || (acted_[f][i] && instance.calls > 0)) continue;
        ++open;
        if (instance.calls > 0) busy = i;
      }
      if (busy && open > function.scale.min) least = {Kind::kClose, Cause::kStarving, f, *busy};
    }
    if (!least) return false;
    closing_ += board_.functions[least->function].instances[least->instance].bytes;
    Act(*least);
    return true;
  }

  // What scale.min, or a load that rises, asks for while no call waits. Others give way to the
  // first.
  void Grow(size_t f) {
    const FunctionView& function = board_.functions[f];
    if (function.load.waiting > 0) return;
    const uint64_t each = (*function.ladder)[Rung::kWarm].bytes;
    uint32_t alive = Alive(function);
    for (uint32_t n = there_[f]; n < wanted_[f] && alive < function.scale.max; ++n, ++alive) {
      const bool fits = used_ + each <= board_.budget;
      if (!fits && (n >= function.scale.min || MakeRoom(f, each) == Answer::kNo)) return;
      used_ += each;
      const Cause cause = n < function.scale.min ? Cause::kMinimum : Cause::kCallExpected;
      if (fits) Act({Kind::kStart, cause, f, 0, Rung::kWarm});
    }
  }
  void Prewarm(const BoardAction& rise) {
    const FunctionView& function = board_.functions[rise.function];
    if (acted_[rise.function][rise.instance]) return;
    const uint64_t more =
        (*function.ladder)[rise.to].bytes - function.instances[rise.instance].bytes;
    if (used_ + more > board_.budget) return;
    used_ += more;
    Act(rise);
  }

  const BoardView& board_;
  BoardPlan plan_;
  std::vector<std::vector<bool>> acted_;
  std::vector<uint32_t> there_;   // by function: instances that serve
  std::vector<uint32_t> wanted_;  // by function: how many there should be
  std::vector<BoardAction> expected_;
  uint64_t used_ = 0;       // held, and promised
  uint64_t pending_ = 0;    // of that, on its way to be free
  uint64_t closing_ = 0;    // of that, once calls under way have ended
  uint64_t reachable_ = 0;  // what idle instances hold that the last MakeRoom might have taken
};

}  // namespace

BoardPlan PlanBoard(const BoardView& board) { return BoardPlanner(board).Plan(); }

std::string Why(const BoardAction& action) {
  const std::string cause(CauseText(action.cause));
  const std::string to(RungName(action.to));
  switch (action.kind) {
    case Kind::kStart:
      return "starts an instance: " + cause;
    case Kind::kRaise:
      return "raises an instance to " + to + ": " + cause;
    case Kind::kLower:
      return (action.to == Rung::kCold ? "ends an instance: "
                                       : "lowers an instance to " + to + ": ") +
             cause;
    case Kind::kClose:
      return "gives an instance no new calls: " + cause;
    case Kind::kRefuse:
      return "refuses the calls that wait: " + cause;
  }
  return "";
}

}  // namespace pulga
