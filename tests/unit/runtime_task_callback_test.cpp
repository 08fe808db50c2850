// Callbacks of the task queue: what is sent, when it is tried again, what is given up.
#include "base/file_io.h"
#include "tests/support/task_fixture.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ScriptedCall;
using ::testing::SizeIs;
using testing::TaskServiceTest;

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

TEST_F(TaskServiceTest, AnAnswerMayBecomeATaskOfItsOwn) {
  functions["g"] = MakeVersion();
  ASSERT_TRUE(SubmitWithCallback("one", "http://gateway:8080/async-function/g/path?q=1").ok());
  CallAt(0).Answer(200, "made");
  ScriptedCall& next = CallAt(1);
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kDelivered) << "before the next one has run";
  EXPECT_EQ(next.request.function.name, "g");
  EXPECT_EQ(next.request.path, "/path");
  EXPECT_EQ(next.request.query, "q=1");
  EXPECT_EQ(next.body, "made");
  EXPECT_THAT(next.request.headers,
              ::testing::IsSupersetOf({::testing::Pair("X-Function-Name", "f.openfaas-fn"),
                                       ::testing::Pair("X-Function-Status", "200"),
                                       ::testing::Pair("Content-Type", "text/x")}));
  const auto is_id = [](const auto& header) { return header.first == "X-Call-Id"; };
  EXPECT_EQ(std::count_if(next.request.headers.begin(), next.request.headers.end(), is_id), 1);
  EXPECT_NE(next.request.call_id, "one");
  next.Answer(200, "");
  const std::string id = service->List({}).front().id;
  EXPECT_TRUE(Eventually([&] { return StateOf(id) == TaskState::kDone; }));
}

TEST_F(TaskServiceTest, AnAnswerForAFullQueueWaits) {
  functions["g"] = MakeVersion();
  limits.unended = 2;
  service->SetLimits(limits);
  ASSERT_TRUE(SubmitWithCallback("one", "http://gateway:8080/async-function/g").ok());
  ScriptedCall& first = CallAt(0);
  waiting_calls = 1;  // whatever is queued stays queued
  ASSERT_TRUE(Submit("two").ok());
  first.Answer(200, "made");
  EXPECT_TRUE(Eventually([&] { return !CallbackOf("one").error.empty(); }));
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kOwed);
  EXPECT_EQ(CallbackOf("one").tries, 0U) << "nothing was tried";
  EXPECT_THAT(CallbackOf("one").error, HasSubstr("full"));
  limits.unended = 8;
  service->SetLimits(limits);
  EXPECT_TRUE(Eventually([&] { return CallbackOf("one").state == CallbackState::kDelivered; }));
}

TEST_F(TaskServiceTest, AnAnswerForATaskOfNoFunctionIsGivenUp) {
  ASSERT_TRUE(SubmitWithCallback("one", "http://gateway:8080/async-function/nobody").ok());
  CallAt(0).Answer(200, "");
  EXPECT_TRUE(Eventually([&] { return CallbackOf("one").state == CallbackState::kGivenUp; }));
  EXPECT_EQ(CallbackOf("one").error, "the receiver answered 404");
}

TEST_F(TaskServiceTest, OwedOnesCountAsTasksAndOneFunctionHasNotAllPlaces) {
  limits.unended = 8;
  service->SetLimits(limits);
  for (const char* id : {"one", "two", "three", "four"}) {
    ASSERT_TRUE(SubmitWithCallback(id).ok());
    CallAt(calls.size()).Answer(200, "");
  }
  PostAt(1);
  loop->RunOnce(milliseconds(20));
  EXPECT_THAT(posts, SizeIs(2)) << "of one function at once";
  EXPECT_EQ(service->Totals().callbacks, 4U);
  for (const char* id : {"5", "6", "7", "8"}) ASSERT_TRUE(Submit(id).ok());
  EXPECT_TRUE(IsQueueFull(Submit("nine").error()));
  AnswerPost(0, 200);
  EXPECT_TRUE(Submit("nine").ok());
  PostAt(2);
}

TEST_F(TaskServiceTest, OwedOnesLeaveHalfOfWhatTasksMayHoldToOthers) {
  limits.unended = 4;
  service->SetLimits(limits);
  for (const char* id : {"one", "two", "three", "four", "five"}) {
    ASSERT_TRUE(SubmitWithCallback(id).ok()) << id;
    CallAt(calls.size()).Answer(200, "");
    PostAt(0);
  }
  EXPECT_EQ(service->Totals().callbacks, 2U);
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kOwed) << "it is being sent";
  EXPECT_EQ(CallbackOf("three").state, CallbackState::kGivenUp);
  EXPECT_THAT(CallbackOf("three").error, HasSubstr("max-tasks"));
  Restart();
  EXPECT_EQ(CallbackOf("three").state, CallbackState::kGivenUp);
}

