// LogFiles: the functions' logs on disk, DATA/logs, mode 0700: for each function two files that
// take turns, so that it has between half of its bound and all of it. A line is a line of text,
// "UNIX_MS VERSION STREAM INSTANCE CALL_ID TEXT", "-" for what is not there; one that a crash cut
// is passed over when read. Written without syncing: a power cut takes what the kernel had not
// written yet, some 30 s. Blocks: storage thread.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/result.h"
#include "runtime/function_spec.h"
#include "runtime/log_line.h"

namespace pulga {

// A reader has them all in memory for a moment.
inline constexpr uint64_t kMostLogBytes = 64 << 20;

// With a newline at its end and none before; a blank in a field other than the text becomes '_'.
std::string FormatLogLine(const LogLine& line);
std::optional<LogLine> ParseLogLine(std::string_view line);  // without the newline

// Of lines in order of time: those that `query` wants.
std::deque<LogLine> SelectLines(std::deque<LogLine> lines, const LogQuery& query);

class LogFiles {
 public:
  LogFiles(std::string data_dir, uint64_t max_bytes)
      : dir_(std::move(data_dir) + "/logs"), max_bytes_(max_bytes) {}

  // Whole lines, as FormatLogLine made them.
  Status Append(const FunctionKey& key, std::string_view lines);
  std::deque<LogLine> Read(const FunctionKey& key, const LogQuery& query) const;
  void Remove(const FunctionKey& key) const;
  // Files of functions that are not among `keep`.
  void Sweep(const std::set<FunctionKey>& keep) const;

 private:
  std::string dir_;
  uint64_t max_bytes_;
};

}  // namespace pulga
