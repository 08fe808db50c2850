#include "runtime/policy/cost_book.h"

#include <algorithm>
#include <vector>

#include "base/text.h"

namespace pulga {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int64_t kShare = 4;
constexpr Duration kPageInMib = microseconds(500);
// Of what is read back: nothing that is added or multiplied later overflows.
constexpr uint64_t kMostNanoseconds = 86400ULL * 1000 * 1000 * 1000;
constexpr uint64_t kMostBytes = 1ULL << 48;

template <typename T>
T Moved(T average, T newest, uint32_t seen) {
  if (seen == 0) return newest;
  return average + (newest - average) / kShare;
}

Error BadText(std::string_view text) {
  return {Code::kInvalidArgument, 0, "not a book of costs: \"" + Printable(text, 40) + "\""};
}

// "value*count"
template <typename Value>
bool ReadAverage(std::string_view text, uint64_t most, Value* value, uint32_t* count) {
  const std::vector<std::string_view> parts = Split(text, '*');
  if (parts.size() != 2) return false;
  const auto average = ParseUint(parts[0], most);
  const auto seen = ParseUint(parts[1], UINT32_MAX);
  if (!average || !seen) return false;
  *value = Value(*average);
  *count = static_cast<uint32_t>(*seen);
  return true;
}

}  // namespace

void CostBook::NoteStart(Rung from, Duration took) {
  ObservedCost& cost = seen_[static_cast<size_t>(from)];
  cost.start = Moved(cost.start, std::max(took, Duration::zero()), cost.starts);
  if (cost.starts < UINT32_MAX) ++cost.starts;
}

void CostBook::NoteBytes(Rung on, uint64_t bytes) {
  ObservedCost& cost = seen_[static_cast<size_t>(on)];
  cost.bytes = static_cast<uint64_t>(
      Moved(static_cast<int64_t>(cost.bytes), static_cast<int64_t>(bytes), cost.sights));
  if (cost.sights < UINT32_MAX) ++cost.sights;
}

Ladder CostBook::MakeLadder(Kind kind, uint64_t limit) const {
  const bool server = kind == Kind::kServer;
  Ladder ladder;
  const auto bytes = [&](Rung rung, uint64_t assumed) {
    return at(rung).sights > 0 ? at(rung).bytes : assumed;
  };
  const auto start = [&](Rung rung, Duration assumed) {
    return at(rung).starts > 0 ? at(rung).start : assumed;
  };
  ladder[Rung::kCold].offered = true;
  ladder[Rung::kWarm] = {Duration::zero(), limit, true};
  ladder[Rung::kFrozen].bytes = bytes(Rung::kFrozen, limit);
  ladder[Rung::kReclaimed].bytes = bytes(Rung::kReclaimed, ladder[Rung::kFrozen].bytes * 35 / 100);
  ladder[Rung::kParked].bytes = bytes(Rung::kParked, kParkedInstanceBytes);

  ladder[Rung::kFrozen].start = start(Rung::kFrozen, microseconds(300));
  const uint64_t out = ladder[Rung::kFrozen].bytes -
                       std::min(ladder[Rung::kFrozen].bytes, ladder[Rung::kReclaimed].bytes);
  const Duration page_in = kPageInMib * static_cast<int64_t>(out >> 20);
  ladder[Rung::kReclaimed].start = start(Rung::kReclaimed, ladder[Rung::kFrozen].start + page_in);
  // A program is never on these two: what they would cost says nothing about the lower ones.
  if (!server) ladder[Rung::kFrozen].start = ladder[Rung::kReclaimed].start = Duration::zero();
  ladder[Rung::kParked].start =
      start(Rung::kParked, server ? milliseconds(250) : Duration(microseconds(400)));
  ladder[Rung::kCold].start = start(Rung::kCold, milliseconds(server ? 260 : 10));
  // What is only assumed of a rung says nothing against what was seen of a lower one.
  Duration seen = Duration::max();
  for (size_t at = 0; at < kRungs; ++at) {
    if (seen_[at].starts > 0) seen = std::min(seen, seen_[at].start);
    if (seen_[at].starts == 0) ladder.rungs[at].start = std::min(ladder.rungs[at].start, seen);
  }
  // Lower rungs hold no more and start no faster, whatever was seen.
  for (size_t at = kRungs - 1; at-- > 0;) {
    RungCost& lower = ladder.rungs[at];
    lower.bytes = std::min(lower.bytes, ladder.rungs[at + 1].bytes);
    lower.start = std::max(lower.start, ladder.rungs[at + 1].start);
  }
  return ladder;
}

std::string CostBook::Serialise() const {
  std::string text;
  for (size_t rung = 0; rung < kRungs; ++rung) {
    const ObservedCost& cost = seen_[rung];
    if (cost.starts == 0 && cost.sights == 0) continue;
    if (!text.empty()) text += ' ';
    text += std::string(RungName(static_cast<Rung>(rung))) + "=" +
            std::to_string(cost.start.count()) + "*" + std::to_string(cost.starts) + "," +
            std::to_string(cost.bytes) + "*" + std::to_string(cost.sights);
  }
  return text;
}

Result<CostBook> CostBook::Parse(std::string_view text) {
  CostBook out;
  if (text.empty()) return out;
  for (const std::string_view entry : Split(text, ' ')) {
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos) return BadText(text);
    size_t rung = 0;
    while (rung < kRungs && RungName(static_cast<Rung>(rung)) != entry.substr(0, equals)) ++rung;
    const std::vector<std::string_view> halves = Split(entry.substr(equals + 1), ',');
    if (rung == kRungs || halves.size() != 2) return BadText(text);
    ObservedCost& cost = out.seen_[rung];
    if (!ReadAverage(halves[0], kMostNanoseconds, &cost.start, &cost.starts) ||
        !ReadAverage(halves[1], kMostBytes, &cost.bytes, &cost.sights)) {
      return BadText(text);
    }
  }
  return out;
}

}  // namespace pulga
