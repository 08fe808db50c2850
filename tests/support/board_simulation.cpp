#include "tests/support/board_simulation.h"

#include <algorithm>
#include <cmath>

namespace pulga {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = BoardAction::Kind;
using Motion = InstanceView::Motion;
using Door = InstanceView::Door;

constexpr size_t kQueue = 10;
constexpr uint64_t kMiB = 1 << 20;
constexpr TimePoint kNever = TimePoint::max();

struct FakeInstance {
  InstanceView view;
  uint32_t version = 0;
  TimePoint moved = kNever;  // when its motion ends
  bool fails = false;        // the motion, by then
  std::vector<TimePoint> call_ends;
};

struct FakeCall {
  TimePoint arrived;
  Duration lasts;
};

struct FakeFunction {
  Ladder ladder;
  uint32_t version = 0;
  ScaleRules scale;
  ScaleState state;
  LoadWindow window{TimePoint{}};
  CallRate rate{TimePoint{}};
  IdleHistogram habit;
  Warmth warmth;
  TimePoint last_call;
  double frequency = 0;
  double clock = 0;
  std::deque<FakeCall> waiting;
  std::vector<FakeInstance> instances;
  bool retired = false;

  uint32_t under_way() const {
    uint32_t n = 0;
    for (const FakeInstance& instance : instances) n += instance.view.calls;
    return n;
  }
};

class Simulation {
 public:
  Simulation(uint32_t seed, const SimulationRules& rules) : random_(seed), rules_(rules) {
    for (uint32_t i = 0; i < rules.functions; ++i) functions_.push_back(RandomFunction());
    busiest_ = milliseconds(20 + Below(400));
    next_arrival_ = now_;
  }

  SimulationResult Run() {
    for (uint32_t step = 0; step < rules_.steps; ++step) {
      Step();
      if (!result_.broken.empty()) return result_;
    }
    next_arrival_ = kNever;
    // Nobody calls any more: all that was accepted ends, and then everything comes to rest.
    for (uint32_t step = 0; Busy(); ++step) {
      if (step > 20000) return Broken("calls that were accepted never end");
      Step();
      if (!result_.broken.empty()) return result_;
    }
    if (result_.accepted != result_.ended + result_.refused) Broken("a call was lost");
    CheckRest();
    return result_;
  }

 private:
  uint32_t Below(uint32_t n) { return random_() % n; }
  Duration Upto(Duration most) {
    return milliseconds(1 + Below(static_cast<uint32_t>(most / milliseconds(1))));
  }
  SimulationResult Broken(const std::string& what) {
    if (result_.broken.empty()) result_.broken = what;
    return result_;
  }

  FakeFunction RandomFunction() {
    FakeFunction out;
    const uint64_t bytes = (8 + Below(Below(8) == 0 ? 300 : 100)) * kMiB;
    out.version = ++versions_;
    out.ladder[Rung::kCold] = {milliseconds(300), 0, true};
    out.ladder[Rung::kParked] = {milliseconds(250), kMiB / 2, Below(2) == 0};
    out.ladder[Rung::kReclaimed] = {milliseconds(30), bytes / 3, Below(2) == 0};
    out.ladder[Rung::kFrozen] = {milliseconds(1), bytes, Below(2) == 0};
    out.ladder[Rung::kWarm] = {Duration::zero(), bytes, true};
    out.scale.min = Below(6) == 0 && bytes < rules_.budget / 16 ? 1 : 0;
    out.scale.max = 1 + Below(4);
    out.scale.calls_per_instance = 1 + Below(3);
    if (Below(8) == 0) out.scale.rate_target = 1 + Below(5);
    out.window = LoadWindow(now_);
    out.rate = CallRate(now_);
    out.last_call = now_;
    return out;
  }

  bool Busy() const {
    return std::any_of(functions_.begin(), functions_.end(), [](const FakeFunction& function) {
      return !function.waiting.empty() || function.under_way() > 0;
    });
  }

