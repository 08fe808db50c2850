#include "sandbox/volumes/ext4_super.h"

#include <algorithm>

namespace pulga {
namespace {

constexpr size_t kBlocksLow = 0x04;
constexpr size_t kFreeLow = 0x0c;
constexpr size_t kLogBlockSize = 0x18;
constexpr size_t kMagicAt = 0x38;
constexpr size_t kState = 0x3a;
constexpr size_t kFeatureCompat = 0x5c;
constexpr size_t kFeatureIncompat = 0x60;
constexpr size_t kBlocksHigh = 0x150;
constexpr size_t kFreeHigh = 0x158;
constexpr size_t kOverhead = 0x248;  // blocks that hold no files: tables, journal; 0 = not noted

constexpr uint64_t kMagic = 0xef53;
constexpr uint64_t kStateClean = 1;
constexpr uint64_t kStateErrors = 2;
constexpr uint64_t kHasJournal = 0x4;
constexpr uint64_t kSixtyFourBits = 0x80;
constexpr uint64_t kLargestLogBlockSize = 6;  // 64 KiB

uint64_t Number(std::string_view bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

}  // namespace

std::optional<Ext4Super> ParseExt4Super(std::string_view bytes) {
  if (bytes.size() < kExt4SuperBytes || Number(bytes, kMagicAt, 2) != kMagic) return std::nullopt;
  const uint64_t log_size = Number(bytes, kLogBlockSize, 4);
  if (log_size > kLargestLogBlockSize) return std::nullopt;
  const bool wide = (Number(bytes, kFeatureIncompat, 4) & kSixtyFourBits) != 0;
  const uint64_t block = uint64_t{1024} << log_size;
  const auto count = [&](size_t low, size_t high) {
    return Number(bytes, low, 4) | (wide ? Number(bytes, high, 4) << 32 : 0);
  };
  Ext4Super super;
  const uint64_t blocks = count(kBlocksLow, kBlocksHigh);
  super.size_bytes = blocks * block;
  super.block_bytes = block;
  super.total_bytes = (blocks - std::min(blocks, Number(bytes, kOverhead, 4))) * block;
  super.free_bytes = count(kFreeLow, kFreeHigh) * block;
  super.has_journal = (Number(bytes, kFeatureCompat, 4) & kHasJournal) != 0;
  super.clean = (Number(bytes, kState, 2) & kStateClean) != 0;
  super.has_errors = (Number(bytes, kState, 2) & kStateErrors) != 0;
  return super;
}

}  // namespace pulga
