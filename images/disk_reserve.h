// The part of a disk that an import leaves free (setting reserve-bytes), asked for while it writes.
// Not exact: others write at the same time, and costs are told roughly.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace pulga {

class DiskReserve {
 public:
  // `fd` lies on the disk and outlives this; 0: nothing is kept.
  DiskReserve(int fd, uint64_t reserve_bytes) : fd_(fd), reserve_bytes_(reserve_bytes) {}
  // Before about `bytes` are written. Looks at the disk now and then: kNoSpace when it has not so
  // much, or not a number of inodes, beside the reserve.
  Status Spend(uint64_t bytes);

 private:
  Status Look(uint64_t wanted) const;

  int fd_;
  uint64_t reserve_bytes_;
  uint64_t left_ = 0;  // until the next look
};

}  // namespace pulga
