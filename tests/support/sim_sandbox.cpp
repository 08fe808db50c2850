#include "tests/support/sim_sandbox.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "runtime/policy/cost_book.h"
#include "tests/support/sim_server.h"

namespace pulga::testing {
namespace {

using std::chrono::milliseconds;

constexpr Duration kLongestBuild = milliseconds(40);
constexpr Duration kLongestStart = milliseconds(10);
constexpr Duration kLongestListen = milliseconds(60);
constexpr Duration kLongestReclaim = milliseconds(20);

}  // namespace

class SimSpawner final : public Spawner {
 public:
  SimSpawner(SimSandbox& sandbox, VersionSpec spec, SpawnerEvents& events)
      : sandbox_(sandbox),
        spec_(std::move(spec)),
        limits_(sandbox.limits[spec_.version_id]),
        events_(events) {
    sandbox_.spawners_.push_back(this);
  }
  ~SimSpawner() override { std::erase(sandbox_.spawners_, this); }

  Status Start(uint16_t slot, StartOptions options) override {
    if (const Status free = CheckFree(slot); !free.ok()) return free;
    if (sandbox_.Happens(sandbox_.odds.start_refused)) {
      return Error{Code::kIo, EIO, "start: the simulation refuses"};
    }
    Add(slot);
    if (sandbox_.Happens(sandbox_.odds.start_fails)) return FailSetup(slot);
    Run(slot, std::move(options));
    return OkStatus();
  }
  Status Park(uint16_t slot) override {
    if (const Status free = CheckFree(slot); !free.ok()) return free;
    Add(slot);
    if (sandbox_.Happens(sandbox_.odds.start_fails)) return FailSetup(slot);
    After(sandbox_.Within(kLongestStart), slot, [this, slot] {
      instances_[slot].step = Step::kParked;
      events_.OnParked(slot);
    });
    return OkStatus();
  }
  Status Wake(uint16_t slot, StartOptions options) override {
    if (gone_) return Gone();
    const auto it = instances_.find(slot);
    if (it == instances_.end() || it->second.step != Step::kParked) {
      sandbox_.Break("woken without being parked");
      return Error{Code::kInvalidArgument, 0, "not parked"};
    }
    Run(slot, std::move(options));
    return OkStatus();
  }
  // The first ones come when it listens.
  Status MakeSockets(uint16_t slot, uint16_t count) override {
    if (gone_) return Gone();
    const auto it = instances_.find(slot);
    if (it == instances_.end() || it->second.server == nullptr) return NoSuchSlot();
    if (it->second.hangs) return OkStatus();
    const bool listens = std::exchange(it->second.listens, true);
    After(listens ? Duration::zero() : sandbox_.Within(kLongestListen), slot, [this, slot, count] {
      std::vector<UniqueFd> sockets;
      for (uint16_t i = 0; i < count; ++i) {
        sockets.push_back(instances_.at(slot).server->Connect());
      }
      events_.OnSockets(slot, std::move(sockets));
    });
    return OkStatus();
  }
  Status Signal(uint16_t slot, int signo) override {
    const auto it = instances_.find(slot);
    if (it == instances_.end()) return NoSuchSlot();
    Instance& told = it->second;
    told.most = std::min(told.most, Held(told));  // it grows no more
    told.ending = true;
    Thawed(told);
    After(sandbox_.Within(milliseconds(2)), slot, [this, slot, signo] { End(slot, signo); });
    return OkStatus();
  }
  Status Freeze(uint16_t slot) override {
    if (gone_) return Gone();
    const auto it = instances_.find(slot);
    if (it == instances_.end() || it->second.server == nullptr || it->second.ending) {
      sandbox_.Break("what is no living server is frozen");
      return NoSuchSlot();
    }
    if (it->second.server->OpenRequests() > 0) sandbox_.Break("frozen while it has a request");
    if (sandbox_.Happens(sandbox_.odds.freeze_fails)) return Unsupported();
    ++sandbox_.freezes;
    it->second.pages = Pages::kFrozen;
    return OkStatus();
  }
  Status Thaw(uint16_t slot) override {
    if (gone_) return Gone();
    const auto it = instances_.find(slot);
    if (it == instances_.end()) return NoSuchSlot();
    if (it->second.pages == Pages::kMoving) sandbox_.Break("thawed without having been frozen");
    ++sandbox_.thaws;
    Thawed(it->second);
    return OkStatus();
  }
  Status CanReclaim() const override { return sandbox_.swap ? OkStatus() : Unsupported(); }
  Status Reclaim(uint16_t slot, ReclaimDone done) override {
    if (gone_) return Gone();
    const auto it = instances_.find(slot);
    if (it == instances_.end() || it->second.pages != Pages::kFrozen) {
      sandbox_.Break("what is not frozen is reclaimed");
      return NoSuchSlot();
    }
    After(sandbox_.Within(kLongestReclaim), slot,
          [this, slot, thaws = it->second.thaws, done = std::move(done)] {
            Instance& instance = instances_.at(slot);
            if (instance.thaws != thaws) return;  // it was cancelled
            if (sandbox_.Happens(sandbox_.odds.reclaim_fails)) return done(Unsupported());
            ++sandbox_.reclaims;
            instance.pages = Pages::kReclaimed;
            done(Reclaimed{instance.heap, Held(instance)});
          });
    return OkStatus();
  }
  void Resize(const InstanceSize&, std::function<void(Status)> done) override {
    done(Unsupported());
  }
  uint32_t Processes(uint16_t) const override { return 1; }
  SlotTimes Times(uint16_t slot) const override {
    const auto it = times_.find(slot);
    return it == times_.end() ? SlotTimes() : it->second;
  }
  uint64_t MemoryBytes(uint16_t slot) const override {
    const auto it = instances_.find(slot);
    const bool server = it != instances_.end() && it->second.server != nullptr;
    return server ? Held(it->second) : 0;
  }
  InstanceMemory Memory(uint16_t) const override { return {}; }
  std::optional<InstanceCpu> Cpu(uint16_t) const override { return std::nullopt; }
  const std::vector<std::string>& warnings() const override { return warnings_; }

