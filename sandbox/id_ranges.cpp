#include "sandbox/id_ranges.h"

#include <algorithm>

#include "base/file_io.h"

namespace pulga {
namespace {

constexpr uint32_t kFewestIds = 64;          // below, one for everything is all there is
constexpr uint32_t kManySpawners = 256;      // one for each version
constexpr uint32_t kFewSpawners = 8;         // a user may have 200 keyrings: 25 versions each
constexpr uint32_t kFirstFavourite = 65532;  // "nonroot" of many images, ... nobody
constexpr uint32_t kFavourites = 3;

// How many ids from `first` on are mapped without a gap.
uint64_t MappedFrom(const std::vector<IdExtent>& map, uint64_t first) {
  uint64_t next = first;
  for (const IdExtent& extent : map) {
    const uint64_t end = uint64_t{extent.inside} + extent.count;
    if (extent.inside <= next && end > next) next = end;
  }
  return next - first;
}

bool HasHostRanges(const std::vector<IdExtent>& map) {
  return MappedFrom(map, kOwnerIdBase) >= kMappedIds &&
         MappedFrom(map, kSpawnerIdBase) >= kMappedIds && MappedFrom(map, kFetcherHostId) >= 1 &&
         MappedFrom(map, kDaemonFallbackId) >= 1;
}

HostIds OneForAll() {
  HostIds ids;
  ids.owner = {{0, 0, 1}};
  ids.spawner_base = ids.fetcher = ids.daemon = 0;
  ids.spawners = 0;
  ids.on_host = false;
  return ids;
}

}  // namespace

uid_t HostIds::SpawnerHostId(uint64_t version_id) const {
  return IsSingle() ? 0 : spawner_base + static_cast<uid_t>(version_id % spawners);
}

bool IsHostIdMap(std::string_view uid_map) {
  const std::vector<IdExtent> map = ParseIdMap(uid_map);
  return map.size() == 1 && map[0].inside == 0 && map[0].host == 0 && map[0].count == UINT32_MAX;
}

Result<HostIds> PlanHostIds(std::string_view uid_map, std::string_view gid_map) {
  const std::vector<IdExtent> uids = ParseIdMap(uid_map);
  const std::vector<IdExtent> gids = ParseIdMap(gid_map);
  if (HasHostRanges(uids) && HasHostRanges(gids)) return HostIds();
  const uint64_t both = std::min(MappedFrom(uids, 0), MappedFrom(gids, 0));
  if (both == 0) {
    return Error{Code::kUnsupported, 0, "id-ranges: id 0 is not mapped in this user namespace"};
  }
  if (both < kFewestIds) return OneForAll();
  HostIds ids;
  ids.on_host = false;
  ids.daemon = 1;  // 0 is whoever started the keeper
  ids.fetcher = 2;
  ids.spawner_base = 3;
  ids.spawners = both >= kMappedIds + 3 + kManySpawners ? kManySpawners : kFewSpawners;
  const uint32_t base = ids.spawner_base + ids.spawners;
  const auto left = static_cast<uint32_t>(std::min<uint64_t>(both - base, kMappedIds));
  ids.owner = {{0, base, left}};
  if (left < kMappedIds) {
    const uint32_t low = left - kFavourites;
    ids.owner = {{0, base, low}, {kFirstFavourite, base + low, kFavourites}};
  }
  return ids;
}

Result<HostIds> ReadHostIds() {
  PULGA_ASSIGN_OR_RETURN(const std::string uid_map, ReadFile("/proc/self/uid_map"));
  PULGA_ASSIGN_OR_RETURN(const std::string gid_map, ReadFile("/proc/self/gid_map"));
  return PlanHostIds(uid_map, gid_map);
}

}  // namespace pulga
