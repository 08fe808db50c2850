#include "net/router_sockets.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "net/address_plan.h"

namespace pulga {
namespace {

struct SocketPlan {
  const char* name;
  int type;
  Ipv4 address;
  uint16_t port;
  bool transparent = false;
};

Status TurnOn(const SocketPlan& plan, int fd, int level, int option) {
  const int one = 1;
  if (PULGA_SYS(setsockopt, fd, level, option, &one, sizeof one) == 0) return OkStatus();
  return LastError(std::string("socket ") + plan.name);
}

Result<UniqueFd> Make(const SocketPlan& plan) {
  UniqueFd fd(PULGA_SYS(socket, AF_INET, plan.type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return LastError(std::string("socket ") + plan.name);
  PULGA_RETURN_IF_ERROR(TurnOn(plan, fd.get(), SOL_SOCKET, SO_REUSEADDR));
  if (plan.transparent) PULGA_RETURN_IF_ERROR(TurnOn(plan, fd.get(), SOL_IP, IP_TRANSPARENT));
  if (plan.transparent && plan.type == SOCK_DGRAM) {
    PULGA_RETURN_IF_ERROR(TurnOn(plan, fd.get(), SOL_IP, IP_RECVORIGDSTADDR));
  }
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(plan.address.value);
  name.sin_port = htons(plan.port);
  if (PULGA_SYS(bind, fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
      (plan.type == SOCK_STREAM && PULGA_SYS(listen, fd.get(), SOMAXCONN) != 0)) {
    return LastError(std::string("socket ") + plan.name);
  }
  return fd;
}

}  // namespace

Status MakeRouterSockets(Ipv4 router, std::vector<UniqueFd>& out) {
  const Ipv4 loopback{INADDR_LOOPBACK};
  for (const SocketPlan& plan : {SocketPlan{"tcp-relay", SOCK_STREAM, loopback, kRelayPort, true},
                                 SocketPlan{"udp-relay", SOCK_DGRAM, loopback, kRelayPort, true}}) {
    PULGA_ASSIGN_OR_RETURN(UniqueFd fd, Make(plan));
    out.push_back(std::move(fd));
  }
  UniqueFd raw(PULGA_SYS(socket, AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW));
  if (!raw.valid()) return LastError("socket udp-reply");
  out.push_back(std::move(raw));
  for (const SocketPlan& plan : {SocketPlan{"dns-udp", SOCK_DGRAM, router, 53},
                                 SocketPlan{"dns-tcp", SOCK_STREAM, router, 53},
                                 SocketPlan{"gateway", SOCK_STREAM, router, kGatewayPort}}) {
    PULGA_ASSIGN_OR_RETURN(UniqueFd fd, Make(plan));
    out.push_back(std::move(fd));
  }
  return OkStatus();
}

}  // namespace pulga
