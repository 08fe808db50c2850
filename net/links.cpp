#include "net/links.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/sys.h"

namespace pulga {
namespace {

constexpr size_t kMessageBytes = 8192;

struct Request {
  alignas(nlmsghdr) char bytes[kMessageBytes] = {};
  nlmsghdr* head;

  Request(uint16_t type, uint16_t flags) : head(mnl_nlmsg_put_header(bytes)) {
    head->nlmsg_type = type;
    head->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  }
  template <typename Body>
  Body* Put() {
    return static_cast<Body*>(mnl_nlmsg_put_extra_header(head, sizeof(Body)));
  }
};

uint32_t NetworkOrder(Ipv4 address) { return htonl(address.value); }

struct RouteList {
  std::vector<Ipv4Range> ranges;
  uint8_t bits = 0;  // of the route being read
};

int KeepDestination(const nlattr* attribute, void* raw) {
  auto& out = *static_cast<RouteList*>(raw);
  if (mnl_attr_get_type(attribute) != RTA_DST || mnl_attr_get_payload_len(attribute) < 4) {
    return MNL_CB_OK;
  }
  out.ranges.push_back({{ntohl(mnl_attr_get_u32(attribute))}, out.bits});
  return MNL_CB_OK;
}

int KeepRoute(const nlmsghdr* message, void* raw) {
  const auto* route = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
  if (route->rtm_family != AF_INET || route->rtm_dst_len == 0) return MNL_CB_OK;
  static_cast<RouteList*>(raw)->bits = route->rtm_dst_len;
  return mnl_attr_parse(message, sizeof(rtmsg), KeepDestination, raw);
}

}  // namespace

Result<LinkAdmin> LinkAdmin::Open() {
  UniqueFd fd(PULGA_SYS(socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!fd.valid()) return LastError("rtnetlink");
  return LinkAdmin(std::move(fd));
}

Status LinkAdmin::Talk(const char* step, void* raw) {
  auto& request = *static_cast<Request*>(raw);
  request.head->nlmsg_flags |= NLM_F_ACK;
  request.head->nlmsg_seq = ++sequence_;
  if (PULGA_SYS(send, fd_.get(), request.bytes, request.head->nlmsg_len, 0) < 0) {
    return LastError(step);
  }
  alignas(nlmsghdr) char answer[kMessageBytes];
  const ssize_t n = PULGA_SYS(recv, fd_.get(), answer, sizeof answer, 0);
  if (n < 0) return LastError(step);
  if (mnl_cb_run(answer, static_cast<size_t>(n), sequence_, 0, nullptr, nullptr) < 0) {
    return LastError(step);
  }
  return OkStatus();
}

Result<uint32_t> LinkAdmin::IndexOf(const std::string& interface) {
  Request request(RTM_GETLINK, 0);
  request.Put<ifinfomsg>()->ifi_family = AF_UNSPEC;
  mnl_attr_put_strz(request.head, IFLA_IFNAME, interface.c_str());
  request.head->nlmsg_seq = ++sequence_;
  const std::string step = "find interface " + interface;
  if (PULGA_SYS(send, fd_.get(), request.bytes, request.head->nlmsg_len, 0) < 0) {
    return LastError(step);
  }
  alignas(nlmsghdr) char answer[4 * kMessageBytes];
  const ssize_t n = PULGA_SYS(recv, fd_.get(), answer, sizeof answer, 0);
  if (n < 0) return LastError(step);
  uint32_t index = 0;
  const auto keep = [](const nlmsghdr* message, void* out) -> int {
    const auto* link = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
    *static_cast<uint32_t*>(out) = static_cast<uint32_t>(link->ifi_index);
    return MNL_CB_OK;
  };
  if (mnl_cb_run(answer, static_cast<size_t>(n), sequence_, 0, keep, &index) < 0) {
    return LastError(step);
  }
  if (index == 0) return Error{Code::kNotFound, ENODEV, step + ": no such interface"};
  return index;
}

Status LinkAdmin::SetUp(const std::string& interface) {
  PULGA_ASSIGN_OR_RETURN(const uint32_t index, IndexOf(interface));
  Request request(RTM_NEWLINK, 0);
  auto* link = request.Put<ifinfomsg>();
  link->ifi_index = static_cast<int>(index);
  link->ifi_flags = IFF_UP;
  link->ifi_change = IFF_UP;
  return Talk("link-up", &request);
}

Status LinkAdmin::AddBridge(const std::string& name) {
  Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  request.Put<ifinfomsg>();
  mnl_attr_put_strz(request.head, IFLA_IFNAME, name.c_str());
  nlattr* info = mnl_attr_nest_start(request.head, IFLA_LINKINFO);
  mnl_attr_put_strz(request.head, IFLA_INFO_KIND, "bridge");
  mnl_attr_nest_end(request.head, info);
  return Talk("bridge", &request);
}

Status LinkAdmin::AddVeth(const Veth& veth) {
  Request request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  request.Put<ifinfomsg>();
  mnl_attr_put_strz(request.head, IFLA_IFNAME, veth.name.c_str());
  nlattr* info = mnl_attr_nest_start(request.head, IFLA_LINKINFO);
  mnl_attr_put_strz(request.head, IFLA_INFO_KIND, "veth");
  nlattr* data = mnl_attr_nest_start(request.head, IFLA_INFO_DATA);
  nlattr* peer = mnl_attr_nest_start(request.head, VETH_INFO_PEER);
  request.Put<ifinfomsg>();
  mnl_attr_put_strz(request.head, IFLA_IFNAME, veth.peer_name.c_str());
  mnl_attr_put(request.head, IFLA_ADDRESS, veth.peer_mac.size(), veth.peer_mac.data());
  mnl_attr_put_u32(request.head, IFLA_NET_NS_FD, static_cast<uint32_t>(veth.peer_netns));
  mnl_attr_nest_end(request.head, peer);
  mnl_attr_nest_end(request.head, data);
  mnl_attr_nest_end(request.head, info);
  return Talk("veth", &request);
}

Status LinkAdmin::AddPort(const std::string& interface, const std::string& bridge) {
  PULGA_ASSIGN_OR_RETURN(const uint32_t index, IndexOf(interface));
  PULGA_ASSIGN_OR_RETURN(const uint32_t master, IndexOf(bridge));
  Request joined(RTM_NEWLINK, 0);
  joined.Put<ifinfomsg>()->ifi_index = static_cast<int>(index);
  mnl_attr_put_u32(joined.head, IFLA_MASTER, master);
  PULGA_RETURN_IF_ERROR(Talk("bridge-port", &joined));
  Request walled(RTM_SETLINK, 0);
  auto* link = walled.Put<ifinfomsg>();
  link->ifi_family = AF_BRIDGE;
  link->ifi_index = static_cast<int>(index);
  nlattr* info = mnl_attr_nest_start(walled.head, IFLA_PROTINFO);
  mnl_attr_put_u8(walled.head, IFLA_BRPORT_ISOLATED, 1);
  mnl_attr_put_u8(walled.head, IFLA_BRPORT_MCAST_FLOOD, 0);
  mnl_attr_put_u8(walled.head, IFLA_BRPORT_UNICAST_FLOOD, 0);
  mnl_attr_nest_end(walled.head, info);
  PULGA_RETURN_IF_ERROR(Talk("bridge-port-isolated", &walled));
  return SetUp(interface);
}

Status LinkAdmin::Delete(const std::string& interface) {
  const auto index = IndexOf(interface);
  if (!index.ok()) {
    return index.error().sys_errno == ENODEV ? OkStatus() : Status(index.error());
  }
  Request request(RTM_DELLINK, 0);
  request.Put<ifinfomsg>()->ifi_index = static_cast<int>(*index);
  return Talk("delete-link", &request);
}

Status LinkAdmin::AddAddress(const std::string& interface, Ipv4 address, uint8_t bits) {
  PULGA_ASSIGN_OR_RETURN(const uint32_t index, IndexOf(interface));
  Request request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  auto* body = request.Put<ifaddrmsg>();
  body->ifa_family = AF_INET;
  body->ifa_prefixlen = bits;
  body->ifa_index = index;
  mnl_attr_put_u32(request.head, IFA_LOCAL, NetworkOrder(address));
  mnl_attr_put_u32(request.head, IFA_ADDRESS, NetworkOrder(address));
  return Talk("address", &request);
}

Status LinkAdmin::AddDefaultRoute(Ipv4 gateway) {
  Request request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  auto* route = request.Put<rtmsg>();
  route->rtm_family = AF_INET;
  route->rtm_table = RT_TABLE_MAIN;
  route->rtm_protocol = RTPROT_STATIC;
  route->rtm_scope = RT_SCOPE_UNIVERSE;
  route->rtm_type = RTN_UNICAST;
  mnl_attr_put_u32(request.head, RTA_GATEWAY, NetworkOrder(gateway));
  return Talk("default-route", &request);
}

Status LinkAdmin::DeliverMarked(uint32_t mark, uint32_t table) {
  Request rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
  auto* body = rule.Put<fib_rule_hdr>();
  body->family = AF_INET;
  body->table = static_cast<uint8_t>(table);
  body->action = FR_ACT_TO_TBL;
  mnl_attr_put_u32(rule.head, FRA_FWMARK, mark);
  PULGA_RETURN_IF_ERROR(Talk("relay-rule", &rule));
  PULGA_ASSIGN_OR_RETURN(const uint32_t lo, IndexOf("lo"));
  Request request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  auto* route = request.Put<rtmsg>();
  route->rtm_family = AF_INET;
  route->rtm_table = static_cast<uint8_t>(table);
  route->rtm_protocol = RTPROT_STATIC;
  route->rtm_scope = RT_SCOPE_HOST;
  route->rtm_type = RTN_LOCAL;
  mnl_attr_put_u32(request.head, RTA_OIF, lo);
  return Talk("relay-route", &request);
}

Result<std::vector<Ipv4Range>> LinkAdmin::Routes() {
  Request request(RTM_GETROUTE, NLM_F_DUMP);
  request.Put<rtmsg>()->rtm_family = AF_INET;
  request.head->nlmsg_seq = ++sequence_;
  if (PULGA_SYS(send, fd_.get(), request.bytes, request.head->nlmsg_len, 0) < 0) {
    return LastError("list-routes");
  }
  RouteList out;
  while (true) {
    alignas(nlmsghdr) char answer[8 * kMessageBytes];
    const ssize_t n = PULGA_SYS(recv, fd_.get(), answer, sizeof answer, 0);
    if (n < 0) return LastError("list-routes");
    const int more = mnl_cb_run(answer, static_cast<size_t>(n), sequence_, 0, KeepRoute, &out);
    if (more < 0) return LastError("list-routes");
    if (more == 0) return out.ranges;
  }
}

}  // namespace pulga
