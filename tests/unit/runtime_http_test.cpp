// http invocations over scripted servers on real loopback connections.
#include <signal.h>

#include <atomic>
#include <mutex>

#include "runtime/call.h"
#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using testing::Client;
using testing::Exited;
using testing::FakeConnection;
using testing::Killed;

class HttpTest : public testing::CallTest {
 protected:
  HttpTest() { version = MakeVersion(SandboxMode::kHttp); }
  void Serve(testing::FakeHandler handler) {
    sandbox->SetHandler(std::move(handler));
    ASSERT_TRUE(Activate(version).ok());
  }
  // Answers every request with these bytes, then keeps the connection.
  void Answer(std::string raw) {
    Serve([raw](FakeConnection& c) {
      while (!c.ReadRequest().empty()) c.Send(raw);
    });
  }
  std::shared_ptr<Version> version;
};

TEST_F(HttpTest, PassesASmallAnswerWhole) {
  Answer("HTTP/1.1 201 Created\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello");
  auto client = Call(Request());
  EXPECT_EQ(client->status(), 201);
  EXPECT_EQ(client->body, "hello");
  EXPECT_EQ(client->header("X-A"), "b");
  EXPECT_TRUE(client->whole);
  EXPECT_TRUE(client->call->head().final_outcome_known);
  EXPECT_EQ(client->outcome(), "ok");
  EXPECT_EQ(client->call->receipt().start, StartKind::kCold);
  EXPECT_EQ(Call(Request())->call->receipt().start, StartKind::kWarm);
}

TEST_F(HttpTest, GetsItsFirstCallOnceTheAnnotatedPathSaysThatItIsReady) {
  version->spec.annotations = {{"com.openfaas.ready.http.path", "/warm?now"}};
  std::mutex mutex;
  std::vector<std::string> asked;
  Serve([&](FakeConnection& c) {
    for (;;) {
      const std::string request = c.ReadRequest();
      if (request.empty()) return;
      const std::lock_guard<std::mutex> lock(mutex);
      asked.push_back(request.substr(0, request.find(" HTTP")));
      if (asked.size() == 1) return;  // without an answer
      if (asked.size() == 2) c.Send("HTTP/1.1 503 Not Yet\r\nContent-Length: 0\r\n\r\n");
      if (asked.size() > 2) c.Reply("x");
    }
  });
  EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_EQ(Call(Request())->body, "x");
  const std::lock_guard<std::mutex> lock(mutex);
  const std::string probe = "GET /warm?now";
  ASSERT_GE(asked.size(), 5U);  // one more for each that the server was too slow for
  for (size_t i = 0; i < asked.size(); ++i) {
    EXPECT_EQ(asked[i], i + 2 < asked.size() ? probe : "GET /");
  }
}

TEST_F(HttpTest, OneThatNeverSaysItIsReadyIsNotReady) {
  version->spec.annotations = {{"com.openfaas.ready.http.path", "/never"}};
  version->spec.limits.start_timeout = std::chrono::milliseconds(300);
  Answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(Call(Request())->outcome(), "not-ready");
}

// What a function of OpenFaaS without the annotation is asked, and what its server says to that.
class HealthTest : public HttpTest {
 protected:
  HealthTest() { version->spec.openfaas.emplace(); }
  using OnHealth = std::function<bool(FakeConnection&, int number)>;  // false: closes
  void ServeHealth(OnHealth on_health) {
    Serve([this, on_health = std::move(on_health)](FakeConnection& c) {
      for (;;) {
        const std::string request = c.ReadRequest();
        if (request.empty()) return;
        if (request.starts_with("GET /_/health HTTP/1.1\r\n")) {
          if (!on_health(c, ++asked)) return;
        } else {
          c.Reply("x");
        }
      }
    });
  }
  std::atomic<int> asked = 0;
};

TEST_F(HealthTest, AWatchdogIsReadyOnceItNoMoreSays503) {
  ServeHealth([](FakeConnection& c, int number) {
    c.Send(number < 4 ? "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
                      : "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK");
    return true;
  });
  EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_GE(asked, 4);
  const int before = asked;
  EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_EQ(asked, before) << "a warm one is not asked";
}

