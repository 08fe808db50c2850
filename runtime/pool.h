// Pool: the instances of one version and the calls that wait for them. Asks pool_policy what to do
// and does it through the version's spawner. Loop thread; owned by the dispatcher.
#pragma once

#include <algorithm>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/call.h"
#include "runtime/dispatcher.h"
#include "runtime/function_book.h"
#include "runtime/instance.h"
#include "runtime/policy/cron_schedule.h"
#include "runtime/policy/resizer.h"
#include "runtime/policy/use_window.h"
#include "runtime/pool_policy.h"
#include "runtime/refusal_book.h"
#include "runtime/room_maker.h"

namespace pulga {

class Pool final : private SpawnerEvents {
 public:
  // What outlives versions: the function's, shared by its pools.
  struct Books {
    std::shared_ptr<FunctionBook> function;
    std::shared_ptr<RefusalBook> refusals;
  };
  // `id` is the sandbox's name for this version: its row id, unless a pool of that is still alive.
  // `idle`: the fixed rule behind scale.idle = auto.
  Pool(RuntimeContext& context, VersionPtr version, uint64_t id, Duration idle, Books books,
       std::function<void()> on_empty);
  ~Pool() override;  // ends every call it still has
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  const Version& version() const { return *version_; }
  const VersionPtr& version_ptr() const { return version_; }
  uint64_t id() const { return id_; }

  // --- calls
  void Submit(Call& call);
  // It will be submitted later: its argument is still being collected.
  void Expect(Call& call);
  // Called by Call::Finish: the call is over, or gives up waiting.
  void Release(Call& call, AfterCall after);
  // exec: runs the program of `call` in `instance`. On an error the call still has it.
  Status Launch(Instance& instance, const Call& call, StartOptions options);
  // After that error: the call waits again if it can, else ends.
  void LaunchFailed(Call& call, Instance& instance, const Error& error);
  SlotTimes Times(const Instance& instance) const;

  // --- the dispatcher's side
  void Evaluate();  // something changed: decide anew
  enum class Proof : uint8_t { kSpawner, kInstance };
  void Prove(Proof proof, std::function<void(Status)> done);
  void SetWanted(uint32_t instances);
  void Drain(TimePoint deadline);  // on_empty once everything is gone
  void EndAllCalls();              // rejected:shutting-down, or killed

  // --- the room maker's side: what is held, wanted, and may be given up
  FunctionBook& book() { return *book_; }
  const FunctionBook& book() const { return *book_; }
  // What an instance may use; while that is being lowered, what it still may.
  uint64_t limit_bytes() const { return std::max(size_.memory_bytes, in_force_.memory_bytes); }
  Holding Holds() const;
  RoomMaker::Share& room_share() { return room_share_; }
  enum class Hoped : uint8_t { kKept, kOffered };  // the one that a call of its own waits for
  void OfferIdle(std::vector<IdleInstance>* out, Hoped hoped);
  void Lower(uint16_t slot, Rung to);  // for another function
  void EndIdle(uint16_t slot, const char* why);
  uint64_t CloseOne();  // a busy server takes no new calls; what it holds, or 0
  bool CanGiveUpSpawner() const;
  void GiveUpSpawner();
  bool GivesUpSpawner() const;  // and still has it

  void NoteRefusals();  // what came since the last time, into the function's book and the logs
  void Describe(FunctionActivity* activity) const;
  void Glance(FunctionActivity* activity) const;  // the cheap part of it
  size_t instance_count() const { return instances_.size(); }
  bool HasInstances() const { return !instances_.empty(); }
  bool spawner_built() const { return spawner_ != nullptr; }
  bool empty() const;

 private:
  using InstanceList = std::vector<std::unique_ptr<Instance>>;

  // SpawnerEvents
  void OnParked(uint16_t slot) override;
  void OnExit(const InstanceExit& exit) override;
  void OnSockets(uint16_t slot, std::vector<UniqueFd> sockets) override;
  void OnGone(const Error& why) override;

