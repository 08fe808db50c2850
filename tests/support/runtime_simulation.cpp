#include "tests/support/runtime_simulation.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "base/check.h"
#include "tests/support/call_fixture.h"
#include "tests/support/sim_descriptors.h"
#include "tests/support/sim_sandbox.h"
#include "tests/support/sim_time.h"

namespace pulga::testing {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

std::unique_ptr<SimDescriptors> SimulatedOrNone(RuntimeSimulationRules::Descriptors which) {
  const bool simulated = which == RuntimeSimulationRules::Descriptors::kSimulated;
  return simulated ? std::make_unique<SimDescriptors>() : nullptr;
}

class Simulation {
 public:
  Simulation(uint32_t seed, const RuntimeSimulationRules& rules)
      : rules_(rules),
        random_(seed),
        descriptors_(SimulatedOrNone(rules.descriptors)),
        loop_(EventLoop::Create().value()),
        sandbox_(*loop_, time_, seed) {
    DispatcherConfig config;
    config.memory_budget_bytes = rules.budget;
    config.max_instances = rules.max_instances;
    sandbox_.longest_call = rules.longest_call;
    sandbox_.swap = Below(2) == 0;
    dispatcher_ = Dispatcher::Create(config, *loop_, time_, sandbox_, logs_);
    functions_.resize(rules.functions);
    for (uint32_t f = 0; f < rules.functions; ++f) Restore(f);
  }
  ~Simulation() {
    calls_.clear();
    dispatcher_.reset();
    loop_->RunOnce(Duration::zero());
  }

  RuntimeSimulationResult Run() {
    const uint32_t steps = 1 + Below(2 * rules_.steps);
    for (uint32_t step = 0; step < steps && ok(); ++step) {
      Act();
      RunFor(Below(20) == 0 ? seconds(90) : milliseconds(Below(250)));
    }
    BringToRest();
    result_.programs = sandbox_.programs;
    result_.builds = sandbox_.builds;
    result_.freezes = sandbox_.freezes;
    result_.thaws = sandbox_.thaws;
    result_.reclaims = sandbox_.reclaims;
    return result_;
  }

 private:
  struct Function {
    SandboxMode mode = SandboxMode::kExec;  // which a redeploy may change
    uint32_t number = 0;                    // the newest version's
    uint32_t active = 0;                    // calls get this one, or a newer
    std::map<uint64_t, uint32_t> numbers;   // of its versions, by id
    std::map<uint32_t, uint32_t> kept;  // of each version, by number, for as long as it is active
    bool there = false;
  };
  struct Call {
    std::unique_ptr<Client> client;
    uint32_t function = 0;
    uint32_t at_least = 0;  // the version that was active when it came
    TimePoint begun;
    bool counted = false;
  };

  bool ok() const { return result_.broken.empty(); }
  uint32_t Below(uint32_t end) { return static_cast<uint32_t>(random_() % end); }
  void Break(const std::string& what) {
    if (ok()) result_.broken = what;
  }
  // What its pools say.
  std::string Told(uint32_t f) const {
    const FunctionActivity activity = dispatcher_->Activity(KeyOf(f));
    std::string text = ": f" + std::to_string(f) + ", version " + std::to_string(activity.version) +
                       ", " + std::to_string(activity.queued) + " waiting; ";
    for (const InstanceStatus& instance : activity.instances) text += instance.step + " ";
    return text + "; " + activity.last_decision + "; " + activity.trouble;
  }
  std::string ToldOfAll() const {
    std::string text;
    for (uint32_t f = 0; f < rules_.functions; ++f) text += Told(f) + "\n";
    return text;
  }
  FunctionKey KeyOf(uint32_t f) const {
    return {kDefaultOwner, kDefaultNamespace, "f" + std::to_string(f)};
  }

