#include "sandbox/network_rule.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/text.h"
#include "net/service_name.h"

namespace pulga {
namespace {

Error Bad(std::string_view text, const std::string& why) {
  return Error{Code::kInvalidArgument, 0, "\"" + Printable(text, 80) + "\": " + why};
}

unsigned WidthOf(PeerKind peer) { return peer == PeerKind::kIpv6 ? 128 : 32; }

// Are all bits behind the prefix zero?
bool IsPrefix(const NetworkRule& rule) {
  const unsigned bytes = WidthOf(rule.peer) / 8;
  for (unsigned i = 0; i < rule.address.size(); ++i) {
    const unsigned kept = std::clamp<int>(rule.prefix_bits - static_cast<int>(i * 8), 0, 8);
    const auto rest = static_cast<uint8_t>(0xff >> kept);
    if (i >= bytes ? rule.address[i] != 0 : (rule.address[i] & rest) != 0) return false;
  }
  return true;
}

bool IsMapped(const NetworkRule& rule) {
  constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return rule.peer == PeerKind::kIpv6 && rule.prefix_bits >= 96 &&
         memcmp(rule.address.data(), kMapped, sizeof kMapped) == 0;
}

bool IsDigits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// A name whose last label is a number would be read as an address by many a resolver.
bool IsHostName(std::string_view name) {
  if (name.empty() || name.size() > 253) return false;
  const auto labels = Split(name, '.');
  return std::all_of(labels.begin(), labels.end(), IsDnsLabel) && !IsDigits(labels.back());
}

std::string AddressText(const NetworkRule& rule) {
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(rule.peer == PeerKind::kIpv6 ? AF_INET6 : AF_INET, rule.address.data(), text,
            sizeof text);
  return text;
}

void ClearBehindPrefix(NetworkRule& rule) {
  for (unsigned i = 0; i < rule.address.size(); ++i) {
    const unsigned kept = std::clamp<int>(rule.prefix_bits - static_cast<int>(i * 8), 0, 8);
    rule.address[i] &= static_cast<uint8_t>(0xff00 >> kept);
  }
}

std::string WithPrefix(const NetworkRule& rule) {
  if (rule.prefix_bits == WidthOf(rule.peer)) return AddressText(rule);
  return AddressText(rule) + "/" + std::to_string(rule.prefix_bits);
}

// "203.0.113.0/24" or, without its brackets, "2001:db8::/32".
Status ParseAddress(std::string_view text, std::string_view entry, NetworkRule& rule) {
  const size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  const int family = rule.peer == PeerKind::kIpv6 ? AF_INET6 : AF_INET;
  if (inet_pton(family, address.c_str(), rule.address.data()) != 1) {
    return Bad(entry, "\"" + Printable(address, 60) + "\" is no " +
                          (family == AF_INET6 ? "IPv6" : "IPv4") + " address");
  }
  const unsigned width = WidthOf(rule.peer);
  const auto bits =
      slash == std::string_view::npos ? width : ParseUint(text.substr(slash + 1), width);
  if (!bits) return Bad(entry, "a prefix is 0 to " + std::to_string(width) + " bits long");
  rule.prefix_bits = static_cast<uint8_t>(*bits);
  if (!IsPrefix(rule)) {
    NetworkRule meant = rule;
    ClearBehindPrefix(meant);
    return Bad(entry, "the address has bits behind its prefix; write " + WithPrefix(meant));
  }
  if (IsMapped(rule)) return Bad(entry, "write the IPv4 address itself");
  return OkStatus();
}

Status ParsePorts(std::string_view text, std::string_view entry, NetworkRule& rule) {
  const size_t dash = text.find('-');
  const auto first = ParseUint(text.substr(0, dash), 65535);
  const auto last =
      dash == std::string_view::npos ? first : ParseUint(text.substr(dash + 1), 65535);
  if (!first || !last || *first == 0 || *last < *first) {
    return Bad(entry, "a port is 1 to 65535, a range \"8000-8080\"");
  }
  rule.first_port = static_cast<uint16_t>(*first);
  rule.last_port = static_cast<uint16_t>(*last);
  return OkStatus();
}

Status ParsePeer(std::string_view peer, std::string_view entry, NetworkRule& rule) {
  const bool numeric =
      !peer.empty() && peer.find_first_not_of("0123456789./") == std::string_view::npos;
  if (numeric) return ParseAddress(peer, entry, rule);
  rule.peer = PeerKind::kName;
  rule.name = ToLower(peer);
  if (IsHostName(rule.name)) return OkStatus();
  return Bad(entry, "\"" + Printable(peer, 60) +
                        "\" is neither an address nor a host's name (IPv6 stands in brackets: "
                        "\"[2001:db8::1]:443\"; there are no wildcards)");
}

}  // namespace

Result<NetworkRule> ParseNetworkRule(std::string_view text) {
  NetworkRule rule;
  std::string_view rest = text;
  if (rest.starts_with("udp:")) rule.protocol = NetworkProtocol::kUdp;
  if (rest.starts_with("udp:") || rest.starts_with("tcp:")) rest.remove_prefix(4);
  if (rest.starts_with('[')) {
    const size_t end = rest.find(']');
    if (end == std::string_view::npos) return Bad(text, "the bracket is not closed");
    rule.peer = PeerKind::kIpv6;
    PULGA_RETURN_IF_ERROR(ParseAddress(rest.substr(1, end - 1), text, rule));
    rest.remove_prefix(end + 1);
  } else {
    const size_t colon = std::min(rest.find(':'), rest.size());
    if (rest.find(':', std::min(colon + 1, rest.size())) != std::string_view::npos) {
      return Bad(text, "an IPv6 address stands in brackets: \"[2001:db8::1]:443\"");
    }
    PULGA_RETURN_IF_ERROR(ParsePeer(rest.substr(0, colon), text, rule));
    rest.remove_prefix(colon);
  }
  if (rest.empty()) return rule;
  if (rest[0] != ':') return Bad(text, "a colon and a port are expected behind the bracket");
  PULGA_RETURN_IF_ERROR(ParsePorts(rest.substr(1), text, rule));
  return rule;
}

std::string FormatNetworkRule(const NetworkRule& rule) {
  std::string text = rule.protocol == NetworkProtocol::kUdp ? "udp:" : "";
  if (rule.peer == PeerKind::kName) text += rule.name;
  if (rule.peer == PeerKind::kIpv4) text += WithPrefix(rule);
  if (rule.peer == PeerKind::kIpv6) text += "[" + WithPrefix(rule) + "]";
  if (rule.first_port == 0) return text;
  text += ":" + std::to_string(rule.first_port);
  if (rule.last_port != rule.first_port) text += "-" + std::to_string(rule.last_port);
  return text;
}

Status CheckNetworkRule(const NetworkRule& rule) {
  const auto invalid = [](const char* why) { return Error{Code::kInvalidArgument, 0, why}; };
  if (rule.peer > PeerKind::kName || rule.protocol > NetworkProtocol::kUdp) {
    return invalid("unknown kind of peer or protocol");
  }
  const bool any_port = rule.first_port == 0 && rule.last_port == 0;
  if (!any_port && (rule.first_port == 0 || rule.last_port < rule.first_port)) {
    return invalid("ports out of range");
  }
  if (rule.peer == PeerKind::kName) {
    const bool no_address = rule.prefix_bits == 0 && rule.address == decltype(rule.address){};
    if (no_address && IsHostName(rule.name)) return OkStatus();
    return invalid("not a host's name");
  }
  if (!rule.name.empty()) return invalid("both an address and a name");
  if (rule.prefix_bits > WidthOf(rule.peer) || !IsPrefix(rule) || IsMapped(rule)) {
    return invalid("not an address prefix");
  }
  return OkStatus();
}

}  // namespace pulga