TEST_F(HealthTest, AServerThatKnowsNoSuchPathIsReady) {
  ServeHealth([](FakeConnection& c, int) {
    c.Send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
    return true;
  });
  EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_EQ(asked, 1);
}

TEST_F(HealthTest, AServerThatClosesIsReady) {
  ServeHealth([](FakeConnection&, int) { return false; });
  EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_EQ(asked, 1);
}

TEST_F(HealthTest, AServerWithoutAnAnswerIsReady) {
  ServeHealth([](FakeConnection&, int) { return true; });
  EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_EQ(asked, 1);
}

TEST_F(HealthTest, AnEternal503IsNotHeededForEver) {
  version->spec.limits.start_timeout = std::chrono::seconds(2);
  ServeHealth([](FakeConnection& c, int) {
    c.Send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    return true;
  });
  EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_GE(asked, 2);
}

TEST_F(HealthTest, AServerOfOneConnectionAtATimeIsAskedOnThatOne) {
  std::mutex one;
  Serve([&](FakeConnection& c) {
    const std::lock_guard<std::mutex> lock(one);
    const std::string request = c.ReadRequest();
    ++asked;
    if (!request.empty())
      c.Send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
  });
  EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_EQ(asked, 2);
}

TEST_F(HttpTest, CarriesTheBytesOfTheProtocolAskedFor) {
  std::string seen;
  Serve([&](FakeConnection& c) {
    seen = c.ReadRequest();
    c.Send("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\nX-A: b\r\n\r\nfirst,");
    char bytes[64];
    for (size_t n = 1; n > 0;) {
      n = c.ReadSome(bytes, sizeof bytes);
      c.Send({bytes, n});
    }
  });
  InvocationRequest request = Request();
  request.upgrade = "websocket";
  auto client = Begin(std::move(request));
  ASSERT_TRUE(RunUntil([&] { return client->body == "first,"; }));
  EXPECT_NE(seen.find("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"), std::string::npos);
  EXPECT_EQ(client->status(), 101);
  EXPECT_EQ(client->call->head().upgrade, "WebSocket");
  EXPECT_EQ(client->header("X-A"), "b");
  client->Send("then, ");
  ASSERT_TRUE(RunUntil([&] { return client->body == "first,then, "; }));
  EXPECT_FALSE(client->done());
  client->EndBody();
  ASSERT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->outcome(), "ok");
  EXPECT_FALSE(client->contract_broken);
  EXPECT_FALSE(dynamic_cast<class pulga::Call&>(*client->call).ShowsLatency());
}

TEST_F(HttpTest, SwitchesToNothingThatWasNotAskedFor) {
  Answer("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n");
  EXPECT_EQ(Call(Request())->outcome(), "bad-response");
  InvocationRequest request = Request();
  request.upgrade = "websocket";
  EXPECT_EQ(Call(std::move(request))->outcome(), "bad-response");
}

TEST_F(HttpTest, EndsASwitchedConnectionThatIsSilent) {
  version->spec.limits.timeout = std::chrono::milliseconds(200);
  Serve([](FakeConnection& c) {
    c.ReadRequest();
    c.Send("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    c.ReadHead();
  });
  InvocationRequest request = Request();
  request.upgrade = "x";
  auto client = Begin(std::move(request));
  ASSERT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->status(), 101);
  EXPECT_TRUE(client->aborted());
  EXPECT_EQ(client->outcome(), "timed-out");
  EXPECT_EQ(Instances(), 1U) << "it is not the server's fault";
}

