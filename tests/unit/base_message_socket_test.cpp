#include <fcntl.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <thread>

#include "base/message_socket.h"

namespace pulga {
namespace {

constexpr size_t kMost = 192 * 1024;

class MessageSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    auto pair = MessageSocket::Pair();
    ASSERT_TRUE(pair.ok());
    ours_ = std::move(pair->first);
    theirs_ = std::move(pair->second);
  }
  Status Send(const std::string& text) { return ours_.Send(std::as_bytes(std::span(text))); }

  MessageSocket ours_;
  MessageSocket theirs_;
};

TEST_F(MessageSocketTest, AMessageTakesTheMemoryItNeeds) {
  const std::string text(10'000, 'x');
  ASSERT_TRUE(Send(text).ok());
  const auto message = theirs_.Receive(kMost);
  ASSERT_TRUE(message.ok());
  EXPECT_EQ(message->bytes, text);
  EXPECT_LT(message->bytes.capacity(), 2 * text.size());
}

TEST_F(MessageSocketTest, WhatIsTooLongIsRefusedAndDropped) {
  ASSERT_TRUE(Send(std::string(10'000, 'x')).ok());
  ASSERT_TRUE(Send("next").ok());
  const auto refused = theirs_.Receive(9'999);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Code::kTooLarge);
  const auto next = theirs_.Receive(9'999);
  ASSERT_TRUE(next.ok());
  EXPECT_EQ(next->bytes, "next");
}

// A look that finds nothing ends the reading: what comes right after it is not read by its measure.
TEST_F(MessageSocketTest, ALargeMessageIsWholeWhenItComesWhileNothingWasThere) {
  ASSERT_EQ(fcntl(theirs_.fd(), F_SETFL, O_NONBLOCK), 0);
  constexpr int kMessages = 200'000;
  const std::string text(6000, 'x');
  std::thread sender([&] {
    for (int i = 0; i < kMessages; ++i) {
      if (!Send(text).ok()) return;
      for (int spin = 0; spin < 50; ++spin) std::atomic_signal_fence(std::memory_order_seq_cst);
    }
  });
  int received = 0;
  while (received < kMessages) {
    const auto message = theirs_.Receive(kMost);
    if (!message.ok() && message.error().sys_errno == EAGAIN) continue;
    if (!message.ok()) ADD_FAILURE() << message.error().message;
    if (!message.ok() || message->bytes.size() != text.size()) break;
    ++received;
  }
  theirs_ = MessageSocket();
  sender.join();
  EXPECT_EQ(received, kMessages);
}

TEST_F(MessageSocketTest, TheEndIsAnEmptyMessage) {
  ours_ = MessageSocket();
  const auto end = theirs_.Receive(kMost);
  ASSERT_TRUE(end.ok());
  EXPECT_TRUE(end->bytes.empty());
}

}  // namespace
}  // namespace pulga
