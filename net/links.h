// Interfaces, addresses and routes by rtnetlink: each call one request, answered by the kernel with
// an errno. Blocks for the kernel's locks (tens of milliseconds at worst). pulga-netadmin only; the
// one user of libmnl. Errors name the step. Source: rtnetlink(7).
#pragma once

#include <array>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/ipv4.h"

namespace pulga {

// A socket to one network namespace: the one the caller was in when it was opened.
class LinkAdmin {
 public:
  static Result<LinkAdmin> Open();

  Status SetUp(const std::string& interface);
  Status AddBridge(const std::string& name);
  struct Veth {
    std::string name;       // here
    std::string peer_name;  // there
    std::array<uint8_t, 6> peer_mac{};
    int peer_netns = -1;
  };
  Status AddVeth(const Veth& veth);
  // Onto the bridge as a port that may talk to the bridge alone, not to other ports; then up.
  Status AddPort(const std::string& interface, const std::string& bridge);
  // No error when it is not there.
  Status Delete(const std::string& interface);
  Status AddAddress(const std::string& interface, Ipv4 address, uint8_t bits);
  Status AddDefaultRoute(Ipv4 gateway);
  // Packets with `mark` are delivered here, whatever their destination.
  Status DeliverMarked(uint32_t mark, uint32_t table);
  // Destinations of all routes but default ones.
  Result<std::vector<Ipv4Range>> Routes();

 private:
  explicit LinkAdmin(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<uint32_t> IndexOf(const std::string& interface);
  Status Talk(const char* step, void* request);

  UniqueFd fd_;
  uint32_t sequence_ = 1;
};

}  // namespace pulga
