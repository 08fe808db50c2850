#include "sandbox/kernel_features.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/file_io.h"
#include "base/text.h"
#include "base/units.h"
#include "sandbox/cgroup_layout.h"
#include "sandbox/kernel_probes.h"
#include "sandbox/program_lookup.h"

namespace pulga {
namespace {

namespace probes = kernel_probes;
using Features = std::vector<Feature>;

constexpr const char* kNeedsRoot = "needs root";

bool IsRefusal(int error) { return error == EPERM || error == EACCES; }

struct Probed {
  const char* name;
  int error;
  const char* advice;    // when it is not there
  FeatureState missing;  // how bad that is
};

// errno of a probe to a feature. A refusal to somebody without root says nothing.
void AddProbed(Features& out, const Probed& probed) {
  if (probed.error == 0) {
    out.push_back({probed.name, FeatureState::kPresent, "", ""});
  } else if (IsRefusal(probed.error) && geteuid() != 0) {
    out.push_back({probed.name, FeatureState::kUnknown, kNeedsRoot, ""});
  } else {
    const std::string detail =
        probed.error == probes::kChildDied ? "the probe was killed" : strerror(probed.error);
    out.push_back({probed.name, probed.missing, detail, probed.advice});
  }
}

void AddNamespaces(Features& out) {
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
    AddProbed(out, {kind.name, probes::Namespace(kind.flag), advice, FeatureState::kAbsent});
  }
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

void AddCgroups(Features& out) {
  const auto snapshot = ReadCgroupSnapshot();
  if (!snapshot.ok()) {
    out.push_back({"cgroup", FeatureState::kUnknown, snapshot.error().message, "mount /proc"});
    return;
  }
  const CgroupLayout layout = FindControllers(*snapshot);
  std::string v2_base;
  for (int i = 0; i < kCgroupControllers; ++i) {
    const auto controller = static_cast<CgroupController>(i);
    const CgroupHierarchy* hierarchy = layout.Find(controller);
    Feature feature{"cgroup." + std::string(ControllerName(controller)), FeatureState::kPresent, "",
                    ""};
    if (hierarchy == nullptr) {
      const bool mandatory =
          controller == CgroupController::kMemory || controller == CgroupController::kPids;
      feature.state = mandatory ? FeatureState::kAbsent : FeatureState::kDegraded;
      feature.advice = ControllerAdvice(controller);
    } else {
      feature.detail = hierarchy->version == CgroupVersion::kV1 ? "v1" : "v2";
      if (hierarchy->version == CgroupVersion::kV2) v2_base = hierarchy->base;
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

void AddCalls(Features& out) {
  AddProbed(out, {"seccomp", probes::SeccompFilter(),
                  "functions cannot run without it: use a kernel with CONFIG_SECCOMP_FILTER",
                  FeatureState::kAbsent});
  AddProbed(out, {"overlay.userns", probes::OverlayInUserNamespace(),
                  "images of several layers cannot be imported; Linux 5.11 can",
                  FeatureState::kDegraded});
  AddProbed(out, {"mount.idmapped", probes::IdMappedMount(),
                  "functions of one owner share one id range", FeatureState::kDegraded});
  AddProbed(out, {"openat2", probes::OpenAt2(), "paths are walked step by step instead",
                  FeatureState::kDegraded});
  AddProbed(out, {"clone3", probes::Clone3(), "clone is used instead", FeatureState::kDegraded});
  AddProbed(out,
            {"pidfd", probes::PidFd(), "functions cannot run without it: use Linux 5.3 or later",
             FeatureState::kAbsent});
  AddProbed(out, {"close_range", probes::CloseRangeCloexec(),
                  "descriptors are closed one by one instead", FeatureState::kDegraded});
  const int landlock = probes::LandlockVersion();
  if (landlock > 0) {
    out.push_back({"landlock", FeatureState::kPresent, "ABI " + std::to_string(landlock), ""});
  } else {
    out.push_back({"landlock", FeatureState::kAbsent, strerror(-landlock),
                   "optional second fence; lsm=landlock,... on the kernel command line"});
  }
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

// Some containers and virtual machines give root without this: hard limits then only go down.
void AddPrivileges(Features& out) {
  constexpr uint64_t kSysResource = 1ULL << 24;
  if (geteuid() != 0) {
    out.push_back({"privilege.root", FeatureState::kUnknown, "running without root",
                   "some of this list needs root to find out: sudo pulga doctor"});
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

std::vector<Feature> ProbeKernelFeatures() {
  Features out;
  AddBoard(out);
  AddMemory(out);
  AddTemperature(out);
  AddPrivileges(out);
  AddOpenFiles(out);
  AddNamespaces(out);
  AddCgroups(out);
  AddCalls(out);
  return out;
}

const Feature* FindFeature(const std::vector<Feature>& features, std::string_view name) {
  for (const Feature& feature : features) {
    if (feature.name == name) return &feature;
  }
  return nullptr;
}

}  // namespace pulga
