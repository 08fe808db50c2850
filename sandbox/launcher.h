// The launcher: root over the host, so it does little and trusts nobody. Takes messages of the
// closed set in launch_protocol.h from one socket, checks every field, and hands the work to forked
// children: set-up of versions, unpack jobs, janitors for what is slow. Keeps track of what lives
// and removes it when it ends or the daemon does. Never on the request path.
// One thread, one EventLoop. Needs root.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/message_socket.h"
#include "base/outgoing_messages.h"
#include "base/process.h"
#include "base/result.h"
#include "sandbox/apparmor.h"
#include "sandbox/build_report.h"
#include "sandbox/cgroup.h"
#include "sandbox/egress_network.h"
#include "sandbox/granted_device.h"
#include "sandbox/grants_file.h"
#include "sandbox/id_ranges.h"
#include "sandbox/job_rules.h"
#include "sandbox/launch_protocol.h"
#include "sandbox/layers_dir.h"
#include "sandbox/slot_reclaim.h"
#include "sandbox/volumes/volumes_dir.h"

namespace pulga {

struct LauncherOptions {
  UniqueFd socket;    // to the daemon
  UniqueFd layers;    // DATA/layers
  UniqueFd volumes;   // DATA/volumes; may be invalid: there are none then
  UniqueFd unpacker;  // the executables; may be invalid: their jobs then fail
  UniqueFd fetcher;
  UniqueFd netadmin;
  UniqueFd router;
  std::string tree_name;  // CgroupTreeName()
  std::string grants_file = kDefaultGrantsFile;
  AppArmorUse apparmor = AppArmorUse::kAuto;
  HostIds ids;
  Duration build_timeout = std::chrono::seconds(20);
};

class Launcher {
 public:
  // Sweeps what an earlier launcher of the same data directory left.
  static Result<std::unique_ptr<Launcher>> Create(EventLoop& loop, LauncherOptions options);
  ~Launcher();
  // Kills and removes everything; blocks. Called when the daemon is gone or on SIGTERM.
  void Shutdown();
  // Reads the grants anew; versions that have lost theirs are ended.
  void ReloadGrants();
  Result<GrantsText> GrantsOfHost() const;
  // To the daemon, which shows them.
  void TellGrants(const std::vector<GrantLine>& lines);
  // True when the daemon spoke nonsense.
  bool broken() const { return broken_; }

 private:
  struct Version;
  struct Job;
  using ExitCallback = std::function<void(const ExitInfo&)>;

  Launcher(EventLoop& loop, LauncherOptions options, LayersDir layers);
  Status Start();

  void ServeSocket();
  void ServeMessage(const LaunchHeader& header, Message message);
  void Reply(uint64_t request, const Status& status, const std::string& text = "",
             std::vector<int> fds = {});
  void Stop(const char* why);

  void BuildVersion(uint64_t request, Message message);
  Result<std::vector<GrantedDevice>> LeaseDevices(const Wishes& wishes) const;
  // That what the version names is on the disk.
  Status CheckPresent(const VersionSpec& spec) const;
  Status CheckVersion(const Version& version) const;
  Status StartBuild(Version& version, VersionSpec spec);
  void OnBuildReport(Version& version);
  void FinishBuild(Version& version);
  void DropVersion(uint64_t request, Message message);
  void TearDown(Version& version, const Error& why);
  void Continue(Version& version);  // tearing down: on to the next step once its children are gone
  void KillSlot(uint64_t request, const Message& message);
  Version* FindSlot(const SlotBody& body);  // nullptr: not there, or not for long
  void Reclaim(uint64_t request, const Message& message);
  void CancelReclaim(uint64_t request, const Message& message);
  void StopSlot(uint64_t request, const Message& message);
  void ContinueSlot(uint64_t request, const Message& message);
  void StopPass();
  void NextReclaim();
  Status StartReclaim(const ReclaimTarget& target);
  void OnReclaimed(const ExitInfo& info);
  void CloseSlot(uint64_t version_id, const SlotReclaim& work);
  // All of the version's, or the one of a slot.
  void EndReclaims(uint64_t version_id, std::optional<uint16_t> slot = std::nullopt);
  struct Resizing {
    uint64_t request = 0;
    uint64_t version_id = 0;
    uint64_t build = 0;
    SandboxLimits from;
    SandboxLimits to;
    bool undoes = false;
  };
  static Status CheckSize(const Version& version, const InstanceSize& size);
  void ResizeVersion(uint64_t request, const Message& message);
  Status StartResize(Version& version, const Resizing& resizing);
  void OnResized(const Resizing& resizing, const ExitInfo& info);
  EgressNetwork::Parts NetworkParts();
  Result<const CgroupJoin*> CgroupOf(NetHelper helper);
  void OpenNetwork(uint64_t request, const Message& message);
  Version* FindBuilt(uint64_t id, uint64_t build);  // nullptr: it is another, or on its way out
  Status StartNetwork(Version& version);
  void AttachNetns(Version& version, UniqueFd netns, uint32_t number);
  void OnAttached(Version& version, uint32_t number, const Result<uint32_t>& port);
  void OnAttachRequest(Version& version);
  void EndNetwork(Version& version);