TEST_F(HttpTest, HoldsASmallAnswerThatComesInPieces) {
  Serve([](FakeConnection& c) {
    c.ReadRequest();
    for (const char byte : std::string("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")) {
      c.Send(std::string(1, byte));
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    c.ReadHead();
  });
  auto client = Call(Request());
  EXPECT_EQ(client->body, "abc");
  EXPECT_TRUE(client->whole);
}

TEST_F(HttpTest, KeepsConnectionsAlive) {
  std::atomic<int> connections = 0;
  Serve([&](FakeConnection& c) {
    ++connections;
    while (!c.ReadRequest().empty()) c.Reply("x");
  });
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_EQ(connections, 1) << "the one that found the server ready serves them all";
}

TEST_F(HttpTest, SendsTheRequestWithRebuiltHeaders) {
  std::string seen;
  Serve([&](FakeConnection& c) {
    seen = c.ReadRequest();
    c.Reply("");
  });
  InvocationRequest request = Post(4);
  request.path = "/a%20b";
  request.query = "q=1";
  request.headers = {
      {"Host", "board:8080"}, {"X-Call-Id", "theirs"}, {"Content-Length", "9"}, {"bad name", "x"}};
  Call(std::move(request), "body");
  EXPECT_EQ(seen.rfind("POST /a%20b?q=1 HTTP/1.1\r\nHost: board:8080\r\n", 0), 0U) << seen;
  EXPECT_NE(seen.find("X-Call-Id: theirs\r\n"), std::string::npos);
  EXPECT_NE(seen.find("X-Forwarded-Host: board:8080\r\n"), std::string::npos);
  EXPECT_NE(seen.find("X-Forwarded-For: 192.0.2.1:5\r\n"), std::string::npos);
  EXPECT_NE(seen.find("X-Start-Time: "), std::string::npos);
  EXPECT_NE(seen.find("Content-Length: 4\r\n"), std::string::npos);
  EXPECT_EQ(seen.find("Content-Length: 9"), std::string::npos);
  EXPECT_EQ(seen.find("bad name"), std::string::npos);
  EXPECT_EQ(seen.substr(seen.size() - 4), "body");
}

TEST_F(HttpTest, StreamsLargeBodiesBothWaysInBothFramings) {
  Serve([](FakeConnection& c) {
    for (;;) {
      const std::string request = c.ReadRequest();
      if (request.empty()) return;
      const std::string body = request.substr(request.find("\r\n\r\n") + 4);
      if (request.find("chunked") == std::string::npos) {
        c.Reply(body);
        continue;
      }
      c.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      for (size_t at = 0; at < body.size(); at += 9999) {
        const std::string part = body.substr(at, 9999);
        char size[24];
        snprintf(size, sizeof size, "%zX;x=y\r\n", part.size());
        c.Send(size + part + "\r\n");
      }
      c.Send("0\r\nTrailer: t\r\n\r\n");
    }
  });
  std::string body;
  for (int i = 0; i < 1000000; ++i) body += static_cast<char>('a' + i % 23);
  auto with_length = Call(Post(body.size()), body);
  EXPECT_EQ(with_length->call->head().content_length, body.size());
  EXPECT_TRUE(with_length->body == body);
  auto chunked = Call(Post(std::nullopt), body);
  EXPECT_FALSE(chunked->call->head().content_length);
  EXPECT_TRUE(chunked->body == body);
  EXPECT_EQ(chunked->outcome(), "ok");
}

TEST_F(HttpTest, PassesAnAnswerThatBeginsBeforeTheRequestHasEnded) {
  Serve([](FakeConnection& c) {
    c.ReadHead();
    c.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    char buffer[100];
    for (std::string seen; seen.find("0\r\n\r\n") == std::string::npos;) {
      const size_t n = c.ReadSome(buffer, sizeof buffer);
      if (n == 0) return;
      seen.append(buffer, n);
      char size[24];
      snprintf(size, sizeof size, "%zx\r\n", n);
      c.Send(size + std::string(buffer, n) + "\r\n");
    }
    c.Send("0\r\n\r\n");
    c.ReadHead();
  });
  Client client;
  client.Start(*dispatcher, Post(std::nullopt));
  client.Send("first");
  EXPECT_TRUE(RunUntil([&] { return client.body.find("first") != std::string::npos; }));
  EXPECT_FALSE(client.done());
  client.Send("second");
  client.EndBody();
  EXPECT_TRUE(RunUntil([&] { return client.done(); }));
  EXPECT_NE(client.body.find("second"), std::string::npos);
  EXPECT_EQ(client.outcome(), "ok");
}

TEST_F(HttpTest, HoldsBackAServerWhoseReaderIsSlow) {
  std::atomic<size_t> produced = 0;
  Serve([&](FakeConnection& c) {
    c.ReadRequest();
    c.Send("HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n");
    while (produced < (64U << 20) && c.Send(std::string(1 << 16, 'x'))) produced += 1 << 16;
    c.ReadHead();
  });
  auto client = std::make_unique<Client>();
  client->reading = Client::Reading::kPaused;
  client->Start(*dispatcher, Request());
  ASSERT_TRUE(RunUntil([&] { return client->head_seen; }));
  RunFor(std::chrono::milliseconds(50));
  EXPECT_LT(produced, 32U << 20) << "the kernel's buffers and no more";
  client->Resume();
  EXPECT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->body.size(), 64U << 20);
}

