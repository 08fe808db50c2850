// The launcher's unpack jobs: a confined child each, its staging directory, publication by rename.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"
#include "base/sys.h"
#include "sandbox/launcher_state.h"
#include "sandbox/unpack_confine.h"

namespace pulga {
namespace {

constexpr size_t kMaxJobs = 8;

SandboxLimits JobLimits(const JobRules& rules) {
  SandboxLimits limits;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  limits.memory_bytes = 1ULL << 30;
#else
  limits.memory_bytes = rules.memory_bytes;
#endif
  limits.pids = rules.pids;
  return limits;
}

const char* NameOf(HelperProgram program) {
  return program == HelperProgram::kFetcher ? "pulga-fetcher" : "pulga-unpacker";
}

int RemoveJobCgroup(CgroupTree& cgroups, const std::string& name) {
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    if (cgroups.RemoveJob(name).ok()) return 0;
    usleep(i < 20 ? 2000 : 50000);
  }
  LogWarning("remove cgroup " + name + ": it stays busy");
  return 1;
}

}  // namespace

void Launcher::Unpack(uint64_t request, Message message) {
  auto decoded = DecodeUnpack(message.bytes);
  if (!decoded.ok()) return Reply(request, decoded.error());
  UnpackJob job = std::move(decoded->job);
  size_t expected = 0;
  for (const auto& [flag, fd] :
       {std::pair(kUnpackHasInput, &job.input), std::pair(kUnpackHasOutput, &job.output),
        std::pair(kUnpackHasChannel, &job.channel)}) {
    if ((decoded->flags & flag) == 0) continue;
    if (expected < message.fds.size()) *fd = std::move(message.fds[expected]);
    ++expected;
  }
  if (message.fds.size() != expected) {
    return Reply(request, Error{Code::kInvalidArgument, 0, "unpack: wrong number of descriptors"});
  }
  const JobRules rules = *RulesOf(job.kind);
  Status ready = CheckJobFds(rules, job);
  if (!ready.ok()) return Reply(request, ready);
  if (!ProgramOf(rules).valid()) {
    return Reply(request, Error{Code::kUnsupported, ENOENT,
                                std::string("unpack: ") + NameOf(rules.program) + " is missing"});
  }
  if (jobs_.size() >= kMaxJobs) {
    return Reply(request, Error{Code::kUnavailable, 0, "unpack: too many jobs at once"});
  }
  for (const LayerId& id : job.parents) {
    if (layers_.Has(id)) continue;
    return Reply(request, Error{Code::kNotFound, ENOENT, "layer " + id.Hex() + " is missing"});
  }
  auto owned = std::make_unique<Job>();
  owned->number = next_job_++;
  owned->request = request;
  owned->staging_use = rules.staging;
  owned->target = job.target;
  Job& started = *owned;
  jobs_[started.number] = std::move(owned);
  ready = StartJob(started, rules, std::move(job));
  if (!ready.ok()) FinishJob(started, ready);
}

const UniqueFd& Launcher::ProgramOf(const JobRules& rules) const {
  return rules.program == HelperProgram::kFetcher ? options_.fetcher : options_.unpacker;
}

Status Launcher::StartJob(Job& job, const JobRules& rules, UnpackJob unpack) {
  PULGA_ASSIGN_OR_RETURN(job.staging, layers_.MakeStaging(job.number));
  if (job.staging_use == StagingUse::kPublish && layers_.Has(job.target)) {
    // The daemon would not ask for a layer it knows: what is there was never made visible.
    PULGA_RETURN_IF_ERROR(layers_.MoveToTrash(job.target, job.number));
    job.trash = TrashName(job.number);
  }
  if (job.staging_use == StagingUse::kTakeTarget) {
    PULGA_RETURN_IF_ERROR(layers_.MoveToStaging(job.target, job.staging));
  }
  const std::string cgroup = "unpack-" + std::to_string(job.number);
  PULGA_ASSIGN_OR_RETURN(JobCgroup made, cgroups_->CreateJob(cgroup, JobLimits(rules)));
  job.cgroup = cgroup;
  job.counters = SlotCounters(std::move(made.counters));
  job.counters.Begin();
  PULGA_ASSIGN_OR_RETURN(const UniqueFd report,
                         WatchReports([this, &job] { OnJobReport(job); }, job.report));
  UnpackStart start;
  start.job = std::move(unpack);
  start.staging = job.staging;
  start.cgroup = std::move(made);
  start.layers_fd = layers_.fd();
  start.network = rules.network;
  start.ids = options_.ids;
  start.program_fd = ProgramOf(rules).get();
  start.report_fd = report.get();
  start.executable = NameOf(rules.program);
  PULGA_ASSIGN_OR_RETURN(PidFd child,
                         Fork([&start]() -> int { StartUnpackerAndExit(std::move(start)); }));
  const pid_t pid = child.pid();
  PULGA_RETURN_IF_ERROR(WatchChild(std::move(child), [this, &job](const ExitInfo& info) {
    job.setup = -1;
    OnJobExit(job, info);
  }));
  job.setup = pid;
  job.timer = loop_.CallAfter(rules.timeout, [this, &job] {
    job.timer = 0;
    job.timed_out = true;
    KillJob(job);
  });
  return OkStatus();
}

