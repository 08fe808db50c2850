// The isolation report of a version, row by row, against what the kernel says of it.
#include <cstring>
#include <sstream>

#include "base/file_io.h"
#include "base/root_switch.h"
#include "base/text.h"
#include "sandbox/apparmor.h"
#include "sandbox/cgroup.h"
#include "sandbox/isolation.h"
#include "sandbox/kernel_probes.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::AnyOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class LauncherReport : public LauncherTest {
 protected:
  // "STATE: DETAIL"
  std::string Told(const char* name) const {
    const auto layers = spawner_->layers();
    const Feature* layer = FindFeature(layers, name);
    if (layer == nullptr) return "nothing of " + std::string(name);
    return std::string(FeatureStateName(layer->state)) + ": " + layer->detail;
  }
  // A "FILE VALUE" part of a row names what that file of the slot really holds.
  void ExpectRead(const char* name, const std::string& directory) {
    const std::string told = Told(name);
    if (directory.empty()) return;
    ASSERT_THAT(told, StartsWith("present: "));
    for (const std::string_view part : Split(std::string_view(told).substr(9), ';')) {
      const std::string_view entry = Trim(part);
      const size_t space = entry.find(' ');
      const auto held = ReadFile(directory + "/" + std::string(entry.substr(0, space)));
      ASSERT_TRUE(held.ok()) << name << ": " << told;
      EXPECT_EQ(held->substr(0, held->find('\n')), entry.substr(space + 1)) << name;
    }
  }
  std::string Slot(CgroupController controller, uint64_t version_id) {
    const auto layout = PlanCgroupLayout(ReadCgroupSnapshot().value()).value();
    const CgroupHierarchy* hierarchy = layout.Find(controller);
    if (hierarchy == nullptr) return "";
    return hierarchy->base + "/" + world_.tree() + "/v" + std::to_string(version_id) + "/slot-0";
  }
};

TEST_F(LauncherReport, HasARowForEveryWall) {
  Build(world_.Spec());
  for (const char* name :
       {"user_namespace",    "id_range",       "namespace.mount",  "namespace.pid", "namespace.net",
        "namespace.uts",     "namespace.ipc",  "namespace.cgroup", "capabilities",  "no_new_privs",
        "seccomp",           "read_only_root", "old_root",         "cgroup_view",   "keyring",
        "rlimits",           "network",        "host_directories", "landlock",      "apparmor",
        "cgroup.memory",     "cgroup.swap",    "cgroup.oom_group", "cgroup.pids",   "cgroup.cpu",
        "cgroup.cpu_weight", "cgroup.io",      "cgroup.devices",   "cgroup.freezer"}) {
    EXPECT_THAT(Told(name), AnyOf(StartsWith("present: "), ContainsRegex("^(absent|degraded): .+")))
        << name;
  }
  for (const char* name :
       {"user_namespace", "namespace.mount", "namespace.pid", "namespace.net", "namespace.uts",
        "namespace.ipc", "namespace.cgroup", "no_new_privs", "seccomp", "capabilities",
        "read_only_root", "old_root", "cgroup.memory", "cgroup.pids"}) {
    EXPECT_THAT(Told(name), StartsWith("present: ")) << name;
  }
}

TEST_F(LauncherReport, TellsWhatCameOfAskingForAppArmor) {
  Build(world_.Spec());
  const Feature asked = AppArmorLayer(kernel_probes::AppArmorProfile());
  EXPECT_EQ(Told("apparmor"), std::string(FeatureStateName(asked.state)) + ": " + asked.detail);
}

TEST_F(LauncherReport, TellsThatAppArmorIsSwitchedOff) {
  world_.StopLauncher();
  world_.StartLauncher({{}, {"--apparmor", "off"}});
  Build(world_.Spec());
  EXPECT_EQ(Told("apparmor"), "absent: switched off (--apparmor off)");
}

