// Frozen instances whose pages are pushed out: what comes of it with swap and without, what ends
// it, and that the limits of the slot are the same afterwards. With swap: in the guest
// (tests/vm/test_reclaim.py), which sets up zram and wants nothing skipped.
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/file_io.h"
#include "sandbox/cgroup.h"
#include "sandbox/slot_processes.h"
#include "sandbox/slot_reclaim.h"
#include "sandbox/swap_devices.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kHeld = 24 << 20;

bool HasSwap() {
  struct sysinfo info = {};
  return sysinfo(&info) == 0 && info.totalswap != 0;
}

class LauncherReclaim : public LauncherTest {
 protected:
  void SetUp() override {
    LauncherTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    spec_ = world_.Spec();
    spec_.mode = SandboxMode::kHttp;
    spec_.limits.memory_bytes = 48 << 20;
    Build(spec_);
  }
  void Start(uint16_t slot, Stdio& stdio) {
    StartOptions options = world_.WithPipes(stdio);
    options.extra_args = {"hold", std::to_string(kHeld >> 20)};
    ASSERT_TRUE(spawner_->Start(slot, std::move(options)).ok());
    std::string said;
    ASSERT_TRUE(world_.UntilSaid(stdio, said, "held")) << said;
  }
  void StartFrozen(uint16_t slot, Stdio& stdio) {
    ASSERT_NO_FATAL_FAILURE(Start(slot, stdio));
    ASSERT_TRUE(world_.Until([&] { return spawner_->Freeze(slot).ok(); }));
  }
  std::string Answer(Stdio& stdio) {
    std::string said;
    (void)WriteAll(stdio.in.get(), "\n").ok();
    world_.UntilSaid(stdio, said, "\n");
    return said;
  }
  // As the launcher answers, whether or not there is swap.
  Result<Reclaimed> Reclaim(uint16_t slot) {
    Result<Reclaimed> out = Error{Code::kInternal, 0, "no answer"};
    bool answered = false;
    world_.client().Reclaim(spec_.version_id, slot, [&](Result<Reclaimed> brought) {
      out = std::move(brought);
      answered = true;
    });
    EXPECT_TRUE(world_.Until([&] { return answered; }));
    return out;
  }
  // What a slot may swap, as its cgroup says.
  std::string SwapLimits() {
    const auto layout = PlanCgroupLayout(ReadCgroupSnapshot().value());
    const CgroupHierarchy* memory = layout->Find(CgroupController::kMemory);
    const std::string slot =
        memory->base + "/" + world_.tree() + "/v" + std::to_string(spec_.version_id) + "/slot-0/";
    std::string out;
    for (const char* file : {"memory.swappiness", "memory.swap.max"}) {
      const auto text = ReadFile(slot + file);
      if (text.ok()) out += *text;
    }
    return out;
  }

  VersionSpec spec_;
};

TEST_F(LauncherReclaim, IsForWhatIsFrozen) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(Start(0, stdio));
  EXPECT_THAT(Reclaim(0).error().message, HasSubstr("not frozen"));
  EXPECT_EQ(Answer(stdio), "intact\n");
}

TEST_F(LauncherReclaim, LeavesLimitsAndInstanceAsTheyWere) {
  const std::string limits = SwapLimits();
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartFrozen(0, stdio));
  const auto brought = Reclaim(0);
  ASSERT_TRUE(brought.ok()) << brought.error().message;
  EXPECT_GT(brought->before_bytes, kHeld);
  EXPECT_LE(brought->after_bytes, brought->before_bytes);
  EXPECT_EQ(SwapLimits(), limits);
  ASSERT_TRUE(spawner_->Thaw(0).ok());
  EXPECT_EQ(Answer(stdio), "intact\n");
}

TEST_F(LauncherReclaim, SaysWhatABoardLacks) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartFrozen(0, stdio));
  const Status can = spawner_->CanReclaim();
  const Status asked = spawner_->Reclaim(0, [](const Result<Reclaimed>&) {});
  EXPECT_EQ(can.ok(), HasSwap());
  EXPECT_EQ(asked.ok(), HasSwap());
  if (HasSwap()) return;
  EXPECT_THAT(asked.error().message, HasSubstr("no swap"));
}

