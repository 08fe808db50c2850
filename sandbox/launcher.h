// The launcher: root over the host, so it does little and trusts nobody. Takes messages of the
// closed set in launch_protocol.h from one socket, checks every field, and hands the work to forked
// children: set-up of versions, unpack jobs, janitors for what is slow. Keeps track of what lives
// and removes it when it ends or the daemon does. Never on the request path.
// One thread, one EventLoop. Needs root.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/message_socket.h"
#include "base/process.h"
#include "base/result.h"
#include "sandbox/build_report.h"
#include "sandbox/cgroup.h"
#include "sandbox/job_rules.h"
#include "sandbox/launch_protocol.h"
#include "sandbox/layers_dir.h"

namespace pulga {

struct LauncherOptions {
  UniqueFd socket;    // to the daemon
  UniqueFd layers;    // DATA/layers
  UniqueFd unpacker;  // the executables; may be invalid: their jobs then fail
  UniqueFd fetcher;
  std::string tree_name;  // CgroupTreeName()
  Duration build_timeout = std::chrono::seconds(20);
};

class Launcher {
 public:
  // Sweeps what an earlier launcher of the same data directory left.
  static Result<std::unique_ptr<Launcher>> Create(EventLoop& loop, LauncherOptions options);
  ~Launcher();
  // Kills and removes everything; blocks. Called when the daemon is gone or on SIGTERM.
  void Shutdown();
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
  Status StartBuild(Version& version, VersionSpec spec);
  void OnBuildReport(Version& version);
  void FinishBuild(Version& version);
  void DropVersion(uint64_t request, Message message);
  void TearDown(Version& version, const Error& why);
  void Continue(Version& version);  // tearing down: on to the next step once its children are gone
  void ServeSlot(const LaunchHeader& header, Message message);
  void ThawAll(Version& version);

  void Unpack(uint64_t request, Message message);
  void CancelUnpack(uint64_t request, const Message& message);
  void KillJob(const Job& job);
  Status StartJob(Job& job, const JobRules& rules, UnpackJob unpack);
  const UniqueFd& ProgramOf(const JobRules& rules) const;
  void OnJobReport(Job& job);
  void OnJobExit(Job& job, const ExitInfo& info);
  void FinishJob(Job& job, const Status& status);
  void ListLayers(uint64_t request, const Message& message);

  // Forks; the child runs `body` and exits with what it returns.
  Result<PidFd> Fork(const std::function<int()>& body);
  // Calls `done` once the child has ended and is reaped.
  Status WatchChild(PidFd child, ExitCallback done);
  Result<UniqueFd> WatchReports(std::function<void()> on_readable, UniqueFd& read_end);
  void ReapStrays();

  EventLoop& loop_;
  LauncherOptions options_;
  MessageSocket socket_;
  LayersDir layers_;
  std::unique_ptr<CgroupTree> cgroups_;
  std::map<uint64_t, std::unique_ptr<Version>> versions_;
  std::map<uint64_t, std::unique_ptr<Job>> jobs_;
  std::map<int, PidFd> children_;  // by pidfd
  uint64_t next_job_ = 1;
  bool stopping_ = false;
  bool broken_ = false;
};

}  // namespace pulga
