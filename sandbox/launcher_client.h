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
#include "base/outgoing_messages.h"
#include "sandbox/grants.h"
#include "sandbox/launch_protocol.h"
#include "sandbox/sandbox.h"
#include "sandbox/volumes/volume_host.h"

namespace pulga {

class SpawnerClient;

class LauncherClient final : public Sandbox, public VolumeHost {
 public:
  explicit LauncherClient(EventLoop& loop) : loop_(loop) {}
  // Pending calls are forgotten without an answer. Destroy the Spawners first.
  ~LauncherClient() override;

  // The one given at start, or a successor's.
  Status AdoptLauncher(UniqueFd socket);
  // Called on the loop when the launcher is gone, after all OnGone.
  void SetOnGone(std::function<void()> on_gone) { on_gone_ = std::move(on_gone); }

  // What the first version with outbound network opens it with, for each launcher anew; then
  // `on_gateway` gets a listening socket that functions reach, or an invalid one when it is over.
  void SetNetwork(const NetworkPlan& plan, std::function<void(UniqueFd)> on_gateway) {
    network_plan_ = plan;
    on_gateway_ = std::move(on_gateway);
  }

  // `on_grants` hears the grants in force, whenever they change; none when the launcher is gone.
  void SetOnGrants(std::function<void(std::vector<GrantLine>)> on_grants) {
    on_grants_ = std::move(on_grants);
  }

  // A request that is older, to a launcher that meanwhile answered nothing at all, fails kTimeout
  // and is taken back. One that works on something long only has to answer when asked if it lives.
  void SetPatience(Duration patience) { patience_ = patience; }

  const Grants& grants() const { return grants_; }

  bool available() const override { return socket_.valid(); }
  void BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) override;
  std::vector<SecretUse> SecretUses() const override;
  void SetSecrets(uint64_t version_id, const std::vector<SecretFile>& secrets) override;
  uint64_t RunUnpack(UnpackJob job, std::function<void(Status)> done) override;
  void CancelUnpack(uint64_t job) override;
  void ListLayers(std::function<void(Result<std::vector<LayerId>>)> done) override;
  void CreateVolume(const NewVolume& volume, std::function<void(Status)> done) override;
  void ResizeVolume(uint64_t id, uint64_t bytes, std::function<void(Status)> done) override;
  void RemoveVolume(uint64_t id, std::function<void(Status)> done) override;
  void ListVolumes(std::function<void(Result<std::vector<VolumeState>>)> done) override;
  // Everything in the slot's cgroup; Spawner::Signal(SIGKILL) normally does.
  void Kill(uint64_t version_id, uint16_t slot, std::function<void(Status)> done);
  // Spawner::Reclaim asks for it; cancelling is answered at once, and the reclaim itself then too.
  void Reclaim(uint64_t version_id, uint16_t slot, Spawner::ReclaimDone done);
  void CancelReclaim(uint64_t version_id, uint16_t slot);
  // Where there is no freezer; carried out in the order of the calls.
  void StopSlot(uint64_t version_id, uint16_t slot);
  void ContinueSlot(uint64_t version_id, uint16_t slot);
  void Resize(uint64_t version_id, const InstanceSize& size, std::function<void(Status)> done);
  // Answered when nothing of the version is left. Destroying its Spawner asks for it unanswered.
  void Drop(uint64_t version_id, std::function<void(Status)> done);

 private:
  friend class SpawnerClient;
  using ReplyCallback = std::function<void(const LaunchReply&, std::vector<UniqueFd> fds)>;

  // `take_back`: undoes it, should it be carried out after we have given it up.
  void Call(const WireWriter& message, uint64_t request, ReplyCallback done,
            std::span<const int> fds = {}, std::function<void()> take_back = nullptr);
  void CallVolume(LaunchKind kind, const VolumeRequestBody& body, std::function<void(Status)> done);
  void CallSlot(LaunchKind kind, const SlotBody& body, std::function<void(Status)> done);
  void Build(const VersionSpec& spec, SpawnerEvents& events, BuildDone done);
  void OpenNetwork(std::function<void(Status)> done);
  void OnReadable();
  void OnGrants(std::span<const UniqueFd> fds);
  void Lose(const char* why);
  void SendCancelUnpack(uint64_t job);
  void LookSoon();
  void LookForSilence();
  void GiveUpOverdue(TimePoint now);
  void Forget(const SpawnerClient* spawner);

  EventLoop& loop_;
  MessageSocket socket_;
  OutgoingMessages outgoing_{loop_, socket_};
  uint64_t next_request_ = 1;
  struct Pending {
    ReplyCallback done;
    TimePoint sent;
    std::function<void()> take_back;  // or null
  };
  std::map<uint64_t, Pending> pending_;
  Duration patience_ = std::chrono::seconds(30);
  EventLoop::TimerId look_timer_ = 0;  // while something is pending
  uint64_t question_ = 0;              // the request that asks if it lives, until answered
  TimePoint asked_;
  std::vector<SpawnerClient*> spawners_;
  std::function<void()> on_gone_;
  std::function<void(std::vector<GrantLine>)> on_grants_;
  Grants grants_;  // in force, as told
  NetworkPlan network_plan_;
  bool network_open_ = false;
  std::vector<std::function<void(Status)>> network_waiters_;  // while it is being opened
  std::function<void(UniqueFd)> on_gateway_;
};

}  // namespace pulga
