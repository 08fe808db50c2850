#include "sandbox/isolation.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/text.h"
#include "sandbox/landlock.h"

namespace pulga {
namespace {

using Layers = std::vector<Feature>;
constexpr FeatureState kPresent = FeatureState::kPresent;
constexpr size_t kMostLayers = 48;
constexpr size_t kMostDetail = 200;

// Of the worst of some features; a feature that is not listed was not worth probing.
Feature Together(const Layers& features, std::string name, std::vector<std::string_view> of) {
  Feature layer{std::move(name), FeatureState::kPresent, "", ""};
  for (const std::string_view wanted : of) {
    const Feature* feature = FindFeature(features, wanted);
    if (feature == nullptr || feature->state == FeatureState::kPresent) {
      if (feature != nullptr && of.size() == 1) layer.detail = feature->detail;
      continue;
    }
    if (layer.state != FeatureState::kAbsent) layer.state = feature->state;
    layer.detail += (layer.detail.empty() ? "" : ", ") + feature->name;
    if (!feature->detail.empty()) layer.detail += ": " + feature->detail;
    if (layer.advice.empty()) layer.advice = feature->advice;
  }
  return layer;
}

// Same name on both sides.
Feature Same(const Layers& features, std::string_view name) {
  const Feature* feature = FindFeature(features, name);
  return feature != nullptr ? *feature : Feature{std::string(name), kPresent, "", ""};
}

// A controller that functions can do without is "degraded" among the features; as a layer it is not
// there.
Feature OfCgroup(const Layers& features, std::string_view name) {
  const Feature* feature = FindFeature(features, name);
  if (feature == nullptr) {
    return {std::string(name), FeatureState::kAbsent,
            "this kernel has no such controller, or Pulga makes no use of it", ""};
  }
  Feature layer = *feature;
  if (layer.state == FeatureState::kDegraded) layer.state = FeatureState::kAbsent;
  if (layer.state != kPresent && layer.detail.empty()) layer.detail = feature->advice;
  return layer;
}

Feature ViewOf(const Layers& features) {
  Feature view = Together(features, "cgroup_view", {"namespace.cgroup"});
  const Feature* memory = FindFeature(features, "cgroup.memory");
  if (memory == nullptr || memory->state != FeatureState::kAbsent) return view;
  return {view.name, FeatureState::kAbsent, "instances have no cgroup of their own", ""};
}

// What differs for a daemon of an ordinary user.
void TellOfUser(const Layers& features, Layers& layers) {
  const Feature* ids = FindFeature(features, "rootless.ids");
  const bool one = ids != nullptr && ids->state != kPresent;
  for (Feature& layer : layers) {
    if (layer.name == "id_range") {
      layer.state = FeatureState::kDegraded;
      layer.detail =
          one ? "one id for the user, the daemon and all functions"
              : "the user's ids of /etc/subuid, which other containers of the user have too";
    } else if (layer.name == "capabilities") {
      layer.detail = "none in all five sets";
    } else if (layer.name == "network") {
      layer.detail = "a namespace with loopback alone: there is no outbound network for users";
    }
  }
}

Feature AlwaysThere(const char* name, const char* detail) {
  return {name, FeatureState::kPresent, detail, ""};
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= 40 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || c == '_' || c == '.';
  });
}

uint64_t BoundingSet() {
  uint64_t found = 0;
  for (unsigned long cap = 0; cap <= 63; ++cap) {
    if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1) found |= uint64_t{1} << cap;
  }
  return found;
}

Feature Found(const char* name, bool there, const char* detail) {
  return {name, there ? FeatureState::kPresent : FeatureState::kAbsent, detail, ""};
}

}  // namespace

std::vector<Feature> BoardIsolation(const std::vector<Feature>& features) {
  Layers layers = {
      Together(features, "namespaces",
               {"namespace.mount", "namespace.pid", "namespace.net", "namespace.uts",
                "namespace.ipc", "namespace.cgroup"}),
      Together(features, "user_namespace", {"namespace.user"}),
      AlwaysThere("id_range", "65536 ids that are nobody else's, one range for each owner"),
      AlwaysThere("capabilities", "none in all five sets, but what a grant gives"),
      AlwaysThere("no_new_privs", ""),
      Same(features, "seccomp"),
      Same(features, "seccomp.log"),
      AlwaysThere("read_only_root", "and what can be written is a tmpfs with a size"),
      Same(features, "old_root"),
      ViewOf(features),
      AlwaysThere("keyring", "a session keyring of each version's own, and no call to reach it"),
      AlwaysThere("network", "a namespace with loopback alone, but what a deploy asks for"),
      Same(features, "landlock"),
      Same(features, "apparmor"),
      {"id_mapped_layers", FeatureState::kAbsent,
       "functions of one owner share the ids its layers are stored with", ""},
  };
  if (FindFeature(features, "cgroup.delegation") != nullptr) TellOfUser(features, layers);
  for (const char* name : {"cgroup.memory", "cgroup.pids", "cgroup.cpu", "cgroup.io",
                           "cgroup.freezer", "cgroup.devices"}) {
    layers.push_back(OfCgroup(features, name));
  }
  return layers;
}

std::string EncodeLayers(const std::vector<Feature>& layers) {
  std::string out;
  for (const Feature& layer : layers) {
    out +=
        layer.name + "\t" + std::string(FeatureStateName(layer.state)) + "\t" + layer.detail + "\n";
  }
  return out;
}

