// Real cgroups, on whatever this kernel has: v1, v2 or both. Everything is made below
// pulga-test-<pid> and must be gone in the end.
#include "sandbox/cgroup.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <chrono>
#include <thread>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;
using testing::RunInChild;
using testing::StartChild;
using ::testing::StartsWith;
using testing::WaitForChild;
using enum CgroupController;

// Joins by the slow way on v2; only what starts instances needs the fast one.
int Enter(const CgroupJoin& join) {
  if (join.v2_dir.valid()) {
    const UniqueFd procs(openat(join.v2_dir.get(), "cgroup.procs", O_WRONLY | O_CLOEXEC));
    if (!procs.valid() || write(procs.get(), "0", 1) != 1) return errno;
  }
  for (const UniqueFd& fd : join.v1_tasks) {
    const int raw = fd.get();
    if (const int error = JoinCgroup(std::span(&raw, 1))) return error;
  }
  return 0;
}

class RealCgroups : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEED(geteuid() == 0, "making cgroups needs root");
    const auto layout = PlanCgroupLayout(ReadCgroupSnapshot().value());
    ASSERT_TRUE(layout.ok()) << layout.error().message;
    name_ = "pulga-test-" + std::to_string(getpid());
    auto tree = CgroupTree::Open(name_, *layout);
    ASSERT_TRUE(tree.ok()) << tree.error().message;
    tree_ = std::move(*tree);
    options_.version_id = 1;
    options_.slots = 2;
    options_.limits.memory_bytes = 16 << 20;
    options_.limits.pids = 16;
    options_.spawner_uid = 0x7b000001;
  }
  void TearDown() override {
    if (!tree_) return;
    const Status removed = tree_->Remove();
    EXPECT_TRUE(removed.ok()) << removed.error().message;
    for (const CgroupHierarchy& hierarchy : tree_->layout().hierarchies) {
      EXPECT_NE(access((hierarchy.base + "/" + name_).c_str(), F_OK), 0) << hierarchy.base;
    }
  }
  void Create() {
    options_.freezable = true;
    auto version = tree_->CreateVersion(options_);
    ASSERT_TRUE(version.ok()) << version.error().message;
    version_ = std::move(*version);
  }
  // Of slot 0, once.
  SlotFreezer Freezer() { return SlotFreezer::Adopt(std::move(version_.slots[0].freezer)).value(); }
  std::string ReadSlot(CgroupController controller, const std::string& file) {
    const auto text = ReadFile(tree_->SlotDirectory(controller, 1, 0) + "/" + file);
    return text.ok() ? *text : text.error().message;
  }

  std::string name_;
  std::unique_ptr<CgroupTree> tree_;
  VersionCgroupOptions options_;
  VersionCgroups version_;
};

TEST_F(RealCgroups, EveryLimitReadsBackAsItWasSet) {
  options_.limits.swap_bytes = 4 << 20;
  options_.limits.cpu_millis = 250;
  options_.limits.cpu_weight = 50;
  Create();
  for (const CgroupHierarchy& hierarchy : tree_->layout().hierarchies) {
    for (const CgroupWrite& write : LimitWrites(hierarchy.version, options_.limits, {})) {
      if (tree_->layout().Find(write.controller) != &hierarchy) continue;
      const std::string path = tree_->SlotDirectory(write.controller, 1, 0) + "/" + write.file;
      if (write.need == WriteNeed::kMayLack && access(path.c_str(), F_OK) != 0) continue;
      EXPECT_EQ(*ReadFile(path), write.value + "\n") << path;
    }
  }
}

TEST_F(RealCgroups, AllFunctionsTogetherWeighHalfOfAnybodyElse) {
  const CgroupHierarchy* cpu = tree_->layout().Find(CgroupController::kCpu);
  if (cpu == nullptr) GTEST_SKIP() << "no cpu controller";
  const CgroupWrite& weight = DialectOf(cpu->version).tree_weight;
  EXPECT_EQ(*ReadFile(cpu->base + "/" + name_ + "/" + weight.file), weight.value + "\n");
}