  void Die() {
    gone_ = true;
    instances_.clear();
    sandbox_.loop_.CallAfter(Duration::zero(), [this, alive = std::weak_ptr<char>(alive_)] {
      if (!alive.expired()) events_.OnGone(Gone());
    });
  }
  uint64_t version() const { return spec_.version_id; }
  // Adds what it has; the number of its programs, or servers.
  uint32_t Look(SimSandbox::Count* count) const {
    uint32_t programs = 0;
    for (const auto& [slot, instance] : instances_) {
      const bool runs = instance.step == Step::kRuns;
      count->bytes += runs ? Held(instance) : kParkedInstanceBytes;
      if (runs && !(instance.server != nullptr && instance.ending)) ++programs;
    }
    count->instances += static_cast<uint32_t>(instances_.size());
    return programs;
  }
  const SimSandbox::Limits& limits() const { return limits_; }

 private:
  enum class Step : uint8_t { kParking, kParked, kRuns };
  enum class Pages : uint8_t { kMoving, kFrozen, kReclaimed };
  struct Instance {
    uint64_t life = 0;
    Step step = Step::kParking;
    UniqueFd output;
    std::unique_ptr<SimServer> server;
    bool listens = false;
    bool hangs = false;   // it never listens
    bool ending = false;  // it was sent a signal
    Pages pages = Pages::kMoving;
    uint64_t most = 0;   // what it may hold
    uint64_t heap = 0;   // what it holds once it is frozen
    uint32_t thaws = 0;  // and signals
  };

  static Error Gone() { return {Code::kUnavailable, 0, "the launcher died"}; }
  static Error Unsupported() { return {Code::kUnsupported, 0, "not simulated"}; }
  static Error NoSuchSlot() { return {Code::kNotFound, 0, "no such slot"}; }

  // What runs counts by what it may hold, what is frozen cannot grow.
  uint64_t Held(const Instance& instance) const {
    if (instance.pages == Pages::kMoving) return instance.most;
    return instance.pages == Pages::kFrozen ? instance.heap : instance.heap / 8;
  }
  static void Thawed(Instance& instance) {
    instance.pages = Pages::kMoving;
    ++instance.thaws;
  }

