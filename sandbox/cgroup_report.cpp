#include "sandbox/cgroup_report.h"

#include <algorithm>

namespace pulga {
namespace {

std::string LayerOf(const CgroupWrite& write) {
  if (write.layer != nullptr) return write.layer;
  return "cgroup." + std::string(ControllerName(write.controller));
}

void AddDetail(Feature& layer, const std::string& detail) {
  if (layer.detail.find(detail) != std::string::npos) return;  // of another slot
  layer.detail += (layer.detail.empty() ? "" : "; ") + detail;
}

// "the swap limit is not enforced: this kernel does not count swap": the second half.
std::string WhyLacking(const CgroupWrite& write) {
  const size_t colon = write.lacking.find(": ");
  if (colon != std::string::npos) return write.lacking.substr(colon + 2);
  return write.file + " is not there";
}

std::string WhyNoController(const CgroupLayout& layout) {
  return layout.of_user ? "this daemon runs as a user and was given no cgroup for it"
                        : "this kernel has no such controller";
}

// A row, and what it says where nobody wrote anything though the controller is there.
struct Kind {
  const char* layer;
  CgroupController controller;
  FeatureState unwritten;
  const char* why;
};
constexpr FeatureState kAbsent = FeatureState::kAbsent;
constexpr Kind kKinds[] = {
    {"cgroup.memory", CgroupController::kMemory, kAbsent, "no limit was asked for"},
    {kSwapLayer, CgroupController::kMemory, kAbsent, "this kernel does not count swap"},
    {kOomGroupLayer, CgroupController::kMemory, kAbsent,
     "this kind of cgroup loses one process to the OOM killer, not all of them"},
    {"cgroup.pids", CgroupController::kPids, kAbsent, "no limit was asked for"},
    {"cgroup.cpu", CgroupController::kCpu, kAbsent, "no limit was asked for"},
    {kCpuWeightLayer, CgroupController::kCpu, FeatureState::kPresent,
     "that of every function; all of them together have half of what others have"},
    {"cgroup.io", CgroupController::kIo, kAbsent, "no limit was asked for"},
};

}  // namespace

void CgroupReport::Note(const CgroupWrite& write, WriteMade made) {
  const std::string name = LayerOf(write);
  auto layer = std::find_if(noted_.begin(), noted_.end(),
                            [&](const Feature& feature) { return feature.name == name; });
  const bool first = layer == noted_.end();
  if (first) {
    noted_.push_back({name, FeatureState::kPresent, "", ""});
    layer = noted_.end() - 1;
  }
  if (made == WriteMade::kYes) {
    if (!first && layer->state == FeatureState::kAbsent) layer->state = FeatureState::kDegraded;
    AddDetail(*layer, write.file + " " + write.value);
    return;
  }
  if (!write.lacking.empty()) warnings_.push_back(write.lacking);
  layer->state = first || layer->state == kAbsent ? kAbsent : FeatureState::kDegraded;
  AddDetail(*layer, WhyLacking(write));
}

std::vector<Feature> CgroupReport::Layers(const CgroupLayout& layout) const {
  std::vector<Feature> layers;
  for (const Kind& kind : kKinds) {
    const Feature* noted = FindFeature(noted_, kind.layer);
    if (noted != nullptr) {
      layers.push_back(*noted);
    } else if (layout.Find(kind.controller) == nullptr) {
      layers.push_back({kind.layer, kAbsent, WhyNoController(layout), ""});
    } else {
      layers.push_back({kind.layer, kind.unwritten, kind.why, ""});
    }
  }
  return layers;
}

FreezeBy FreezeByOf(const CgroupLayout& layout) {
  if (layout.Find(CgroupController::kFreezer) != nullptr) return FreezeBy::kFreezer;
  const bool lists_processes = layout.Find(CgroupController::kMemory) != nullptr;
  return lists_processes ? FreezeBy::kSignals : FreezeBy::kNothing;
}

Feature FreezerLayer(const CgroupLayout& layout, FreezerUse use) {
  constexpr const char* kName = "cgroup.freezer";
  const FreezeBy by = FreezeByOf(layout);
  if (by == FreezeBy::kNothing) return {kName, kAbsent, WhyNoController(layout), ""};
  if (use == FreezerUse::kOpened) {
    if (by == FreezeBy::kFreezer) return {kName, FeatureState::kPresent, "", ""};
    return {kName, FeatureState::kDegraded, "no freezer: SIGSTOP to each process", ""};
  }
  return {kName, kAbsent, "not needed: a program of exec mode ends with its call", ""};
}

}  // namespace pulga
