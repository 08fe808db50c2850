// A callback's errand: what is sent, where to, and what its end means; over a transport in memory.
#include <gmock/gmock.h>
#include <unistd.h>

#include "base/file_io.h"
#include "images/fetch/callback_errand.h"

namespace pulga {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class OneAnswer final : public HttpTransport {
 public:
  void Start(const HttpOrder& asked, HttpReceiver& receiver) override {
    order = asked;
    receiver_ = &receiver;
  }
  Status Wait(Duration) override {
    if (!wait.ok()) return wait;
    bool on = status == 0 || receiver_->OnHead({status, {}});
    for (size_t sent = 0; on && sent < body_bytes; sent += 1000) {
      on = receiver_->OnBytes(std::string(1000, 'x'));
      taken = sent;
    }
    receiver_->OnEnd({on ? end : HttpEnd::Kind::kStopped, "told", AddressKind::kPublic});
    return OkStatus();
  }

  HttpOrder order;
  int status = 200;
  size_t body_bytes = 0;
  size_t taken = 0;
  HttpEnd::Kind end = HttpEnd::Kind::kComplete;
  Status wait;

 private:
  HttpReceiver* receiver_ = nullptr;
};

class CallbackErrand : public ::testing::Test {
 protected:
  Result<int> Run(const std::string& head, const std::string& body) {
    const auto file = OpenUnnamedFile("/tmp");
    EXPECT_TRUE(WriteAll(file->get(), head + body).ok());
    post.head_bytes = head.size();
    post.body_bytes = body.size();
    Result<int> answer = 0;
    tried = RunCallback(post, transport, file->get(), &answer);
    return answer;
  }
  PostOrder post{"http://h.example/x?y", 0, 0, {}, std::chrono::seconds(7)};
  OneAnswer transport;
  Status tried;
};

TEST_F(CallbackErrand, SendsTheMessageAndTellsTheStatus) {
  transport.status = 418;
  const auto status = Run("X-Call-Id: 1\nX-Empty: \nno header\n", "body");
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(*status, 418);
  EXPECT_EQ(transport.order.url.ToString(), "http://h.example/x?y");
  EXPECT_THAT(transport.order.headers,
              ElementsAre("Expect:", "X-Call-Id: 1", "X-Empty;", "Content-Type:"));
  EXPECT_EQ(transport.order.file_body->offset, 33U);
  EXPECT_EQ(transport.order.file_body->size, 4U);
  EXPECT_EQ(transport.order.time_limit, std::chrono::seconds(7));
  ASSERT_TRUE(Run("Content-Type: text/x\n", "").ok());
  EXPECT_THAT(transport.order.headers, Not(Contains("Content-Type:")));
}

TEST_F(CallbackErrand, MayLeadToPublicAddressesAndWhatIsListed) {
  post.networks = {*ParseNetworkPrefix("10.0.0.0/8")};
  ASSERT_TRUE(Run("", "").ok());
  const Reach& reach = transport.order.reach;
  EXPECT_EQ(reach.most_private, AddressKind::kPublic);
  EXPECT_EQ(reach.allowed, post.networks);
  // Loopback's own is among the board's.
  EXPECT_THAT(reach.refused, Contains(*ParseNetworkPrefix("127.0.0.1")));
}

TEST_F(CallbackErrand, ALongAnswerIsNotReadToItsEnd) {
  transport.body_bytes = 10 << 20;
  EXPECT_EQ(*Run("", ""), 200);
  EXPECT_LT(transport.taken, 100000U);
}

TEST_F(CallbackErrand, EveryEndWithoutAStatusIsAnError) {
  transport.status = 0;
  transport.end = HttpEnd::Kind::kForbidden;
  EXPECT_EQ(Run("", "").error().code, Code::kPermission);
  EXPECT_THAT(Run("", "").error().message, HasSubstr("callback-networks"));
  transport.end = HttpEnd::Kind::kUnreachable;
  EXPECT_EQ(Run("", "").error().code, Code::kUnavailable);
  transport.end = HttpEnd::Kind::kUntrusted;
  EXPECT_THAT(Run("", "").error().message, StartsWith("not trusted"));
  transport.end = HttpEnd::Kind::kComplete;
  EXPECT_FALSE(Run("", "").ok()) << "no HTTP";
  transport.wait = Error{Code::kUnavailable, 0, "cancelled"};
  (void)Run("", "");
  EXPECT_EQ(tried.error().message, "cancelled") << "says nothing about the receiver";
}

TEST_F(CallbackErrand, WhatIsNoOrderIsRefused) {
  post.url = "file:///etc/passwd";
  EXPECT_EQ(Run("", "").error().code, Code::kInvalidArgument);
  post.url = "http://h/";
  EXPECT_EQ(Run(std::string(300000, 'x'), "").error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace pulga
