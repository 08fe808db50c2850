#include "api/cli/board_view.h"

#include <cstdio>

#include "base/text.h"
#include "base/units.h"
#include "runtime/sense/board_files.h"

namespace pulga::cli {
namespace {

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string CoresText(const BoardFacts& facts) {
  std::vector<std::string> types;
  for (const CoreType& type : facts.core_types) {
    std::string text = std::to_string(type.cores) + " x " + (type.name.empty() ? "?" : type.name);
    if (type.max_khz != 0) text += " at " + std::to_string(type.max_khz / 1000) + " MHz";
    if (type.capacity != 0) text += ", capacity " + std::to_string(type.capacity);
    types.push_back(std::move(text));
  }
  return Join(types, "; ");
}

std::string ShareText(const std::optional<Pressure>& pressure) {
  if (!pressure) return "not told: this kernel has no PSI";
  return "some " + Number(pressure->some.avg10) + " %, all " + Number(pressure->full.avg10) +
         " % of 10 s";
}

std::string HeatText(const BoardReadings& now) {
  std::string text = "not told";
  if (now.celsius) text = Number(*now.celsius) + " C in " + now.hottest;
  const std::string throttled = ThrottleText(now.firmware_throttle.value_or(0));
  if (!throttled.empty()) text += ", " + throttled;
  const std::string cap = FrequencyCapText(now);
  if (!cap.empty()) text += ", held at " + cap;
  return text;
}

}  // namespace

std::string BoardTable(const BoardReport& board, const Style& style) {
  const BoardFacts& facts = board.facts;
  const BoardReadings& now = board.readings;
  const PressureThresholds& steps = board.thresholds;
  const auto available = now.available_bytes ? HumanBytes(*now.available_bytes) + " of " +
                                                   HumanBytes(facts.memory_bytes) + " available"
                                             : "not told";
  const std::string swap =
      facts.swap_bytes == 0 ? "none" : HumanBytes(facts.swap_bytes) + (facts.zram ? ", zram" : "");
  Table table({"BOARD", "NOW", "SHRINK,DELAY,SHED AT"});
  const auto add = [&](const char* what, const std::string& text, const std::string& at) {
    table.Add({{what}, {text}, {at}});
  };
  add("what it is",
      (facts.model.empty() ? "" : facts.model + ", ") + std::string(BoardClassName(facts)) +
          ", Linux " + facts.kernel,
      "");
  add("processors", CoresText(facts) + (facts.governor.empty() ? "" : ", " + facts.governor), "");
  add("pages", HumanBytes(facts.page_bytes), "");
  add("swap", swap, "");
  add("memory", available, FormatSteps(steps.available) + " %");
  add("memory pressure", ShareText(now.memory), FormatSteps(steps.memory) + " %");
  add("disk pressure", ShareText(now.io), FormatSteps(steps.io) + " %");
  add("processor pressure", ShareText(now.cpu), FormatSteps(steps.cpu) + " %");
  add("temperature", HeatText(now), FormatSteps(steps.temperature) + " C");
  const PressureLevel level = board.verdict.level;
  const std::string name(PressureLevelName(level));
  return "\n" + table.Render(style) + "pressure now: " +
         style.Paint(level == PressureLevel::kCalm ? Colour::kGreen : Colour::kYellow, name) +
         (board.verdict.why.empty() ? "" : ", " + board.verdict.why) + "\n";
}

}  // namespace pulga::cli
