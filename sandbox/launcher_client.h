// Sandbox, implemented over the launcher's socket: the daemon's side of launch_protocol.h and
// spawn_protocol.h. Loop thread only; never blocks (a full socket is kUnavailable).
// When the launcher dies every Spawner hears OnGone and pending calls fail kUnavailable;
// AdoptLauncher takes its successor's socket.
// What comes over the sockets is checked: a spawner is confined because it is not trusted.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "base/message_socket.h"
#include "sandbox/launch_protocol.h"
#include "sandbox/sandbox.h"

namespace pulga {

class SpawnerClient;

class LauncherClient final : public Sandbox {
 public:
  explicit LauncherClient(EventLoop& loop) : loop_(loop) {}
  // Pending calls are forgotten without an answer. Destroy the Spawners first.
  ~LauncherClient() override;

  // The one given at start, or a successor's.
  Status AdoptLauncher(UniqueFd socket);
  // Called on the loop when the launcher is gone, after all OnGone.
  void SetOnGone(std::function<void()> on_gone) { on_gone_ = std::move(on_gone); }

  bool available() const override { return socket_.valid(); }
  void BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) override;
  void Freeze(uint64_t version_id, uint16_t slot, std::function<void(Status)> done) override;
  void Thaw(uint64_t version_id, uint16_t slot, std::function<void(Status)> done) override;
  uint64_t RunUnpack(UnpackJob job, std::function<void(Status)> done) override;
  void CancelUnpack(uint64_t job) override;
  void ListLayers(std::function<void(Result<std::vector<LayerId>>)> done) override;
  // Everything in the slot's cgroup; Spawner::Signal(SIGKILL) normally does.
  void Kill(uint64_t version_id, uint16_t slot, std::function<void(Status)> done);
  // Answered when nothing of the version is left. Destroying its Spawner asks for it unanswered.
  void Drop(uint64_t version_id, std::function<void(Status)> done);

 private:
  friend class SpawnerClient;
  using ReplyCallback = std::function<void(const LaunchReply&, std::vector<UniqueFd> fds)>;

  void Call(const WireWriter& message, uint64_t request, ReplyCallback done,
            std::span<const int> fds = {});
  void CallSlot(LaunchKind kind, const SlotBody& body, std::function<void(Status)> done);
  void OnReadable();
  void Lose(const char* why);
  void Forget(const SpawnerClient* spawner);

  EventLoop& loop_;
  MessageSocket socket_;
  uint64_t next_request_ = 1;
  std::map<uint64_t, ReplyCallback> pending_;
  std::vector<SpawnerClient*> spawners_;
  std::function<void()> on_gone_;
};

}  // namespace pulga
