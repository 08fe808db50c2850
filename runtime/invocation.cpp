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

int RejectedStatus(std::string_view detail) {
  if (detail == kRejectUnknownFunction) return 404;
  if (detail == kRejectBodyLimit) return 413;
  if (detail == kRejectBadArgument) return 400;
  if (detail == kRejectUpgrade) return 501;
  if (detail == kRejectQueueFull || detail == kRejectQueueTimeout) return 429;
  return 503;
}

}  // namespace

int OutcomeStatus(const Outcome& outcome) {
  switch (outcome.kind) {
    case OutcomeKind::kOk:
      return 0;
    case OutcomeKind::kExited:
    case OutcomeKind::kSignaled:
    case OutcomeKind::kOomKilled:
    case OutcomeKind::kSyscallDenied:
      return 500;
    case OutcomeKind::kTimedOut:
      return 504;
    case OutcomeKind::kOutputLimit:
    case OutcomeKind::kBadResponse:
      return 502;
    case OutcomeKind::kNotReady:
    case OutcomeKind::kSetupFailed:
      return 503;
    case OutcomeKind::kCancelled:
      return 499;
    case OutcomeKind::kRejected:
      return RejectedStatus(outcome.detail);
  }
  return 500;
}

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
