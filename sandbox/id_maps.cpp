#include "sandbox/id_maps.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <string>

#include "base/sys.h"
#include "base/unique_fd.h"

namespace pulga {

Status WriteIdMapTexts(int proc_fd, pid_t child, const IdMapTexts& maps) {
  struct statfs fs = {};
  if (PULGA_SYS(fstatfs, proc_fd, &fs) != 0 || fs.f_type != PROC_SUPER_MAGIC) {
    return Error{Code::kIo, 0, "id-maps: /proc is no proc file system"};
  }
  for (const std::string* map : {&maps.uids, &maps.gids}) {
    const std::string path = std::to_string(child) + (map == &maps.uids ? "/uid_map" : "/gid_map");
    const UniqueFd fd(PULGA_SYS(openat, proc_fd, path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.valid()) return LastError("id-maps: open " + path);
    // One write: the kernel takes a map whole or not at all.
    if (PULGA_SYS(write, fd.get(), map->data(), map->size()) != static_cast<ssize_t>(map->size())) {
      return LastError("id-maps: write " + path);
    }
  }
  return OkStatus();
}

Status WriteIdMaps(int proc_fd, pid_t child, const HostIds& ids,
                   std::optional<uid_t> extra_host_id) {
  std::string map;
  for (const IdExtent& extent : ids.owner) {
    map += std::to_string(extent.inside) + " " + std::to_string(extent.host) + " " +
           std::to_string(extent.count) + "\n";
  }
  // With one id for everything it is mapped already, and may be only once.
  if (extra_host_id.has_value() && !ids.IsSingle()) {
    map += std::to_string(kSpawnerInnerId) + " " + std::to_string(*extra_host_id) + " 1\n";
  }
  return WriteIdMapTexts(proc_fd, child, {map, map});
}

Status WriteSingleIdMap(int proc_fd, pid_t child, uid_t host_id) {
  const std::string map = "0 " + std::to_string(host_id) + " 1\n";
  return WriteIdMapTexts(proc_fd, child, {map, map});
}

}  // namespace pulga
