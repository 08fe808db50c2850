// What a program sees and may do inside: one test for each line of the default profile.
#include <sys/resource.h>
#include <sys/wait.h>

#include <fstream>
#include <map>
#include <sstream>

#include "base/text.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kNoCaps[] = "0000000000000000";

class LauncherIsolation : public LauncherTest {};

TEST_F(LauncherIsolation, HasNoCapabilityInAnyOfTheFiveSets) {
  const std::string status = Say({"status"});
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(StatusField(status, set), kNoCaps) << set;
  }
}

TEST_F(LauncherIsolation, ShowsNothingOfTheHostInTheCommandLineOfItsInit) {
  const std::string shown = Say({"cat", "/proc/1/cmdline"});
  EXPECT_THAT(shown, Not(HasSubstr("launcher")));
  EXPECT_THAT(shown, Not(HasSubstr("pulga")));
}

TEST_F(LauncherIsolation, HasNoNewPrivilegesAndASeccompFilter) {
  const std::string status = Say({"status"});
  EXPECT_EQ(StatusField(status, "NoNewPrivs"), "1");
  EXPECT_EQ(StatusField(status, "Seccomp"), "2");
}

// The spawner's, and the one that takes the spawner's tools away (counted since Linux 5.9).
TEST_F(LauncherIsolation, HasTwoFiltersMoreThanWeHave) {
  std::ifstream in("/proc/self/status");
  const std::string ours(std::istreambuf_iterator<char>(in), {});
  const std::string before = StatusField(ours, "Seccomp_filters");
  if (before.empty()) PULGA_SKIP("filters are counted since Linux 5.9");
  const std::string wanted = std::to_string(std::stoi(before) + 2);
  EXPECT_EQ(StatusField(Say({"status"}), "Seccomp_filters"), wanted);
  EXPECT_EQ(StatusField(Say({"cat", "/proc/1/status"}), "Seccomp_filters"), wanted);
}

TEST_F(LauncherIsolation, GivesPid1OfAnExecInstanceNoPrivilegeEither) {
  const std::string status = Say({"cat", "/proc/1/status"});
  EXPECT_EQ(StatusField(status, "CapEff"), kNoCaps);
  EXPECT_EQ(StatusField(status, "CapBnd"), kNoCaps);
  EXPECT_EQ(StatusField(status, "Seccomp"), "2");
}

TEST_F(LauncherIsolation, IsRootOfAUserNamespaceOnly) {
  EXPECT_THAT(Say({"ids"}), HasSubstr("uid 0 0 0 gid 0 0 0 groups pid 2"));
  const std::string map = Say({"cat", "/proc/self/uid_map"});
  EXPECT_THAT(map, HasSubstr("2046820352"));  // 0x7A000000
}

TEST_F(LauncherIsolation, ResolvesTheImagesUserWithItsGroups) {
  VersionSpec spec = world_.Spec();
  spec.user = "app";
  Build(spec);
  EXPECT_THAT(Say({"ids"}), HasSubstr("uid 1000 1000 1000 gid 1001 1001 1001 groups 2000"));
}

TEST_F(LauncherIsolation, IsPid1WithoutOurInit) {
  VersionSpec spec = world_.Spec();
  spec.init = InitKind::kNone;
  Build(spec);
  EXPECT_THAT(Say({"ids"}), HasSubstr("pid 1\n"));
  const RunResult parked = world_.RunParked(*spawner_, events_, {"ids;", "exit", "4"});
  EXPECT_THAT(parked.out, HasSubstr("pid 1\n"));
  EXPECT_EQ(WEXITSTATUS(parked.exit.wait_status), 4);
}

TEST_F(LauncherIsolation, CannotWriteTheRoot) {
  for (const char* path :
       {"/new", "/etc/hosts", "/dev/new", "/sys/new", "/sys/fs/cgroup/new", "/probe"}) {
    const RunResult run = Probe({"write", path});
    EXPECT_EQ(run.out.find("write 14"), std::string::npos) << path << ": " << run.out << run.err;
    EXPECT_THAT(run.out + run.err, HasSubstr("30")) << path;  // EROFS
  }
}

TEST_F(LauncherIsolation, HasATmpOfItsOwnThatIsBounded) {
  VersionSpec spec = world_.Spec();
  spec.limits.tmp_bytes = 1 << 20;
  Build(spec);
  EXPECT_THAT(Say({"tmpfill"}), HasSubstr("1048576 bytes, then"));
  EXPECT_THAT(Say({"ls", "/tmp"}), Not(HasSubstr("fill")));
}

