#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "base/sys.h"
#include "base/work_queue.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;

class EventLoopTest : public testing::Test {
 protected:
  void SetUp() override {
    loop_ = *EventLoop::Create();
    int fds[2];
    ASSERT_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    read_.Reset(fds[0]);
    write_.Reset(fds[1]);
  }
  void Poke() { ASSERT_EQ(write(write_.get(), "x", 1), 1); }

  std::unique_ptr<EventLoop> loop_;
  UniqueFd read_;
  UniqueFd write_;
};

TEST_F(EventLoopTest, CallsBackWhenAnFdIsReadable) {
  uint32_t seen = 0;
  ASSERT_TRUE(loop_->Watch(read_.get(), EPOLLIN, [&](uint32_t events) { seen = events; }).ok());
  loop_->RunOnce(Duration::zero());
  EXPECT_EQ(seen, 0u);
  Poke();
  loop_->RunOnce(milliseconds(100));
  EXPECT_EQ(seen, static_cast<uint32_t>(EPOLLIN));
}

TEST_F(EventLoopTest, ACallbackMayUnwatchItself) {
  int calls = 0;
  ASSERT_TRUE(loop_
                  ->Watch(read_.get(), EPOLLIN,
                          [&](uint32_t) {
                            ++calls;
                            loop_->Unwatch(read_.get());
                          })
                  .ok());
  Poke();
  loop_->RunOnce(milliseconds(100));
  loop_->RunOnce(Duration::zero());
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, AnFdUnwatchedInTheSameTurnIsNotCalled) {
  int calls = 0;
  const UniqueFd other(fcntl(read_.get(), F_DUPFD_CLOEXEC, 0));
  const auto drop_both = [&](uint32_t) {
    ++calls;
    loop_->Unwatch(read_.get());
    loop_->Unwatch(other.get());
  };
  ASSERT_TRUE(loop_->Watch(read_.get(), EPOLLIN, drop_both).ok());
  ASSERT_TRUE(loop_->Watch(other.get(), EPOLLIN, drop_both).ok());
  Poke();
  loop_->RunOnce(milliseconds(100));
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, ModifyChangesWhatIsWaitedFor) {
  int calls = 0;
  ASSERT_TRUE(loop_->Watch(write_.get(), EPOLLOUT, [&](uint32_t) { ++calls; }).ok());
  ASSERT_TRUE(loop_->Modify(write_.get(), 0).ok());
  loop_->RunOnce(Duration::zero());
  EXPECT_EQ(calls, 0);
  ASSERT_TRUE(loop_->Modify(write_.get(), EPOLLOUT).ok());
  loop_->RunOnce(milliseconds(100));
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, WatchingABadFdFailsAndNamesTheCall) {
  const Status s = loop_->Watch(-1, EPOLLIN, [](uint32_t) {});
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("epoll_ctl"), std::string::npos);
}

