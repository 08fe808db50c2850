// crash_before N PID: kills the process PID, and every process it forks meanwhile, right before the
// N-th call among all of them that changes a file. Says "ready" once it watches, then either
// "killed CALL" or, told to stop by SIGTERM before that, "untouched COUNT". For the crash sweep
// (test_crash_sweep.py). Calls on descriptors 0 to 2 and on anything but files do not count.
#include <dirent.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <utility>

namespace {

volatile sig_atomic_t g_stop = 0;

// Whether the first argument says which file, and the call's name.
struct Call {
  const char* name;
  bool by_descriptor;
};

const std::map<uint64_t, Call>& Calls() {
  static const std::map<uint64_t, Call> calls = {
      {SYS_write, {"write", true}},          {SYS_pwrite64, {"pwrite", true}},
      {SYS_writev, {"writev", true}},        {SYS_pwritev, {"pwritev", true}},
      {SYS_ftruncate, {"ftruncate", true}},  {SYS_fsync, {"fsync", true}},
      {SYS_fdatasync, {"fdatasync", true}},  {SYS_syncfs, {"syncfs", true}},
      {SYS_renameat2, {"renameat2", false}}, {SYS_unlinkat, {"unlinkat", false}},
      {SYS_mkdirat, {"mkdirat", false}},     {SYS_linkat, {"linkat", false}},
#ifdef SYS_rename  // newer architectures have only the ones with "at"
      {SYS_rename, {"rename", false}},       {SYS_unlink, {"unlink", false}},
      {SYS_mkdir, {"mkdir", false}},         {SYS_rmdir, {"rmdir", false}},
      {SYS_renameat, {"renameat", false}},
#endif
  };
  return calls;
}

bool IsFile(pid_t thread, uint64_t fd) {
  if (fd <= 2) return false;
  const std::string link = "/proc/" + std::to_string(thread) + "/fd/" + std::to_string(fd);
  char target[512];
  const ssize_t size = readlink(link.c_str(), target, sizeof target);
  return size > 0 && target[0] == '/' &&
         std::string(target, static_cast<size_t>(size)).find("/cgroup/") == std::string::npos;
}

pid_t ProcessOf(pid_t thread) {
  const std::string path = "/proc/" + std::to_string(thread) + "/status";
  FILE* file = fopen(path.c_str(), "re");
  if (file == nullptr) return thread;
  char line[256];
  int process = thread;
  while (fgets(line, sizeof line, file) != nullptr) {
    if (sscanf(line, "Tgid: %d", &process) == 1) break;
  }
  fclose(file);
  return process;
}

// The counted call this stop is the entry of; nullptr for all others.
const char* Counted(pid_t thread) {
  __ptrace_syscall_info info = {};
  if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof info, &info) <= 0) return nullptr;
  if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return nullptr;
  const auto call = Calls().find(info.entry.nr);
  if (call == Calls().end()) return nullptr;
  if (call->second.by_descriptor && !IsFile(thread, info.entry.args[0])) return nullptr;
  return call->second.name;
}

class Watch {
 public:
  explicit Watch(long nth) : nth_(nth) {}

  bool Begin(pid_t process) {
    const std::string tasks = "/proc/" + std::to_string(process) + "/task";
    DIR* dir = opendir(tasks.c_str());
    if (dir == nullptr) return false;
    while (const dirent* entry = readdir(dir)) {
      const pid_t thread = atoi(entry->d_name);
      if (thread <= 0) continue;
      constexpr long kOptions =
          PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
      if (ptrace(PTRACE_SEIZE, thread, nullptr, kOptions) != 0) return false;
      if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0) return false;
      threads_.insert(thread);
    }
    closedir(dir);
    return !threads_.empty();
  }

  // Until the N-th call, SIGTERM, or nothing is left to watch.
  const char* Run() {
    while (g_stop == 0 && !threads_.empty()) {
      int status = 0;
      const pid_t thread = waitpid(-1, &status, __WALL);
      if (thread < 0 && errno == EINTR) continue;
      if (thread < 0) break;
      if (!WIFSTOPPED(status)) {
        threads_.erase(thread);
        continue;
      }
      threads_.insert(thread);
      if (const char* call = OnStop(thread, status)) return call;
    }
    return nullptr;
  }

  void KillAll() {
    std::set<pid_t> processes;
    for (const pid_t thread : threads_) processes.insert(ProcessOf(thread));
    for (const pid_t process : processes) kill(process, SIGKILL);
  }

  // Running threads stop first, or they could not be let go.
  void LetGo() {
    for (const pid_t thread : threads_) ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr);
    for (const pid_t thread : threads_) {
      int status = 0;
      if (waitpid(thread, &status, __WALL) != thread || !WIFSTOPPED(status)) continue;
      ptrace(PTRACE_DETACH, thread, nullptr, SignalOf(status));
    }
  }
  long seen() const { return seen_; }

 private:
  static long SignalOf(int status) {
    const int signo = WSTOPSIG(status);
    const bool of_ptrace = signo == (SIGTRAP | 0x80) || (status >> 16) != 0;
    return of_ptrace ? 0 : signo;
  }

  const char* OnStop(pid_t thread, int status) {
    if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
      const char* call = Counted(thread);
      if (call != nullptr && ++seen_ == nth_) return call;
    }
    ptrace(PTRACE_SYSCALL, thread, nullptr, SignalOf(status));
    return nullptr;
  }

  long nth_;
  long seen_ = 0;
  std::set<pid_t> threads_;
};

void Say(const std::string& line) {
  printf("%s\n", line.c_str());
  fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  struct sigaction stop = {};
  stop.sa_handler = [](int) { g_stop = 1; };
  sigaction(SIGTERM, &stop, nullptr);
  Watch watch(atol(argv[1]));
  if (!watch.Begin(atoi(argv[2]))) {
    perror("watch the process");
    return 1;
  }
  Say("ready");
  if (const char* call = watch.Run()) {
    watch.KillAll();
    Say(std::string("killed ") + call);
    return 0;
  }
  watch.LetGo();
  Say("untouched " + std::to_string(watch.seen()));
  return 0;
}