  VersionPtr NewVersion(uint32_t f) {
    Function& function = functions_[f];
    auto version = std::make_shared<Version>();
    version->key = KeyOf(f);
    version->id = next_id_++;
    version->number = ++function.number;
    if (function.number == 1 || Below(10) == 0) {
      function.mode = Below(100) < rules_.servers ? SandboxMode::kHttp : SandboxMode::kExec;
    }
    version->mode = function.mode;
    version->argv = {"/f"};
    if (version->mode == SandboxMode::kHttp) {
      version->concurrency = version->spec.scale.concurrency = 1 + Below(4);
      if (Below(3) == 0) version->spec.scale.target = 1 + Below(version->concurrency);
      version->spec.scale.freeze_after =
          std::array{Duration::zero(), Duration(seconds(1)), kNeverFreeze}[Below(3)];
      version->spec.limits.start_timeout = seconds(2);
    }
    version->spec.limits.timeout = seconds(2);
    version->spec.limits.body_bytes = version->spec.limits.output_bytes = 1 << 20;
    version->spec.sandbox.memory_bytes = (8ULL + 8 * Below(8)) << 20;
    version->spec.scale.max = 1 + Below(4);
    const uint32_t odds = rules_.min_one_in;
    version->spec.scale.min = odds != 0 && Below(odds) == 0 ? 1 : 0;
    version->spec.scale.parked = Below(3);
    version->spec.scale.queue = 1000;
    version->spec.scale.queue_wait = minutes(10);
    const ScaleSpec& scale = version->spec.scale;
    sandbox_.limits[version->id] = {scale.max, version->concurrency};
    const uint32_t parked = version->mode == SandboxMode::kExec ? scale.parked : 0;
    function.kept[version->number] = scale.min == 0 ? 0 : std::max(scale.min, parked);
    function.numbers[version->id] = version->number;
    return version;
  }
  void Restore(uint32_t f) {
    const VersionPtr version = NewVersion(f);
    functions_[f].active = version->number;
    functions_[f].there = true;
    dispatcher_->Restore(version, [] {});
  }
  void Deploy(uint32_t f) {
    ++result_.redeploys;
    ++proving_;
    forced_ = true;
    const VersionPtr version = NewVersion(f);
    dispatcher_->Activate(version, [this, f, number = version->number](const Status& status) {
      --proving_;
      Function& function = functions_[f];
      if (status.ok() && function.there) function.active = std::max(function.active, number);
    });
  }
  void Remove(uint32_t f) {
    functions_[f].there = false;
    dispatcher_->Deactivate(KeyOf(f), [] {});
  }

  void Act() {
    const uint32_t f = Below(rules_.functions);
    const uint32_t what = Below(100);
    if (what < 4) {
      if (functions_[f].there) Deploy(f);
    } else if (what < 6) {
      functions_[f].there ? Remove(f) : Restore(f);
    } else if (what < 8) {
      sandbox_.KillLauncher();
      loop_->CallAfter(milliseconds(Below(3000)), [this] {
        sandbox_.Revive();
        dispatcher_->OnSandboxAvailable();
      });
    } else if (what < 10) {
      dispatcher_->SetPressure(static_cast<PressureLevel>(Below(4)), "the simulation says so");
    } else if (what < 14 && !calls_.empty()) {
      Leave(calls_[Below(static_cast<uint32_t>(calls_.size()))]);
    } else if (functions_[f].there) {
      const uint32_t burst = Below(10) == 0 ? 1 + Below(20) : 1;
      for (uint32_t i = 0; i < burst; ++i) Begin(f);
    }
  }
  void Begin(uint32_t f) {
    ++result_.calls;
    Call call;
    call.client = std::make_unique<Client>();
    call.function = f;
    call.at_least = functions_[f].active;
    call.begun = time_.Now();
    InvocationRequest request;
    request.function = KeyOf(f);
    request.call_id = "call";
    request.method = "GET";
    call.client->Start(*dispatcher_, std::move(request));
    calls_.push_back(std::move(call));
  }
  void Leave(Call& call) {
    if (call.counted) return;
    call.counted = true;
    ++result_.left;
    call.client->Leave();
  }

