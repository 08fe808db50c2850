// LogPipe: one output of a function, read line by line into FunctionLogs. Rate-limited twice: lines
// beyond the line rate are dropped and counted, and bytes beyond the byte rate are not read, so
// that a function that floods its stderr slows itself down and not the loop. Loop thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "runtime/function_log.h"

namespace pulga {

inline constexpr size_t kMaxLogLineBytes = 4 * 1024;
inline constexpr size_t kLogTailBytes = 4 * 1024;

struct LogSource {
  FunctionKey key;
  uint32_t version = 0;
  std::string call_id;
  std::string stream;  // "stdout" or "stderr"
  std::string instance = {};
};

// How fast one output may be; refilled every second.
struct LogRate {
  uint32_t lines = 1000;
  size_t bytes = 1 << 20;
};

class LogPipe {
 public:
  LogPipe(EventLoop& loop, const Clock& clock, FunctionLogs& logs, LogSource source,
          LogRate rate = LogRate());
  ~LogPipe();
  LogPipe(const LogPipe&) = delete;
  LogPipe& operator=(const LogPipe&) = delete;

  Status Open(UniqueFd read_end);
  // Everything written so far, as far as the rate allows, and the unfinished line; then closes.
  void Finish();
  // The last 4 KiB, raw.
  const std::string& tail() const { return tail_; }

 private:
  void OnReadable();
  void Take(std::string_view bytes);
  void EmitLine();
  void Refill();
  void Append(const std::string& stream, std::string text);
  void ReportDropped();
  void Close();

  EventLoop& loop_;
  const Clock& clock_;
  FunctionLogs& logs_;
  LogSource source_;
  LogRate rate_;
  UniqueFd fd_;
  EventLoop::TimerId pause_ = 0;
  TimePoint refilled_;
  size_t bytes_left_;
  uint32_t lines_left_;
  uint64_t dropped_ = 0;
  std::string line_;
  bool line_started_ = false;
  std::string tail_;
};

}  // namespace pulga