TEST_F(EventLoopTest, TimersFireInOrderOfTimeThenOfAsking) {
  std::vector<int> order;
  const TimePoint soon = loop_->Now();
  loop_->CallAt(soon + milliseconds(1), [&] { order.push_back(3); });
  loop_->CallAt(soon, [&] { order.push_back(1); });
  loop_->CallAt(soon, [&] { order.push_back(2); });
  while (order.size() < 3) loop_->RunOnce(milliseconds(50));
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST_F(EventLoopTest, ACancelledTimerNeverFires) {
  bool fired = false;
  const EventLoop::TimerId victim = loop_->CallAfter(Duration::zero(), [&] { fired = true; });
  loop_->Cancel(victim);
  loop_->Cancel(victim);
  loop_->Cancel(0);
  loop_->RunOnce(Duration::zero());
  EXPECT_FALSE(fired);
}

TEST_F(EventLoopTest, ATimerMayCancelAnotherThatIsAlsoDue) {
  bool fired = false;
  EventLoop::TimerId victim = 0;
  loop_->CallAfter(Duration::zero(), [&] { loop_->Cancel(victim); });
  victim = loop_->CallAfter(Duration::zero(), [&] { fired = true; });
  loop_->RunOnce(Duration::zero());
  EXPECT_FALSE(fired);
}

TEST_F(EventLoopTest, ATimerThatRearmsItselfLetsTheLoopTurn) {
  int fired = 0;
  std::function<void()> again = [&] {
    ++fired;
    if (fired < 100) loop_->CallAfter(Duration::zero(), again);
  };
  loop_->CallAfter(Duration::zero(), again);
  loop_->RunOnce(Duration::zero());
  EXPECT_EQ(fired, 1);
}

TEST_F(EventLoopTest, AnIdleLoopStillServesATimerSetByAPostedCall) {
  bool fired = false;
  loop_->Post([&] { loop_->CallAfter(milliseconds(1), [&] { fired = true; }); });
  for (int turn = 0; turn < 10 && !fired; ++turn) loop_->RunOnce(milliseconds(50));
  EXPECT_TRUE(fired);
}

TEST_F(EventLoopTest, PostedCallsRunInOrderOnTheLoopsThread) {
  std::vector<int> order;
  std::thread other([&] {
    loop_->Post([&] { order.push_back(1); });
    loop_->Post([&] { order.push_back(2); });
    loop_->Post([&] { loop_->Stop(); });
  });
  loop_->Run();
  other.join();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST_F(EventLoopTest, APostedCallMayPostAgain) {
  int calls = 0;
  loop_->Post([&] {
    ++calls;
    loop_->Post([&] { ++calls; });
  });
  for (int turn = 0; turn < 4; ++turn) loop_->RunOnce(Duration::zero());
  EXPECT_EQ(calls, 2);
}

TEST_F(EventLoopTest, PrepareBoundsTheWait) {
  int prepared = 0;
  loop_->AddPrepare([&]() -> Duration {
    ++prepared;
    return Duration::zero();
  });
  loop_->RunOnce(Duration::max());
  EXPECT_EQ(prepared, 1);
}

TEST_F(EventLoopTest, SignalsArriveAsCallbacks) {
  int seen = 0;
  ASSERT_TRUE(loop_->OnSignals({SIGUSR1}, [&](int signo) { seen = signo; }).ok());
  ASSERT_EQ(raise(SIGUSR1), 0);
  loop_->RunOnce(milliseconds(100));
  EXPECT_EQ(seen, SIGUSR1);
}

TEST_F(EventLoopTest, AWorkQueueRunsJobsInOrderAndAnswersOnTheLoop) {
  std::vector<int> answers;
  const std::thread::id loop_thread = std::this_thread::get_id();
  WorkQueue queue("test-queue", *loop_);
  for (int i = 0; i < 3; ++i) {
    queue.Run([i] { return std::pair(i, std::this_thread::get_id()); },
              [&](std::pair<int, std::thread::id> result) {
                EXPECT_NE(result.second, loop_thread);
                EXPECT_EQ(std::this_thread::get_id(), loop_thread);
                answers.push_back(result.first);
                if (answers.size() == 3) loop_->Stop();
              });
  }
  loop_->Run();
  EXPECT_EQ(answers, (std::vector<int>{0, 1, 2}));
}

TEST_F(EventLoopTest, AWorkQueueFinishesWhatIsQueuedBeforeItGoes) {
  int done = 0;
  {
    WorkQueue queue("test-queue", *loop_);
    for (int i = 0; i < 50; ++i) queue.Run([&done] { ++done; });
  }
  EXPECT_EQ(done, 50);
}

TEST_F(EventLoopTest, AWorkQueueWithoutAThreadIsAnError) {
  sys::FailNthCall(1, EAGAIN);
  const auto queue = WorkQueue::Start("test-queue", *loop_);
  sys::FailNthCall(0, 0);
  ASSERT_FALSE(queue.ok());
  EXPECT_EQ(queue.error().code, Code::kUnavailable);
  EXPECT_EQ(queue.error().message, "start the thread test-queue: Resource temporarily unavailable");
  EXPECT_TRUE(WorkQueue::Start("test-queue", *loop_).ok());
}

TEST_F(EventLoopTest, AJobCanWaitForOneAnswerFromTheLoop) {
  int got = 0;
  WorkQueue queue("test-queue", *loop_);
  queue.Run(
      [this] {
        auto handoff = std::make_shared<Handoff<int>>();
        loop_->Post([handoff] { handoff->Set(42); });
        return handoff->Wait();
      },
      [&](int value) {
        got = value;
        loop_->Stop();
      });
  loop_->Run();
  EXPECT_EQ(got, 42);
}

}  // namespace
}  // namespace pulga
