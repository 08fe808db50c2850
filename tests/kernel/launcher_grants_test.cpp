// Grants at work: the file that only root may have written, and what the launcher makes of it.
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "base/text.h"
#include "sandbox/cgroup_dialect.h"
#include "sandbox/cgroup_layout.h"
#include "sandbox/grants_file.h"
#include "sandbox/id_ranges.h"
#include "tests/kernel/launcher_fixture.h"
#include "tests/support/kernel_test.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

class GrantsOnDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    ASSERT_TRUE(MakeDirs(dir_, 0755).ok());
    ASSERT_TRUE(WriteFile(path_, "network host functions=a\n", 0644).ok());
    EXPECT_EQ(Problem(), "");
  }
  std::string Problem() {
    const auto read = ReadGrants(path_);
    return read.ok() ? "" : read.error().message;
  }

  TempDir temp_ = std::move(TempDir::Create("/tmp/pulga-grants-test-")).value();
  std::string dir_ = temp_.path() + "/etc";
  std::string path_ = dir_ + "/grants.conf";
};

TEST_F(GrantsOnDisk, GrantNothingWhenOthersThanRootMayWriteThem) {
  const std::pair<std::string, mode_t> cases[] = {
      {path_, 0664}, {path_, 0646}, {dir_, 0775}, {dir_, 0757}};
  for (const auto& [path, mode] : cases) {
    struct stat before = {};
    ASSERT_EQ(stat(path.c_str(), &before), 0);
    ASSERT_EQ(chmod(path.c_str(), mode), 0);
    EXPECT_THAT(Problem(), HasSubstr(path + ": can be written by others")) << mode;
    ASSERT_EQ(chmod(path.c_str(), before.st_mode & 07777), 0);
  }
  for (const std::string& path : {path_, dir_}) {
    ASSERT_EQ(chown(path.c_str(), 1000, 0), 0);
    EXPECT_THAT(Problem(), HasSubstr(path + ": is not owned by root"));
    ASSERT_EQ(chown(path.c_str(), 0, 0), 0);
  }
  EXPECT_EQ(Problem(), "");
}

TEST_F(GrantsOnDisk, AreFollowedThroughNoSymlink) {
  std::filesystem::create_symlink(dir_, temp_.path() + "/link");
  std::filesystem::create_symlink(path_, dir_ + "/link.conf");
  for (const char* path : {"/link/grants.conf", "/etc/link.conf"}) {
    const auto read = ReadGrants(temp_.path() + path);
    ASSERT_FALSE(read.ok()) << path;
    EXPECT_THAT(read.error().message, HasSubstr("is a symlink"));
  }
  EXPECT_FALSE(ReadGrants(dir_ + "/../etc/grants.conf").ok());
  EXPECT_FALSE(ReadGrants("etc/grants.conf").ok());
}

TEST_F(GrantsOnDisk, AreAFileOfBoundedSizeOrNotThere) {
  ASSERT_TRUE(WriteFile(path_, std::string(kMaxGrantsBytes + 1, '#'), 0644).ok());
  EXPECT_THAT(Problem(), HasSubstr("more than 65536 bytes"));
  ASSERT_EQ(unlink(path_.c_str()), 0);
  EXPECT_EQ(ReadGrants(path_).error().code, Code::kNotFound);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_THAT(Problem(), HasSubstr("no regular file"));
  EXPECT_THAT(ReadGrants(dir_).error().message, HasSubstr("no regular file"));
}

class LauncherGrants : public LauncherTest {
 protected:
  static VersionSpec Named(VersionSpec spec) {
    spec.function = "openfaas-fn/blink";
    return spec;
  }
  std::string Refusal(const VersionSpec& spec) {
    auto spawner = world_.Build(spec, events_);
    return spawner == nullptr ? world_.error.error().message : "";
  }
};

constexpr uint64_t kChownAndKill = 0x21;

TEST_F(LauncherGrants, GiveCapabilitiesInTheUserNamespaceAndNoMore) {
  world_.Grant("capability CHOWN functions=blink\ncapability KILL functions=*\n");
  for (const InitKind init : {InitKind::kPulga, InitKind::kNone}) {
    for (const char* user : {"", "app"}) {
      VersionSpec spec = Named(world_.Spec());
      spec.access.capabilities = kChownAndKill;
      spec.user = user;
      spec.init = init;
      Build(spec);
      const std::string status = Say({"status"});
      for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
        EXPECT_EQ(StatusField(status, set), "0000000000000021") << set << user;
      }
      EXPECT_EQ(StatusField(status, "NoNewPrivs"), "1");
      EXPECT_EQ(StatusField(status, "Seccomp"), "2");
      const RunResult parked = world_.RunParked(*spawner_, events_, {"status"});
      EXPECT_EQ(StatusField(parked.out, "CapEff"), "0000000000000021") << user;
      spawner_.reset();
    }
  }
}

