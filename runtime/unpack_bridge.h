// UnpackBridge: the importer's blocking UnpackRunner on the spool thread, over the asynchronous
// Sandbox on the loop thread. The waiting thread is always woken: by the job's end, by the
// launcher's death (the Sandbox answers kUnavailable), or by Stop().
#pragma once

#include <memory>

#include "base/event_loop.h"
#include "base/work_queue.h"
#include "images/unpack_runner.h"
#include "sandbox/sandbox.h"

namespace pulga {

class UnpackBridge final : public UnpackRunner {
 public:
  UnpackBridge(EventLoop& loop, Sandbox& sandbox) : loop_(loop), sandbox_(sandbox) {}

  Status Run(UnpackJob job) override;  // spool thread
  // Loop thread: the job under way, and each one after it, fails with kUnavailable.
  void Stop();

 private:
  using Answer = Handoff<Status>;
  EventLoop& loop_;
  Sandbox& sandbox_;
  bool stopped_ = false;           // loop thread
  std::weak_ptr<Answer> current_;  // loop thread
};

}  // namespace pulga
