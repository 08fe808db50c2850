#include "runtime/policy/trace.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <random>

#include "base/text.h"
#include "runtime/policy/hour_of_calls.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kMostTicks = 100000;
constexpr double kMostMiB = 1 << 20;

class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {}

  // False at the end. Empty lines are passed over.
  bool Next(std::vector<std::string_view>* fields) {
    while (!text_.empty()) {
      const size_t end = std::min(text_.find('\n'), text_.size());
      std::string_view line = text_.substr(0, end);
      text_.remove_prefix(std::min(end + 1, text_.size()));
      ++number_;
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.empty()) continue;
      *fields = Split(line, ',');
      return true;
    }
    return false;
  }
  Error Bad(std::string_view what) const {
    return {Code::kInvalidArgument, 0,
            "line " + std::to_string(number_) + ": " + std::string(what)};
  }

 private:
  std::string_view text_;
  uint32_t number_ = 0;
};

std::optional<double> Number(std::string_view text, double most) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!(value >= 0 && value <= most)) return std::nullopt;
  return value;
}

uint64_t MiB(double mib) { return static_cast<uint64_t>(mib * (1 << 20)); }

struct Facts {
  uint64_t bytes = 0;
  std::optional<Duration> init;
};
using FactsByName = std::map<std::string, Facts, std::less<>>;

Result<FactsByName> MemoryFacts(std::string_view csv) {
  FactsByName out;
  Lines lines(csv);
  std::vector<std::string_view> fields;
  if (!lines.Next(&fields)) return out;
  while (lines.Next(&fields)) {
    const auto mib = fields.size() > 4 ? Number(fields[4], kMostMiB) : std::nullopt;
    if (!mib) return lines.Bad("column 5, AverageAllocatedMb, is no number");
    out[std::string(fields[0])].bytes = MiB(*mib);
  }
  return out;
}

Result<FactsByName> MomentFacts(std::string_view csv) {
  FactsByName out;
  Lines lines(csv);
  std::vector<std::string_view> fields;
  if (!lines.Next(&fields)) return out;
  while (lines.Next(&fields)) {
    if (fields.size() < 4) return lines.Bad("fewer than 4 columns");
    const auto cold = ParseUint(fields[1], 86400000);
    const auto warm = ParseUint(fields[2], 86400000);
    const auto mib = Number(fields[3], kMostMiB);
    if (!cold || !warm || !mib) return lines.Bad("cold_dur_ms, warm_dur_ms or mem_mb is no number");
    out[std::string(fields[0])] = {MiB(*mib),
                                   std::chrono::milliseconds(*cold > *warm ? *cold - *warm : 0)};
  }
  return out;
}

TraceFunction Named(std::string_view name, const FactsByName& facts) {
  TraceFunction out;
  out.name = name;
  const auto found = facts.find(name);
  if (found == facts.end()) return out;
  out.bytes = found->second.bytes;
  out.init = found->second.init.value_or(out.init);
  return out;
}

void SortCalls(Trace* trace) {
  std::sort(trace->calls.begin(), trace->calls.end(), [](const TraceCall& a, const TraceCall& b) {
    return a.tick != b.tick ? a.tick < b.tick : a.function < b.function;
  });
}

// What each kind of function of MakeTrace does in one minute: how many calls.
uint32_t CallsOf(uint32_t kind, uint32_t minute, uint32_t function, std::mt19937* random) {
  const auto chance = [random](uint32_t one_in) { return (*random)() % one_in == 0; };
  const uint32_t period = 5 * (1 + function % 12);
  switch (kind) {
    case 0:  // a timer
      return minute % period == function % period ? 1 : 0;
    case 1:  // now and then
      return chance(10 + 7 * (function % 10)) ? 1 : 0;
    case 2:  // busy for ten minutes, quiet for some eighty
      return (minute + 13 * function) % 90 < 10 ? 1 + (*random)() % 20 : 0;
    case 3:  // in office hours
      return minute % 1440 >= 480 && minute % 1440 < 1080 && chance(3) ? 2 : 0;
    default:  // once a day
      return minute % 1440 == (function * 37) % 1440 ? 1 : 0;
  }
}

}  // namespace

Result<Trace> ParseMinutes(std::string_view calls_csv, std::string_view memory_csv) {
  PULGA_ASSIGN_OR_RETURN(const FactsByName facts, MemoryFacts(memory_csv));
  Trace trace;
  Lines lines(calls_csv);
  std::vector<std::string_view> fields;
  if (!lines.Next(&fields) || fields.size() < 5) return lines.Bad("no column of a minute");
  const size_t columns = fields.size();
  trace.ticks = static_cast<uint32_t>(columns - 4);
  if (trace.ticks > kMostTicks) return lines.Bad("too many minutes");
  while (lines.Next(&fields)) {
    if (fields.size() != columns) return lines.Bad("not as many columns as the first line has");
    if (trace.functions.size() == kTraceFunctions) return lines.Bad("too many functions");
    const auto function = static_cast<uint32_t>(trace.functions.size());
    trace.functions.push_back(Named(fields[2], facts));
    if (fields[3] == "timer") trace.functions.back().trigger = TraceFunction::Trigger::kTimer;
    for (uint32_t tick = 0; tick < trace.ticks; ++tick) {
      const auto calls = ParseUint(fields[tick + 4], UINT32_MAX);
      if (!calls) return lines.Bad("column " + std::to_string(tick + 5) + " is no number of calls");
      if (*calls > 0) trace.calls.push_back({tick, function, static_cast<uint32_t>(*calls)});
    }
  }
  SortCalls(&trace);
  return trace;
}