TEST_F(TaskServiceTest, LargeAnswersThatAreOwedLeaveHalfOfTheBytes) {
  limits.bytes = 10000;
  limits.message_bytes = 2000;
  service->SetLimits(limits);
  for (const char* id : {"one", "two", "three", "four", "five"}) {
    ASSERT_TRUE(SubmitWithCallback(id).ok()) << id;
    CallAt(calls.size()).Answer(200, std::string(1500, 'x'));
  }
  EXPECT_LE(service->Totals().callbacks, 3U);
  EXPECT_TRUE(Submit("six", "body").ok());
}

TEST_F(TaskServiceTest, WhatThisBoardCouldNotTryIsNoTry) {
  ASSERT_TRUE(SubmitWithCallback("one").ok());
  CallAt(0).Answer(200, "made");
  CouldNotPost(0);
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kOwed);
  EXPECT_EQ(CallbackOf("one").tries, 0U);
  EXPECT_EQ(CallbackOf("one").error, "the launcher is gone");
  CouldNotPost(1);
  EXPECT_EQ(PostAt(2).message.body, "made");
  AnswerPost(2, 200);
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kDelivered);
  EXPECT_EQ(CallbackOf("one").tries, 1U);
}

TEST_F(TaskServiceTest, AFunctionThatGotNoInstanceForACallbackIsAskedAgain) {
  ASSERT_TRUE(SubmitWithCallback("one", "http://gateway:8080/function/g").ok());
  CallAt(0).Answer(200, "made");
  CallAt(1).Refuse({OutcomeKind::kNotReady, 0, {}}, 0);
  EXPECT_EQ(CallbackOf("one").tries, 0U);
  CallAt(2).Answer(200, "");
  EXPECT_EQ(CallbackOf("one").state, CallbackState::kDelivered);
}

TEST_F(TaskServiceTest, AReceiverThatIsDownTakesNoOthersTurn) {
  functions["g"] = MakeVersion();
  const auto owe = [&](const char* id, const char* function, const char* url) {
    TaskOrder order = MakeOrder(id);
    order.function.name = function;
    order.callback = CallbackOrder{url, function};
    ASSERT_TRUE(Submit(std::move(order), "").ok());
    CallAt(calls.size()).Answer(200, "");
  };
  owe("one", "f", "http://down.example/1");
  AnswerPost(0, Error{Code::kUnavailable, 0, "no answer"});
  owe("two", "g", "http://down.example/2");
  owe("three", "g", "http://down.example/3");
  loop->RunOnce(milliseconds(20));
  EXPECT_THAT(posts, SizeIs(1)) << "all of that receiver's wait";
  owe("four", "f", "http://up.example/");
  EXPECT_EQ(PostAt(1).url, "http://up.example/");
  AnswerPost(1, 200);
  PostAt(2);  // one of the others, to see whether it is there again
  loop->RunOnce(milliseconds(20));
  EXPECT_THAT(posts, SizeIs(3));
}

TEST_F(TaskServiceTest, AnAnswerIsReadOnceItsWriteIsOnItsWay) {
  ASSERT_TRUE(SubmitWithCallback("one").ok());
  ScriptedCall& call = CallAt(0);
  auto draft = service->NewTask(MakeOrder("two"));
  ASSERT_TRUE(draft.ok());
  (*draft)->Submit([](const Result<std::string>&) {});  // a write is under way now
  call.Answer(200, "made");
  EXPECT_EQ(PostAt(0).message.body, "made");
  EXPECT_EQ(CallbackOf("one").error, "");
  EXPECT_EQ(CallbackOf("one").tries, 0U);
}

TEST_F(TaskServiceTest, WhatIsToBeSignedDoesNotGoUnsigned) {
  callback_key = dir.path() + "/key";
  ASSERT_TRUE(SubmitWithCallback("one").ok());
  CallAt(0).Answer(200, "made");
  ASSERT_TRUE(Eventually([&] { return !CallbackOf("one").error.empty(); }));
  EXPECT_THAT(CallbackOf("one").error, HasSubstr("callback-key"));
  EXPECT_EQ(CallbackOf("one").tries, 0U);
  EXPECT_THAT(posts, IsEmpty());
  ASSERT_TRUE(WriteFile(callback_key, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").ok());
  const HeaderList& headers = PostAt(0).message.headers;
  EXPECT_THAT(headers, ::testing::Contains(::testing::Pair("webhook-id", "one")));
  EXPECT_THAT(headers, ::testing::Contains(
                           ::testing::Pair("webhook-signature", ::testing::StartsWith("v1,"))));
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

}  // namespace
}  // namespace pulga