TEST_F(LauncherReclaim, TellsWhatAnInstanceTakesInParts) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartFrozen(0, stdio));
  const InstanceMemory memory = spawner_->Memory(0);
  EXPECT_GE(memory.anon, kHeld);
  EXPECT_LT(memory.anon, kHeld + (2 << 20));
  EXPECT_GE(memory.total, memory.anon);
  EXPECT_GT(memory.kernel, 0U);
  EXPECT_LT(memory.kernel, 4U << 20);
  EXPECT_EQ(memory.swapped, 0U);
  EXPECT_EQ(spawner_->Memory(1).anon, 0U);  // nobody there
}

TEST_F(LauncherReclaim, OneThatIsCancelledSaysSo) {
  Stdio stdio[2];
  ASSERT_NO_FATAL_FAILURE(StartFrozen(0, stdio[0]));
  ASSERT_NO_FATAL_FAILURE(StartFrozen(1, stdio[1]));
  // The second waits for the first, or has begun, or is over already: not always.
  bool cancelled = false;
  for (int round = 0; round < 100 && !cancelled; ++round) {
    int answers = 0;
    for (const uint16_t slot : {uint16_t{0}, uint16_t{1}}) {
      world_.client().Reclaim(spec_.version_id, slot, [&, slot](const Result<Reclaimed>& brought) {
        ++answers;
        if (slot == 1 && !brought.ok()) cancelled = brought.error().sys_errno == ECANCELED;
      });
    }
    world_.client().CancelReclaim(spec_.version_id, 1);
    ASSERT_TRUE(world_.Until([&] { return answers == 2; }));
  }
  EXPECT_TRUE(cancelled);
}

TEST_F(LauncherReclaim, EndsWithTheVersion) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartFrozen(0, stdio));
  world_.client().Reclaim(spec_.version_id, 0, [](const Result<Reclaimed>&) {});
  EXPECT_TRUE(Await([&](auto done) { world_.client().Drop(spec_.version_id, done); }).ok());
}

// As where the kernel's cgroups have no file for it (v2 before Linux 5.19).
class ByProcesses : public LauncherReclaim {
 protected:
  void Run(const char* when) {
    auto layout = PlanCgroupLayout(ReadCgroupSnapshot().value());
    ASSERT_TRUE(layout.ok()) << layout.error().message;
    const auto cgroups = CgroupTree::Open(world_.tree(), std::move(*layout));  // the launcher's
    ASSERT_TRUE(cgroups.ok()) << cgroups.error().message;
    const auto work =
        SlotReclaim::Open(**cgroups, {spec_.version_id, 0, spec_.limits, ReclaimBy::kProcesses});
    ASSERT_TRUE(work.ok()) << work.error().message;
    ASSERT_TRUE(work->Begin().ok());
    EXPECT_EQ(work->Run(), 0) << when;
    EXPECT_TRUE(work->End().ok());
    ASSERT_TRUE(spawner_->Thaw(0).ok());
    EXPECT_EQ(work->Run(), ECANCELED) << "it is not frozen any more";
  }
};

TEST_F(ByProcesses, LeavesLimitsAndInstanceAsTheyWere) {
  if (!CanPushOutPages()) GTEST_SKIP() << "no process_madvise (Linux 5.10)";
  const std::string limits = SwapLimits();
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartFrozen(0, stdio));
  ASSERT_NO_FATAL_FAILURE(Run("swap or not"));
  EXPECT_EQ(SwapLimits(), limits);
  EXPECT_EQ(Answer(stdio), "intact\n");
}

TEST_F(ByProcesses, TakesPagesOutWhereThereIsSwap) {
  if (!HasSwap()) GTEST_SKIP() << "no swap here";
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartFrozen(0, stdio));
  const InstanceMemory before = spawner_->Memory(0);
  ASSERT_NO_FATAL_FAILURE(Run("with swap"));
  EXPECT_LT(spawner_->Memory(0).anon, before.anon / 4);
  EXPECT_GT(spawner_->Memory(0).swapped, kHeld * 3 / 4);
  EXPECT_EQ(Answer(stdio), "intact\n");
  EXPECT_GE(spawner_->Memory(0).anon, kHeld) << "they came back";
}

