#include "sandbox/volumes/owned_mount.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/process.h"
#include "base/sys.h"
#include "base/unique_fd.h"
#include "sandbox/clone_child.h"
#include "sandbox/id_ranges.h"

namespace pulga {
namespace {

std::string Extent(uint64_t inside, uint64_t host, uint64_t count) {
  if (count == 0) return "";
  return std::to_string(inside) + " " + std::to_string(host) + " " + std::to_string(count) + "\n";
}

// The one id, and all others parked, so that the bits for others apply to them as ever.
std::string MapOf(uint32_t on_disk, uint32_t shown_as) {
  const uint64_t next = uint64_t{on_disk} + 1;
  return Extent(0, kParkedIdBase, on_disk) + Extent(on_disk, shown_as, 1) +
         Extent(next, kParkedIdBase + next, kHostIdLimit - next);
}

// Until its end of the pipe says that nobody is there any more.
void HoldAndExit(void* argument) {
  const int wait_fd = *static_cast<int*>(argument);
  CloseAllBut({wait_fd});
  char byte;
  while (read(wait_fd, &byte, 1) < 0 && errno == EINTR) {
  }
  _exit(0);
}

// A user namespace needs a process only until somebody has it open.
Result<UniqueFd> MakeUserNamespace(const IdMapTexts& maps) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd proc, OpenFile("/proc", O_PATH | O_DIRECTORY));
  int ends[2];
  if (PULGA_SYS(pipe2, ends, O_CLOEXEC) != 0) return LastError("pipe");
  UniqueFd wait_end(ends[0]);
  UniqueFd go_end(ends[1]);
  int wait_fd = wait_end.get();
  CloneOptions options;
  options.flags = CLONE_NEWUSER;
  const pid_t pid = CloneChild(options, HoldAndExit, &wait_fd);
  if (pid < 0) return LastError("clone a user namespace");
  const Status mapped = WriteIdMapTexts(proc.get(), pid, maps);
  UniqueFd held;
  const std::string path = std::to_string(pid) + "/ns/user";
  if (mapped.ok())
    held = UniqueFd(PULGA_SYS(openat, proc.get(), path.c_str(), O_RDONLY | O_CLOEXEC));
  const int error = errno;
  go_end.Reset();
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  PULGA_RETURN_IF_ERROR(mapped);
  if (!held.valid()) return ErrnoError("open a user namespace", error);
  return held;
}

// A kernel or a file system that knows no such mounts says so in many ways.
Error WhyNot(const char* call, const HostOwner& owner) {
  const int error = errno;
  const bool unknown = error == ENOSYS || error == EINVAL || error == EPERM || error == EOPNOTSUPP;
  Error out = ErrnoError("owner=" + FormatOwner(owner) + " of grants.conf: " + call, error);
  if (!unknown) return out;
  out.code = Code::kUnsupported;
  out.message += error == ENOSYS ? ": id-mapped mounts need Linux 5.12"
                                 : ": this file system, or this kernel, has no id-mapped mounts";
  return out;
}

}  // namespace

IdMapTexts MapsOfOwner(const OwnerChange& change) {
  return {MapOf(change.on_disk.uid, change.shown_as.uid),
          MapOf(change.on_disk.gid, change.shown_as.gid)};
}

Status MountOwned(const OwnedMount& order) {
  const HostOwner& owner = order.owner.on_disk;
  auto ids = MakeUserNamespace(MapsOfOwner(order.owner));
  if (!ids.ok()) return Prefix("owner=" + FormatOwner(owner) + " of grants.conf", ids.error());
  const UniqueFd mount(PULGA_SYS(sys::CloneMount, order.directory_fd));
  if (!mount.valid()) return WhyNot("open_tree", owner);
  const uint64_t attributes = MOUNT_ATTR_IDMAP | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                              (order.use == MountUse::kReadOnly ? MOUNT_ATTR_RDONLY : 0);
  if (PULGA_SYS(sys::SetMountAttributes, mount.get(), attributes, ids->get()) != 0) {
    return WhyNot("mount_setattr", owner);
  }
  if (PULGA_SYS(sys::AttachMount, mount.get(), order.target.c_str()) != 0) {
    return WhyNot("move_mount", owner);
  }
  return OkStatus();
}

}  // namespace pulga
