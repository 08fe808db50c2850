#include "sandbox/kernel_features.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/file_io.h"
#include "base/root_switch.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "base/units.h"
#include "sandbox/apparmor.h"
#include "sandbox/cgroup_dialect.h"
#include "sandbox/cgroup_layout.h"
#include "sandbox/id_ranges.h"
#include "sandbox/isolation.h"
#include "sandbox/kernel_probes.h"
#include "sandbox/program_lookup.h"
#include "sandbox/rootless.h"
#include "sandbox/volumes/volume_tools.h"

namespace pulga {
namespace {

namespace probes = kernel_probes;
using Features = std::vector<Feature>;

constexpr const char* kNeedsRoot = "needs root";

constexpr const char* kOnlyRoot = "of daemons started by root only";

bool IsRefusal(int error) { return error == EPERM || error == EACCES; }

// Root of no more than a user namespace: a user's daemon, or somebody in one.
bool IsOfUser() {
  const auto ids = ReadHostIds();
  return ids.ok() && !ids->on_host;
}

bool IsHostRoot() { return geteuid() == 0 && !IsOfUser(); }

struct Probed {
  const char* name;
  int error;
  const char* advice;    // when it is not there
  FeatureState missing;  // how bad that is
};

// To somebody without root, where root might have it: nothing. To the user who is asked about: no.
enum class Refusal { kSaysNothing, kSaysNo };

// errno of a probe to a feature.
void AddProbed(Features& out, const Probed& probed, Refusal refusal = Refusal::kSaysNothing) {
  if (probed.error == 0) {
    out.push_back({probed.name, FeatureState::kPresent, "", ""});
  } else if (IsRefusal(probed.error) && !IsHostRoot() && refusal == Refusal::kSaysNothing) {
    const char* why = IsOfUser() ? "not for the daemon to find out" : kNeedsRoot;
    out.push_back({probed.name, FeatureState::kUnknown, why, ""});
  } else {
    const std::string detail =
        probed.error == probes::kChildDied ? "the probe was killed" : strerror(probed.error);
    out.push_back({probed.name, probed.missing, detail, probed.advice});
  }
}

void AddNamespaces(Features& out, CgroupsFor whose) {
  struct Kind {
    const char* name;
    int flag;
  };
  constexpr Kind kKinds[] = {{"namespace.user", CLONE_NEWUSER},    {"namespace.mount", CLONE_NEWNS},
                             {"namespace.pid", CLONE_NEWPID},      {"namespace.net", CLONE_NEWNET},
                             {"namespace.uts", CLONE_NEWUTS},      {"namespace.ipc", CLONE_NEWIPC},
                             {"namespace.cgroup", CLONE_NEWCGROUP}};
  for (const Kind& kind : kKinds) {
    const char* advice =
        kind.flag == CLONE_NEWUSER
            ? "functions cannot run without it: set kernel.unprivileged_userns_clone=1 and "
              "user.max_user_namespaces above 0, or use a kernel with CONFIG_USER_NS"
            : "functions cannot run without it: use a kernel built with this namespace";
    const int error = probes::Namespace(kind.flag);
    const std::string users = whose == CgroupsFor::kUser ? WhyNoUserNamespace(error) : "";
    AddProbed(out,
              {kind.name, error, users.empty() ? advice : users.c_str(), FeatureState::kAbsent},
              users.empty() ? Refusal::kSaysNothing : Refusal::kSaysNo);
  }
}

// pivot_root needs a root that hangs on another mount.
void AddRoot(Features& out) {
  const auto mounts = ReadFile("/proc/self/mountinfo", 16 << 20);
  Feature feature{"old_root", FeatureState::kUnknown, "", ""};
  if (mounts.ok()) {
    feature.state = FeatureState::kPresent;
    feature.detail =
        WhatOldRoot(IsFirstRoot(*mounts) ? RootSwitch::kMovedOver : RootSwitch::kPivoted);
  } else {
    feature.detail = mounts.error().message;
  }
  out.push_back(std::move(feature));
}

std::string ControllerAdvice(CgroupController controller) {
  if (controller == CgroupController::kMemory) {
    return "functions cannot run without it: add cgroup_enable=memory to the kernel command line";
  }
  if (controller == CgroupController::kPids) {
    return "functions cannot run without it: use a kernel with CONFIG_CGROUP_PIDS";
  }
  return "limits of this kind are accepted with a warning only";
}

std::string UsersAdvice() {
  return "see cgroup.delegation; or deploy with allow_unenforced, without this limit";
}

std::string WhyNotAUsers(CgroupController controller) {
  if (controller == CgroupController::kDevices) return "only root can limit them";
  return "no cgroup with it was given to this user";
}

// Whether a cgroup was given to this user. Its presence tells a rootless daemon from root's.
void AddDelegation(Features& out, const CgroupLayout& layout) {
  if (!layout.of_user) return;
  const CgroupHierarchy* memory = layout.Find(CgroupController::kMemory);
  const bool whole = memory != nullptr && layout.Find(CgroupController::kPids) != nullptr;
  out.push_back({"cgroup.delegation", whole ? FeatureState::kPresent : FeatureState::kAbsent,
                 memory != nullptr ? memory->base : "", whole ? "" : kHowToDelegate});
}

// It may be there and refused all the same: in a container, or without programs for cgroups.
void TryDeviceLimits(const CgroupHierarchy& hierarchy, Feature& feature) {
  feature.detail += ", " + DeviceLimitsFor(hierarchy.version, HarmlessDevices()).how;
  const int error = probes::DeviceLimits(hierarchy);
  if (error == 0) return;
  const bool unasked = IsRefusal(error) && !IsHostRoot();
  feature.state = unasked ? FeatureState::kUnknown : FeatureState::kAbsent;
  feature.detail = unasked ? kNeedsRoot : feature.detail + ": " + strerror(error);
  if (!unasked) feature.advice = "a kernel with CONFIG_CGROUP_DEVICE, and CONFIG_CGROUP_BPF on v2";
}

void AddCgroups(Features& out, CgroupsFor whose) {
  const auto snapshot = ReadCgroupSnapshot(whose);
  if (!snapshot.ok()) {
    out.push_back({"cgroup", FeatureState::kUnknown, snapshot.error().message, "mount /proc"});
    return;
  }
  const CgroupLayout layout = FindControllers(*snapshot);
  AddDelegation(out, layout);
  std::string v2_base;
  for (int i = 0; i < kCgroupControllers; ++i) {
    const auto controller = static_cast<CgroupController>(i);
    const CgroupHierarchy* hierarchy = layout.Find(controller);
    if (hierarchy == nullptr && controller == CgroupController::kCpuset)
      continue;  // of no use on v2
    Feature feature{"cgroup." + std::string(ControllerName(controller)), FeatureState::kPresent, "",
                    ""};
    if (hierarchy == nullptr) {
      const bool mandatory =
          controller == CgroupController::kMemory || controller == CgroupController::kPids;
      feature.state = mandatory ? FeatureState::kAbsent : FeatureState::kDegraded;
      feature.detail = layout.of_user ? WhyNotAUsers(controller) : "no such controller here";
      feature.advice = layout.of_user ? UsersAdvice() : ControllerAdvice(controller);
    } else {
      feature.detail = hierarchy->version == CgroupVersion::kV1 ? "v1" : "v2";
      if (hierarchy->version == CgroupVersion::kV2) v2_base = hierarchy->base;
      if (controller == CgroupController::kDevices) TryDeviceLimits(*hierarchy, feature);
    }
    out.push_back(std::move(feature));
  }
  if (v2_base.empty()) {
    // Only v1 is in use: processes attach themselves and are killed one by one.
    out.push_back({"cgroup.clone_into", FeatureState::kDegraded, "no v2 controller in use", ""});
    out.push_back({"cgroup.kill", FeatureState::kDegraded, "no v2 controller in use", ""});
    return;
  }
  AddProbed(out, {"cgroup.clone_into", probes::CloneIntoCgroup(v2_base),
                  "starts wait for a slower way into their cgroup", FeatureState::kDegraded});
  AddProbed(out, {"cgroup.kill", probes::FileInNewCgroup(v2_base, "cgroup.kill"),
                  "processes are killed one by one", FeatureState::kDegraded});
}

void AddOverlay(Features& out, CgroupsFor whose) {
  if (whose == CgroupsFor::kUser) {
    AddProbed(out,
              {"overlay.userns", probes::OverlayInUserNamespace(),
               "functions cannot run without it as a user: use Linux 5.11 or later, or root",
               FeatureState::kAbsent},
              Refusal::kSaysNo);
    return;
  }
  AddProbed(out, {"overlay.userns", probes::OverlayInUserNamespace(),
                  "images of several layers cannot be imported; Linux 5.11 can",
                  FeatureState::kDegraded});
}

void AddCalls(Features& out, bool of_user) {
  AddProbed(out, {"seccomp", probes::SeccompFilter(),
                  "functions cannot run without it: use a kernel with CONFIG_SECCOMP_FILTER",
                  FeatureState::kAbsent});
  out.push_back(RefusalLayer(probes::FilterListener()));
  if (of_user) {
    out.push_back({"mount.idmapped", FeatureState::kDegraded, kOnlyRoot, ""});
  } else {
    AddProbed(
        out,
        {"mount.idmapped", probes::IdMappedMount(),
         "host directories can have no owner= (grants.conf); Linux 5.12 can, on most file systems",
         FeatureState::kDegraded});
  }
  AddProbed(out, {"openat2", probes::OpenAt2(), "paths are walked step by step instead",
                  FeatureState::kDegraded});
  AddProbed(out, {"clone3", probes::Clone3(), "clone is used instead", FeatureState::kDegraded});
  AddProbed(out, {"pidfd", probes::PidFd(), "children are watched by SIGCHLD instead",
                  FeatureState::kDegraded});
  AddProbed(out, {"close_range", probes::CloseRangeCloexec(),
                  "descriptors are closed one by one instead", FeatureState::kDegraded});
  const int landlock = probes::LandlockVersion();
  out.push_back(LandlockLayer(std::max(landlock, 0), -std::min(landlock, 0)));
  out.push_back(AppArmorLayer(probes::AppArmorProfile()));
}

// First field after `key` in a "key: value" file.
std::string FieldOf(const std::string& path, std::string_view key) {
  const auto text = ReadFile(path);
  if (!text.ok()) return "";
  for (const std::string_view line : Split(*text, '\n')) {
    if (line.starts_with(key)) return std::string(Trim(line.substr(key.size())));
  }
  return "";
}

// What outbound network (net/) needs of this machine, as far as it shows without trying it.
void AddEgress(Features& out, bool of_user) {
  Feature feature{"network.egress", FeatureState::kPresent, "", ""};
  if (of_user) {
    out.push_back({feature.name, FeatureState::kAbsent, kOnlyRoot, "run pulga serve as root"});
    return;
  }
  const UniqueFd netfilter(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  char self[PATH_MAX] = "";
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  const std::string path(self, static_cast<size_t>(std::max<ssize_t>(n, 0)));
  if (access((path.substr(0, path.rfind('/') + 1) + "pulga-netadmin").c_str(), X_OK) != 0) {
    feature.detail = "pulga-netadmin is not installed";
    feature.advice = "functions get no outbound network; none and host work";
  } else if (!netfilter.valid()) {
    feature.detail = std::string("no nf_tables: ") + strerror(errno);
    feature.advice =
        "functions get no outbound network: a kernel with nf_tables, tproxy, bridge, veth";
  }
  if (!feature.detail.empty()) feature.state = FeatureState::kAbsent;
  out.push_back(std::move(feature));
}

void AddMemory(Features& out) {
  const bool psi = ReadFile("/proc/pressure/memory").ok();
  out.push_back({"psi", psi ? FeatureState::kPresent : FeatureState::kDegraded, "",
                 psi ? "" : "memory pressure is unseen; psi=1 on the kernel command line"});
  const auto swaps = ReadFile("/proc/swaps");
  const bool zram = swaps.ok() && swaps->find("/zram") != std::string::npos;
  out.push_back({"zram", zram ? FeatureState::kPresent : FeatureState::kAbsent,
                 zram ? "in use as swap" : "no zram swap",
                 zram ? "" : "optional: idle instances take a third of the memory with zram swap"});
  const std::string total = FieldOf("/proc/meminfo", "MemTotal:");
  const auto kib = ParseUint(total.substr(0, total.find(' ')));
  out.push_back({"board.memory", kib ? FeatureState::kPresent : FeatureState::kUnknown,
                 kib ? HumanBytes(*kib * 1024) : "", ""});
}

void AddTemperature(Features& out) {
  const auto text = ReadFile("/sys/class/thermal/thermal_zone0/temp");
  const auto millis = text.ok() ? ParseUint(Trim(text->substr(0, text->find('\n')))) : std::nullopt;
  if (!millis) {
    out.push_back({"board.temperature", FeatureState::kAbsent, "no thermal sensor", ""});
    return;
  }
  const uint64_t tenths = *millis / 100;
  out.push_back(
      {"board.temperature", FeatureState::kPresent,
       std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " C",
       tenths >= 800 ? "hot: the processor will be slowed down soon; cool the board" : ""});
}

void AddBoard(Features& out) {
  utsname name = {};
  uname(&name);
  out.push_back({"board.kernel", FeatureState::kPresent, name.release, ""});
  out.push_back({"board.platform", FeatureState::kPresent, BoardPlatform(), ""});
  out.push_back(
      {"board.cores", FeatureState::kPresent, std::to_string(sysconf(_SC_NPROCESSORS_ONLN)), ""});
  out.push_back(
      {"board.page_size", FeatureState::kPresent, std::to_string(sysconf(_SC_PAGESIZE)), ""});
}

// Whether a loop device reads in the name of whoever reads from it. Only a transfer would tell,
// from a disk, within a limit: so the kernel's number does.
Feature VolumeIo() {
  utsname name = {};
  uname(&name);
  Feature feature{"volume.io", FeatureState::kPresent, "what is read counts for the function", ""};
  if (LoopChargesReaders(name.release)) return feature;
  feature.state = FeatureState::kDegraded;
  feature.detail = "before Linux 5.14 it counts for nobody";
  feature.advice = "limits.io_read_bps is refused beside a volume";
  return feature;
}

// What functions can have volumes by.
void AddVolumes(Features& out, bool of_user) {
  if (of_user) {
    out.push_back({"volume.loop", FeatureState::kAbsent, kOnlyRoot, "run pulga serve as root"});
    return;
  }
  const UniqueFd control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  AddProbed(out, {"volume.loop", control.valid() ? 0 : errno,
                  "functions cannot have volumes: modprobe loop, or use a kernel with "
                  "CONFIG_BLK_DEV_LOOP",
                  FeatureState::kAbsent});
  const auto known = ReadFile("/proc/filesystems");
  const bool ext4 = known.ok() && known->find("\text4\n") != std::string::npos;
  out.push_back(
      {"volume.ext4", ext4 ? FeatureState::kPresent : FeatureState::kUnknown,
       ext4 ? "" : "not loaded",
       ext4 ? "" : "volumes are ext4: modprobe ext4, or use a kernel with CONFIG_EXT4_FS"});
  std::string missing;
  for (const char* tool : {"mke2fs", "e2fsck"}) {
    if (FindVolumeTool(tool).empty()) missing += (missing.empty() ? "" : ", ") + std::string(tool);
  }
  out.push_back(VolumeIo());
  out.push_back({"volume.tools", missing.empty() ? FeatureState::kPresent : FeatureState::kAbsent,
                 missing.empty() ? "" : missing + " not found",
                 missing.empty() ? "" : "volumes cannot be made or repaired: install e2fsprogs"});
}

// Some containers and virtual machines give root without this: hard limits then only go down.
void AddPrivileges(Features& out) {
  constexpr uint64_t kSysResource = 1ULL << 24;
  if (IsOfUser()) {
    out.push_back({"privilege.root", FeatureState::kAbsent, "a daemon of an ordinary user",
                   "docs/rootless.md says what differs"});
    return;
  }
  if (geteuid() != 0) {
    out.push_back({"privilege.root", FeatureState::kUnknown, "running without root",
                   "root can find out more of this list: sudo pulga doctor"});
    return;
  }
  out.push_back({"privilege.root", FeatureState::kPresent, "", ""});
  const auto set = HexDecode(FieldOf("/proc/self/status", "CapEff:"));
  uint64_t bits = 0;
  for (const char c : set.value_or("")) bits = bits << 8 | static_cast<unsigned char>(c);
  const bool has = (bits & kSysResource) != 0;
  out.push_back({"privilege.sys_resource", has ? FeatureState::kPresent : FeatureState::kDegraded,
                 has ? "" : "root without CAP_SYS_RESOURCE",
                 has ? "" : "limits above the present hard ones and OOM scores cannot be set"});
}

// Of the caller: the daemon, or a doctor who tells what a daemon would have.
void AddOomProtection(Features& out) {
  const auto score = ReadFile("/proc/self/oom_score_adj");
  const bool spared = score.ok() && score->starts_with('-');
  const Feature* may = FindFeature(out, "privilege.sys_resource");
  if (spared || (may != nullptr && may->state == FeatureState::kPresent)) {
    out.push_back({"privilege.oom_score", FeatureState::kPresent,
                   "keeper, launcher and daemon are the last the kernel ends", ""});
    return;
  }
  out.push_back({"privilege.oom_score", FeatureState::kDegraded,
                 "the daemon is not spared when memory is short, but functions go first",
                 "start it as root with CAP_SYS_RESOURCE, or by a unit with OOMScoreAdjust=-900"});
}

// The least of what they say: 0 where one says nothing, or there is none.
uint64_t LeastMemoryMin(const std::vector<std::string>& cgroups) {
  uint64_t least = cgroups.empty() ? 0 : UINT64_MAX;
  for (const std::string& cgroup : cgroups) {
    const auto text = ReadFile(cgroup + "/memory.min");
    if (text.ok() && text->starts_with("max")) continue;
    const auto bytes =
        text.ok() ? ParseUint(text->substr(0, text->find('\n'))) : std::optional<uint64_t>();
    least = std::min(least, bytes.value_or(0));
  }
  return least;
}

// Of the caller's cgroup, as AddOomProtection.
void AddMemoryMin(Features& out, CgroupsFor whose) {
  const auto snapshot = ReadCgroupSnapshot(whose);
  const uint64_t kept = snapshot.ok() ? LeastMemoryMin(MemoryMinChain(*snapshot)) : 0;
  if (kept > 0) {
    out.push_back({"privilege.memory_min", FeatureState::kPresent,
                   (kept == UINT64_MAX ? "all" : HumanBytes(kept)) +
                       " of keeper, launcher and daemon stays in memory",
                   ""});
    return;
  }
  bool v1 = false;
  if (snapshot.ok()) {
    const CgroupLayout layout = FindControllers(*snapshot);
    const CgroupHierarchy* memory = layout.Find(CgroupController::kMemory);
    v1 = memory != nullptr && memory->version == CgroupVersion::kV1;
  }
  out.push_back({"privilege.memory_min", FeatureState::kDegraded,
                 "the daemon's pages are reclaimed like any others",
                 v1 ? "cgroup v1 has no memory.min: boot with systemd.unified_cgroup_hierarchy=1"
                    : "start it by a unit with MemoryMin=32M and Delegate=yes"});
}

// Of a rootless daemon: which ids there are for the ids of images.
void AddIds(Features& out, CgroupsFor whose) {
  Feature feature{"rootless.ids", FeatureState::kPresent, "", ""};
  if (whose == CgroupsFor::kUser) {
    feature.advice = WhyOneIdOnly();
  } else {
    const auto ids = ReadHostIds();
    if (!ids.ok() || ids->on_host) return;
    if (ids->IsSingle()) feature.advice = "pulga doctor, run as that user, says what is missing";
    const uint32_t most = ids->owner.back().inside + ids->owner.back().count;
    feature.detail = std::to_string(most) + (most == 1 ? " id" : " ids") + " for images";
  }
  if (!feature.advice.empty()) {
    feature.state = FeatureState::kDegraded;
    feature.detail = "one id for the user, the daemon and all functions";
  }
  out.push_back(std::move(feature));
}

// What the daemon raises its own limit to.
void AddOpenFiles(Features& out) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const uint32_t room = ConnectionsWithin(limit.rlim_max);
  const bool enough = room >= kUsualConnections;
  out.push_back({"limit.open_files", enough ? FeatureState::kPresent : FeatureState::kDegraded,
                 std::to_string(limit.rlim_max),
                 enough ? ""
                        : "room for " + std::to_string(room) +
                              " connections at once: raise the hard limit (ulimit -Hn, "
                              "LimitNOFILE=), 4096 is plenty"});
}

}  // namespace

bool LoopChargesReaders(std::string_view release) {
  const std::vector<std::string_view> parts = Split(release, '.');
  if (parts.size() < 2) return false;
  const auto major = ParseUint(parts[0], 9999);
  const auto minor = ParseUint(parts[1].substr(0, parts[1].find_first_not_of("0123456789")), 9999);
  return major && minor && std::pair(*major, *minor) >= std::pair<uint64_t, uint64_t>(5, 14);
}

uint32_t ConnectionsWithin(uint64_t open_files) {
  const uint64_t reserve = std::min<uint64_t>(256, open_files / 2);
  return static_cast<uint32_t>(std::clamp<uint64_t>((open_files - reserve) / 2, 4, 1U << 30));
}

std::string_view FeatureStateName(FeatureState state) {
  switch (state) {
    case FeatureState::kPresent:
      return "present";
    case FeatureState::kDegraded:
      return "degraded";
    case FeatureState::kAbsent:
      return "absent";
    case FeatureState::kUnknown:
      return "unknown";
  }
  return "unknown";
}

std::vector<Feature> ProbeKernelFeatures(CgroupsFor whose) {
  const bool of_user = whose == CgroupsFor::kUser || IsOfUser();
  Features out;
  AddBoard(out);
  AddMemory(out);
  AddTemperature(out);
  AddPrivileges(out);
  AddOomProtection(out);
  AddMemoryMin(out, whose);
  AddIds(out, whose);
  AddOpenFiles(out);
  AddNamespaces(out, whose);
  AddRoot(out);
  AddCgroups(out, whose);
  AddOverlay(out, whose);
  AddCalls(out, of_user);
  AddEgress(out, of_user);
  AddVolumes(out, of_user);
  return out;
}

const Feature* FindFeature(const std::vector<Feature>& features, std::string_view name) {
  for (const Feature& feature : features) {
    if (feature.name == name) return &feature;
  }
  return nullptr;
}

}  // namespace pulga
