// Who holds how much of what there is little of: so much for one instance, so much for all
// instances of one version of a function, so much in all. Router only, loop thread. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "net/ipv4.h"

namespace pulga {

// An instance by its address, and the version it is one of. exec: one address for all instances.
struct Holder {
  Ipv4 address;
  uint64_t version = 0;
};

class ShareLedger {
 public:
  struct Limits {
    size_t all = 0;
    size_t version = 0;
    size_t address = 0;
  };
  explicit ShareLedger(const Limits& limits) : limits_(limits) {}

  bool HasRoom(const Holder& holder) const;
  void Take(const Holder& holder);
  // What was taken by that holder.
  void Give(const Holder& holder);
  size_t HeldBy(uint64_t version) const;

 private:
  const Limits limits_;
  size_t all_ = 0;
  std::map<uint64_t, size_t> versions_;
  std::map<Ipv4, size_t> addresses_;
};

}  // namespace pulga
