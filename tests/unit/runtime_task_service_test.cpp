// The task queue at work: what it takes, runs, keeps and forgets.
#include <signal.h>

#include "tests/support/task_fixture.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ScriptedCall;
using ::testing::SizeIs;
using testing::TaskServiceTest;

TEST_F(TaskServiceTest, ATaskRunsAsItWasSent) {
  ASSERT_TRUE(Submit("one", "0123456789").ok());
  ScriptedCall& call = CallAt(0);
  EXPECT_EQ(call.request.method, "POST");
  EXPECT_EQ(call.request.path, "/rest");
  EXPECT_EQ(call.request.query, "a=1");
  EXPECT_EQ(call.request.call_id, "one");
  EXPECT_EQ(call.request.client, "") << "whoever sent it is among its headers";
  EXPECT_EQ(call.request.content_length, 10U);
  EXPECT_THAT(call.request.headers, ::testing::Contains(::testing::Pair("X-Thing", "seven")));
  EXPECT_EQ(call.body, "0123456789") << "taken three bytes at a time";
  EXPECT_EQ(StateOf("one"), TaskState::kRunning);
  call.Answer(201, "made");
  EXPECT_EQ(StateOf("one"), TaskState::kDone);
  EXPECT_EQ(service->Find("one")->status, 201);
  const auto answer = AnswerOf("one");
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->body, "made");
  EXPECT_THAT(answer->headers, ElementsAre(::testing::Pair("Content-Type", "text/x")));
  EXPECT_THAT(open, IsEmpty());
}

TEST_F(TaskServiceTest, WhatWasTakenOutlivesTheDaemonAndRunsOnce) {
  room.pressure = PressureLevel::kShed;  // nothing begins
  ASSERT_TRUE(Submit("one").ok());
  ASSERT_TRUE(Submit("two").ok());
  room.pressure = PressureLevel::kCalm;
  Restart();
  CallAt(0).Answer(200, "");
  CallAt(1).Answer(200, "");
  Restart();
  EXPECT_EQ(StateOf("one"), TaskState::kDone);
  EXPECT_EQ(StateOf("two"), TaskState::kDone);
  loop->RunOnce(milliseconds(20));
  EXPECT_THAT(calls, IsEmpty());
}

TEST_F(TaskServiceTest, WhatRanWhenTheDaemonEndedRunsAgain) {
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0);
  Restart();
  CallAt(0).Answer(200, "");
  EXPECT_EQ(service->Find("one")->attempts, 2U);
  EXPECT_EQ(service->Find("one")->interrupts, 1U);
}

TEST_F(TaskServiceTest, ATaskThatEndsDaemonsIsGivenUp) {
  ASSERT_TRUE(Submit("one").ok());
  for (uint32_t i = 1; i < kMostInterrupts; ++i) {
    CallAt(0);
    Restart();
  }
  CallAt(0);
  Restart();
  EXPECT_EQ(StateOf("one"), TaskState::kDead);
}

TEST_F(TaskServiceTest, AFullQueueSaysSo) {
  limits.unended = 1;
  service->SetLimits(limits);
  ASSERT_TRUE(Submit("one").ok());
  const auto refused = Submit("two");
  ASSERT_FALSE(refused.ok());
  EXPECT_TRUE(IsQueueFull(refused.error())) << refused.error().message;
  EXPECT_THAT(refused.error().message, HasSubstr("max-tasks"));
}

TEST_F(TaskServiceTest, EveryAmountOfBytesHasItsLimit) {
  limits.bytes = 2000;
  limits.message_bytes = 900;
  service->SetLimits(limits);
  EXPECT_EQ(Submit("large", std::string(901, 'x')).error().code, Code::kTooLarge);
  ASSERT_TRUE(Submit("one", std::string(900, 'x')).ok());
  const auto refused = Submit("two", std::string(700, 'x'));
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("task-bytes"));
  CallAt(0).Answer(200, "");
  EXPECT_TRUE(Submit("two", std::string(700, 'x')).ok()) << "its request is gone";
}

