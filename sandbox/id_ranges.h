// The host ids this project uses: the launcher's choice, never the daemon's.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace pulga {

inline constexpr uint32_t kMappedIds = 65536;
inline constexpr uid_t kOwnerIdBase = 0x7A000000;  // one owner for now: ids 0..65535 of a function
inline constexpr uid_t kSpawnerIdBase = 0x7B000000;  // + version & 0xffff; no image can name it
inline constexpr uid_t kSpawnerInnerId = kMappedIds;
// What talks to strangers on the network owns no file of anybody.
inline constexpr uid_t kFetcherHostId = 0x79FE0000;
inline constexpr uid_t kDaemonFallbackId = 0x79FF0000;

inline uid_t SpawnerHostId(uint64_t version_id) {
  return kSpawnerIdBase + static_cast<uid_t>(version_id & 0xffff);
}

}  // namespace pulga
