// What the launcher asks of pulga-netadmin, the only program that changes interfaces and rules: one
// job per process, made of parsed values and ready rule text. The process gets
//   3 the job: NetJob, then `rules_bytes` of text   4 the router's user namespace   5 its network
//   namespace   6 the network namespace to attach   7 a seqpacket socket for the answer
// (/dev/null where a kind has none) and answers with one message (EncodeNetAnswer); for kOpen with
// the descriptors of RouterFd beside it. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/message_socket.h"
#include "net/address_plan.h"

namespace pulga {

inline constexpr uint32_t kNetJobMagic = 0x504c474e;  // "PLGN"
inline constexpr size_t kMaxNetRules = 128 * 1024;
inline constexpr size_t kMaxNetAnswer = 2048;

inline constexpr int kNetJobFd = 3;
inline constexpr int kNetUserNsFd = 4;
inline constexpr int kNetRouterNsFd = 5;
inline constexpr int kNetTargetNsFd = 6;
inline constexpr int kNetAnswerFd = 7;

enum class NetJobKind : uint32_t {
  kOpen = 1,    // makes the router: namespaces, bridge, base rules, sockets
  kAttach = 2,  // a veth from the bridge into the target namespace, and its rules
  kDetach = 3,  // removes that veth and its rules
  kRules = 4,   // rules alone
};

struct NetJob {
  uint32_t magic = kNetJobMagic;
  NetJobKind kind = NetJobKind::kRules;
  uint32_t range_base = 0;
  uint32_t range_bits = 0;
  uint32_t port_index = 0;  // kAttach, kDetach
  uint32_t host_id = 0;     // kOpen: the one host id inside the router's user namespace
  uint32_t rules_bytes = 0;

  Ipv4Range range() const { return {{range_base}, static_cast<uint8_t>(range_bits)}; }
};

// The order of the descriptors kOpen answers with. All but the first two are sockets made inside
// the router's network namespace, which is where they stay.
enum class RouterFd : uint32_t {
  kUserNs,
  kNetNs,
  kTcpRelay,  // listening, transparent
  kUdpRelay,  // bound, transparent, tells the original destination
  kUdpReply,  // raw, for datagrams in the name of others
  kDnsUdp,    // bound to the router's address
  kDnsTcp,    // listening there
  kGateway,   // listening there: for the daemon
  kCount,
};
inline constexpr size_t kRouterFds = static_cast<size_t>(RouterFd::kCount);

// "+", or "-ERRNO what failed: why". What the network's helpers say of themselves, pulga-router
// too.
std::string EncodeNetAnswer(const Status& done);
// Sent with `fds`, or instead that they could not be sent. False: it did not end well.
bool TellNetAnswer(const MessageSocket& to, const Status& done, std::span<const int> fds = {});
// What was used up may be there again: such codes stay. All else is what this board can not do.
Status DecodeNetAnswer(std::string_view text);

}  // namespace pulga
