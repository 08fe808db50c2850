// Versions from building to dropping, and what happens when one of the processes dies.
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file_io.h"
#include "sandbox/cgroup.h"
#include "sandbox/id_ranges.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class LauncherLifecycle : public LauncherTest {
 protected:
  // The error of a version that must not come to be.
  std::string Refusal(const VersionSpec& spec) {
    const auto spawner = world_.Build(spec, events_);
    return spawner != nullptr ? "it was built" : world_.error.error().message;
  }
  // The kernel says so: a frozen cgroup takes a moment, longest on a busy machine.
  bool UntilFrozen(uint64_t version_id) {
    return world_.Until([&] { return SlotState(version_id).find("FROZEN") != std::string::npos; });
  }
  // "FROZEN" or not, of slot 0, whichever version of cgroups has the freezer.
  std::string SlotState(uint64_t version_id) {
    const auto layout = PlanCgroupLayout(ReadCgroupSnapshot().value());
    const CgroupHierarchy* freezer = layout->Find(CgroupController::kFreezer);
    const std::string slot =
        freezer->base + "/" + world_.tree() + "/v" + std::to_string(version_id) + "/slot-0";
    if (freezer->version == CgroupVersion::kV1) return ReadFile(slot + "/freezer.state").value();
    const auto events = ReadFile(slot + "/cgroup.events");
    return events->find("frozen 1") != std::string::npos ? "FROZEN" : "THAWED";
  }
  Status Drop(uint64_t id) {
    Status out;
    bool done = false;
    world_.client().Drop(id, [&](const Status& status) {
      out = status;
      done = true;
    });
    EXPECT_TRUE(world_.Until([&] { return done; }));
    return out;
  }
};

TEST_F(LauncherLifecycle, SaysWhyACommandCannotRun) {
  EXPECT_THAT(Refusal(world_.Spec({"/nothing"})), HasSubstr("nothing"));
  EXPECT_THAT(Refusal(world_.Spec({"no-such-program"})), HasSubstr("no-such-program"));
  EXPECT_THAT(Refusal(world_.Spec({"/etc"})), HasSubstr("not a regular file"));
  EXPECT_THAT(Refusal(world_.Spec({"/usr/bin/data"})), HasSubstr("execut"));
}

