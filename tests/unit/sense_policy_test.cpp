// From readings to a level and a sentence; and who is told when.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/sense/board_sense.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;
const TimePoint kStart{std::chrono::hours(1)};

BoardFacts Pi4() {
  BoardFacts facts;
  facts.model = "Raspberry Pi 4 Model B";
  facts.memory_bytes = 2 * kGiB;
  facts.cores = 4;
  return facts;
}

BoardReadings Calm() {
  BoardReadings now;
  now.memory = now.io = now.cpu = Pressure();
  now.available_bytes = kGiB;
  now.celsius = 50;
  now.hottest = "cpu-thermal";
  return now;
}

// By default shrink; what PSI needs beside it to ask for more.
constexpr uint64_t kLittle = 2 * kGiB * 7 / 100;

class SensePolicyTest : public ::testing::Test {
 protected:
  PressureLevel After(Duration wait, const BoardReadings& readings) {
    time += wait;
    return policy.Look(readings, time).level;
  }
  std::string why() const { return policy.verdict().why; }
  PressurePolicy policy{Pi4(), ThresholdsFor(Pi4(), {}), seconds(10)};
  TimePoint time = kStart;
};

TEST_F(SensePolicyTest, ACalmBoardIsCalmAndSaysNothing) {
  EXPECT_EQ(After(seconds(0), Calm()), PressureLevel::kCalm);
  EXPECT_EQ(why(), "");
}

TEST_F(SensePolicyTest, MemoryPressureRisesThroughAllLevels) {
  BoardReadings now = Calm();
  const std::pair<double, PressureLevel> steps[] = {
      {24.9, PressureLevel::kShrink}, {25, PressureLevel::kDelay}, {50, PressureLevel::kShed}};
  now.available_bytes = kLittle;
  for (const auto& [percent, level] : steps) {
    now.memory->some.avg10 = percent;
    EXPECT_EQ(After(seconds(2), now), level) << percent;
  }
  EXPECT_EQ(why(), "memory: tasks waited for it 50 % of the time (shed at 50 %)");
}

TEST_F(SensePolicyTest, OneThatWaitsAtItsOwnLimitWhileMemoryIsAvailableShrinksAndNoMore) {
  BoardReadings now = Calm();
  now.memory->some.avg10 = 9.9;
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kCalm);
  now.memory->some.avg10 = 100;
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kShrink);
  EXPECT_EQ(why(),
            "memory: tasks waited for it 100 % of the time (shrink at 10 %), more is done only "
            "when little is available");
  now.available_bytes.reset();
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kShrink) << "nobody knows";
  now.available_bytes = kLittle;
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kShed);
  now.available_bytes = 2 * kGiB * 9 / 100;  // above the step, but not well above
  EXPECT_EQ(After(seconds(60), now), PressureLevel::kShed);
  now.available_bytes = 2 * kGiB * 11 / 100;
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kShed);
  EXPECT_EQ(After(seconds(11), now), PressureLevel::kShrink);
}

TEST_F(SensePolicyTest, FallsOnlyAfterAWhileWellBelowTheStep) {
  BoardReadings now = Calm();
  now.available_bytes = kLittle;
  now.memory->some.avg10 = 30;
  ASSERT_EQ(After(seconds(0), now), PressureLevel::kDelay);
  now.memory->some.avg10 = 22;  // below the step, but not well below
  EXPECT_EQ(After(seconds(60), now), PressureLevel::kDelay);
  now.memory->some.avg10 = 3;
  now.available_bytes = kGiB;
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kDelay);
  EXPECT_EQ(After(milliseconds(9900), now), PressureLevel::kDelay);
  EXPECT_EQ(After(milliseconds(200), now), PressureLevel::kCalm);
  EXPECT_EQ(why(), "");
}

TEST_F(SensePolicyTest, AReadingThatComesBackBeginsTheWaitAnew) {
  BoardReadings hot = Calm();
  hot.memory->some.avg10 = 30;
  hot.available_bytes = kLittle;
  ASSERT_EQ(After(seconds(0), hot), PressureLevel::kDelay);
  EXPECT_EQ(After(seconds(2), Calm()), PressureLevel::kDelay);
  EXPECT_EQ(After(seconds(6), hot), PressureLevel::kDelay);
  EXPECT_EQ(After(seconds(6), Calm()), PressureLevel::kDelay);
  EXPECT_EQ(After(seconds(9), Calm()), PressureLevel::kDelay);
  EXPECT_EQ(After(seconds(2), Calm()), PressureLevel::kCalm);
}

