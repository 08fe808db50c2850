// What functions write to stderr (and http functions to stdout): kept in a store on disk, or, where
// there is none (tests, benchmarks), as a bounded ring of lines per function in memory; and told to
// followers. Loop thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "runtime/function_spec.h"
#include "runtime/log_line.h"

namespace pulga {

class LogStore;

class FunctionLogs {
 public:
  using FollowId = uint64_t;
  explicit FunctionLogs(size_t max_bytes_per_function = 256 * 1024)
      : max_bytes_(max_bytes_per_function) {}

  // From now on lines go there, and no more into memory; nullptr: the other way round.
  void SetStore(LogStore* store) { store_ = store; }

  void Append(const FunctionKey& key, LogLine line);  // drops the oldest; counts what it dropped
  // Oldest first: all that was appended before this call, and nothing after it; `done` is called at
  // once or later.
  void Read(const FunctionKey& key, const LogQuery& query,
            std::function<void(std::deque<LogLine>)> done) const;
  // Without a store: the newest `max_lines`, oldest first.
  std::deque<LogLine> Tail(const FunctionKey& key, size_t max_lines) const;
  uint64_t dropped(const FunctionKey& key) const;
  FollowId Follow(const FunctionKey& key, std::function<void(const LogLine&)> on_line);
  void Unfollow(FollowId id);
  void Forget(const FunctionKey& key);

 private:
  struct Ring {
    std::deque<LogLine> lines;
    size_t bytes = 0;
    uint64_t dropped = 0;
  };
  size_t max_bytes_;
  LogStore* store_ = nullptr;
  FollowId next_id_ = 1;
  std::map<FunctionKey, Ring> rings_;
  std::map<FollowId, std::pair<FunctionKey, std::function<void(const LogLine&)>>> followers_;
};

}  // namespace pulga