TEST_F(LauncherLifecycle, SaysThatAProgramIsForAnotherMachine) {
  LayerId id;
  id.bytes.fill(0x22);
  const std::string layer = world_.MakeLayer(id);
  fs::copy_file(world_.data() + "/layers/" + world_.base_layer().Hex() + "/probe",
                layer + "/other");
  std::fstream file(layer + "/other", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(18);  // e_machine
  file.write("\xf3\x00", 2);
  file.close();
  world_.OwnLayer(layer);
  VersionSpec spec = world_.Spec({"/other"});
  spec.layers.push_back(id);
  EXPECT_THAT(Refusal(spec), HasSubstr("linux/riscv64"));
}

TEST_F(LauncherLifecycle, FindsTheProgramInThePath) {
  Build(world_.Spec({"hello"}));
  EXPECT_THAT(world_.Run(*spawner_, events_, {}).out, HasSubstr("ello"));
}

TEST_F(LauncherLifecycle, RefusesAWorkingDirectoryInProc) {
  VersionSpec spec = world_.Spec();
  spec.working_dir = "/proc/self/fd/8";
  EXPECT_THAT(Refusal(spec), HasSubstr("workdir"));
  LayerId id;
  id.bytes.fill(0x23);
  const std::string layer = world_.MakeLayer(id);
  fs::create_symlink("/proc/self/fd/8", layer + "/sneaky");
  world_.OwnLayer(layer);
  spec = world_.Spec();
  spec.layers.push_back(id);
  spec.working_dir = "/sneaky";
  EXPECT_THAT(Refusal(spec), HasSubstr("workdir"));
}

TEST_F(LauncherLifecycle, ReplacesMountPointsThatTheImageMadeLinks) {
  LayerId id;
  id.bytes.fill(0x24);
  const std::string layer = world_.MakeLayer(id);
  for (const char* name : {"dev", "proc", "sys", "tmp", "run"}) {
    fs::create_symlink("../../../../tmp", layer + "/" + name);
  }
  world_.OwnLayer(layer);
  VersionSpec spec = world_.Spec();
  spec.layers.push_back(id);
  Build(spec);
  EXPECT_THAT(Say({"ls", "/dev"}), HasSubstr("null"));
  EXPECT_EQ(StatusField(Say({"status"}), "Seccomp"), "2");
}

TEST_F(LauncherLifecycle, StacksAHundredAndTwentyEightLayers) {
  VersionSpec spec = world_.Spec();
  for (int i = 1; i < 128; ++i) {
    LayerId id;
    id.bytes.fill(static_cast<uint8_t>(i));
    id.bytes[0] = 0xee;
    const std::string layer = world_.MakeLayer(id);
    std::ofstream(layer + "/which") << "layer " << i << "\n";
    world_.OwnLayer(layer);
    spec.layers.push_back(id);
  }
  Build(spec);
  EXPECT_EQ(Say({"cat", "/which"}), "layer 127\n");
}

TEST_F(LauncherLifecycle, RefusesWhatIsMissingOrTooMuch) {
  VersionSpec spec = world_.Spec();
  spec.layers[0].bytes.fill(0x77);
  EXPECT_THAT(Refusal(spec), HasSubstr("missing"));
  spec = world_.Spec();
  spec.limits.memory_bytes = 1ULL << 45;
  EXPECT_THAT(Refusal(spec), HasSubstr("board"));
  spec = world_.Spec();
  spec.user = "nobody-knows";
  EXPECT_THAT(Refusal(spec), HasSubstr("nobody-knows"));
  Build(world_.Spec());
  spec = world_.Spec();
  spec.version_id -= 1;
  EXPECT_THAT(Refusal(spec), HasSubstr("exists"));
}

TEST_F(LauncherLifecycle, LeavesNothingOfADroppedVersion) {
  const VersionSpec spec = world_.Spec();
  Build(spec);
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"sleep", "60"};
  ASSERT_TRUE(spawner_->Start(1, std::move(options)).ok());
  ASSERT_TRUE(spawner_->Park(2).ok());
  ASSERT_TRUE(world_.Until([&] { return events_.parked.size() == 1; }));
  EXPECT_TRUE(Drop(spec.version_id).ok());
  EXPECT_EQ(events_.gone.size(), 1U);
  const auto left = world_.Leftovers();
  for (const std::string& entry : left) {
    EXPECT_THAT(entry, HasSubstr(world_.tree()));  // the empty tree itself
    EXPECT_FALSE(fs::exists(entry + "/v" + std::to_string(spec.version_id))) << entry;
  }
}

TEST_F(LauncherLifecycle, CanBuildAVersionAgainAfterDroppingIt) {
  const VersionSpec spec = world_.Spec();
  for (int i = 0; i < 5; ++i) {
    Build(spec);
    EXPECT_EQ(world_.Run(*spawner_, events_, {"exit", "0"}).exit.wait_status, 0);
    ASSERT_TRUE(Drop(spec.version_id).ok());
    spawner_.reset();
  }
}

TEST_F(LauncherLifecycle, BuildsAVersionAgainWhileTheOneBeforeIsStillBeingRemoved) {
  const VersionSpec spec = world_.Spec();
  for (int round = 0; round < 5; ++round) {
    Build(spec);
    spawner_.reset();  // the drop is under way when the next build arrives
  }
  EXPECT_THAT(Say({"say", "again"}), HasSubstr("again"));
}

TEST_F(LauncherLifecycle, FreezesAndThaws) {
  const VersionSpec spec = world_.Spec({"/echo"});
  Build(spec);
  Stdio stdio;
  ASSERT_TRUE(spawner_->Start(0, world_.WithPipes(stdio)).ok());
  std::string said;
  ASSERT_TRUE(WriteAll(stdio.in.get(), "awake ").ok());
  ASSERT_TRUE(world_.UntilSaid(stdio, said, "awake"));
  int answers = 0;
  const auto answered = [&](const Status& status) {
    EXPECT_TRUE(status.ok()) << status.error().message;
    ++answers;
  };
  world_.client().Freeze(spec.version_id, 0, answered);
  ASSERT_TRUE(world_.Until([&] { return answers == 1; }));
  ASSERT_TRUE(UntilFrozen(spec.version_id));
  ASSERT_TRUE(WriteAll(stdio.in.get(), "asleep").ok());
  usleep(300000);  // it would have echoed that long ago
  char byte;
  EXPECT_EQ(read(stdio.out.get(), &byte, 1), -1);
  world_.client().Thaw(spec.version_id, 0, answered);
  EXPECT_TRUE(world_.UntilSaid(stdio, said, "asleep")) << said;
  stdio.in.Reset();
  ASSERT_TRUE(world_.Until([&] { return events_.exits.size() == 1; }));
  EXPECT_EQ(events_.exits[0].wait_status, 0);
  EXPECT_EQ(answers, 2);
}

