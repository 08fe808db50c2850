#include "sandbox/keeper.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/event_loop.h"
#include "base/file_io.h"
#include "base/log.h"
#include "base/message_socket.h"
#include "base/process.h"
#include "base/sys.h"
#include "sandbox/cgroup.h"
#include "sandbox/daemon_start.h"
#include "sandbox/keeper_setup.h"
#include "sandbox/privileges.h"

namespace pulga {
namespace {

constexpr Duration kFirstDelay = std::chrono::milliseconds(100);
constexpr Duration kLongestDelay = std::chrono::seconds(10);
constexpr Duration kLauncherStopLimit = std::chrono::seconds(10);

// One supervised process.
struct Charge {
  PidFd process;
  TimePoint started;
  RestartBackOff back_off;
  EventLoop::TimerId restart = 0;
};

class Keeper {
 public:
  Keeper(EventLoop& loop, const KeeperOptions& options, DataDirectory data, DaemonIds ids)
      : loop_(loop), options_(options), data_(std::move(data)), ids_(ids) {}
  int Run();

 private:
  Status WatchOrEnd(Charge& charge, EventLoop::FdCallback on_exit);
  Status StartLauncher();
  Status StartDaemon();
  void StartBoth();
  void RestartLater(Charge& charge, const std::string& what, std::function<void()> start);
  void ReplaceLauncher();
  void OnLauncherExit();
  void OnDaemonExit();
  void OnDaemonMessage();
  void OnSignal(int signo);
  Status WatchLifeline();
  void FinishAfterLauncher(int status);
  void Finish(int status);

