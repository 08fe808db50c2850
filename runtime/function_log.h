// What functions write to stderr (and http functions to stdout): a bounded ring of lines per
// function in memory, rate-limited, plus followers. Loop thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "runtime/function_spec.h"

namespace pulga {

struct LogLine {
  int64_t unix_ms = 0;
  uint32_t version = 0;
  std::string call_id;  // "" where the line belongs to no one call (http)
  std::string stream;   // "stdout", "stderr", "pulga" (our own remarks on this function)
  std::string text;     // without newline; bytes as written, cut at 4 KiB
};

class FunctionLogs {
 public:
  using FollowId = uint64_t;
  explicit FunctionLogs(size_t max_bytes_per_function = 256 * 1024)
      : max_bytes_(max_bytes_per_function) {}

  void Append(const FunctionKey& key, LogLine line);  // drops the oldest; counts what it dropped
  // The newest `max_lines`, oldest first.
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
  FollowId next_id_ = 1;
  std::map<FunctionKey, Ring> rings_;
  std::map<FollowId, std::pair<FunctionKey, std::function<void(const LogLine&)>>> followers_;
};

}  // namespace pulga