TEST_F(LauncherReport, TellsTheLimitsThatTheCgroupsHold) {
  VersionSpec spec = world_.Spec();
  spec.limits.cpu_millis = 250;
  spec.limits.cpu_weight = 50;
  Build(spec);
  ExpectRead("cgroup.memory", Slot(CgroupController::kMemory, spec.version_id));
  ExpectRead("cgroup.swap", Slot(CgroupController::kMemory, spec.version_id));
  ExpectRead("cgroup.pids", Slot(CgroupController::kPids, spec.version_id));
  ExpectRead("cgroup.cpu", Slot(CgroupController::kCpu, spec.version_id));
  ExpectRead("cgroup.cpu_weight", Slot(CgroupController::kCpu, spec.version_id));
  EXPECT_EQ(Told("cgroup.pids"), "present: pids.max " + std::to_string(spec.limits.pids));
  EXPECT_EQ(Told("cgroup.io"), "absent: no limit was asked for");
}

TEST_F(LauncherReport, TellsTheHostIdsThatAnInstanceHas) {
  Build(world_.Spec());
  std::istringstream map(Say({"cat", "/proc/self/uid_map"}));
  uint64_t inside = 0, host = 0, count = 0;
  map >> inside >> host >> count;
  EXPECT_THAT(Told("id_range"), HasSubstr("image ids are " + std::to_string(host) + "-" +
                                          std::to_string(host + count - 1)));
}

TEST_F(LauncherReport, TellsTheRlimitsThatAnInstanceHas) {
  VersionSpec spec = world_.Spec();
  spec.limits.nofile = 64;
  Build(spec);
  const std::string limits = Say({"cat", "/proc/self/limits"});
  const std::pair<const char*, const char*> names[] = {{"core ", "Max core file size"},
                                                       {"msgqueue ", "Max msgqueue size"},
                                                       {"memlock ", "Max locked memory"},
                                                       {"sigpending ", "Max pending signals"}};
  const std::string told = Told("rlimits");
  EXPECT_THAT(told, HasSubstr("nofile 64"));
  for (const auto& [word, row] : names) {
    const size_t at = limits.find(row);
    ASSERT_NE(at, std::string::npos) << row;
    std::istringstream line(limits.substr(at + strlen(row)));
    std::string soft, hard;
    line >> soft >> hard;
    EXPECT_THAT(told, HasSubstr(word + hard)) << row;
  }
}

// Both are tried: the guest of scripts/vm-test has boots of either kind.
TEST_F(LauncherReport, TellsHowTheHostsRootWasLeft) {
  Build(world_.Spec());
  const bool first = IsFirstRoot(ReadFile("/proc/self/mountinfo", 16 << 20).value());
  EXPECT_THAT(Told("old_root"), StartsWith(first ? "present: moved over" : "present: detached"));
}

TEST_F(LauncherReport, TellsTheModesApart) {
  Build(world_.Spec());
  EXPECT_EQ(Told("namespace.net"), "present: one for all instances of the version");
  EXPECT_THAT(Told("cgroup.freezer"), StartsWith("absent: "));
  spawner_.reset();
  VersionSpec server = world_.Spec({"/http-hello"});
  server.mode = SandboxMode::kHttp;
  Build(server);
  EXPECT_EQ(Told("namespace.net"), "present: one for each instance");
  if (!Slot(CgroupController::kFreezer, server.version_id).empty()) {
    EXPECT_THAT(Told("cgroup.freezer"), StartsWith("present: "));
  }
}

TEST_F(LauncherReport, NamesTheLineOfAGrantAsTheFileHasItNow) {
  world_.Grant("network host functions=*\n");
  VersionSpec spec = world_.Spec();
  spec.function = "openfaas-fn/blink";
  spec.access.network.mode = NetworkMode::kHost;
  Build(spec);
  EXPECT_EQ(Told("network"), "degraded: the host's; by grant: the host's (grants.conf:1)");
  EXPECT_EQ(Told("namespace.net"), "absent: it is the host's");
  world_.Grant("# one more line\n\nnetwork host functions=openfaas-fn/blink\n");
  EXPECT_TRUE(world_.Until([&] {
    return Told("network") == "degraded: the host's; by grant: the host's (grants.conf:3)";
  })) << Told("network");
}

}  // namespace
}  // namespace pulga::testing