  EventLoop& loop_;
  const KeeperOptions& options_;
  DataDirectory data_;
  DaemonIds ids_;
  Charge launcher_;
  Charge daemon_;
  MessageSocket to_daemon_;       // the keeper's end
  UniqueFd daemons_launcher_fd_;  // the daemon's end of the launcher's socket, until handed over
  bool ever_started_ = false;
  bool ever_ready_ = false;
  bool stopping_ = false;
  int exit_status_ = 0;
};

// Nobody would see the end of one that is not watched.
Status Keeper::WatchOrEnd(Charge& charge, EventLoop::FdCallback on_exit) {
  const Status watched = loop_.Watch(charge.process.fd(), EPOLLIN, std::move(on_exit));
  if (watched.ok()) return watched;
  (void)charge.process.Signal(SIGKILL);
  (void)charge.process.Reap();
  return watched;
}

Status Keeper::StartLauncher() {
  PULGA_ASSIGN_OR_RETURN(auto sockets, MessageSocket::Pair());
  daemons_launcher_fd_ = sockets.second.TakeFd();
  constexpr int kSocketFd = 3;
  constexpr int kLayersFd = 4;
  constexpr int kVolumesFd = 5;
  SpawnOptions spawn;
  spawn.argv = {options_.launcher_path,
                "launcher",
                "--socket-fd",
                std::to_string(kSocketFd),
                "--layers-fd",
                std::to_string(kLayersFd),
                "--volumes-fd",
                std::to_string(kVolumesFd),
                "--tree",
                CgroupTreeName(data_.path)};
  if (!options_.grants_file.empty()) {
    spawn.argv.insert(spawn.argv.end(), {"--grants", options_.grants_file});
  }
  if (!options_.apparmor.empty()) {
    spawn.argv.insert(spawn.argv.end(), {"--apparmor", options_.apparmor});
  }
  spawn.fds = {{0, 0},
               {1, 1},
               {2, 2},
               {sockets.first.fd(), kSocketFd},
               {data_.layers.get(), kLayersFd},
               {data_.volumes.get(), kVolumesFd}};
  spawn.blocked = {SIGHUP};  // one that comes before the launcher listens must not end it
  PULGA_ASSIGN_OR_RETURN(launcher_.process, SpawnProcess(spawn));
  launcher_.started = loop_.Now();
  return WatchOrEnd(launcher_, [this](uint32_t) { OnLauncherExit(); });
}

Status Keeper::StartDaemon() {
  PULGA_ASSIGN_OR_RETURN(auto sockets, MessageSocket::Pair());
  to_daemon_ = std::move(sockets.first);
  PULGA_RETURN_IF_ERROR(SetNonBlocking(to_daemon_.fd()));
  const int keeper_fd = sockets.second.fd();
  const int launcher_fd = daemons_launcher_fd_.get();
  std::vector<std::string> args = {options_.pulga_path,
                                   "serve-daemon",
                                   "--keeper-fd",
                                   std::to_string(keeper_fd),
                                   "--launcher-fd",
                                   std::to_string(launcher_fd),
                                   "--data",
                                   data_.path};
  args.insert(args.end(), options_.daemon_args.begin(), options_.daemon_args.end());
  const pid_t pid = fork();
  if (pid < 0) return LastError("fork");
  if (pid == 0) BecomeDaemon({args, ids_, {keeper_fd, launcher_fd}, data_.path});
  auto process = PidFd::OfChild(pid);
  if (!process.ok()) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return process.error();
  }
  daemon_.process = std::move(*process);
  daemons_launcher_fd_.Reset();
  daemon_.started = loop_.Now();
  PULGA_RETURN_IF_ERROR(WatchOrEnd(daemon_, [this](uint32_t) { OnDaemonExit(); }));
  const Status heard =
      loop_.Watch(to_daemon_.fd(), EPOLLIN, [this](uint32_t) { OnDaemonMessage(); });
  if (!heard.ok())
    LogWarning("hear the daemon: " + heard.error().message);  // it serves all the same
  return OkStatus();
}

void Keeper::OnDaemonMessage() {
  const auto message = to_daemon_.Receive(16);
  if (!message.ok() || message->bytes.empty()) return loop_.Unwatch(to_daemon_.fd());
  if (message->bytes == "R") ever_ready_ = true;
}

void Keeper::RestartLater(Charge& charge, const std::string& what, std::function<void()> start) {
  const Duration delay = charge.back_off.After(loop_.Now() - charge.started);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(delay).count();
  LogWarning(what + (ms == 0 ? " at once" : " in " + std::to_string(ms) + " ms"));
  charge.restart = loop_.CallAfter(delay, [&charge, start = std::move(start)] {
    charge.restart = 0;
    start();
  });
}

void Keeper::OnLauncherExit() {
  loop_.Unwatch(launcher_.process.fd());
  const auto info = launcher_.process.Reap();
  if (stopping_) return Finish(exit_status_);
  if (!daemon_.process.valid()) return;  // both are about to start anew
  const std::string what = "the launcher ended, wait status " +
                           std::to_string(info.ok() ? info->wait_status : -1) +
                           ": starting another";
  RestartLater(launcher_, what, [this] { ReplaceLauncher(); });
}

// A process that cannot be had now, for lack of memory or of process ids, can be had later.
void Keeper::ReplaceLauncher() {
  const Status started = StartLauncher();
  if (!started.ok()) {
    launcher_.started = loop_.Now();
    return RestartLater(launcher_, "start the launcher: " + started.error().message + ": once more",
                        [this] { ReplaceLauncher(); });
  }
  const UniqueFd handed = std::move(daemons_launcher_fd_);
  const int fd = handed.get();
  const char kind = 'L';
  const Status sent = to_daemon_.SendPod(kind, std::span(&fd, 1));
  if (!sent.ok()) LogWarning("hand over the launcher: " + sent.error().message);
}

void Keeper::OnDaemonExit() {
  loop_.Unwatch(daemon_.process.fd());
  loop_.Unwatch(to_daemon_.fd());
  const auto info = daemon_.process.Reap();
  const int status = info.ok() ? info->wait_status : 0x100;
  loop_.Cancel(launcher_.restart);
  launcher_.restart = 0;
  if (stopping_ || (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || !ever_ready_))) {
    stopping_ = true;
    return FinishAfterLauncher(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
  }
  RestartLater(daemon_,
               "the daemon ended, wait status " + std::to_string(status) + ": starting both anew",
               [this] { StartBoth(); });
}

// The launcher sees the end of its socket, removes everything and ends: only then another keeper
// may use this data directory.
void Keeper::FinishAfterLauncher(int status) {
  exit_status_ = status;
  if (!launcher_.process.valid()) return Finish(status);
  loop_.CallAfter(kLauncherStopLimit, [this] { Finish(exit_status_); });
}

// The old launcher must be gone first: the new one sweeps what carries our name.
void Keeper::StartBoth() {
  if (launcher_.process.valid()) {
    (void)launcher_.process.Signal(SIGTERM);
    daemon_.restart = loop_.CallAfter(std::chrono::milliseconds(20), [this] { StartBoth(); });
    if (loop_.Now() - daemon_.started > kLauncherStopLimit + kLongestDelay + kAliveLongEnough) {
      (void)launcher_.process.Signal(SIGKILL);
    }
    return;
  }
  Status started = StartLauncher();
  if (started.ok()) started = StartDaemon();
  if (started.ok()) {
    ever_started_ = true;
    return;
  }
  if (!ever_started_) {
    LogError("start: " + started.error().message);
    return Finish(1);
  }
  daemon_.started = loop_.Now();
  RestartLater(daemon_, "start: " + started.error().message + ": once more",
               [this] { StartBoth(); });
}

void Keeper::OnSignal(int signo) {
  if (signo == SIGHUP) {
    for (Charge* charge : {&daemon_, &launcher_}) {
      if (charge->process.valid()) (void)charge->process.Signal(SIGHUP);
    }
    return;
  }
  const bool again = stopping_;
  stopping_ = true;
  if (!daemon_.process.valid()) {  // it died, and both were about to start anew
    loop_.Cancel(std::exchange(daemon_.restart, 0));
    if (!again) FinishAfterLauncher(0);
    return;
  }
  (void)daemon_.process.Signal(SIGTERM);
  if (again) return;
  loop_.CallAfter(options_.stop_limit, [this] {
    LogWarning("the daemon did not stop in time");
    if (daemon_.process.valid()) (void)daemon_.process.Signal(SIGKILL);
  });
}

void Keeper::Finish(int status) {
  exit_status_ = status;
  stopping_ = true;
  for (Charge* charge : {&daemon_, &launcher_}) {
    if (!charge->process.valid()) continue;
    loop_.Unwatch(charge->process.fd());
    (void)charge->process.Signal(SIGKILL);
    (void)charge->process.Reap();
  }
  loop_.Stop();
}

// Nothing is ever sent on it: whatever happens there is its end.
Status Keeper::WatchLifeline() {
  const int fd = options_.lifeline_fd;
  if (fd < 0) return OkStatus();
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return LastError("lifeline");
  return loop_.Watch(fd, EPOLLIN | EPOLLRDHUP, [this, fd](uint32_t) {
    loop_.Unwatch(fd);
    OnSignal(SIGTERM);
  });
}

int Keeper::Run() {
  const Status watching =
      loop_.OnSignals({SIGTERM, SIGINT, SIGHUP}, [this](int signo) { OnSignal(signo); });
  if (!watching.ok()) {
    LogError(watching.error().message);
    return 1;
  }
  const Status tied = WatchLifeline();
  if (!tied.ok()) {
    LogError(tied.error().message);
    return 1;
  }
  StartBoth();
  if (!stopping_) loop_.Run();
  return exit_status_;
}

int Fail(const Error& error) {
  LogError(error.message);
  return 1;
}

}  // namespace

