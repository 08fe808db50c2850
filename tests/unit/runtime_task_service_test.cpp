// The task queue at work, over a real database and a dispatcher of scripted calls.
#include <gmock/gmock.h>
#include <signal.h>

#include <algorithm>
#include <set>

#include "base/temp_dir.h"
#include "runtime/database.h"
#include "runtime/tasks/task_service.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Answers when the test says so.
class ScriptedCall final : public Invocation {
 public:
  ScriptedCall(InvocationRequest sent, InvocationObserver& observer, std::set<void*>& open)
      : request(std::move(sent)), observer_(observer), open_(open) {
    open_.insert(this);
    receipt_.start = StartKind::kWarm;
  }
  ~ScriptedCall() override { open_.erase(this); }
  size_t Write(std::string_view bytes) override {
    const size_t taken = std::min<size_t>(bytes.size(), 3);
    body += bytes.substr(0, taken);
    return taken;
  }
  void EndBody() override { body_ended = true; }
  const ResponseHead& head() const override { return head_; }
  ReadResult Read(char*, size_t) override { return {ReadState::kEnd, 0}; }
  std::optional<std::string_view> WholeBody() const override { return answer_; }
  const Outcome& outcome() const override { return outcome_; }
  const Receipt& receipt() const override { return receipt_; }
  std::string FailureText() const override { return "it failed\n"; }

  void Answer(int status, std::string text) {
    head_.status = status;
    head_.headers = {{"Content-Type", "text/x"}};
    answer_ = std::move(text);
    observer_.OnHead();  // may destroy this
  }
  void Fail(Outcome outcome) {
    outcome_ = std::move(outcome);
    observer_.OnHead();
  }
  // As a pool does that has no instance for it.
  void Refuse(Outcome outcome, uint32_t retry_after_s) {
    receipt_.start = StartKind::kNone;
    head_.retry_after_s = retry_after_s;
    Fail(std::move(outcome));
  }

  InvocationRequest request;
  std::string body;
  bool body_ended = false;

 private:
  InvocationObserver& observer_;
  std::set<void*>& open_;
  ResponseHead head_;
  std::string answer_;
  Outcome outcome_;
  Receipt receipt_;
};

// Whose wall clock may be set, as on a board that has none of its own.
class SettableClock final : public Clock {
 public:
  TimePoint Now() const override { return real_.Now(); }
  std::chrono::system_clock::time_point WallTime() const override {
    return real_.WallTime() + offset;
  }
  hours offset{0};

 private:
  SystemClock real_;
};

class TaskServiceTest : public ::testing::Test {
 protected:
  TaskServiceTest() {
    loop = std::move(EventLoop::Create()).value();
    Restart();
  }
  ~TaskServiceTest() override { service.reset(); }

