// pulga doctor --setup-zram: swap in compressed memory, which the pages of idle instances go to.
// The plan is pure; carrying it out needs root over the host (CAP_SYS_ADMIN, and CAP_SYS_MODULE
// where the module is not loaded), blocks, and leaves nothing half done.
// Source: kernel Documentation/admin-guide/blockdev/zram.rst, swapon(2).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga::cli {

struct ZramPlan {
  uint64_t bytes = 0;     // of pages, before compression; memory is taken as they come
  std::string algorithm;  // "": the kernel's default
  int priority = 100;     // before any swap on a disk
};

// Half of the memory, 4 GiB at most, in whole MiB; lz4 where the kernel lists it ("lzo [lzo-rle]
// lz4"), because what is swapped out is on the way of a call.
ZramPlan PlanZram(uint64_t memory_bytes, std::string_view algorithms);
// The device of a line of /proc/swaps that is zram; "" when none is.
std::string FindZramSwap(std::string_view swaps);
// What to do by hand, and how to have it at each start.
std::string DescribeZram(const ZramPlan& plan, const std::string& pulga);
// A systemd unit that does this at each start.
std::string ZramUnit(const std::string& pulga);

// Prints, or does it; an exit status.
enum class ZramConsent : uint8_t { kPrint, kDo };
int SetUpZram(ZramConsent consent);

}  // namespace pulga::cli
