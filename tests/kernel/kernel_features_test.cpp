#include "sandbox/kernel_features.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include "base/file_io.h"
#include "sandbox/privileges.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

TEST(KernelFeatures, EveryFeatureHasAStableNameAndAdviceWhereItMatters) {
  const auto features = ProbeKernelFeatures();
  EXPECT_GT(features.size(), 25U);
  for (const Feature& feature : features) {
    EXPECT_EQ(FindFeature(features, feature.name), &feature) << feature.name << " twice";
    if (feature.state == FeatureState::kAbsent && !feature.name.starts_with("board.")) {
      EXPECT_FALSE(feature.advice.empty()) << feature.name;
    }
  }
}

TEST(KernelFeatures, WhatTheTestsThemselvesNeedIsFound) {
  PULGA_NEED(geteuid() == 0, "needs root");
  const auto features = ProbeKernelFeatures();
  for (const char* name : {"namespace.user", "namespace.net", "cgroup.memory", "cgroup.pids",
                           "seccomp", "privilege.root"}) {
    const Feature* feature = FindFeature(features, name);
    ASSERT_NE(feature, nullptr) << name;
    EXPECT_EQ(feature->state, FeatureState::kPresent) << name << ": " << feature->detail;
  }
}

TEST(KernelFeatures, ProbingLeavesNothingBehind) {
  const auto mounts = ReadFile("/proc/self/mountinfo");
  ProbeKernelFeatures();
  EXPECT_EQ(*ReadFile("/proc/self/mountinfo"), *mounts);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);  // no child
}

TEST(KernelFeatures, WithoutRootItSaysWhatItCannotKnow) {
  EXPECT_EQ(testing::RunInChild([] {
              if (geteuid() == 0 && !SetIds({65534, 65534, {}}).ok()) return 1;
              const auto features = ProbeKernelFeatures();
              const Feature* idmap = FindFeature(features, "mount.idmapped");
              const Feature* root = FindFeature(features, "privilege.root");
              return idmap->state == FeatureState::kUnknown &&
                             root->state == FeatureState::kUnknown && !root->advice.empty()
                         ? 0
                         : 2;
            }),
            0);
}

}  // namespace
}  // namespace pulga
