// LogStore: the functions' logs, kept on disk in batches: lines wait in memory for at most
// kFlushDelay, or until a function has kFlushBytes of them, and are then appended by the storage
// thread. So no call ever waits for a card, and however many calls there are, a function's file is
// written to once in that time. Killed, a daemon loses what waited. Loop thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/event_loop.h"
#include "base/work_queue.h"
#include "runtime/log_files.h"

namespace pulga {

class LogStore {
 public:
  static constexpr Duration kFlushDelay = std::chrono::seconds(5);
  static constexpr size_t kFlushBytes = 32 * 1024;
  // Of all functions, not on disk yet: a disk that is slower than its functions loses lines.
  static constexpr size_t kMaxUnwritten = 4 << 20;

  LogStore(EventLoop& loop, WorkQueue& storage, LogFiles files);
  // What waits is handed to the storage thread, which must still run.
  ~LogStore();

  void Append(const FunctionKey& key, const LogLine& line);
  // All lines appended before this call, and none after it.
  void Read(const FunctionKey& key, const LogQuery& query,
            std::function<void(std::deque<LogLine>)> done);
  void Forget(const FunctionKey& key);
  // Start-up: what belongs to no function goes.
  void Sweep(std::set<FunctionKey> keep);
  void Flush();

 private:
  void FlushOne(const FunctionKey& key, std::string lines);
  void OnWritten(size_t bytes, const Status& written);

  EventLoop& loop_;
  WorkQueue& storage_;
  std::shared_ptr<LogFiles> files_;  // the storage thread's
  std::map<FunctionKey, std::string> waiting_;
  size_t unwritten_ = 0;  // waiting ones, and those the storage thread has
  uint64_t lost_ = 0;     // lines
  EventLoop::TimerId timer_ = 0;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

}  // namespace pulga
