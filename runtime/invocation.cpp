#include "runtime/invocation.h"

#include <charconv>

namespace pulga {
namespace {

// 1234 -> "1.234". printf of a double cost more than the rest of the header.
void AppendThousandths(uint64_t value, std::string* text) {
  char whole[24];
  const auto end = std::to_chars(whole, whole + sizeof whole, value / 1000).ptr;
  text->append(whole, end);
  const auto rest = static_cast<unsigned>(value % 1000);
  *text += '.';
  *text += static_cast<char>('0' + rest / 100);
  *text += static_cast<char>('0' + rest / 10 % 10);
  *text += static_cast<char>('0' + rest % 10);
}

}  // namespace

std::string_view StartKindName(StartKind kind) {
  switch (kind) {
    case StartKind::kNone:
      return "none";
    case StartKind::kCold:
      return "cold";
    case StartKind::kParked:
      return "parked";
    case StartKind::kWarm:
      return "warm";
    case StartKind::kFrozen:
      return "frozen";
    case StartKind::kReclaimed:
      return "reclaimed";
  }
  return "";
}

std::string ServerTiming(const Receipt& receipt) {
  const std::pair<std::string_view, double> steps[] = {{"queue;dur=", receipt.queue_ms},
                                                       {"sandbox;dur=", receipt.sandbox_ms},
                                                       {"exec;dur=", receipt.exec_ms},
                                                       {"ready;dur=", receipt.ready_ms},
                                                       {"function;dur=", receipt.function_ms}};
  std::string text;
  text.reserve(96);
  for (const auto& [name, ms] : steps) {
    if (ms < 0) continue;
    if (!text.empty()) text += ", ";
    text += name;
    AppendThousandths(static_cast<uint64_t>(ms * 1000 + 0.5), &text);
  }
  return text;
}

}  // namespace pulga