Duration RestartDelay(int restarts_in_a_row) {
  if (restarts_in_a_row <= 0) return Duration::zero();
  const int doublings = std::min(restarts_in_a_row - 1, 10);
  return std::min(kFirstDelay * (1 << doublings), kLongestDelay);
}

Duration RestartBackOff::After(Duration lived) {
  if (lived >= kAliveLongEnough) restarts_in_a_row_ = 0;
  return RestartDelay(restarts_in_a_row_++);
}

int RunKeeper(const KeeperOptions& options) {
  SetLogTag("keeper");
  if (geteuid() != 0)
    return Fail(Error{Code::kPermission, 0, "the keeper must be started by root"});
  // Launcher and daemon inherit it. Where root may not, `pulga doctor` says so.
  (void)SetOomScore(kSparedOomScore);
  const auto host = ReadHostIds();
  if (!host.ok()) return Fail(host.error());
  const auto ids = FindDaemonIds(options.user, *host);
  if (!ids.ok()) return Fail(ids.error());
  auto data = OpenDataDirectory(options.data_dir, *ids);
  if (!data.ok()) return Fail(data.error());
  const auto snapshot = ReadCgroupSnapshot();
  if (!snapshot.ok()) return Fail(snapshot.error());
  const auto layout = PlanCgroupLayout(*snapshot);
  if (!layout.ok()) return Fail(layout.error());
  const Status entered = EnterCgroupLeaf(*layout);
  if (!entered.ok()) return Fail(entered.error());
  auto loop = EventLoop::Create();
  if (!loop.ok()) return Fail(loop.error());
  return Keeper(**loop, options, std::move(*data), *ids).Run();
}

}  // namespace pulga
