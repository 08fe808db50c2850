// What the dispatcher does when the board asks for less, over the fake sandbox.
#include <gmock/gmock.h>

#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using testing::FakeConnection;
using ::testing::HasSubstr;

class PressureTest : public testing::CallTest {
 protected:
  void Serve(uint32_t min) {
    auto version = MakeVersion(SandboxMode::kHttp);
    version->spec.scale.min = min;
    version->spec.scale.max = 3;
    version->spec.scale.idle = minutes(5);
    version->spec.scale.freeze_after = kNeverFreeze;
    ASSERT_TRUE(Activate(version).ok());
  }
  size_t Live(const std::string& step) const {
    size_t n = 0;
    for (const InstanceStatus& instance : dispatcher->Activity(key).instances) {
      n += instance.step == step ? 1 : 0;
    }
    return n;
  }
  // Pressure is said again at each look.
  bool PressUntil(PressureLevel level, const std::function<bool()>& done) {
    return RunUntil([&] {
      dispatcher->SetPressure(level, "memory: none left");
      return done();
    });
  }
  void Park() {
    auto version = MakeVersion(SandboxMode::kExec);
    version->spec.scale.parked = 2;
    version->spec.scale.idle = minutes(5);
    ASSERT_TRUE(Activate(version).ok());
    EXPECT_EQ(Call(Post(0))->outcome(), "ok");
    ASSERT_TRUE(RunUntil([&] { return Live("parked") == 2; }));
  }
};

TEST_F(PressureTest, ShrinkGivesUpIdleServersBeyondTheMinimum) {
  Serve(1);
  ASSERT_TRUE(dispatcher->Scale(key, 3).ok());
  ASSERT_TRUE(RunUntil([&] { return Live("warm") == 3; }));
  ASSERT_TRUE(dispatcher->Scale(key, 2).ok());
  ASSERT_TRUE(PressUntil(PressureLevel::kShrink, [&] { return Instances() == 2; }));
  for (int i = 0; i < 5; ++i) dispatcher->SetPressure(PressureLevel::kShed, "");
  RunFor(milliseconds(10));
  EXPECT_EQ(Live("warm"), 2U) << "what is wanted stays";
}

TEST_F(PressureTest, ShrinkTellsWhyAnInstanceWent) {
  Serve(0);
  EXPECT_EQ(Call(Request())->body, "hello");
  ASSERT_EQ(Live("warm"), 1U);
  dispatcher->SetPressure(PressureLevel::kShrink, "memory: little");
  EXPECT_EQ(dispatcher->Activity(key).last_decision,
            "stops an instance: the board is under pressure");
  EXPECT_TRUE(RunUntil([&] { return Instances() == 0; }));
  EXPECT_EQ(Call(Request())->body, "hello") << "whoever calls still gets an instance";
}

TEST_F(PressureTest, ShrinkEndsWhatIsWorthLeastAndNotWhatIsIdleLongest) {
  const std::string often = key.name;
  sandbox->listen_delay = milliseconds(20);  // or the machine's load says what a start costs
  for (const std::string& name : {std::string("seldom"), often}) {
    key.name = name;
    Serve(0);
  }
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Call(Request())->body, "hello");
  RunFor(milliseconds(5));
  key.name = "seldom";
  EXPECT_EQ(Call(Request())->body, "hello");  // the last to be called
  ASSERT_EQ(Live("warm"), 1U);
  dispatcher->SetPressure(PressureLevel::kShrink, "memory: little");
  EXPECT_TRUE(RunUntil([&] { return Instances() == 0; }));
  key.name = often;
  EXPECT_EQ(Live("warm"), 1U);
}

TEST_F(PressureTest, ShrinkLeavesWhatIsParkedAndDelayGivesItUpAndRefillsNothing) {
  Park();
  for (int i = 0; i < 5; ++i) dispatcher->SetPressure(PressureLevel::kShrink, "");
  RunFor(milliseconds(10));
  EXPECT_EQ(Live("parked"), 2U);
  ASSERT_TRUE(PressUntil(PressureLevel::kDelay, [&] { return Instances() == 0; }));
  auto client = Call(Post(0));
  EXPECT_EQ(client->outcome(), "ok");
  EXPECT_EQ(client->call->receipt().start, StartKind::kCold);
  RunFor(milliseconds(20));
  EXPECT_EQ(Instances(), 0U) << "nothing is parked ahead of a call";
  dispatcher->SetPressure(PressureLevel::kCalm, "");
  EXPECT_TRUE(RunUntil([&] { return Live("parked") == 2; })) << "what was put off is done";
}

TEST_F(PressureTest, ShedRefusesWhatNeedsANewInstanceAndServesWhatHasOne) {
  Serve(1);
  ASSERT_TRUE(RunUntil([&] { return Live("warm") == 1; }));
  dispatcher->SetPressure(PressureLevel::kShed, "memory: 1 MiB available");
  EXPECT_EQ(Call(Request())->body, "hello");
  ASSERT_TRUE(dispatcher->Scale(key, 0).ok());
  ASSERT_TRUE(RunUntil([&] { return Instances() == 0; }));
  auto refused = Call(Request());
  EXPECT_EQ(refused->outcome(), "rejected:pressure");
  EXPECT_EQ(refused->call->head().retry_after_s, 10U);
  EXPECT_THAT(refused->call->FailureText(), HasSubstr("memory: 1 MiB available"));
  dispatcher->SetPressure(PressureLevel::kCalm, "");
  EXPECT_EQ(Call(Request())->body, "hello");
}

TEST_F(PressureTest, ShedServesACallThatWasAcceptedBefore) {
  sandbox->listen_delay = milliseconds(30);
  Serve(0);
  auto client = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return Live("starting") == 1; }));
  dispatcher->SetPressure(PressureLevel::kShed, "");
  ASSERT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->body, "hello");
}

}  // namespace
}  // namespace pulga
