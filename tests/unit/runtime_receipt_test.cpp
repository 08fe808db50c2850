// The receipt of a call: what it says it waited for, and that its steps add up to the whole call.
#include <chrono>
#include <thread>

#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using testing::Client;
using testing::Exited;
using testing::FakeConnection;
using testing::FakeProgram;

double MillisSince(TimePoint begin) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
      .count();
}

double Sum(const Receipt& receipt) {
  double sum = 0;
  for (const double step :
       {receipt.queue_ms, receipt.sandbox_ms, receipt.ready_ms, receipt.function_ms}) {
    sum += std::max(step, 0.0);
  }
  return sum;
}

class ReceiptTest : public testing::CallTest {
 protected:
  // A call and the bounds that no honest receipt of it leaves.
  struct Timed {
    TimePoint before_begin = std::chrono::steady_clock::now();
    TimePoint begun;
    std::unique_ptr<Client> client;
    double least_ms = -1, most_ms = -1;
    const Receipt& receipt() const { return client->call->receipt(); }
  };

  void ExpectSum(const Timed& timed) {
    EXPECT_GE(Sum(timed.receipt()), timed.least_ms);
    EXPECT_LE(Sum(timed.receipt()), timed.most_ms);
  }
  // `least`: what the call takes at least.
  void Finish(Timed* timed, Duration least) {
    ASSERT_TRUE(RunUntil([&] { return timed->client->done(); }));
    EXPECT_EQ(timed->client->outcome(), "ok");
    timed->most_ms = MillisSince(timed->before_begin);
    timed->least_ms = std::chrono::duration<double, std::milli>(least).count();
    ExpectSum(*timed);
  }
  std::shared_ptr<Version> version;
};

TEST_F(ReceiptTest, CallsBehindOthersWaitedForAPlaceAndNotForAStart) {
  version = MakeVersion(SandboxMode::kHttp);
  version->concurrency = 1;
  version->spec.scale.max = 1;
  sandbox->listen_delay = milliseconds(20);
  constexpr Duration kEach = milliseconds(30);
  sandbox->SetHandler([&](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      std::this_thread::sleep_for(kEach);
      c.Reply("x");
    }
  });
  ASSERT_TRUE(Activate(version).ok());
  std::vector<Timed> calls(4);
  for (Timed& timed : calls) timed.client = Begin(Request());
  for (size_t i = 0; i < calls.size(); ++i) {
    Finish(&calls[i], sandbox->listen_delay + kEach * static_cast<int>(i + 1));
    const Receipt& receipt = calls[i].receipt();
    EXPECT_EQ(receipt.start, i == 0 ? StartKind::kCold : StartKind::kWarm) << i;
    if (i == 0) continue;
    EXPECT_GE(receipt.queue_ms, 20 + 30 * static_cast<double>(i));
    EXPECT_LT(receipt.sandbox_ms, 0);
    EXPECT_LT(receipt.ready_ms, 0);
  }
  EXPECT_EQ(sandbox->starts, 1);
}

TEST_F(ReceiptTest, CallsThatShareAStartWaitedForItsRest) {
  version = MakeVersion(SandboxMode::kHttp);
  sandbox->listen_delay = milliseconds(80);
  ASSERT_TRUE(Activate(version).ok());
  Timed first;
  first.client = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return sandbox->starts == 1; }));
  RunFor(milliseconds(20));
  Timed second;
  second.client = Begin(Request());
  Finish(&first, sandbox->listen_delay);
  Finish(&second, Duration::zero());
  EXPECT_EQ(first.receipt().start, StartKind::kCold);
  EXPECT_EQ(second.receipt().start, StartKind::kCold);
  EXPECT_LT(second.receipt().ready_ms, first.receipt().ready_ms) << "only the rest of it";
}

TEST_F(ReceiptTest, TheStepsOfAProgramAddUp) {
  version = MakeVersion(SandboxMode::kExec);
  sandbox->set_up_time = milliseconds(50);
  sandbox->program = [](FakeProgram& p) {
    p.Print("early");
    std::this_thread::sleep_for(milliseconds(40));
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  Timed call;
  call.client = Begin(Request());
  Finish(&call, milliseconds(90));
  EXPECT_GE(call.receipt().sandbox_ms, 50);
  EXPECT_GE(call.receipt().function_ms, 40);
  EXPECT_LE(call.receipt().exec_ms, call.receipt().function_ms) << "its first part";
}

TEST_F(ReceiptTest, ACallThatMovedTellsOfTheInstanceThatServedIt) {
  version = MakeVersion(SandboxMode::kExec);
  sandbox->broken_pipes = 1;
  ASSERT_TRUE(Activate(version).ok());
  Timed call;
  call.client = Begin(Request());
  Finish(&call, Duration::zero());
}

}  // namespace
}  // namespace pulga
