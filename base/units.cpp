#include "base/units.h"

#include <algorithm>
#include <cstdio>

#include "base/text.h"

namespace pulga {
namespace {

struct Suffix {
  std::string_view text;
  uint64_t factor;
};

constexpr Suffix kByteSuffixes[] = {
    {"Ki", 1ULL << 10}, {"Mi", 1ULL << 20}, {"Gi", 1ULL << 30}, {"Ti", 1ULL << 40},   {"k", 1000},
    {"K", 1000},        {"M", 1000000},     {"G", 1000000000},  {"T", 1000000000000}, {"", 1},
};
constexpr Suffix kDurationSuffixes[] = {
    {"ns", 1},
    {"us", 1000},
    {"ms", 1000000},
    {"s", 1000000000},
    {"m", 60ULL * 1000000000},
    {"h", 3600ULL * 1000000000},
};

Error BadQuantity(std::string_view kind, std::string_view text, std::string_view example) {
  return Error{Code::kInvalidArgument, 0,
               "not a " + std::string(kind) + ": \"" + Printable(text, 40) + "\" (write it like " +
                   std::string(example) + ")"};
}

size_t NumberLength(std::string_view text) {
  size_t n = 0;
  while (n < text.size() && ((text[n] >= '0' && text[n] <= '9') || text[n] == '.')) ++n;
  return n;
}

// "1.5" * factor, exactly; nothing when it is not a whole number or does not fit.
std::optional<uint64_t> Scaled(std::string_view number, uint64_t factor) {
  const size_t dot = number.find('.');
  const auto whole = ParseUint(number.substr(0, dot));
  if (!whole || *whole > UINT64_MAX / factor) return std::nullopt;
  uint64_t value = *whole * factor;
  if (dot == std::string_view::npos) return value;
  std::string_view fraction = number.substr(dot + 1);
  const auto part = ParseUint(fraction, 999999999);
  if (!part || fraction.size() > 9) return std::nullopt;
  uint64_t scale = 1;
  for (size_t i = 0; i < fraction.size(); ++i) scale *= 10;
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(*part) * factor;
  if (product % scale != 0) return std::nullopt;
  const auto extra = static_cast<uint64_t>(product / scale);
  if (value > UINT64_MAX - extra) return std::nullopt;
  return value + extra;
}

bool IsPlainNumber(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

template <size_t N>
const Suffix* FindSuffix(const Suffix (&table)[N], std::string_view text) {
  for (const Suffix& s : table) {
    if (s.text == text) return &s;
  }
  return nullptr;
}

}  // namespace

Result<uint64_t> ParseBytes(std::string_view text) {
  const size_t n = NumberLength(text);
  const Suffix* suffix = FindSuffix(kByteSuffixes, text.substr(n));
  const auto value = suffix ? Scaled(text.substr(0, n), suffix->factor) : std::nullopt;
  if (!value || *value > static_cast<uint64_t>(INT64_MAX)) {
    return BadQuantity("size", text, "64Mi, 20M or 1Gi");
  }
  return *value;
}

std::string FormatBytes(uint64_t bytes) {
  if (bytes != 0) {
    for (const auto& [unit, shift] :
         {std::pair("Gi", 30), std::pair("Mi", 20), std::pair("Ki", 10)}) {
      if (bytes % (1ULL << shift) == 0) return std::to_string(bytes >> shift) + unit;
    }
  }
  return std::to_string(bytes);
}

std::string HumanBytes(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  char out[32];
  snprintf(out, sizeof out, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return out;
}

Result<uint32_t> ParseCpuMillis(std::string_view text) {
  const size_t n = NumberLength(text);
  const std::string_view suffix = text.substr(n);
  std::optional<uint64_t> millis;
  if (suffix == "m") millis = Scaled(text.substr(0, n), 1);
  if (suffix.empty()) millis = Scaled(text.substr(0, n), 1000);
  if (!millis || *millis > 1024 * 1000) return BadQuantity("cpu amount", text, "500m or 2");
  return static_cast<uint32_t>(*millis);
}

std::string FormatCpuMillis(uint32_t millis) {
  if (millis % 1000 == 0) return std::to_string(millis / 1000);
  return std::to_string(millis) + "m";
}

Result<Duration> ParseDuration(std::string_view text) {
  if (text == "0") return Duration::zero();
  uint64_t total = 0;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t n = NumberLength(rest);
    size_t unit_end = n;
    while (unit_end < rest.size() && rest[unit_end] >= 'a' && rest[unit_end] <= 'z') ++unit_end;
    const Suffix* suffix = FindSuffix(kDurationSuffixes, rest.substr(n, unit_end - n));
    const auto part = suffix ? Scaled(rest.substr(0, n), suffix->factor) : std::nullopt;
    const bool long_number = suffix && !part && IsPlainNumber(rest.substr(0, n));
    if (long_number || (part && std::max(*part, total) > INT64_MAX / 4)) {
      return Error{Code::kTooLarge, 0, "\"" + Printable(text, 40) + "\" is too long a time"};
    }
    if (!part) break;
    total += *part;
    rest.remove_prefix(unit_end);
  }
  if (text.empty() || !rest.empty()) return BadQuantity("duration", text, "30s, 250ms or 1m30s");
  return Duration(static_cast<int64_t>(total));
}

std::string FormatDuration(Duration duration) {
  const int64_t ns = duration.count();
  if (ns % 1000000 != 0) return std::to_string(ns) + "ns";
  const int64_t ms = ns / 1000000;
  if (ms % 1000 != 0) return std::to_string(ms) + "ms";
  const int64_t s = ms / 1000;
  std::string out;
  if (s >= 3600) out += std::to_string(s / 3600) + "h";
  if (s / 60 % 60 != 0) out += std::to_string(s / 60 % 60) + "m";
  if (s % 60 != 0 || out.empty()) out += std::to_string(s % 60) + "s";
  return out;
}

}  // namespace pulga
