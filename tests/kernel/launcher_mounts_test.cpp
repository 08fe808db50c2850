// What an instance may write to and what it is shown: the mounts of the default profile.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/file_io.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "sandbox/landlock.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class LauncherMounts : public LauncherTest {
 protected:
  // "123 bytes, then write: errno 28" -> 123, and it must be that error.
  uint64_t Filled(const std::vector<std::string>& deed) {
    const std::string said = Say(deed);
    EXPECT_THAT(said, HasSubstr("errno 28"));
    return ParseUint(said.substr(0, said.find(' '))).value_or(~0ULL);
  }
};

std::vector<std::string> Sorted(const std::string& text) {
  std::vector<std::string> lines;
  for (const std::string_view line : Split(text, '\n')) lines.emplace_back(line);
  std::sort(lines.begin(), lines.end());
  return lines;
}

TEST_F(LauncherMounts, RunIsTheUsersOwnAndSmallAndRunsNothing) {
  VersionSpec spec = world_.Spec();
  spec.user = "app";
  Build(spec);
  EXPECT_THAT(Say({"write", "/run/pid"}), HasSubstr("ok"));
  EXPECT_EQ(Filled({"tmpfill", "/run/fill"}), 1U << 20);
  EXPECT_LE(Filled({"inodes", "/run"}), 256U);
  EXPECT_THAT(Say({"run-copy", "/run/probe"}), HasSubstr("execve: errno 13"));
  EXPECT_THAT(Say({"ls", "/run"}), Not(HasSubstr("fill")));
}

TEST_F(LauncherMounts, SharedMemoryIsBoundedByTheMemoryLimitAndRunsNothing) {
  VersionSpec spec = world_.Spec();
  spec.limits.memory_bytes = 24 << 20;
  Build(spec);
  EXPECT_THAT(Say({"mounts"}), HasSubstr("/dev/shm rw,nosuid,nodev,noexec"));
  EXPECT_THAT(Say({"mounts"}), HasSubstr("size=24576k"));
  EXPECT_THAT(Say({"write", "/dev/shm/x"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"run-copy", "/dev/shm/probe"}), HasSubstr("execve: errno 13"));
  // Counted: what is put there beyond the limit ends the instance, not the board.
  EXPECT_TRUE(Probe({"tmpfill", "/dev/shm/fill"}).exit.oom_killed);
}

TEST_F(LauncherMounts, SharedMemoryIsNeverMoreThanSixtyFourMebibytes) {
  VersionSpec spec = world_.Spec();
  spec.limits.memory_bytes = 256 << 20;
  Build(spec);
  EXPECT_EQ(Filled({"tmpfill", "/dev/shm/fill"}), 64U << 20);
  EXPECT_THAT(Say({"ls", "/dev/shm"}), Not(HasSubstr("fill")));
}

TEST_F(LauncherMounts, TmpIsBoundedInFilesToo) {
  VersionSpec spec = world_.Spec();
  spec.limits.tmp_bytes = 1 << 20;
  Build(spec);
  EXPECT_LE(Filled({"inodes", "/tmp"}), 256U);
  EXPECT_THAT(Say({"run-copy", "/tmp/probe"}), HasSubstr("ran"));  // JNI, wheels
}

TEST_F(LauncherMounts, NothingButTheScratchMountsIsWritable) {
  const std::string mounts = Say({"mounts"});
  for (std::string_view line : Split(mounts, '\n')) {
    const auto fields = Split(line, ' ');
    if (fields.size() < 6) continue;
    const std::string_view place = fields[4];
    const bool scratch = place == "/tmp" || place == "/run" || place == "/dev/shm";
    // The unmasked procs under the covers are the spawner's; every name leads to the cover.
    if (scratch || place.starts_with("/proc")) continue;
    EXPECT_TRUE(fields[5].starts_with("ro")) << line;
  }
  EXPECT_THAT(Say({"write", "/proc/self/comm", "x"}), HasSubstr("errno 30"));
}

TEST_F(LauncherMounts, AWorkingDirectoryBelowRunIsMadeThere) {
  VersionSpec spec = world_.Spec();
  spec.working_dir = "/run/own";
  Build(spec);
  EXPECT_EQ(Say({"cwd"}), "/run/own\n");
}

