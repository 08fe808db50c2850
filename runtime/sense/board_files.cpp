#include "runtime/sense/board_files.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kMostProcessors = 1024;
constexpr size_t kMostNameBytes = 100;
constexpr double kColdestCelsius = -60;
constexpr double kHottestCelsius = 200;

// Digits with at most one point; strtod would take "nan", "inf" and signs as well.
std::optional<double> ParseDecimal(std::string_view text) {
  if (text.empty() || text.size() > 20) return std::nullopt;
  if (text.find_first_not_of("0123456789.") != std::string_view::npos) return std::nullopt;
  if (std::count(text.begin(), text.end(), '.') > 1 || text == ".") return std::nullopt;
  return std::strtod(std::string(text).c_str(), nullptr);
}

std::vector<std::string_view> Words(std::string_view line) {
  std::vector<std::string_view> words;
  for (const std::string_view word : Split(line, ' ')) {
    if (!word.empty()) words.push_back(word);
  }
  return words;
}

std::string_view FirstLine(std::string_view text) {
  return Trim(text.substr(0, std::min(text.find('\n'), text.size())));
}

std::optional<double> Percent(std::string_view word, std::string_view name) {
  if (!word.starts_with(name)) return std::nullopt;
  const auto value = ParseDecimal(word.substr(name.size()));
  return value && *value <= 100 ? value : std::nullopt;
}

std::optional<PressureShare> ParseShare(const std::vector<std::string_view>& words) {
  if (words.size() < 3) return std::nullopt;
  const auto avg10 = Percent(words[1], "avg10=");
  const auto avg60 = Percent(words[2], "avg60=");
  if (!avg10 || !avg60) return std::nullopt;
  return PressureShare{*avg10, *avg60};
}

struct ArmPart {
  std::string_view part;
  std::string_view name;
};
// Implementer 0x41, arm. Those of boards people run this on.
constexpr ArmPart kArmParts[] = {
    {"0xb76", "ARM1176"},    {"0xc05", "Cortex-A5"},   {"0xc07", "Cortex-A7"},
    {"0xc08", "Cortex-A8"},  {"0xc09", "Cortex-A9"},   {"0xc0d", "Cortex-A17"},
    {"0xc0f", "Cortex-A15"}, {"0xd01", "Cortex-A32"},  {"0xd03", "Cortex-A53"},
    {"0xd04", "Cortex-A35"}, {"0xd05", "Cortex-A55"},  {"0xd07", "Cortex-A57"},
    {"0xd08", "Cortex-A72"}, {"0xd09", "Cortex-A73"},  {"0xd0a", "Cortex-A75"},
    {"0xd0b", "Cortex-A76"}, {"0xd0c", "Neoverse-N1"}, {"0xd0d", "Cortex-A77"},
    {"0xd41", "Cortex-A78"}, {"0xd44", "Cortex-X1"},   {"0xd46", "Cortex-A510"},
    {"0xd47", "Cortex-A710"}};

std::string PartName(std::string_view implementer, std::string_view part) {
  if (implementer == "0x41") {
    for (const ArmPart& known : kArmParts) {
      if (known.part == part) return std::string(known.name);
    }
  }
  return "part " + Printable(part, 10) + " of " + Printable(implementer, 10);
}

}  // namespace

std::optional<Pressure> ParsePressure(std::string_view text) {
  Pressure pressure;
  bool some = false;
  for (const std::string_view line : Split(text, '\n')) {
    const auto words = Words(line);
    if (words.empty()) continue;
    const auto share = ParseShare(words);
    if (!share) return std::nullopt;
    if (words[0] == "some") {
      pressure.some = *share;
      some = true;
    } else if (words[0] == "full") {
      pressure.full = *share;
    }
  }
  return some ? std::optional(pressure) : std::nullopt;
}

