#include "base/log.h"

#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <string>

namespace pulga {
namespace {

std::atomic<LogLevel> g_least{LogLevel::kInfo};
char g_tag[16] = "pulga";

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "?";
}

}  // namespace

void SetLogLevel(LogLevel least) { g_least = least; }

void SetLogTag(std::string_view tag) {
  const size_t n = tag.copy(g_tag, sizeof g_tag - 1);
  g_tag[n] = '\0';
}

void Log(LogLevel level, std::string_view text) {
  if (level < g_least.load(std::memory_order_relaxed)) return;
  timespec now = {};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc = {};
  gmtime_r(&now.tv_sec, &utc);
  char head[80];
  const size_t n = strftime(head, sizeof head, "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(head + n, sizeof head - n, ".%03ldZ %s %s: ", now.tv_nsec / 1000000, LevelName(level),
           g_tag);
  const std::string line = std::string(head) + std::string(text) + "\n";
  (void)!write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace pulga