TEST_F(HttpTest, TakesAnEarlyAnswerAndDropsTheRestOfTheBody) {
  Serve([](FakeConnection& c) {
    c.ReadHead();
    c.Send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    char buffer[65536];
    while (c.ReadSome(buffer, sizeof buffer) > 0) {
    }
  });
  auto client = Call(Post(100 << 20), std::string(100 << 20, 'b'));
  EXPECT_EQ(client->status(), 413);
  EXPECT_EQ(client->body, "no");
}

TEST_F(HttpTest, ReadsABodyThatEndsWithTheConnection) {
  Serve([](FakeConnection& c) {
    c.ReadRequest();
    c.Send("HTTP/1.0 200 OK\r\n\r\nuntil the end");
  });
  auto client = Call(Request());
  EXPECT_EQ(client->body, "until the end");
  EXPECT_EQ(client->outcome(), "ok");
}

TEST_F(HttpTest, GivesNoBodyToHeadAnd204And304) {
  Answer("HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n");
  auto head = Call(Request("HEAD"));
  EXPECT_EQ(head->call->head().content_length, 77U);
  EXPECT_EQ(head->body, "");
  sandbox->KillSpawners("next");
  Answer("HTTP/1.1 304 Not Modified\r\n\r\n");
  EXPECT_EQ(Call(Request())->call->head().content_length, std::nullopt) << "it told none";
  for (const char* status : {"204 No Content", "304 Not Modified"}) {
    sandbox->KillSpawners("next");
    Answer(std::string("HTTP/1.1 ") + status + "\r\nContent-Length: 5\r\n\r\n");
    auto client = Call(Request());
    EXPECT_EQ(client->body, "");
    EXPECT_EQ(client->outcome(), "ok");
  }
}

TEST_F(HttpTest, SkipsInterimAnswers) {
  Answer(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz");
  auto client = Call(Request());
  EXPECT_EQ(client->status(), 200);
  EXPECT_EQ(client->body, "z");
  EXPECT_EQ(client->header("Link"), "(none)");
}

TEST_F(HttpTest, DropsAConnectionThatSaysMoreThanItsAnswer) {
  Answer(
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nzHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
      "forged");
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Call(Request())->body, "z");
}

TEST_F(HttpTest, CallsMalformedAnswersBad) {
  for (const char* raw : {"nonsense\r\n\r\n", "HTTP/1.1 99 No\r\n\r\n", "HTTP/1.1 1000 No\r\n\r\n",
                          "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
                          "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n"
                          "\r\n1\r\na\r\n0\r\n\r\n",
                          "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
                          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
    Answer(raw);
    version = MakeVersion(SandboxMode::kHttp);
    auto client = Call(Request());
    EXPECT_EQ(client->outcome(), "bad-response") << raw;
    EXPECT_EQ(client->status(), 0) << raw;
  }
}

TEST_F(HttpTest, CallsALostConnectionBadAndKeepsTheInstance) {
  std::atomic<int> calls = 0;
  Serve([&](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      if (++calls == 2) return;
      c.Reply("x");
    }
  });
  Call(Request());
  EXPECT_EQ(Call(Request("POST"))->outcome(), "bad-response");
  EXPECT_EQ(Call(Request())->body, "x");
  EXPECT_EQ(sandbox->starts, 1);
}

TEST_F(HttpTest, AbortsAnAnswerThatBreaksOff) {
  Serve([](FakeConnection& c) {
    c.ReadRequest();
    c.Send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + std::string(50000, 'x'));
  });
  auto client = Call(Request());
  EXPECT_EQ(client->status(), 200);
  EXPECT_TRUE(client->aborted());
  EXPECT_EQ(client->outcome(), "bad-response");
}

