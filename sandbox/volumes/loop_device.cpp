#include "sandbox/volumes/loop_device.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"

namespace pulga {
namespace {

// Debian 12's header has them; what an older one lacks stands here.
#ifndef LOOP_CONFIGURE
#define LOOP_CONFIGURE 0x4C0A
struct loop_config {
  __u32 fd;
  __u32 block_size;
  struct loop_info64 info;
  __u64 reserved[8];
};
#endif

constexpr int kTries = 64;  // somebody else may be taking the free one just now

Error Unsupported(const std::string& step, int error, const char* advice) {
  return Error{Code::kUnsupported, error, step + ": " + advice};
}

Result<UniqueFd> OpenDevice(const std::string& name) {
  return OpenFile("/dev/" + name, O_RDWR | O_NOFOLLOW);
}

// Whether the device stands on the file `image`. One that is just going away does not.
bool IsOn(int loop_fd, const struct stat& image) {
  loop_info64 info = {};
  if (PULGA_SYS(ioctl, loop_fd, LOOP_GET_STATUS64, &info) != 0) return false;
  return info.lo_inode == image.st_ino && info.lo_device == image.st_dev;
}

}  // namespace

Result<UniqueFd> OpenLoopControl() {
  UniqueFd control(PULGA_SYS(open, "/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (control.valid()) return control;
  if (errno == EACCES || errno == EPERM) {
    return Unsupported("loop-control", errno, "volumes need a daemon that root started");
  }
  return Unsupported("loop-control", errno,
                     "this kernel has no loop devices: modprobe loop, or CONFIG_BLK_DEV_LOOP");
}

Result<UniqueFd> AttachLoop(int image_fd) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd control, OpenLoopControl());
  for (int i = 0; i < kTries; ++i) {
    const int number = PULGA_SYS(ioctl, control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return LastError("loop-free");
    PULGA_ASSIGN_OR_RETURN(UniqueFd device, OpenDevice("loop" + std::to_string(number)));
    loop_config config = {};
    config.fd = static_cast<__u32>(image_fd);
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (PULGA_SYS(ioctl, device.get(), LOOP_CONFIGURE, &config) == 0) return device;
    if (errno == EBUSY) continue;
    if (errno == EINVAL || errno == ENOTTY) {
      return Unsupported("loop-configure", errno, "Linux 5.8 or later is needed");
    }
    return LastError("loop-configure");
  }
  return Error{Code::kUnavailable, EBUSY, "loop-configure: every free device was taken"};
}

Result<UniqueFd> FindLoop(int image_fd, const std::string& file_name) {
  struct stat image = {};
  if (fstat(image_fd, &image) != 0) return LastError("loop-find: stat");
  const std::unique_ptr<DIR, int (*)(DIR*)> blocks(opendir("/sys/block"), &closedir);
  if (blocks == nullptr) return LastError("loop-find: /sys/block");
  while (const dirent* entry = readdir(blocks.get())) {
    const std::string name = entry->d_name;
    if (name.rfind("loop", 0) != 0) continue;
    const auto backing = ReadFile("/sys/block/" + name + "/loop/backing_file");
    // By its name first: strangers' devices are not even opened.
    if (!backing.ok() || backing->find("/" + file_name) == std::string::npos) continue;
    auto device = OpenDevice(name);
    if (device.ok() && IsOn(device->get(), image)) return device;
  }
  return Error{Code::kNotFound, 0, "loop-find: not attached"};
}

}  // namespace pulga
