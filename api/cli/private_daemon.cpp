#include "api/cli/private_daemon.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string_view>

#include "api/cli/http_client.h"
#include "base/file_io.h"
#include "base/text.h"

namespace pulga::cli {
namespace {

constexpr auto kStartLimit = std::chrono::seconds(20);
constexpr auto kStopLimit = std::chrono::seconds(30);
constexpr const char* kDirPrefix = "pulga-run-";

// Held by everything below a run, so that a directory whose lock is free is left over from one that
// was killed. It appears only when it is locked.
Result<UniqueFd> LockDirectory(const std::string& dir) {
  const std::string name = dir + "/lock";
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(name + ".new", O_RDONLY | O_CREAT | O_EXCL, 0600));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return LastError("lock " + dir);
  if (rename((name + ".new").c_str(), name.c_str()) != 0) return LastError("rename " + name);
  return fd;
}

bool IsLeftOver(const std::string& dir) {
  struct stat st = {};
  if (lstat(dir.c_str(), &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid()) return false;
  const auto lock = OpenFile(dir + "/lock", O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  return lock.ok() && flock(lock->get(), LOCK_EX | LOCK_NB) == 0;
}

void SweepLeftOvers(const std::string& parent) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(parent.c_str()), &closedir);
  if (dir == nullptr) return;
  while (const dirent* entry = readdir(dir.get())) {
    const std::string path = parent + "/" + entry->d_name;
    if (!std::string_view(entry->d_name).starts_with(kDirPrefix) || !IsLeftOver(path)) continue;
    (void)RemoveTree(AT_FDCWD, path);  // as much as goes; the next run tries again
  }
}

}  // namespace

Result<EndingSignals> EndingSignals::Take() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signo : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction now = {};
    // What the caller ignores (nohup, a shell's background job) stays ignored.
    if (sigaction(signo, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) sigaddset(&set, signo);
  }
  if (sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return LastError("block signals");
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return LastError("signalfd");
  return EndingSignals(std::move(fd));
}

std::optional<int> EndingSignals::Received() const {
  signalfd_siginfo info = {};
  if (read(fd_.get(), &info, sizeof info) != sizeof info) return std::nullopt;
  return static_cast<int>(info.ssi_signo);
}

Result<std::unique_ptr<PrivateDaemon>> PrivateDaemon::Start(const Programs& programs,
                                                            const EndingSignals& signals,
                                                            const std::string& apparmor) {
  const char* tmp = getenv("TMPDIR");
  const std::string parent = tmp != nullptr ? tmp : "/tmp";
  SweepLeftOvers(parent);
  PULGA_ASSIGN_OR_RETURN(TempDir dir, TempDir::Create(parent + "/" + kDirPrefix));
  // The daemon's user must be able to pass through to its own directory inside.
  if (chmod(dir.path().c_str(), 0711) != 0) return LastError("chmod " + dir.path());
  std::unique_ptr<PrivateDaemon> out(new PrivateDaemon(std::move(dir), signals.fd()));
  PULGA_RETURN_IF_ERROR(out->Spawn(programs, apparmor));
  PULGA_RETURN_IF_ERROR(out->AwaitReady());
  return out;
}

Status PrivateDaemon::Spawn(const Programs& programs, const std::string& apparmor) {
  PULGA_ASSIGN_OR_RETURN(log_, OpenUnnamedFile(dir_.path()));
  // As the keeper's standard input, which is empty, it outlives a run that is killed.
  PULGA_ASSIGN_OR_RETURN(lock_, LockDirectory(dir_.path()));
  SpawnOptions spawn;
  // Who asks for one run means it, however short of memory the board is.
  const std::vector<std::string> daemon = {"--listen", "unix:" + socket(), "--pressure",
                                           "off",      "--apparmor",       apparmor};
  spawn.argv = KeeperArguments({programs, data(), "", daemon, "", apparmor});
  spawn.env = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  spawn.argv.insert(spawn.argv.begin() + 2, {"--lifeline-fd", "3"});
  int lifeline[2];
  if (pipe2(lifeline, O_CLOEXEC) != 0) return LastError("lifeline");
  const UniqueFd keepers_end(lifeline[0]);
  lifeline_.Reset(lifeline[1]);
  spawn.fds = {{lock_.get(), 0}, {log_.get(), 1}, {log_.get(), 2}, {keepers_end.get(), 3}};
  PULGA_ASSIGN_OR_RETURN(keeper_, SpawnProcess(spawn));
  return OkStatus();
}

// Nothing tells another process that a socket is being listened on: connect until it is, or until
// the keeper ends.
Status PrivateDaemon::AwaitReady() {
  DaemonUrl url;
  url.unix_path = socket();
  const auto limit = std::chrono::steady_clock::now() + kStartLimit;
  while (std::chrono::steady_clock::now() < limit) {
    const Status reached = CheckReachable(url);
    if (reached.ok()) return OkStatus();
    pollfd ended[2] = {{keeper_.fd(), POLLIN, 0}, {cancel_fd_, POLLIN, 0}};
    if (poll(ended, 2, 5) <= 0) continue;
    if (ended[1].revents != 0) return Error{Code::kUnavailable, 0, "interrupted"};
    break;
  }
  lseek(log_.get(), 0, SEEK_SET);
  const auto log = ReadFd(log_.get(), 64 * 1024);
  return Error{Code::kUnavailable, 0,
               "the private daemon did not start:\n" + (log.ok() ? *log : "")};
}

PrivateDaemon::~PrivateDaemon() {
  if (!keeper_.valid()) return;
  (void)keeper_.Signal(SIGTERM);
  pollfd ended = {keeper_.fd(), POLLIN, 0};
  const auto limit = std::chrono::duration_cast<std::chrono::milliseconds>(kStopLimit).count();
  if (poll(&ended, 1, static_cast<int>(limit)) <= 0) (void)keeper_.Signal(SIGKILL);
  (void)keeper_.Reap();
}

Result<DaemonClient> PrivateDaemon::Client() const {
  DaemonUrl url;
  url.unix_path = socket();
  url.base = "http://localhost";
  url.cancel_fd = cancel_fd_;
  PULGA_ASSIGN_OR_RETURN(const std::string key, ReadFile(data() + "/admin.key", 4096));
  return DaemonClient(url, std::string(Trim(key.substr(0, key.find('\n')))));
}

}  // namespace pulga::cli
