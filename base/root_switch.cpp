#include "base/root_switch.h"

#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kMaxMounts = 16 << 20;

struct MountLine {
  std::string_view id;
  std::string_view parent;
  std::string_view point;
  bool first() const { return point == "/" && id == parent; }
};

std::vector<MountLine> ParseMounts(std::string_view mountinfo) {
  std::vector<MountLine> out;
  for (const std::string_view line : Split(mountinfo, '\n')) {
    const auto fields = Split(line, ' ');
    if (fields.size() > 4) out.push_back({fields[0], fields[1], fields[4]});
  }
  return out;
}

Result<std::string> ReadMounts(int fd) {
  if (PULGA_SYS(lseek, fd, 0, SEEK_SET) != 0) return LastError("read the mounts");
  return ReadFd(fd, kMaxMounts);
}

// Names are looked up from the old root: they never lead into what lies over it. EINVAL, ENOENT: it
// went with another one, or the kernel holds it fast in a user namespace; then it has no path.
Status DetachBeside(std::string_view mountinfo) {
  for (const std::string& point : MountsBeside(mountinfo)) {
    if (PULGA_SYS(umount2, point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) continue;
    if (errno != EINVAL && errno != ENOENT) return LastError("detach " + point);
  }
  return OkStatus();
}

Status MoveOver(int mountinfo_fd) {
  if (PULGA_SYS(mount, ".", "/", nullptr, MS_MOVE, nullptr) != 0) return LastError("move-root");
  PULGA_ASSIGN_OR_RETURN(const std::string mounts, ReadMounts(mountinfo_fd));
  PULGA_RETURN_IF_ERROR(DetachBeside(mounts));
  if (PULGA_SYS(chroot, ".") != 0) return LastError("change-root");
  return OkStatus();
}

}  // namespace

bool IsFirstRoot(std::string_view mountinfo) {
  const auto mounts = ParseMounts(mountinfo);
  return std::any_of(mounts.begin(), mounts.end(), [](const auto& line) { return line.first(); });
}

std::vector<std::string> MountsBeside(std::string_view mountinfo) {
  const auto mounts = ParseMounts(mountinfo);
  std::set<std::string_view> over;  // by id: over "/", and on what lies there
  for (size_t before = mounts.size() + 1; before != over.size();) {
    before = over.size();  // a moved mount may be listed above the one it hangs on
    for (const MountLine& line : mounts) {
      if (line.first()) continue;
      if (line.point == "/" || over.contains(line.parent)) over.insert(line.id);
    }
  }
  std::vector<std::string> out;
  for (const MountLine& line : mounts) {
    if (!line.first() && !over.contains(line.id)) out.push_back(UnescapeOctal(line.point));
  }
  std::reverse(out.begin(), out.end());
  return out;
}

Result<RootSwitch> SwitchRoot(int mountinfo_fd) {
  RootSwitch way = RootSwitch::kPivoted;
  if (PULGA_SYS(sys::PivotRoot, ".", ".") == 0) {
    // The old root lies over the new one for a moment.
    if (PULGA_SYS(umount2, ".", MNT_DETACH) != 0) return LastError("detach-old-root");
  } else {
    const Error refused = LastError("pivot-root");
    if (refused.sys_errno != EINVAL) return refused;
    PULGA_ASSIGN_OR_RETURN(const std::string mounts, ReadMounts(mountinfo_fd));
    if (!IsFirstRoot(mounts)) return refused;
    PULGA_RETURN_IF_ERROR(MoveOver(mountinfo_fd));
    way = RootSwitch::kMovedOver;
  }
  if (PULGA_SYS(chdir, "/") != 0) return LastError("enter-root");
  return way;
}

}  // namespace pulga
