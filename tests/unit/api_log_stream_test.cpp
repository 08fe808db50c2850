#include <gtest/gtest.h>

#include <optional>

#include "api/log_stream.h"
#include "tests/support/fake_engine.h"

namespace pulga::testing {
namespace {

// A client that reads when it is told to.
class SlowClient final : public HttpExchange {
 public:
  const HttpRequest& request() const override { return request_; }
  void DropHeader(std::string_view) override {}
  HeaderList TakeHeaders() override { return {}; }
  void Reply(HttpReply reply) override { status = reply.status; }
  void ContinueBody() override {}
  void ContinueReply() override {}
  void HoldBody() override {}
  bool ClientHasLeft() const override { return false; }

  int status = 0;

 private:
  HttpRequest request_;
};

class LogStreamTest : public ::testing::Test {
 protected:
  void Append(std::string text) { engine_.logs().Append(key_, {1, 1, "", "stderr", text}); }
  void Follow() {
    stream_ = StreamLog(client_, engine_,
                        {.key = key_,
                         .query = {},
                         .follow = LogRequest::Follow::kYes,
                         // As JSON does, it makes much of what is not plain.
                         .format = [](const LogLine& line) {
                           return std::string(6 * line.text.size(), ' ') + line.text + "\n";
                         }});
    stream_->Start();
  }
  // Everything there is; nothing once the stream was cut off.
  std::optional<std::string> ReadAll() {
    std::string out;
    while (true) {
      char part[1000];
      const ReadResult read = stream_->Read(part, sizeof part);
      if (read.state == ReadState::kAborted) return std::nullopt;
      if (read.state != ReadState::kData) return out;
      out.append(part, read.size);
    }
  }

  std::unique_ptr<EventLoop> loop_ = EventLoop::Create().value();
  FakeEngine engine_{*loop_};
  FunctionKey key_{"admin", "openfaas-fn", "f"};
  SlowClient client_;
  std::unique_ptr<HttpHandler> stream_;
};

TEST_F(LogStreamTest, WhatThereWasIsNoDebtOfAFollowers) {
  for (int i = 0; i < 50; ++i) Append(std::string(4096, 'x'));  // 1.4 MB as they are told
  Follow();
  EXPECT_EQ(client_.status, 200);
  Append("and then");
  const auto told = ReadAll();
  ASSERT_TRUE(told.has_value());
  EXPECT_GT(told->size(), 1U << 20);
  EXPECT_TRUE(told->ends_with("and then\n"));
}

TEST_F(LogStreamTest, AFollowerThatNeverReadsIsCutOff) {
  Follow();
  for (int i = 0; i < 20; ++i) Append(std::string(4096, 'x'));
  EXPECT_EQ(ReadAll(), std::nullopt);
}

TEST_F(LogStreamTest, AFollowerThatIsAlwaysABitBehindGetsEveryLineOnceAndInOrder) {
  Follow();
  std::string wanted, got;
  for (int i = 0; i < 2000; ++i) {
    const std::string text = std::to_string(i);
    Append(text);
    wanted += std::string(6 * text.size(), ' ') + text + "\n";
    char part[20];
    const ReadResult read = stream_->Read(part, sizeof part);
    ASSERT_EQ(read.state, ReadState::kData);
    got.append(part, read.size);
  }
  EXPECT_EQ(got + ReadAll().value(), wanted);
}

}  // namespace
}  // namespace pulga::testing
