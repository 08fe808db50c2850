#include "runtime/invocation.h"

#include <cstdio>

namespace pulga {

std::string_view StartKindName(StartKind kind) {
  switch (kind) {
    case StartKind::kNone:
      return "";
    case StartKind::kCold:
      return "cold";
    case StartKind::kParked:
      return "parked";
    case StartKind::kWarm:
      return "warm";
    case StartKind::kFrozen:
      return "frozen";
  }
  return "";
}

std::string ServerTiming(const Receipt& receipt) {
  const std::pair<const char*, double> steps[] = {{"queue", receipt.queue_ms},
                                                  {"sandbox", receipt.sandbox_ms},
                                                  {"exec", receipt.exec_ms},
                                                  {"ready", receipt.ready_ms},
                                                  {"function", receipt.function_ms}};
  char text[256];
  size_t used = 0;
  text[0] = '\0';
  for (const auto& [name, ms] : steps) {
    if (ms < 0 || used >= sizeof text) continue;
    used += static_cast<size_t>(snprintf(text + used, sizeof text - used, "%s%s;dur=%.3f",
                                         used == 0 ? "" : ", ", name, ms));
  }
  return text;
}

}  // namespace pulga
