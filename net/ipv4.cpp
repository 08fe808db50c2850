#include "net/ipv4.h"

#include <algorithm>

#include "base/text.h"

namespace pulga {
namespace {

constexpr Ipv4Range kNever[] = {{{0x00000000}, 8}, {{0x7F000000}, 8}, {{0xE0000000}, 3}};
constexpr Ipv4Range kNotPublic[] = {
    {{0x0A000000}, 8},  {{0x64400000}, 10}, {{0xA9FE0000}, 16}, {{0xAC100000}, 12},
    {{0xC0000000}, 24}, {{0xC0A80000}, 16}, {{0xC6120000}, 15},
};

bool IsInAny(Ipv4 address, const Ipv4Range* begin, const Ipv4Range* end) {
  return std::any_of(begin, end, [&](const Ipv4Range& range) { return range.Contains(address); });
}

}  // namespace

std::optional<Ipv4> ParseIpv4(std::string_view text) {
  const auto parts = Split(text, '.');
  if (parts.size() != 4) return std::nullopt;
  Ipv4 out;
  for (std::string_view part : parts) {
    const auto number = ParseUint(part, 255);
    if (!number || part.size() > 3 || (part.size() > 1 && part[0] == '0')) return std::nullopt;
    out.value = out.value << 8 | static_cast<uint32_t>(*number);
  }
  return out;
}

std::optional<Ipv4Range> ParseIpv4Range(std::string_view text) {
  const size_t slash = text.find('/');
  const auto base = ParseIpv4(text.substr(0, slash));
  if (!base) return std::nullopt;
  Ipv4Range out{*base, 32};
  if (slash == std::string_view::npos) return out;
  const auto bits = ParseUint(text.substr(slash + 1), 32);
  if (!bits || text.size() - slash > 3) return std::nullopt;
  out.bits = static_cast<uint8_t>(*bits);
  if ((out.base.value & ~out.mask()) != 0) return std::nullopt;
  return out;
}

std::string FormatIpv4(Ipv4 address) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) {
    out += std::to_string(address.value >> shift & 255);
    if (shift != 0) out += '.';
  }
  return out;
}

std::string FormatIpv4Range(const Ipv4Range& range) {
  return FormatIpv4(range.base) + "/" + std::to_string(range.bits);
}

bool IsNeverReachable(Ipv4 address) {
  return IsInAny(address, std::begin(kNever), std::end(kNever));
}

bool IsNeverReachable(const Ipv4Range& range) {
  return std::any_of(std::begin(kNever), std::end(kNever), [&](const Ipv4Range& never) {
    return never.bits <= range.bits && never.Contains(range.base);
  });
}

bool IsPublic(Ipv4 address) {
  return !IsNeverReachable(address) &&
         !IsInAny(address, std::begin(kNotPublic), std::end(kNotPublic));
}

}  // namespace pulga