void Launcher::KillJob(const Job& job) {
  for (auto& [fd, running] : children_) {
    if (running.pid() == job.setup || running.pid() == job.unpacker) {
      (void)running.Signal(SIGKILL);
    }
  }
}

void Launcher::CancelUnpack(uint64_t request, const Message& message) {
  const auto body = DecodeCancelUnpack(message.bytes);
  if (!body.ok()) return Reply(request, body.error());
  for (auto& [number, job] : jobs_) {
    if (job->request != body->job || job->finished) continue;
    job->cancelled = true;
    KillJob(*job);
    return Reply(request, OkStatus());
  }
  Reply(request, Error{Code::kNotFound, 0, "cancel-unpack: no such job"});
}

void Launcher::OnJobReport(Job& job) {
  BuildReport report;
  const ssize_t n = PULGA_SYS(read, job.report.get(), &report, sizeof report);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n != sizeof report) {  // end of file: it executes, or it is dead
    loop_.Unwatch(job.report.get());
    job.report.Reset();
    return OnJobExit(job, ExitInfo{});
  }
  report.text[sizeof report.text - 1] = '\0';
  if (report.kind == ReportKind::kFailed) job.failed = ErrorOf(report);
  if (report.kind != ReportKind::kStarted || job.started) return;
  job.started = true;
  auto child = PidFd::OfChild(report.pid);
  if (!child.ok()) {
    job.failed = child.error();
    return;
  }
  job.unpacker = report.pid;
  const Status watched = WatchChild(std::move(*child), [this, &job](const ExitInfo& info) {
    job.unpacker = -1;
    OnJobExit(job, info);
  });
  if (!watched.ok()) {
    job.unpacker = -1;
    job.failed = watched;
    return;
  }
  if (job.cancelled || job.timed_out) KillJob(job);  // said before we knew of it
}

// Called as each of set-up child, unpacker and report pipe ends; acts on the last.
void Launcher::OnJobExit(Job& job, const ExitInfo& info) {
  if (info.wait_status != 0 && job.failed.ok()) {
    job.failed =
        WIFEXITED(info.wait_status)
            ? Error{Code::kInvalidArgument, 0,
                    "the unpacker refused (exit status " +
                        std::to_string(WEXITSTATUS(info.wait_status)) + ")"}
            : Error{Code::kIo, 0,
                    "the unpacker died of signal " + std::to_string(WTERMSIG(info.wait_status))};
  }
  if (job.setup >= 0 || job.unpacker >= 0 || job.report.valid()) return;
  if (job.failed.ok() && !job.started) {
    job.failed = Error{Code::kInternal, 0, "unpack: the set-up ended without a word"};
  }
  if (!job.failed.ok()) {
    if (job.counters.End().oom_kills > 0) {
      job.failed = Error{Code::kNoSpace, ENOMEM, "the unpacker passed its memory limit"};
    }
    if (job.cancelled) job.failed = Error{Code::kUnavailable, ECANCELED, "the job was cancelled"};
    if (job.timed_out) job.failed = Error{Code::kTimeout, ETIMEDOUT, "the unpacker took too long"};
    return FinishJob(job, job.failed);
  }
  if (job.staging_use != StagingUse::kPublish) return FinishJob(job, OkStatus());
  // The exit status carries the errno: 0, EEXIST, ENOSPC ...
  auto child = Fork([this, &job] {
    const Status published = layers_.Publish(job.staging, job.target);
    if (!published.ok()) LogWarning(published.error().message);
    return published.ok() ? 0 : std::max(published.error().sys_errno, 1);
  });
  if (!child.ok()) return FinishJob(job, child.error());
  const Status watched = WatchChild(std::move(*child), [this, &job](const ExitInfo& publisher) {
    const int code = WIFEXITED(publisher.wait_status) ? WEXITSTATUS(publisher.wait_status) : EIO;
    FinishJob(job, code == 0 ? OkStatus() : Status(ErrnoError("publish the layer", code)));
  });
  if (!watched.ok()) FinishJob(job, watched);
}

void Launcher::FinishJob(Job& job, const Status& status) {
  Reply(job.request, status);
  job.finished = true;
  loop_.Cancel(job.timer);
  job.timer = 0;
  if (job.report.valid()) loop_.Unwatch(job.report.get());
  job.report.Reset();
  const uint64_t number = job.number;
  const auto remove_cgroup = [this, &job] {
    return job.cgroup.empty() ? 0 : RemoveJobCgroup(*cgroups_, job.cgroup);
  };
  const auto remove_all = [this, &job, remove_cgroup] {
    const int left = remove_cgroup();
    for (const std::string& name : {job.staging, job.trash}) {
      if (name.empty()) continue;
      const Status removed = layers_.Remove(name);
      if (!removed.ok()) LogWarning("remove " + name + ": " + removed.error().message);
    }
    return left;
  };
  const auto remove_least = [remove_cgroup, number] {
    LogWarning("unpack: files of job " + std::to_string(number) + " are removed at the next start");
    return remove_cgroup();
  };
  RunJanitor({remove_all, remove_least}, [this, number] { jobs_.erase(number); });
}

}  // namespace pulga
