// Which addresses the names on one function's list have led to, and until when each stays open.
// Bounded: a name whose addresses change with each answer fills its own share only. What has
// expired makes room, and what could not be opened. The router and the launcher keep one each, of
// the same function. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <utility>

#include "base/clock.h"
#include "net/ipv4.h"

namespace pulga {

inline constexpr size_t kMaxPins = 512;
inline constexpr size_t kMaxPinsPerEntry = 64;

class PinTable {
 public:
  // False: there is no room for one more, and nothing changed.
  bool Set(uint32_t entry, Ipv4 address, TimePoint until, TimePoint now);
  // What came of one that was set: it is open, or what it took is as it was before. One that was
  // set anew meanwhile stays.
  void Opened(uint32_t entry, Ipv4 address, TimePoint until);
  void Failed(uint32_t entry, Ipv4 address, TimePoint until);
  bool IsSet(uint32_t entry, Ipv4 address, TimePoint at) const;
  size_t size() const { return pins_.size(); }

 private:
  bool HasRoom(uint32_t entry) const;
  struct Times {
    TimePoint until{};
    TimePoint opened{};  // until when it surely is
  };
  std::map<std::pair<uint32_t, Ipv4>, Times> pins_;
};

}  // namespace pulga
