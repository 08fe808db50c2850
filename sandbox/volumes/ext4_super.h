// What the superblock of an ext4 file system says about it, read where it is not mounted. Pure.
// Source: Linux, Documentation/filesystems/ext4/super.rst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace pulga {

inline constexpr size_t kExt4SuperOffset = 1024;
inline constexpr size_t kExt4SuperBytes = 1024;

struct Ext4Super {
  uint64_t size_bytes = 0;   // of it all
  uint64_t block_bytes = 0;  // never 0 in what was parsed
  uint64_t total_bytes = 0;  // what files may take
  uint64_t free_bytes = 0;   // as of the last clean unmount, or sync
  bool has_journal = false;  // what a power cut left half written is replayed at the next mount
  bool clean = false;        // unmounted in order
  bool has_errors = false;   // the kernel met damage and said so
};

// nullopt: no ext4. `bytes` are the kExt4SuperBytes at kExt4SuperOffset.
std::optional<Ext4Super> ParseExt4Super(std::string_view bytes);

}  // namespace pulga
