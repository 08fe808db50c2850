// Pool: the instances of one version and the calls that wait for them. Asks pool_policy what to do
// and does it through the version's spawner. Loop thread; owned by the dispatcher.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/call.h"
#include "runtime/dispatcher.h"
#include "runtime/instance.h"
#include "runtime/pool_policy.h"

namespace pulga {

class Pool final : private SpawnerEvents {
 public:
  // `id` is the sandbox's name for this version: its row id, unless a pool of that is still alive.
  Pool(RuntimeContext& context, VersionPtr version, uint64_t id, Duration idle,
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
  uint32_t wanted() const { return min_; }
  void Drain(TimePoint deadline);              // on_empty once everything is gone
  void EndAllCalls();                          // each with rejected:shutting-down
  bool StopLongestIdle();                      // to make room for another function
  std::optional<TimePoint> IdleSince() const;  // of the one that would be stopped

  void Describe(FunctionActivity* activity) const;
  bool HasWaiting() const { return !waiting_.empty(); }
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

  PoolSnapshot Snapshot() const;
  void Apply(const PoolAction& action);
  void BuildSpawner();
  void OnBuilt(Result<std::unique_ptr<Spawner>> built);
  void DropSpawner();
  void StartForCall(uint16_t slot);
  void StartServer(uint16_t slot);
  Status StartServerIn(Instance& instance);
  void Park(uint16_t slot);
  void Stop(Instance& instance);
  void Kill(Instance& instance);
  void Terminate(Instance& instance);
  void OnListening(Instance& instance);
  void OnStartTimeout(Instance& instance);

  void ServeWaiting();
  bool ServeOne(Call& call);
  Instance* FindUsable() const;
  void Assign(Call& call, Instance& instance, StartKind start);
  void Requeue(Call& call);
  void MoveOrEnd(Call& call, Instance& instance, const InstanceExit& exit, const SlotTimes& times);
  void ReleaseServer(Instance& instance, AfterCall after);
  void ReleaseProgram(Instance& instance, AfterCall after);

  Instance* Find(uint16_t slot) const;
  Instance& NewInstance(uint16_t slot, InstanceStep step, MemoryBudget::Lease lease);
  std::unique_ptr<Instance> Remove(Instance& instance);
  void Clear(Instance& instance);
  MemoryBudget::Lease TakeMemory(uint64_t bytes);
  void NoMemory();

  void NoteFailure(const Outcome& outcome, const FailureFacts& facts);
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
  Duration idle_;
  std::function<void()> on_empty_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();  // for answers that come too late

  SpawnerStep spawner_step_ = SpawnerStep::kNone;
  std::unique_ptr<Spawner> spawner_;
  std::unique_ptr<Spawner> dying_spawner_;
  InstanceList instances_;
  std::deque<Call*> waiting_;
  std::vector<Call*> expected_;
  PoolPhase phase_ = PoolPhase::kActive;
  uint32_t min_;
  TimePoint last_used_;
  TimePoint retry_at_;
  uint32_t failures_ = 0;  // starts that failed in a row
  Outcome last_failure_;
  FailureFacts last_facts_;
  std::function<void(Status)> proof_done_;
  Proof proof_ = Proof::kSpawner;
  std::string last_decision_;
  std::string trouble_;
  std::vector<std::string> warnings_;  // limits this kernel does not enforce

  EventLoop::TimerId look_timer_ = 0;
  TimePoint look_at_;
  EventLoop::TimerId queue_timer_ = 0;
  EventLoop::TimerId refill_timer_ = 0;
  EventLoop::TimerId drain_timer_ = 0;
  EventLoop::TimerId empty_timer_ = 0;
  EventLoop::TimerId bury_timer_ = 0;
  bool refill_now_ = true;
  bool evaluating_ = false;
  bool evaluate_again_ = false;
};

// How the end of an instance reads as an outcome; SetupFailed when the program never ran,
// or when what was above it died.
// Precedence: OOM before signals; a clean exit is a clean exit.
Outcome OutcomeOf(const InstanceExit& exit);

}  // namespace pulga
