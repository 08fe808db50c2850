// frames invocations over scripted functions on real socket pairs.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>

#include "runtime/frames_channel.h"
#include "tests/support/call_fixture.h"
#include "tests/support/frames_peer.h"

namespace pulga {
namespace {

using testing::Client;
using testing::Exited;
using testing::FakeProgram;
using testing::FakeScript;
using testing::Frame;
using testing::FramesPeer;
using testing::Killed;

class FramesTest : public testing::CallTest {
 protected:
  FramesTest() { version = MakeVersion(SandboxMode::kFrames); }
  // Each instance says hello, runs the script, and ends with 0.
  void Serve(std::function<void(FramesPeer&)> script) {
    sandbox->program = [script](FakeProgram& program) {
      FramesPeer peer(program);
      peer.Hello();
      script(peer);
      return Exited(0);
    };
    ASSERT_TRUE(Activate(version).ok());
  }
  // Each request's head is answered by this.
  void Answer(std::function<void(FramesPeer&, const Frame&)> answer) {
    Serve([answer](FramesPeer& peer) {
      while (const auto head = peer.NextHead()) {
        answer(peer, *head);
        peer.Flush();
      }
    });
  }
  size_t Kills() const {
    return static_cast<size_t>(
        std::count(sandbox->signals.begin(), sandbox->signals.end(), SIGKILL));
  }
  uint32_t Open() const {
    uint32_t open = 0;
    for (const auto& instance : dispatcher->Activity(key).instances) open += instance.open_calls;
    return open;
  }
  std::shared_ptr<Version> version;
};

TEST_F(FramesTest, PassesASmallAnswerWhole) {
  Answer([](FramesPeer& peer, const Frame& head) {
    peer.Head(head.id, 201, {{"X-A", "b"}});
    peer.Say(FrameType::kBody, head.id, FrameEnd::kEnd, "hello");
  });
  auto client = Call(Request());
  EXPECT_EQ(client->status(), 201);
  EXPECT_EQ(client->body, "hello");
  EXPECT_EQ(client->header("X-A"), "b");
  EXPECT_TRUE(client->whole);
  EXPECT_EQ(client->call->head().content_length, 5U);
  EXPECT_TRUE(client->call->head().final_outcome_known);
  EXPECT_EQ(client->outcome(), "ok");
  EXPECT_EQ(client->call->receipt().start, StartKind::kCold);
  EXPECT_EQ(Call(Request())->call->receipt().start, StartKind::kWarm);
}

TEST_F(FramesTest, HoldsASmallAnswerThatComesInPieces) {
  Answer([](FramesPeer& peer, const Frame& head) {
    peer.Head(head.id, 200, {{"Content-Length", "3"}});
    for (const char* byte : {"a", "b", "c"}) {
      peer.Flush();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      peer.Say(FrameType::kBody, head.id, *byte == 'c' ? FrameEnd::kEnd : FrameEnd::kMore, byte);
    }
  });
  auto client = Call(Request());
  EXPECT_EQ(client->body, "abc");
  EXPECT_TRUE(client->whole);
}

TEST_F(FramesTest, TellsTheFunctionWhatWasAsked) {
  std::string seen;
  Answer([&](FramesPeer& peer, const Frame& head) {
    seen = head.payload;
    peer.Head(head.id, 204, {}, FrameEnd::kEnd);
  });
  InvocationRequest request = Post(4);
  request.path = "/a%20b";
  request.query = "q=1";
  request.headers = {{"Host", "board:8080"}, {"Content-Length", "9"}, {"bad name", "x"}};
  EXPECT_EQ(Call(std::move(request), "body")->status(), 204);
  const auto text = [](const std::string& s) {
    return std::string{static_cast<char>(s.size()), '\0'} + s;
  };
  EXPECT_EQ(seen.rfind(text("POST") + text("/a%20b") + text("q=1") + text("Host"), 0), 0U);
  EXPECT_NE(seen.find(text("X-Call-Id") + text("call-1")), std::string::npos);
  EXPECT_NE(seen.find(text("X-Forwarded-For") + text("192.0.2.1:5")), std::string::npos);
  EXPECT_NE(seen.find(text("Content-Length") + text("4")), std::string::npos);
  EXPECT_EQ(seen.find(text("9")), std::string::npos);
  EXPECT_EQ(seen.find("bad name"), std::string::npos);
}

// The body back as it comes, by its credit and ours.
void Echo(FramesPeer& peer) {
  uint64_t credit = 0;
  uint32_t id = 0;
  std::string held;
  bool ended = false;
  while (const auto frame = peer.Next()) {
    if (frame->type == FrameType::kHead) {
      id = frame->id;
      credit = kFramesReplyWindow;
      peer.Head(id, 200);
    }
    if (frame->id != id) continue;  // credit for a call that is over
    if (frame->type == FrameType::kCredit) credit += std::stoul(frame->payload);
    if (frame->type == FrameType::kBody) held += frame->payload;
    if (frame->type == FrameType::kBody) ended = frame->end == FrameEnd::kEnd;
    const size_t n = std::min<uint64_t>(held.size(), credit);
    if (frame->type == FrameType::kHello || frame->type == FrameType::kHead) continue;
    const bool last = ended && n == held.size();
    if (n == 0 && !last) continue;
    if (!ended) peer.Credit(frame->id, static_cast<uint32_t>(n));
    peer.Say(FrameType::kBody, frame->id, last ? FrameEnd::kEnd : FrameEnd::kMore,
             held.substr(0, n));
    held.erase(0, n);
    credit -= n;
    if (last) id = 0;
    if (last) ended = false;
    peer.Flush();
  }
}

TEST_F(FramesTest, StreamsLargeBodiesBothWays) {
  sandbox->program = [](FakeProgram& program) {
    FramesPeer peer(program);
    peer.Hello(5000);
    Echo(peer);
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  std::string body;
  for (int i = 0; i < 1000000; ++i) body += static_cast<char>('a' + i % 23);
  EXPECT_TRUE(Call(Post(body.size()), body)->body == body);
  auto chunked = Call(Post(std::nullopt), body);
  EXPECT_TRUE(chunked->body == body);
  EXPECT_FALSE(chunked->call->head().content_length);
  EXPECT_EQ(chunked->outcome(), "ok");
}

TEST_F(FramesTest, TakesALargeBodyThatCameBeforeTheFunctionWasReady) {
  std::atomic<bool> go = false;
  Serve([&](FramesPeer& peer) {
    while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Echo(peer);
  });
  auto client = Begin(Post(1000000), std::string(1000000, 'x'));
  RunFor(std::chrono::milliseconds(1));
  go = true;
  EXPECT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->body.size(), 1000000U);
}

TEST_F(FramesTest, ServesCallsAtOnceAndInAnyOrder) {
  Serve([](FramesPeer& peer) {
    std::vector<uint32_t> ids;
    while (const auto head = peer.NextHead()) {
      ids.push_back(head->id);
      if (ids.size() < 10) continue;
      for (; !ids.empty(); ids.pop_back()) peer.Reply(ids.back(), std::to_string(ids.size()));
    }
  });
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(Begin(Request()));
  for (size_t i = 0; i < 10; ++i) {
    ASSERT_TRUE(RunUntil([&] { return clients[i]->done(); }));
    EXPECT_EQ(clients[i]->body, std::to_string(i + 1));
  }
  EXPECT_EQ(sandbox->starts, 1) << "one serves them all";
}

TEST_F(FramesTest, TellsTheFunctionThatTheClientHasLeft) {
  std::atomic<bool> told = false;
  Serve([&](FramesPeer& peer) {
    while (const auto frame = peer.Next()) {
      if (frame->type == FrameType::kHead && frame->payload.find("/wait") == std::string::npos) {
        peer.Reply(frame->id, "next");
      } else if (frame->type == FrameType::kCancel) {
        told = true;
        peer.Say(FrameType::kCancel, frame->id, FrameEnd::kMore);
        peer.Flush();
      }
    }
  });
  Call(Request());
  InvocationRequest wait = Request();
  wait.path = "/wait";
  auto client = Begin(std::move(wait));
  client->Leave();
  EXPECT_TRUE(RunUntil([&] { return told.load(); }));
  EXPECT_EQ(Call(Request())->body, "next");
  EXPECT_EQ(Count("cancelled"), 1U);
  EXPECT_EQ(Kills(), 0U);
}

// Each credit is given once the last one is used up: what came unasked would be there by then.
TEST_F(FramesTest, SendsNoMoreOfABodyThanTheFunctionAllows) {
  std::atomic<size_t> seen = 0;
  std::atomic<size_t> allowed = 1000;
  sandbox->program = [&](FakeProgram& program) {
    FramesPeer peer(program);
    peer.Hello(1000);
    while (const auto frame = peer.Next()) {
      if (frame->type == FrameType::kBody) seen += frame->payload.size();
      EXPECT_LE(seen, allowed);
      if (frame->type == FrameType::kBody && frame->end == FrameEnd::kEnd) {
        peer.Reply(frame->id, "");
      } else if (seen == allowed) {
        allowed += 9000;
        peer.Credit(frame->id, 9000);
        peer.Flush();
      }
    }
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(Call(Post(100000), std::string(100000, 'x'))->status(), 200);
  EXPECT_EQ(seen, 100000U);
}

TEST_F(FramesTest, StopsAFunctionThatSendsMoreThanItsReaderTakes) {
  std::atomic<size_t> credit = 0;
  Serve([&](FramesPeer& peer) {
    uint32_t large = 0;
    while (const auto frame = peer.Next()) {
      if (frame->type == FrameType::kHead && large != 0) peer.Reply(frame->id, "small");
      if (frame->type == FrameType::kHead && large == 0) {
        peer.Head(large = frame->id, 200);
        peer.Say(FrameType::kBody, large, FrameEnd::kMore, std::string(kFramesReplyWindow, 'x'));
        peer.Flush();
      }
      if (frame->type != FrameType::kCredit) continue;
      if (credit.fetch_add(std::stoul(frame->payload)) != 0) continue;
      peer.Say(FrameType::kBody, large, FrameEnd::kEnd);
      peer.Flush();
    }
  });
  auto client = std::make_unique<Client>();
  client->reading = Client::Reading::kPaused;
  client->Start(*dispatcher, Request());
  ASSERT_TRUE(RunUntil([&] { return client->head_seen; }));
  EXPECT_EQ(Call(Request())->body, "small") << "nobody else waits";
  EXPECT_EQ(credit, 0U);
  client->Resume();
  ASSERT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->body.size(), size_t{kFramesReplyWindow});
  EXPECT_GT(credit, 0U);
}

size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0;
  size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// Its buffer is never empty, so that only its beginning can be given back.
TEST_F(FramesTest, AClientThatIsAlwaysBehindCostsNoMoreForThat) {
  constexpr size_t kMuch = 64 << 20;
  const std::string large(kFramesReplyWindow, 'x');
  Serve([large](FramesPeer& peer) {
    const auto head = peer.NextHead();
    if (!head) return;
    peer.Head(head->id, 200);
    size_t sent = 0;
    for (size_t credit = kFramesReplyWindow; sent < kMuch; credit = 0) {
      while (credit == 0) {
        const auto frame = peer.Next();
        if (!frame) return;
        if (frame->type == FrameType::kCredit) credit = std::stoul(frame->payload);
      }
      sent += credit;
      peer.Say(FrameType::kBody, head->id, FrameEnd::kMore,
               std::string_view(large).substr(0, credit));
      peer.Flush();
    }
    while (peer.Next()) {
    }
  });
  auto client = std::make_unique<Client>();
  client->reading = Client::Reading::kPaused;
  client->Start(*dispatcher, Request());
  ASSERT_TRUE(RunUntil([&] { return client->head_seen; }));
  const size_t before = ResidentBytes();
  size_t read = 0;
  char buffer[4096];
  while (read < kMuch) {
    ASSERT_TRUE(RunUntil([&] {
      const size_t n = client->call->Read(buffer, sizeof buffer).size;
      read += n;
      return n > 0;
    })) << read;
  }
  EXPECT_LT(ResidentBytes(), before + kMuch / 2);
}

struct Misdeed {
  const char* name;
  std::function<void(FramesPeer&, uint32_t id)> deed;
};

TEST_F(FramesTest, EndsAnInstanceThatBreaksTheProtocolAndNoOther) {
  const FrameEnd more = FrameEnd::kMore;
  const std::string large(kMaxFramePayload, 'x');
  const std::vector<Misdeed> misdeeds = {
      {"bad id", [=](FramesPeer& p, uint32_t id) { p.Head(id + 1, 200); }},
      {"id 0", [=](FramesPeer& p, uint32_t) { p.Say(FrameType::kCancel, 0, more); }},
      {"headless", [=](FramesPeer& p, uint32_t id) { p.Say(FrameType::kBody, id, more, "x"); }},
      {"twice", [=](FramesPeer& p, uint32_t id) { p.Head(id, 200), p.Head(id, 200); }},
      {"hello", [=](FramesPeer& p, uint32_t) { p.Hello(); }},
      {"credit", [=](FramesPeer& p, uint32_t id) { p.Credit(id, 0x7fffffff); }},
      {"no credit", [=](FramesPeer& p, uint32_t id) { p.Credit(id, 0); }},
      {"empty",
       [=](FramesPeer& p, uint32_t id) {
         p.Head(id, 200, {{"Content-Length", "9"}});
         p.Say(FrameType::kBody, id, more);
       }},
      {"size",
       [](FramesPeer& p, uint32_t) {
         p.Raw({"\1\0\1\0....\3\0\0\0", 12});
       }},
      {"type",
       [](FramesPeer& p, uint32_t) {
         p.Raw({"\0\0\0\0....\6\0\0\0", 12});
       }},
      {"flags",
       [](FramesPeer& p, uint32_t) {
         p.Raw({"\0\0\0\0....\3\2\0\0", 12});
       }},
      {"reserved",
       [](FramesPeer& p, uint32_t) {
         p.Raw({"\0\0\0\0....\3\0\1\0", 12});
       }},
      {"garbage", [](FramesPeer& p, uint32_t) { p.Raw("HTTP/1.1 200 OK\r\n\r\n"); }},
      {"window", [=](FramesPeer& p, uint32_t id) {
         p.Head(id, 200, {{"Content-Length", "9"}});
         p.Say(FrameType::kBody, id, more, large.substr(0, 9));
         p.Say(FrameType::kBody, id + 1, more, large);
       }}};
  std::atomic<size_t> turn = 0;
  Answer([&](FramesPeer& peer, const Frame& head) {
    if (head.payload.find("/good") != std::string::npos) return peer.Reply(head.id, "good");
    misdeeds[turn].deed(peer, head.id);
  });
  for (; turn < misdeeds.size(); ++turn) {
    const size_t kills = Kills();
    auto client = Call(Request());
    EXPECT_EQ(client->status(), 0) << misdeeds[turn].name;
    EXPECT_EQ(client->outcome(), "bad-response") << misdeeds[turn].name;
    EXPECT_NE(client->call->FailureText().find("its channel: "), std::string::npos);
    EXPECT_EQ(Kills(), kills + 1) << misdeeds[turn].name;
    InvocationRequest good = Request();
    good.path = "/good";
    EXPECT_EQ(Call(std::move(good))->body, "good") << misdeeds[turn].name;
  }
}

TEST_F(FramesTest, ACallThatEndedIsNotHarmedByWhatComesAfterItsEnd) {
  Answer([](FramesPeer& peer, const Frame& head) {
    peer.Head(head.id, 200);
    peer.Say(FrameType::kBody, head.id, FrameEnd::kEnd, "whole");
    peer.Say(FrameType::kBody, head.id, FrameEnd::kMore, "late");
  });
  auto client = Call(Request());
  EXPECT_EQ(client->body, "whole");
  EXPECT_EQ(client->outcome(), "ok");
  EXPECT_TRUE(RunUntil([&] { return Kills() == 1; }));
}

TEST_F(FramesTest, AWrongAnswerFailsItsCallAlone) {
  const std::vector<std::pair<uint16_t, HeaderList>> wrong = {
      {99, {}},
      {101, {}},
      {600, {}},
      {200, {{"a b", "c"}}},
      {200, {{"A", "b\r\nX: c"}}},
      {200, {{"Content-Length", "x"}}},
      {200, {{"Content-Length", "4"}}},
      {200, {{"Content-Length", "6"}}},
      {200, {{"Content-Length", "5"}, {"Content-Length", "6"}}}};
  std::atomic<size_t> turn = 0;
  Answer([&](FramesPeer& peer, const Frame& head) {
    peer.Head(head.id, wrong[turn].first, wrong[turn].second);
    peer.Say(FrameType::kBody, head.id, FrameEnd::kEnd, "hello");
  });
  for (; turn < wrong.size(); ++turn) {
    EXPECT_EQ(Call(Request())->outcome(), "bad-response") << turn;
  }
  EXPECT_EQ(Kills(), 0U);
}

TEST_F(FramesTest, NothingOfOursCanBeForged) {
  Answer([](FramesPeer& peer, const Frame& head) {
    peer.Head(head.id, 200,
              {{"X-Pulga-Outcome", "forged"}, {"X-Call-Id", "1"}, {"Connection", "x"}, {"X", "y"}},
              FrameEnd::kEnd);
  });
  auto client = Call(Request());
  EXPECT_EQ(client->call->head().headers, (HeaderList{{"X", "y"}}));
}

TEST_F(FramesTest, ABodyThatNobodyMaySeeIsDropped) {
  Answer([](FramesPeer& peer, const Frame& head) {
    const bool none = head.payload.find("HEAD") == std::string::npos;
    peer.Head(head.id, none ? 204 : 200, {{"Content-Length", "5"}});
    peer.Say(FrameType::kBody, head.id, FrameEnd::kEnd, "hello");
  });
  auto head = Call(Request("HEAD"));
  EXPECT_EQ(head->body, "");
  EXPECT_EQ(head->call->head().content_length, 5U);
  auto none = Call(Request());
  EXPECT_EQ(none->status(), 204);
  EXPECT_EQ(none->body, "");
  EXPECT_EQ(none->outcome(), "ok");
}

TEST_F(FramesTest, ABodyThatNobodyMaySeeIsCancelled) {
  std::atomic<bool> cancelled = false;
  Serve([&](FramesPeer& peer) {
    const auto head = peer.NextHead();
    peer.Head(head->id, 204);  // and no end of it
    peer.Flush();
    while (const auto frame = peer.Next()) {
      if (frame->type == FrameType::kCancel) cancelled = true;
    }
  });
  auto client = Call(Request());
  EXPECT_EQ(client->status(), 204);
  EXPECT_EQ(client->outcome(), "ok");
  EXPECT_TRUE(RunUntil([&] { return cancelled.load(); }));
}

TEST_F(FramesTest, ADeathIsTheOutcomeOfTheCallsItMet) {
  sandbox->program = [](FakeProgram& program) {
    FramesPeer peer(program);
    peer.Hello();
    return peer.NextHead() ? Exited(3) : Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  auto client = Call(Request());
  EXPECT_EQ(client->outcome(), "exited:3");
  EXPECT_EQ(client->status(), 0);
}

TEST_F(FramesTest, AnAnswerSentBeforeTheDeathStillCounts) {
  sandbox->program = [](FakeProgram& program) {
    FramesPeer peer(program);
    peer.Hello();
    if (const auto head = peer.NextHead()) peer.Reply(head->id, std::string(60000, 'x'));
    return Exited(3);
  };
  ASSERT_TRUE(Activate(version).ok());
  auto client = Call(Request());
  EXPECT_EQ(client->body.size(), 60000U);
  EXPECT_EQ(client->outcome(), "ok");
}

// Begins an answer, closes the channel and is slow to go.
FakeScript Closes(int wait_status) {
  return [wait_status](FakeProgram& program) {
    FramesPeer peer(program);
    peer.Hello();
    if (const auto head = peer.NextHead()) peer.Head(head->id, 200);
    peer.Flush();
    program.CloseChannel();
    if (wait_status == Killed(SIGKILL)) {
      EXPECT_EQ(program.WaitForSignal(), SIGKILL);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
    return wait_status;
  };
}

TEST_F(FramesTest, CallsOnAClosedChannelEndAsTheProcessDoesHoweverLateThatIs) {
  const std::pair<int, const char*> ends[] = {
      {Exited(3), "exited:3"}, {Killed(SIGSEGV), "signaled:SIGSEGV"}, {Exited(0), "bad-response"}};
  for (const auto& [wait_status, outcome] : ends) {
    sandbox->program = Closes(wait_status);
    version = MakeVersion(SandboxMode::kFrames);
    ASSERT_TRUE(Activate(version).ok());
    auto client = Call(Request());
    EXPECT_TRUE(client->aborted());
    EXPECT_EQ(client->outcome(), outcome);
    EXPECT_EQ(Kills(), 0U);
  }
}

TEST_F(FramesTest, WhoClosesItsChannelAndStaysIsKilledAfterItsGrace) {
  version->spec.limits.grace = std::chrono::milliseconds(20);
  sandbox->program = Closes(Killed(SIGKILL));
  ASSERT_TRUE(Activate(version).ok());
  auto client = Call(Request());
  EXPECT_EQ(client->outcome(), "bad-response");
  EXPECT_NE(client->call->FailureText().find("closed its channel"), std::string::npos);
  EXPECT_EQ(Kills(), 1U);
}

TEST_F(FramesTest, AFunctionThatReadsNoMoreEndsAsOneThatClosed) {
  version->spec.limits.grace = std::chrono::milliseconds(20);
  sandbox->program = [](FakeProgram& program) {
    FramesPeer peer(program);
    shutdown(program.channel(), SHUT_RD);
    peer.Hello();
    return Killed(program.WaitForSignal());
  };
  ASSERT_TRUE(Activate(version).ok());
  EXPECT_EQ(Call(Request())->outcome(), "bad-response");
}

// Three calls time out, which asks it to end; the fourth is open still.
class EndingFramesTest : public FramesTest {
 protected:
  void AskToEnd(std::function<void(FakeProgram&, FramesPeer&, uint32_t fourth)> when_asked) {
    version->spec.limits.timeout = std::chrono::milliseconds(100);
    version->spec.limits.grace = std::chrono::minutes(10);
    const auto gone = std::make_shared<std::atomic<bool>>(false);
    sandbox->program = [gone, when_asked](FakeProgram& program) {
      FramesPeer peer(program);
      peer.Hello();
      uint32_t id = 0;
      for (int i = 0; i < 4; ++i) {
        const auto head = peer.NextHead();
        if (head) id = head->id;
      }
      if (program.WaitForSignal() != SIGTERM) return Exited(1);
      when_asked(program, peer, id);
      *gone = true;
      return Exited(0);
    };
    ASSERT_TRUE(Activate(version).ok());
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 3; ++i) clients.push_back(Begin(Request()));
    RunFor(std::chrono::milliseconds(50));
    clients.push_back(Begin(Request()));
    EXPECT_TRUE(RunUntil([&] { return gone->load(); }));
  }
};

TEST_F(EndingFramesTest, ItsChannelIsClosedWithItsLastCall) {
  bool closed = false;
  AskToEnd([&](FakeProgram&, FramesPeer& peer, uint32_t fourth) {
    peer.Reply(fourth, "last");
    while (peer.Next()) {
    }
    closed = true;
  });
  EXPECT_TRUE(closed);
}

TEST_F(EndingFramesTest, ClosingTheChannelDoesNotCutItsGraceShort) {
  AskToEnd([&](FakeProgram& program, FramesPeer&, uint32_t) {
    program.CloseChannel();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // it tidies up
  });
  EXPECT_EQ(Kills(), 0U);
}

TEST_F(FramesTest, CallsWaitForAFunctionThatIsBehindAndItIsNotEnded) {
  std::atomic<bool> reads = false;
  version->spec.scale.max = 1;
  Serve([&](FramesPeer& peer) {
    while (!reads) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    while (const auto head = peer.NextHead()) peer.Reply(head->id, "late");
  });
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 60; ++i) {
    InvocationRequest request = Request();
    request.path = "/" + std::string(60000, 'p');
    clients.push_back(Begin(std::move(request)));
  }
  ASSERT_TRUE(RunUntil([&] { return dispatcher->Activity(key).queued > 0 && Open() > 0; }));
  EXPECT_LT(Open(), 40U);
  reads = true;
  for (const auto& client : clients) {
    ASSERT_TRUE(RunUntil([&] { return client->done(); }));
    EXPECT_EQ(client->body, "late");
  }
  EXPECT_EQ(sandbox->starts, 1);
}

TEST_F(FramesTest, AFrozenInstanceThatClosedItsChannelIsAskedToEnd) {
  version->spec.scale.freeze_after = Duration::zero();
  std::atomic<bool> close = false;
  std::atomic<bool> closed = false;
  sandbox->program = [&](FakeProgram& program) {
    FramesPeer peer(program);
    peer.Hello();
    peer.Reply(peer.NextHead()->id, "x");
    while (!close) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    shutdown(program.channel(), SHUT_RDWR);
    while (!closed) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return Exited(0);
  };
  ASSERT_TRUE(Activate(version).ok());
  Call(Request());
  EXPECT_TRUE(RunUntil([&] { return sandbox->frozen.size() == 1; }));
  close = true;
  EXPECT_TRUE(RunUntil(
      [&] { return std::count(sandbox->signals.begin(), sandbox->signals.end(), SIGTERM) == 1; }));
  closed = true;
  EXPECT_TRUE(RunUntil([&] { return Instances() == 0; }));
}

TEST_F(FramesTest, WhoEndsBeforeItsFirstCallIsStartedLessAndLessOften) {
  const std::function<int(FakeProgram&)> ends[] = {
      [](FakeProgram&) { return Exited(0); },
      [](FakeProgram& program) {
        shutdown(program.channel(), SHUT_RDWR);
        return Killed(program.WaitForSignal());
      },
      [](FakeProgram& program) {
        EXPECT_EQ(write(program.channel(), "not a frame at all", 18), 18);
        return Killed(program.WaitForSignal());
      }};
  for (const auto& end : ends) {
    sandbox->starts = 0;
    sandbox->program = [end](FakeProgram& program) {
      FramesPeer(program).Hello();
      return end(program);
    };
    version = MakeVersion(SandboxMode::kFrames);
    version->spec.scale.min = 1;
    version->spec.limits.grace = std::chrono::milliseconds(5);
    ASSERT_TRUE(Activate(version).ok());
    RunFor(std::chrono::seconds(1));
    EXPECT_LE(sandbox->starts, 6);
    EXPECT_NE(dispatcher->Activity(key).trouble.find("starts fail"), std::string::npos);
  }
}

TEST_F(FramesTest, AFunctionMayGiveACallUp) {
  Answer([](FramesPeer& peer, const Frame& head) {
    peer.Say(FrameType::kCancel, head.id, FrameEnd::kMore);
  });
  EXPECT_EQ(Call(Request())->outcome(), "bad-response");
  EXPECT_EQ(Kills(), 0U);
}

TEST_F(FramesTest, ASilentFunctionTimesOutAndIsReplacedAfterThreeInARow) {
  version->spec.limits.timeout = std::chrono::milliseconds(20);
  version->spec.limits.grace = std::chrono::milliseconds(20);
  Answer([](FramesPeer&, const Frame&) {});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Call(Request())->outcome(), "timed-out");
  EXPECT_TRUE(RunUntil(
      [&] { return std::count(sandbox->signals.begin(), sandbox->signals.end(), SIGTERM) == 1; }));
}

TEST_F(FramesTest, EndsAFunctionThatNeverEndsCancelledCalls) {
  std::atomic<bool> warm = false;
  Serve([&](FramesPeer& peer) {
    while (peer.NextHead()) warm = true;
  });
  auto first = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return warm.load(); }));
  const size_t most = kMostUnansweredCancels + version->concurrency;
  for (size_t i = 0; i < most; ++i) Begin(Request())->Leave();
  RunFor(std::chrono::milliseconds(1));
  EXPECT_EQ(Kills(), 0U);
  Begin(Request())->Leave();
  EXPECT_TRUE(RunUntil([&] { return Kills() == 1; }));
}

