// The pure half of the task queue: whose turn is next, what an end means, what the board can spare.
#include <gmock/gmock.h>
#include <signal.h>

#include "runtime/tasks/lane_holds.h"
#include "runtime/tasks/task_queue.h"
#include "runtime/tasks/task_rules.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const TimePoint kNow{hours(1)};
const auto kAnything = [](const TaskQueue::Lane&) { return true; };

Task MakeTask(uint64_t seq, const std::string& function, uint64_t bytes = 100) {
  Task task;
  task.seq = seq;
  task.id = "id-" + std::to_string(seq);
  task.function.name = function;
  task.bytes = bytes;
  return task;
}

class TaskQueueTest : public ::testing::Test {
 protected:
  void Add(uint64_t seq, const std::string& function, TimePoint not_before = {}) {
    queue.Add(MakeTask(seq, function), not_before);
  }
  // Begins as many as may; the functions' names in turn.
  std::vector<uint64_t> BeginAll(uint32_t at_most_each, uint32_t weight_of_a = 100) {
    std::vector<uint64_t> begun;
    while (queue.Wake(kNow)) {
      const auto seq = queue.Next(
          [&](const TaskQueue::Lane& lane) { return lane.counts.running < at_most_each; });
      if (!seq) break;
      queue.CountTurn(*seq, queue.At(*seq)->function.name == "a" ? weight_of_a : 100);
      queue.Begin(*seq, 1);
      begun.push_back(*seq);
    }
    return begun;
  }
  static TimePoint At(int64_t ms) { return kNow + milliseconds(ms); }
  void End(uint64_t seq, int64_t at_ms) {
    queue.End(seq, TaskState::kDone, At(at_ms), [](Task&) {});
  }
  TaskQueue queue;
};

TEST_F(TaskQueueTest, FunctionsTakeTurnsAndTheirTasksGoByArrival) {
  for (uint64_t seq : {1, 2, 3}) Add(seq, "a");
  for (uint64_t seq : {4, 5}) Add(seq, "b");
  EXPECT_THAT(BeginAll(9), ElementsAre(1, 4, 2, 5, 3));
}

TEST_F(TaskQueueTest, TurnsGoByWeight) {
  for (uint64_t seq : {1, 2, 3, 4}) Add(seq, "a");
  for (uint64_t seq : {5, 6}) Add(seq, "b");
  EXPECT_THAT(BeginAll(9, 300), ElementsAre(1, 5, 2, 3, 4, 6));
}

TEST_F(TaskQueueTest, AFunctionThatMayNotHoldsNobodyUp) {
  for (uint64_t seq : {1, 2}) Add(seq, "a");
  Add(3, "b");
  EXPECT_THAT(BeginAll(1), ElementsAre(1, 3));
  EXPECT_EQ(queue.Counts({kDefaultOwner, kDefaultNamespace, "a"}).queued, 1U);
  End(1, 5);
  EXPECT_THAT(BeginAll(1), ElementsAre(2));
}

TEST_F(TaskQueueTest, WhatWaitsForATimeIsPassedOver) {
  Add(1, "a", kNow + seconds(5));
  Add(2, "a");
  EXPECT_THAT(BeginAll(9), ElementsAre(2));
  EXPECT_EQ(queue.NextDue(), kNow + seconds(5));
  EXPECT_FALSE(queue.Wake(kNow + milliseconds(4999)));
  EXPECT_TRUE(queue.Wake(kNow + seconds(5)));
  EXPECT_FALSE(queue.NextDue()) << "it is ready";
}

TEST_F(TaskQueueTest, WhatIsPutBackKeepsItsPlace) {
  for (uint64_t seq : {1, 2}) Add(seq, "a");
  EXPECT_THAT(BeginAll(1), ElementsAre(1));
  queue.PutBack(1, kNow, [](Task& task) { --task.attempts; });
  EXPECT_THAT(BeginAll(1), ElementsAre(1));
  EXPECT_EQ(queue.At(1)->attempts, 1U);
}

