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
  kBind,       // bind source on target; with `flags`, remount with them (else the source's stay)
  kDevice,     // a character device `device`; where mknod is forbidden, source bound and verified
  kRemount,    // change flags of the mount at target
};

struct MountEntry {
  MountKind kind = MountKind::kMount;
  std::string source = {};  // kBind: an absolute path in the caller's present view
  std::string target = {};  // relative to the root, no leading slash: "dev/null"
  std::string fstype = {};
  unsigned long flags = 0;
  std::string data = {};
  dev_t device = 0;       // kDevice
  std::string step = {};  // "mount-proc": the name a failure is reported under
};

// An empty directory, below which /proc directories are hidden; files are hidden by /dev/null.
inline constexpr std::string_view kMaskDirectory = "dev/.mask";

// An entry of /proc that security wants hidden, as this kernel has it.
struct ProcEntry {
  std::string name;  // "interrupts"
  bool directory = false;
  bool readable_by_others = false;
};
std::vector<ProcEntry> ReadProcEntries(const std::string& proc_dir);

// The version's /dev, one small tmpfs, read-only in the end: null zero full random urandom, links
// to /proc/self/fd, /dev/shm as a link to the instance's /tmp. For a caller with the host's
// privileges.
std::vector<MountEntry> TemplateMounts();
// The one unmasked proc; by the spawner, first process of its pid namespace.
std::vector<MountEntry> SpawnerMounts();
// Per instance, inside its own namespaces, root = the template: proc (read-only, masked), /tmp.
std::vector<MountEntry> InstanceMounts(const SandboxLimits& limits,
                                       const std::vector<ProcEntry>& proc);

}  // namespace pulga
