#include "sandbox/cgroup_view.h"

#include <algorithm>

#include "base/text.h"
#include "sandbox/cgroup_dialect.h"

namespace pulga {
namespace {

constexpr const char* kPlace = "sys/fs/cgroup";

// What runtimes look for; each v1 hierarchy is one more mount on the way to execve.
bool IsShown(CgroupController controller) {
  return controller == CgroupController::kMemory || controller == CgroupController::kCpu ||
         controller == CgroupController::kCpuacct || controller == CgroupController::kCpuset;
}

CgroupView ViewOf(const CgroupHierarchy& hierarchy, bool alone) {
  CgroupView view;
  view.fstype = DialectOf(hierarchy.version).view_fstype;
  view.options = hierarchy.mount_options;
  view.of_version = IsOfVersion(hierarchy);
  view.target = kPlace;
  if (hierarchy.mount_options.empty()) {
    if (!alone) view.target += "/unified";  // where systemd puts it in a hybrid
    return view;
  }
  std::vector<std::string> names;
  for (const CgroupController controller : hierarchy.controllers) {
    if (IsShown(controller)) names.emplace_back(ControllerName(controller));
  }
  view.target += "/" + Join(names, ",");
  if (names.size() == 1) return view;
  for (const std::string& name : names) view.aliases.push_back(std::string(kPlace) + "/" + name);
  return view;
}

}  // namespace

std::vector<CgroupView> CgroupViews(const CgroupLayout& layout) {
  std::vector<CgroupView> views;
  for (const CgroupHierarchy& hierarchy : layout.hierarchies) {
    const auto& list = hierarchy.controllers;
    if (std::none_of(list.begin(), list.end(), IsShown)) continue;
    views.push_back(ViewOf(hierarchy, layout.hierarchies.size() == 1));
  }
  return views;
}

}  // namespace pulga
