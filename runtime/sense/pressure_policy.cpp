#include "runtime/sense/pressure_policy.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/text.h"
#include "base/units.h"
#include "runtime/sense/board_files.h"

namespace pulga {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr uint64_t kFewestWrites = 4;  // between two looks, to say how long one takes
// How far below its step a reading has to be before the level may fall, in shares of the step.
constexpr double kShareSlack = 0.2;
constexpr double kMemorySlack = 0.25;
constexpr double kHeatSlack = 0.04;  // 3 degrees
constexpr double kWriteSlack = 0.25;

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  std::string out = text;
  if (out.ends_with(".0")) out.resize(out.size() - 2);
  return out;
}

PressureLevel LevelOf(double value, const PressureSteps& steps, double slack) {
  const auto reached = [&](double step) {
    return step != kNoStep && value >= step - slack * std::abs(step);
  };
  if (reached(steps.shed)) return PressureLevel::kShed;
  if (reached(steps.delay)) return PressureLevel::kDelay;
  if (reached(steps.shrink)) return PressureLevel::kShrink;
  return PressureLevel::kCalm;
}

double StepOf(const PressureSteps& steps, PressureLevel level) {
  if (level == PressureLevel::kShed) return steps.shed;
  return level == PressureLevel::kDelay ? steps.delay : steps.shrink;
}

// The step that `level` was reached by, for people.
std::string AtStep(const PressureSteps& steps, PressureLevel level, const char* unit) {
  if (level == PressureLevel::kCalm) return "";
  return " (" + std::string(PressureLevelName(level)) + " at " + Number(StepOf(steps, level)) +
         unit + ")";
}

// Steps of what is worse the less there is, as steps of its negative.
PressureSteps Negated(const PressureSteps& steps) {
  const auto negated = [](double step) { return step == kNoStep ? kNoStep : -step; };
  return {negated(steps.shrink), negated(steps.delay), negated(steps.shed)};
}

// Without PSI: the share of runnable tasks that has no processor.
double WaitingShare(double load, uint32_t cores) {
  const auto have = static_cast<double>(std::max<uint32_t>(1, cores));
  return load <= have ? 0 : 100 * (load - have) / load;
}

// The lowest of the trip points of this type; kNoStep without one.
double LowestTrip(const BoardFacts& facts, std::string_view type) {
  double lowest = kNoStep;
  for (const ThermalZone& zone : facts.processor_zones) {
    for (const TripPoint& trip : zone.trips) {
      if (trip.type == type && trip.celsius > 40) lowest = std::min(lowest, trip.celsius);
    }
  }
  return lowest;
}

bool IsBoard(const BoardFacts& facts) { return !facts.model.empty(); }

PressureSteps AvailableFor(const BoardFacts& facts) {
  if (facts.memory_bytes <= kGiB) return {12, 8, 4};
  if (facts.memory_bytes <= 4 * kGiB) return {8, 5, 3};
  return {5, 3, 1.5};
}

// Where the kernel begins to slow the processor down we begin a little earlier.
PressureSteps TemperatureFor(const BoardFacts& facts) {
  const double passive = LowestTrip(facts, "passive");
  const double critical = LowestTrip(facts, "critical");
  PressureSteps steps;
  steps.delay = std::min(IsBoard(facts) ? 75.0 : 95.0, passive);
  steps.shed = std::min(IsBoard(facts) ? 82.0 : 103.0, critical - 8);
  steps.delay = std::min(steps.delay, steps.shed);
  return steps;
}

}  // namespace

Result<PressureSteps> ParseSteps(std::string_view text, double most, StepOrder order) {
  const auto refuse = [&](const std::string& what) {
    return Error{Code::kInvalidArgument, 0,
                 "\"" + Printable(text, 40) + "\" " + what +
                     ": shrink,delay,shed, each a number above 0 and up to " + Number(most) +
                     " or off"};
  };
  const auto parts = Split(text, ',');
  if (parts.size() != 3) return refuse("is not three steps");
  double steps[3];
  const double* last = nullptr;
  for (size_t i = 0; i < 3; ++i) {
    const std::string part(Trim(parts[i]));
    steps[i] = kNoStep;
    if (part == "off") continue;
    if (part.empty() || part.size() > 12 ||
        part.find_first_not_of("0123456789.") != std::string::npos) {
      return refuse("has a step that is no number");
    }
    char* end = nullptr;
    steps[i] = std::strtod(part.c_str(), &end);
    if (*end != '\0' || steps[i] <= 0 || steps[i] > most) return refuse("has a step out of range");
    const bool wrong =
        last != nullptr && (order == StepOrder::kRising ? steps[i] < *last : steps[i] > *last);
    if (wrong) return refuse("has a step that comes before the one of the level below");
    last = &steps[i];
  }
  return PressureSteps{steps[0], steps[1], steps[2]};
}