TEST_F(LauncherIsolation, SeesTheDevicesOfTheProfileOnly) {
  const std::string dev = Say({"ls", "/dev"});
  for (const char* name : {"null\n", "zero\n", "full\n", "random\n", "urandom\n", "fd ->",
                           "stdin ->", "stdout ->", "stderr ->", "shm\n"}) {
    EXPECT_THAT(dev, HasSubstr(name));
  }
  for (const char* name : {"tty", "ptmx", "console", "kmsg", "mem", "sda", "vda", "pts"}) {
    EXPECT_THAT(dev, Not(HasSubstr(name)));
  }
  EXPECT_EQ(Probe({"cat", "/dev/null"}).exit.wait_status, 0);
}

TEST_F(LauncherIsolation, SeesOnlyItsOwnProcesses) {
  const std::string proc = Say({"ls", "/proc"});
  EXPECT_THAT(proc, HasSubstr("1\n"));
  EXPECT_THAT(proc, Not(HasSubstr("\n3\n")));
}

TEST_F(LauncherIsolation, HidesWhatProcTellsAboutTheHost) {
  for (const char* file : {"interrupts", "timer_list", "keys", "kcore"}) {
    const RunResult run = Probe({"cat", std::string("/proc/") + file});
    EXPECT_LE(run.out.size(), 64U) << file << ": " << run.out;
  }
  EXPECT_THAT(Say({"write", "/proc/sys/kernel/core_pattern", "x"}), Not(HasSubstr("write 1")));
  EXPECT_THAT(Say({"write", "/proc/sysrq-trigger", "b"}), Not(HasSubstr("write 1")));
}

TEST_F(LauncherIsolation, ShowsNoPathOfTheHostInItsMounts) {
  const std::string mounts = Say({"mounts"});
  EXPECT_THAT(mounts, HasSubstr(" / / ro"));
  EXPECT_THAT(mounts, Not(HasSubstr(world_.data())));
  EXPECT_THAT(mounts, Not(HasSubstr("/tmp/pulga-")));
  EXPECT_THAT(mounts, Not(HasSubstr("ext4")));
}

TEST_F(LauncherIsolation, KnowsNoCgroupNameOfTheHost) {
  const std::string said = Say({"cgroup"});
  EXPECT_THAT(said, Not(HasSubstr("pulga")));
  EXPECT_THAT(said, HasSubstr(":/\n")) << "its own is the root of them";
}

TEST_F(LauncherIsolation, OpensNothingButItsThreeDescriptors) {
  const std::string fds = Say({"fds"});
  EXPECT_THAT(fds, HasSubstr("0 -> pipe"));
  EXPECT_THAT(fds, Not(HasSubstr("\n3")));
  const RunResult parked = world_.RunParked(*spawner_, events_, {"fds"});
  EXPECT_THAT(parked.out, Not(HasSubstr("\n3")));
}

TEST_F(LauncherIsolation, MayMakeNoNamespaceMountOrDevice) {
  for (const char* kind : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}) {
    const std::string said = Say({"unshare", kind});
    EXPECT_THAT(said, HasSubstr("unshare: errno 1\n")) << said;
    EXPECT_THAT(said, HasSubstr("clone: errno 1\n")) << said;
  }
  EXPECT_THAT(Say({"mount"}), HasSubstr("errno 1\n"));
  EXPECT_THAT(Say({"chroot"}), HasSubstr("errno 1\n"));
  EXPECT_THAT(Say({"ptrace"}), HasSubstr("errno 1\n"));
  EXPECT_THAT(Say({"mknod"}), HasSubstr("mknod-char: errno 1\n"));
}

TEST_F(LauncherIsolation, CannotKillItsInit) {
  EXPECT_EQ(WEXITSTATUS(Probe({"kill", "1", "9;", "exit", "5"}).exit.wait_status), 5);
  EXPECT_EQ(WEXITSTATUS(Probe({"kill", "1", "19;", "exit", "5"}).exit.wait_status), 5);
}

TEST_F(LauncherIsolation, HasItsOwnHostnameAndFilesForIt) {
  EXPECT_THAT(Say({"cat", "/etc/hostname"}), HasSubstr("flea"));
  EXPECT_THAT(Say({"cat", "/proc/sys/kernel/hostname"}), HasSubstr("flea"));
  EXPECT_THAT(Say({"cat", "/etc/hosts"}), HasSubstr("127.0.0.1"));
}