TEST_F(TaskServiceTest, ABodyWithoutALengthMeetsItsFunctionsLimit) {
  const auto refused = Submit("one", std::string(1001, 'x'));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kTooLarge);
  EXPECT_THAT(refused.error().message, HasSubstr("limits.body"));
  EXPECT_TRUE(Submit("two", std::string(1000, 'x')).ok());
}

TEST_F(TaskServiceTest, NoFunctionTakesAllTheMemoryForBodies) {
  limits.message_bytes = 900;
  limits.bytes_in_hand = 3600;
  service->SetLimits(limits);
  functions["g"] = MakeVersion();
  TaskOrder other = MakeOrder("");
  other.function.name = "g";
  auto slow = std::move(service->NewTask(MakeOrder(""))).value();
  auto next = std::move(service->NewTask(MakeOrder(""))).value();
  auto of_other = std::move(service->NewTask(other)).value();
  ASSERT_TRUE(slow->Append(std::string(900, 'x')).ok());
  EXPECT_TRUE(IsQueueFull(next->Append("x").error()));
  EXPECT_TRUE(of_other->Append(std::string(900, 'x')).ok());
  slow.reset();
  EXPECT_TRUE(next->Append("x").ok());
}

TEST_F(TaskServiceTest, OneBodyOfTheLargestSizeFitsIntoMemory) {
  limits.bytes_in_hand = 500;
  limits.message_bytes = 900;
  service->SetLimits(limits);
  EXPECT_TRUE(Submit("one", std::string(900, 'x')).ok());
}

TEST_F(TaskServiceTest, HeadersAndPathsTakeRoom) {
  limits.bytes = 2000;
  service->SetLimits(limits);
  for (const auto part : {&TaskRequest::path, &TaskRequest::query}) {
    TaskOrder order = MakeOrder("long");
    order.request.*part = std::string(1500, 'x');
    EXPECT_THAT(service->NewTask(order).error().message, HasSubstr("task-bytes"));
  }
  TaskOrder order = MakeOrder("long");
  order.request.headers.emplace_back("X-Long", std::string(1500, 'x'));
  EXPECT_THAT(service->NewTask(order).error().message, HasSubstr("task-bytes"));
}

TEST_F(TaskServiceTest, WhatIsRefusedHasNothingForgotten) {
  limits.bytes = 4000;
  service->SetLimits(limits);
  auto roomy = std::make_shared<Version>(*functions["f"]);
  roomy->spec.limits.body_bytes = 0;
  functions["f"] = roomy;
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0).Answer(200, std::string(1000, 'x'));
  room.pressure = PressureLevel::kShed;
  ASSERT_TRUE(Submit("two", std::string(1000, 'x')).ok());
  const auto refused = Submit("three", std::string(2000, 'x'));
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("task-bytes")) << "even without the answer";
  EXPECT_TRUE(service->Find("one").ok());
  EXPECT_TRUE(Submit("four", std::string(900, 'x')).ok());
  EXPECT_FALSE(service->Find("one").ok()) << "for this one it was";
}

TEST_F(TaskServiceTest, AFunctionsOwnLimitHoldsForItsTasks) {
  TaskOrder order;
  order.function.name = "f";
  order.content_length = 1001;
  const auto refused = service->NewTask(order);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("limits.body"));
  order.function.name = "absent";
  EXPECT_EQ(service->NewTask(order).error().code, Code::kNotFound);
}

TEST_F(TaskServiceTest, TheDisksReserveIsNotFilled) {
  reserve = uint64_t{1} << 60;
  EXPECT_EQ(Submit("one").error().code, Code::kNoSpace);
}

TEST_F(TaskServiceTest, AnIdThatIsTakenIsReplaced) {
  ASSERT_EQ(*Submit("one"), "one");
  const auto other = Submit("one");
  ASSERT_TRUE(other.ok());
  EXPECT_NE(*other, "one");
  EXPECT_THAT(service->List({}), SizeIs(2));
}

TEST_F(TaskServiceTest, CallsOfPeopleHoldTasksBack) {
  waiting_calls = 1;
  ASSERT_TRUE(Submit("one").ok());
  loop->RunOnce(milliseconds(20));
  EXPECT_EQ(StateOf("one"), TaskState::kQueued);
  waiting_calls = 0;
  CallAt(0).Answer(200, "");
  EXPECT_EQ(StateOf("one"), TaskState::kDone);
}

