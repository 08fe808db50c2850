// pulga-filter-bench: what a system call costs under no filter, under the function's two (ours) and
// under Docker's default list, made by libseccomp as runc makes it. One process each, in turn.
//   pulga-filter-bench ROUNDS DOCKER-LIST
// Every call fails or does next to nothing, so that the filter is what is seen.
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "base/file_io.h"
#include "base/seccomp.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "bench/stats.h"
#include "sandbox/seccomp_profile.h"

namespace pulga::bench {
namespace {

constexpr int kCallsPerRound = 2000;
constexpr long kNoDescriptor = -1;
using Program = std::vector<sock_filter>;

struct Call {
  const char* name;
  long (*make)();
};
constexpr Call kCalls[] = {
    {"getppid: allowed, no argument looked at", [] { return syscall(SYS_getppid); }},
    {"fcntl: the same", [] { return syscall(SYS_fcntl, kNoDescriptor, 0, 0); }},
    {"ioctl: ours looks at an argument",
     [] { return syscall(SYS_ioctl, kNoDescriptor, FIONREAD); }},
    {"socket: both look", [] { return syscall(SYS_socket, AF_UNIX, -1, 0); }},
    {"clone: both look", [] { return syscall(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0); }},
    {"personality: both look", [] { return syscall(SYS_personality, 0xffffffffUL); }},
    {"unshare: both refuse", [] { return syscall(SYS_unshare, 0); }},
};

Program Copy(std::span<const sock_filter> program) { return {program.begin(), program.end()}; }

Status AddDockersConditions(scmp_filter_ctx filter) {
  const auto allow = [filter](const char* name, scmp_arg_cmp condition) {
    const int number = seccomp_syscall_resolve_name(name);
    return seccomp_rule_add_exact_array(filter, SCMP_ACT_ALLOW, number, 1, &condition);
  };
  int failed = allow("clone", SCMP_A0(SCMP_CMP_MASKED_EQ, 0x7E020000, 0));
  if (failed == 0) failed = allow("socket", SCMP_A0(SCMP_CMP_NE, AF_VSOCK));
  for (const unsigned persona : {0U, 8U, 0x20000U, 0x20008U, 0xffffffffU}) {
    if (failed == 0) failed = allow("personality", SCMP_A0(SCMP_CMP_EQ, persona));
  }
  return failed == 0 ? OkStatus() : Status(ErrnoError("add a condition of Docker's", -failed));
}

// Of one architecture only, which favours it: Docker's has the two 32-bit ones behind.
Result<Program> DockersProgram(const std::string& list) {
  PULGA_ASSIGN_OR_RETURN(const std::string text, ReadFile(list, 1 << 20));
  const std::unique_ptr<void, void (*)(scmp_filter_ctx)> filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)),
                                                                seccomp_release);
  for (const std::string_view line : Split(text, '\n')) {
    if (line.starts_with('#')) continue;
    for (const std::string_view name : Split(line, ' ')) {
      const int number = seccomp_syscall_resolve_name(std::string(name).c_str());
      if (number < 0) continue;  // not on this machine
      const int failed = seccomp_rule_add(filter.get(), SCMP_ACT_ALLOW, number, 0);
      if (failed != 0) return ErrnoError("allow " + std::string(name), -failed);
    }
  }
  PULGA_RETURN_IF_ERROR(AddDockersConditions(filter.get()));
  const UniqueFd file(memfd_create("filter", MFD_CLOEXEC));
  if (!file.valid()) return LastError("memfd_create");
  const int failed = seccomp_export_bpf(filter.get(), file.get());
  if (failed != 0) return ErrnoError("seccomp_export_bpf", -failed);
  const off_t size = lseek(file.get(), 0, SEEK_END);
  Program program(static_cast<size_t>(size) / sizeof(sock_filter));
  if (pread(file.get(), program.data(), static_cast<size_t>(size), 0) != size) {
    return LastError("read the filter");
  }
  return program;
}

