// One built version, seen from the daemon: Spawner over the spawner's own socket. Private to
// launcher_client. Loop thread only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/message_socket.h"
#include "sandbox/cgroup_counters.h"
#include "sandbox/sandbox.h"
#include "sandbox/spawn_protocol.h"

namespace pulga {

class LauncherClient;

class SpawnerClient final : public Spawner {
 public:
  struct Parts {
    uint64_t version_id = 0;
    uint16_t slots = 0;
    UniqueFd socket;
    UniqueFd records;
    std::vector<std::string> warnings;
  };
  static Result<std::unique_ptr<SpawnerClient>> Create(EventLoop& loop, LauncherClient& launcher,
                                                       SpawnerEvents& events, Parts parts);
  ~SpawnerClient() override;

  Status Start(uint16_t slot, StartOptions options) override;
  Status Park(uint16_t slot) override;
  Status Wake(uint16_t slot, StartOptions options) override;
  Status MakeSockets(uint16_t slot, uint16_t count) override;
  Status Signal(uint16_t slot, int signo) override;
  SlotTimes Times(uint16_t slot) const override;
  uint64_t MemoryBytes(uint16_t slot) const override;
  const std::vector<std::string>& warnings() const override { return warnings_; }

  uint64_t version_id() const { return version_id_; }
  // The launcher above it is gone. May destroy this object.
  void Gone(const Error& why);

 private:
  enum class State : uint8_t { kFree, kRunning, kParking, kParked };
  struct Slot {
    State state = State::kFree;
    MessageSocket wake;  // parking (watched) and parked
    CounterFd memory;
  };
  SpawnerClient(EventLoop& loop, LauncherClient& launcher, SpawnerEvents& events, Parts parts);

  Status Expect(uint16_t slot, State state) const;
  Status SendProgram(const MessageSocket& to, SpawnRequest request, const StartOptions& options);
  void OnReadable();
  // False: the spawner broke the protocol.
  void OnEventWithoutFds(const SpawnEvent& event);
  bool OnEvent(const SpawnEvent& event, std::vector<UniqueFd> fds);
  void OnWakeReadable(uint16_t slot);
  void CloseWake(Slot& slot);

  EventLoop& loop_;
  LauncherClient* launcher_;
  SpawnerEvents& events_;
  uint64_t version_id_;
  MessageSocket socket_;
  const volatile SlotRecord* records_ = nullptr;
  std::vector<Slot> slots_;
  std::vector<std::string> warnings_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // false once destroyed
};

}  // namespace pulga
