#include "tests/support/forked_unpacker.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <numeric>
#include <thread>
#include <vector>

#include "base/file_io.h"
#include "base/process.h"
#include "base/sys.h"

namespace pulga::testing {
namespace {

constexpr int kNamespaces =
    CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;

constexpr int kForkAttempts = 3;
constexpr int kForkPatienceMs = 20000;

int OrNull(const UniqueFd& fd) { return fd.valid() ? fd.get() : open("/dev/null", O_RDWR); }

// The directories are opened after the unshare: an overlay takes only mounts of its own namespace.
// The host's id 0 still owns the layers directory then, and the working directory leads there.
std::vector<int> OpenDirs(const UnpackJob& job, const std::string& staging) {
  std::vector<int> fds;
  fds.push_back(open(staging.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW));
  fds.push_back(OrNull(job.channel));
  for (const LayerId& parent : job.parents) {
    fds.push_back(open(parent.Hex().c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW));
  }
  return fds;
}

// In the child: moves everything to its number and starts the program. Never returns.
[[noreturn]] void ExecUnpacker(std::vector<int> fds, const char* program) {
  const int first_free = kUnpackRequestFd + static_cast<int>(fds.size()) + 16;
  for (int& fd : fds) {
    fd = fcntl(fd, F_DUPFD, first_free);
    if (fd < 0) _exit(121);
  }
  for (size_t i = 0; i < fds.size(); ++i) dup2(fds[i], kUnpackRequestFd + static_cast<int>(i));
  std::iota(fds.begin(), fds.end(), kUnpackRequestFd);
  CloseAllBut(fds);
  const char* argv[] = {"pulga-unpacker", nullptr};
  const char* envp[] = {nullptr};
  execve(program, const_cast<char**>(argv), const_cast<char**>(envp));
  _exit(122);
}

long PeakKib(pid_t pid) {
  const auto text = ReadFile("/proc/" + std::to_string(pid) + "/status");
  const size_t at = text.ok() ? text->find("VmHWM:") : std::string::npos;
  return at == std::string::npos ? -1 : strtol(text->c_str() + at + 6, nullptr, 10);
}

// Waits for a child that asked to be traced; its exit status, and what it held when it ended.
int WaitWatching(pid_t pid, long* peak_kib) {
  int status = 0;
  bool started = false;
  while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) {
    int forward = WSTOPSIG(status);
    if (forward == SIGTRAP && !started) {  // its execve
      started = true;
      ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACEEXIT);
      forward = 0;
    } else if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8)) {
      *peak_kib = PeakKib(pid);
      forward = 0;
    }
    ptrace(PTRACE_CONT, pid, nullptr, forward);
  }
  return status;
}

}  // namespace

ForkedUnpacker::ForkedUnpacker(std::string layers_dir, std::string unpacker)
    : layers_dir_(std::move(layers_dir)), unpacker_(std::move(unpacker)) {}

// The child of RunChild, up to its end: the unpacker's parent in namespaces of its own.
void ForkedUnpacker::BeChild(const UnpackJob& job, int request, const std::string& staging,
                             const Pipes& pipes) {
  char byte = 0;
  // Not the other ends of pipes of ours: their closing means something.
  CloseAllBut(
      {request, job.input.get(), job.output.get(), job.channel.get(), pipes.ready[1], pipes.go[0]});
  if (chdir(layers_dir_.c_str()) != 0 || unshare(kNamespaces) != 0) _exit(111);
  std::vector<int> fds = {request, OrNull(job.input), OrNull(job.output)};
  for (const int fd : OpenDirs(job, staging)) fds.push_back(fd);
  if (std::count(fds.begin(), fds.end(), -1) > 0) _exit(112);
  if (write(pipes.ready[1], "x", 1) != 1 || read(pipes.go[0], &byte, 1) != 1) _exit(113);
  if (setresgid(0, 0, 0) != 0 || setresuid(0, 0, 0) != 0) _exit(114);
  const pid_t inner = fork();
  if (inner == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) _exit(115);
  if (inner == 0 && watch_memory_ && ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(116);
  if (inner == 0) ExecUnpacker(fds, unpacker_.c_str());
  int status = 0;
  long peak_kib = 0;
  if (watch_memory_) {
    status = WaitWatching(inner, &peak_kib);
  } else {
    waitpid(inner, &status, 0);
  }
  if (write(pipes.ready[1], &peak_kib, sizeof peak_kib) != sizeof peak_kib) _exit(117);
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 120);
}