TEST_F(HttpTest, RepeatsARequestOnceWhenAReusedConnectionWasDead) {
  std::atomic<int> requests = 0;
  Serve([&](FakeConnection& c) {
    if (c.ReadRequest().empty()) return;
    ++requests;
    c.Reply("first");
    if (!c.ReadRequest().empty()) ++requests;  // the second one on this connection is lost
  });
  EXPECT_EQ(Call(Request())->body, "first");
  EXPECT_EQ(Call(Request())->body, "first");
  EXPECT_EQ(requests, 3);
}

TEST_F(HttpTest, DoesNotRepeatWhatMayNotBeRepeated) {
  std::atomic<int> requests = 0;
  Serve([&](FakeConnection& c) {
    if (c.ReadRequest().empty()) return;
    ++requests;
    c.Reply("first");
    if (!c.ReadRequest().empty()) ++requests;
  });
  EXPECT_EQ(Call(Request())->body, "first");
  EXPECT_EQ(Call(Request("POST"))->outcome(), "bad-response");
  EXPECT_EQ(requests, 2);
}

constexpr const char* kColdWatchdog =
    "HTTP/1.1 500 Error\r\nX-OpenFaaS-Internal: of-watchdog\r\nContent-Length: 0\r\n\r\n";

TEST_F(HttpTest, AWatchdogWhoseServerIsNotThereYetGetsTheWholeRequestAgain) {
  std::atomic<int> requests = 0;
  std::string seen;
  for (const auto& size : {std::optional<uint64_t>(4), std::optional<uint64_t>()}) {
    requests = 0;
    version = MakeVersion(SandboxMode::kHttp);
    Serve([&](FakeConnection& c) {
      for (std::string got = c.ReadRequest(); !got.empty(); got = c.ReadRequest()) {
        if (++requests < 4) {
          c.Send(kColdWatchdog);
        } else {
          seen = got;
          c.Reply("warm");
        }
      }
    });
    auto client = Call(Post(size), "body");
    EXPECT_EQ(client->status(), 200);
    EXPECT_EQ(client->body, "warm");
    EXPECT_EQ(seen.substr(seen.size() - 4), "body");
    EXPECT_EQ(requests, 4);
  }
}

TEST_F(HttpTest, AWatchdogThatHasAnsweredOnceMeansItsErrors) {
  std::atomic<int> requests = 0;
  Serve([&](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      if (++requests == 1) {
        c.Reply("warm");
      } else {
        c.Send(kColdWatchdog);
      }
    }
  });
  EXPECT_EQ(Call(Request())->body, "warm");
  EXPECT_EQ(Call(Request())->status(), 500);
  EXPECT_EQ(requests, 2);
}

TEST_F(HttpTest, OneWhoLeavesAColdWatchdogTakesNobodysPatience) {
  std::atomic<int> requests = 0;
  Serve([&](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      const int request = ++requests;
      if (request == 1) return void(c.ReadHead());  // until its caller has left
      if (request < 4) {
        c.Send(kColdWatchdog);
      } else {
        c.Reply("warm");
      }
    }
  });
  auto leaver = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return requests.load() == 1; }));
  leaver->Leave();
  EXPECT_EQ(Call(Request())->body, "warm");
}

TEST_F(HttpTest, ABodyThatIsNotKeptTakesNobodysPatience) {
  std::atomic<int> requests = 0;
  Serve([&](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      if (++requests < 3) {
        c.Send(kColdWatchdog);
      } else {
        c.Reply("warm");
      }
    }
  });
  const std::string body(100 * 1024, 'x');
  EXPECT_EQ(Call(Post(body.size()), body)->status(), 500);
  EXPECT_EQ(Call(Request())->body, "warm");
}

TEST_F(HttpTest, AColdWatchdogIsAskedNoLongerThanAStartMayTake) {
  std::atomic<int> requests = 0;
  Serve([&](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      if (++requests == 1) return void(c.ReadHead());  // until its caller has left
      c.Send(kColdWatchdog);
    }
  });
  auto leaver = Begin(Request());
  ASSERT_TRUE(RunUntil([&] { return requests.load() == 1; }));
  leaver->Leave();
  RunFor(std::chrono::milliseconds(2));
  version->spec.limits.start_timeout = std::chrono::milliseconds(1);  // it has listened for longer
  EXPECT_EQ(Call(Request())->status(), 500);
  EXPECT_EQ(requests, 2);
}