// Its id is mapped beside the image's.
TEST_F(LauncherGrants, MakeNobodyTheVersionsSpawner) {
  constexpr uint64_t kSetGidAndSetUid = 0xC0;
  world_.Grant("capability SETUID functions=*\ncapability SETGID functions=*\n");
  VersionSpec spec = Named(world_.Spec());
  spec.access.capabilities = kSetGidAndSetUid;
  Build(spec);
  const std::string its = std::to_string(kSpawnerInnerId);
  const std::string refused = "errno " + std::to_string(EINVAL);
  constexpr const char* kKeep = "4294967295";
  for (const long call : {SYS_setuid, SYS_setgid, SYS_setreuid, SYS_setregid}) {
    const std::string number = std::to_string(call);
    EXPECT_THAT(Say({"syscall", number, its, its}), HasSubstr(refused)) << number;
    EXPECT_THAT(Say({"syscall", number, "65535", "65535"}), HasSubstr("ok")) << number;
  }
  for (const long call : {SYS_setresuid, SYS_setresgid}) {
    const std::string number = std::to_string(call);
    EXPECT_THAT(Say({"syscall", number, kKeep, kKeep, its}), HasSubstr(refused)) << number;
    EXPECT_THAT(Say({"syscall", number, "1", "1", "1"}), HasSubstr("ok")) << number;
  }
}

// "LAYER STATE: DETAIL"
std::string Told(const Spawner& spawner, const char* name) {
  const auto layers = spawner.layers();
  const Feature* layer = FindFeature(layers, name);
  if (layer == nullptr) return "nothing of " + std::string(name);
  return layer->name + " " + std::string(FeatureStateName(layer->state)) + ": " + layer->detail;
}

TEST_F(LauncherGrants, StandInTheIsolationReportOfWhatLivesOnThem) {
  Build(Named(world_.Spec()));
  EXPECT_EQ(Told(*spawner_, "capabilities"), "capabilities present: none in the bounding set");
  EXPECT_EQ(Told(*spawner_, "network"), "network present: loopback alone");
  spawner_.reset();
  world_.Grant(
      "capability CHOWN functions=blink\n\ncapability KILL functions=*\n"
      "network host functions=*\ndevice tty /dev/tty functions=*\n"
      "host-directory /usr read-only functions=*\n");
  VersionSpec spec = Named(world_.Spec());
  spec.access.capabilities = kChownAndKill;
  spec.access.network.mode = NetworkMode::kHost;
  spec.access.devices = {{"", "/dev/tty", LeaseKind::kByGrant}};
  spec.access.volumes = {{VolumeKind::kHost, "/usr", "/usr-of-host", true, 0}};
  Build(spec);
  EXPECT_EQ(
      Told(*spawner_, "capabilities"),
      "capabilities degraded: CHOWN, KILL in the bounding set; by grant: CHOWN (grants.conf:1), "
      "KILL (grants.conf:3)");
  EXPECT_EQ(Told(*spawner_, "network"),
            "network degraded: the host's; by grant: the host's (grants.conf:4)");
  EXPECT_EQ(Told(*spawner_, "host_directories"),
            "host_directories degraded: by grant: /usr (grants.conf:6)");
  EXPECT_THAT(Told(*spawner_, "cgroup.devices"),
              ::testing::AnyOf(::testing::ContainsRegex("^cgroup.devices degraded: .* by grant: "
                                                        "/dev/tty .grants.conf:5.$"),
                               HasSubstr("cgroup.devices absent: ")));
}

TEST_F(LauncherGrants, TellHowDevicesAreLimited) {
  const auto layout = PlanCgroupLayout(ReadCgroupSnapshot().value());
  const CgroupHierarchy* hierarchy = layout->Find(CgroupController::kDevices);
  if (hierarchy == nullptr) PULGA_SKIP("no devices controller");
  Build(Named(world_.Spec()));
  EXPECT_EQ(Told(*spawner_, "cgroup.devices"),
            "cgroup.devices present: " + DeviceLimitsFor(hierarchy->version, {}).how);
}

