// PressurePolicy: what the board's readings ask of us, as one level and one sentence. Pure: time
// comes in as a value. A level rises at once (the kernel's averages are slow enough) and falls when
// every reading has been well below its step for `hold`.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "runtime/sense/pressure.h"
#include "runtime/sense/readings.h"

namespace pulga {

inline constexpr double kNoStep = std::numeric_limits<double>::infinity();

// From where on a reading asks for a level; kNoStep: it never does.
struct PressureSteps {
  double shrink = kNoStep;
  double delay = kNoStep;
  double shed = kNoStep;
  bool operator==(const PressureSteps&) const = default;
  bool any() const { return shrink != kNoStep || delay != kNoStep || shed != kNoStep; }
};

struct PressureThresholds {
  PressureSteps memory;       // percent of 10 s in which some task waited for memory; delay and
                              // shed only below a step of `available`
  PressureSteps io;           // percent of 10 s in which all tasks waited for a disk
  PressureSteps cpu;          // percent of 60 s in which some task waited for a processor
  PressureSteps available;    // percent of the memory; the less, the worse
  PressureSteps temperature;  // degrees Celsius
  PressureSteps write;        // milliseconds a write to the data's device takes
};

// What the configuration says; nothing: by the board's class.
struct PressureWishes {
  std::optional<PressureSteps> memory, io, cpu, available, temperature, write;
  bool operator==(const PressureWishes&) const = default;
};

// "10,25,50", each a number up to `most` or "off", in the order of the levels; `falling`: the less,
// the worse.
enum class StepOrder : uint8_t { kRising, kFalling };
Result<PressureSteps> ParseSteps(std::string_view text, double most, StepOrder order);
std::string FormatSteps(const PressureSteps& steps);  // "10,25,off"

// A small board (up to 1 GiB), a board (device tree), a PC.
std::string_view BoardClassName(const BoardFacts& facts);
PressureThresholds ThresholdsFor(const BoardFacts& facts, const PressureWishes& wishes);

struct PressureVerdict {
  PressureLevel level = PressureLevel::kCalm;
  std::string why;  // "memory: ...": what asks for this level, or for the one it falls from
};

class PressurePolicy {
 public:
  PressurePolicy(BoardFacts facts, PressureThresholds thresholds, Duration hold);

  // `now` never goes back. The verdict stays until the next look.
  const PressureVerdict& Look(const BoardReadings& readings, TimePoint now);
  const PressureVerdict& verdict() const { return verdict_; }
  const PressureThresholds& thresholds() const { return thresholds_; }
  // How long a write took lately; nothing: too few to tell.
  std::optional<double> write_ms() const { return write_ms_; }

 private:
  struct Signal {
    std::string text;
    PressureLevel asks = PressureLevel::kCalm;   // by its steps
    PressureLevel keeps = PressureLevel::kCalm;  // by steps a little easier, for falling
  };
  std::vector<Signal> Signals(const BoardReadings& readings) const;
  bool IsShort(const BoardReadings& readings, double slack) const;
  void AddMemoryShare(const BoardReadings& readings, std::vector<Signal>* out) const;
  void AddShares(const BoardReadings& readings, std::vector<Signal>* out) const;
  void AddMemory(const BoardReadings& readings, std::vector<Signal>* out) const;
  void AddHeat(const BoardReadings& readings, std::vector<Signal>* out) const;

  BoardFacts facts_;
  PressureThresholds thresholds_;
  Duration hold_;
  PressureVerdict verdict_;
  std::optional<TimePoint> easy_since_;  // of this level
  std::optional<BoardReadings> before_;
  std::optional<double> write_ms_;
};

// "1.6 of 2.4 GHz", "" when not held down.
std::string FrequencyCapText(const BoardReadings& readings);

}  // namespace pulga
