// The ids this project uses, as its own user namespace counts them: on a host where Pulga was
// started by root, ranges no host user has; elsewhere (rootless, a container) what is mapped there.
// The launcher's choice, never the daemon's. PlanHostIds is pure.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/id_map.h"
#include "base/result.h"

namespace pulga {

inline constexpr uint32_t kMappedIds = 65536;
inline constexpr uid_t kOwnerIdBase = 0x7A000000;  // one owner for now: ids 0..65535 of a function
inline constexpr uid_t kSpawnerIdBase = 0x7B000000;  // + version & 0xffff; no image can name it
inline constexpr uid_t kSpawnerInnerId = kMappedIds;
// What talks to strangers on the network owns no file of anybody.
inline constexpr uid_t kFetcherHostId = 0x79FE0000;
// The one id inside the user namespace that owns the router's network namespace, and the router's.
inline constexpr uid_t kRouterNamespaceHostId = 0x79FC0000;
inline constexpr uid_t kRouterHostId = 0x79FD0000;
inline constexpr uid_t kDaemonFallbackId = 0x79FF0000;
// Whom mke2fs and e2fsck run as: owns the one file they work on, and only meanwhile.
inline constexpr uid_t kVolumeToolsHostId = 0x79FB0000;

// The host's own users and groups are below, all of ours above.
inline constexpr uid_t kHostIdLimit = 0x79000000;
// What those of a host directory are shown as that a grant did not name: an id no process has.
inline constexpr uid_t kParkedIdBase = 0x80000000;

struct HostIds {
  std::vector<IdExtent> owner = {{0, kOwnerIdBase, kMappedIds}};  // the ids of images
  uid_t spawner_base = kSpawnerIdBase;
  uint32_t spawners = kMappedIds;  // 0: there is one id for everything, 0 (IsSingle)
  uid_t fetcher = kFetcherHostId;
  uid_t daemon = kDaemonFallbackId;
  bool on_host = true;  // root of the host; else what the keeper's user namespace has

  bool IsSingle() const { return spawners == 0; }
  uid_t OwnerRoot() const { return owner[0].host; }
  uid_t SpawnerHostId(uint64_t version_id) const;
  // What the spawner is in its own user namespace; no image can name it, unless IsSingle.
  uid_t SpawnerInnerId() const { return IsSingle() ? 0 : kSpawnerInnerId; }
  bool Maps(uint32_t id_of_image) const { return MapsId(owner, id_of_image); }
};

// From the text of /proc/self/uid_map and gid_map. Where fewer than 65536 ids are left for images,
// the lowest, and 65532 to 65534, which images like to use.
Result<HostIds> PlanHostIds(std::string_view uid_map, std::string_view gid_map);
Result<HostIds> ReadHostIds();
// Of the host itself: every id there is, under its own number.
bool IsHostIdMap(std::string_view uid_map);

}  // namespace pulga
