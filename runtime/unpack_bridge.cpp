#include "runtime/unpack_bridge.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

namespace pulga {
namespace {

Error Stopping() { return Error{Code::kUnavailable, 0, "the daemon is stopping"}; }
// Its other writers are in a message that nobody receives, so it does not end: what is no event
// wakes the thread that reads it.
void Interrupt(int channel) {
  pollfd room = {channel, POLLOUT, 0};
  if (channel < 0 || poll(&room, 1, 0) != 1 || (room.revents & POLLOUT) == 0) return;
  const std::array<char, 64> no_event = {};
  (void)!write(channel, no_event.data(), no_event.size());
}

Error Cancelled() { return Error{Code::kUnavailable, 0, "the job was cancelled"}; }

}  // namespace

struct UnpackBridge::Task {
  UnpackJob job;  // until it runs
  UnpackKind kind;
  uint64_t number = 0;  // while it runs; loop thread
  UniqueFd channel;     // the same
  Handoff<Status> answer;
};

// Shares its task with the loop, which may outlive it.
class UnpackBridge::Handle final : public RunningJob {
 public:
  Handle(UnpackBridge& bridge, std::shared_ptr<Task> task)
      : bridge_(bridge), task_(std::move(task)) {}
  ~Handle() override {
    if (waited_) return;
    Cancel();
    (void)task_->answer.Wait();
  }
  Status Wait() override {
    waited_ = true;
    return task_->answer.Wait();
  }
  void Cancel() override {
    bridge_.loop_.Post([bridge = &bridge_, task = task_] { bridge->Cancel(task); });
  }

 private:
  UnpackBridge& bridge_;
  std::shared_ptr<Task> task_;
  bool waited_ = false;
};

std::unique_ptr<RunningJob> UnpackBridge::Start(UnpackJob job) {
  auto task = std::make_shared<Task>();
  task->kind = job.kind;
  task->job = std::move(job);
  loop_.Post([this, task] { Add(task); });
  return std::make_unique<Handle>(*this, std::move(task));
}

void UnpackBridge::Add(std::shared_ptr<Task> task) {
  if (stopped_) {
    task->job = UnpackJob();  // closes its channel
    return task->answer.Set(Stopping());
  }
  if (task->kind == UnpackKind::kUnpackLayer && unpacking_) return waiting_.push_back(task);
  Run(task);
}

void UnpackBridge::Run(const std::shared_ptr<Task>& task) {
  if (task->kind == UnpackKind::kUnpackLayer) unpacking_ = true;
  running_[task.get()] = task;
  task->channel = UniqueFd(fcntl(task->job.channel.get(), F_DUPFD_CLOEXEC, 0));
  task->number = sandbox_.RunUnpack(std::exchange(task->job, {}),
                                    [this, task](const Status& status) { OnDone(task, status); });
}

void UnpackBridge::OnDone(const std::shared_ptr<Task>& task, const Status& status) {
  if (running_.erase(task.get()) == 0) return;  // told by Stop() already
  if (!status.ok() && status.error().code == Code::kTimeout) Interrupt(task->channel.get());
  task->channel.Reset();
  task->answer.Set(status);
  if (task->kind != UnpackKind::kUnpackLayer) return;
  unpacking_ = false;
  if (waiting_.empty()) return;
  const auto next = std::move(waiting_.front());
  waiting_.pop_front();
  Run(next);
}

void UnpackBridge::Cancel(const std::shared_ptr<Task>& task) {
  if (running_.contains(task.get())) return sandbox_.CancelUnpack(task->number);
  const auto queued = std::find(waiting_.begin(), waiting_.end(), task);
  if (queued == waiting_.end()) return;
  waiting_.erase(queued);
  task->job = UnpackJob();
  task->answer.Set(Cancelled());
}

void UnpackBridge::Stop() {
  stopped_ = true;
  for (const auto& task : std::exchange(waiting_, {})) {
    task->job = UnpackJob();
    task->answer.Set(Stopping());
  }
  for (const auto& [key, task] : std::exchange(running_, {})) {
    sandbox_.CancelUnpack(task->number);  // its channel and its input are read to their end
    task->channel.Reset();
    task->answer.Set(Stopping());
  }
}

}  // namespace pulga
