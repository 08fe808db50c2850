#include "images/job_call.h"

#include <fcntl.h>
#include <unistd.h>

#include "images/unpack_wire.h"

namespace pulga {

Result<std::unique_ptr<JobCall>> JobCall::Start(UnpackRunner& runner, UnpackJob job) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return LastError("make a job's channel");
  std::unique_ptr<JobCall> call(new JobCall(UniqueFd(fds[0])));
  job.channel.Reset(fds[1]);
  call->running_ = runner.Start(std::move(job));
  return call;
}

JobCall::~JobCall() = default;

Result<std::optional<JobEvent>> JobCall::Next() {
  while (true) {
    PULGA_ASSIGN_OR_RETURN(auto event, reader_.Next());
    if (!event || event->kind != JobEventKind::kFailure) return event;
    if (const auto failure = DecodeFailure(event->payload)) told_ = *failure;
  }
}

Status JobCall::Finish() {
  while (true) {
    const auto event = Next();
    if (event.ok() && event->has_value()) continue;
    if (!event.ok()) running_->Cancel();
    break;
  }
  const Status status = running_->Wait();
  if (!status.ok() && status.error().code == Code::kInvalidArgument && told_) return *told_;
  return status;
}

Status RunJob(UnpackRunner& runner, UnpackJob job) {
  PULGA_ASSIGN_OR_RETURN(const auto call, JobCall::Start(runner, std::move(job)));
  return call->Finish();
}

}  // namespace pulga