std::vector<Feature> DecodeLayers(std::string_view lines) {
  Layers layers;
  for (const std::string_view line : Split(lines, '\n')) {
    const auto parts = Split(line, '\t');
    if (parts.size() != 3 || !IsName(parts[0]) || layers.size() == kMostLayers) continue;
    if (FindFeature(layers, parts[0]) != nullptr) continue;
    for (const FeatureState state :
         {FeatureState::kPresent, FeatureState::kDegraded, FeatureState::kAbsent}) {
      if (parts[1] != FeatureStateName(state)) continue;
      layers.push_back({std::string(parts[0]), state, Printable(parts[2], kMostDetail), ""});
    }
  }
  return layers;
}

std::string WithLayers(const std::string& warnings, std::string_view layers) {
  std::string out = warnings;
  for (const std::string_view line : Split(layers, '\n')) {
    if (!line.empty()) out += (out.empty() ? "\t" : "\n\t") + std::string(line);
  }
  return out;
}

SplitReport SplitLayers(std::string_view text) {
  SplitReport report;
  std::string layers;
  for (const std::string_view line : Split(text, '\n')) {
    if (line.starts_with('\t')) {
      layers += std::string(line.substr(1)) + "\n";
    } else if (!line.empty()) {
      report.warnings.emplace_back(line);
    }
  }
  report.layers = DecodeLayers(layers);
  return report;
}

const char* WhatOldRoot(RootSwitch way) {
  return way == RootSwitch::kPivoted ? "detached, by pivot_root"
                                     : "moved over and out of reach: this board runs from its "
                                       "initramfs, which cannot be pivoted";
}

Feature RefusalLayer(int error) {
  constexpr const char* kAdvice = "what is not allowed is refused all the same, but not counted";
  if (error == 0) return {"seccomp.log", FeatureState::kPresent, "", ""};
  const char* why = error == EINVAL ? "this kernel tells nobody what a filter refuses (Linux 5.0)"
                    : error == EBUSY
                        ? "somebody else listens to the filters of this container already"
                        : strerror(error);
  return {"seccomp.log", FeatureState::kAbsent, why, kAdvice};
}

Feature LandlockLayer(int version, int error) {
  constexpr const char* kAdvice =
      "optional second fence; Linux 5.19 with lsm=landlock,... on the kernel command line";
  const std::string abi = "ABI " + std::to_string(version);
  if (version >= kLandlockUsable) return {"landlock", FeatureState::kPresent, abi, ""};
  if (version > 0) {
    return {"landlock", FeatureState::kAbsent,
            abi + " is not used: it refuses renames between directories", kAdvice};
  }
  const char* why = error == EOPNOTSUPP ? "in the kernel, but not in its lsm= list"
                    : error == ENOSYS   ? "not in this kernel"
                                        : strerror(error);
  return {"landlock", FeatureState::kAbsent, why, kAdvice};
}

Feature OpenedBy(const std::string& grants, Feature layer) {
  if (grants.empty() || layer.state == FeatureState::kAbsent) return layer;
  layer.state = FeatureState::kDegraded;
  layer.detail += (layer.detail.empty() ? "by grant: " : "; by grant: ") + grants;
  return layer;
}

std::vector<Feature> WithGrants(std::vector<Feature> layers, const GrantsUsed& used) {
  const std::pair<const char*, const std::string*> kOpened[] = {
      {"capabilities", &used.capabilities},
      {"network", &used.network},
      {"cgroup.devices", &used.devices},
      {"host_directories", &used.host_directories}};
  for (Feature& layer : layers) {
    for (const auto& [name, by] : kOpened) {
      if (layer.name == name) layer = OpenedBy(*by, std::move(layer));
    }
  }
  return layers;
}

Feature CapabilityLayer(uint64_t found, uint64_t granted) {
  constexpr const char* kName = "capabilities";
  if ((found & ~granted) != 0) {
    return {kName, FeatureState::kAbsent, "more in the bounding set than was granted", ""};
  }
  if (found == 0) return {kName, FeatureState::kPresent, "none in the bounding set", ""};
  return {kName, FeatureState::kDegraded,
          Join(CapabilityNames(found), ", ") + " in the bounding set", ""};
}

Feature RlimitLayer(std::span<const ResourceLimit> limits, uint64_t nofile) {
  Feature layer{"rlimits", FeatureState::kPresent, "nofile " + std::to_string(nofile), ""};
  for (const ResourceLimit& limit : limits) {
    rlimit now = {RLIM_INFINITY, RLIM_INFINITY};
    (void)getrlimit(static_cast<__rlimit_resource>(limit.resource), &now);
    if (now.rlim_max > limit.most) layer.state = FeatureState::kDegraded;
    const bool none = now.rlim_max == RLIM_INFINITY;
    layer.detail +=
        std::string(", ") + limit.name + " " + (none ? "unlimited" : std::to_string(now.rlim_max));
  }
  return layer;
}

Feature IdRangeLayer(const HostIds& ids, uint64_t version_id) {
  if (ids.IsSingle()) {
    return {"id_range", FeatureState::kDegraded,
            "one id, that of the user and the daemon: " + std::to_string(ids.OwnerRoot()), ""};
  }
  std::string detail = "image ids are ";
  for (const IdExtent& extent : ids.owner) {
    detail += (&extent == ids.owner.data() ? "" : ", ") + std::to_string(extent.host);
    if (extent.count > 1) detail += "-" + std::to_string(extent.host + extent.count - 1);
  }
  detail += ", the spawner's " + std::to_string(ids.SpawnerHostId(version_id));
  if (!ids.on_host) detail += ", as the launcher's user namespace counts";
  return {"id_range", FeatureState::kPresent, detail, ""};
}

std::vector<Feature> OwnLayers(uint64_t capabilities) {
  return {
      Found("no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, ""),
      Found("seccomp", prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == SECCOMP_MODE_FILTER, ""),
      CapabilityLayer(BoundingSet(), capabilities),
  };
}

}  // namespace pulga
