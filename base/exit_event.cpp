#include "base/exit_event.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>

#include "base/sys.h"

namespace pulga {
namespace {

// What the handler reads. Written with an entry's `pid` last, or first to 0, so that it never sees
// a pid with another's descriptor.
struct Entry {
  std::atomic<pid_t> pid{0};
  std::atomic<int> fd{-1};
};
constexpr int kMostEvents = 4096;
Entry g_entries[kMostEvents];
std::atomic<int> g_used{0};  // no entry at or behind this was ever taken
std::atomic<pid_t> g_owner{0};

// False: it is no child of ours.
bool TellWhenEnded(pid_t pid, int fd) {
  siginfo_t info = {};
  const int got =
      waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT | __WALL);
  if (got != 0) return false;
  if (info.si_pid != pid) return true;
  const uint64_t one = 1;
  (void)!write(fd, &one, sizeof one);
  return true;
}

void OnChildSignal(int) {
  if (getpid() != g_owner.load()) return;  // a fork: these are not its children
  const int saved = errno;
  for (int i = 0; i < g_used.load(); ++i) {
    const pid_t pid = g_entries[i].pid.load();
    if (pid > 0) (void)TellWhenEnded(pid, g_entries[i].fd.load());
  }
  errno = saved;
}

Status InstallHandler() {
  if (g_owner.load() == getpid()) return OkStatus();
  for (Entry& entry : g_entries) entry.pid.store(0);  // of the process that forked this one
  g_used.store(0);
  struct sigaction action = {};
  action.sa_handler = OnChildSignal;
  action.sa_flags = SA_RESTART | SA_NOCLDSTOP;
  if (PULGA_SYS(sigaction, SIGCHLD, &action, nullptr) != 0) return LastError("watch for SIGCHLD");
  g_owner.store(getpid());
  return OkStatus();
}

int FreeEntry() {
  for (int i = 0; i < kMostEvents; ++i) {
    if (g_entries[i].pid.load() == 0) return i;
  }
  return -1;
}

}  // namespace

Result<ExitEvent> ExitEvent::OfChild(pid_t pid) {
  PULGA_RETURN_IF_ERROR(InstallHandler());
  ExitEvent out;
  out.fd_.Reset(PULGA_SYS(eventfd, 0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!out.fd_.valid()) return LastError("eventfd");
  const int entry = FreeEntry();
  if (entry < 0) return Error{Code::kNoSpace, EAGAIN, "too many children at once"};
  out.entry_ = entry;
  if (entry >= g_used.load()) g_used.store(entry + 1);
  g_entries[entry].fd.store(out.fd_.get());
  g_entries[entry].pid.store(pid);
  if (!TellWhenEnded(pid, out.fd_.get())) {  // it may have been too fast for the handler
    return Error{Code::kNotFound, ESRCH, "watch process " + std::to_string(pid) + ": no child"};
  }
  return out;
}

ExitEvent& ExitEvent::operator=(ExitEvent&& other) noexcept {
  if (this == &other) return *this;
  Forget();
  fd_ = std::move(other.fd_);
  entry_ = std::exchange(other.entry_, -1);
  return *this;
}

void ExitEvent::Forget() {
  if (entry_ >= 0) g_entries[entry_].pid.store(0);
  entry_ = -1;
  fd_.Reset();
}

}  // namespace pulga