TEST_F(RealCgroups, IoLimitsReadBackOnTheDataDisk) {
  const UniqueFd here = OpenFile(".", O_RDONLY | O_DIRECTORY).value();
  options_.disk = DiskOf(here.get());
  options_.limits.io_read_bps = 1 << 20;
  Create();
  if (options_.disk.major == 0 || tree_->layout().Find(kIo) == nullptr) {
    EXPECT_THAT(version_.warnings, ::testing::Contains(HasSubstr("io limits are not enforced")));
    return;
  }
  const bool v1 = tree_->layout().Find(kIo)->version == CgroupVersion::kV1;
  EXPECT_THAT(ReadSlot(kIo, v1 ? "blkio.throttle.read_bps_device" : "io.max"),
              HasSubstr(std::to_string(options_.disk.major) + ":" +
                        std::to_string(options_.disk.minor) + (v1 ? " " : " rbps=") + "1048576"));
}

// Never faster than allowed; slower a loaded machine may be.
TEST_F(RealCgroups, IoLimitsAreFelt) {
  const UniqueFd here = OpenFile("/tmp", O_RDONLY | O_DIRECTORY).value();
  constexpr size_t kBytes = 2 << 20;
  options_.disk = DiskOf(here.get());
  options_.limits.io_write_bps = 1 << 20;
  Create();
  if (options_.disk.major == 0 || !version_.warnings.empty()) {
    PULGA_SKIP("/tmp lies on no disk that can be limited");
  }
  const UniqueFd file(openat(here.get(), ".", O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600));
  if (!file.valid()) PULGA_SKIP("no direct access to /tmp");
  void* block = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(block, MAP_FAILED);
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(RunInChild([&] {
              if (Enter(version_.slots[0].join) != 0) return 1;
              for (size_t at = 0; at < kBytes; at += kBytes / 8) {
                const off_t offset = static_cast<off_t>(at);
                if (pwrite(file.get(), block, kBytes / 8, offset) < 0) return 2;
              }
              return 0;
            }),
            0);
  const auto took = std::chrono::steady_clock::now() - begun;
  EXPECT_GT(took, std::chrono::milliseconds(1500)) << "2 MiB at 1 MiB a second";
  munmap(block, kBytes);
}

TEST_F(RealCgroups, AChildThatJoinsIsInEveryHierarchy) {
  Create();
  const int count = RunInChild([&] {
    if (Enter(version_.slots[0].join) != 0) return 200;
    int inside = 0;
    const std::string text = ReadFile("/proc/self/cgroup").value();
    for (const std::string_view line : Split(text, '\n')) {
      inside += line.ends_with("/" + name_ + "/v1/slot-0");
    }
    return inside;
  });
  const size_t wanted =
      version_.slots[0].join.v1_tasks.size() + (version_.slots[0].join.v2_dir.valid() ? 1 : 0);
  EXPECT_EQ(count, static_cast<int>(wanted));
  EXPECT_GE(wanted, 1U);
}

// Law 1: from a user namespace, without privileges over the host.
TEST_F(RealCgroups, ASpawnerWithoutPrivilegesStartsChildrenInSlots) {
  Create();
  const CgroupJoin& slot = version_.slots[1].join;
  std::vector<int> tasks;
  for (const UniqueFd& fd : slot.v1_tasks) tasks.push_back(fd.get());
  const int status = RunInChild([&] {
    if (Enter(version_.spawner) != 0) return 1;
    if (setresuid(options_.spawner_uid, options_.spawner_uid, options_.spawner_uid) != 0) return 2;
    if (unshare(CLONE_NEWUSER) != 0) return 3;
    clone_args args = {};
    args.exit_signal = SIGCHLD;
    if (slot.v2_dir.valid()) {
      args.flags = CLONE_INTO_CGROUP;
      args.cgroup = static_cast<uint64_t>(slot.v2_dir.get());
    }
    const long pid = slot.v2_dir.valid() ? sys::Clone3(args) : fork();  // v1 needs no clone3
    if (pid < 0) return 100 + errno;
    if (pid == 0) {
      if (JoinCgroup(tasks) != 0) _exit(4);
      const auto text = ReadFile("/proc/self/cgroup");
      _exit(text->find("/" + name_ + "/v1/slot-1\n") != std::string::npos ? 0 : 5);
    }
    return WEXITSTATUS(WaitForChild(static_cast<pid_t>(pid)));
  });
  EXPECT_EQ(status, 0);
}

