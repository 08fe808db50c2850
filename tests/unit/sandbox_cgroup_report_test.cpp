#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sandbox/cgroup_report.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

CgroupLayout LayoutOf(std::vector<CgroupController> controllers) {
  CgroupLayout layout;
  CgroupHierarchy hierarchy;
  hierarchy.base = "/sys/fs/cgroup";
  hierarchy.controllers = std::move(controllers);
  layout.hierarchies.push_back(std::move(hierarchy));
  return layout;
}

std::string Told(const std::vector<Feature>& layers, std::string_view name) {
  const Feature* layer = FindFeature(layers, name);
  if (layer == nullptr) return "nothing";
  return std::string(FeatureStateName(layer->state)) + ": " + layer->detail;
}

const CgroupLayout kWhole = LayoutOf({CgroupController::kMemory, CgroupController::kPids,
                                      CgroupController::kCpu, CgroupController::kIo});

// All writes of both dialects, made or not made.
CgroupReport Written(CgroupVersion version, WriteMade made) {
  SandboxLimits limits;
  limits.cpu_weight = 50;
  limits.cpu_millis = 500;
  CgroupReport report;
  for (const CgroupWrite& write : LimitWrites(version, limits, {})) report.Note(write, made);
  return report;
}

TEST(CgroupReport, TellsWhatWasWrittenAndThatNothingElseWas) {
  const auto layers = Written(CgroupVersion::kV2, WriteMade::kYes).Layers(kWhole);
  EXPECT_EQ(Told(layers, "cgroup.memory"), "present: memory.max 67108864");
  EXPECT_EQ(Told(layers, "cgroup.swap"), "present: memory.swap.max 0");
  EXPECT_EQ(Told(layers, "cgroup.oom_group"), "present: memory.oom.group 1");
  EXPECT_EQ(Told(layers, "cgroup.cpu_weight"), "present: cpu.weight 50");
  EXPECT_EQ(Told(layers, "cgroup.io"), "absent: no limit was asked for");
}

TEST(CgroupReport, SaysOfV1ThatAnOomKillTakesOneProcess) {
  const auto layers = Written(CgroupVersion::kV1, WriteMade::kYes).Layers(kWhole);
  EXPECT_THAT(Told(layers, "cgroup.oom_group"), HasSubstr("absent: "));
  EXPECT_THAT(Told(layers, "cgroup.swap"), HasSubstr("present: memory.swappiness 0; memory.memsw"));
}

TEST(CgroupReport, ClaimsNothingThatTheKernelDidNotTake) {
  for (const CgroupVersion version : {CgroupVersion::kV1, CgroupVersion::kV2}) {
    const auto layers = Written(version, WriteMade::kNo).Layers(kWhole);
    for (const char* name : {"cgroup.memory", "cgroup.swap", "cgroup.oom_group", "cgroup.pids",
                             "cgroup.cpu", "cgroup.cpu_weight"}) {
      EXPECT_THAT(Told(layers, name), HasSubstr("absent: ")) << name;
    }
    EXPECT_THAT(Told(layers, "cgroup.swap"), HasSubstr("this kernel does not count swap"));
  }
}

TEST(CgroupReport, HalfOfALimitDegradesIt) {
  CgroupReport report;
  CgroupWrite write{CgroupController::kMemory, "memory.limit_in_bytes", "1", WriteNeed::kMust, ""};
  report.Note(write, WriteMade::kYes);
  write = {CgroupController::kMemory, "memory.kmem", "1", WriteNeed::kMayLack,
           "buffers: not counted"};
  report.Note(write, WriteMade::kNo);
  EXPECT_EQ(Told(report.Layers(kWhole), "cgroup.memory"),
            "degraded: memory.limit_in_bytes 1; not counted");
  EXPECT_THAT(report.warnings(), ElementsAre("buffers: not counted"));
}

TEST(CgroupReport, NamesTheReasonWhereThereIsNoController) {
  CgroupLayout layout = LayoutOf({});
  EXPECT_THAT(Told(CgroupReport().Layers(layout), "cgroup.pids"), HasSubstr("absent: this kernel"));
  layout.of_user = true;
  const auto layers = CgroupReport().Layers(layout);
  for (const char* name : {"cgroup.memory", "cgroup.swap", "cgroup.pids", "cgroup.cpu_weight"}) {
    EXPECT_THAT(Told(layers, name), HasSubstr("absent: this daemon runs as a user")) << name;
  }
  EXPECT_THAT(CgroupReport().warnings(), IsEmpty());
}

TEST(CgroupReport, TellsWhetherSlotsCameWithAFreezer) {
  const CgroupLayout there = LayoutOf({CgroupController::kFreezer});
  EXPECT_EQ(FreezerLayer(there, FreezerUse::kOpened).state, FeatureState::kPresent);
  EXPECT_EQ(FreezerLayer(there, FreezerUse::kNotAsked).state, FeatureState::kAbsent);
  // No freezer: by signals, if a cgroup tells which processes there are.
  const CgroupLayout lists = LayoutOf({CgroupController::kMemory});
  EXPECT_EQ(FreezerLayer(lists, FreezerUse::kOpened).state, FeatureState::kDegraded);
  EXPECT_EQ(FreezerLayer(lists, FreezerUse::kNotAsked).state, FeatureState::kAbsent);
  EXPECT_EQ(FreezerLayer(LayoutOf({}), FreezerUse::kOpened).state, FeatureState::kAbsent);
}

}  // namespace
}  // namespace pulga
