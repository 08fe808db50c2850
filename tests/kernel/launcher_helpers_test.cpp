// The launcher's short-lived helpers, each as it begins to execute and as it ends: looked at by
// ptrace, for a look at /proc would mostly come too late.
#include <linux/capability.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

#include "base/text.h"
#include "sandbox/id_ranges.h"
#include "tests/kernel/launcher_unpack_fixture.h"
#include "tests/support/archive_builder.h"
#include "tests/support/process_watch.h"

namespace pulga::testing {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::StrEq;
using When = SeenProcess::When;
using Strings = std::vector<std::string>;

constexpr uint64_t kVolume = 0x5eed0001;

std::string Caps(std::initializer_list<int> numbers) {
  uint64_t set = 0;
  for (const int number : numbers) set |= uint64_t{1} << number;
  char text[20];
  snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(set));
  return text;
}

// The same key of each.
Strings All(const std::vector<SeenProcess>& seen, const std::string& key) {
  Strings out;
  for (const SeenProcess& one : seen) out.push_back(StatusField(one.facts, key));
  return out;
}

Strings Descriptors(const SeenProcess& process) {
  Strings out;
  for (const std::string_view line : Split(process.facts, '\n')) {
    if (line.starts_with("fd.")) out.emplace_back(line.substr(3, line.find(':') - 3));
  }
  std::sort(out.begin(), out.end());
  return out;
}

// Real, effective, saved and of the file system, as status has them.
std::string Ids(uint32_t id) {
  const std::string one = std::to_string(id);
  return one + "\t" + one + "\t" + one + "\t" + one;
}

std::string OwnNamespace(const std::string& kind) {
  return std::filesystem::read_symlink("/proc/self/ns/" + kind).string();
}

class LauncherHelpers : public LauncherUnpack {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    // Stands for the -900 that not every root may give its launcher.
    SetScore("300");
    world_.StartLauncher();
    SetScore("0");
    world_.client().SetNetwork({{{0x0A530000}, 16}, {8080}}, [](UniqueFd) {});
    watch_.emplace(world_.launcher_pid());
  }
  void TearDown() override {
    watch_.reset();
    LauncherTest::TearDown();
  }
  static void SetScore(const char* score) { std::ofstream("/proc/self/oom_score_adj") << score; }

  std::vector<SeenProcess> Seen(const std::string& program, When when) const {
    std::vector<SeenProcess> out;
    for (const SeenProcess& one : watch_->Seen()) {
      if (one.program == program && one.when == when) out.push_back(one);
    }
    return out;
  }
  // An answer may come before the helper has ended.
  void AwaitEndOf(const std::string& program, size_t count) {
    EXPECT_TRUE(world_.Until([&] { return Seen(program, When::kEnd).size() >= count; })) << program;
  }
  void ExpectInCgroup(const SeenProcess& process, const std::string& name) {
    const size_t at = process.facts.find("/" + world_.tree() + "/" + name + "\n");
    EXPECT_NE(at, std::string::npos) << process.facts.substr(process.facts.find("cgroup:"));
  }
  void UnpackALayer() {
    const std::string tar = TarBuilder().File("etc/motd", "a new layer\n").Finish();
    const Status done = Run(LayerJob(tar, Id(0x31)));
    ASSERT_TRUE(done.ok()) << done.error().message << Told();
    AwaitEndOf("pulga-unpacker", 1);
  }
  void AttachAndDetach() {
    VersionSpec spec = world_.Spec();
    spec.access.network.mode = NetworkMode::kEgress;
    Build(spec);
    EXPECT_TRUE(Await([&](auto done) { world_.client().Drop(spec.version_id, done); }).ok());
    spawner_.reset();
    AwaitEndOf("pulga-netadmin", 5);  // open, its maker, the host's addresses, attach, detach
  }
  Status MakeVolume() {
    return Await([&](auto done) {
      world_.client().CreateVolume({kVolume, 8 << 20, "data"}, done);
    });
  }

  std::optional<ProcessWatch> watch_;
};

TEST_F(LauncherHelpers, AreNotSparedAsTheLauncherIs) {
  UnpackALayer();
  ASSERT_TRUE(MakeVolume().ok());
  AttachAndDetach();
  for (const SeenProcess& one : watch_->Seen()) {
    const std::string score = StatusField(one.facts, "oom_score_adj");
    EXPECT_THAT(score, AnyOf("0", "250", "500")) << one.program;
  }
  EXPECT_THAT(All(Seen("pulga-launcher", When::kEnd), "oom_score_adj"), Contains("0"));
  EXPECT_THAT(All(Seen("pulga-unpacker", When::kExec), "oom_score_adj"), Each(StrEq("0")));
  EXPECT_THAT(All(Seen("mke2fs", When::kExec), "oom_score_adj"), Each(StrEq("0")));
  EXPECT_THAT(All(Seen("pulga-netadmin", When::kExec), "oom_score_adj"), Each(StrEq("250")));
  EXPECT_THAT(All(Seen("pulga-router", When::kExec), "oom_score_adj"), Each(StrEq("250")));
}