Result<Trace> ParseMoments(std::string_view calls_csv, std::string_view functions_csv) {
  PULGA_ASSIGN_OR_RETURN(const FactsByName facts, MomentFacts(functions_csv));
  Trace trace;
  trace.tick = std::chrono::seconds(1);
  Lines lines(calls_csv);
  std::map<std::string, uint32_t, std::less<>> numbers;
  std::map<std::pair<uint32_t, uint32_t>, uint32_t> counts;  // tick, function
  std::vector<std::string_view> fields;
  if (!lines.Next(&fields)) return lines.Bad("an empty file");
  while (lines.Next(&fields)) {
    const auto ms = fields.size() == 2 ? ParseUint(fields[1], kMostTicks * 1000ULL) : std::nullopt;
    if (!ms) return lines.Bad("not a name and a number of milliseconds");
    auto found = numbers.find(fields[0]);
    if (found == numbers.end()) {
      if (numbers.size() == kTraceFunctions) return lines.Bad("too many functions");
      found = numbers.emplace(fields[0], numbers.size()).first;
      trace.functions.push_back(Named(fields[0], facts));
    }
    const auto tick = static_cast<uint32_t>(*ms / 1000);
    trace.ticks = std::max(trace.ticks, tick + 1);
    ++counts[{tick, found->second}];
  }
  for (const auto& [key, calls] : counts) trace.calls.push_back({key.first, key.second, calls});
  return trace;
}

Result<Trace> ParseHistory(std::string_view csv) {
  Trace trace;
  Lines lines(csv);
  std::map<std::string, uint32_t, std::less<>> numbers;
  std::optional<uint64_t> first;
  std::vector<std::string_view> fields;
  if (!lines.Next(&fields) || Join({fields.begin(), fields.end()}, ",") != kHistoryHead) {
    return lines.Bad("not \"" + std::string(kHistoryHead) + "\"");
  }
  while (lines.Next(&fields)) {
    if (fields.size() != 6) return lines.Bad("not 6 columns");
    const auto bytes = ParseUint(fields[2], 1ULL << 48);
    const auto init_ms = ParseUint(fields[3], 86400000);
    const auto hour = ParseUint(fields[4], UINT32_MAX);
    const auto minutes = HourOfCalls::Parse(fields[5]);
    if (!bytes || !init_ms || !hour) return lines.Bad("bytes, init_ms or hour is no number");
    if (!minutes.ok()) return lines.Bad(minutes.error().message);
    if (!first) first = *hour;
    if (*hour < *first || *hour - *first >= kMostTicks / HourOfCalls::kMinutes) {
      return lines.Bad("an hour before the first, or too long after it");
    }
    auto found = numbers.find(fields[0]);
    if (found == numbers.end()) {
      if (numbers.size() == kTraceFunctions) return lines.Bad("too many functions");
      found = numbers.emplace(fields[0], numbers.size()).first;
      trace.functions.push_back({std::string(fields[0]), *bytes, milliseconds(*init_ms),
                                 fields[1] == "timer" ? TraceFunction::Trigger::kTimer
                                                      : TraceFunction::Trigger::kCaller});
    }
    const auto begun = static_cast<uint32_t>(*hour - *first) * HourOfCalls::kMinutes;
    trace.ticks = std::max(trace.ticks, begun + HourOfCalls::kMinutes);
    for (uint32_t minute = 0; minute < HourOfCalls::kMinutes; ++minute) {
      const uint32_t calls = minutes->at(minute);
      if (calls > 0) trace.calls.push_back({begun + minute, found->second, calls});
    }
  }
  SortCalls(&trace);
  return trace;
}

Trace MakeTrace(uint32_t seed, uint32_t functions) {
  std::mt19937 random(seed);
  Trace trace;
  trace.ticks = 1440;
  for (uint32_t i = 0; i < functions; ++i) {
    TraceFunction function;
    function.name = "f" + std::to_string(i);
    function.bytes = (8 + random() % 192) << 20;
    if (i % 5 == 0) function.trigger = TraceFunction::Trigger::kTimer;
    trace.functions.push_back(std::move(function));
  }
  for (uint32_t tick = 0; tick < trace.ticks; ++tick) {
    for (uint32_t i = 0; i < functions; ++i) {
      const uint32_t calls = CallsOf(i % 5, tick, i / 5, &random);
      if (calls > 0) trace.calls.push_back({tick, i, calls});
    }
  }
  return trace;
}

}  // namespace pulga