// 0, or the errno of opening it in the version's cgroup; the node is made anew, mounts are no
// matter.
int OpenInside(const CgroupJoin& join, dev_t device) {
  const std::string node = "/dev/pulga-test-" + std::to_string(getpid());
  if (mknod(node.c_str(), S_IFCHR | 0600, device) != 0) return -errno;
  const int result = RunInChild([&] {
    if (Enter(join) != 0) return 255;
    const int fd = open(node.c_str(), O_RDONLY | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? errno : 0;
  });
  unlink(node.c_str());
  return result;
}

TEST_F(RealCgroups, OnlyTheVersionsDevicesCanBeOpened) {
  if (tree_->layout().Find(kDevices) == nullptr) PULGA_SKIP("no devices controller");
  const dev_t zero = makedev(1, 5);
  const dev_t tty = makedev(5, 0);  // without a terminal: ENXIO where it may be opened
  Create();
  EXPECT_THAT(version_.warnings, ::testing::IsEmpty());
  EXPECT_EQ(OpenInside(version_.spawner, zero), 0);
  EXPECT_EQ(OpenInside(version_.spawner, tty), EPERM);
  options_.version_id = 2;
  options_.devices.push_back({DeviceKind::kCharacter, 5, 0});
  Create();
  EXPECT_NE(OpenInside(version_.spawner, tty), EPERM);
  EXPECT_EQ(OpenInside(version_.spawner, makedev(1, 11)), EPERM);
}

TEST_F(RealCgroups, EatingTooMuchMemoryIsSeenAsAnOomKill) {
  Create();
  SlotCounters counters(std::move(version_.slots[0].counters));
  counters.Begin();
  const int status = RunInChild([&] {
    if (Enter(version_.slots[0].join) != 0) return 1;
    constexpr size_t kSize = 64 << 20;
    auto* memory = static_cast<char*>(
        mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t i = 0; i < kSize; i += 4096) memory[i] = 1;
    return 0;
  });
  EXPECT_EQ(status, 128 + SIGKILL);
  EXPECT_GE(counters.End().oom_kills, 1U);
  EXPECT_GT(counters.End().memory_peak_bytes, 12U << 20);
  EXPECT_LE(counters.End().memory_peak_bytes, options_.limits.memory_bytes);
  counters.Begin();  // the next instance in this slot starts from zero
  EXPECT_EQ(counters.End().oom_kills, 0U);
}

TEST_F(RealCgroups, ProcessesPastTheLimitAreRefused) {
  options_.limits.pids = 4;
  Create();
  const int forked = RunInChild([&] {
    if (Enter(version_.slots[0].join) != 0) return 99;
    int count = 0;
    while (count < 50) {
      const pid_t pid = fork();
      if (pid < 0) break;
      if (pid == 0) {
        pause();
        _exit(0);
      }
      ++count;
    }
    tree_->KillSlot(1, 0);
    pause();  // it kills us too
    return count;
  });
  EXPECT_EQ(forked, 128 + SIGKILL);
  const CgroupHierarchy* hierarchy = tree_->layout().Find(kPids);
  ASSERT_NE(hierarchy, nullptr);
  EXPECT_THAT(ReadSlot(kPids, "pids.events"), StartsWith("max 1"));
}

// "nr_throttled 7" in cpu.stat of slot 0.
uint64_t CpuStat(const std::string& text, const std::string& key) {
  for (const std::string_view line : Split(text, '\n')) {
    if (!line.starts_with(key + " ")) continue;
    return ParseUint(line.substr(key.size() + 1)).value_or(0);
  }
  return 0;
}

// In the kernel's own periods, so that neither a loaded machine nor an emulated one matters:
// whoever is throttled in a period has had its share of it, and nobody gets more than a share in
// each.
TEST_F(RealCgroups, CpuQuotaIsKeptWithinATenth) {
  if (tree_->layout().Find(kCpu) == nullptr) PULGA_SKIP("no cpu controller");
  constexpr double kShareMs = 20;  // of a period of 100 ms
  options_.limits.cpu_millis = 200;
  Create();
  SlotCounters counters(std::move(version_.slots[0].counters));
  counters.Begin();
  RunInChild([&] {
    if (Enter(version_.slots[0].join) != 0) return 1;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(2500);
    while (std::chrono::steady_clock::now() < end) {
    }
    return 0;
  });
  const std::string stat = ReadSlot(kCpu, "cpu.stat");
  const double periods = static_cast<double>(CpuStat(stat, "nr_periods"));
  const double throttled = static_cast<double>(CpuStat(stat, "nr_throttled"));
  const double used_ms = std::chrono::duration<double, std::milli>(counters.End().cpu_time).count();
  EXPECT_GT(throttled, 0) << stat;
  EXPECT_LT(used_ms, 1.1 * kShareMs * (periods + 1)) << stat;
  EXPECT_GT(used_ms, 0.9 * kShareMs * throttled) << stat;
}

// A child that counts in shared memory.
class CountingChild {
 public:
  explicit CountingChild(const CgroupJoin& join)
      : counter_(static_cast<volatile uint64_t*>(
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    pid_ = StartChild([&] {
      if (Enter(join) != 0) return 1;
      while (true) *counter_ = *counter_ + 1;
    });
    while (*counter_ == 0) std::this_thread::yield();
  }
  ~CountingChild() { munmap(const_cast<uint64_t*>(counter_), 4096); }
  CountingChild(const CountingChild&) = delete;
  CountingChild& operator=(const CountingChild&) = delete;
  bool Moves() const {
    const uint64_t before = *counter_;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return *counter_ != before;
  }
  // On a busy machine it may be long before it gets a processor, or before it is stopped.
  bool Becomes(bool moving) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (Moves() != moving) {
      if (std::chrono::steady_clock::now() > end) return false;
    }
    return true;
  }
  pid_t pid() const { return pid_; }

 private:
  volatile uint64_t* counter_;
  pid_t pid_ = -1;
};

TEST_F(RealCgroups, FreezingStopsASlotAndThawingGoesOn) {
  if (tree_->layout().Find(kFreezer) == nullptr) PULGA_SKIP("no freezer");
  Create();
  const CountingChild child(version_.slots[0].join);
  SlotFreezer freezer = Freezer();
  EXPECT_EQ(freezer.Processes(), 1U);
  ASSERT_TRUE(freezer.Freeze().ok());
  EXPECT_TRUE(child.Becomes(false));  // it takes a moment, by contract
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(child.Moves());
  ASSERT_TRUE(freezer.Thaw().ok());
  EXPECT_TRUE(child.Becomes(true));
  tree_->KillSlot(1, 0);
  EXPECT_EQ(WTERMSIG(WaitForChild(child.pid())), SIGKILL);
}

TEST_F(RealCgroups, AFrozenSlotCanBeKilled) {
  if (tree_->layout().Find(kFreezer) == nullptr) PULGA_SKIP("no freezer");
  Create();
  const CountingChild child(version_.slots[0].join);
  ASSERT_TRUE(Freezer().Freeze().ok());
  tree_->KillSlot(1, 0);
  EXPECT_EQ(WTERMSIG(WaitForChild(child.pid())), SIGKILL);
}

TEST_F(RealCgroups, AVersionWithALivingProcessGoesInASecondTry) {
  Create();
  const CountingChild child(version_.slots[1].join);
  const Status busy = tree_->RemoveVersion(1);
  ASSERT_FALSE(busy.ok());
  EXPECT_EQ(busy.error().code, Code::kUnavailable);
  EXPECT_EQ(WTERMSIG(WaitForChild(child.pid())), SIGKILL);
  EXPECT_TRUE(tree_->RemoveVersion(1).ok());
  EXPECT_TRUE(tree_->RemoveVersion(1).ok());  // nothing there is fine
}

TEST_F(RealCgroups, ASweepEndsWhatAnEarlierRunLeft) {
  Create();
  const CountingChild child(version_.slots[0].join);
  (void)Freezer().Freeze().ok();
  auto job = tree_->CreateJob("unpack-1", options_.limits);
  ASSERT_TRUE(job.ok());
  auto second = CgroupTree::Open(name_, tree_->layout());
  ASSERT_TRUE(second.ok());
  std::thread reaper([&] { WaitForChild(child.pid()); });
  const Status swept = (*second)->Sweep();
  reaper.join();
  EXPECT_TRUE(swept.ok()) << swept.error().message;
  EXPECT_NE(access(tree_->SlotDirectory(kMemory, 1, 0).c_str(), F_OK), 0);
}

TEST_F(RealCgroups, FailingCreationLeavesNothing) {
  options_.limits.pids = 0xffffffff;  // the kernel takes at most 4194304
  const auto version = tree_->CreateVersion(options_);
  ASSERT_FALSE(version.ok());
  EXPECT_THAT(version.error().message, HasSubstr("pids.max"));
  EXPECT_THAT(version.error().message, HasSubstr("4294967295"));
  EXPECT_NE(access(tree_->SlotDirectory(kMemory, 1, 0).c_str(), F_OK), 0);
}

}  // namespace
}  // namespace pulga
