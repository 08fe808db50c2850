#include "sandbox/unpack_confine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/sys.h"
#include "sandbox/build_report.h"
#include "sandbox/clone_child.h"
#include "sandbox/id_maps.h"
#include "sandbox/privileges.h"

namespace pulga {
namespace {

constexpr int kKept[] = {CAP_CHOWN,     CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
                         CAP_SYS_ADMIN, CAP_SYS_CHROOT,   CAP_SETPCAP};
// Where the fds wait before they get their final numbers: above all of those.
constexpr int kLiftedFd = kUnpackFirstParentFd + static_cast<int>(kMaxLayers) + 64;

Result<UniqueFd> RequestAsFile(const std::string& request) {
  UniqueFd fd(sys::Faulted() ? -1 : sys::MemfdCreate("request", MFD_CLOEXEC));
  if (!fd.valid()) return LastError("unpack-request");
  PULGA_RETURN_IF_ERROR(WriteAll(fd.get(), request));
  if (PULGA_SYS(lseek, fd.get(), 0, SEEK_SET) != 0) return LastError("unpack-request");
  return fd;
}

Result<UniqueFd> OpenLayerHere(const std::string& name) {
  UniqueFd fd(PULGA_SYS(open, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) return LastError("unpack-open " + name);
  return fd;
}

// In the order of base/unpack_job.h. Opened inside the new mount namespace (an overlay takes no
// directory of another) and before the id change (layers/ is root's alone).
Result<std::vector<UniqueFd>> GatherFds(UnpackStart& start) {
  std::vector<UniqueFd> fds;
  PULGA_ASSIGN_OR_RETURN(UniqueFd request, RequestAsFile(start.job.request));
  fds.push_back(std::move(request));
  for (UniqueFd* given : {&start.job.input, &start.job.output, &start.job.channel}) {
    if (given->valid()) continue;
    PULGA_ASSIGN_OR_RETURN(*given, OpenFile("/dev/null", O_RDWR));
  }
  fds.push_back(std::move(start.job.input));
  fds.push_back(std::move(start.job.output));
  // Who has the network has no directory: its id could not even open one.
  PULGA_ASSIGN_OR_RETURN(UniqueFd staging, start.network == HelperNetwork::kHost
                                               ? OpenFile("/dev/null", O_RDONLY)
                                               : OpenLayerHere(start.staging));
  fds.push_back(std::move(staging));
  fds.push_back(std::move(start.job.channel));
  for (const LayerId& parent : start.job.parents) {
    PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenLayerHere(parent.Hex()));
    fds.push_back(std::move(fd));
  }
  return fds;
}

Status PlaceFds(const std::vector<UniqueFd>& fds, int& unpacker_fd) {
  std::vector<int> lifted;
  for (const UniqueFd& fd : fds) {
    lifted.push_back(PULGA_SYS(fcntl, fd.get(), F_DUPFD_CLOEXEC, kLiftedFd));
    if (lifted.back() < 0) return LastError("unpack-fds");
  }
  unpacker_fd = PULGA_SYS(fcntl, unpacker_fd, F_DUPFD_CLOEXEC, kLiftedFd);
  if (unpacker_fd < 0) return LastError("unpack-fds");
  for (size_t i = 0; i < lifted.size(); ++i) {
    const int target = kUnpackRequestFd + static_cast<int>(i);
    if (PULGA_SYS(dup2, lifted[i], target) < 0) return LastError("unpack-fds");
  }
  const unsigned first_unused = static_cast<unsigned>(kUnpackRequestFd) + lifted.size();
  for (int fd = static_cast<int>(first_unused); fd < kLiftedFd; ++fd) close(fd);
  if (PULGA_SYS(sys::CloseRange, kLiftedFd, ~0U, CLOSE_RANGE_CLOEXEC) != 0 && errno != EINVAL &&
      errno != ENOSYS) {
    return LastError("unpack-close-fds");  // all of them are CLOEXEC anyway
  }
  return OkStatus();
}

Status KeepOnly(uint64_t kept) {
  for (int cap = 0; cap <= 63; ++cap) {
    if ((kept >> cap & 1) != 0) continue;
    if (PULGA_SYS(prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) == 0) continue;
    if (errno == EINVAL && cap > CAP_SYS_ADMIN) break;  // past the last one this kernel knows
    return LastError("unpack-bounding");
  }
  if (PULGA_SYS(sys::SetCapabilities, kept, 0) != 0) return LastError("unpack-capset");
  return OkStatus();
}

// Where no cgroup holds its memory, its addresses are bounded instead.
rlim_t MostAddresses(const CgroupJoin& join) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr rlim_t kWithoutCgroup = RLIM_INFINITY;
#else
  constexpr rlim_t kWithoutCgroup = rlim_t{1} << 30;
#endif
  return join.v2_dir.valid() || !join.v1_tasks.empty() ? RLIM_INFINITY : kWithoutCgroup;
}

Status LimitResources(const CgroupJoin& join) {
  for (const auto& [resource, most] :
       {std::pair(RLIMIT_CORE, rlim_t{0}), std::pair(RLIMIT_MSGQUEUE, rlim_t{0}),
        std::pair(RLIMIT_NOFILE, rlim_t{1024}), std::pair(RLIMIT_AS, MostAddresses(join))}) {
    rlimit now = {};
    if (getrlimit(resource, &now) != 0) return LastError("unpack-rlimits");
    now.rlim_max = std::min(now.rlim_max, most);
    now.rlim_cur = std::min(now.rlim_cur, now.rlim_max);
    if (PULGA_SYS(setrlimit, resource, &now) != 0) return LastError("unpack-rlimits");
  }
  return OkStatus();
}

struct UnpackerChild {
  UnpackStart* start;
  int start_fd;
  int go_fd;  // the set-up's end of it
};

Status BecomeUnpacker(UnpackStart& start, int start_fd) {
  char go;
  if (PULGA_SYS(read, start_fd, &go, 1) != 1)
    return Error{Code::kUnavailable, 0, "unpack: set-up ended"};
  if (PULGA_SYS(mount, nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return LastError("unpack-private-mounts");
  }
  PULGA_ASSIGN_OR_RETURN(const std::vector<UniqueFd> fds, GatherFds(start));
  if (PULGA_SYS(chdir, "/") != 0) return LastError("unpack-chdir");
  PULGA_RETURN_IF_ERROR(LimitResources(start.cgroup.join));
  Ids root;
  root.keep_groups = start.ids.IsSingle();
  const StepResult ids = SetIds(root);
  if (!ids.ok()) return ErrnoError(ids.step, ids.sys_errno);
  uint64_t kept = 0;
  for (int cap : kKept) kept |= 1ULL << cap;
  PULGA_RETURN_IF_ERROR(KeepOnly(kept));
  const StepResult nnp = NoNewPrivs();
  if (!nnp.ok()) return ErrnoError(nnp.step, nnp.sys_errno);
  if (PULGA_SYS(prctl, PR_SET_PDEATHSIG, SIGKILL) != 0) return LastError("unpack-pdeathsig");
  umask(022);
  sigset_t none;
  sigemptyset(&none);
  if (PULGA_SYS(sigprocmask, SIG_SETMASK, &none, nullptr) != 0) return LastError("unpack-signals");
  int unpacker_fd = start.program_fd;
  PULGA_RETURN_IF_ERROR(PlaceFds(fds, unpacker_fd));
  char* argv[] = {start.executable.data(), nullptr};
  char* envp[] = {nullptr};
  (void)PULGA_SYS(syscall, SYS_execveat, unpacker_fd, "", argv, envp, AT_EMPTY_PATH);
  return LastError("exec " + start.executable);
}

// A failure past the clone has nobody to tell but the log: the report pipe is closed by then.
void UnpackerMain(void* raw) {
  auto* child = static_cast<UnpackerChild*>(raw);
  close(child->go_fd);  // or a set-up that dies would be waited for for ever
  const int report_fd = child->start->report_fd;
  const int lifted_report = fcntl(report_fd, F_DUPFD_CLOEXEC, kLiftedFd);
  close(report_fd);
  const Status failed = BecomeUnpacker(*child->start, child->start_fd);
  ReportFailure(lifted_report, failed.error());
  _exit(126);
}

Status StartUnpacker(UnpackStart& start) {
  if (PULGA_SYS(fchdir, start.layers_fd) != 0) return LastError("unpack-chdir-layers");
  PULGA_ASSIGN_OR_RETURN(const UniqueFd proc_fd, OpenFile("/proc", O_PATH | O_DIRECTORY));
  int pipe_fds[2];
  if (PULGA_SYS(pipe2, pipe_fds, O_CLOEXEC) != 0) return LastError("unpack-pipe");
  const UniqueFd wait_end(pipe_fds[0]);
  const UniqueFd go_end(pipe_fds[1]);
  PULGA_RETURN_IF_ERROR(JoinV1Cgroups(start.cgroup.join, "unpack-join-cgroup"));
  UnpackerChild child = {&start, wait_end.get(), go_end.get()};
  CloneOptions options;
  options.flags =
      CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PARENT;
  if (start.network == HelperNetwork::kNone) options.flags |= CLONE_NEWNET;
  options.exit_signal = 0;
  options.cgroup_fd = start.cgroup.join.v2_dir.get();
  const pid_t pid = CloneChild(options, UnpackerMain, &child);
  if (pid < 0) return LastError("unpack-clone");
  const Status mapped = start.network == HelperNetwork::kHost
                            ? WriteSingleIdMap(proc_fd.get(), pid, start.ids.fetcher)
                            : WriteIdMaps(proc_fd.get(), pid, start.ids, std::nullopt);
  if (!mapped.ok()) {
    kill(pid, SIGKILL);
    return mapped;
  }
  const Status told = SendReport(start.report_fd, MakeReport(ReportKind::kStarted, pid, ""));
  if (!told.ok()) {
    kill(pid, SIGKILL);
    return told;
  }
  if (PULGA_SYS(write, go_end.get(), "", 1) != 1) return LastError("unpack-start");
  return OkStatus();
}

}  // namespace

void StartUnpackerAndExit(UnpackStart start) {
  const Status started = StartUnpacker(start);
  if (!started.ok()) ReportFailure(start.report_fd, started.error());
  _exit(started.ok() ? 0 : 1);
}

}  // namespace pulga