// A child that asks for its id maps, or ended before. One forked while another thread holds a lock
// of the sanitizer's allocator never gets that far, and is replaced.
Result<pid_t> ForkedUnpacker::ForkChild(const UnpackJob& job, int request,
                                        const std::string& staging, const Pipes& pipes) {
  for (int attempt = 0; attempt < kForkAttempts; ++attempt) {
    const pid_t child = fork();
    if (child < 0) return LastError("fork");
    if (child == 0) BeChild(job, request, staging, pipes);
    PULGA_ASSIGN_OR_RETURN(const PidFd watched, PidFd::OfChild(child));
    pollfd events[] = {{pipes.ready[0], POLLIN, 0}, {watched.fd(), POLLIN, 0}};
    if (poll(events, 2, kForkPatienceMs) > 0) return child;
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  return Error{Code::kIo, 0, "no child of the test got ready"};
}

Result<int> ForkedUnpacker::RunChild(UnpackJob job, const std::string& staging,
                                     std::atomic<pid_t>* pid) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd request, OpenUnnamedFile(layers_dir_));
  PULGA_RETURN_IF_ERROR(WriteAll(request.get(), job.request));
  lseek(request.get(), 0, SEEK_SET);
  Pipes pipes;
  if (pipe2(pipes.ready, O_CLOEXEC) != 0 || pipe2(pipes.go, O_CLOEXEC) != 0) {
    return LastError("pipe");
  }
  PULGA_ASSIGN_OR_RETURN(const pid_t child, ForkChild(job, request.get(), staging, pipes));
  pid->store(child);
  job = UnpackJob();  // the child has its own
  char byte = 0;
  close(pipes.ready[1]);
  if (read(pipes.ready[0], &byte, 1) == 1) {
    const std::string proc = "/proc/" + std::to_string(child);
    const std::string map = "0 " + std::to_string(kFirstHostId) + " 65536\n";
    (void)WriteFile(proc + "/uid_map", map);
    (void)WriteFile(proc + "/gid_map", map);
    (void)!write(pipes.go[1], "x", 1);
  }
  int status = 0;
  rusage usage = {};
  wait4(child, &status, 0, &usage);
  long peak_kib = 0;
  if (read(pipes.ready[0], &peak_kib, sizeof peak_kib) == sizeof peak_kib) {
    peak_kib_ = std::max(peak_kib_.load(), peak_kib);
  }
  for (const int fd : {pipes.ready[0], pipes.go[0], pipes.go[1]}) close(fd);
  // A child begins with the size of whom it was forked from: only what is above that is its own.
  rusage own = {};
  getrusage(RUSAGE_SELF, &own);
  if (usage.ru_maxrss > own.ru_maxrss) {
    max_rss_kib_ = std::max(max_rss_kib_.load(), usage.ru_maxrss);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}

class ForkedUnpacker::Running final : public RunningJob {
 public:
  Running(ForkedUnpacker& runner, UnpackJob job) {
    const std::string staging = ".staging-" + std::to_string(++runner.jobs_);
    auto shared = std::make_shared<UnpackJob>(std::move(job));
    thread_ = std::thread([this, &runner, shared, staging] {
      status_ = runner.Run(std::move(*shared), staging, &pid_);
    });
  }
  ~Running() override {
    if (!thread_.joinable()) return;
    Cancel();
    thread_.join();
  }
  Status Wait() override {
    thread_.join();
    return status_;
  }
  void Cancel() override {
    if (const pid_t pid = pid_.exchange(0); pid > 0) kill(pid, SIGKILL);
  }

 private:
  std::atomic<pid_t> pid_ = 0;
  Status status_;
  std::thread thread_;
};

std::unique_ptr<RunningJob> ForkedUnpacker::Start(UnpackJob job) {
  return std::make_unique<Running>(*this, std::move(job));
}

Status ForkedUnpacker::Run(UnpackJob job, const std::string& staging, std::atomic<pid_t>* pid) {
  const UnpackKind kind = job.kind;
  const LayerId target = job.target;
  const std::string path = layers_dir_ + "/" + staging;
  PULGA_RETURN_IF_ERROR(MakeDirs(path, 0700));
  if (chown(path.c_str(), kFirstHostId, kFirstHostId) != 0) return LastError("chown " + path);
  if (kind == UnpackKind::kRemove &&
      rename(LayerPath(target).c_str(), (path + "/victim").c_str()) != 0) {
    return LastError("move the layer");
  }
  auto code = RunChild(std::move(job), staging, pid);
  Status status;
  if (!code.ok()) {
    status = code.error();
  } else if (*code != 0) {
    status = Error{Code::kInvalidArgument, 0, "the unpacker failed: " + std::to_string(*code)};
  } else if (kind == UnpackKind::kUnpackLayer &&
             rename((path + "/upper").c_str(), LayerPath(target).c_str()) != 0) {
    status = LastError("publish the layer");
  }
  PULGA_ASSIGN_OR_RETURN(const UniqueFd dir, OpenFile(layers_dir_, O_RDONLY | O_DIRECTORY));
  PULGA_RETURN_IF_ERROR(RemoveTree(dir.get(), staging));
  return status;
}

}  // namespace pulga::testing