  static uint32_t SlotsOf(const Version& version);
  PoolSnapshot Snapshot() const;
  ScaleDecision DecideScale(const PoolSnapshot& snapshot);
  bool ScalesByTarget() const;
  bool ScalesByLoad() const;  // the load is looked at while calls come
  void LookAtLoad();
  InstanceSize SmallestSize() const;
  void StartSizes();
  void NoteUse(const Instance& instance, std::optional<InstanceCpu> cpu, Duration time);
  void NoteMemory(uint64_t own);
  void NoteCpu(const InstanceCpu& spent, Duration time);
  void NoteEnd(const Instance& instance, const InstanceExit& exit, const SlotTimes& times);
  void PlanSizes();
  ResizeDecision PlanSize(std::optional<UseSnapshot>* use, uint64_t limit, const ResizeRules& rules,
                          ResizeState* state);
  void Tell(const ResizeDecision& decision, const std::string& what, ResizeDecision::Cause* told,
            std::vector<std::string>* why);
  void Note(const std::string& text);  // a decision, in the logs too
  bool TakeForSize(uint64_t bytes);
  bool TakeMemoryForSize(uint64_t bytes);
  bool ShrinkToFit();  // true: it fits now, or will soon
  void SetSize(const InstanceSize& size);
  void OnResized(const InstanceSize& size, const Status& resized);
  void SizeOfNewSpawner(const InstanceSize& built);
  void Measure();
  Warmth PlannedWarmth() const;
  // By its schedule, from the end of the last call on.
  std::optional<Duration> NextFire() const;
  bool FollowsFire() const;  // the last call was the schedule's
  std::optional<TimePoint> FireDue() const;
  void PlanLadder(PoolSnapshot* snapshot) const;
  void Decide(std::string decision);
  std::optional<Duration> CpuUsed(uint16_t slot) const;
  void DescribeInstances(FunctionActivity* activity) const;
  void DescribeLadder(FunctionActivity* activity) const;
  void Apply(const PoolAction& action);
  void BuildSpawner();
  void WaitForHolder(const Error& error);
  void WaitForPlace(const Error& error);
  void OnBuilt(Result<std::unique_ptr<Spawner>> built, const InstanceSize& size);
  void DropSpawner();
  void StartForCall(uint16_t slot);
  void StartServer(uint16_t slot, PoolAction::Urgency urgency);
  LogSource SourceOf(const Instance& instance, std::string call_id, std::string stream) const;
  Status StartServerIn(Instance& instance);
  void Park(uint16_t slot, PoolAction::Urgency urgency);
  void Stop(Instance& instance);
  void Freeze(Instance& instance);
  void FreezeFailed(const Error& error);
  void ForgetFreezeWarning();
  void Reclaim(Instance& instance);
  bool Thaw(Instance& instance);
  void Kill(Instance& instance);
  void Terminate(Instance& instance);
  void AwaitExit(Instance& instance);  // for its grace
  void ProbeServer(Instance& instance);
  void OnListening(Instance& instance);
  void OnReady(Instance& instance);
  void OnStartTimeout(Instance& instance);
  Status OpenChannel(Instance& instance, UniqueFd fd);
  void OnChannelEnd(Instance& instance, FramesChannel::End end, const char* why);
  void MoveUnsent(Instance& instance, Call& call);
  void BreakOff(Instance& instance, const char* why);
  void NoteFailedChannel(const Outcome& outcome, const FailureFacts& facts);
  void CloseWays(Instance& instance);  // to its server

  void ServeWaiting();
  bool ServeOne(Call& call);
  bool HaveMemory(Call& call, Instance& instance);
  Instance* FindUsable() const;
  bool TakesCalls(const Instance& server) const;
  Instance* LeastBusy() const;
  Instance* Resting() const;
  bool SpreadsCalls() const;
  uint32_t CallsBeforeThaw() const;
  Instance* TakeServer(Call& call, StartKind* start);
  void Assign(Call& call, Instance& instance, StartKind start);
  void Requeue(Call& call);
  void EndOpen(Call& call);
  void MoveOrEnd(Call& call, Instance& instance, const InstanceExit& exit, const SlotTimes& times);
  void ReleaseServer(Instance& instance, AfterCall after);
  void ReleaseProgram(Instance& instance, AfterCall after);

  static bool IsQuiet(const Instance& instance);  // might go when nobody needs it
  std::vector<const Instance*> Spare(Hoped hoped) const;
  void Changed() {  // what it holds, or may give up
    if (context_.room != nullptr) context_.room->Changed(*this);
  }
  Instance* Find(uint16_t slot) const;
  Instance& NewInstance(uint16_t slot, InstanceStep step, MemoryBudget::Lease lease);
  std::unique_ptr<Instance> Remove(Instance& instance);
  void Clear(Instance& instance);
  void NoteBytes(const Instance& instance, Rung rung);
  void Weigh(Instance& instance, Rung rung, uint64_t bytes);
  // `since`: when the call that wants it began to wait; none: no call does.
  using Since = RoomMaker::Since;
  MemoryBudget::Lease TakeMemory(uint64_t bytes, Since since);
  bool GrowMemory(Instance& instance, Since since);  // to its limit
  // A waiting call's, for an instance of its own or for one that grows; or only scale.min's.
  enum class Need : uint8_t { kInstance, kGrowth, kMinimum };
  bool NoMemory(uint64_t more, Since since, Need need);  // false: it will never fit
  void NoteDenied(uint64_t bytes, Since since, Need need);
  void WantNoMore();  // memory that it was denied
  void CallsGone();   // those that waited
  void NoteStart(uint64_t bytes);
  std::optional<TimePoint> OldestWaiting() const;
  bool GetsOn() const;  // its calls are served in turn, by what has its memory
  FailureFacts NeverFits() const;