TEST_F(TaskServiceTest, ATaskThatEndsGivesItsPlaceToTheNext) {
  room.at_once = 2;
  counts_open_calls = true;
  for (const char* id : {"one", "two", "three", "four"}) ASSERT_TRUE(Submit(id).ok());
  CallAt(1);
  for (size_t n = 0; n < 2; ++n) {
    CallAt(n).Answer(200, "");
    EXPECT_EQ(service->Totals().counts.running, 2U) << "at once, not when it looks again";
  }
}

TEST_F(TaskServiceTest, ATaskThatHasNoCallYetLeavesThoseOfPeopleTheirPlaces) {
  functions["f"] = MakeVersion({{kParallelAnnotation, "3"}});
  room.pressure = PressureLevel::kShed;
  for (const char* id : {"one", "two", "three"}) ASSERT_TRUE(Submit(id).ok());
  room = {3, PressureLevel::kCalm, 1, false};
  ASSERT_TRUE(Eventually([&] { return service->Totals().counts.running > 0; }));
  EXPECT_EQ(service->Totals().counts.running, 2U);
}

TEST_F(TaskServiceTest, AWaitingTaskIsCancelledForGood) {
  room.pressure = PressureLevel::kShed;
  ASSERT_TRUE(Submit("one").ok());
  ASSERT_TRUE(Cancel("one").ok());
  EXPECT_EQ(Cancel("one").error().code, Code::kAlreadyExists);
  EXPECT_EQ(Cancel("two").error().code, Code::kNotFound);
  room.pressure = PressureLevel::kCalm;
  Restart();
  EXPECT_EQ(StateOf("one"), TaskState::kCancelled);
}

TEST_F(TaskServiceTest, ARunningTaskIsEndedByItsCancellation) {
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0);
  ASSERT_TRUE(Cancel("one").ok());
  EXPECT_THAT(open, IsEmpty()) << "its call is over";
  EXPECT_EQ(AnswerOf("one").error().code, Code::kNotFound);
}

TEST_F(TaskServiceTest, WhatCouldNotBeginWaits) {
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0).Fail({OutcomeKind::kRejected, 0, std::string(kRejectMemory)});
  EXPECT_EQ(StateOf("one"), TaskState::kQueued);
  EXPECT_EQ(service->Find("one")->attempts, 0U);
  CallAt(1).Answer(200, "");
  EXPECT_EQ(StateOf("one"), TaskState::kDone);
}

TEST_F(TaskServiceTest, StartsThatFailBurnNoTasks) {
  for (const char* id : {"one", "two", "three"}) ASSERT_TRUE(Submit(id).ok());
  CallAt(1);
  calls[0]->Refuse({OutcomeKind::kNotReady, 0, {}}, 1);
  calls[1]->Refuse({OutcomeKind::kNotReady, 0, {}}, 1);
  for (const char* id : {"one", "two", "three"}) {
    EXPECT_EQ(StateOf(id), TaskState::kQueued) << id;
    EXPECT_EQ(service->Find(id)->attempts, 0U) << id;
  }
  CallAt(2);
  EXPECT_EQ(calls[2]->request.call_id, "one") << "in turn";
  EXPECT_EQ(service->Totals().counts.running, 1U) << "one asks for all of them";
  calls[2]->Answer(200, "");
  EXPECT_EQ(service->Totals().counts.running, 2U) << "the others may begin at once";
}

TEST_F(TaskServiceTest, AnotherVersionIsAskedAtOnce) {
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0).Refuse({OutcomeKind::kSetupFailed, 0, "start"}, 10);
  auto mended = std::make_shared<Version>(*functions["f"]);
  mended->id = 2;
  functions["f"] = mended;
  ASSERT_TRUE(Submit("two").ok());
  CallAt(1);
  EXPECT_EQ(calls[1]->request.call_id, "one");
}

TEST_F(TaskServiceTest, RetriesAreTheFunctionsWish) {
  functions["f"] =
      MakeVersion({{"com.openfaas.retry.attempts", "2"}, {"com.openfaas.retry.min_wait", "1ms"}});
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0).Answer(500, "no");
  CallAt(1).Answer(500, "never");
  EXPECT_EQ(StateOf("one"), TaskState::kDead);
  EXPECT_EQ(AnswerOf("one")->body, "never");
}

