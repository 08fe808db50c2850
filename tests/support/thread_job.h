// A job of an importer that runs on a thread of this process.
#pragma once

#include <functional>
#include <thread>
#include <utility>

#include "images/unpack_runner.h"

namespace pulga::testing {

class ThreadJob final : public RunningJob {
 public:
  explicit ThreadJob(std::function<Status()> body)
      : thread_([this, body = std::move(body)] { status_ = body(); }) {}
  ~ThreadJob() override {
    if (thread_.joinable()) thread_.join();
  }
  Status Wait() override {
    thread_.join();
    return status_;
  }
  void Cancel() override {}

 private:
  Status status_;
  std::thread thread_;
};

}  // namespace pulga::testing