TEST_F(SensePolicyTest, FallsToTheLevelThatStillHoldsAndSaysWhy) {
  BoardReadings now = Calm();
  now.memory->some.avg10 = 60;
  now.available_bytes = kLittle;
  now.celsius = 76;
  ASSERT_EQ(After(seconds(0), now), PressureLevel::kShed);
  now.memory->some.avg10 = 0;
  now.available_bytes = kGiB;
  EXPECT_EQ(After(seconds(1), now), PressureLevel::kShed);
  EXPECT_EQ(After(seconds(11), now), PressureLevel::kDelay);
  EXPECT_THAT(why(), HasSubstr("temperature: 76 C in cpu-thermal (delay at 75 C)"));
}

TEST_F(SensePolicyTest, LittleAvailableMemoryCountsWithoutPsi) {
  BoardReadings now;
  now.available_bytes = 2 * kGiB * 4 / 100;
  EXPECT_EQ(After(seconds(0), now), PressureLevel::kDelay);
  EXPECT_THAT(why(), HasSubstr("81.9 MiB available, 4 % (delay at 5 %)"));
}

TEST_F(SensePolicyTest, WithoutPsiTheLoadTellsWhoWaitsForAProcessor) {
  PressureWishes wishes;
  wishes.cpu = PressureSteps{kNoStep, 50, kNoStep};
  policy = PressurePolicy(Pi4(), ThresholdsFor(Pi4(), wishes), seconds(10));
  BoardReadings now;
  now.load1 = 12;  // four of them run
  EXPECT_EQ(After(seconds(0), now), PressureLevel::kDelay);
  EXPECT_THAT(why(), HasSubstr("this kernel has no PSI"));
}

TEST_F(SensePolicyTest, BusyProcessorsAloneAskForNothing) {
  BoardReadings now = Calm();
  now.cpu->some = {100, 100};
  EXPECT_EQ(After(seconds(0), now), PressureLevel::kCalm);
}

TEST_F(SensePolicyTest, WhatTheFirmwareOrTheProcessorSlowsDownDelays) {
  BoardReadings now = Calm();
  now.firmware_throttle = 0x50000;  // it was so once
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kCalm);
  now.firmware_throttle = 0x50005;
  now.cap_khz = 600000;
  now.full_khz = 1800000;
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kDelay);
  EXPECT_EQ(why(),
            "the firmware says: undervoltage, slowed down, the processor is held at 600 of 1800 "
            "MHz");
  BoardReadings counted = Calm();
  counted.throttle_count = 5;
  PressurePolicy pc(BoardFacts(), ThresholdsFor({}, {}), seconds(10));
  EXPECT_EQ(pc.Look(counted, kStart).level, PressureLevel::kCalm) << "since the boot";
  counted.throttle_count = 6;
  EXPECT_EQ(pc.Look(counted, kStart + seconds(2)).level, PressureLevel::kDelay);
}

TEST_F(SensePolicyTest, ASlowDiskIsToldByTheTimeOfAWrite) {
  BoardReadings now = Calm();
  now.disk = DiskCounters{1000, 5000};
  EXPECT_EQ(After(seconds(0), now), PressureLevel::kCalm);
  EXPECT_FALSE(policy.write_ms());
  now.disk = DiskCounters{1002, 9000};  // too few to tell
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kCalm);
  now.disk = DiskCounters{1012, 15000};
  EXPECT_EQ(After(seconds(2), now), PressureLevel::kDelay);
  EXPECT_THAT(why(), HasSubstr("a write takes 600 ms"));
  now.disk = DiskCounters{10, 20};  // another disk: nothing can be said
  (void)After(seconds(2), now);
  EXPECT_FALSE(policy.write_ms());
}

TEST(SenseThresholds, FollowTheBoardsClass) {
  BoardFacts small = Pi4();
  small.memory_bytes = kGiB / 2;
  EXPECT_EQ(BoardClassName(small), "small board");
  EXPECT_EQ(FormatSteps(ThresholdsFor(small, {}).available), "12,8,4");
  EXPECT_EQ(FormatSteps(ThresholdsFor(Pi4(), {}).temperature), "off,75,82");
  BoardFacts pc;
  pc.memory_bytes = 16 * kGiB;
  EXPECT_EQ(BoardClassName(pc), "PC");
  EXPECT_EQ(FormatSteps(ThresholdsFor(pc, {}).temperature), "off,95,103");
  BoardFacts rockchip = Pi4();
  rockchip.processor_zones = {{0, "soc-thermal", {{"passive", 70}, {"critical", 85}}}};
  EXPECT_EQ(FormatSteps(ThresholdsFor(rockchip, {}).temperature), "off,70,77");
}