std::string FormatSteps(const PressureSteps& steps) {
  std::vector<std::string> parts;
  for (const double step : {steps.shrink, steps.delay, steps.shed}) {
    parts.push_back(step == kNoStep ? "off" : Number(step));
  }
  return Join(parts, ",");
}

std::string_view BoardClassName(const BoardFacts& facts) {
  if (facts.memory_bytes <= kGiB) return "small board";
  return IsBoard(facts) ? "board" : "PC";
}

PressureThresholds ThresholdsFor(const BoardFacts& facts, const PressureWishes& wishes) {
  PressureThresholds out;
  out.memory = wishes.memory.value_or(PressureSteps{10, 25, 50});
  out.io = wishes.io.value_or(PressureSteps{kNoStep, 60, kNoStep});
  // Busy processors are what a board is for, and calls that wait are bounded by their queue.
  out.cpu = wishes.cpu.value_or(PressureSteps{});
  out.available = wishes.available.value_or(AvailableFor(facts));
  out.temperature = wishes.temperature.value_or(TemperatureFor(facts));
  out.write = wishes.write.value_or(PressureSteps{kNoStep, 500, kNoStep});
  return out;
}

PressurePolicy::PressurePolicy(BoardFacts facts, PressureThresholds thresholds, Duration hold)
    : facts_(std::move(facts)), thresholds_(thresholds), hold_(hold) {}

void PressurePolicy::AddShares(const BoardReadings& readings, std::vector<Signal>* out) const {
  const auto add = [&](const std::string& what, double share, const PressureSteps& steps) {
    const PressureLevel asks = LevelOf(share, steps, 0);
    out->push_back({what + Number(share) + " % of the time" + AtStep(steps, asks, " %"), asks,
                    LevelOf(share, steps, kShareSlack)});
  };
  if (readings.io) {
    add("disk: all tasks waited for it ", readings.io->full.avg10, thresholds_.io);
  }
  if (readings.cpu) {
    add("processors: tasks waited for one ", readings.cpu->some.avg60, thresholds_.cpu);
  } else if (readings.load1) {
    add("processors (by the load, this kernel has no PSI): tasks waited for one ",
        WaitingShare(*readings.load1, facts_.cores), thresholds_.cpu);
  }
}

// The kernel counts those too who wait at the limit of their own cgroup, while the board has
// plenty: more than `shrink` only where little is available.
void PressurePolicy::AddMemoryShare(const BoardReadings& readings, std::vector<Signal>* out) const {
  if (!readings.memory) return;
  const double share = readings.memory->some.avg10;
  const auto steps_with = [&](double slack) {
    PressureSteps reached = thresholds_.memory;
    if (!IsShort(readings, slack)) reached.delay = reached.shed = kNoStep;
    return reached;
  };
  const PressureLevel asks = LevelOf(share, steps_with(0), 0);
  const bool held = LevelOf(share, thresholds_.memory, 0) > asks;
  out->push_back({"memory: tasks waited for it " + Number(share) + " % of the time" +
                      AtStep(thresholds_.memory, asks, " %") +
                      (held ? ", more is done only when little is available" : ""),
                  asks, LevelOf(share, steps_with(kMemorySlack), kShareSlack)});
}

// Is less available than at the first step of `pressure-available`?
bool PressurePolicy::IsShort(const BoardReadings& readings, double slack) const {
  if (!readings.available_bytes || facts_.memory_bytes == 0) return false;
  const double share = 100 * static_cast<double>(*readings.available_bytes) /
                       static_cast<double>(facts_.memory_bytes);
  return LevelOf(-share, Negated(thresholds_.available), slack) != PressureLevel::kCalm;
}