  void RunFor(Duration time) {
    const TimePoint until = time_.Now() + time;
    do {
      loop_->RunOnce(until - time_.Now());
      Check();
    } while (ok() && time_.Now() < until);
  }
  void Check() {
    const SimSandbox::Count there = sandbox_.Look();
    if (!sandbox_.broken.empty()) Break(sandbox_.broken);
    // A version that proves itself may pass both, until others have given way.
    const bool within = there.bytes <= rules_.budget && there.instances <= rules_.max_instances;
    if (!within && !forced_) {
      Break("over the budget, or over the instances there may be: " + std::to_string(there.bytes) +
            " bytes, " + std::to_string(there.instances) +
            " instances; counted: " + std::to_string(dispatcher_->Totals().memory_used_bytes));
    }
    if (within && proving_ == 0) forced_ = false;
    for (Call& call : calls_) CheckCall(call);
    std::erase_if(calls_, [](const Call& call) { return call.counted; });
  }
  void CheckCall(Call& call) {
    if (call.counted) return;
    if (call.client->contract_broken) Break("an observer was called out of turn");
    const Duration waited = time_.Now() - call.begun;
    if (!call.client->done()) {
      result_.longest_wait = std::max(result_.longest_wait, waited);
      if (waited > rules_.longest_wait) Break("a call starves" + ToldOfAll());
      return;
    }
    call.counted = true;
    const std::string outcome = call.client->outcome();
    if (outcome == "ok") {
      ++result_.served;
      CheckReply(call);
    } else if (outcome.starts_with("rejected")) {
      ++result_.refused;
    } else {
      ++result_.failed;
    }
  }
  // Who replied: "default/f1 17".
  void CheckReply(const Call& call) {
    const Function& function = functions_[call.function];
    const std::string& body = call.client->body;
    const size_t space = body.find(' ');
    const std::string name = std::string(kDefaultNamespace) + "/f" + std::to_string(call.function);
    if (space == std::string::npos || body.substr(0, space) != name) {
      return Break("a reply of another function: " + body);
    }
    const auto number = function.numbers.find(std::stoull(body.substr(space + 1)));
    if (number == function.numbers.end()) return Break("a reply of a version of another function");
    if (number->second < call.at_least) Break("a reply of a version that was replaced before");
  }

  // No more calls: what is open ends; hours later only what scale.min keeps is there, and with the
  // functions all goes.
  void BringToRest() {
    sandbox_.odds = {0, 0, 0, 0, 0, 0, 0};
    sandbox_.Revive();
    dispatcher_->OnSandboxAvailable();
    dispatcher_->SetPressure(PressureLevel::kCalm, "");
    RunFor(rules_.longest_wait + minutes(2));
    if (ok() && !calls_.empty()) Break("an accepted call did not end");
    RunFor(hours(3));
    for (uint32_t f = 0; f < rules_.functions; ++f) {
      const FunctionActivity activity = dispatcher_->Activity(KeyOf(f));
      const uint32_t kept = activity.version == 0 ? 0 : functions_[f].kept[activity.version];
      if (activity.instances.size() > kept) Break("idle instances stay for hours" + Told(f));
    }
    for (uint32_t f = 0; f < rules_.functions; ++f) Remove(f);
    RunFor(minutes(5));
    if (ok() && sandbox_.spawners() != 0) Break("a spawner outlives its function");
    if (ok() && dispatcher_->Totals().memory_used_bytes != 0) Break("memory is held by nobody");
    if (descriptors_ != nullptr) CheckDescriptors();
  }
  // Nothing runs any more: the loop has its two.
  void CheckDescriptors() {
    if (descriptors_->open() != 2) {
      Break(std::to_string(descriptors_->open() - 2) + " descriptors are left open");
    }
    if (!descriptors_->broken().empty()) Break(descriptors_->broken());
  }

  const RuntimeSimulationRules rules_;
  std::mt19937 random_;
  SimTime time_;
  std::unique_ptr<SimDescriptors> descriptors_;  // null: the kernel's
  std::unique_ptr<EventLoop> loop_;
  SimSandbox sandbox_;
  FunctionLogs logs_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::vector<Function> functions_;
  std::vector<Call> calls_;
  RuntimeSimulationResult result_;
  uint64_t next_id_ = 1;
  uint32_t proving_ = 0;
  bool forced_ = false;
};

}  // namespace

RuntimeSimulationResult SimulateRuntime(uint32_t seed, const RuntimeSimulationRules& rules) {
  return Simulation(seed, rules).Run();
}

}  // namespace pulga::testing
