// The text of one entry of "network.allow": [tcp:|udp:]PEER[:PORT[-PORT]], where PEER is an IPv4
// address or prefix, an IPv6 one in brackets, or a name. Pure.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "sandbox/access_spec.h"

namespace pulga {

// kInvalidArgument: quotes the entry, and says what is wrong with it.
Result<NetworkRule> ParseNetworkRule(std::string_view text);
// Canonical; ParseNetworkRule reads it back.
std::string FormatNetworkRule(const NetworkRule& rule);
// What a parsed rule always is.
Status CheckNetworkRule(const NetworkRule& rule);

}  // namespace pulga
