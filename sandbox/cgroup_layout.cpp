#include "sandbox/cgroup_layout.h"

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <optional>

#include "base/file_io.h"
#include "base/text.h"
#include "sandbox/id_ranges.h"

namespace pulga {
namespace {

struct ControllerInfo {
  CgroupController controller;
  const char* v1_name;
  const char* v2_name;  // empty: in every v2 cgroup, no controller of its own; null: v1 only
  const char* lacking;
};

constexpr ControllerInfo kControllers[] = {
    {CgroupController::kMemory, "memory", "memory",
     "no memory controller: nothing may run without memory limits"},
    {CgroupController::kPids, "pids", "pids",
     "no pids controller: nothing may run without process limits"},
    {CgroupController::kCpu, "cpu", "cpu", "no cpu controller: cpu limits are not enforced"},
    // v2 counts CPU time in every cgroup, with or without the cpu controller.
    {CgroupController::kCpuacct, "cpuacct", "",
     "no cpuacct controller: the CPU use of running instances is unknown"},
    // v2 freezes every cgroup since Linux 5.2.
    {CgroupController::kFreezer, "freezer", "",
     "no freezer: idle instances are stopped by signals"},
    {CgroupController::kIo, "blkio", "io", "no io controller: io limits are not enforced"},
    {CgroupController::kCpuset, "cpuset", nullptr, nullptr},
    // v2 asks a BPF program, which any cgroup may have.
    {CgroupController::kDevices, "devices", "",
     "no devices controller: only namespaces keep devices away"},
};

bool Contains(const std::vector<std::string>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

std::vector<std::string> SplitWords(std::string_view text, char separator) {
  std::vector<std::string> words;
  for (const std::string_view word : Split(text, separator)) {
    const std::string_view trimmed = Trim(word.substr(0, word.find('\n')));
    if (!trimmed.empty()) words.emplace_back(trimmed);
  }
  return words;
}

// "4:memory:/a/b" -> "/a/b" for "memory"; "0::/c" -> "/c" for "".
std::optional<std::string> OwnPath(std::string_view self_cgroup, std::string_view controller) {
  for (const std::string_view line : Split(self_cgroup, '\n')) {
    const size_t first = line.find(':');
    if (first == std::string_view::npos) continue;
    const size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view names = line.substr(first + 1, second - first - 1);
    const bool match =
        controller.empty() ? names.empty() : Contains(SplitWords(names, ','), controller);
    if (match) return std::string(line.substr(second + 1));
  }
  return std::nullopt;
}

// The directory of cgroup `path` under `mount`, whose root may be a part of the hierarchy only.
std::string DirectoryOf(const CgroupMount& mount, std::string path) {
  if (mount.mount_root != "/") {
    const bool below = path == mount.mount_root || path.starts_with(mount.mount_root + "/");
    path = below ? path.substr(mount.mount_root.size()) : "";  // elsewhere: not visible here
  }
  if (path == "/" || path.empty() || path.starts_with("/..")) return mount.mount_point;
  return mount.mount_point + path;
}

std::string WithoutLeaf(std::string path) {
  const std::string leaf = "/" + std::string(kCgroupLeafName);
  if (path.ends_with(leaf)) path.resize(path.size() - leaf.size());
  return path.empty() ? "/" : path;
}

// The kernel takes another mount of a hierarchy only with the very options of the first.
std::string MountOptions(const std::vector<std::string>& shown) {
  std::vector<std::string> options;
  for (const std::string& option : shown) {
    const bool own_way = option == "rw" || option == "ro" || option == "clone_children" ||
                         option.starts_with("release_agent=");
    if (!own_way) options.push_back(option);
  }
  return Join(options, ",");
}

struct Choice {
  std::string base;
  bool base_is_own = false;
  std::vector<std::string> available;
};

// v2: the own cgroup if it was given to us, else the top.
Choice ChooseV2Base(const CgroupSnapshot& snapshot, const CgroupMount& mount) {
  const std::string path = OwnPath(snapshot.self_cgroup, "").value_or("/");
  const std::string own = DirectoryOf(mount, WithoutLeaf(path));
  if (snapshot.of_user) {
    if (!snapshot.v2_own_delegated) return {};
    return {own, true, SplitWords(snapshot.v2_own_controllers, ' ')};
  }
  Choice choice{mount.mount_point, !snapshot.v2_top_is_root,
                SplitWords(snapshot.v2_top_controllers, ' ')};
  if (own != mount.mount_point && snapshot.v2_own_delegated) {
    choice = {own, true, SplitWords(snapshot.v2_own_controllers, ' ')};
  }
  return choice;
}

const CgroupMount* FindV1(const std::vector<CgroupMount>& mounts, std::string_view controller) {
  for (const CgroupMount& mount : mounts) {
    if (mount.version == CgroupVersion::kV1 && Contains(mount.controllers, controller)) {
      return &mount;
    }
  }
  return nullptr;
}

CgroupHierarchy& HierarchyAt(CgroupLayout& layout, CgroupHierarchy wanted) {
  for (CgroupHierarchy& hierarchy : layout.hierarchies) {
    if (hierarchy.base == wanted.base) return hierarchy;
  }
  layout.hierarchies.push_back(std::move(wanted));
  return layout.hierarchies.back();
}

// A cgroup is delegated by making it somebody's: the directory and the two files that matter.
bool IsGivenTo(const std::string& directory, uid_t uid) {
  for (const char* file : {"", "/cgroup.procs", "/cgroup.subtree_control"}) {
    struct stat st = {};
    if (stat((directory + file).c_str(), &st) != 0 || st.st_uid != uid) return false;
  }
  return true;
}

}  // namespace

std::string_view ControllerName(CgroupController controller) {
  switch (controller) {
    case CgroupController::kMemory:
      return "memory";
    case CgroupController::kCpu:
      return "cpu";
    case CgroupController::kCpuacct:
      return "cpuacct";
    case CgroupController::kPids:
      return "pids";
    case CgroupController::kFreezer:
      return "freezer";
    case CgroupController::kIo:
      return "io";
    case CgroupController::kCpuset:
      return "cpuset";
    case CgroupController::kDevices:
      return "devices";
  }
  return "unknown";
}

bool IsOfVersion(const CgroupHierarchy& hierarchy) {
  const auto& list = hierarchy.controllers;
  return std::all_of(list.begin(), list.end(), [](CgroupController controller) {
    return controller == CgroupController::kCpuset || controller == CgroupController::kDevices;
  });
}

const CgroupHierarchy* CgroupLayout::Find(CgroupController controller) const {
  for (const CgroupHierarchy& hierarchy : hierarchies) {
    const auto& list = hierarchy.controllers;
    if (std::find(list.begin(), list.end(), controller) != list.end()) return &hierarchy;
  }
  return nullptr;
}

std::vector<CgroupMount> ParseCgroupMounts(std::string_view mountinfo) {
  std::vector<CgroupMount> mounts;
  for (const std::string_view line : Split(mountinfo, '\n')) {
    const size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    const auto before = Split(line.substr(0, dash), ' ');
    const auto after = Split(line.substr(dash + 3), ' ');
    if (before.size() < 6 || after.size() < 3) continue;
    if (after[0] != "cgroup" && after[0] != "cgroup2") continue;
    CgroupMount mount;
    mount.version = after[0] == "cgroup" ? CgroupVersion::kV1 : CgroupVersion::kV2;
    mount.mount_root = UnescapeOctal(before[3]);
    mount.mount_point = UnescapeOctal(before[4]);
    if (mount.version == CgroupVersion::kV1) mount.controllers = SplitWords(after[2], ',');
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

CgroupLayout FindControllers(const CgroupSnapshot& snapshot) {
  const std::vector<CgroupMount> mounts = ParseCgroupMounts(snapshot.mountinfo);
  const auto v2 = std::find_if(mounts.begin(), mounts.end(), [](const CgroupMount& mount) {
    return mount.version == CgroupVersion::kV2;
  });
  Choice v2_choice;
  if (v2 != mounts.end()) v2_choice = ChooseV2Base(snapshot, *v2);
  CgroupLayout layout;
  layout.of_user = snapshot.of_user;
  for (const ControllerInfo& info : kControllers) {
    const CgroupMount* mount = snapshot.of_user ? nullptr : FindV1(mounts, info.v1_name);
    if (mount != nullptr) {
      const std::string own = OwnPath(snapshot.self_cgroup, info.v1_name).value_or("/");
      HierarchyAt(layout, {CgroupVersion::kV1,
                           {},
                           DirectoryOf(*mount, own),
                           false,
                           MountOptions(mount->controllers)})
          .controllers.push_back(info.controller);
      continue;
    }
    if (info.v2_name == nullptr) continue;
    const std::string name = info.v2_name;
    // The program asks for root over the host.
    const bool ours = !snapshot.of_user || info.controller != CgroupController::kDevices;
    const bool usable = v2 != mounts.end() && !v2_choice.base.empty() && ours;
    if (usable && (name.empty() || Contains(v2_choice.available, name))) {
      HierarchyAt(layout, {CgroupVersion::kV2, {}, v2_choice.base, v2_choice.base_is_own, {}})
          .controllers.push_back(info.controller);
      continue;
    }
    layout.warnings.emplace_back(info.lacking);
  }
  return layout;
}

std::vector<std::string> MemoryMinChain(const CgroupSnapshot& snapshot) {
  const std::vector<CgroupMount> mounts = ParseCgroupMounts(snapshot.mountinfo);
  const auto v2 = std::find_if(mounts.begin(), mounts.end(), [](const CgroupMount& mount) {
    return mount.version == CgroupVersion::kV2;
  });
  if (v2 == mounts.end() || FindV1(mounts, "memory") != nullptr) return {};
  const std::string own = OwnPath(snapshot.self_cgroup, "").value_or("/");
  std::vector<std::string> chain;
  std::string at = DirectoryOf(*v2, WithoutLeaf(own));
  for (; at.size() > v2->mount_point.size(); at.resize(at.rfind('/'))) chain.push_back(at);
  // In a cgroup namespace, or where a part is mounted, the top is a cgroup like any other.
  if (!snapshot.v2_top_is_root) chain.push_back(v2->mount_point);
  return chain;
}

Result<CgroupLayout> PlanCgroupLayout(const CgroupSnapshot& snapshot) {
  CgroupLayout layout = FindControllers(snapshot);
  for (const CgroupController controller : {CgroupController::kMemory, CgroupController::kPids}) {
    if (layout.Find(controller) != nullptr || layout.of_user) continue;
    const std::string name(ControllerName(controller));
    return Error{Code::kUnsupported, 0,
                 "cgroup: this kernel offers no " + name +
                     " controller (v1 or v2), and nothing may run without its limits; boards often "
                     "need cgroup_enable=" +
                     name + " on the kernel command line"};
  }
  return layout;
}

Result<CgroupSnapshot> ReadCgroupSnapshot(CgroupsFor whose) {
  CgroupSnapshot snapshot;
  const auto uid_map = ReadFile("/proc/self/uid_map");
  const bool own_namespace = uid_map.ok() && !IsHostIdMap(*uid_map);
  snapshot.of_user = whose == CgroupsFor::kUser || own_namespace;
  PULGA_ASSIGN_OR_RETURN(snapshot.mountinfo, ReadFile("/proc/self/mountinfo", 16 << 20));
  PULGA_ASSIGN_OR_RETURN(snapshot.self_cgroup, ReadFile("/proc/self/cgroup"));
  for (const CgroupMount& mount : ParseCgroupMounts(snapshot.mountinfo)) {
    if (mount.version != CgroupVersion::kV2) continue;
    const std::string own =
        DirectoryOf(mount, WithoutLeaf(OwnPath(snapshot.self_cgroup, "").value_or("/")));
    auto top = ReadFile(mount.mount_point + "/cgroup.controllers");
    if (top.ok()) snapshot.v2_top_controllers = *top;
    auto controllers = ReadFile(own + "/cgroup.controllers");
    if (controllers.ok()) snapshot.v2_own_controllers = *controllers;
    struct stat st = {};
    snapshot.v2_top_is_root = stat((mount.mount_point + "/cgroup.type").c_str(), &st) != 0;
    char mark = 0;
    if (snapshot.of_user) {
      snapshot.v2_own_delegated = IsGivenTo(own, own_namespace ? 0 : geteuid());
      break;
    }
    for (const char* name : {"trusted.delegate", "user.delegate"}) {
      const bool marked = getxattr(own.c_str(), name, &mark, 1) == 1 && mark == '1';
      snapshot.v2_own_delegated = snapshot.v2_own_delegated || marked;
    }
    break;
  }
  return snapshot;
}

}  // namespace pulga