// Sixteen fences is all the kernel puts around a process: one of them is ours.
TEST_F(LauncherMounts, StandInsideALandlockFence) {
  if (LandlockVersion() < kLandlockUsable) GTEST_SKIP() << "this kernel has no Landlock of use";
  EXPECT_THAT(Say({"landlock-layers"}), HasSubstr("15 layers, then landlock: errno 7\n"));
  const RunResult parked = world_.RunParked(*spawner_, events_, {"landlock-layers"});
  EXPECT_THAT(parked.out, HasSubstr("15 layers"));
}

// Also when no mounts were made ahead, as in a burst.
TEST_F(LauncherMounts, AreTheSameForInstancesThatStartTogether) {
  Build(world_.Spec());
  Stdio stdio[3];
  std::string seen[3];
  for (uint16_t slot = 0; slot < 3; ++slot) {
    StartOptions options = world_.WithPipes(stdio[slot]);
    options.extra_args = {"cat", "/proc/mounts;", "say", "done;", "sleep", "60"};
    ASSERT_TRUE(spawner_->Start(slot, std::move(options)).ok());
  }
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(world_.UntilSaid(stdio[i], seen[i], "done"));
  EXPECT_THAT(seen[0], HasSubstr("/sys/fs/cgroup"));
  EXPECT_EQ(Sorted(seen[0]), Sorted(seen[1]));
  EXPECT_EQ(Sorted(seen[0]), Sorted(seen[2]));
}

// S25, on a host whose mounts propagate, as systemd's do: a mount namespace of that kind, which the
// launcher shares with us.
class LauncherPropagation : public LauncherMounts {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    ASSERT_EQ(unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr), 0);   // the machine is not
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_SHARED, nullptr), 0);  // to see any of it
    std::filesystem::create_directories(host_ + "/late");
    std::ofstream(host_ + "/late/early") << "text";
    world_.StartLauncher();
    world_.Grant("host-directory " + host_ + " read-only functions=*\n");
    VersionSpec spec = world_.Spec();
    spec.access.volumes = {{VolumeKind::kHost, host_, "/host", true, 0}};
    before_ = HostMounts();
    Build(spec);
  }
  void TearDown() override {
    if (geteuid() != 0) return;
    umount2((host_ + "/late").c_str(), MNT_DETACH);
    LauncherMounts::TearDown();
    ASSERT_EQ(setns(machines_.get(), CLONE_NEWNS), 0);
    ASSERT_EQ(fchdir(here_.get()), 0);
  }
  static std::string HostMounts() { return ReadFile("/proc/self/mountinfo", 16 << 20).value(); }
  void MountLate() const {
    const std::string late = host_ + "/late";
    ASSERT_EQ(mount("late", late.c_str(), "tmpfs", 0, nullptr), 0);
    ASSERT_TRUE(WriteFile(late + "/too-late", "text").ok());
  }
  const UniqueFd machines_{open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)};
  const UniqueFd here_{open(".", O_PATH | O_DIRECTORY | O_CLOEXEC)};
  const std::string host_ = world_.data() + "/host";
  std::string before_;
};

TEST_F(LauncherPropagation, WhatTheHostMountsAfterTheStartIsNotSeen) {
  ASSERT_NE(spawner_, nullptr);
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"say", "up;", "stdin-hash;", "ls", "/host/late"};  // waits for its input
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  std::string said;
  ASSERT_TRUE(world_.UntilSaid(stdio, said, "up"));
  MountLate();
  EXPECT_THAT(HostMounts(), HasSubstr(host_ + "/late"));
  stdio.in.Reset();
  EXPECT_TRUE(world_.UntilSaid(stdio, said, "early")) << said;
  EXPECT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
  EXPECT_THAT(Say({"ls", "/host/late"}), Not(HasSubstr("too-late")));
}

TEST_F(LauncherPropagation, NothingThatIsMountedForItIsSeenOnTheHost) {
  ASSERT_NE(spawner_, nullptr);
  EXPECT_THAT(Say({"ls", "/host/late"}), HasSubstr("early"));
  EXPECT_EQ(HostMounts(), before_);
}

}  // namespace
}  // namespace pulga::testing
