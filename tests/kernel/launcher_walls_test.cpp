// Walls that nothing else runs into: flags of mounts, what the spawner is to others, hard limits.
// tests/mutation takes each of them away and sees these tests fail.
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "base/text.h"
#include "sandbox/cgroup_layout.h"
#include "sandbox/id_ranges.h"
#include "sandbox/kernel_probes.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

std::string FileText(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

class LauncherMountFlags : public LauncherTest {
 protected:
  // {place: its options}; of several mounts on one place the one on top.
  std::map<std::string, std::set<std::string>> Options() {
    std::map<std::string, std::set<std::string>> found;
    const std::string mounts = Say({"mounts"});
    for (const std::string_view line : Split(mounts, '\n')) {
      const auto fields = Split(line, ' ');
      if (fields.size() < 6) continue;
      std::set<std::string> options;
      for (const std::string_view option : Split(fields[5], ',')) options.emplace(option);
      found[std::string(fields[4])] = std::move(options);
    }
    return found;
  }
};

TEST_F(LauncherMountFlags, AreThoseOfTheProfile) {
  const std::map<std::string, std::set<std::string>> wanted = {
      {"/", {"ro", "nosuid", "nodev"}},
      {"/proc", {"ro", "nosuid", "nodev", "noexec"}},
      {"/dev", {"ro", "nosuid", "noexec"}},
      {"/sys", {"ro", "nosuid", "nodev", "noexec"}},
      {"/run", {"nosuid", "nodev", "noexec"}},
      {"/dev/shm", {"nosuid", "nodev", "noexec"}},
      {"/tmp", {"nosuid", "nodev"}}};
  auto found = Options();
  for (const auto& [place, options] : wanted) {
    for (const std::string& option : options) {
      EXPECT_TRUE(found[place].contains(option)) << place << " without " << option;
    }
  }
  for (const auto& [place, options] : found) EXPECT_TRUE(options.contains("nosuid")) << place;
}

TEST_F(LauncherMountFlags, BoundTheInodesOfTmp) {
  VersionSpec spec = world_.Spec();
  spec.limits.tmp_bytes = 1 << 20;
  Build(spec);
  EXPECT_THAT(Say({"mounts"}), ContainsRegex("/tmp .*nr_inodes=256"));
}

class LauncherWalls : public LauncherTest {
 protected:
  // Of an id that no other launcher's spawner on this machine has, or had a moment ago.
  VersionSpec SpecOfItsOwn() {
    static uint64_t next = static_cast<uint64_t>(getpid()) * 8;
    VersionSpec spec = world_.Spec();
    spec.version_id = 0x8000 | (next++ & 0x7fff);
    return spec;
  }
  // The host's pid of the version's spawner.
  pid_t SpawnerPid(const VersionSpec& spec) {
    const std::string uid = std::to_string(HostIds().SpawnerHostId(spec.version_id));
    for (const auto& process : fs::directory_iterator("/proc")) {
      const std::string status = FileText(process.path() / "status");
      const bool dead = StatusField(status, "State").rfind("Z", 0) == 0;
      if (!dead && StatusField(status, "Uid").rfind(uid, 0) == 0) {
        return std::stoi(process.path().filename());
      }
    }
    return -1;
  }
};

TEST_F(LauncherWalls, ASpawnerIsNotDumpableAndHasAKeyringOfItsOwn) {
  const VersionSpec spec = SpecOfItsOwn();
  Build(spec);
  const pid_t pid = SpawnerPid(spec);
  ASSERT_GT(pid, 0);
  struct stat st = {};
  ASSERT_EQ(stat(("/proc/" + std::to_string(pid) + "/environ").c_str(), &st), 0);
  EXPECT_NE(st.st_uid, HostIds().SpawnerHostId(spec.version_id))
      << "a dumpable one's files are its own";
  // The kernel counts the keys of every user that has one.
  if (!fs::exists("/proc/key-users")) PULGA_SKIP("no /proc/key-users: no keyrings to count");
  EXPECT_THAT(FileText("/proc/key-users"),
              HasSubstr(std::to_string(HostIds().SpawnerHostId(spec.version_id)) + ": "));
}

// Stopped, it hears neither its lifeline nor the daemon.
TEST_F(LauncherWalls, ASpawnerThatCannotListenDiesWithTheLauncherToo) {
  const VersionSpec spec = SpecOfItsOwn();
  Build(spec);
  const pid_t pid = SpawnerPid(spec);
  ASSERT_GT(pid, 0);
  ASSERT_EQ(kill(pid, SIGSTOP), 0);
  world_.KillLauncher();
  EXPECT_TRUE(world_.Until([&] { return SpawnerPid(spec) < 0; }));
  kill(pid, SIGCONT);
  spawner_.reset();
  world_.StartLauncher();
}

TEST_F(LauncherWalls, NoVersionIsBuiltWhereAppArmorIsRequiredAndLacks) {
  if (kernel_probes::AppArmorProfile() == 0) PULGA_SKIP("its profile is loaded here");
  world_.StopLauncher();
  world_.StartLauncher({{}, {"--apparmor", "require"}});
  EXPECT_EQ(world_.Build(world_.Spec(), events_), nullptr);
  ASSERT_FALSE(world_.error.ok());
  EXPECT_EQ(world_.error.error().code, Code::kUnsupported);
  EXPECT_THAT(world_.error.error().message, HasSubstr("apparmor: "));
  EXPECT_THAT(world_.error.error().message, HasSubstr("--apparmor require"));
}

TEST_F(LauncherWalls, AFunctionGoesFirstWhenTheBoardRunsOutOfMemory) {
  EXPECT_EQ(Say({"cat", "/proc/self/oom_score_adj"}), "500\n");
}

TEST_F(LauncherWalls, AnInstanceIsInTheCgroupsOfItsSlot) {
  const VersionSpec spec = world_.Spec();
  Build(spec);
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"say", "here;", "sleep", "60"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  char text[16];
  ASSERT_TRUE(world_.Until([&] { return read(stdio.out.get(), text, sizeof text) > 0; }));
  size_t hierarchies = 0;
  const CgroupLayout layout = PlanCgroupLayout(ReadCgroupSnapshot().value()).value();
  for (const CgroupHierarchy& hierarchy : layout.hierarchies) {
    const std::string slot =
        hierarchy.base + "/" + world_.tree() + "/v" + std::to_string(spec.version_id) + "/slot-0";
    if (!fs::exists(slot)) continue;  // it has nothing to say about slots
    ++hierarchies;
    EXPECT_THAT(FileText(slot + "/cgroup.procs"), ContainsRegex("^[0-9]+\n")) << slot;
  }
  EXPECT_GT(hierarchies, 0U);
}

TEST_F(LauncherWalls, TheHardLimitsAreLowToo) {
  const std::string limits = Say({"cat", "/proc/self/limits"});
  EXPECT_THAT(limits, ContainsRegex("Max open files +1024 +4096 "));
  EXPECT_THAT(limits, ContainsRegex("Max core file size +0 +0 "));
}

}  // namespace
}  // namespace pulga::testing
