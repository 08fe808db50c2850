// What the keeper does before it starts anything: the daemon's ids, the data directory, its lock.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/id_ranges.h"

namespace pulga {

struct DaemonIds {
  uid_t uid = 0;
  gid_t gid = 0;
  bool on_host = true;  // HostIds::on_host
};
// By the host's user database; without that user a fixed unused id, which is logged. Never 0. In a
// user namespace what `host` says, which may be 0: that of the user who started the keeper.
Result<DaemonIds> FindDaemonIds(const std::string& user, const HostIds& host);

struct DataDirectory {
  UniqueFd lock;  // held as long as it is open
  UniqueFd layers;
  UniqueFd volumes;
  std::string path;  // absolute, without symlinks
};
// Makes DATA (0700, the daemon's; rootless: 0770, the user's with the daemon's group, which nobody
// else has), DATA/layers and DATA/volumes (0700, root's), and locks DATA/lock; kAlreadyExists when
// another daemon holds it. A directory with other things and none of these in it is refused,
// unchanged.
Result<DataDirectory> OpenDataDirectory(const std::string& path, const DaemonIds& ids);

}  // namespace pulga