TEST_F(LauncherGrants, AreToldToTheDaemonWheneverTheyChange) {
  std::vector<GrantLine> told;
  world_.client().SetOnGrants([&](std::vector<GrantLine> grants) { told = std::move(grants); });
  world_.Grant("nonsense\ncapability CHOWN functions=*  # why\n");
  const std::vector<GrantLine> want = {{2, "capability CHOWN functions=*"}};
  EXPECT_TRUE(world_.Until([&] { return told == want; }));
  ASSERT_EQ(unlink(world_.grants_file().c_str()), 0);
  ASSERT_EQ(kill(world_.launcher_pid(), SIGHUP), 0);
  EXPECT_TRUE(world_.Until([&] { return told.empty(); })) << "taken back";
  world_.Grant("network host functions=a\n");
  EXPECT_TRUE(world_.Until([&] { return told.size() == 1; }));
  world_.KillLauncher();
  EXPECT_TRUE(world_.Until([&] { return told.empty(); })) << "nobody grants any more";
  world_.StartLauncher();  // tells them at once, and ends though nobody listens any more
}

TEST_F(LauncherGrants, OfAnotherFunctionAreNone) {
  world_.Grant("capability CHOWN functions=led,other/blink\n");
  VersionSpec spec = Named(world_.Spec());
  spec.access.capabilities = 1;
  EXPECT_THAT(Refusal(spec), HasSubstr("capabilities: CHOWN needs a line \"capability CHOWN "
                                       "functions=openfaas-fn/blink\""));
  spec.function = "openfaas-fn/led";
  EXPECT_EQ(Refusal(spec), "");
}

TEST_F(LauncherGrants, AreTakenBackFromVersionsThatLiveOnThem) {
  world_.Grant("capability CHOWN functions=blink\n");
  VersionSpec spec = Named(world_.Spec());
  spec.access.capabilities = 1;
  Build(spec);
  world_.Grant("capability KILL functions=blink\n");
  EXPECT_TRUE(world_.Until([&] { return !events_.gone.empty(); }));
  spawner_.reset();
  EXPECT_THAT(Refusal(spec), HasSubstr("capability CHOWN"));
}

TEST_F(LauncherGrants, HoldBesideALineThatDoesNotAndNotInAFileThatOthersWrite) {
  world_.Grant("nonsense\ncapability CHOWN functions=*\n");
  VersionSpec spec = Named(world_.Spec());
  spec.access.capabilities = 1;
  EXPECT_EQ(Refusal(spec), "");
  ASSERT_EQ(chmod(world_.grants_file().c_str(), 0666), 0);
  world_.Grant("capability CHOWN functions=*\n");
  spec = Named(world_.Spec());
  spec.access.capabilities = 1;
  EXPECT_THAT(Refusal(spec), HasSubstr("capability CHOWN"));
}

// Opening it without a terminal is ENXIO; EPERM would be the device cgroup's.
constexpr char kTty[] = "/dev/tty";

TEST_F(LauncherGrants, PutADeviceIntoDevForTheFunctionsUser) {
  world_.Grant("device terminal /dev/tty functions=blink\n");
  VersionSpec spec = Named(world_.Spec());
  spec.user = "app";
  spec.access.devices = {{"terminal", kTty, LeaseKind::kByGrant}};
  Build(spec);
  EXPECT_THAT(Say({"ls", "/dev"}), HasSubstr("tty\n"));
  EXPECT_THAT(Say({"cat", kTty}), HasSubstr("errno " + std::to_string(ENXIO)));
  EXPECT_EQ(Say({"cat", "/dev/null"}), "");
  EXPECT_THAT(spawner_->warnings(), ::testing::IsEmpty());
}

TEST_F(LauncherGrants, PutABlockDeviceIntoDev) {
  struct stat st = {};
  if (stat("/dev/loop0", &st) != 0 || !S_ISBLK(st.st_mode)) PULGA_SKIP("no /dev/loop0");
  world_.Grant("device disk /dev/loop0 functions=* lease=shared\n");
  VersionSpec spec = Named(world_.Spec());
  spec.access.devices = {{"", "/dev/loop0", LeaseKind::kByGrant}};
  Build(spec);
  EXPECT_THAT(Say({"cat", "/dev/loop0"}), ::testing::Not(HasSubstr("errno")));
}

