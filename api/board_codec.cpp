#include "api/board_codec.h"

#include <nlohmann/json.hpp>

#include "runtime/sense/board_files.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json ShareJson(const std::optional<Pressure>& pressure) {
  if (!pressure) return nullptr;
  return {{"some_avg10", pressure->some.avg10},
          {"some_avg60", pressure->some.avg60},
          {"full_avg10", pressure->full.avg10},
          {"full_avg60", pressure->full.avg60}};
}

Json StepJson(double step) { return step == kNoStep ? Json(nullptr) : Json(step); }

Json StepsJson(const PressureSteps& steps) {
  return {{"shrink", StepJson(steps.shrink)},
          {"delay", StepJson(steps.delay)},
          {"shed", StepJson(steps.shed)}};
}

Json FactsJson(const BoardFacts& facts) {
  Json types = Json::array();
  for (const CoreType& type : facts.core_types) {
    types.push_back({{"name", type.name},
                     {"cores", type.cores},
                     {"capacity", type.capacity},
                     {"max_khz", type.max_khz}});
  }
  return {{"class", BoardClassName(facts)},
          {"model", facts.model},
          {"kernel", facts.kernel},
          {"governor", facts.governor},
          {"page_bytes", facts.page_bytes},
          {"memory_bytes", facts.memory_bytes},
          {"swap_bytes", facts.swap_bytes},
          {"zram", facts.zram},
          {"cores", facts.cores},
          {"core_types", std::move(types)},
          {"data_device", facts.data_device}};
}

Json ReadingsJson(const BoardReport& board) {
  const BoardReadings& now = board.readings;
  Json throttled = nullptr;
  if (now.firmware_throttle) throttled = ThrottleText(*now.firmware_throttle);
  return {{"memory_pressure", ShareJson(now.memory)},
          {"io_pressure", ShareJson(now.io)},
          {"cpu_pressure", ShareJson(now.cpu)},
          {"available_bytes", OrNull(now.available_bytes)},
          {"load1", OrNull(now.load1)},
          {"celsius", OrNull(now.celsius)},
          {"hottest", now.hottest},
          {"throttled", std::move(throttled)},
          {"throttle_count", OrNull(now.throttle_count)},
          {"frequency_cap_khz", now.cap_khz},
          {"frequency_full_khz", now.full_khz},
          {"write_ms", OrNull(board.write_ms)},
          {"age_ms", board.read_ms}};
}

}  // namespace

std::string BoardJson(const BoardReport& board) {
  const PressureThresholds& steps = board.thresholds;
  const Json json = {{"level", PressureLevelName(board.verdict.level)},
                     {"why", board.verdict.why},
                     {"level_ms", board.level_ms},
                     {"level_changes", board.level_changes},
                     {"acts", board.acts},
                     {"woken_by_kernel", board.woken},
                     {"facts", FactsJson(board.facts)},
                     {"readings", ReadingsJson(board)},
                     {"steps",
                      {{"memory", StepsJson(steps.memory)},
                       {"io", StepsJson(steps.io)},
                       {"cpu", StepsJson(steps.cpu)},
                       {"available", StepsJson(steps.available)},
                       {"temperature", StepsJson(steps.temperature)},
                       {"write", StepsJson(steps.write)}}}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace pulga
