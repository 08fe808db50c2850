// Ends an import from another thread: its jobs under way are cancelled, later ones fail at once, so
// that its thread comes back soon whatever it was doing.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "images/unpack_runner.h"

namespace pulga {

class ImportStop {
 public:
  // Any thread; more than once is as good.
  void Stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    for (RunningJob* job : jobs_) job->Cancel();
  }
  bool stopped() const {
    const std::lock_guard lock(mutex_);
    return stopped_;
  }

 private:
  friend class StoppableRunner;
  mutable std::mutex mutex_;
  bool stopped_ = false;
  std::vector<RunningJob*> jobs_;
};

// The runner of one import.
class StoppableRunner final : public UnpackRunner {
 public:
  // `runner` outlives this. `stop` may be nullptr: nobody ends it.
  StoppableRunner(UnpackRunner& runner, std::shared_ptr<ImportStop> stop)
      : runner_(runner), stop_(std::move(stop)) {}

  std::unique_ptr<RunningJob> Start(UnpackJob job) override {
    if (stop_ == nullptr) return runner_.Start(std::move(job));
    const std::lock_guard lock(stop_->mutex_);
    if (stop_->stopped_) return std::make_unique<NoJob>();
    return std::make_unique<Job>(stop_, runner_.Start(std::move(job)));
  }

 private:
  struct NoJob final : RunningJob {
    Status Wait() override { return Error{Code::kUnavailable, 0, "the import was given up"}; }
    void Cancel() override {}
  };
  // Made with the lock held.
  class Job final : public RunningJob {
   public:
    Job(std::shared_ptr<ImportStop> stop, std::unique_ptr<RunningJob> job)
        : stop_(std::move(stop)), job_(std::move(job)) {
      stop_->jobs_.push_back(job_.get());
    }
    ~Job() override {
      const std::lock_guard lock(stop_->mutex_);
      std::erase(stop_->jobs_, job_.get());
    }
    Status Wait() override { return job_->Wait(); }
    void Cancel() override { job_->Cancel(); }

   private:
    std::shared_ptr<ImportStop> stop_;
    std::unique_ptr<RunningJob> job_;
  };

  UnpackRunner& runner_;
  std::shared_ptr<ImportStop> stop_;
};

}  // namespace pulga