TEST_F(TaskServiceTest, AFailedCallKeepsItsReason) {
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0).Fail({OutcomeKind::kOomKilled, 0, {}});
  EXPECT_EQ(StateOf("one"), TaskState::kFailed);
  EXPECT_EQ(service->Find("one")->outcome, "oom-killed");
  EXPECT_EQ(service->Find("one")->status, 500);
  EXPECT_EQ(AnswerOf("one")->body, "it failed\n");
}

TEST_F(TaskServiceTest, AnAnswerThatIsTooLargeIsReadButNotKept) {
  limits.message_bytes = 100;
  service->SetLimits(limits);
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0).Answer(200, std::string(101, 'x'));
  EXPECT_EQ(service->Find("one")->outcome, "output-limit");
  EXPECT_THAT(AnswerOf("one")->body, HasSubstr("task-message-bytes"));
}

TEST_F(TaskServiceTest, EndedTasksAreForgotten) {
  limits.ended = 1;
  service->SetLimits(limits);
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_TRUE(Submit("t" + std::to_string(i)).ok());
    CallAt(i).Answer(200, "");
  }
  EXPECT_FALSE(service->Find("t0").ok());
  Restart();
  EXPECT_THAT(service->List({}), SizeIs(1)) << "its rows, too";
}

TEST_F(TaskServiceTest, AClockThatIsSetMakesNothingOld) {
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0).Answer(200, "kept");
  clock.offset = hours(24 * 365 * 20);
  ASSERT_TRUE(Submit("two").ok());
  CallAt(1).Answer(200, "");
  EXPECT_TRUE(service->Find("one").ok());
  clock.offset = -hours(24 * 365 * 20);
  Restart();
  EXPECT_TRUE(service->Find("one").ok()) << "from the future, so of no age";
}

TEST_F(TaskServiceTest, StoppingTakesNothingAndForgetsNothing) {
  ASSERT_TRUE(Submit("one").ok());
  ScriptedCall& call = CallAt(0);
  service->BeginStopping();
  EXPECT_EQ(Submit("two").error().code, Code::kUnavailable);
  call.Fail({OutcomeKind::kRejected, 0, std::string(kRejectShuttingDown)});
  Restart();
  CallAt(0).Answer(200, "");
  EXPECT_EQ(StateOf("one"), TaskState::kDone);
}

TEST_F(TaskServiceTest, NothingBeginsUntilAWriteHasSucceeded) {
  functions["f"] = MakeVersion({{kParallelAnnotation, "1"}});
  ASSERT_TRUE(Submit("one").ok());
  ScriptedCall& call = CallAt(0);
  ASSERT_TRUE(Submit("two").ok());
  RefuseWrites();
  call.Answer(200, "kept in memory");
  EXPECT_FALSE(Eventually([&] { return calls.size() > 1; }, 20)) << "over several tries to write";
  RefuseWrites("");
  CallAt(1).Answer(200, "");
  EXPECT_EQ(StateOf("two"), TaskState::kDone);
  EXPECT_EQ(AnswerOf("one")->body, "kept in memory");
}

TEST_F(TaskServiceTest, AnAnswerWhoseWriteFailsIsThereAllTheTime) {
  ASSERT_TRUE(Submit("one").ok());
  ScriptedCall& call = CallAt(0);
  RefuseWrites();
  call.Answer(200, "kept in memory");
  // The first is asked for while the write is under way, the others before and after more tries.
  for (int n = 0; n < 20; ++n) {
    const auto answer = AnswerOf("one");
    ASSERT_TRUE(answer.ok()) << n << ": " << answer.error().message;
    EXPECT_EQ(answer->body, "kept in memory");
  }
}

TEST_F(TaskServiceTest, AnAttemptIsWrittenBeforeItsCallIsMade) {
  room.pressure = PressureLevel::kShed;
  ASSERT_TRUE(Submit("one").ok());
  RefuseWrites();
  room.pressure = PressureLevel::kCalm;
  service->Resume();
  EXPECT_EQ(StateOf("one"), TaskState::kRunning);
  EXPECT_TRUE(Eventually([&] { return StateOf("one") == TaskState::kQueued; }));
  EXPECT_THAT(calls, IsEmpty());
  RefuseWrites("");
  CallAt(0);
  EXPECT_EQ(service->Find("one")->attempts, 1U);
}

