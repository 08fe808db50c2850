// What is mounted where, as lists: once per version (the template, its root already the image's)
// and once per instance. Pure but for ReadProcEntries. The caller opens each target inside the root
// without following symlinks and mounts on that fd.
// Source: docs/security.md, profile 1 items 5-7; laws 4 and 7 (few mounts, proc masks only what an
// unprivileged id can read at all; the template keeps one unmasked proc covered in every instance).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sandbox/sandbox.h"

namespace pulga {

enum class MountKind : uint8_t {
  kDirectory,  // mkdir target (in a tmpfs of ours), nothing mounted
  kFile,       // create target, empty
  kSymlink,    // symlink target -> source
  kMount,      // mount(source, target, fstype, flags, data)
  kBind,       // bind source on target, then remount with `flags`
  kRemount,    // change flags of the mount at target
};

struct MountEntry {
  MountKind kind = MountKind::kMount;
  std::string source;  // kBind: an absolute path in the caller's present view
  std::string target;  // relative to the root, no leading slash: "dev/null"
  std::string fstype;
  unsigned long flags = 0;
  std::string data;
  std::string step;  // "mount-proc": the name a failure is reported under
};

// In the root's /dev after the template is mounted.
inline constexpr const char* kDeviceNames[] = {"null", "zero", "full", "random", "urandom"};
// Where the template keeps what masks are made of; below /dev, read-only, unreadable.
inline constexpr std::string_view kMaskDirectory = "dev/.mask";

// An entry of /proc that security wants hidden, as this kernel has it.
struct ProcEntry {
  std::string name;  // "interrupts"
  bool directory = false;
  bool readable_by_others = false;
};
std::vector<ProcEntry> ReadProcEntries(const std::string& proc_dir);

// Host devices are bound from `host_dev` ("/dev" in the caller's view), each to be verified by the
// caller with IsExpectedDevice. /dev ends read-only; /dev/shm is a link into the instance's /tmp.
std::vector<MountEntry> TemplateMounts(const std::string& host_dev);
// Per instance, inside its own namespaces, root = the template: proc (read-only, masked), /tmp.
std::vector<MountEntry> InstanceMounts(const SandboxLimits& limits,
                                       const std::vector<ProcEntry>& proc);
// Char 1:3 for "null" and so on.
bool IsExpectedDevice(const std::string& name, mode_t mode, dev_t rdev);

}  // namespace pulga
