#include "tests/support/contention.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "tests/support/call_fixture.h"
#include "tests/support/sim_sandbox.h"
#include "tests/support/sim_time.h"

namespace pulga::testing {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kOnceInAWhile = milliseconds(500);

class Contention {
 public:
  Contention(const std::vector<Rival>& rivals, const ContentionRules& rules)
      : rivals_(rivals),
        rules_(rules),
        loop_(EventLoop::Create().value()),
        sandbox_(*loop_, time_, rules.seed) {
    DispatcherConfig config;
    config.memory_budget_bytes = rules.budget;
    config.max_instances = rules.max_instances;
    sandbox_.odds = {0, 0, 0, 0, 0, 0, 0};
    sandbox_.longest_call = rules.longest_call;
    dispatcher_ = Dispatcher::Create(config, *loop_, time_, sandbox_, logs_);
    result_.rivals.resize(rivals.size());
    for (size_t r = 0; r < rivals_.size(); ++r) Restore(r);
  }
  ~Contention() {
    calls_.clear();
    dispatcher_.reset();
    loop_->RunOnce(Duration::zero());
  }

  ContentionResult Run() {
    for (size_t r = 0; r < rivals_.size(); ++r) {
      for (uint32_t i = 0; i < rivals_[r].backlog; ++i) Begin(r);
    }
    const TimePoint end = time_.Now() + rules_.time;
    TimePoint next = time_.Now();
    while (time_.Now() < end) {
      if (time_.Now() >= next) {
        next += kOnceInAWhile;
        for (size_t r = 0; r < rivals_.size(); ++r) {
          if (rivals_[r].backlog == 0) Begin(r);
        }
      }
      const uint64_t before = time_.reads();
      loop_->RunOnce(next - time_.Now());
      result_.looks += time_.reads() - before;
      Count();
    }
    return result_;
  }

 private:
  struct Call {
    std::unique_ptr<Client> client;
    size_t rival = 0;
    TimePoint begun;
  };

  FunctionKey KeyOf(size_t r) const {
    return {kDefaultOwner, kDefaultNamespace, "f" + std::to_string(r)};
  }
  void Restore(size_t r) {
    auto version = std::make_shared<Version>();
    version->key = KeyOf(r);
    version->id = r + 1;
    version->number = 1;
    version->mode = SandboxMode::kExec;
    version->argv = {"/f"};
    version->spec.limits.timeout = seconds(60);
    version->spec.limits.body_bytes = version->spec.limits.output_bytes = 1 << 20;
    version->spec.sandbox.memory_bytes = rivals_[r].memory_bytes;
    version->spec.scale.max = 50;
    version->spec.scale.parked = 0;
    version->spec.scale.queue = 100000;
    version->spec.scale.queue_wait = hours(1);
    version->spec.scale.weight = rivals_[r].weight;
    dispatcher_->Restore(std::move(version), [] {});
  }
  void Begin(size_t r) {
    Call call{std::make_unique<Client>(), r, time_.Now()};
    InvocationRequest request;
    request.function = KeyOf(r);
    request.call_id = "call";
    request.method = "GET";
    call.client->Start(*dispatcher_, std::move(request));
    calls_.push_back(std::move(call));
  }
  // What was served, and how long the others wait by now.
  void Count() {
    std::vector<size_t> again;
    for (const Call& call : calls_) {
      ContentionResult::OfRival& rival = result_.rivals[call.rival];
      rival.longest_wait = std::max(rival.longest_wait, time_.Now() - call.begun);
      if (!call.client->done()) continue;
      if (call.client->outcome() == "ok") ++rival.served, ++result_.served;
      if (rivals_[call.rival].backlog > 0) again.push_back(call.rival);
    }
    std::erase_if(calls_, [](const Call& call) { return call.client->done(); });
    for (const size_t r : again) Begin(r);
  }

  const std::vector<Rival> rivals_;
  const ContentionRules rules_;
  SimTime time_;
  std::unique_ptr<EventLoop> loop_;
  SimSandbox sandbox_;
  FunctionLogs logs_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<Call> calls_;
  ContentionResult result_;
};

}  // namespace

ContentionResult SimulateContention(const std::vector<Rival>& rivals,
                                    const ContentionRules& rules) {
  return Contention(rivals, rules).Run();
}

}  // namespace pulga::testing
