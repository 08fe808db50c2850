// What is mounted where, as lists: once per version (the template, its root already the image's)
// and once per instance. Pure but for the two Read functions. Targets are real directories of the
// skeleton (skeleton.h) or of a tmpfs of ours, in a root nobody else can change.
// Source: docs/security.md, profile 1 items 5-7; laws 4 and 7 (few mounts, proc masks only what an
// unprivileged id can read at all; the template keeps one unmasked proc covered in every instance).
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <vector>

#include "sandbox/cgroup_view.h"
#include "sandbox/sandbox.h"

namespace pulga {

enum class MountKind : uint8_t {
  kDirectory,  // mkdir target (in a tmpfs of ours), nothing mounted
  kFile,       // create target with `data` as its text
  kSymlink,    // symlink target -> source
  kMount,      // mount(source, target, fstype, flags, data)
  kBind,       // bind source on target; with `flags`, remount with them (else the source's stay)
  kDevice,     // a node of `device_type` and `device`; where mknod is forbidden, source bound and
               // verified
  kRemount,    // change flags of the mount at target
};

struct MountEntry {
  MountKind kind = MountKind::kMount;
  std::string source = {};  // kBind: an absolute path in the caller's present view
  std::string target = {};  // relative to the root, no leading slash: "dev/null"
  std::string fstype = {};
  unsigned long flags = 0;
  std::string data = {};
  dev_t device = 0;  // kDevice
  mode_t device_type = S_IFCHR;
  long magic = 0;         // kMount: what statfs must say of the target afterwards
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

// A directory or a file of the host's /sys that runtimes read to size themselves.
struct SysEntry {
  std::string path;  // "devices/system/cpu/online"
  bool directory = false;
  std::string text = {};
};
std::vector<SysEntry> ReadSysEntries(const std::string& sys_dir);

// The version's /dev, one small tmpfs, read-only in the end: null zero full random urandom, links
// to /proc/self/fd; and its /sys, another: no sysfs, but copies of a few files of one, and where
// instances mount `views`; those of the version are the directory `version_cgroup` of the caller's
// present view. For a caller with the host's privileges.
struct TemplateMountOptions {
  std::vector<SysEntry> sys;
  std::vector<CgroupView> views;
  std::string version_cgroup;
  std::vector<MountEntry> devices = {};  // DeviceMounts() of the granted ones
};
std::vector<MountEntry> TemplateMounts(const TemplateMountOptions& options);
// The one unmasked proc; by the spawner, first process of its pid namespace.
std::vector<MountEntry> SpawnerMounts();

struct InstanceMountOptions {
  SandboxLimits limits;
  std::vector<ProcEntry> proc;
  std::vector<CgroupView> views;
  uid_t uid = 0;  // whose /run is
  gid_t gid = 0;
  bool secrets = false;  // found in kSecretsDirectory: a link in /run leads there
};
// Per instance, inside its own namespaces, root = the template: proc (read-only, masked), what it
// sees of its cgroup, and all it can write to: the tmpfs /tmp, /run and /dev/shm.
std::vector<MountEntry> InstanceMounts(const InstanceMountOptions& options);

}  // namespace pulga