TEST_F(TaskQueueTest, CountsWhatThereIs) {
  Add(1, "a");
  Add(2, "a");
  BeginAll(1);
  EXPECT_EQ(queue.totals().queued, 1U);
  EXPECT_EQ(queue.totals().running, 1U);
  EXPECT_EQ(queue.bytes(), 200U);
  End(1, 5);
  EXPECT_EQ(queue.unsettled_bytes(), 100U);
  queue.Forget(2);
  EXPECT_EQ(queue.totals().queued + queue.totals().running, 0U);
  EXPECT_EQ(queue.ended(), 1U);
  EXPECT_EQ(queue.Find("id-2"), nullptr);
  queue.Forget(1);
  EXPECT_EQ(queue.bytes(), 0U);
  EXPECT_EQ(queue.unsettled_bytes(), 0U);
}

TEST_F(TaskQueueTest, TheOldestAreForgottenFirst) {
  for (uint64_t seq : {1, 2, 3}) Add(seq, "a");
  BeginAll(9);
  for (uint64_t seq : {2, 1, 3}) End(seq, static_cast<int64_t>(10 * seq + (seq == 2 ? -15 : 0)));
  TaskLimits limits;
  EXPECT_THAT(queue.Forgettable(limits, At(0), 0), IsEmpty());
  EXPECT_THAT(queue.Forgettable(limits, At(11), 0), ElementsAre(2, 1)) << "too old";
  limits.ended = 2;
  EXPECT_THAT(queue.Forgettable(limits, At(0), 0), ElementsAre(2)) << "too many";
  limits = {};
  limits.bytes = 350;
  EXPECT_THAT(queue.Forgettable(limits, At(0), 200), ElementsAre(2, 1)) << "room for what comes";
}

TEST_F(TaskQueueTest, ATaskThatHasNotEndedIsNeverForgotten) {
  Add(1, "a");
  TaskLimits limits;
  limits.bytes = 1;
  EXPECT_THAT(queue.Forgettable(limits, At(1000), 1000), IsEmpty());
}

// --- what an end means

Outcome Rejected(std::string_view why) { return {OutcomeKind::kRejected, 0, std::string(why)}; }

TEST(TaskRules, AnAnswerEndsATask) {
  Task task;
  task.attempts = 1;
  EXPECT_EQ(Judge(task, {{}, 200}, {}).state, TaskState::kDone);
  EXPECT_EQ(Judge(task, {{}, 302}, {}).state, TaskState::kDone);
  EXPECT_EQ(Judge(task, {{}, 500}, {}).state, TaskState::kFailed) << "nobody asked for retries";
  EXPECT_EQ(Judge(task, {{OutcomeKind::kExited, 3, {}}, 500}, {}).state, TaskState::kFailed);
}

TEST(TaskRules, WhatNeverBeganWaitsAndIsNotCounted) {
  Task task;
  task.attempts = 1;
  for (const auto why : {kRejectQueueFull, kRejectMemory, kRejectPressure, kRejectUnavailable,
                         kRejectShuttingDown, kRejectQueueTimeout}) {
    const TaskVerdict verdict = Judge(task, {Rejected(why), 503}, {});
    EXPECT_EQ(verdict.state, TaskState::kQueued) << why;
    EXPECT_EQ(verdict.counts, TaskVerdict::Counts::kNot) << why;
  }
  const AttemptEnd unstarted{{OutcomeKind::kNotReady, 0, {}}, 503, false, {}};
  EXPECT_EQ(Judge(task, unstarted, {}).counts, TaskVerdict::Counts::kNot);
  for (const auto why : {kRejectUnknownFunction, kRejectBodyLimit, kRejectBadArgument}) {
    EXPECT_EQ(Judge(task, {Rejected(why), 404}, {}).state, TaskState::kFailed) << why;
  }
}

TEST(TaskRules, WhatWasCutShortIsTriedAgainButNotForEver) {
  Task task;
  const AttemptEnd lost{{OutcomeKind::kSetupFailed, 0, kLauncherLost}, 503};
  for (task.interrupts = 0; task.interrupts + 1 < kMostInterrupts; ++task.interrupts) {
    task.attempts = task.interrupts + 1;
    EXPECT_EQ(Judge(task, lost, {}).state, TaskState::kQueued);
    EXPECT_EQ(Judge(task, lost, {}).counts, TaskVerdict::Counts::kAsInterrupt);
  }
  EXPECT_EQ(Judge(task, lost, {}).state, TaskState::kDead);
}