TEST_F(TaskServiceTest, WhatIsRefusedForADiskThatFailsHoldsNobodyUp) {
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0);
  RefuseWrites("BEFORE INSERT");
  EXPECT_FALSE(Submit("two").ok());
  RefuseWrites("");
  EXPECT_TRUE(Submit("three").ok());
  CallAt(1);
}

TEST_F(TaskServiceTest, APlannedStopIsNoInterruption) {
  for (const char* id : {"one", "two"}) ASSERT_TRUE(Submit(id).ok());
  CallAt(1);
  service->BeginStopping();
  calls[0]->Fail({OutcomeKind::kSignaled, SIGKILL, {}});
  Restart();  // with "two" still open
  CallAt(1);
  for (const char* id : {"one", "two"}) {
    EXPECT_EQ(service->Find(id)->interrupts, 0U) << id;
    EXPECT_EQ(service->Find(id)->attempts, 1U) << id << ": the one under way";
  }
}

TEST_F(TaskServiceTest, WhatEndsByItselfDuringAStopHasEnded) {
  ASSERT_TRUE(Submit("one").ok());
  ScriptedCall& call = CallAt(0);
  service->BeginStopping();
  call.Fail({OutcomeKind::kExited, 3, {}});
  Restart();
  EXPECT_EQ(StateOf("one"), TaskState::kFailed);
  EXPECT_EQ(AnswerOf("one")->body, "it failed\n");
}

TEST_F(TaskServiceTest, ADamagedRowStaysAndHoldsNobodyUp) {
  room.pressure = PressureLevel::kShed;
  ASSERT_TRUE(Submit("one").ok());
  ASSERT_TRUE(Submit("two").ok());
  service.reset();
  {
    auto database = std::move(Database::Open(dir.path() + "/tasks.db")).value();
    ASSERT_TRUE(database->Execute("UPDATE tasks SET bytes = -1 WHERE id = 'two'").ok());
  }
  room.pressure = PressureLevel::kCalm;
  Restart();
  CallAt(0).Answer(200, "");
  EXPECT_FALSE(service->Find("two").ok());
  EXPECT_TRUE(Submit("three").ok()) << "under a number of its own";
}

TEST_F(TaskServiceTest, TheMinuteOfAFiringIsStoredWithItsTask) {
  TaskOrder order;
  order.function.name = "f";
  const FunctionKey function = order.function;
  order.fires_minute = 77;
  EXPECT_FALSE(service->LastFired(function));
  bool told = false;
  auto draft = std::move(service->NewTask(order)).value();
  draft->Submit([&](const Result<std::string>& id) { told = id.ok(); });
  ASSERT_TRUE(Eventually([&] { return told; }));
  Restart();
  EXPECT_EQ(service->LastFired(function), 77);
}

TEST_F(TaskServiceTest, ADamagedDatabaseStopsTheStart) {
  ASSERT_TRUE(Submit("one").ok());
  service.reset();
  {
    auto database = std::move(Database::Open(dir.path() + "/tasks.db")).value();
    ASSERT_TRUE(database->Execute("PRAGMA user_version = 99").ok());
  }
  TaskService other({*loop, clock, dir.path(), {}, {}, {}, {}, {}, {}, {}, {}}, limits);
  const Status loaded = other.Load();
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.error().message, HasSubstr("tasks.db: written by a newer Pulga"));
}

TEST_F(TaskServiceTest, CallsOfTasksAreWatchedAsThoseOfCallers) {
  functions["f"] =
      MakeVersion({{"com.openfaas.retry.attempts", "2"}, {"com.openfaas.retry.min_wait", "1ms"}});
  ASSERT_TRUE(Submit("one").ok());
  CallAt(0).Answer(503, "");
  CallAt(1).Answer(200, "");
  EXPECT_THAT(watched, ElementsAre("f", "f 503", "f", "f 200"));
}

}  // namespace
}  // namespace pulga
