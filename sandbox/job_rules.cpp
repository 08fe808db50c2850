#include "sandbox/job_rules.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <string>

namespace pulga {
namespace {

// As long as a client may take to send or take an image; who stalls is ended by the daemon.
constexpr Duration kAsLongAsItStreams = std::chrono::hours(24);

enum class Access { kRead, kWrite };

Status CheckFd(const UniqueFd& fd, FdRule rule, const std::string& name) {
  if (!fd.valid()) return OkStatus();
  struct stat st = {};
  if (fstat(fd.get(), &st) != 0) return LastError("unpack: stat the " + name);
  const uint8_t is = S_ISREG(st.st_mode)    ? static_cast<uint8_t>(FdRule::kFile)
                     : S_ISFIFO(st.st_mode) ? static_cast<uint8_t>(FdRule::kPipe)
                                            : uint8_t{0};
  if ((is & static_cast<uint8_t>(rule)) != 0) return OkStatus();
  const char* wanted = rule == FdRule::kNone   ? " is not expected"
                       : rule == FdRule::kFile ? " is no regular file"
                       : rule == FdRule::kPipe ? " is no pipe"
                                               : " is no regular file and no pipe";
  return Error{Code::kInvalidArgument, 0, "unpack: the " + name + wanted};
}

Status CheckAccess(const UniqueFd& fd, Access access, const std::string& name) {
  if (!fd.valid()) return OkStatus();
  const int flags = fcntl(fd.get(), F_GETFL);
  if (flags < 0) return LastError("unpack: look at the " + name);
  const int mode = flags & O_ACCMODE;
  const bool fits = access == Access::kRead ? mode != O_WRONLY : mode != O_RDONLY;
  if (fits && (flags & O_PATH) == 0) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "unpack: the " + name + " is not open for " +
                   (access == Access::kRead ? "reading" : "writing")};
}

}  // namespace

std::optional<JobRules> RulesOf(UnpackKind kind) {
  JobRules rules;
  switch (kind) {
    case UnpackKind::kUnpackLayer:
      rules.input = rules.output = FdRule::kFile;
      rules.staging = StagingUse::kPublish;
      return rules;
    case UnpackKind::kList:
    case UnpackKind::kSums:
      rules.output = FdRule::kFile;
      return rules;
    case UnpackKind::kRemove:
      rules.staging = StagingUse::kTakeTarget;
      return rules;
    case UnpackKind::kIngest:
      rules.input = FdRule::kFileOrPipe;
      rules.output = FdRule::kFile;
      rules.timeout = kAsLongAsItStreams;
      return rules;
    case UnpackKind::kFetch:
      rules.input = rules.output = FdRule::kFile;
      rules.program = HelperProgram::kFetcher;
      rules.network = HelperNetwork::kHost;
      rules.pids = 16;  // a thread for each name that is being resolved
      rules.timeout = kAsLongAsItStreams;
      return rules;
    case UnpackKind::kVerify:
      rules.input = rules.output = FdRule::kFile;
      return rules;
    case UnpackKind::kExportLayer:
      rules.input = FdRule::kFile;
      rules.output = FdRule::kFileOrPipe;
      rules.timeout = kAsLongAsItStreams;
      return rules;
  }
  return std::nullopt;
}

Status CheckJobFds(const JobRules& rules, const UnpackJob& job) {
  PULGA_RETURN_IF_ERROR(CheckFd(job.input, rules.input, "input"));
  PULGA_RETURN_IF_ERROR(CheckFd(job.output, rules.output, "output"));
  PULGA_RETURN_IF_ERROR(CheckFd(job.channel, FdRule::kPipe, "channel"));
  PULGA_RETURN_IF_ERROR(CheckAccess(job.input, Access::kRead, "input"));
  PULGA_RETURN_IF_ERROR(CheckAccess(job.output, Access::kWrite, "output"));
  return CheckAccess(job.channel, Access::kWrite, "channel");
}

}  // namespace pulga