void PressurePolicy::AddMemory(const BoardReadings& readings, std::vector<Signal>* out) const {
  if (!readings.available_bytes || facts_.memory_bytes == 0) return;
  const double share = 100 * static_cast<double>(*readings.available_bytes) /
                       static_cast<double>(facts_.memory_bytes);
  const PressureSteps steps = Negated(thresholds_.available);
  const PressureLevel asks = LevelOf(-share, steps, 0);
  out->push_back({"memory: " + HumanBytes(*readings.available_bytes) + " available, " +
                      Number(share) + " %" + AtStep(thresholds_.available, asks, " %"),
                  asks, LevelOf(-share, steps, kMemorySlack)});
}

void PressurePolicy::AddHeat(const BoardReadings& readings, std::vector<Signal>* out) const {
  const PressureSteps& steps = thresholds_.temperature;
  if (!steps.any()) return;
  const std::string cap = FrequencyCapText(readings);
  const std::string held = cap.empty() ? "" : ", the processor is held at " + cap;
  if (readings.celsius) {
    const PressureLevel asks = LevelOf(*readings.celsius, steps, 0);
    out->push_back({"temperature: " + Number(*readings.celsius) + " C in " + readings.hottest +
                        AtStep(steps, asks, " C") + held,
                    asks, LevelOf(*readings.celsius, steps, kHeatSlack)});
  }
  if (const uint32_t bits = readings.firmware_throttle.value_or(0) & 0xF; bits != 0) {
    out->push_back({"the firmware says: " + ThrottleText(bits) + held, PressureLevel::kDelay,
                    PressureLevel::kDelay});
  }
  const bool counted = before_ && before_->throttle_count && readings.throttle_count;
  if (counted && *readings.throttle_count > *before_->throttle_count) {
    out->push_back({"the processor slowed itself down for its temperature" + held,
                    PressureLevel::kDelay, PressureLevel::kDelay});
  }
}

std::vector<PressurePolicy::Signal> PressurePolicy::Signals(const BoardReadings& readings) const {
  std::vector<Signal> signals;
  AddMemoryShare(readings, &signals);
  AddShares(readings, &signals);
  AddMemory(readings, &signals);
  AddHeat(readings, &signals);
  if (write_ms_) {
    const PressureLevel asks = LevelOf(*write_ms_, thresholds_.write, 0);
    signals.push_back({"disk: a write takes " + Number(*write_ms_) + " ms" +
                           AtStep(thresholds_.write, asks, " ms"),
                       asks, LevelOf(*write_ms_, thresholds_.write, kWriteSlack)});
  }
  return signals;
}

const PressureVerdict& PressurePolicy::Look(const BoardReadings& readings, TimePoint now) {
  write_ms_.reset();
  if (before_ && before_->disk && readings.disk &&
      readings.disk->writes >= before_->disk->writes + kFewestWrites &&
      readings.disk->write_ms >= before_->disk->write_ms) {
    write_ms_ = static_cast<double>(readings.disk->write_ms - before_->disk->write_ms) /
                static_cast<double>(readings.disk->writes - before_->disk->writes);
  }
  const std::vector<Signal> signals = Signals(readings);
  before_ = readings;
  Signal worst;
  PressureLevel keeps = PressureLevel::kCalm;
  for (const Signal& signal : signals) {
    if (signal.asks > worst.asks) worst = signal;
    keeps = std::max(keeps, signal.keeps);
  }
  if (worst.asks >= verdict_.level) {
    if (worst.asks != PressureLevel::kCalm) verdict_.why = worst.text;
    verdict_.level = worst.asks;
    easy_since_.reset();
    return verdict_;
  }
  if (keeps >= verdict_.level) {
    easy_since_.reset();
    return verdict_;
  }
  if (!easy_since_) easy_since_ = now;
  if (now - *easy_since_ < hold_) return verdict_;
  easy_since_.reset();
  verdict_.level = std::max(keeps, worst.asks);
  for (const Signal& signal : signals) {
    if (verdict_.level != PressureLevel::kCalm && signal.keeps == keeps) verdict_.why = signal.text;
  }
  if (verdict_.level == PressureLevel::kCalm) verdict_.why.clear();
  return verdict_;
}

std::string FrequencyCapText(const BoardReadings& readings) {
  if (readings.cap_khz == 0 || readings.cap_khz >= readings.full_khz) return "";
  return std::to_string(readings.cap_khz / 1000) + " of " +
         std::to_string(readings.full_khz / 1000) + " MHz";
}

}  // namespace pulga
