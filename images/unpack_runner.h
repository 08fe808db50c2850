// Runs one job of the confined unpacker and waits for it. Called on the spool thread; blocks.
// runtime/ implements it over the launcher, tests over a child process of their own.
#pragma once

#include "base/result.h"
#include "base/unpack_job.h"

namespace pulga {

class UnpackRunner {
 public:
  virtual ~UnpackRunner() = default;
  // Ok only when the unpacker exited 0 and, for kUnpackLayer, its layer is published under
  // job.target. A non-zero exit is kInvalidArgument and the reason is in the output file; the
  // importer reads it there, so implementations leave that file alone. kUnavailable: the launcher
  // is gone or was told to stop. kTimeout and kNoSpace: killed at the job's time or memory limit.
  // kAlreadyExists: job.target was published by somebody else meanwhile, which is as good.
  virtual Status Run(UnpackJob job) = 0;
};

}  // namespace pulga