  void Step() {
    now_ = std::max(now_, NextEvent());
    for (FakeFunction& function : functions_) Finish(&function);
    if (next_arrival_ <= now_) Arrive();
    if (Below(60) == 0 && next_arrival_ != kNever) Retire();
    for (FakeFunction& function : functions_) Dispatch(&function);
    Decide();
    Check();
  }
  TimePoint NextEvent() const {
    TimePoint next = std::min(next_arrival_, look_again_);
    for (const FakeFunction& function : functions_) {
      for (const FakeInstance& instance : function.instances) {
        next = std::min(next, instance.moved);
        for (const TimePoint end : instance.call_ends) next = std::min(next, end);
      }
    }
    return next == kNever ? now_ : next;
  }

  // Motions and calls that are over by now.
  void Finish(FakeFunction* function) {
    for (FakeInstance& instance : function->instances) {
      InstanceView& view = instance.view;
      if (instance.moved <= now_) {
        view.motion = Motion::kNone;
        if (instance.fails) view.rung = Rung::kCold;
        view.bytes = function->ladder[view.rung].bytes;
        instance.moved = kNever;
      }
      const auto over = std::partition(instance.call_ends.begin(), instance.call_ends.end(),
                                       [this](TimePoint end) { return end > now_; });
      const auto ended = static_cast<uint32_t>(instance.call_ends.end() - over);
      if (ended == 0) continue;
      instance.call_ends.erase(over, instance.call_ends.end());
      view.calls -= ended;
      view.idle_since = function->last_call = now_;
      result_.ended += ended;
    }
    // The dead leave.
    std::erase_if(function->instances, [](const FakeInstance& instance) {
      return instance.view.rung == Rung::kCold && instance.view.motion == Motion::kNone;
    });
  }

  void Arrive() {
    FakeFunction& function = functions_[Below(rules_.functions)];
    if (Below(3) == 0) crowded_ = Below(rules_.functions);  // bursts, mostly for one of them
    FakeFunction& target = Below(2) == 0 ? functions_[crowded_] : function;
    next_arrival_ = now_ + (Below(25) == 0 ? Upto(seconds(900)) : Upto(busiest_));
    if (target.waiting.size() >= kQueue) return;
    ++result_.accepted;
    if (target.under_way() == 0) target.habit.Add(now_ - target.last_call);
    target.warmth = PlanWarmth(target.habit, {});
    target.frequency = target.frequency * 0.9 + 1;
    target.clock = clock_;
    target.last_call = now_;
    target.waiting.push_back({now_, Upto(rules_.longest_call)});
    target.rate.OnCall(now_);
  }

  // A new version: the old one's instances finish what they have.
  void Retire() {
    FakeFunction& function = functions_[Below(rules_.functions)];
    FakeFunction old = function;
    old.retired = true;
    old.waiting.clear();
    old.scale.min = old.scale.max = 0;
    function.version = ++versions_;
    function.instances.clear();
    function.state = {};
    std::erase_if(functions_,
                  [](const FakeFunction& f) { return f.retired && f.instances.empty(); });
    functions_.push_back(std::move(old));
  }

  void Dispatch(FakeFunction* function) {
    const auto most = static_cast<uint32_t>(function->scale.calls_per_instance);
    for (FakeInstance& instance : function->instances) {
      InstanceView& view = instance.view;
      const bool takes =
          view.rung == Rung::kWarm && view.motion == Motion::kNone && view.door == Door::kOpen;
      for (; takes && view.calls < most && !function->waiting.empty(); ++view.calls) {
        const FakeCall call = function->waiting.front();
        function->waiting.pop_front();
        result_.longest_wait = std::max(result_.longest_wait, now_ - call.arrived);
        instance.call_ends.push_back(now_ + call.lasts);
        if (instance.version != function->version) Broken("an instance serves two versions");
      }
    }
    function->window.Set(now_,
                         function->under_way() + static_cast<uint32_t>(function->waiting.size()));
  }

