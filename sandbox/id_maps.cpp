#include "sandbox/id_maps.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <string>

#include "base/sys.h"
#include "base/unique_fd.h"
#include "sandbox/id_ranges.h"

namespace pulga {

namespace {

Status WriteMaps(int proc_fd, pid_t child, const std::string& map) {
  struct statfs fs = {};
  if (fstatfs(proc_fd, &fs) != 0 || fs.f_type != PROC_SUPER_MAGIC) {
    return Error{Code::kIo, 0, "id-maps: /proc is no proc file system"};
  }
  for (const char* name : {"/uid_map", "/gid_map"}) {
    const std::string path = std::to_string(child) + name;
    const UniqueFd fd(PULGA_SYS(openat, proc_fd, path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.valid()) return LastError("id-maps: open " + path);
    // One write: the kernel takes a map whole or not at all.
    if (PULGA_SYS(write, fd.get(), map.data(), map.size()) != static_cast<ssize_t>(map.size())) {
      return LastError("id-maps: write " + path);
    }
  }
  return OkStatus();
}

}  // namespace

Status WriteIdMaps(int proc_fd, pid_t child, std::optional<uid_t> extra_host_id) {
  std::string map = "0 " + std::to_string(kOwnerIdBase) + " " + std::to_string(kMappedIds) + "\n";
  if (extra_host_id.has_value()) {
    map += std::to_string(kSpawnerInnerId) + " " + std::to_string(*extra_host_id) + " 1\n";
  }
  return WriteMaps(proc_fd, child, map);
}

Status WriteSingleIdMap(int proc_fd, pid_t child, uid_t host_id) {
  return WriteMaps(proc_fd, child, "0 " + std::to_string(host_id) + " 1\n");
}

}  // namespace pulga