TEST_F(LauncherHelpers, ThatUnpackALayerBeginBounded) {
  UnpackALayer();
  const auto began = Seen("pulga-unpacker", When::kExec);
  ASSERT_EQ(began.size(), 1U);
  const std::string& facts = began[0].facts;
  const std::string kept = Caps({CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SYS_ADMIN,
                                 CAP_SYS_CHROOT, CAP_SETPCAP});
  EXPECT_EQ(StatusField(facts, "CapBnd"), kept);
  for (const char* set : {"CapInh", "CapAmb"}) EXPECT_EQ(StatusField(facts, set), Caps({}));
  EXPECT_EQ(StatusField(facts, "NoNewPrivs"), "1");
  EXPECT_EQ(StatusField(facts, "environ"), "");
  for (const char* kind : {"user", "mnt", "pid", "net", "ipc", "uts"}) {
    EXPECT_NE(StatusField(facts, std::string("ns.") + kind), OwnNamespace(kind)) << kind;
  }
  EXPECT_EQ(StatusField(facts, "Max core file size"), "0 0");
  EXPECT_EQ(StatusField(facts, "Max msgqueue size"), "0 0");
  EXPECT_EQ(StatusField(facts, "Max open files"), "1024 1024");
  // Request, input, output, staging, channel and one parent.
  EXPECT_EQ(Descriptors(began[0]), (Strings{"0", "1", "2", "3", "4", "5", "6", "7", "8"}));
  ExpectInCgroup(began[0], "unpack-1");
}

TEST_F(LauncherHelpers, ThatUnpackALayerEndLockedIn) {
  UnpackALayer();
  const auto ended = Seen("pulga-unpacker", When::kEnd);
  ASSERT_EQ(ended.size(), 1U);
  const std::string& facts = ended[0].facts;
  const std::string files = Caps({CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID});
  for (const char* set : {"CapEff", "CapPrm"}) EXPECT_EQ(StatusField(facts, set), files) << set;
  for (const char* set : {"CapInh", "CapAmb", "CapBnd"}) {
    EXPECT_EQ(StatusField(facts, set), Caps({})) << set;
  }
  EXPECT_EQ(StatusField(facts, "Seccomp"), "2");
  EXPECT_EQ(StatusField(facts, "Uid"), Ids(kOwnerIdBase));
  EXPECT_NE(StatusField(facts, "root"), "/");
}

TEST_F(LauncherHelpers, ThatChangeTheNetworkBeginWithTheirOrderAlone) {
  AttachAndDetach();
  const auto began = Seen("pulga-netadmin", When::kExec);
  ASSERT_FALSE(began.empty());
  for (const SeenProcess& one : began) {
    ExpectInCgroup(one, "netadmin");
    EXPECT_EQ(StatusField(one.facts, "environ"), "");
    EXPECT_EQ(StatusField(one.facts, "cwd"), "/");
    EXPECT_EQ(Descriptors(one), (Strings{"0", "1", "2", "3", "4", "5", "6", "7"}));
  }
}

// What parses or composes netfilter messages has one capability, over the router's namespace.
TEST_F(LauncherHelpers, ThatChangeTheNetworkEndWithTheCapabilitiesOfTheirJob) {
  AttachAndDetach();
  const auto ended = Seen("pulga-netadmin", When::kEnd);
  EXPECT_THAT(All(ended, "NoNewPrivs"), Each(StrEq("1")));
  size_t openers = 0;
  for (const SeenProcess& one : ended) {
    const bool opens = StatusField(one.facts, "ns.user") == OwnNamespace("user");
    openers += opens ? 1 : 0;
    const std::string wanted = opens ? Caps({CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SETUID, CAP_SETGID})
                                     : Caps({CAP_NET_ADMIN});
    EXPECT_EQ(StatusField(one.facts, "CapEff"), wanted);
    EXPECT_EQ(StatusField(one.facts, "CapPrm"), wanted);
    EXPECT_EQ(StatusField(one.facts, "CapInh"), Caps({}));
    EXPECT_TRUE(opens || StatusField(one.facts, "ns.net") != OwnNamespace("net"));
  }
  EXPECT_EQ(openers, 1U);
}

TEST_F(LauncherHelpers, ThatMakeFileSystemsHaveTheFileAndNothingElse) {
  const Status made = MakeVolume();
  ASSERT_TRUE(made.ok()) << made.error().message;
  const auto began = Seen("mke2fs", When::kExec);
  ASSERT_EQ(began.size(), 1U);
  const std::string& facts = began[0].facts;
  EXPECT_EQ(StatusField(facts, "Uid"), Ids(kVolumeToolsHostId));
  EXPECT_EQ(StatusField(facts, "Gid"), Ids(kVolumeToolsHostId));
  EXPECT_EQ(StatusField(facts, "Groups"), "");
  for (const char* set : {"CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"}) {
    EXPECT_EQ(StatusField(facts, set), Caps({})) << set;
  }
  EXPECT_EQ(StatusField(facts, "NoNewPrivs"), "1");
  for (const char* kind : {"net", "ipc", "uts"}) {
    EXPECT_NE(StatusField(facts, std::string("ns.") + kind), OwnNamespace(kind)) << kind;
  }
  EXPECT_EQ(Descriptors(began[0]), (Strings{"0", "1", "2", "3"}));
  EXPECT_EQ(StatusField(facts, "Max core file size"), "0 0");
}

}  // namespace
}  // namespace pulga::testing