TEST(SenseThresholds, AreReadOrRefusedInWords) {
  EXPECT_EQ(FormatSteps(ParseSteps("10, 25,off", 100, StepOrder::kRising).value()), "10,25,off");
  EXPECT_EQ(FormatSteps(ParseSteps("8,5.5,3", 100, StepOrder::kFalling).value()), "8,5.5,3");
  const char* bad[] = {"",        "10",      "10,25",   "10,25,50,60", "25,10,50",
                       "0,1,2",   "1,2,101", "a,b,c",   "1,,2",        "-1,2,3",
                       "nan,1,2", "1,2,3x",  "1e1,2,3", "1,off,0",     "50,off,10"};
  for (const char* text : bad) {
    const auto steps = ParseSteps(text, 100, StepOrder::kRising);
    ASSERT_FALSE(steps.ok()) << text;
    EXPECT_THAT(steps.error().message, HasSubstr("shrink,delay,shed"));
  }
  EXPECT_FALSE(ParseSteps("3,5,8", 100, StepOrder::kFalling).ok());
}

// --- who is told

class BoardSenseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir = std::make_unique<TempDir>(TempDir::Create("/tmp/sense-").value());
    loop = EventLoop::Create().value();
    ASSERT_TRUE(MakeDirs(dir->path() + "/proc/pressure").ok());
  }
  // Who waits for memory does so because little is available.
  void Press(const std::string& avg10) {
    const std::string available = avg10 == "0.00" ? "900000" : "100000";
    ASSERT_TRUE(WriteFile(dir->path() + "/proc/meminfo",
                          "MemTotal: 1000000 kB\nMemAvailable: " + available + " kB\n")
                    .ok());
    const std::string text = "some avg10=" + avg10 + " avg60=0.00\n";
    ASSERT_TRUE(WriteFile(dir->path() + "/proc/pressure/memory", text).ok());
  }
  std::unique_ptr<BoardSense> Make(SenseOptions options) {
    options.interval = milliseconds(1);
    BoardSense::Hooks hooks;
    hooks.tell = [this](const PressureVerdict& verdict) { told.push_back(verdict); };
    hooks.busy = [] { return true; };
    return std::make_unique<BoardSense>(*loop, clock, BoardReader(dir->path(), dir->path()),
                                        options, std::move(hooks));
  }
  void Until(const std::function<bool()>& done) {
    for (int i = 0; i < 5000 && !done(); ++i) loop->RunOnce(milliseconds(5));
    EXPECT_TRUE(done());
  }
  std::unique_ptr<TempDir> dir;
  std::unique_ptr<EventLoop> loop;
  FakeClock clock;
  std::vector<PressureVerdict> told;
};

TEST_F(BoardSenseTest, TellsAgainWhileItLastsAndOnceWhenItIsOver) {
  Press("0.00");
  const auto sense = Make({});
  sense->Start();
  EXPECT_TRUE(told.empty()) << "calm is nothing to tell";
  Press("60.00");
  Until([&] { return told.size() >= 3; });
  EXPECT_EQ(told[2].level, PressureLevel::kShed);
  EXPECT_EQ(sense->Report().level_changes, 1U);
  Press("0.00");
  sense->Look();
  clock.Advance(seconds(11));
  Until([&] { return told.back().level == PressureLevel::kCalm; });
  const size_t count = told.size();
  for (int i = 0; i < 5; ++i) loop->RunOnce(milliseconds(2));
  EXPECT_EQ(told.size(), count);
  EXPECT_EQ(sense->Report().level_changes, 2U);
}

TEST_F(BoardSenseTest, SwitchedOffItReadsAndTellsNobody) {
  Press("60.00");
  SenseOptions options;
  options.acts = false;
  const auto sense = Make(options);
  sense->Start();
  sense->Look();
  EXPECT_TRUE(told.empty());
  EXPECT_EQ(sense->Report().verdict.level, PressureLevel::kShed) << "what it would be";
  EXPECT_FALSE(sense->Report().acts);
  EXPECT_DOUBLE_EQ(sense->Report().readings.memory->some.avg10, 60);
}

TEST_F(BoardSenseTest, SwitchedOffUnderPressureItSaysThatItIsOver) {
  Press("60.00");
  const auto sense = Make({});
  sense->Start();
  ASSERT_EQ(told.back().level, PressureLevel::kShed);
  SenseOptions off = sense->options();
  off.acts = false;
  sense->SetOptions(off);
  EXPECT_EQ(told.back().level, PressureLevel::kCalm);
}

}  // namespace
}  // namespace pulga