  void NoteFailure(const Outcome& outcome, const FailureFacts& facts);
  // A server that ends by itself before its first call failed to start, whatever it said of itself:
  // else it would be started again at once, and for ever.
  static bool MetNoCall(const Instance& instance);
  void NoteSuccess();
  void FailWaiting(const Outcome& outcome, const FailureFacts& facts, uint32_t retry_after_s);
  FailureFacts BackOffFacts() const;
  bool AnythingUsable() const;
  uint32_t RetryAfterSeconds() const;
  void CheckProof();
  void EndProof(Status status);
  void ArmQueueTimer();
  void ExpireWaiting();
  uint32_t WaitingCovered() const;
  void LookAgainAt(std::optional<TimePoint> when);
  void RefillLater();
  void Remark(std::string text);
  void TellIfEmpty();

  RuntimeContext& context_;
  uint64_t id_;
  VersionPtr version_;
  Duration idle_;  // where no habit shows
  struct Schedule {
    explicit Schedule(CronSchedules times) : next(times), last(std::move(times)) {}
    ScheduleMemo next;
    ScheduleMemo last;  // the same, asked for what was
  };
  std::unique_ptr<Schedule> schedule_;             // only where it has one
  std::unique_ptr<const ReadyProbe> ready_probe_;  // the same
  std::shared_ptr<FunctionBook> book_;
  std::shared_ptr<RefusalBook> refusals_;
  std::function<void()> on_empty_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();  // for answers that come too late

  SpawnerStep spawner_step_ = SpawnerStep::kNone;
  std::unique_ptr<Spawner> spawner_;
  std::unique_ptr<Spawner> dying_spawner_;
  InstanceList instances_;
  std::list<Call*> waiting_;  // empty in most pools, and then without a block of its own
  std::vector<Call*> expected_;
  PoolPhase phase_ = PoolPhase::kActive;
  uint32_t min_;
  std::optional<uint32_t> scaled_;  // what min_ was set to
  TimePoint last_used_;
  PoolSnapshot::Use use_ = PoolSnapshot::Use::kInUse;
  std::optional<Duration> rest_;  // of the last plan
  uint32_t parks_ = 0;
  uint64_t denied_bytes_ = 0;  // and still wanted
  RoomMaker::Share room_share_;
  bool wants_memory_ = false;  // asked for some in vain, in this evaluation
  bool can_reclaim_ = false;   // when the last one was frozen
  ScaleState scale_state_;
  // How its calls and instances do; only where scale has a target for it.
  struct Meters {
    LatencyWindow latency;
    CpuAverage cpu;
  };
  std::unique_ptr<Meters> meters_;
  std::unique_ptr<CallRate> rate_;  // the same
  TimePoint measured_;
  InstanceSize size_;                        // of each instance, as decided
  std::map<uint16_t, Duration> cpu_before_;  // server: of each slot, by those that ended in it
  InstanceSize in_force_;                    // as the spawner's slots have it; {} without a range
  struct Sizer {
    bool has_memory = false;  // it is a range
    bool has_cpu = false;
    std::optional<UseSnapshot> memory_use;  // since it was last decided on; none: nothing seen
    std::optional<UseSnapshot> cpu_use;
    ResizeState memory;
    ResizeState cpu;
    ResizeDecision::Cause memory_told = ResizeDecision::Cause::kFits;
    ResizeDecision::Cause cpu_told = ResizeDecision::Cause::kFits;
    std::map<uint16_t, InstanceCpu> slots;  // exec: at the end of the last one in each
    uint64_t asked = 0;                     // of the launcher, and not answered; 0: nothing
    uint64_t last_asked = 0;
    std::optional<TimePoint> refused;  // more memory, by the budget; or anything, by the kernel
  };
  std::unique_ptr<Sizer> sizer_;  // only where a limit is a range
  TimePoint retry_at_;
  std::string held_elsewhere_;  // the device that another function holds, or ""
  uint32_t failures_ = 0;       // starts that failed in a row
  Outcome last_failure_;
  FailureFacts last_facts_;
  std::function<void(Status)> proof_done_;
  Proof proof_ = Proof::kSpawner;
  std::string last_decision_;
  std::string trouble_;
  std::vector<std::string> warnings_;  // limits this kernel does not enforce
  FeatureShelf::List isolation_;       // of the last spawner, once it is gone

  EventLoop::TimerId look_timer_ = 0;
  TimePoint look_at_;
  EventLoop::TimerId queue_timer_ = 0;
  EventLoop::TimerId refill_timer_ = 0;
  EventLoop::TimerId drain_timer_ = 0;
  TimePoint drain_deadline_;
  EventLoop::TimerId empty_timer_ = 0;
  EventLoop::TimerId bury_timer_ = 0;
  bool refill_now_ = true;
  Duration freeze_pause_{};  // since the last freeze failed; zero when none did
  TimePoint freeze_again_at_;
  std::string freeze_warning_;  // as it stands in warnings_
  bool evaluating_ = false;
  bool evaluate_again_ = false;
};

// How the end of an instance reads as an outcome; SetupFailed when the program never ran,
// or when what was above it died.
// Precedence: OOM before signals; a clean exit is a clean exit.
Outcome OutcomeOf(const InstanceExit& exit);

}  // namespace pulga
