// The HTTP server against hostile and awkward clients, over a real loopback connection.
#include <filesystem>
#include <iterator>
#include <list>

#include "api/handlers.h"
#include "api/http_server.h"
#include "tests/support/loopback.h"

namespace pulga::testing {
namespace {

using std::chrono::milliseconds;
class HttpServerTest : public Loopback {};

constexpr char kPost[] = "POST /function/echo HTTP/1.1\r\nHost: x\r\n";

TEST_F(HttpServerTest, AnswersAndKeepsTheConnection) {
  Start();
  RawClient client = Connect();
  for (int i = 0; i < 3; ++i) {
    client.Send(std::string(kPost) + "Content-Length: 2\r\n\r\nhi");
    const std::string reply = client.ReadUntil("\r\n\r\nhi");
    EXPECT_EQ(StatusOf(reply), 200) << reply;
    EXPECT_EQ(BodyOf(reply), "hi");
  }
}

TEST_F(HttpServerTest, ServesPipelinedRequestsInOrder) {
  Start();
  RawClient client = Connect();
  std::string all;
  for (int i = 0; i < 40; ++i) {
    const std::string body = "<" + std::to_string(i) + ">";
    all +=
        std::string(kPost) + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  client.Send(all);
  const std::string replies = client.ReadUntil("<39>");
  size_t at = 0;
  for (int i = 0; i < 40; ++i) {
    at = replies.find("<" + std::to_string(i) + ">", at);
    ASSERT_NE(at, std::string::npos) << i;
  }
}

TEST_F(HttpServerTest, RefusesAmbiguousFramingAndCloses) {
  Start();
  const std::string smuggled = "GET /function/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string heads[] = {
      "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
      "Content-Length: 0\r\nContent-Length: 40\r\n\r\n",
      "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
      "Content-Length: +0\r\n\r\n",
      "Content-Length: 0, 0\r\n\r\n",
      "Content-Length : 0\r\n\r\n",
      "Transfer-Encoding: xchunked\r\n\r\n",
      "Transfer-Encoding: chunked, identity\r\n\r\n",
      "Transfer-Encoding: \x0b"
      "chunked\r\n\r\n",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "X: a\rb\r\n\r\n",
      "X: a\r\n b\r\n\r\n",
      "X: a\n\r\n",
      std::string("X: a\0b\r\n\r\n", 10),
      std::string("Transfer-Encoding: chunked\0\r\n\r\n", 31),
      "Host: y\r\n\r\n",
  };
  for (const std::string& head : heads) {
    RawClient client = Connect();
    client.Send(kPost + head + smuggled);
    const std::string reply = client.ReadAll();
    EXPECT_GE(StatusOf(reply), 400) << head << reply;
    EXPECT_EQ(reply.find("HTTP/1.1", 1), std::string::npos) << "answered twice: " << head << reply;
  }
  EXPECT_EQ(OnLoop([this] { return engine_->calls.size(); }), 0U);
}

TEST_F(HttpServerTest, RefusesOddTargetsAndMethods) {
  Start();
  const std::string lines[] = {
      "GET http://x/function/echo HTTP/1.1", "GET * HTTP/1.1",       "GET /a\x80 HTTP/1.1",
      "TRACE /function/echo HTTP/1.1",       "CONNECT x:1 HTTP/1.1", "GE(T / HTTP/1.1"};
  for (const std::string& line : lines) {
    const int status = StatusOf(Ask(line + "\r\nHost: x\r\n"));
    EXPECT_TRUE(status == 400 || status == 405) << line << " " << status;
  }
  EXPECT_EQ(StatusOf(Ask("GET /healthz HTTP/1.1\r\n")), 400) << "no Host";
  EXPECT_EQ(StatusOf(Ask("GET /healthz HTTP/1.0\r\n")), 200);
  EXPECT_NE(StatusOf(Ask("GET /healthz HTTP/3.0\r\nHost: x\r\n")), 200);
  EXPECT_EQ(OnLoop([this] { return engine_->calls.size(); }), 0U);
}

TEST_F(HttpServerTest, ClosesWithoutAWordOnWhatIsNoRequestLine) {
  Start();
  for (const char* line : {"GARBAGE\r\n", "GET\r\n\r\n", " GET / HTTP/1.1\r\nHost: x\r\n\r\n"}) {
    RawClient client = Connect();
    client.Send(line);
    EXPECT_TRUE(client.ClosedWithin(milliseconds(3000))) << line;
  }
  EXPECT_EQ(StatusOf(Call("GET /healthz")), 200);
}

TEST_F(HttpServerTest, AnswersHugeHeadsWith4xx) {
  Start();
  const int uri = StatusOf(Ask("GET /" + std::string(64 << 10, 'a') + " HTTP/1.1\r\nHost: x\r\n"));
  EXPECT_TRUE(uri == 414 || uri == 431) << uri;
  EXPECT_EQ(StatusOf(Ask("GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(1 << 20, 'a') + "\r\n")),
            431);
}

// What runs is answered, however large the heads of request and reply are together.
TEST_F(HttpServerTest, AnswersWhatRanHoweverLargeTheHeadsAre) {
  Start();
  for (size_t size = 500; size < 40000; size += 1900) {
    for (const bool in_one : {true, false}) {
      std::string head = "Host: x\r\n";
      if (in_one) head += "Cookie: " + std::string(size, 'c') + "\r\n";
      while (head.size() < size) head += "A: b\r\n";
      for (const char* name : {"talkative", "stream"}) {
        const size_t ran = OnLoop([this] { return engine_->calls.size(); });
        const std::string reply =
            Ask("GET /function/" + std::string(name) + " HTTP/1.1\r\n" + head);
        const bool has_run = OnLoop([this] { return engine_->calls.size(); }) > ran;
        ASSERT_EQ(StatusOf(reply), has_run ? 200 : 431) << name << size << reply.substr(0, 200);
        ASSERT_TRUE(has_run || size > (in_one ? 15000 : 2000)) << size;
        if (has_run) {
          ASSERT_NE(BodyOf(reply), "") << name << size;
        }
      }
    }
  }
}

TEST_F(HttpServerTest, TakesChunkedBodiesWithExtensionsAndTrailers) {
  Start();
  RawClient client = Connect();
  client.Send(std::string(kPost) +
              "Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n");
  EXPECT_EQ(BodyOf(client.ReadUntil("abcde")), "abcde");
}

TEST_F(HttpServerTest, RefusesBrokenChunks) {
  Start();
  for (const char* chunk : {"ffffffffffffffffff\r\n", "-1\r\n", "0x10\r\n", "zz\r\n"}) {
    RawClient client = Connect();
    client.Send(std::string(kPost) + "Transfer-Encoding: chunked\r\n\r\n" + chunk +
                "aaaa\r\n0\r\n\r\n");
    const int status = StatusOf(client.ReadAll());
    EXPECT_TRUE(status == 400 || status == 413) << chunk << status;
  }
}

TEST_F(HttpServerTest, SendsContinueOnlyWhenTheBodyIsWanted) {
  Start();
  RawClient client = Connect();
  client.Send(std::string(kPost) + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_NE(client.ReadUntil("\r\n\r\n").find("100 Continue"), std::string::npos);
  client.Send("hi");
  EXPECT_EQ(StatusOf(client.ReadUntil("hi")), 200);
  RawClient refused = Connect();
  refused.Send(
      "POST /function/full HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
      "900000\r\n\r\n");
  const std::string reply = refused.ReadAll();
  EXPECT_EQ(StatusOf(reply), 429) << reply;
  EXPECT_EQ(reply.find("100 Continue"), std::string::npos);
}

TEST_F(HttpServerTest, RefusesALargeBodyBeforeReadingIt) {
  Start();
  RawClient client = Connect();
  client.Send(
      "POST /function/full HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\nfirst bytes");
  const std::string reply = client.ReadUntil("\r\n\r\n");
  EXPECT_EQ(StatusOf(reply), 429) << reply;
  EXPECT_NE(reply.find("Retry-After:"), std::string::npos);
  EXPECT_TRUE(client.ClosedWithin(milliseconds(3000)));
}

TEST_F(HttpServerTest, RefusesInTheMiddleOfAnEndlessBody) {
  Start();
  OnLoop([this] { return engine_->upload_limit = 1 << 20; });
  RawClient client = Connect();
  client.Send(
      "POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n"
      "Transfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "10000\r\n" + std::string(0x10000, 'a') + "\r\n";
  for (int i = 0; i < 64; ++i) client.Send(chunk);
  EXPECT_EQ(StatusOf(client.ReadUntil("\r\n\r\n")), 413);
  EXPECT_TRUE(client.ClosedWithin(milliseconds(4000)));
  EXPECT_TRUE(Eventually([this] { return engine_->upload_abandoned; }));
}

TEST_F(HttpServerTest, HeadRepliesHaveNoBody) {
  Start();
  RawClient client = Connect();
  client.Send("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string replies = client.ReadUntil("OK\n");
  EXPECT_NE(replies.find("Content-Length: 3"), std::string::npos);
  EXPECT_EQ(replies.find("OK\n"), replies.rfind("OK\n"));
}

TEST_F(HttpServerTest, HeadRepliesWithoutALengthHaveNoChunksEither) {
  Start();
  const std::string next = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
  const std::string key = "Host: x\r\nAuthorization: Bearer sesame\r\n";
  for (const std::string& head :
       {std::string("HEAD /function/stream HTTP/1.1\r\nHost: x\r\n"),
        std::string("HEAD /function/stream HTTP/1.0\r\nConnection: keep-alive\r\n"),
        "HEAD /function/stream HTTP/1.1\r\nContent-Length: 2\r\n" + key,
        "HEAD /v1/functions/f/logs HTTP/1.1\r\n" + key}) {
    RawClient client = Connect();
    OnLoop([this] { return engine_->functions["f"], 0; });
    client.Send(head + "\r\n" + (head.find("Length") != std::string::npos ? "hi" : "") + next);
    const std::string reply = client.ReadAll();
    EXPECT_EQ(StatusOf(reply), 200) << head << reply;
    EXPECT_EQ(BodyOf(reply), "") << head << reply;
    EXPECT_NE(reply.find("Connection: close\r\n"), std::string::npos) << head << reply;
    EXPECT_EQ(reply.find("Content-Length"), std::string::npos) << head << reply;
    EXPECT_EQ(reply.find("Transfer-Encoding: chunked\r\n") != std::string::npos,
              head.find("/1.1") != std::string::npos)
        << head << reply;
  }
  EXPECT_TRUE(Eventually([this] { return front_->open_requests() == 0; }));
}

size_t HeadsIn(const std::string& bytes) {
  size_t count = 0;
  for (size_t at = 0; (at = bytes.find("HTTP/1.1", at)) != std::string::npos; ++at) ++count;
  return count;
}

TEST_F(HttpServerTest, AnswersEachErrorThatEndsTheConnectionOnce) {
  Start();
  const std::pair<std::string, int> cases[] = {
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {std::string(kPost) + "Content-Length: x\r\n\r\n", 400},
      {std::string(kPost) + "Content-Length: 99999999999999999999\r\n\r\n", 413},
      {std::string(kPost) + "Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400},
      {"GET /" + std::string(64 << 10, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n", 414},
      {"GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(1 << 20, 'a') + "\r\n\r\n", 431},
  };
  for (const auto& [request, status] : cases) {
    RawClient client = Connect();
    client.Send(request);
    const std::string reply = client.ReadAll();
    EXPECT_EQ(StatusOf(reply), status) << request.substr(0, 100) << reply;
    EXPECT_EQ(HeadsIn(reply), 1U) << request.substr(0, 100) << reply;
    EXPECT_EQ(reply.find("<html"), std::string::npos) << reply;
    EXPECT_NE(reply.find("Connection: close"), std::string::npos) << reply;
  }
}

TEST_F(HttpServerTest, TellsASlowClientThatItWasTooSlow) {
  DaemonConfig config;
  config.header_timeout = config.body_timeout = milliseconds(200);
  Start(config);
  const std::string upload =
      "POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n";
  for (const std::string& request :
       {std::string("GET /hea"), std::string("GET /healthz HTTP/1.1\r\nHost"),
        std::string(kPost) + "Content-Length: 9\r\n\r\nabc",
        std::string(kPost) + "Transfer-Encoding: chunked\r\n\r\n",
        upload + "Content-Length: 100\r\n\r\n"}) {
    RawClient client = Connect();
    client.Send(request);
    const std::string reply = client.ReadAll();
    EXPECT_EQ(StatusOf(reply), 408) << request << reply;
    EXPECT_EQ(HeadsIn(reply), 1U) << reply;
    EXPECT_NE(reply.find("Connection: close"), std::string::npos) << reply;
    EXPECT_EQ(reply.find("request_timeout") != std::string::npos,
              request.find("/v1/") != std::string::npos)
        << reply;
  }
}

TEST_F(HttpServerTest, ARefusedCallWhoseBodyNeverComesEnds) {
  DaemonConfig config;
  config.body_timeout = milliseconds(200);
  Start(config);
  for (const char* size : {"9", "65537", "100000", "262144", "262145"}) {
    RawClient client = Connect();
    client.Send("POST /function/missing HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                std::string(size) + "\r\n\r\n");
    EXPECT_TRUE(client.ClosedWithin(std::chrono::seconds(20))) << size;
  }
}

TEST_F(HttpServerTest, ClosesAHeadThatTrickles) {
  DaemonConfig config;
  config.header_timeout = milliseconds(200);
  Start(config);
  RawClient client = Connect();
  const auto begun = std::chrono::steady_clock::now();
  bool closed = false;
  while (!closed && std::chrono::steady_clock::now() - begun < milliseconds(3000)) {
    client.Send("X");
    closed = client.ClosedWithin(milliseconds(20));
  }
  EXPECT_TRUE(closed);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, milliseconds(1500));
}

TEST_F(HttpServerTest, ClosesABodyThatTrickles) {
  DaemonConfig config;
  config.body_timeout = milliseconds(200);
  Start(config);
  RawClient client = Connect();
  client.Send(std::string(kPost) + "Content-Length: 100000\r\n\r\n");
  bool closed = false;
  const auto begun = std::chrono::steady_clock::now();
  while (!closed && std::chrono::steady_clock::now() - begun < milliseconds(3000)) {
    client.Send("x");
    closed = client.ClosedWithin(milliseconds(20));
  }
  EXPECT_TRUE(closed);
  EXPECT_TRUE(Eventually([this] { return engine_->calls.back()->cancelled; }));
}

TEST_F(HttpServerTest, ClosesIdleConnections) {
  DaemonConfig config;
  config.keep_alive_timeout = milliseconds(200);
  Start(config);
  RawClient client = Connect();
  client.Send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(StatusOf(client.ReadUntil("OK\n")), 200);
  EXPECT_TRUE(client.ClosedWithin(milliseconds(2000)));
}

TEST_F(HttpServerTest, NeverHurriesACallThatIsOurs) {
  DaemonConfig config;
  config.body_timeout = config.header_timeout = config.keep_alive_timeout = milliseconds(100);
  Start(config);
  RawClient client = Connect();
  client.Send("GET /function/never HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_FALSE(client.ClosedWithin(milliseconds(600)));
}

TEST(HttpServerTurn, SendsAReplyThatComesInTheTurnThatMakesItsWaitLong) {
  const auto loop = std::move(EventLoop::Create()).value();
  HttpServerConfig config;
  config.listen = {*ParseListenAddress("127.0.0.1:0")};
  // Due at the same time as the end of a brief wait, and set before it.
  const auto late = [&](std::string, ReplyDone done) {
    loop->CallAfter(milliseconds(10), [done] {
      HttpReply reply;
      reply.body = "late";
      done(std::move(reply));
    });
  };
  const auto server = std::move(*HttpServer::Create(
      *loop, std::move(config), [&](HttpExchange& e) { return WithBody(e, 0, late); }));
  const std::string bound = server->bound()[0];
  RawClient client(static_cast<uint16_t>(*ParseUint(bound.substr(bound.rfind(':') + 1))));
  client.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto until = std::chrono::steady_clock::now() + milliseconds(100);
  while (std::chrono::steady_clock::now() < until) loop->RunOnce(milliseconds(5));
  EXPECT_EQ(BodyOf(client.ReadUntil("late")), "late");
}

// What is on its way when the server is destroyed is read by the library's last run. It ends the
// whole process where it finds somebody waiting then.
class HttpServerEnd : public ::testing::Test {
 protected:
  HttpServerEnd() {
    HttpServerConfig config;
    config.listen = {*ParseListenAddress("127.0.0.1:0")};
    const auto never = [](std::string, ReplyDone) {};
    server_ = std::move(*HttpServer::Create(*loop_, std::move(config), [=](HttpExchange& e) {
      if (!e.request().chunked) e.HoldBody();
      return WithBody(e, 1 << 20, never);
    }));
    const std::string bound = server_->bound()[0];
    port_ = static_cast<uint16_t>(*ParseUint(bound.substr(bound.rfind(':') + 1)));
  }
  RawClient Connect(const std::string& text) {
    const size_t connections = server_->open_connections() + 1;
    RawClient client(port_);
    client.Send(text);
    while (server_->open_connections() < connections) loop_->RunOnce(milliseconds(50));
    for (int i = 0; i < 5; ++i) loop_->RunOnce(milliseconds(10));
    return client;
  }

  std::unique_ptr<EventLoop> loop_ = EventLoop::Create().value();
  std::unique_ptr<HttpServer> server_;
  uint16_t port_ = 0;
};

TEST_F(HttpServerEnd, BeginsNoRequestThatIsReadAtLast) {
  RawClient whole = Connect("");
  RawClient rest = Connect("POST / HTTP/1.1\r\nHost:");
  whole.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nbody");
  rest.Send(" x\r\nContent-Length: 9\r\n\r\nbody");
  server_.reset();
  EXPECT_TRUE(whole.ClosedWithin(milliseconds(30000)));
  EXPECT_TRUE(rest.ClosedWithin(milliseconds(30000)));
}

TEST_F(HttpServerEnd, HoldsNobodyWhenARequestIsRefusedAtLast) {
  RawClient reading =
      Connect("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n");
  RawClient refused = Connect("");
  ASSERT_EQ(server_->open_requests(), 1U);
  refused.Send("GET / HTTP/1.1\r\nHost\r\n\r\n");
  server_.reset();
  EXPECT_TRUE(reading.ClosedWithin(milliseconds(30000)));
  EXPECT_TRUE(refused.ClosedWithin(milliseconds(30000)));
}

// The library's buffer is full of what it can not use, and it wants to run again and again.
const std::string kEndlessExtension =
    "Transfer-Encoding: chunked\r\n\r\n5;" + std::string(64 * 1024, 'e');

TEST(HttpServerTurn, PausesWhenTheLibraryMakesNoProgress) {
  const auto loop = std::move(EventLoop::Create()).value();
  HttpServerConfig config;
  config.listen = {*ParseListenAddress("127.0.0.1:0")};
  const auto never = [](std::string, ReplyDone) {};
  const auto server = std::move(*HttpServer::Create(
      *loop, std::move(config), [&](HttpExchange& e) { return WithBody(e, 1 << 20, never); }));
  const std::string bound = server->bound()[0];
  RawClient client(static_cast<uint16_t>(*ParseUint(bound.substr(bound.rfind(':') + 1))));
  client.Send("POST / HTTP/1.1\r\nHost: x\r\n" + kEndlessExtension);
  const auto until = std::chrono::steady_clock::now() + milliseconds(300);
  int turns = 0;
  while (std::chrono::steady_clock::now() < until) {
    loop->RunOnce(milliseconds(50));
    ++turns;
  }
  EXPECT_EQ(server->open_requests(), 1U);
  EXPECT_LT(turns, 100);
}

TEST_F(HttpServerTest, NoticesAClientThatLeavesWithAFullBuffer) {
  Start();
  RawClient client = Connect();
  client.Send(std::string(kPost) + kEndlessExtension);
  ASSERT_TRUE(Eventually([this] { return front_->open_requests() == 1; }));
  client.Close();
  std::this_thread::sleep_for(milliseconds(2000));
  EXPECT_TRUE(Eventually([this] { return front_->open_requests() == 0; }));
}

TEST_F(HttpServerTest, CancelsWhenTheClientLeaves) {
  Start();
  RawClient client = Connect();
  client.Send("GET /function/never HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(Eventually([this] { return engine_->calls.size() == 1; }));
  client.Close();
  EXPECT_TRUE(Eventually([this] { return engine_->calls.back()->cancelled; }));
  EXPECT_TRUE(Eventually([this] { return front_->open_requests() == 0; }));
}

// Beside an older connection, which hides those behind it from what the library does by itself.
TEST_F(HttpServerTest, LetsGoOfAConnectionWhoseBodyFailed) {
  Start();
  RawClient older = Connect();
  older.Send(std::string(kPost) + "Content-Length: 2\r\n\r\nhi");
  older.ReadUntil("\r\n\r\nhi");
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = descriptors();
  RawClient client = Connect();
  client.Send("GET /function/abort HTTP/1.1\r\nHost: x\r\n\r\n");
  client.ReadUntil("piece;");
  ASSERT_TRUE(Eventually([this] { return front_->open_requests() == 0; }));
  client.Close();
  EXPECT_TRUE(Eventually([&] { return descriptors() == before; }));
}

TEST_F(HttpServerTest, PushesBackOnAFunctionThatDoesNotRead) {
  Start();
  RawClient client = Connect();
  client.Send("POST /function/deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
  const std::string block(1 << 20, 'a');
  size_t sent = 0;
  while (sent < 64) {
    const ssize_t n = send(client.fd(), block.data(), block.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && sent > 0) break;
    ++sent;
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_LT(sent, 64U);
}

TEST_F(HttpServerTest, TurnsAwayMoreConnectionsThanAllowed) {
  DaemonConfig config;
  config.max_connections = 5;  // 4 from one address
  Start(config);
  std::vector<RawClient> idle;
  for (int i = 0; i < 4; ++i) idle.push_back(Connect());
  ASSERT_TRUE(Eventually([this] { return true; }));
  const std::string reply = Ask("GET /healthz HTTP/1.1\r\nHost: x\r\n");
  EXPECT_EQ(StatusOf(reply), 503) << reply;
  for (const char* header :
       {"X-Call-Id: ", "X-Pulga-Start: none\r\n", "Retry-After: 1\r\n",
        "X-Pulga-Outcome: rejected:connections\r\n", "Server-Timing: queue;dur=0.000\r\n"}) {
    EXPECT_NE(reply.find(header), std::string::npos) << header << " in " << reply;
  }
  EXPECT_EQ(reply.find("{\"error\""), std::string::npos);
  idle.clear();
  EXPECT_TRUE(Eventually([] { return true; }));
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(StatusOf(Ask("GET /healthz HTTP/1.1\r\nHost: x\r\n")), 200);
}

class FullHttpServerTest : public HttpServerTest {
 protected:
  void SetUp() override {
    DaemonConfig config;
    config.max_connections = 5;  // 4 from one address
    Start(config);
  }
  // Its reply, or "" when it was cut before.
  std::string Ask(RawClient& client) {
    client.Send("GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n");
    return client.ReadUntil("\r\n\r\n");
  }
  RawClient& Keep(const char* from) {
    kept_.emplace_back(port_, from);
    EXPECT_EQ(StatusOf(Ask(kept_.back())), 200) << from;
    return kept_.back();
  }
  bool StillOpen(RawClient& client) { return StatusOf(Ask(client)) == 200; }

  std::list<RawClient> kept_;
};

TEST_F(FullHttpServerTest, GivesUpTheLongestIdleOfAnAddressForItsNext) {
  RawClient& first = Keep("127.0.0.1");
  RawClient& second = Keep("127.0.0.1");
  Keep("127.0.0.1");
  Keep("127.0.0.1");
  EXPECT_TRUE(StillOpen(first));  // and not the longest idle any more
  RawClient& fifth = Keep("127.0.0.1");
  EXPECT_TRUE(second.ClosedWithin(milliseconds(1000)));
  EXPECT_TRUE(StillOpen(first));
  EXPECT_TRUE(StillOpen(fifth));
}

TEST_F(FullHttpServerTest, GivesUpTheLongestIdleOfTheAddressThatHasMost) {
  RawClient& alone = Keep("127.0.0.2");
  RawClient& first = Keep("127.0.0.1");
  for (int i = 0; i < 3; ++i) Keep("127.0.0.1");
  EXPECT_TRUE(StillOpen(Keep("127.0.0.3")));
  EXPECT_TRUE(first.ClosedWithin(milliseconds(1000)));
  EXPECT_TRUE(StillOpen(alone));
}

TEST_F(FullHttpServerTest, GivesUpNobodyOfAnAddressThatHasNoMoreThanTheNext) {
  RawClient& others = Keep("127.0.0.1");
  Keep("127.0.0.1");
  RawClient& own = Keep("127.0.0.2");
  Keep("127.0.0.2");
  Keep("127.0.0.3");
  Keep("127.0.0.2");
  EXPECT_TRUE(own.ClosedWithin(milliseconds(1000)));
  EXPECT_TRUE(StillOpen(others));
}

TEST_F(FullHttpServerTest, NeverGivesUpACall) {
  std::list<RawClient> calls;
  for (int i = 0; i < 4; ++i) {
    calls.push_back(Connect());
    calls.back().Send("GET /function/never HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  ASSERT_TRUE(Eventually([this] { return engine_->calls.size() == 4; }));
  RawClient next = Connect();
  EXPECT_EQ(StatusOf(Ask(next)), 503);
  EXPECT_EQ(OnLoop([this] { return front_->open_requests(); }), 4U);
}

TEST_F(FullHttpServerTest, GivesUpAHeadThatTakesLongForAnotherAddressOnly) {
  std::list<RawClient> slow;
  for (int i = 0; i < 4; ++i) {
    slow.push_back(Connect());
    slow.back().Send("GET /healthz HTTP/1.1\r\nHo");
    std::this_thread::sleep_for(milliseconds(20));
  }
  Keep("127.0.0.2");
  std::this_thread::sleep_for(milliseconds(1100));
  RawClient same = Connect();
  EXPECT_EQ(StatusOf(Ask(same)), 503);
  RawClient other(port_, "127.0.0.3");
  EXPECT_EQ(StatusOf(Ask(other)), 200);
  EXPECT_EQ(StatusOf(slow.front().ReadAll()), 408);
}

class GatewayTest : public FullHttpServerTest {
 protected:
  void SetUp() override {
    DaemonConfig config;
    config.max_connections = 16;  // 8 for all functions, 2 for one, 12 for another address
    Start(config);
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in name = {};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof name;
    ASSERT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&name), size), 0);
    ASSERT_EQ(listen(socket.get(), SOMAXCONN), 0);
    ASSERT_EQ(getsockname(socket.get(), reinterpret_cast<sockaddr*>(&name), &size), 0);
    gateway_ = ntohs(name.sin_port);
    ASSERT_TRUE(OnLoop([&] { return front_->ServeGateway(std::move(socket)).ok(); }));
  }
  // As many as there may be, each in the middle of a call.
  void FillWithCalls() {
    for (const char* function : {"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"}) {
      for (int i = 0; i < 2; ++i) {
        calls_.emplace_back(gateway_, function);
        calls_.back().Send("GET /function/never HTTP/1.1\r\nHost: gateway\r\n\r\n");
      }
    }
    ASSERT_TRUE(Eventually([this] { return engine_->calls.size() == 8; }));
  }
  // What a function that connects to the gateway gets, which has calls only.
  std::string AskGateway(const char* function) {
    return AskGateway(function, "GET /healthz", "gateway");
  }
  std::string AskGateway(const char* function, const std::string& what, const std::string& host) {
    RawClient client(gateway_, function);
    client.Send(what + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n");
    return client.ReadAll();
  }

  uint16_t gateway_ = 0;
  std::list<RawClient> calls_;
};

TEST_F(GatewayTest, LeavesHalfOfAllConnectionsWhateverFunctionsDo) {
  FillWithCalls();
  for (const char* next : {"127.0.0.6", "127.0.0.7", "127.0.0.8"}) {
    const std::string reply = AskGateway(next);
    EXPECT_EQ(StatusOf(reply), 503) << next;
    EXPECT_NE(reply.find("functions have too many open connections"), std::string::npos) << reply;
  }
  for (int i = 0; i < 8; ++i) Keep("127.0.0.1");
  EXPECT_EQ(OnLoop([this] { return front_->open_requests(); }), 8U);
}

TEST_F(GatewayTest, GivesOneFunctionAShareThatNobodyElseCounts) {
  for (int i = 0; i < 2; ++i) {
    calls_.emplace_back(gateway_, "127.0.0.1");
    calls_.back().Send("GET /function/never HTTP/1.1\r\nHost: gateway\r\n\r\n");
  }
  ASSERT_TRUE(Eventually([this] { return engine_->calls.size() == 2; }));
  const std::string reply = AskGateway("127.0.0.1");
  EXPECT_EQ(StatusOf(reply), 503);
  EXPECT_NE(reply.find("this function has too many open connections"), std::string::npos) << reply;
  EXPECT_EQ(StatusOf(AskGateway("127.0.0.2")), 404);
  for (int i = 0; i < 12; ++i) Keep("127.0.0.1");  // the same address, but not from a function
}

TEST_F(GatewayTest, CallsTheFunctionThatIsAskedByItsName) {
  for (const auto& [host, name_space] : {std::pair("echo:8080", "openfaas-fn"),
                                         {"ECHO.openfaas-fn.", "openfaas-fn"},
                                         {"echo.dev.svc.cluster.local:8080", "dev"}}) {
    const std::string reply = AskGateway("127.0.0.1", "PUT /v1/functions?a=%2F", host);
    EXPECT_EQ(StatusOf(reply), 200) << host;
    EXPECT_EQ(reply.find("X-Call-Id: "), reply.rfind("X-Call-Id: ")) << reply;
    const InvocationRequest asked = OnLoop([this] { return engine_->calls.back()->request; });
    EXPECT_EQ(asked.function, (FunctionKey{kDefaultOwner, name_space, "echo"})) << host;
    EXPECT_EQ(asked.method + asked.path + "?" + asked.query, "PUT/v1/functions?a=%2F") << host;
  }
  EXPECT_EQ(OnLoop([this] { return engine_->calls.size(); }), 3U);
}

TEST_F(GatewayTest, RefusesMethodsOfNoCallThere) {
  const std::string reply = AskGateway("127.0.0.1", "BREW /system/functions", "echo");
  EXPECT_EQ(StatusOf(reply), 405);
  EXPECT_NE(reply.find("Allow: "), std::string::npos) << reply;
}

TEST_F(GatewayTest, HasNoFunctionsByNameForOthers) {
  for (const char* host : {"10.83.0.1:8080", "gateway:8080", "echo.example", "echo.dev"}) {
    EXPECT_EQ(StatusOf(AskGateway("127.0.0.1", "GET /healthz", host)), 404) << host;
  }
  RawClient outside = Connect();
  outside.Send("GET /healthz HTTP/1.1\r\nHost: echo\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(StatusOf(outside.ReadAll()), 200);
  EXPECT_EQ(OnLoop([this] { return engine_->calls.size(); }), 0U);
}

TEST_F(GatewayTest, HasRoomAgainWhenCallsEnd) {
  FillWithCalls();
  calls_.clear();
  ASSERT_TRUE(Eventually([this] { return front_->open_requests() == 0; }));
  OnLoop([this] { return engine_->calls.clear(), 0; });
  FillWithCalls();
}

TEST_F(GatewayTest, GivesUpAnIdleConnectionOfTheFunctionWithMostOnly) {
  RawClient& outside = Keep("127.0.0.1");
  for (int i = 0; i < 3; ++i) Keep("127.0.0.1");
  for (const char* function : {"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"}) {
    for (int i = 0; i < 2; ++i) {
      calls_.emplace_back(gateway_, function);
      EXPECT_EQ(StatusOf(FullHttpServerTest::Ask(calls_.back())), 404);
    }
  }
  EXPECT_EQ(StatusOf(AskGateway("127.0.0.6")), 404);
  EXPECT_TRUE(calls_.front().ClosedWithin(milliseconds(1000)));
  EXPECT_TRUE(StillOpen(outside));
}

TEST_F(HttpServerTest, StopsWithOpenCallsAndStreams) {
  Start();
  RawClient waiting = Connect();
  waiting.Send("GET /function/never HTTP/1.1\r\nHost: x\r\n\r\n");
  RawClient kept = Connect();
  kept.Send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(StatusOf(kept.ReadUntil("OK\n")), 200);
  ASSERT_TRUE(Eventually([this] { return engine_->calls.size() == 1; }));
  OnLoop([this] { return front_->StopAccepting(), 0; });
  kept.Send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string reply = kept.ReadAll();
  EXPECT_EQ(StatusOf(reply), 503);
  EXPECT_NE(reply.find("Connection: close"), std::string::npos);
  EXPECT_EQ(OnLoop([this] { return front_->open_requests(); }), 1U);
}

}  // namespace
}  // namespace pulga::testing