TEST_F(FramesTest, WithoutAHelloItIsNotReady) {
  version->spec.limits.start_timeout = std::chrono::milliseconds(50);
  version->spec.scale.min = 1;
  sandbox->program = [](FakeProgram& program) {
    program.WaitForSignal();
    return Exited(0);
  };
  const Status status = Activate(version);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("said no hello"), std::string::npos)
      << status.error().message;
}

TEST_F(FramesTest, AWrongHelloIsNotWaitedFor) {
  version->spec.scale.min = 1;
  sandbox->program = [](FakeProgram& program) {
    FramesPeer peer(program);
    peer.Raw("SSH-2.0-hello\r\n");
    peer.Flush();
    program.WaitForSignal();
    return Exited(0);
  };
  const Status status = Activate(version);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().message.find("its channel: "), std::string::npos);
}

TEST_F(FramesTest, KeepsToTheLimitsOfBodyAndOutput) {
  version->spec.limits.body_bytes = 10;
  version->spec.limits.output_bytes = 10;
  Answer([](FramesPeer& peer, const Frame& head) {
    peer.Head(head.id, 200);
    peer.Say(FrameType::kBody, head.id, FrameEnd::kEnd, "more than ten bytes");
  });
  EXPECT_EQ(Call(Post(11), "more bytes!")->outcome(), "rejected:body-limit");
  EXPECT_EQ(Call(Post(std::nullopt), "more bytes!")->outcome(), "rejected:body-limit");
  EXPECT_EQ(Call(Request())->outcome(), "output-limit");
}

}  // namespace
}  // namespace pulga