TEST(ReclaimWay, IsTheBestThereIs) {
  EXPECT_EQ(ReclaimByOf(true, true), ReclaimBy::kCgroupFile);
  EXPECT_EQ(ReclaimByOf(false, true), ReclaimBy::kProcesses);
  EXPECT_EQ(ReclaimByOf(false, false), ReclaimBy::kNothing);
}

class LauncherSwap : public LauncherReclaim {
 protected:
  void SetUp() override {
    if (!HasSwap()) GTEST_SKIP() << "no swap here";
    LauncherReclaim::SetUp();
  }
  // To the answer, for which it reads all it holds.
  Duration ThawTime(Stdio& stdio) {
    const TimePoint begun = std::chrono::steady_clock::now();
    EXPECT_TRUE(spawner_->Thaw(0).ok());
    EXPECT_EQ(Answer(stdio), "intact\n");
    return std::chrono::steady_clock::now() - begun;
  }
  // For people: what a rung costs here.
  static void TellFigure(const char* rung, const InstanceMemory& memory, Duration thaw) {
    const auto kib = [](uint64_t bytes) { return std::to_string(bytes >> 10) + " KiB"; };
    const auto us = std::chrono::duration_cast<std::chrono::microseconds>(thaw).count();
    printf("figure: %s: anon %s, file %s, kernel %s, total %s, swapped %s, thaw %lld us\n", rung,
           kib(memory.anon).c_str(), kib(memory.file).c_str(), kib(memory.kernel).c_str(),
           kib(memory.total).c_str(), kib(memory.swapped).c_str(), static_cast<long long>(us));
  }
  // `done` is called at most once.
  void Reclaim(int& done) {
    const Status asked = spawner_->Reclaim(0, [&](const Result<Reclaimed>& brought) {
      ++done;
      EXPECT_TRUE(brought.ok()) << brought.error().message;
      if (brought.ok()) brought_ = *brought;
    });
    ASSERT_TRUE(asked.ok()) << asked.error().message;
  }

  Reclaimed brought_;
};

TEST_F(LauncherSwap, TakesPagesOutAndTheyComeBackIntact) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartFrozen(0, stdio));
  const InstanceMemory before = spawner_->Memory(0);
  TellFigure("frozen", before, ThawTime(stdio));
  ASSERT_TRUE(spawner_->Freeze(0).ok());
  int done = 0;
  ASSERT_NO_FATAL_FAILURE(Reclaim(done));
  ASSERT_TRUE(world_.Until([&] { return done == 1; }));
  const InstanceMemory after = spawner_->Memory(0);
  EXPECT_LT(after.anon, before.anon / 4);
  EXPECT_GT(after.swapped, kHeld * 3 / 4);
  EXPECT_LT(after.total, before.total / 2);
  const auto swap = ReadSwaps();
  ASSERT_TRUE(swap.ok()) << swap.error().message;
  EXPECT_EQ(brought_.zram_bytes > 0, !swap->zram.empty()) << "no cgroup is charged for that";
  EXPECT_LE(brought_.zram_bytes, after.swapped);
  TellFigure("reclaimed", after, ThawTime(stdio));
  EXPECT_GE(spawner_->Memory(0).anon, kHeld);
}

TEST_F(LauncherSwap, AThawEndsItUnheard) {
  Stdio stdio;
  ASSERT_NO_FATAL_FAILURE(StartFrozen(0, stdio));
  int done = 0;
  ASSERT_NO_FATAL_FAILURE(Reclaim(done));
  EXPECT_EQ(spawner_->Reclaim(0, [](const Result<Reclaimed>&) {}).error().sys_errno, EBUSY);
  ASSERT_TRUE(spawner_->Thaw(0).ok());
  EXPECT_EQ(Answer(stdio), "intact\n");
  ASSERT_TRUE(spawner_->Freeze(0).ok());
  // The launcher is done with it: the next one runs, and only that is heard of.
  ASSERT_TRUE(world_.Until([&] { return LauncherReclaim::Reclaim(0).ok(); }));
  EXPECT_EQ(done, 0);
}

}  // namespace
}  // namespace pulga::testing
