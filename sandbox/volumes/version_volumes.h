// The volumes of a version, mounted by its set-up child on the root that it builds: file systems of
// their own, data sets (images, as read-only overlays), directories of the host. All nosuid, nodev;
// every instance inherits them. Own process; the current directory holds root/ and the skeleton.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/access_spec.h"
#include "sandbox/skeleton.h"
#include "sandbox/volumes/owned_mount.h"
#include "sandbox/volumes/quota_volume.h"
#include "sandbox/volumes/volumes_dir.h"

namespace pulga {

// Makes the mount points in the skeleton and replaces each path by the one it has inside, free of
// the image's symlinks: the directories the function may write to, for those who need to know.
Status PlaceVolumes(const SkeletonOptions& skeleton, std::vector<VolumeMount>& volumes);

// A volume, with the layers of a data set already open, or the directory with a quota that it is.
struct OpenVolume {
  VolumeMount mount;
  std::vector<UniqueFd> layers;
  QuotaMount folder;
  std::optional<OwnerChange> owner = {};  // of a host directory
};
// What has to be held before the child leaves the launcher's mounts; without layers.
Result<std::vector<OpenVolume>> HoldVolumes(const VolumesDir* dir,
                                            const std::vector<VolumeMount>& volumes);
// On root/PATH each. `dir` may be nullptr where there are no volumes. kNotFound, kIo, ...: what was
// mounted goes with the mount namespace.
Status MountVolumes(const VolumesDir* dir, const std::vector<OpenVolume>& volumes);

// What the launcher can say about resolved volumes before it forks: kInvalidArgument, kNotFound.
Status CheckResolved(const std::vector<VolumeMount>& volumes);

// "userxattr,lowerdir=TOP:/proc/self/fd/N:..." with the last layer on top: 128 fit into one page.
std::string OverlayOptions(const std::string& top, const std::vector<UniqueFd>& layers);

}  // namespace pulga
