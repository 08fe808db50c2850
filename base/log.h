// One line per event on stderr: "2026-01-02T03:04:05.678Z info text". Text is escaped by the
// caller when it came from outside (Printable). Any thread; one write per line.
#pragma once

#include <string_view>

namespace pulga {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

void SetLogLevel(LogLevel least);
void SetLogTag(std::string_view tag);  // "launcher", "daemon": which process speaks
void Log(LogLevel level, std::string_view text);

inline void LogDebug(std::string_view text) { Log(LogLevel::kDebug, text); }
inline void LogInfo(std::string_view text) { Log(LogLevel::kInfo, text); }
inline void LogWarning(std::string_view text) { Log(LogLevel::kWarning, text); }
inline void LogError(std::string_view text) { Log(LogLevel::kError, text); }

}  // namespace pulga
