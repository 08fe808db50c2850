// One line of a function's log, and which of them somebody wants to read. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace pulga {

struct LogLine {
  int64_t unix_ms = 0;
  uint32_t version = 0;
  std::string call_id;        // "" where the line belongs to no one call (http)
  std::string stream;         // "stdout", "stderr", "pulga" (our own remarks on this function)
  std::string text;           // without newline; bytes as written, cut at 4 KiB
  std::string instance = {};  // "VERSION-SLOT"; "" where the line belongs to none
};

struct LogQuery {
  std::optional<size_t> tail;            // the newest so many; none: all there are
  std::optional<int64_t> since_unix_ms;  // of this moment or later
  std::string instance;                  // "": of all

  bool Wants(const LogLine& line) const {
    return (!since_unix_ms || line.unix_ms >= *since_unix_ms) &&
           (instance.empty() || line.instance == instance);
  }
};

}  // namespace pulga
