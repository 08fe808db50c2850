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

// The launcher's children of that id. Another launcher, of a test that runs beside this one, gives
// the same ids to its own.
std::vector<pid_t> ProcessesOf(pid_t launcher, uint32_t host_id) {
  std::vector<pid_t> out;
  for (const auto& process : fs::directory_iterator("/proc")) {
    std::ifstream in(process.path() / "status");
    const std::string status((std::istreambuf_iterator<char>(in)), {});
    if (StatusField(status, "PPid") != std::to_string(launcher)) continue;
    if (StatusField(status, "Uid").rfind(std::to_string(host_id), 0) == 0) {
      out.push_back(std::stoi(process.path().filename()));
    }
  }
  return out;
}

class LauncherLifecycle : public LauncherTest {
 protected:
  std::vector<pid_t> OwnSpawners(const VersionSpec& spec) {
    return ProcessesOf(world_.launcher_pid(), HostIds().SpawnerHostId(spec.version_id));
  }
  // The error of a version that must not come to be.
  std::string Refusal(const VersionSpec& spec) {
    const auto spawner = world_.Build(spec, events_);
    return spawner != nullptr ? "it was built" : world_.error.error().message;
  }
  // Only what is kept between calls is ever frozen.
  VersionSpec ServerSpec(std::vector<std::string> argv = {"/probe"}) {
    VersionSpec spec = world_.Spec(std::move(argv));
    spec.mode = SandboxMode::kHttp;
    return spec;
  }
  // The kernel says so: a frozen cgroup takes a moment, longest on a busy machine. So do the
  // spawner's first words, which bring what freezing needs.
  bool Freezes(Spawner& spawner, uint64_t version_id) {
    EXPECT_TRUE(world_.Until([&] { return spawner.Freeze(0).ok(); }));
    return world_.Until([&] { return SlotState(version_id).find("FROZEN") != std::string::npos; });
  }
  void StartFrozen(Spawner& spawner, const VersionSpec& spec, Stdio& stdio) {
    StartOptions options = world_.WithPipes(stdio);
    options.extra_args = {"say", "up;", "sleep", "60"};
    ASSERT_TRUE(spawner.Start(0, std::move(options)).ok());
    std::string said;
    ASSERT_TRUE(world_.UntilSaid(stdio, said, "up"));
    ASSERT_TRUE(Freezes(spawner, spec.version_id));
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
  const VersionSpec spec = ServerSpec({"/echo"});
  Build(spec);
  Stdio stdio;
  ASSERT_TRUE(spawner_->Start(0, world_.WithPipes(stdio)).ok());
  std::string said;
  ASSERT_TRUE(WriteAll(stdio.in.get(), "awake ").ok());
  ASSERT_TRUE(world_.UntilSaid(stdio, said, "awake"));
  ASSERT_TRUE(Freezes(*spawner_, spec.version_id));
  ASSERT_TRUE(WriteAll(stdio.in.get(), "asleep").ok());
  usleep(300000);  // it would have echoed that long ago
  char byte;
  EXPECT_EQ(read(stdio.out.get(), &byte, 1), -1);
  EXPECT_EQ(spawner_->Processes(0), 1U);
  ASSERT_TRUE(spawner_->Thaw(0).ok());
  EXPECT_TRUE(world_.UntilSaid(stdio, said, "asleep")) << said;
  stdio.in.Reset();
  ASSERT_TRUE(world_.Until([&] { return events_.exits.size() == 1; }));
  EXPECT_EQ(events_.exits[0].wait_status, 0);
}

TEST_F(LauncherLifecycle, DropsAndEndsWhatIsFrozen) {
  const VersionSpec specs[2] = {ServerSpec(), ServerSpec()};
  Recorder recorders[2];
  std::unique_ptr<Spawner> spawners[2];
  Stdio stdio[2];
  for (int i = 0; i < 2; ++i) {
    spawners[i] = world_.Build(specs[i], recorders[i]);
    ASSERT_NE(spawners[i], nullptr);
    ASSERT_NO_FATAL_FAILURE(StartFrozen(*spawners[i], specs[i], stdio[i]));
  }
  EXPECT_TRUE(Drop(specs[0].version_id).ok());
  // The other one is frozen still when TearDown ends the launcher.
}

TEST_F(LauncherLifecycle, EndsWhatIsFrozenBySignalAndReusesItsSlot) {
  const VersionSpec spec = ServerSpec();
  Build(spec);
  for (const int signo : {SIGKILL, SIGTERM}) {
    Stdio stdio;
    ASSERT_NO_FATAL_FAILURE(StartFrozen(*spawner_, spec, stdio));
    events_.exits.clear();
    ASSERT_TRUE(spawner_->Signal(0, signo).ok());
    ASSERT_TRUE(world_.Until([&] { return events_.exits.size() == 1; }));
    EXPECT_NE(WTERMSIG(events_.exits[0].wait_status), 0);  // a program that ignores SIGTERM: 9
  }
}

TEST_F(LauncherLifecycle, FreezesNothingOfExecVersions) {
  Build(world_.Spec());
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"sleep", "60"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  EXPECT_EQ(spawner_->Freeze(0).error().code, Code::kUnsupported);
  EXPECT_EQ(spawner_->Freeze(1).error().code, Code::kInvalidArgument);  // nothing runs there
}

TEST_F(LauncherLifecycle, SweepsWhatAKilledLauncherLeftFrozen) {
  const VersionSpec spec = ServerSpec();
  Build(spec);
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartFrozen(*spawner_, spec, stdio));
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
  for (const pid_t pid : OwnSpawners(spec)) kill(pid, SIGKILL);
  ASSERT_TRUE(world_.Until([&] { return !others.gone.empty(); }));
  EXPECT_EQ(world_.Run(*spawner_, events_, {"exit", "0"}).exit.wait_status, 0);
  EXPECT_THAT(events_.gone, IsEmpty());
}

