// One built version, seen from the daemon: Spawner over the spawner's own socket. Private to
// launcher_client. Loop thread only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/message_socket.h"
#include "base/outgoing_messages.h"
#include "sandbox/cgroup_counters.h"
#include "sandbox/grants.h"
#include "sandbox/refusals.h"
#include "sandbox/sandbox.h"
#include "sandbox/slot_cpu.h"
#include "sandbox/slot_freezer.h"
#include "sandbox/slot_memory.h"
#include "sandbox/spawn_protocol.h"

namespace pulga {

class LauncherClient;

class SpawnerClient final : public Spawner {
 public:
  struct Parts {
    uint64_t version_id = 0;
    uint16_t slots = 0;
    uint64_t swap_limit = 0;
    UniqueFd socket;
    UniqueFd records;
    std::string report;  // as the launcher sent it
    Wishes wishes;
    SecretUse secrets;
  };
  static Result<std::unique_ptr<SpawnerClient>> Create(EventLoop& loop, LauncherClient& launcher,
                                                       SpawnerEvents& events, Parts parts);
  ~SpawnerClient() override;

  Status Start(uint16_t slot, StartOptions options) override;
  Status Park(uint16_t slot) override;
  Status Wake(uint16_t slot, StartOptions options) override;
  Status MakeSockets(uint16_t slot, uint16_t count) override;
  Status Signal(uint16_t slot, int signo) override;
  Status Freeze(uint16_t slot) override;
  Status Thaw(uint16_t slot) override;
  Status CanReclaim() const override;
  Status Reclaim(uint16_t slot, ReclaimDone done) override;
  void Resize(const InstanceSize& size, std::function<void(Status)> done) override;
  uint32_t Processes(uint16_t slot) const override;
  SlotTimes Times(uint16_t slot) const override;
  uint64_t MemoryBytes(uint16_t slot) const override;
  InstanceMemory Memory(uint16_t slot) const override;
  std::optional<InstanceCpu> Cpu(uint16_t slot) const override;
  const std::vector<std::string>& warnings() const override { return warnings_; }
  std::vector<RefusedCount> TakeRefusals() override;
  std::vector<Feature> layers() const override;  // by the grants in force now

  uint64_t version_id() const { return version_id_; }
  const SecretUse& secrets() const { return secrets_; }
  // In the order of secrets().names, before whatever is started after this call. What fails later
  // ends the version: OnGone.
  Status SetSecrets(const std::vector<SecretFile>& secrets);
  // The launcher above it is gone. May destroy this object.
  void Gone(const Error& why);

 private:
  enum class State : uint8_t { kFree, kRunning, kParking, kParked };
  struct Slot {
    State state = State::kFree;
    MessageSocket wake;  // parking (watched) and parked
    CounterFd memory;
    SlotFreezer freezer;
    SlotMemory parts;
    SlotCpu cpu;
    uint64_t reclaim = 0;  // which one is under way; 0: none
    bool stopped = false;  // by signals: there is no freezer

    bool frozen() const { return stopped || freezer.frozen(); }
  };
  SpawnerClient(EventLoop& loop, LauncherClient& launcher, SpawnerEvents& events, Parts parts);

  Status Expect(uint16_t slot, State state) const;
  template <typename To>  // MessageSocket or OutgoingMessages
  Status SendProgram(To& to, SpawnRequest request, const StartOptions& options);
  void OnReadable();
  void OnEventWithoutFds(const SpawnEvent& event);
  // False: the spawner broke the protocol.
  bool OnEvent(const SpawnEvent& event, std::vector<UniqueFd> fds);
  void CancelReclaim(uint16_t slot);
  Status ThawSlot(uint16_t slot);
  bool TakePairs(const SpawnEvent& event, std::vector<UniqueFd> fds);
  bool TakeFreezers(const SpawnEvent& event, std::vector<UniqueFd> fds);
  void OnWakeReadable(uint16_t slot);
  void CloseWake(Slot& slot);

  EventLoop& loop_;
  LauncherClient* launcher_;
  SpawnerEvents& events_;
  uint64_t version_id_;
  uint64_t swap_limit_;
  MessageSocket socket_;
  OutgoingMessages outgoing_;
  const volatile SlotRecord* records_ = nullptr;
  RefusalReader refusals_;
  std::vector<Slot> slots_;
  uint64_t last_reclaim_ = 0;
  bool stops_by_signals_;
  std::vector<std::string> warnings_;
  std::string report_;  // with the layers: a fifth of what they take when it is split
  Wishes wishes_;
  SecretUse secrets_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // false once destroyed
};

}  // namespace pulga
