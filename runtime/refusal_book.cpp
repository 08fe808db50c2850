#include "runtime/refusal_book.h"

namespace pulga {
namespace {

constexpr Duration kBetweenLines = std::chrono::minutes(1);

}  // namespace

std::string RefusalBook::Add(const std::vector<RefusedCount>& more, TimePoint now) {
  for (const RefusedCount& refused : more) counts_[refused.name] += refused.count;
  if (more.empty() || now < next_line_) return "";
  next_line_ = now + kBetweenLines;
  uint64_t total = 0;
  std::string calls;
  for (const auto& [name, count] : counts_) {
    total += count;
    calls += (calls.empty() ? "" : ", ") + std::string(name) + " " + std::to_string(count);
  }
  return "system calls refused so far: " + std::to_string(total) + " (" + calls + ")";
}

}  // namespace pulga
