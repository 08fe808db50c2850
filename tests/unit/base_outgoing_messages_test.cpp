#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file_io.h"
#include "base/outgoing_messages.h"

namespace pulga {
namespace {

class OutgoingMessagesTest : public testing::Test {
 protected:
  void SetUp() override {
    loop_ = *EventLoop::Create();
    auto pair = MessageSocket::Pair();
    ASSERT_TRUE(pair.ok());
    ours_ = std::move(pair->first);
    theirs_ = std::move(pair->second);
    ASSERT_TRUE(SetNonBlocking(ours_.fd()).ok());
    ASSERT_TRUE(SetNonBlocking(theirs_.fd()).ok());
    outgoing_ = std::make_unique<OutgoingMessages>(*loop_, ours_);
  }
  // Number after number until some had to be kept.
  void Fill() {
    while (outgoing_->kept() < 50) ASSERT_TRUE(outgoing_->SendPod(sent_++).ok());
  }
  // False when nothing waits.
  bool ReceiveNext(Message* message) {
    auto received = theirs_.Receive(sizeof(uint32_t));
    if (!received.ok()) return false;
    *message = std::move(*received);
    return true;
  }

  std::unique_ptr<EventLoop> loop_;
  MessageSocket ours_;
  MessageSocket theirs_;
  std::unique_ptr<OutgoingMessages> outgoing_;
  uint32_t sent_ = 0;
};

TEST_F(OutgoingMessagesTest, ArriveInOrderThroughAFullSocket) {
  Fill();
  uint32_t next = 0;
  for (int turns = 0; next < sent_ && turns < 100000; ++turns) {
    for (Message message; ReceiveNext(&message); ++next) {
      ASSERT_EQ(message.bytes, std::string(reinterpret_cast<const char*>(&next), sizeof next));
    }
    loop_->RunOnce(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(next, sent_);
  EXPECT_EQ(outgoing_->kept(), 0u);
}

TEST_F(OutgoingMessagesTest, KeepTheirDescriptorsWhenTheCallerClosesHis) {
  Fill();
  UniqueFd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int number = fd.get();
  struct stat before = {};
  ASSERT_EQ(fstat(number, &before), 0);
  ASSERT_TRUE(outgoing_->Send(std::as_bytes(std::span(&sent_, 1)), std::span(&number, 1)).ok());
  fd.Reset();
  Message last;
  for (int turns = 0; last.fds.empty() && turns < 100000; ++turns) {
    while (last.fds.empty() && ReceiveNext(&last)) {
    }
    loop_->RunOnce(std::chrono::milliseconds(10));
  }
  ASSERT_EQ(last.fds.size(), 1u);
  struct stat after = {};
  ASSERT_EQ(fstat(last.fds[0].get(), &after), 0);
  EXPECT_EQ(after.st_rdev, before.st_rdev);
}

TEST_F(OutgoingMessagesTest, AreForgottenWhenThePeerIsGone) {
  Fill();
  theirs_ = MessageSocket();
  for (int turns = 0; outgoing_->kept() > 0 && turns < 1000; ++turns) {
    loop_->RunOnce(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(outgoing_->kept(), 0u);
  EXPECT_FALSE(outgoing_->SendPod(sent_).ok());
}

}  // namespace
}  // namespace pulga
