// UnpackBridge: the importers' blocking UnpackRunner on their own threads, over the asynchronous
// Sandbox on the loop thread. A waiting thread is always woken: by its job's end, by the launcher's
// death (the Sandbox answers kUnavailable) or silence (kTimeout; then by a channel that carries no
// event, too), or by Stop().
// Layers are unpacked one at a time, in order of asking: they share one disk and the board's
// memory.
#pragma once

#include <deque>
#include <map>
#include <memory>

#include "base/event_loop.h"
#include "base/work_queue.h"
#include "images/unpack_runner.h"
#include "sandbox/sandbox.h"

namespace pulga {

class UnpackBridge final : public UnpackRunner {
 public:
  UnpackBridge(EventLoop& loop, Sandbox& sandbox) : loop_(loop), sandbox_(sandbox) {}

  std::unique_ptr<RunningJob> Start(UnpackJob job) override;  // any thread but the loop's
  // Loop thread: the jobs under way, and each one after them, fail with kUnavailable.
  void Stop();

 private:
  struct Task;
  class Handle;
  // The rest: loop thread.
  void Add(std::shared_ptr<Task> task);
  void Run(const std::shared_ptr<Task>& task);
  void OnDone(const std::shared_ptr<Task>& task, const Status& status);
  void Cancel(const std::shared_ptr<Task>& task);

  EventLoop& loop_;
  Sandbox& sandbox_;
  bool stopped_ = false;
  bool unpacking_ = false;                     // a kUnpackLayer is under way
  std::deque<std::shared_ptr<Task>> waiting_;  // kUnpackLayer jobs
  std::map<const Task*, std::shared_ptr<Task>> running_;
};

}  // namespace pulga
