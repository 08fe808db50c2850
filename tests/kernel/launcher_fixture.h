// The fixture of the launcher tests: a running launcher, one version, no leftovers at the end.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/kernel/launcher_world.h"
#include "tests/support/test_gate.h"

namespace pulga::testing {

class LauncherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    world_.StartLauncher();
  }
  void TearDown() override {
    if (geteuid() != 0) return;
    spawner_.reset();
    world_.StopLauncher();
    EXPECT_THAT(world_.Leftovers(), ::testing::IsEmpty());
  }
  void Build(const VersionSpec& spec) {
    spawner_ = world_.Build(spec, events_);
    ASSERT_NE(spawner_, nullptr) << world_.error.error().message;
  }
  // Runs the probe in a version made for it when there is none yet.
  RunResult Probe(const std::vector<std::string>& args) {
    if (spawner_ == nullptr) Build(world_.Spec());
    return spawner_ == nullptr ? RunResult{} : world_.Run(*spawner_, events_, args);
  }
  std::string Say(const std::vector<std::string>& args) {
    const RunResult run = Probe(args);
    return run.out + run.err + run.exit.setup_step;
  }
  // `ask` is given a callback for the launcher's answer.
  template <typename Ask>
  Status Await(Ask ask) {
    Status out;
    bool answered = false;
    ask([&](const Status& status) {
      answered = true;
      out = status;
    });
    EXPECT_TRUE(world_.Until([&] { return answered; }));
    return out;
  }
  std::vector<VolumeState> ListVolumes() {
    std::vector<VolumeState> out;
    bool answered = false;
    world_.client().ListVolumes([&](Result<std::vector<VolumeState>> listed) {
      answered = true;
      EXPECT_TRUE(listed.ok());
      if (listed.ok()) out = std::move(*listed);
    });
    EXPECT_TRUE(world_.Until([&] { return answered; }));
    return out;
  }

  LauncherWorld world_;
  Recorder events_;
  std::unique_ptr<Spawner> spawner_;
};

}  // namespace pulga::testing