  void Unpack(uint64_t request, Message message);
  void CancelUnpack(uint64_t request, const Message& message);
  void KillJob(const Job& job);
  Status StartJob(Job& job, const JobRules& rules, UnpackJob unpack);
  const UniqueFd& ProgramOf(const JobRules& rules) const;
  void OnJobReport(Job& job);
  void OnJobExit(Job& job, const ExitInfo& info);
  void FinishJob(Job& job, const Status& status);
  void ListLayers(uint64_t request, const Message& message);
  void OpenVolumes();
  void SweepFolders(const std::vector<std::string>& names);
  void ServeVolume(const LaunchHeader& header, const Message& message);
  Status StartVolumeJob(const LaunchHeader& header, const VolumeRequestBody& body);
  void FinishVolumeJob(uint64_t request, const ExitInfo& info, int report_fd, int list_fd);

  // Forks, into a v2 cgroup if one is named; the child runs `body` and exits with what it returns.
  Result<PidFd> Fork(const std::function<int()>& body, int cgroup_fd = -1);
  // Calls `done` once the child has ended and is reaped.
  Status WatchChild(PidFd child, ExitCallback done);
  void KillChild(pid_t pid);
  Result<UniqueFd> WatchReports(std::function<void()> on_readable, UniqueFd& read_end);
  void ReapStrays();
  // What has to be removed: `all` in a child, `least` here when no child can be had. Exit codes.
  struct Cleaning {
    std::function<int()> all;
    std::function<int()> least;
  };
  void RunJanitor(Cleaning cleaning, std::function<void()> done, int tries = 3);

  EventLoop& loop_;
  LauncherOptions options_;
  MessageSocket socket_;
  OutgoingMessages outgoing_;
  LayersDir layers_;
  UniqueFd alone_;  // LayersDir::LockAlone
  Grants grants_;
  std::vector<GrantLine> told_grants_;
  std::optional<VolumesDir> volumes_;
  size_t volume_jobs_ = 0;
  std::unique_ptr<CgroupTree> cgroups_;
  std::map<uint64_t, std::unique_ptr<Version>> versions_;
  std::map<uint64_t, std::unique_ptr<Job>> jobs_;
  std::map<int, PidFd> children_;  // by pidfd
  struct WaitingReclaim {
    uint64_t request = 0;
    uint64_t version_id = 0;
    uint16_t slot = 0;
  };
  struct RunningReclaim {
    WaitingReclaim asked;
    SlotReclaim work;
    uint64_t before_bytes = 0;
    pid_t child = -1;
    bool cancelled = false;
    EventLoop::TimerId timer = 0;
  };
  std::deque<WaitingReclaim> reclaims_;
  std::optional<RunningReclaim> reclaim_;
  using SlotOf = std::pair<uint64_t, uint16_t>;  // version, slot
  std::map<SlotOf, int> stopping_slots_;         // passes so far; those that run still
  EventLoop::TimerId stop_timer_ = 0;
  std::map<NetHelper, JobCgroup> net_cgroups_;
  std::unique_ptr<EgressNetwork> network_;
  uint64_t next_build_ = 1;
  uint64_t next_job_ = 1;
  bool stopping_ = false;
  bool broken_ = false;
};

}  // namespace pulga
