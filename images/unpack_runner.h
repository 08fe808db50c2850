// Runs jobs of the confined helpers (base/unpack_job.h), several at once. runtime/ implements it
// over the launcher, tests over child processes of their own. Any thread but the loop's.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/unpack_job.h"

namespace pulga {

// One job that was started. Destroying it before Wait() cancels the job and waits for its end.
class RunningJob {
 public:
  virtual ~RunningJob() = default;
  // Blocks until the job has ended; once. Ok only when the helper exited 0 and, for kUnpackLayer,
  // its layer is published under job.target. A non-zero exit is kInvalidArgument; the reason comes
  // over the channel. kUnavailable: cancelled, or the launcher is gone or was told to stop.
  // kTimeout and kNoSpace: killed at the job's time or memory limit. kAlreadyExists: job.target was
  // published by somebody else meanwhile, which is as good.
  virtual Status Wait() = 0;
  // Kills the job, soon. Wait() still tells how it ended.
  virtual void Cancel() = 0;
};

class UnpackRunner {
 public:
  virtual ~UnpackRunner() = default;
  // Never blocks and always answers; what goes wrong is told by Wait(). The job's descriptors are
  // closed here as soon as the helper has its own.
  virtual std::unique_ptr<RunningJob> Start(UnpackJob job) = 0;
};

}  // namespace pulga