  void Restart() {
    service.reset();
    calls.clear();
    posts.clear();
    TaskParts parts{*loop, clock, dir.path(), {}, {}, {}, {}, {}, {}, {}};
    parts.reserve_bytes = [this] { return reserve; };
    parts.version = [this](const FunctionKey& key) -> VersionPtr {
      return functions.count(key.name) != 0 ? functions[key.name] : nullptr;
    };
    parts.invoke = [this](InvocationRequest request, InvocationObserver& observer) {
      auto call = std::make_unique<ScriptedCall>(std::move(request), observer, open);
      calls.push_back(call.get());
      return call;
    };
    parts.room = [this] {
      BoardRoom now = room;
      if (counts_open_calls) now.open_calls += open.size();
      return now;
    };
    parts.waiting_calls = [this](const FunctionKey&) { return waiting_calls; };
    parts.networks = [this] { return networks; };
    parts.post = [this](const Url& url, const CallbackMessage& message, auto done) {
      posts.push_back({url.ToString(), message, std::move(done)});
      return std::make_unique<PendingPost>();
    };
    service = std::make_unique<TaskService>(std::move(parts), limits);
    service->Watch({[this](const FunctionKey& key) { watched.push_back(key.name); },
                    [this](const FunctionKey& key, int status, Duration) {
                      watched.push_back(key.name + " " + std::to_string(status));
                    }});
    ASSERT_TRUE(service->Load().ok());
    service->Resume();
  }
  static VersionPtr MakeVersion(std::map<std::string, std::string> annotations = {}) {
    auto version = std::make_shared<Version>();
    version->spec.limits.body_bytes = 1000;
    version->spec.annotations = std::move(annotations);
    return version;
  }
  template <typename F>
  bool Eventually(F f, int turns = 3000) {
    for (int i = 0; i < turns && !f(); ++i) loop->RunOnce(milliseconds(10));
    return f();
  }
  static TaskOrder MakeOrder(const std::string& id) {
    TaskOrder order;
    order.function.name = "f";
    order.id = id;
    order.request.path = "/rest";
    order.request.query = "a=1";
    order.request.headers = {{"X-Thing", "seven"}};
    return order;
  }
  Result<std::string> Submit(const std::string& id, const std::string& body = "body") {
    return Submit(MakeOrder(id), body);
  }
  Result<std::string> Submit(TaskOrder order, const std::string& body) {
    auto draft = service->NewTask(std::move(order));
    if (!draft.ok()) return draft.error();
    PULGA_RETURN_IF_ERROR((*draft)->Append(body));
    std::optional<Result<std::string>> told;
    (*draft)->Submit([&](Result<std::string> result) { told = std::move(result); });
    Eventually([&] { return told.has_value(); });
    return *told;
  }
  struct Sent {
    std::string url;
    CallbackMessage message;
    std::function<void(Result<int>)> done;
  };
  Result<std::string> SubmitWithCallback(const std::string& id,
                                         const std::string& url = "http://a.example/done") {
    TaskOrder order = MakeOrder(id);
    order.callback = CallbackOrder{url, "f.openfaas-fn"};
    return Submit(std::move(order), "body");
  }
  const Sent& PostAt(size_t n) {
    EXPECT_TRUE(Eventually([&] { return posts.size() > n; }));
    return posts.at(n);
  }
  void AnswerPost(size_t n, const Result<int>& status) {
    const auto done = PostAt(n).done;  // which may begin others
    done(status);
  }
  const TaskCallback& CallbackOf(const std::string& id) {
    callback_ = service->Find(id)->callback;
    return callback_;
  }
  TaskCallback callback_;
  TaskState StateOf(const std::string& id) { return service->Find(id)->state; }
  // The n-th call there was, once it began.
  ScriptedCall& CallAt(size_t n) {
    EXPECT_TRUE(Eventually([&] { return calls.size() > n && calls[n]->body_ended; }));
    return *calls[n];
  }
  Result<TaskAnswer> AnswerOf(const std::string& id) {
    std::optional<Result<TaskAnswer>> told;
    service->AnswerOf(id, [&](Result<TaskAnswer> answer) { told = std::move(answer); });
    Eventually([&] { return told.has_value(); });
    return *told;
  }
  Status Cancel(const std::string& id) {
    std::optional<Status> told;
    service->Cancel(id, [&](const Status& status) { told = status; });
    Eventually([&] { return told.has_value(); });
    return *told;
  }

  // As a full disk would; with "" they succeed again.
  void RefuseWrites(const std::string& what = "BEFORE UPDATE") {
    auto database = std::move(Database::Open(dir.path() + "/tasks.db")).value();
    ASSERT_TRUE(database->Execute("DROP TRIGGER IF EXISTS refuse").ok());
    if (what.empty()) return;
    const std::string refuse =
        "CREATE TRIGGER refuse " + what + " ON tasks BEGIN SELECT RAISE(ABORT, 'full'); END";
    ASSERT_TRUE(database->Execute(refuse).ok());
  }

  TempDir dir = std::move(TempDir::Create("/tmp/pulga-tasks-")).value();
  SettableClock clock;
  std::unique_ptr<EventLoop> loop;
  std::map<std::string, VersionPtr> functions{{"f", MakeVersion()}};
  BoardRoom room{4, PressureLevel::kCalm, 0, false};
  bool counts_open_calls = false;  // the tasks' own, as the dispatcher does
  uint32_t waiting_calls = 0;
  uint64_t reserve = 0;
  TaskLimits limits = [] {
    TaskLimits quick;
    quick.write_again = milliseconds(10);
    return quick;
  }();
  std::set<void*> open;
  std::vector<ScriptedCall*> calls;
  std::vector<Sent> posts;
  std::vector<NetworkPrefix> networks;
  std::vector<std::string> watched;  // began, ended with a status
  std::unique_ptr<TaskService> service;
};

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
  TaskService other({*loop, clock, dir.path(), {}, {}, {}, {}, {}, {}, {}}, limits);
  const Status loaded = other.Load();
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.error().message, HasSubstr("tasks.db: written by a newer Pulga"));
}

// --- callbacks

TEST_F(TaskServiceTest, TheAnswerIsSentToWhereItsCallerWantsIt) {
  ASSERT_TRUE(SubmitWithCallback("one").ok());
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kWaiting);
  CallAt(0).Answer(418, "tea");
  const Sent& sent = PostAt(0);
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kOwed);
  EXPECT_EQ(sent.url, "http://a.example/done");
  EXPECT_EQ(sent.message.body, "tea");
  EXPECT_THAT(sent.message.headers,
              ::testing::IsSupersetOf({::testing::Pair("X-Call-Id", "one"),
                                       ::testing::Pair("X-Function-Status", "418"),
                                       ::testing::Pair("X-Function-Name", "f.openfaas-fn"),
                                       ::testing::Pair("Content-Type", "text/x")}));
  AnswerPost(0, 204);
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kDelivered);
  Restart();
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kDelivered);
}