TEST_F(HttpTest, ABodyThatIsNotKeptIsNotSentAgain) {
  std::atomic<int> requests = 0;
  Serve([&](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      ++requests;
      c.Send(kColdWatchdog);
    }
  });
  const std::string body(100 * 1024, 'x');
  EXPECT_EQ(Call(Post(body.size()), body)->status(), 500);
  EXPECT_EQ(requests, 1);
}

TEST_F(HttpTest, AnIdleWatchdogIsKilledAtOnce) {
  version->argv = {"/usr/bin/fwatchdog"};
  Answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(Call(Request())->status(), 200);
  bool gone = false;
  dispatcher->Deactivate(version->key, [&gone] { gone = true; });
  RunUntil([&gone] { return gone; });
  EXPECT_EQ(sandbox->signals, std::vector<int>{SIGKILL});
}

TEST_F(HttpTest, TimesOutAndReplacesTheInstanceAfterThreeInARow) {
  version->spec.limits.timeout = std::chrono::milliseconds(30);
  Serve([](FakeConnection& c) {
    c.ReadRequest();
    c.ReadHead();
  });
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Call(Request())->outcome(), "timed-out");
  EXPECT_EQ(sandbox->starts, 1);
  EXPECT_TRUE(sandbox->signals.empty());
  EXPECT_EQ(Call(Request())->outcome(), "timed-out");
  EXPECT_EQ(sandbox->signals, std::vector<int>{SIGTERM});
  Call(Request());
  EXPECT_EQ(sandbox->starts, 2);
}

TEST_F(HttpTest, ClosesTheConnectionWhenTheClientLeavesAndKeepsTheInstance) {
  std::atomic<bool> closed = false;
  Serve([&](FakeConnection& c) {
    c.ReadRequest();
    c.ReadHead();
    closed = true;
  });
  auto client = Begin(Request());
  RunFor(std::chrono::milliseconds(20));
  client->Leave();
  EXPECT_TRUE(RunUntil([&] { return closed.load(); }));
  EXPECT_EQ(Count("cancelled"), 1U);
  EXPECT_EQ(LogText(), "pulga: before its reply had begun, the call ended with cancelled\n");
  EXPECT_EQ(Instances(), 1U);
}

TEST_F(HttpTest, DoesNotBlameTheServerForALostSpawner) {
  std::atomic<bool> asked = false;
  Serve([&](FakeConnection& c) {
    c.ReadRequest();
    asked = true;
    c.ReadHead();
  });
  InvocationRequest request = Request("POST");
  request.has_body = true;
  auto client = Begin(std::move(request));
  client->Send("x");
  client->EndBody();
  ASSERT_TRUE(RunUntil([&] { return asked.load(); }));
  sandbox->KillSpawners("killed by a test");
  ASSERT_TRUE(RunUntil([&] { return client->done(); }));
  EXPECT_EQ(client->outcome(), "setup-failed:spawner-lost");
  EXPECT_LT(client->call->receipt().exec_ms, 0);
}

TEST_F(HttpTest, TellsHowTheInstanceDiedUnderARequest) {
  Serve([](FakeConnection& c) {
    c.ReadRequest();
    c.ReadHead();
  });
  for (const auto& [oom, outcome] : {std::pair(true, "oom-killed"), {false, "signaled:SIGABRT"}}) {
    auto client = Begin(Request());
    ASSERT_TRUE(RunUntil([&] { return Instances() == 1 && sandbox->live == 1; }));
    RunFor(std::chrono::milliseconds(150));  // past a back-off
    sandbox->oom = oom;
    sandbox->KillInstance(0, Killed(SIGABRT));
    ASSERT_TRUE(RunUntil([&] { return client->done(); }));
    EXPECT_EQ(client->outcome(), outcome);
    RunFor(std::chrono::milliseconds(250));
  }
}

TEST_F(HttpTest, WaitsUntilTheServerListens) {
  sandbox->listen_delay = std::chrono::milliseconds(60);
  ASSERT_TRUE(Activate(version).ok());
  auto client = Call(Request());
  EXPECT_EQ(client->body, "hello");
  EXPECT_GE(client->call->receipt().ready_ms, 55);
}

