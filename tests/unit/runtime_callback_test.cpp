// Callbacks: which URLs are taken, what is sent, what an answer means, whose turn is next.
#include <gmock/gmock.h>

#include "runtime/tasks/callback_holds.h"
#include "runtime/tasks/callback_rules.h"
#include "runtime/tasks/callback_signature.h"
#include "runtime/tasks/task_queue.h"

namespace pulga {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::vector<NetworkPrefix> Networks(const char* text) { return {*ParseNetworkPrefix(text)}; }

TEST(CallbackUrls, PublicOnesAreTaken) {
  for (const char* text : {"https://a.example/x?y=z", "http://a.example:8080", "http://1.1.1.1/",
                           "http://[2606:4700::1]/", "http://host-in-lan/", "http://1e100.net/"}) {
    const auto target = ParseCallbackUrl(text, {});
    ASSERT_TRUE(target.ok()) << text;
    EXPECT_TRUE(std::holds_alternative<Url>(*target)) << text;
  }
}

TEST(CallbackUrls, HostileOnesAreRefused) {
  for (const char* text : {"",
                           "a.example",
                           "ftp://a/",
                           "file:///etc/passwd",
                           "gopher://a/",
                           "http://",
                           "http://u:p@a.example/",
                           "http://a.example@127.0.0.1/",
                           "http://127.0.0.1/",
                           "http://127.1/",
                           "http://0x7f000001/",
                           "http://0x7f.0.0.1/",
                           "http://2130706433/",
                           "http://017700000001/",
                           "http://0/",
                           "http://localhost/",
                           "http://a.localhost/",
                           "http://10.0.0.1/",
                           "http://192.168.1.1:80/",
                           "http://172.16.0.1/",
                           "http://100.64.0.1/",
                           "http://169.254.169.254/latest/meta-data",
                           "http://[::1]/",
                           "http://[::]/",
                           "http://[::ffff:127.0.0.1]/",
                           "http://[::ffff:a00:1]/",
                           "http://[64:ff9b::7f00:1]/",
                           "http://[fe80::1]/",
                           "http://[fd00::1]/",
                           "http://224.0.0.1/",
                           "http://127.0.0.1./",
                           "http://[1]/",
                           "http://a.example/\r\nX: y",
                           "http://a\\b/",
                           "http://a.example:0/"}) {
    const auto target = ParseCallbackUrl(text, {});
    ASSERT_FALSE(target.ok()) << text;
    EXPECT_EQ(target.error().code, Code::kInvalidArgument) << text;
    EXPECT_THAT(target.error().message, HasSubstr("X-Callback-Url")) << text;
  }
  EXPECT_FALSE(ParseCallbackUrl("http://a.example/" + std::string(2048, 'x'), {}).ok());
}

TEST(CallbackUrls, ListedNetworksAreOpenAndNoOthers) {
  EXPECT_TRUE(ParseCallbackUrl("http://10.1.2.3/", Networks("10.0.0.0/8")).ok());
  EXPECT_TRUE(ParseCallbackUrl("http://localhost:99/", Networks("127.0.0.1")).ok());
  EXPECT_TRUE(ParseCallbackUrl("http://[fd00::5]/", Networks("fd00::/8")).ok());
  EXPECT_FALSE(ParseCallbackUrl("http://10.1.2.3/", Networks("10.0.0.0/16")).ok());
}

TEST(CallbackUrls, FunctionsAreNamedAtTheGateway) {
  for (const char* host : {"gateway", "gateway.openfaas", "gateway.openfaas.svc.cluster.local"}) {
    const auto target =
        ParseCallbackUrl("http://" + std::string(host) + ":8080/function/echo.dev/a/b?c=d", {});
    ASSERT_TRUE(target.ok()) << host;
    const auto& call = std::get<GatewayCall>(*target);
    EXPECT_EQ(call.function.name, "echo");
    EXPECT_EQ(call.function.name_space, "dev");
    EXPECT_EQ(call.path, "/a/b");
    EXPECT_EQ(call.query, "c=d");
  }
  const auto plain = ParseCallbackUrl("http://gateway:8080/function/echo", {});
  EXPECT_EQ(std::get<GatewayCall>(*plain).path, "/");
  EXPECT_FALSE(std::get<GatewayCall>(*plain).queued);
  const auto queued = ParseCallbackUrl("http://gateway:8080/async-function/echo/a?b", {});
  ASSERT_TRUE(queued.ok());
  EXPECT_TRUE(std::get<GatewayCall>(*queued).queued);
  EXPECT_EQ(std::get<GatewayCall>(*queued).function.name, "echo");
  EXPECT_EQ(std::get<GatewayCall>(*queued).path, "/a");
  EXPECT_NE(ReceiverOf("http://gateway:8080/async-function/echo"),
            ReceiverOf("http://gateway:8080/function/echo"))
      << "one may be full while the other is not";
}

TEST(CallbackUrls, NothingElseIsAskedOfTheGateway) {
  for (const char* text :
       {"http://gateway:8080/", "http://gateway:8080/system/functions", "http://gateway:8080/v1/x",
        "http://gateway:8080/function/", "http://gateway:8080/function/Odd",
        "http://gateway:8080/function/..%2fx", "http://gateway/function/echo",
        "https://gateway:8080/function/echo", "http://gateway:8080/async-function/",
        "http://gateway:8080/functions/echo"}) {
    EXPECT_FALSE(ParseCallbackUrl(text, {}).ok()) << text;
  }
}

TEST(CallbackHeaders, AreTheAnswersAndOurs) {
  Task task;
  task.id = "call-1";
  task.status = 201;
  task.function_seconds = 1.5;
  const HeaderList sent = CallbackHeaders(task, "echo.dev",
                                          {{"Content-Type", "text/x"},
                                           {"x-function-status", "200"},
                                           {"Host", "evil"},
                                           {"Content-Length", "9"},
                                           {"Transfer-Encoding", "chunked"},
                                           {"Connection", "close"},
                                           {"X-Split", "a\r\nX-Evil: b"},
                                           {"bad name", "x"},
                                           {"X-Callback-Url", "http://again/"},
                                           {"Expect", "100-continue"}});
  EXPECT_THAT(
      sent, ElementsAre(Pair("Content-Type", "text/x"), Pair("X-Call-Id", "call-1"),
                        Pair("X-Duration-Seconds", "1.500000"), Pair("X-Function-Name", "echo.dev"),
                        Pair("X-Function-Status", "201")));
}

TEST(CallbackVerdicts, SuccessIsAnyOf2xx) {
  for (const int status : {200, 202, 204, 299}) {
    EXPECT_EQ(JudgeCallback(1, status).state, CallbackState::kDelivered) << status;
  }
}

TEST(CallbackVerdicts, WhatMayPassIsTriedAgainWithLongerWaits) {
  std::vector<Duration> waits;
  for (uint32_t tries = 1; tries < kCallbackTries; ++tries) {
    const CallbackVerdict verdict = JudgeCallback(tries, 503);
    EXPECT_EQ(verdict.state, CallbackState::kOwed);
    waits.push_back(verdict.wait);
  }
  EXPECT_THAT(waits,
              ElementsAre(seconds(1), seconds(4), seconds(16), seconds(64), kLongestCallbackWait));
  EXPECT_EQ(JudgeCallback(kCallbackTries, 503).state, CallbackState::kGivenUp);
  for (const int status : {408, 425, 429, 500, 599}) {
    EXPECT_EQ(JudgeCallback(1, status).state, CallbackState::kOwed) << status;
  }
  const Error down{Code::kUnavailable, 0, "refused"};
  EXPECT_EQ(JudgeCallback(1, down).state, CallbackState::kOwed);
  EXPECT_EQ(JudgeCallback(1, down).error, "refused");
}

TEST(CallbackVerdicts, WhatWillNotPassIsGivenUpAtOnce) {
  for (const int status : {301, 302, 307, 400, 401, 404, 410}) {
    EXPECT_EQ(JudgeCallback(1, status).state, CallbackState::kGivenUp) << status;
  }
  EXPECT_THAT(JudgeCallback(1, 302).error, HasSubstr("redirects"));
  for (const Code code : {Code::kPermission, Code::kInvalidArgument}) {
    EXPECT_EQ(JudgeCallback(1, Error{code, 0, "no"}).state, CallbackState::kGivenUp);
  }
}

TEST(CallbackSignature, IsThatOfStandardWebhooks) {
  const auto key = ParseSigningKey("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
  ASSERT_TRUE(key.ok());
  EXPECT_THAT(
      SignatureHeaders(*key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, R"({"test": 2432232314})"),
      ElementsAre(Pair("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                  Pair("webhook-timestamp", "1614265330"),
                  Pair("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")));
}

TEST(CallbackSignature, NeedsAKeyThatIsOne) {
  for (const char* text : {"", "whsec_", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                           "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!"}) {
    EXPECT_FALSE(ParseSigningKey(text).ok()) << text;
  }
  EXPECT_EQ(*ReadSigningKey(""), "");
  EXPECT_THAT(ReadSigningKey("/nowhere").error().message, HasSubstr("callback-key"));
}

TEST(CallbackReceivers, AreServersAndFunctions) {
  EXPECT_EQ(ReceiverOf("http://A.example/x?y"), "http://a.example");
  EXPECT_EQ(ReceiverOf("https://a.example:8443/x"), "https://a.example:8443");
  EXPECT_EQ(ReceiverOf("http://gateway:8080/function/echo.dev/x"), "/function/echo.dev");
  EXPECT_TRUE(IsFunctionReceiver(ReceiverOf("http://gateway:8080/function/echo")));
  EXPECT_FALSE(IsFunctionReceiver(ReceiverOf("http://a/function/echo")));
  EXPECT_EQ(ReceiverOf("no URL"), "none");
}

TEST(CallbackHolds, OneAtATimeIsTriedWithLongerWaits) {
  CallbackHolds holds;
  const TimePoint now{seconds(100)};
  EXPECT_TRUE(holds.MaySend("a", 1, 2, now));
  EXPECT_FALSE(holds.MaySend("a", 2, 2, now));
  holds.NoteFailed("a", now, Duration::zero());
  const auto first = holds.NextDue(now);
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(holds.MaySend("a", 0, 2, now));
  EXPECT_TRUE(holds.MaySend("b", 0, 2, now));
  EXPECT_TRUE(holds.MaySend("a", 0, 2, *first));
  EXPECT_FALSE(holds.MaySend("a", 1, 2, *first)) << "one at a time";
  holds.NoteFailed("a", now, Duration::zero());
  EXPECT_EQ(holds.NextDue(now), first) << "was under way with the first";
  holds.NoteFailed("a", *first, Duration::zero());
  EXPECT_GT(*holds.NextDue(*first) - *first, *first - now);
  holds.Clear("a");
  EXPECT_TRUE(holds.MaySend("a", 1, 2, now));
  EXPECT_FALSE(holds.NextDue(now).has_value());
}

TEST(CallbackHolds, AreNoMoreThanSome) {
  CallbackHolds holds;
  for (int i = 0; i < 5000; ++i) {
    holds.NoteFailed(std::to_string(i), TimePoint(seconds(1)), Duration::zero());
  }
  EXPECT_LE(holds.size(), 256U);
  holds.NoteFailed("new", TimePoint(seconds(1000)), Duration::zero());
  EXPECT_EQ(holds.size(), 1U) << "the others' waits are over";
}

class OwingQueue : public ::testing::Test {
 protected:
  OwingQueue() {
    for (const uint64_t seq : {1, 2}) {
      Task task;
      task.seq = seq;
      task.id = std::to_string(seq);
      task.function.name = seq == 1 ? "a" : "b";
      task.bytes = 100;
      task.state = TaskState::kDone;
      task.callback.state = CallbackState::kOwed;
      queue.Add(task, now + seconds(seq));
    }
  }
  static bool Any(const Task&) { return true; }
  TimePoint now{seconds(1000)};
  TaskQueue queue;
};

TEST_F(OwingQueue, TellsWhichIsDue) {
  EXPECT_FALSE(queue.NextCallback(now, Any).has_value());
  EXPECT_EQ(queue.NextCallbackDue(now), now + seconds(1));
  EXPECT_EQ(queue.NextCallback(now + seconds(2), Any), 1U);
  EXPECT_EQ(queue.NextCallback(now + seconds(2), [](const Task& task) { return task.id == "2"; }),
            2U);
  EXPECT_EQ(queue.NextCallbackDue(now + seconds(1)), now + seconds(2));
  queue.BeginCallback(1);
  EXPECT_EQ(queue.NextCallback(now + seconds(2), Any), 2U) << "the first is under way";
  queue.PutBackCallback(1, now + seconds(9), [](TaskCallback& callback) { ++callback.tries; });
  EXPECT_EQ(queue.At(1)->callback.tries, 1U);
  EXPECT_EQ(queue.NextCallback(now + seconds(9), Any), 2U);
}

TEST_F(OwingQueue, OfTooManyTheOldestOfTheFunctionThatOwesMostIsTold) {
  TaskLimits limits;
  EXPECT_FALSE(queue.ExcessCallback(limits).has_value());
  Task task;
  task.seq = 3;
  task.id = "3";
  task.function.name = "b";
  task.bytes = 100;
  task.state = TaskState::kDone;
  task.callback.state = CallbackState::kOwed;
  queue.Add(task, now);
  limits.unended = 4;
  EXPECT_EQ(queue.ExcessCallback(limits), 2U);
  queue.BeginCallback(2);
  queue.BeginCallback(3);
  EXPECT_EQ(queue.ExcessCallback(limits), 1U) << "what is being sent is not given up";
  queue.BeginCallback(1);
  EXPECT_FALSE(queue.ExcessCallback(limits).has_value());
  limits.unended = 5000;
  limits.message_bytes = 100;
  limits.bytes = 500;
  queue.PutBackCallback(1, now, [](TaskCallback&) {});
  EXPECT_EQ(queue.ExcessCallback(limits), 1U) << "300 bytes of 250";
  queue.EndCallback(1, now,
                    [](TaskCallback& callback) { callback.state = CallbackState::kGivenUp; });
  EXPECT_FALSE(queue.ExcessCallback(limits).has_value());
}

TEST_F(OwingQueue, NothingIsForgottenThatOwesOne) {
  TaskLimits limits;
  limits.bytes = 0;
  limits.ended = 0;
  EXPECT_THAT(queue.Forgettable(limits, now + seconds(99), 0), ElementsAre());
  EXPECT_EQ(queue.owing(), 2U);
  EXPECT_EQ(queue.unsettled_bytes(), 200U);
  queue.BeginCallback(1);
  queue.EndCallback(1, now,
                    [](TaskCallback& callback) { callback.state = CallbackState::kDelivered; });
  EXPECT_THAT(queue.Forgettable(limits, now + seconds(99), 0), ElementsAre(1));
  EXPECT_EQ(queue.owing(), 1U);
  EXPECT_EQ(queue.unsettled_bytes(), 100U);
  queue.Forget(2);
  queue.Forget(1);
  EXPECT_EQ(queue.owing() + queue.bytes() + queue.unsettled_bytes(), 0U);
}

}  // namespace
}  // namespace pulga