TEST_F(TaskServiceTest, WhatIsOwedOutlivesTheDaemon) {
  ASSERT_TRUE(SubmitWithCallback("one").ok());
  CallAt(0).Answer(200, "made");
  PostAt(0);
  Restart();
  EXPECT_EQ(PostAt(0).message.body, "made");
  EXPECT_THAT(calls, IsEmpty()) << "the function is not asked again";
  AnswerPost(0, 500);
  EXPECT_EQ(CallbackOf("one").tries, 1U);
  Restart();
  EXPECT_EQ(CallbackOf("one").error, "the receiver answered 500");
  AnswerPost(0, 200);
  EXPECT_EQ(CallbackOf("one").tries, 2U);
}

TEST_F(TaskServiceTest, ACallbackThatIsRefusedIsGivenUpWithItsReason) {
  ASSERT_TRUE(SubmitWithCallback("one").ok());
  CallAt(0).Answer(200, "");
  AnswerPost(0, Error{Code::kPermission, 0, "leads home"});
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kGivenUp);
  EXPECT_EQ(CallbackOf("one").error, "leads home");
}

TEST_F(TaskServiceTest, NoCallbackLeadsWhereNoneMay) {
  const auto refused = SubmitWithCallback("one", "http://10.0.0.1/");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kInvalidArgument);
  networks = {*ParseNetworkPrefix("10.0.0.0/8")};
  ASSERT_TRUE(SubmitWithCallback("two", "http://10.0.0.1/").ok());
  ScriptedCall& call = CallAt(0);
  networks.clear();  // the setting changed meanwhile
  call.Answer(200, "");
  EXPECT_TRUE(Eventually([&] { return CallbackOf("two").state == CallbackState::kGivenUp; }));
  EXPECT_THAT(posts, IsEmpty());
}

TEST_F(TaskServiceTest, WhatAFunctionAsksForStaysOnTheBoard) {
  TaskOrder order = MakeOrder("one");
  order.callback_scope = CallbackScope::kThisBoard;
  order.callback = CallbackOrder{"http://a.example/", "f"};
  EXPECT_THAT(service->NewTask(order).error().message, HasSubstr("gateway"));
  order.callback->url = "http://gateway:8080/function/f";
  EXPECT_TRUE(service->NewTask(order).ok());
}

TEST_F(TaskServiceTest, AFunctionOfThisBoardIsCalledByTheService) {
  ASSERT_TRUE(SubmitWithCallback("one", "http://gateway:8080/function/g/path?q=1").ok());
  CallAt(0).Answer(200, "made");
  ScriptedCall& receiver = CallAt(1);
  EXPECT_EQ(receiver.request.function.name, "g");
  EXPECT_EQ(receiver.request.path, "/path");
  EXPECT_EQ(receiver.request.query, "q=1");
  EXPECT_EQ(receiver.body, "made");
  receiver.Answer(200, std::string(3 << 20, 'x'));
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kDelivered) << "however long its answer";
  EXPECT_THAT(watched, ElementsAre("f", "f 200", "g", "g 200"));
}

TEST_F(TaskServiceTest, OwedOnesCountAsTasksAndOneFunctionHasNotAllPlaces) {
  limits.unended = 4;
  service->SetLimits(limits);
  for (const char* id : {"one", "two", "three", "four"}) {
    ASSERT_TRUE(SubmitWithCallback(id).ok());
    CallAt(calls.size()).Answer(200, "");
  }
  PostAt(1);
  loop->RunOnce(milliseconds(20));
  EXPECT_THAT(posts, SizeIs(2)) << "of one function at once";
  EXPECT_EQ(service->Totals().callbacks, 4U);
  EXPECT_TRUE(IsQueueFull(Submit("five").error()));
  AnswerPost(0, 200);
  EXPECT_TRUE(Submit("five").ok());
  PostAt(2);
}

TEST_F(TaskServiceTest, ARemovedTaskOwesNothing) {
  ASSERT_TRUE(SubmitWithCallback("one").ok());
  CallAt(0).Answer(200, "");
  PostAt(0);
  bool removed = false;
  service->Remove("one", [&](const Status& status) { removed = status.ok(); });
  EXPECT_TRUE(Eventually([&] { return removed; }));
  EXPECT_EQ(service->Totals().callbacks, 0U);
  Restart();
  loop->RunOnce(milliseconds(20));
  EXPECT_THAT(posts, IsEmpty());
}

TEST_F(TaskServiceTest, ACancelledTaskCallsNobodyBack) {
  ASSERT_TRUE(SubmitWithCallback("one").ok());
  CallAt(0);
  ASSERT_TRUE(Cancel("one").ok());
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kGivenUp);
  EXPECT_THAT(watched, ElementsAre("f", "f 499"));
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