// A start stays on one processor; what it starts must not.
TEST_F(LauncherIsolation, MayUseEveryProcessorThatWeMayUse) {
  std::ifstream in("/proc/self/status");
  const std::string ours(std::istreambuf_iterator<char>(in), {});
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(StatusField(Say({"status"}), "Cpus_allowed"), StatusField(ours, "Cpus_allowed"));
  }
}

TEST_F(LauncherIsolation, KeepsToItsLimits) {
  VersionSpec spec = world_.Spec();
  spec.limits.nofile = 64;
  spec.limits.pids = 8;
  Build(spec);
  EXPECT_THAT(Say({"nofile"}), HasSubstr("61 opened"));
  EXPECT_THAT(Say({"forkbomb"}), HasSubstr("errno 11\n"));
  EXPECT_THAT(Say({"cat", "/proc/self/limits"}), HasSubstr("Max core file size        0"));
}

TEST_F(LauncherIsolation, SharesNoNamespaceWithAnotherInstanceButUserAndNetwork) {
  Build(world_.Spec());
  Stdio stdio[2];
  std::string seen[2];
  for (uint16_t slot = 0; slot < 2; ++slot) {
    StartOptions options = world_.WithPipes(stdio[slot]);
    options.extra_args = {"ls", "/proc/self/ns;", "sleep", "60"};
    ASSERT_TRUE(spawner_->Start(slot, std::move(options)).ok());
  }
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(world_.Until([&] {
      char text[1024];
      const ssize_t n = read(stdio[i].out.get(), text, sizeof text);
      if (n > 0) seen[i].append(text, static_cast<size_t>(n));
      return seen[i].find("uts -> ") != std::string::npos &&
             seen[i].find("user -> ") != std::string::npos;
    }));
  }
  for (const std::string kind : {"pid", "mnt", "ipc", "uts", "cgroup"}) {
    const size_t at = seen[0].find("\n" + kind + " -> ");
    ASSERT_NE(at, std::string::npos) << kind << " in " << seen[0];
    const std::string line = seen[0].substr(at, seen[0].find('\n', at + 1) - at);
    EXPECT_EQ(seen[1].find(line), std::string::npos) << line;
  }
}

// A launcher that was given more than any function may have, as far as this machine lets us.
class LauncherRlimits : public LauncherTest {
 protected:
  void SetUp() override {
    for (const auto resource :
         {RLIMIT_MEMLOCK, RLIMIT_MSGQUEUE, RLIMIT_NICE, RLIMIT_RTPRIO, RLIMIT_SIGPENDING}) {
      rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
      if (setrlimit(resource, &limit) == 0) continue;
      getrlimit(resource, &limit);
      limit.rlim_cur = limit.rlim_max;
      setrlimit(resource, &limit);
    }
    LauncherTest::SetUp();
  }
  // "soft hard" of a line of /proc/PID/limits.
  static std::vector<std::string> Values(const std::string& limits, const std::string& name) {
    std::istringstream line(limits.substr(std::min(limits.find(name), limits.size() - 1)));
    line.ignore(static_cast<std::streamsize>(name.size()));
    std::vector<std::string> values(2);
    line >> values[0] >> values[1];
    return values;
  }
};

TEST_F(LauncherRlimits, BoundWhatNoCgroupCounts) {
  const std::map<std::string, uint64_t> most = {{"Max locked memory", 8 << 20},
                                                {"Max msgqueue size", 0},
                                                {"Max nice priority", 0},
                                                {"Max realtime priority", 0},
                                                {"Max pending signals", 1024}};
  const std::string limits = Say({"cat", "/proc/self/limits"});
  for (const auto& [name, bound] : most) {
    for (const std::string& value : Values(limits, name)) {
      const auto number = ParseUint(value);
      ASSERT_TRUE(number.has_value()) << name << ": " << value << " in " << limits;
      EXPECT_LE(*number, bound) << name;
    }
  }
}

TEST_F(LauncherIsolation, HasASilentNetwork) {
  EXPECT_THAT(Say({"cat", "/proc/net/dev"}), Not(HasSubstr("eth0")));
  EXPECT_THAT(Say({"connect", "8080", "10", "0", "0", "1"}), HasSubstr("errno 101\n"));
}

TEST_F(LauncherIsolation, StartsInItsWorkingDirectoryWhereverThatIs) {
  for (const char* dir : {"/", "/srv", "/made/for/it", "/bin", "/tmp/own/dir"}) {
    VersionSpec spec = world_.Spec();
    spec.working_dir = dir;
    Build(spec);
    const std::string want = std::string(dir) == "/bin" ? "/usr/bin" : dir;
    EXPECT_EQ(Say({"cwd"}), want + "\n");
  }
}

}  // namespace
}  // namespace pulga::testing