TEST_F(LauncherLifecycle, DropsAndEndsWhatIsFrozen) {
  const VersionSpec specs[2] = {world_.Spec(), world_.Spec()};
  Recorder recorders[2];
  std::unique_ptr<Spawner> spawners[2];
  Stdio stdio[2];
  int answers = 0;
  for (int i = 0; i < 2; ++i) {
    spawners[i] = world_.Build(specs[i], recorders[i]);
    ASSERT_NE(spawners[i], nullptr);
    StartOptions options = world_.WithPipes(stdio[i]);
    options.extra_args = {"say", "up;", "sleep", "60"};
    ASSERT_TRUE(spawners[i]->Start(0, std::move(options)).ok());
    std::string said;
    ASSERT_TRUE(world_.UntilSaid(stdio[i], said, "up"));
    world_.client().Freeze(specs[i].version_id, 0, [&](const Status&) { ++answers; });
  }
  ASSERT_TRUE(world_.Until([&] { return answers == 2; }));
  for (const VersionSpec& spec : specs) ASSERT_TRUE(UntilFrozen(spec.version_id));
  EXPECT_TRUE(Drop(specs[0].version_id).ok());
  // The other one is frozen still when TearDown ends the launcher.
}

TEST_F(LauncherLifecycle, SweepsWhatAKilledLauncherLeftFrozen) {
  const VersionSpec spec = world_.Spec();
  Build(spec);
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"say", "up;", "sleep", "60"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  std::string said;
  ASSERT_TRUE(world_.UntilSaid(stdio, said, "up"));
  bool frozen = false;
  world_.client().Freeze(spec.version_id, 0, [&](const Status&) { frozen = true; });
  ASSERT_TRUE(world_.Until([&] { return frozen; }));
  ASSERT_TRUE(UntilFrozen(spec.version_id));
  world_.KillLauncher();
  ASSERT_TRUE(world_.Until([&] { return !world_.client().available(); }));
  spawner_.reset();
  world_.StartLauncher();
  Build(world_.Spec());
}

TEST_F(LauncherLifecycle, TellsEverybodyWhenTheLauncherDies) {
  Build(world_.Spec());
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"sleep", "60"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  world_.KillLauncher();
  ASSERT_TRUE(world_.Until([&] { return !events_.gone.empty(); }));
  ASSERT_TRUE(world_.Until([&] { return !world_.client().available(); }));
  EXPECT_FALSE(spawner_->Park(1).ok());
  spawner_.reset();
  world_.StartLauncher();  // sweeps what the killed one left
  Build(world_.Spec());
  EXPECT_EQ(world_.Run(*spawner_, events_, {"exit", "0"}).exit.wait_status, 0);
}

TEST_F(LauncherLifecycle, EndsWithTheDaemonAndTakesEverythingAlong) {
  Build(world_.Spec());
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"sleep", "60"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  // TearDown closes the daemon's sockets and looks for leftovers.
}

TEST_F(LauncherLifecycle, LosesOnlyTheVersionWhoseSpawnerDies) {
  Build(world_.Spec());
  Recorder others;
  const VersionSpec spec = world_.Spec();
  const auto other = world_.Build(spec, others);
  ASSERT_NE(other, nullptr);
  for (const auto& process : fs::directory_iterator("/proc")) {
    std::ifstream in(process.path() / "status");
    const std::string status((std::istreambuf_iterator<char>(in)), {});
    if (StatusField(status, "Uid").rfind(std::to_string(SpawnerHostId(spec.version_id)), 0) == 0) {
      kill(std::stoi(process.path().filename()), SIGKILL);
    }
  }
  ASSERT_TRUE(world_.Until([&] { return !others.gone.empty(); }));
  EXPECT_EQ(world_.Run(*spawner_, events_, {"exit", "0"}).exit.wait_status, 0);
  EXPECT_THAT(events_.gone, IsEmpty());
}

TEST_F(LauncherLifecycle, ListsTheLayersOnDisk) {
  std::vector<LayerId> seen;
  bool done = false;
  world_.client().ListLayers([&](Result<std::vector<LayerId>> ids) {
    done = true;
    if (ids.ok()) seen = *ids;
  });
  ASSERT_TRUE(world_.Until([&] { return done; }));
  EXPECT_THAT(seen, ::testing::ElementsAre(world_.base_layer()));
}

}  // namespace
}  // namespace pulga::testing
