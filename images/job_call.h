// JobCall: one helper job as the daemon's side sees it: starts it with a channel, hands out what it
// tells, and turns its last words into the error. Blocks; not for the loop thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "images/job_events.h"
#include "images/unpack_runner.h"

namespace pulga {

class JobCall {
 public:
  // The job's channel is made here.
  static Result<std::unique_ptr<JobCall>> Start(UnpackRunner& runner, UnpackJob job);
  // Cancels the job and waits, unless Finish() was called.
  ~JobCall();

  // The next event; nullopt once there will be none. Failures are kept for Finish().
  Result<std::optional<JobEvent>> Next();
  void Cancel() { running_->Cancel(); }
  // To wait for the next event together with something else, unless one is here already.
  int channel_fd() const { return channel_.get(); }
  bool buffered() const { return reader_.buffered(); }
  // The helper itself said why it failed.
  bool told() const { return told_.has_value(); }
  // Reads to the end and waits. The helper's own reason where it gave one.
  Status Finish();

 private:
  explicit JobCall(UniqueFd channel) : channel_(std::move(channel)), reader_(channel_.get()) {}

  UniqueFd channel_;
  JobEventReader reader_;
  std::unique_ptr<RunningJob> running_;
  std::optional<Error> told_;
};

// A job that tells nothing but its failure.
Status RunJob(UnpackRunner& runner, UnpackJob job);

}  // namespace pulga
