#include "net/host_routes.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "base/sys.h"

namespace pulga {
namespace {

constexpr size_t kAnswerBytes = 8192;

struct RouteQuestion {
  nlmsghdr head;
  rtmsg route;
  rtattr destination;
  uint32_t address;
};

Result<UniqueFd> OpenRouteSocket(uint32_t groups) {
  UniqueFd fd(
      PULGA_SYS(socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  sockaddr_nl name = {};
  name.nl_family = AF_NETLINK;
  name.nl_groups = groups;
  if (!fd.valid() ||
      PULGA_SYS(bind, fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
    return LastError("rtnetlink");
  }
  return fd;
}

// The attributes of a route message; true when one is of `type`.
bool HasAttribute(const char* begin, size_t size, uint16_t type) {
  while (size >= sizeof(rtattr)) {
    rtattr attribute;
    memcpy(&attribute, begin, sizeof attribute);
    if (attribute.rta_len < sizeof attribute || attribute.rta_len > size) return false;
    if (attribute.rta_type == type) return true;
    const size_t step = std::min<size_t>(RTA_ALIGN(attribute.rta_len), size);
    begin += step;
    size -= step;
  }
  return false;
}

RouteKind KindOf(const char* answer, size_t size) {
  nlmsghdr head;
  rtmsg route;
  constexpr size_t kAttributes = NLMSG_LENGTH(sizeof(rtmsg));
  if (size < kAttributes) return RouteKind::kNone;
  memcpy(&head, answer, sizeof head);
  memcpy(&route, answer + NLMSG_LENGTH(0), sizeof route);
  if (head.nlmsg_type != RTM_NEWROUTE || head.nlmsg_len < kAttributes || head.nlmsg_len > size) {
    return RouteKind::kNone;
  }
  if (route.rtm_type == RTN_LOCAL) return RouteKind::kHost;
  if (route.rtm_type != RTN_UNICAST) return RouteKind::kNone;
  const char* attributes = answer + kAttributes;
  const size_t rest = head.nlmsg_len - kAttributes;
  if (HasAttribute(attributes, rest, RTA_GATEWAY) || HasAttribute(attributes, rest, RTA_VIA) ||
      HasAttribute(attributes, rest, RTA_MULTIPATH)) {
    return RouteKind::kFar;
  }
  // A default route without a gateway: a modem, a tunnel. Half of all addresses is no network.
  return route.rtm_dst_len <= 1 ? RouteKind::kFar : RouteKind::kNeighbour;
}

}  // namespace

Result<HostRoutes> HostRoutes::Open() {
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenRouteSocket(0));
  return HostRoutes(std::move(fd));
}

RouteKind HostRoutes::Find(Ipv4 address) const {
  RouteQuestion question = {};
  question.head.nlmsg_len = sizeof question;
  question.head.nlmsg_type = RTM_GETROUTE;
  question.head.nlmsg_flags = NLM_F_REQUEST;
  question.route.rtm_family = AF_INET;
  question.route.rtm_dst_len = 32;
  question.route.rtm_flags = RTM_F_FIB_MATCH;
  question.destination.rta_len = RTA_LENGTH(sizeof question.address);
  question.destination.rta_type = RTA_DST;
  question.address = htonl(address.value);
  char answer[kAnswerBytes];
  while (recv(fd_.get(), answer, sizeof answer, 0) > 0) {
  }
  if (PULGA_SYS(send, fd_.get(), &question, sizeof question, 0) < 0) return RouteKind::kNone;
  const ssize_t n = recv(fd_.get(), answer, sizeof answer, 0);
  return n > 0 ? KindOf(answer, static_cast<size_t>(n)) : RouteKind::kNone;
}

Result<std::vector<Ipv4>> HostAddresses() {
  std::vector<Ipv4> out;
  ifaddrs* list = nullptr;
  if (PULGA_SYS(getifaddrs, &list) != 0) return LastError("list the host's addresses");
  for (const ifaddrs* at = list; at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr || at->ifa_addr->sa_family != AF_INET) continue;
    sockaddr_in name;
    memcpy(&name, at->ifa_addr, sizeof name);
    out.push_back({ntohl(name.sin_addr.s_addr)});
  }
  freeifaddrs(list);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

Result<UniqueFd> WatchHostAddresses(EventLoop& loop, std::function<void()> changed) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenRouteSocket(RTMGRP_IPV4_IFADDR));
  const int number = fd.get();
  PULGA_RETURN_IF_ERROR(loop.Watch(number, EPOLLIN, [number, call = std::move(changed)](uint32_t) {
    char news[kAnswerBytes];
    while (recv(number, news, sizeof news, 0) > 0) {
    }
    call();
  }));
  return fd;
}

}  // namespace pulga