  Status CheckFree(uint16_t slot) {
    if (gone_) return Gone();
    if (slot < spec_.slots && instances_.count(slot) == 0) return OkStatus();
    sandbox_.Break("a slot is used twice, or is none");
    return Error{Code::kInvalidArgument, 0, "slot"};
  }
  void Add(uint16_t slot) {
    instances_[slot].life = ++lives_;
    instances_[slot].most = spec_.limits.memory_bytes;
    times_[slot] = {sandbox_.clock_.Now(), sandbox_.clock_.Now(), {}, {}};
  }
  void After(Duration delay, uint16_t slot, std::function<void()> then) {
    sandbox_.loop_.CallAfter(delay, [this, alive = std::weak_ptr<char>(alive_), slot,
                                     life = instances_[slot].life, then = std::move(then)] {
      if (alive.expired()) return;
      const auto it = instances_.find(slot);
      if (it != instances_.end() && it->second.life == life) then();
    });
  }
  Status FailSetup(uint16_t slot) {
    After(Duration::zero(), slot, [this, slot] {
      instances_.erase(slot);
      InstanceExit exit;
      exit.slot = slot;
      exit.setup_step = "mount proc";
      exit.sys_errno = EPERM;
      events_.OnExit(exit);
    });
    return OkStatus();
  }
  void Run(uint16_t slot, StartOptions options) {
    ++sandbox_.programs;
    times_[slot].exec = sandbox_.clock_.Now();
    Instance& instance = instances_[slot];
    instance.step = Step::kRuns;
    const bool hangs = sandbox_.Happens(sandbox_.odds.hangs);
    if (spec_.mode == SandboxMode::kHttp) return Serve(slot, hangs);
    instance.output = std::move(options.stdout_fd);
    if (hangs) return;
    const int status = sandbox_.Happens(sandbox_.odds.program_fails) ? 3 << 8 : 0;
    After(sandbox_.Within(sandbox_.longest_call), slot, [this, slot, status] {
      const std::string text = Says();
      (void)!write(instances_[slot].output.get(), text.data(), text.size());
      End(slot, status);
    });
  }
  std::string Says() const { return spec_.function + " " + std::to_string(spec_.version_id); }

  void Serve(uint16_t slot, bool hangs) {
    Instance& instance = instances_[slot];
    instance.hangs = hangs;
    const uint64_t limit = spec_.limits.memory_bytes;
    instance.heap = limit / 4 + sandbox_.random_() % (limit / 2);
    instance.server = std::make_unique<SimServer>(
        sandbox_.loop_,
        [this, slot](SimServer::ConnectionId connection) { OnRequest(slot, connection); });
  }
  void OnRequest(uint16_t slot, SimServer::ConnectionId connection) {
    const Instance& instance = instances_.at(slot);
    if (instance.pages != Pages::kMoving) sandbox_.Break("a request reaches what is frozen");
    if (instance.server->OpenRequests() > limits_.calls) {
      sandbox_.Break("more requests at once than scale.concurrency");
    }
    if (sandbox_.Happens(sandbox_.odds.hangs)) return;
    const bool dies = sandbox_.Happens(4 * sandbox_.odds.program_fails);
    After(sandbox_.Within(sandbox_.longest_call), slot, [this, slot, connection, dies] {
      if (dies) return End(slot, SIGSEGV);
      const bool replied = instances_.at(slot).server->Reply(connection, Says());
      const bool moves = instances_.at(slot).pages == Pages::kMoving;
      if (replied && !moves) sandbox_.Break("what is frozen had a request");
    });
  }
  void End(uint16_t slot, int wait_status) {
    instances_.erase(slot);
    InstanceExit exit;
    exit.slot = slot;
    exit.wait_status = wait_status;
    events_.OnExit(exit);
  }

  SimSandbox& sandbox_;
  const VersionSpec spec_;
  const SimSandbox::Limits limits_;
  SpawnerEvents& events_;
  std::map<uint16_t, Instance> instances_;
  std::map<uint16_t, SlotTimes> times_;
  std::vector<std::string> warnings_;
  uint64_t lives_ = 0;
  bool gone_ = false;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

void SimSandbox::BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) {
  ++builds;
  const bool fails = Happens(odds.build_fails);
  loop_.CallAfter(Within(kLongestBuild), [this, spec, &events, fails,
                                          done = std::move(done)]() mutable {
    if (!available_) return done(Error{Code::kUnavailable, 0, "the launcher died"});
    if (fails) return done(Error{Code::kIo, EIO, "mount overlay: the simulation fails"});
    done(std::unique_ptr<Spawner>(std::make_unique<SimSpawner>(*this, std::move(spec), events)));
  });
}

void SimSandbox::KillLauncher() {
  available_ = false;
  for (SimSpawner* spawner : spawners_) spawner->Die();
}

SimSandbox::Count SimSandbox::Look() {
  Count count;
  for (size_t i = 0; i < spawners_.size(); ++i) {
    const SimSpawner& spawner = *spawners_[i];
    uint32_t running = spawner.Look(&count);
    if (running == 0) continue;
    for (size_t before = 0; before < i; ++before) {  // a dying one, of the same version
      Count known;
      if (spawners_[before]->version() == spawner.version()) {
        running += spawners_[before]->Look(&known);
      }
    }
    if (running > spawner.limits().programs) Break("more programs than scale.max");
  }
  return count;
}

}  // namespace pulga::testing
