// What the keeper does before it starts anything: the daemon's ids, the data directory, its lock.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

struct DaemonIds {
  uid_t uid = 0;
  gid_t gid = 0;
};
// By the host's user database; without that user a fixed unused id, which is logged. Never 0.
Result<DaemonIds> FindDaemonIds(const std::string& user);

struct DataDirectory {
  UniqueFd lock;  // held as long as it is open
  UniqueFd layers;
  std::string path;  // absolute, without symlinks
};
// Makes DATA (0700, the daemon's), DATA/layers (0700, root's), and locks DATA/lock; kAlreadyExists
// when another daemon holds it. A directory with other things and none of these in it is refused,
// unchanged.
Result<DataDirectory> OpenDataDirectory(const std::string& path, const DaemonIds& ids);

}  // namespace pulga