TEST_F(HttpTest, SaysNotReadyWhenItNeverListens) {
  sandbox->listen_delay = Duration(-1);
  version->spec.limits.start_timeout = std::chrono::milliseconds(60);
  ASSERT_TRUE(Activate(version).ok());
  auto client = Call(Request());
  EXPECT_EQ(client->outcome(), "not-ready");
  EXPECT_GE(client->call->head().retry_after_s, 1U);
  const std::string text = client->call->FailureText();
  EXPECT_NE(text.find("runs, but did not listen on port "), std::string::npos) << text;
  EXPECT_EQ(StartKindName(client->call->receipt().start), "none");
  EXPECT_GE(client->call->receipt().queue_ms, 55);
}

TEST_F(HttpTest, TellsAServerThatEndedWellFromOneThatNeverListens) {
  sandbox->server_exit = Exited(0);
  ASSERT_TRUE(Activate(version).ok());
  auto client = Call(Request());
  EXPECT_EQ(client->outcome(), "not-ready");
  const std::string text = client->call->FailureText();
  EXPECT_EQ(text.find("the function exited with code 0 before it listened on port "), 0U) << text;
  EXPECT_NE(text.find("`pulga logs "), std::string::npos) << text;
  EXPECT_EQ(text.find("start_timeout"), std::string::npos) << text;
}

TEST_F(HttpTest, TellsAtOnceHowAServerEndedBeforeItListened) {
  sandbox->server_exit = Exited(2);
  ASSERT_TRUE(Activate(version).ok());
  auto client = Call(Request());
  EXPECT_EQ(client->outcome(), "exited:2");
  EXPECT_NE(client->call->FailureText().find("cannot bind"), std::string::npos);
  EXPECT_NE(LogText().find("stderr: cannot bind"), std::string::npos);
}

TEST_F(HttpTest, BacksOffFromACrashLoopWhileCallsGetTheRealOutcome) {
  sandbox->server_exit = Exited(2);
  ASSERT_TRUE(Activate(version).ok());
  for (int i = 0; i < 200; ++i) EXPECT_EQ(Call(Request())->outcome(), "exited:2");
  EXPECT_LE(sandbox->starts, 4);
  EXPECT_NE(dispatcher->Activity(key).trouble.find("starts fail"), std::string::npos);
}

TEST_F(HttpTest, BacksOffFromAServerThatListensAndEndsBeforeItsFirstCall) {
  version->spec.scale.min = 1;
  ASSERT_TRUE(Activate(version).ok());
  int killed = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  while (std::chrono::steady_clock::now() < end) {
    RunFor(std::chrono::milliseconds(5));
    for (const auto& instance : dispatcher->Activity(key).instances) {
      if (instance.step != "warm") continue;
      sandbox->KillInstance(instance.slot, Killed(SIGSEGV));
      ++killed;
    }
  }
  EXPECT_GE(killed, 2);
  EXPECT_LE(killed, 6);
  EXPECT_NE(dispatcher->Activity(key).trouble.find("starts fail"), std::string::npos);
}

TEST_F(HttpTest, SharesOneStartAmongManyCalls) {
  sandbox->listen_delay = std::chrono::milliseconds(30);
  ASSERT_TRUE(Activate(version).ok());
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 90; ++i) clients.push_back(Begin(Request()));
  for (auto& client : clients) {
    ASSERT_TRUE(RunUntil([&] { return client->done(); }));
    EXPECT_EQ(client->body, "hello");
  }
  EXPECT_EQ(sandbox->starts, 1);
  EXPECT_EQ(sandbox->builds, 1);
}

TEST_F(HttpTest, StartsMoreInstancesWhenTheFirstAreFull) {
  version->concurrency = 1;
  version->spec.scale.max = 3;
  std::atomic<bool> go = false;
  Serve([&](FakeConnection& c) {
    while (!c.ReadRequest().empty()) {
      while (!go) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      c.Reply("x");
    }
  });
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(Begin(Request()));
  EXPECT_TRUE(RunUntil([&] { return sandbox->starts == 3; }));
  RunFor(std::chrono::milliseconds(20));
  EXPECT_EQ(sandbox->starts, 3);
  EXPECT_EQ(dispatcher->Activity(key).queued, 2U);
  go = true;
  for (auto& client : clients) ASSERT_TRUE(RunUntil([&] { return client->done(); }));
}

}  // namespace
}  // namespace pulga