  void Decide() {
    std::vector<FunctionView> views;
    std::vector<std::vector<InstanceView>> instances;
    for (FakeFunction& function : functions_) {
      instances.emplace_back();
      for (const FakeInstance& instance : function.instances) {
        instances.back().push_back(instance.view);
      }
    }
    for (size_t f = 0; f < functions_.size(); ++f) views.push_back(ViewOf(f, instances[f]));
    BoardView board;
    board.now = now_;
    board.budget = rules_.budget;
    board.clock = clock_;
    board.functions = views;
    const BoardPlan plan = PlanBoard(board);
    if (plan.clock < clock_) Broken("the clock went back");
    if (plan.look_again && *plan.look_again <= now_) Broken("it asks to be asked at once");
    clock_ = plan.clock;
    look_again_ = plan.look_again.value_or(kNever);
    result_.actions += plan.actions.size();
    for (const BoardAction& action : plan.actions) Apply(action);
  }
  FunctionView ViewOf(size_t f, const std::vector<InstanceView>& instances) {
    FakeFunction& function = functions_[f];
    FunctionView view;
    view.ladder = &function.ladder;
    view.warmth = function.warmth;
    view.scale = function.scale;
    view.load.last_call = function.last_call;
    view.load.stable_calls = function.window.Average(now_, seconds(60));
    view.load.panic_calls = function.window.Average(now_, seconds(6));
    view.load.stable_rate = function.rate.PerSecond(now_, seconds(60));
    view.load.panic_rate = function.rate.PerSecond(now_, seconds(6));
    view.load.waiting = static_cast<uint32_t>(function.waiting.size());
    view.load.under_way = function.under_way();
    if (!function.waiting.empty()) view.oldest_waiting = function.waiting.front().arrived;
    view.frequency = function.frequency;
    view.clock = function.clock;
    view.state = &function.state;
    view.instances = instances;
    return view;
  }

  void Apply(const BoardAction& action) {
    FakeFunction& function = functions_[action.function];
    if (Why(action).size() < 20) Broken("no reason");
    if (action.kind == Kind::kRefuse) {
      result_.refused += function.waiting.size();
      function.waiting.clear();
      return;
    }
    if (action.kind == Kind::kStart) {
      function.instances.emplace_back().version = function.version;
      function.instances.back().view.idle_since = now_;
    }
    FakeInstance& instance = action.kind == Kind::kStart ? function.instances.back()
                                                         : function.instances[action.instance];
    InstanceView& view = instance.view;
    if (action.kind == Kind::kClose) {
      view.door = Door::kClosed;
      return;
    }
    if (view.calls > 0 || view.motion != Motion::kNone) Broken("an instance in use is moved");
    const bool rises = action.kind != Kind::kLower;
    if (!function.ladder[action.to].offered) Broken("a rung that is not offered");
    view.motion = rises ? Motion::kRising : Motion::kFalling;
    view.rung = action.to;
    if (rises) view.bytes = function.ladder[action.to].bytes;
    instance.moved = now_ + Upto(milliseconds(rises ? 400 : 300));
    instance.fails = rises && Below(10) == 0;
  }

  void Check() {
    uint64_t used = 0;
    for (const FakeFunction& function : functions_) {
      for (const FakeInstance& instance : function.instances) used += instance.view.bytes;
      if (!function.retired && function.instances.size() > function.scale.max) {
        Broken("more instances than scale.max");
      }
      if (!function.waiting.empty() &&
          now_ - function.waiting.front().arrived > rules_.longest_wait) {
        Broken("a call starves");
      }
    }
    if (used > rules_.budget) Broken("more memory than the budget");
  }

  // A month later: what scale.min asks for is there, nothing else is, and nothing moves any more.
  void CheckRest() {
    const TimePoint end = now_ + std::chrono::hours(24 * 30);
    for (uint32_t step = 0; NextEvent() > now_ && NextEvent() < end; ++step) {
      if (step > 5000) {
        Broken("it never comes to rest");
        return;
      }
      Step();
    }
    for (const FakeFunction& function : functions_) {
      if (function.instances.size() != function.scale.min) Broken("not what scale.min asks for");
    }
  }

  std::mt19937 random_;
  SimulationRules rules_;
  TimePoint now_{std::chrono::hours(1)};
  TimePoint next_arrival_;
  TimePoint look_again_ = kNever;
  Duration busiest_ = Duration::zero();  // the longest time between two calls of a burst
  uint32_t versions_ = 0;
  uint32_t crowded_ = 0;
  double clock_ = 0;
  std::vector<FakeFunction> functions_;  // the first rules_.functions are active
  SimulationResult result_;
};

}  // namespace

SimulationResult SimulateBoard(uint32_t seed, const SimulationRules& rules) {
  return Simulation(seed, rules).Run();
}

}  // namespace pulga