// A process under its filters, that makes the calls it is told to.
class Worker {
 public:
  static Result<Worker> Start(std::string name, const std::vector<Program>& filters);
  Worker(Worker&& other) noexcept
      : name_(std::move(other.name_)),
        socket_(std::move(other.socket_)),
        pid_(std::exchange(other.pid_, 0)) {}
  ~Worker() {
    if (pid_ == 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  const std::string& name() const { return name_; }
  // Nanoseconds of one call.
  Result<double> Time(size_t call) {
    double nanoseconds = 0;
    if (write(socket_.get(), &call, sizeof call) != sizeof call ||
        read(socket_.get(), &nanoseconds, sizeof nanoseconds) != sizeof nanoseconds) {
      return Error{Code::kIo, 0, name_ + ": its process is gone"};
    }
    return nanoseconds;
  }

 private:
  Worker(std::string name, UniqueFd socket, pid_t pid)
      : name_(std::move(name)), socket_(std::move(socket)), pid_(pid) {}
  [[noreturn]] static void Serve(int socket, const std::vector<Program>& filters);

  std::string name_;
  UniqueFd socket_;
  pid_t pid_ = 0;
};

void Worker::Serve(int socket, const std::vector<Program>& filters) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(1);
  for (const Program& filter : filters) {
    if (LoadSeccomp(filter) != 0) _exit(1);
  }
  size_t call;
  while (read(socket, &call, sizeof call) == sizeof call) {
    const double begin = NowMicros();
    for (int i = 0; i < kCallsPerRound; ++i) (void)kCalls[call].make();
    const double nanoseconds = (NowMicros() - begin) * 1000 / kCallsPerRound;
    if (write(socket, &nanoseconds, sizeof nanoseconds) != sizeof nanoseconds) break;
  }
  _exit(0);
}

Result<Worker> Worker::Start(std::string name, const std::vector<Program>& filters) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
    return LastError("socketpair");
  }
  UniqueFd ours(pair[0]);
  const UniqueFd theirs(pair[1]);
  const pid_t pid = fork();
  if (pid < 0) return LastError("fork");
  if (pid == 0) {
    ours.Reset();
    Serve(theirs.get(), filters);
  }
  return Worker(std::move(name), std::move(ours), pid);
}

void Print(const std::string& call, const std::vector<Series>& nanoseconds) {
  for (const Series& s : nanoseconds) {
    printf("{\"call\":\"%s\",\"name\":\"%s\",\"n\":%zu,\"p50_ns\":%.1f,\"p90_ns\":%.1f}\n",
           call.c_str(), s.name.c_str(), s.microseconds.size(), s.Quantile(0.5), s.Quantile(0.9));
  }
}

Status Main(int argc, char** argv) {
  if (argc != 3) return Error{Code::kInvalidArgument, 0, "usage: see the top of filter_bench.cpp"};
  PULGA_ASSIGN_OR_RETURN(const Program docker, DockersProgram(argv[2]));
  const std::vector<Program> ours = {Copy(SpawnerFilter()), Copy(InstanceFilter())};
  printf("{\"instructions\":{\"ours\":%zu,\"Docker's\":%zu}}\n", ours[0].size() + ours[1].size(),
         docker.size());
  fflush(stdout);  // before the forks
  std::vector<Worker> workers;
  const std::pair<const char*, std::vector<Program>> contenders[] = {
      {"no filter", {}}, {"ours", ours}, {"Docker's", {docker}}};
  for (const auto& [name, filters] : contenders) {
    PULGA_ASSIGN_OR_RETURN(Worker worker, Worker::Start(name, filters));
    workers.push_back(std::move(worker));
  }
  for (size_t call = 0; call < std::size(kCalls); ++call) {
    std::vector<Series> series;
    for (const Worker& worker : workers) series.push_back({worker.name(), {}});
    for (int round = 0; round < atoi(argv[1]); ++round) {
      for (size_t i = 0; i < workers.size(); ++i) {
        PULGA_ASSIGN_OR_RETURN(const double nanoseconds, workers[i].Time(call));
        series[i].microseconds.push_back(nanoseconds);
      }
    }
    Print(kCalls[call].name, series);
  }
  return OkStatus();
}

}  // namespace
}  // namespace pulga::bench

int main(int argc, char** argv) {
  return pulga::bench::ExitStatus("pulga-filter-bench", pulga::bench::Main(argc, argv));
}