std::optional<uint64_t> ParseKib(std::string_view text, std::string_view name) {
  for (const std::string_view line : Split(text, '\n')) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || line.substr(0, colon) != name) continue;
    const auto words = Words(line.substr(colon + 1));
    if (words.size() != 2 || words[1] != "kB") return std::nullopt;
    const auto kib = ParseUint(words[0], UINT64_MAX / 1024);
    if (!kib) return std::nullopt;
    return *kib * 1024;
  }
  return std::nullopt;
}

std::optional<double> ParseLoad(std::string_view loadavg) {
  return ParseDecimal(loadavg.substr(0, std::min(loadavg.find(' '), loadavg.size())));
}

std::optional<double> ParseMilliCelsius(std::string_view text) {
  std::string_view line = FirstLine(text);
  const bool negative = line.starts_with('-');
  if (negative) line.remove_prefix(1);
  const auto milli = ParseUint(line, 1'000'000);
  if (!milli) return std::nullopt;
  const double celsius = (negative ? -1 : 1) * static_cast<double>(*milli) / 1000;
  if (celsius < kColdestCelsius || celsius > kHottestCelsius) return std::nullopt;
  return celsius;
}

std::optional<uint32_t> ParseThrottled(std::string_view text) {
  std::string_view digits = FirstLine(text);
  if (digits.starts_with("0x")) digits.remove_prefix(2);
  if (digits.empty() || digits.size() > 8) return std::nullopt;
  uint32_t bits = 0;
  for (const char c : digits) {
    const size_t value = std::string_view("0123456789abcdef").find(c);
    if (value == std::string_view::npos) return std::nullopt;
    bits = bits * 16 + static_cast<uint32_t>(value);
  }
  return bits;
}

std::optional<uint64_t> ParseNumber(std::string_view text) { return ParseUint(FirstLine(text)); }

std::optional<DiskCounters> ParseDiskStat(std::string_view text) {
  const auto words = Words(FirstLine(text));
  if (words.size() < 8) return std::nullopt;
  const auto writes = ParseUint(words[4]);
  const auto write_ms = ParseUint(words[7]);
  if (!writes || !write_ms) return std::nullopt;
  return DiskCounters{*writes, *write_ms};
}

std::string ParseModel(std::string_view text) {
  text = text.substr(0, std::min(text.find('\0'), text.size()));
  return Printable(FirstLine(text), kMostNameBytes);
}

std::vector<std::string> ParseProcessors(std::string_view cpuinfo) {
  std::vector<std::string> names;
  std::string_view implementer;
  for (const std::string_view line : Split(cpuinfo, '\n')) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string_view key = Trim(line.substr(0, colon));
    const std::string_view value = Trim(line.substr(colon + 1));
    if (key == "processor" && ParseUint(value)) {  // 32-bit arm also has "Processor : ARMv7"
      if (names.size() == kMostProcessors) break;
      names.emplace_back();
    }
    if (names.empty()) continue;
    if (key == "CPU implementer") implementer = value;
    if (key == "CPU part") names.back() = PartName(implementer, value);
    if (key == "model name" && names.back().empty()) {
      names.back() = Printable(value, kMostNameBytes);
    }
  }
  return names;
}

bool SwapsToZram(std::string_view swaps) {
  for (const std::string_view line : Split(swaps, '\n')) {
    if (line.starts_with("/dev/zram") || line.starts_with("/zram")) return true;
  }
  return false;
}

bool IsProcessorZone(std::string_view type) {
  const std::string name = ToLower(type);
  for (const char* part : {"cpu", "soc", "x86_pkg", "core", "package", "cluster"}) {
    if (name.find(part) != std::string::npos) return true;
  }
  return false;
}

std::string ThrottleText(uint32_t bits) {
  std::vector<std::string> parts;
  if ((bits & 1) != 0) parts.emplace_back("undervoltage");
  if ((bits & 2) != 0) parts.emplace_back("frequency capped");
  if ((bits & 4) != 0) parts.emplace_back("slowed down");
  if ((bits & 8) != 0) parts.emplace_back("at the soft temperature limit");
  return Join(parts, ", ");
}

}  // namespace pulga
