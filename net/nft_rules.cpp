#include "net/nft_rules.h"

namespace pulga {
namespace {

// ROUTER, RANGE, RELAY, MARK, GATEWAY and the whole line MANAGEMENT are replaced.
constexpr char kBase[] = R"(
add table bridge pulga
add set bridge pulga ports { type ifname . ether_addr . ipv4_addr; }
add chain bridge pulga arrivals { type filter hook prerouting priority -300; policy drop; }
add rule bridge pulga arrivals \
    iifname . ether saddr . arp saddr ip @ports \
    iifname . arp saddr ether . arp saddr ip @ports accept
add rule bridge pulga arrivals iifname . ether saddr . ip saddr @ports accept

add table inet pulga
add set inet pulga host { type ipv4_addr; }
add map inet pulga functions { type ipv4_addr : verdict; }

add chain inet pulga relay
add rule inet pulga relay meta l4proto tcp tproxy ip to 127.0.0.1:RELAY meta mark set MARK accept
add rule inet pulga relay meta l4proto udp tproxy ip to 127.0.0.1:RELAY meta mark set MARK accept

add chain inet pulga refuse
add rule inet pulga refuse meta l4proto tcp reject with tcp reset
add rule inet pulga refuse reject with icmp admin-prohibited

add chain inet pulga public
add rule inet pulga public ip daddr { \
    10.0.0.0/8, 100.64.0.0/10, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, \
    198.18.0.0/15 } goto refuse
add rule inet pulga public ip daddr @host goto refuse
add rule inet pulga public goto relay

add chain inet pulga arrivals { type filter hook prerouting priority -150; policy drop; }
add rule inet pulga arrivals iif lo accept
add rule inet pulga arrivals meta nfproto != ipv4 drop
add rule inet pulga arrivals ip daddr ROUTER udp dport 53 accept
add rule inet pulga arrivals ip daddr ROUTER tcp dport { 53, GATEWAY } accept
add rule inet pulga arrivals meta l4proto != { tcp, udp } drop
add rule inet pulga arrivals ip daddr { 0.0.0.0/8, 127.0.0.0/8, 224.0.0.0/3 } goto refuse
add rule inet pulga arrivals ip daddr RANGE goto refuse
MANAGEMENT
add rule inet pulga arrivals meta l4proto tcp socket transparent 1 meta mark set MARK accept
add rule inet pulga arrivals ip saddr vmap @functions
add rule inet pulga arrivals goto refuse

add chain inet pulga passing { type filter hook forward priority 0; policy drop; }
)";

std::string Replaced(std::string text, const std::string& word, const std::string& with) {
  for (size_t at = text.find(word); at != std::string::npos;
       at = text.find(word, at + with.size())) {
    text.replace(at, word.size(), with);
  }
  return text;
}

std::string ManagementRule(const std::set<uint16_t>& ports) {
  std::string list;
  for (const uint16_t port : ports) list += (list.empty() ? "" : ", ") + std::to_string(port);
  if (list.empty()) return list;
  return "add rule inet pulga arrivals ip daddr @host tcp dport { " + list + " } goto refuse\n";
}

constexpr char kPinType[] = " { type ipv4_addr; flags timeout; }\n";

std::string ChainOf(const NetworkPort& port) { return "port" + std::to_string(port.index); }

std::string PinsOf(uint32_t index, uint32_t entry) {
  return "pins" + std::to_string(index) + "_" + std::to_string(entry);
}

std::string PortMatch(const AllowEntry& entry) {
  std::string out = entry.protocol == IpProtocol::kTcp ? " meta l4proto tcp" : " meta l4proto udp";
  if (entry.first_port == 0) return out;
  return out + " th dport " + std::to_string(entry.first_port) + "-" +
         std::to_string(entry.last_port);
}

std::string FunctionElement(const NetworkPort& port) {
  return "element inet pulga functions { " + FormatIpv4(port.address) + " : goto " + ChainOf(port) +
         " }\n";
}

std::string PortElement(const NetworkPort& port) {
  return "element bridge pulga ports { \"" + port.interface + "\" . " + FormatMac(port.mac) +
         " . " + FormatIpv4(port.address) + " }\n";
}

}  // namespace

std::string BaseRules(const NetworkPlan& plan) {
  std::string out = Replaced(kBase, "ROUTER", FormatIpv4(RouterAddress(plan.range)));
  out = Replaced(out, "RANGE", FormatIpv4Range(plan.range));
  out = Replaced(out, "RELAY", std::to_string(kRelayPort));
  out = Replaced(out, "GATEWAY", std::to_string(kGatewayPort));
  out = Replaced(out, "MARK", std::to_string(kRelayMark));
  return Replaced(out, "MANAGEMENT\n", ManagementRule(plan.management_ports));
}

std::string AttachRules(const NetworkPort& port, const std::vector<AllowEntry>& allow) {
  const std::string chain = ChainOf(port);
  std::string out = "add chain inet pulga " + chain + "\n";
  const std::string rule = "add rule inet pulga " + chain + " ";
  for (uint32_t i = 0; i < allow.size(); ++i) {
    const std::string pins = PinsOf(port.index, i);
    if (!allow[i].name.empty()) {
      out += "add set inet pulga " + pins + kPinType;
    }
    const std::string to = allow[i].name.empty() ? FormatIpv4Range(allow[i].range) : "@" + pins;
    out += rule + "ip daddr " + to + PortMatch(allow[i]) + " goto relay\n";
  }
  out += rule + (allow.empty() ? "goto public\n" : "goto refuse\n");
  out += "add " + FunctionElement(port);
  return out + "add " + PortElement(port);
}

std::string DetachRules(const NetworkPort& port, const std::vector<AllowEntry>& allow) {
  const std::string chain = ChainOf(port);
  // What is not there can not be deleted: so it is made first.
  std::string out = "add chain inet pulga " + chain + "\n";
  for (const std::string& element : {PortElement(port), FunctionElement(port)}) {
    out += "add " + element + "delete " + element;
  }
  out += "flush chain inet pulga " + chain + "\ndelete chain inet pulga " + chain + "\n";
  for (uint32_t i = 0; i < allow.size(); ++i) {
    if (allow[i].name.empty()) continue;
    const std::string pins = "set inet pulga " + PinsOf(port.index, i);
    out += "add " + pins + kPinType + "delete " + pins + "\n";
  }
  return out;
}

// Adding what is there changes no timeout, and deleting what is not there fails: so all three.
std::string PinRules(const Pin& pin) {
  const std::string where =
      "element inet pulga " + PinsOf(pin.index, pin.entry) + " { " + FormatIpv4(pin.address);
  const std::string timed = " timeout " + std::to_string(pin.seconds) + "s }\n";
  return "add " + where + timed + "delete " + where + " }\nadd " + where + timed;
}

std::string HostAddressRules(const std::vector<Ipv4>& addresses) {
  std::string out = "flush set inet pulga host\n";
  if (addresses.empty()) return out;
  out += "add element inet pulga host { ";
  for (size_t i = 0; i < addresses.size(); ++i) {
    out += (i == 0 ? "" : ", ") + FormatIpv4(addresses[i]);
  }
  return out + " }\n";
}

}  // namespace pulga