TEST(TaskRules, AStopIsToldFromAnEndOfTheFunctionsOwn) {
  EXPECT_TRUE(CutByStop({Rejected(kRejectShuttingDown)}));
  EXPECT_TRUE(CutByStop({{OutcomeKind::kCancelled, 0, {}}}));
  EXPECT_TRUE(CutByStop({{OutcomeKind::kSignaled, SIGKILL, {}}}));
  EXPECT_TRUE(CutByStop({{OutcomeKind::kSetupFailed, 0, kLauncherLost}}));
  EXPECT_FALSE(CutByStop({}));
  EXPECT_FALSE(CutByStop({{OutcomeKind::kExited, 3, {}}}));
  EXPECT_FALSE(CutByStop({{OutcomeKind::kSignaled, SIGSEGV, {}}}));
  EXPECT_FALSE(CutByStop({{OutcomeKind::kTimedOut, 0, {}}}));
}

TEST(LaneHolds, TheWaitDoublesWhileNothingBegins) {
  const FunctionKey key{kDefaultOwner, kDefaultNamespace, "a"};
  const TaskQueue::Lane idle{key, {5, 0}}, asking{key, {5, 1}};
  LaneHolds holds;
  TimePoint now = kNow;
  for (const int wait : {1, 2, 4, 8, 16, 30, 30}) {
    holds.NoteRefused(key, 1, now, Duration::zero());
    holds.NoteRefused(key, 1, now, Duration::zero());  // asked together
    EXPECT_EQ(holds.NextDue(now), now + seconds(wait));
    EXPECT_FALSE(holds.MayBegin(idle, 1, now + seconds(wait) - milliseconds(1)));
    EXPECT_TRUE(holds.MayBegin(idle, 2, now)) << "another version";
    now += seconds(wait);
    EXPECT_TRUE(holds.MayBegin(idle, 1, now));
    EXPECT_FALSE(holds.MayBegin(asking, 1, now)) << "one asks for all";
  }
  holds.Clear(key);
  EXPECT_TRUE(holds.MayBegin(asking, 1, now));
}

TEST(LaneHolds, ARefusalMayAskForMore) {
  const FunctionKey key{kDefaultOwner, kDefaultNamespace, "a"};
  LaneHolds holds;
  holds.NoteRefused(key, 1, kNow, seconds(5));
  EXPECT_EQ(holds.NextDue(kNow), kNow + seconds(5));
  holds.Clear(key);
  holds.NoteRefused(key, 1, kNow, hours(1));
  EXPECT_EQ(holds.NextDue(kNow), kNow + kLongestHold);
}

TEST(TaskRules, RetriesDoubleTheirWaitAndEndDead) {
  const auto rules = ParseRetryRules({{"com.openfaas.retry.attempts", "4"},
                                      {"com.openfaas.retry.codes", "500, 503"},
                                      {"com.openfaas.retry.min_wait", "2s"},
                                      {"com.openfaas.retry.max_wait", "5s"}});
  ASSERT_TRUE(rules.ok());
  Task task;
  std::vector<Duration> waits;
  for (task.attempts = 1; task.attempts < 4; ++task.attempts) {
    const TaskVerdict verdict = Judge(task, {{}, 503}, *rules);
    EXPECT_EQ(verdict.state, TaskState::kQueued);
    waits.push_back(verdict.wait);
  }
  EXPECT_THAT(waits, ElementsAre(seconds(2), seconds(4), seconds(5)));
  EXPECT_EQ(Judge(task, {{}, 503}, *rules).state, TaskState::kDead);
  task.attempts = 1;
  EXPECT_EQ(Judge(task, {{}, 404}, *rules).state, TaskState::kFailed) << "not among the codes";
}

TEST(TaskRules, AnInterruptIsNoTry) {
  RetryRules rules;
  rules.attempts = 2;
  Task task;
  task.attempts = 3;
  task.interrupts = 2;
  EXPECT_EQ(Judge(task, {{}, 500}, rules).state, TaskState::kQueued);
  task.attempts = 4;
  EXPECT_EQ(Judge(task, {{}, 500}, rules).state, TaskState::kDead);
}

