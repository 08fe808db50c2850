// Who may reach what, as the router sees it: each attached function with its list and the addresses
// its names have led to. The rules in the kernel say the same; a connection needs both. Pure.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "net/allow_list.h"
#include "net/pin_table.h"
#include "net/share_ledger.h"

namespace pulga {

// How the host would send to an address, found at the moment of connecting.
enum class RouteKind : uint8_t {
  kNone,
  kHost,       // one of its own addresses
  kNeighbour,  // on a network it is part of
  kFar,        // through a gateway
};

struct Destination {
  IpProtocol protocol = IpProtocol::kTcp;
  Ipv4 address;
  uint16_t port = 0;
};

class EgressPolicy {
 public:
  void SetUp(const Ipv4Range& functions, std::set<uint16_t> management_ports);
  void Admit(const Holder& function, std::vector<AllowEntry> allow);
  void Forget(Ipv4 function) { functions_.erase(function); }
  bool Knows(Ipv4 function) const { return functions_.count(function) != 0; }
  // For whom its use is counted; all that are not known are of one version, 0.
  Holder HolderAt(Ipv4 function) const;

  // A list says which names may be asked for, too: a question can carry data out.
  bool MayResolve(Ipv4 function, std::string_view name) const;
  // Numbers of the entries that name it.
  std::vector<uint32_t> EntriesNaming(Ipv4 function, std::string_view name) const;
  // Never for addresses that are not public: a name must not lead into the house. False: it is one
  // of those, or the function has as many as it may.
  struct NewPin {
    Ipv4 function;
    uint32_t entry = 0;
    Ipv4 address;
    TimePoint until;
  };
  bool Pin(const NewPin& pin, TimePoint now);
  bool IsPinned(Ipv4 function, uint32_t entry, Ipv4 address, TimePoint at) const;

  bool MayConnect(Ipv4 function, const Destination& to, RouteKind route, TimePoint now) const;

 private:
  struct Function {
    uint64_t version = 0;
    std::vector<AllowEntry> allow;
    PinTable pins;
  };
  Ipv4Range range_;
  std::set<uint16_t> management_ports_;
  std::map<Ipv4, Function> functions_;
};

}  // namespace pulga