// Root of the host in a version's cgroup, with every node of the host before its eyes.
TEST_F(LauncherGrants, LimitEveryVersionsDevicesByItsCgroup) {
  const auto layout = PlanCgroupLayout(ReadCgroupSnapshot().value());
  const CgroupHierarchy* hierarchy = layout->Find(CgroupController::kDevices);
  if (hierarchy == nullptr) PULGA_SKIP("no devices controller");
  const VersionSpec spec = Named(world_.Spec());
  Build(spec);
  const std::string version =
      hierarchy->base + "/" + world_.tree() + "/v" + std::to_string(spec.version_id);
  const std::string spawner = version + "/spawner";
  const std::string procs =
      (access(spawner.c_str(), F_OK) == 0 ? spawner : version) + "/cgroup.procs";
  const int result = RunInChild([&] {
    if (!WriteFile(procs, "0").ok()) return 255;
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int tty = open(kTty, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return null < 0 || tty >= 0 ? 254 : errno;
  });
  EXPECT_EQ(result, EPERM);
}

TEST_F(LauncherGrants, LeaseADeviceToOneFunctionAtATime) {
  world_.Grant("device terminal /dev/tty functions=*\n");
  VersionSpec spec = Named(world_.Spec());
  spec.access.devices = {{"", kTty, LeaseKind::kByGrant}};
  Build(spec);
  VersionSpec newer = Named(world_.Spec());
  newer.access = spec.access;
  EXPECT_EQ(Refusal(newer), "") << "another version of the same function";
  VersionSpec other = world_.Spec();
  other.function = "openfaas-fn/led";
  other.access = spec.access;
  EXPECT_EQ(Refusal(other), "devices[0]: /dev/tty is held by openfaas-fn/blink (exclusive)");
  spawner_.reset();
  EXPECT_TRUE(world_.Until([&] { return Refusal(other).empty(); })) << "given back";
}

TEST_F(LauncherGrants, NameADeviceThatIsNotThere) {
  world_.Grant("device x /dev/pulga-no-such functions=*\ndevice y /dev/fd/0 functions=*\n");
  VersionSpec spec = Named(world_.Spec());
  spec.access.devices = {{"x", "/dev/pulga-no-such", LeaseKind::kByGrant}};
  EXPECT_THAT(Refusal(spec), HasSubstr("devices[0]: /dev/pulga-no-such: No such file"));
}

// A namespace that stands for the host's: ours.
TEST_F(LauncherGrants, LetAFunctionUseTheHostsNetwork) {
  VersionSpec spec = Named(world_.Spec());
  spec.access.network.mode = NetworkMode::kHost;
  EXPECT_THAT(Refusal(spec), HasSubstr("\"network host functions=openfaas-fn/blink\""));
  world_.Grant("network host functions=blink\n");
  Build(spec);
  std::ifstream in("/proc/net/dev");
  const std::string ours(std::istreambuf_iterator<char>(in), {});
  const auto names = [](const std::string& table) {
    std::vector<std::string> out;
    for (const std::string_view line : Split(table, '\n')) {
      const size_t colon = line.find(':');
      if (colon != std::string_view::npos) out.emplace_back(Trim(line.substr(0, colon)));
    }
    return out;
  };
  EXPECT_EQ(names(Say({"cat", "/proc/net/dev"})), names(ours));
  for (const char* set : {"CapEff", "CapBnd"}) {
    EXPECT_EQ(StatusField(Say({"status"}), set), "0000000000000000");
  }
}

TEST_F(LauncherGrants, ConnectToAServerOnTheHostsNetwork) {
  world_.Grant("network host functions=blink\n");
  VersionSpec spec = Named(world_.Spec({"/http-hello"}));
  spec.mode = SandboxMode::kHttp;
  spec.access.network.mode = NetworkMode::kHost;
  UniqueFd holder(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(holder.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(getsockname(holder.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  spec.env.push_back("PORT=" + std::to_string(ntohs(address.sin_port)));
  Build(spec);
  StartOptions options;
  Stdio stdio;
  options = world_.WithPipes(stdio);
  holder.Reset();  // never listened, so the port is free at once
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  const bool connected = world_.Until([&] {
    events_.sockets.clear();
    const int before = events_.socket_events;
    if (!spawner_->MakeSockets(0, 1).ok()) return false;
    if (!world_.Until([&] { return events_.socket_events > before; })) return false;
    if (events_.sockets.empty()) return false;
    const int fd = events_.sockets[0].get();
    fcntl(fd, F_SETFL, 0);
    return connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  });
  EXPECT_TRUE(connected);
  EXPECT_TRUE(spawner_->Signal(0, SIGKILL).ok());
  EXPECT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
}

}  // namespace
}  // namespace pulga::testing