TEST(TaskRules, AClockThatIsOffMakesNobodyWaitForYears) {
  constexpr int64_t kYear = int64_t{1000} * 3600 * 24 * 365;
  const int64_t now_ms = 50 * kYear;
  RetryRules rules;
  rules.max_wait = seconds(90);
  Task task;
  EXPECT_EQ(WaitAfterLoad(task, now_ms, rules), Duration::zero());
  task.not_before_ms = now_ms + 20000;
  EXPECT_EQ(WaitAfterLoad(task, now_ms, rules), seconds(20));
  EXPECT_EQ(WaitAfterLoad(task, now_ms + kYear, rules), Duration::zero());
  EXPECT_EQ(WaitAfterLoad(task, 0, rules), seconds(90));
  task.ended_ms = now_ms;
  EXPECT_EQ(AgeAfterLoad(task, now_ms + 5000), seconds(5));
  EXPECT_EQ(AgeAfterLoad(task, 0), Duration::zero());
  EXPECT_EQ(AgeAfterLoad(task, now_ms + kYear), hours(24 * 30));
}

TEST(TaskRules, BadAnnotationsAreNamed) {
  const std::pair<const char*, const char*> bad[] = {
      {"attempts", "many"}, {"attempts", "1001"}, {"codes", "500;503"}, {"codes", "7"},
      {"min_wait", "soon"}, {"max_wait", "25h"},  {"min_wait", "0"}};
  for (const auto& [name, value] : bad) {
    const std::string key = std::string("com.openfaas.retry.") + name;
    const auto rules = ParseRetryRules({{key, value}});
    ASSERT_FALSE(rules.ok()) << key << "=" << value;
    EXPECT_THAT(rules.error().message, HasSubstr(key));
    EXPECT_THAT(TaskWarnings({{key, value}}), ElementsAre(HasSubstr(key)));
  }
  EXPECT_THAT(TaskWarnings({{"com.openfaas.retry.attempts", "3"}}), IsEmpty());
  EXPECT_THAT(TaskWarnings({{kParallelAnnotation, "0"}}), ElementsAre(HasSubstr("no effect")));
}

// --- what the board can spare

TEST(TaskRules, CallsThatPeopleWaitForComeFirst) {
  EXPECT_EQ(TasksAtOnce({4, PressureLevel::kCalm, 0, false}), 4U);
  EXPECT_EQ(TasksAtOnce({4, PressureLevel::kCalm, 3, false}), 1U);
  EXPECT_EQ(TasksAtOnce({4, PressureLevel::kCalm, 100, false}), 1U) << "some never end";
  EXPECT_EQ(TasksAtOnce({4, PressureLevel::kCalm, 1, true}), 0U) << "one waits for memory";
}

TEST(TaskRules, PressureHoldsTasksBack) {
  EXPECT_EQ(TasksAtOnce({4, PressureLevel::kShrink, 0, false}), 2U);
  EXPECT_EQ(TasksAtOnce({1, PressureLevel::kShrink, 0, false}), 1U);
  EXPECT_EQ(TasksAtOnce({4, PressureLevel::kDelay, 0, false}), 1U);
  EXPECT_EQ(TasksAtOnce({4, PressureLevel::kShed, 0, false}), 0U);
}

TEST(TaskRules, AFunctionKeepsHalfOfItsPlacesForCalls) {
  Version version;
  version.spec.scale.max = 4;
  version.concurrency = 1;
  EXPECT_EQ(TasksAtOnceOf(version), 2U);
  version.spec.scale.max = 1;
  EXPECT_EQ(TasksAtOnceOf(version), 1U);
  version.concurrency = 100;
  EXPECT_EQ(TasksAtOnceOf(version), 50U);
  version.spec.annotations[kParallelAnnotation] = "3";
  EXPECT_EQ(TasksAtOnceOf(version), 3U);
  version.spec.annotations[kParallelAnnotation] = "1000";
  EXPECT_EQ(TasksAtOnceOf(version), 100U) << "more than it takes";
}

}  // namespace
}  // namespace pulga