TEST_F(LauncherLifecycle, SaysThatTryingAgainHelpsWhenItHasJustEnded) {
  siginfo_t info = {};
  ASSERT_EQ(kill(world_.launcher_pid(), SIGKILL), 0);
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(world_.launcher_pid()), &info, WEXITED | WNOWAIT), 0);
  const Status told = Await([&](auto done) {
    world_.client().ListLayers([done](const auto& ids) { done(Status(ids)); });
  });
  ASSERT_FALSE(told.ok());
  EXPECT_EQ(told.error().code, Code::kUnavailable);
  EXPECT_THAT(told.error().message, HasSubstr("try again"));
  world_.KillLauncher();
  ASSERT_TRUE(world_.Until([&] { return !world_.client().available(); }));
  world_.StartLauncher();  // sweeps what the killed one left
}

// What it was asked for meanwhile is carried out and taken back once it goes on.
TEST_F(LauncherLifecycle, KeepsNobodyWaitingWhenItHangs) {
  LauncherClient& client = world_.client();
  const VersionSpec spec = world_.Spec();
  Status listed, built;
  int answers = 0;
  client.SetPatience(std::chrono::milliseconds(300));
  ASSERT_EQ(kill(world_.launcher_pid(), SIGSTOP), 0);
  client.BuildVersion(spec, events_, [&](Result<std::unique_ptr<Spawner>> spawner) {
    built = Status(spawner);
    ++answers;
  });
  client.ListLayers([&](const Result<std::vector<LayerId>>& ids) {
    listed = Status(ids);
    ++answers;
  });
  EXPECT_TRUE(world_.Until([&] { return answers == 2; }));
  client.SetPatience(std::chrono::seconds(30));
  ASSERT_EQ(kill(world_.launcher_pid(), SIGCONT), 0);
  for (const Status& status : {listed, built}) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::kTimeout);
  }
  bool answered = false;
  client.ListLayers([&](const Result<std::vector<LayerId>>& ids) { answered = ids.ok(); });
  EXPECT_TRUE(world_.Until([&] { return answered; }));  // and so was the build, before it
  EXPECT_TRUE(world_.Until([&] { return OwnSpawners(spec).empty(); }))
      << "its spawner is still there";
  EXPECT_EQ(answers, 2) << "the late answers found nobody";
  Build(spec);  // the same version can be built
}

// A keeper that was killed leaves a launcher that is still tidying up when the next one starts.
TEST_F(LauncherLifecycle, WaitsForTheLauncherBeforeItToEnd) {
  Build(world_.Spec());
  auto [process, socket] = world_.StartBareLauncher();
  LauncherClient next(world_.loop());
  ASSERT_TRUE(next.AdoptLauncher(socket.TakeFd()).ok());
  bool answered = false;
  next.ListLayers([&](const Result<std::vector<LayerId>>& ids) { answered = ids.ok(); });
  for (int i = 0; i < 20; ++i) {  // which the next would have swept away
    EXPECT_EQ(world_.Run(*spawner_, events_, {"exit", "0"}).exit.wait_status, 0);
  }
  EXPECT_FALSE(answered);
  world_.KillLauncher();
  EXPECT_TRUE(world_.Until([&] { return answered; }));
  EXPECT_TRUE(process.Signal(SIGTERM).ok());
  EXPECT_TRUE(process.Reap().ok());
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
