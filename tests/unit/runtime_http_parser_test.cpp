// The response parser and the request head: tables, and every split of the bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/http_response_parser.h"
#include "runtime/invocation.h"
#include "runtime/request_head.h"

namespace pulga {
namespace {

HeadParse Parse(std::string_view bytes, UpstreamHead* head,
                RequestMethod method = RequestMethod::kOther) {
  return ParseResponseHead(bytes, 0, method, head);
}

TEST(ResponseHead, RefusesWhatIsMalformed) {
  const std::vector<std::string> bad = {
      "HTTP/2 200 OK\r\n\r\n",
      "HTTP/1.2 200 OK\r\n\r\n",
      "http/1.1 200 OK\r\n\r\n",
      "HTTP/1.1  200 OK\r\n\r\n",
      "HTTP/1.1 20 OK\r\n\r\n",
      "HTTP/1.1 099 OK\r\n\r\n",
      "HTTP/1.1 600 OK\r\n\r\n",
      "HTTP/1.1 2000 OK\r\n\r\n",
      "HTTP/1.1 -20 OK\r\n\r\n",
      "HTTP/1.1 101 Switching\r\n\r\n",
      "HTTP/1.1 200 O\x01K\r\n\r\n",
      "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
      "HTTP/1.1 200 OK\r\nName : v\r\n\r\n",
      "HTTP/1.1 200 OK\r\n: v\r\n\r\n",
      "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
      "HTTP/1.1 200 OK\r\nA: b\nSet-Cookie: forged\r\n\r\n",
      "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
      std::string("HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", 27),
      "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
      "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
  };
  for (const std::string& bytes : bad) {
    UpstreamHead head;
    const HeadParse parse = Parse(bytes, &head);
    EXPECT_EQ(parse.state, ParseState::kBad) << bytes;
    EXPECT_STRNE(parse.problem, "") << bytes;
  }
}

TEST(ResponseHead, SwitchesProtocolsWhereThatWasAskedForAndSaysToWhich) {
  const std::string line = "HTTP/1.1 101 Go\r\n";
  UpstreamHead head;
  const HeadParse parse = Parse(line + "Connection: a, Upgrade\r\nUpgrade: x/1\r\nA: gone\r\n\r\n",
                                &head, RequestMethod::kUpgrade);
  ASSERT_EQ(parse.state, ParseState::kComplete);
  EXPECT_EQ(head.status, 101);
  EXPECT_EQ(head.upgrade, "x/1");
  EXPECT_EQ(head.framing, BodyFraming::kUntilClose);
  EXPECT_EQ(head.after, AfterResponse::kClose);
  EXPECT_TRUE(head.headers.empty());
  for (const char* fields :
       {"", "Upgrade: x\r\n", "Connection: upgrade\r\n", "Connection: upgrade\r\nUpgrade: \r\n"}) {
    EXPECT_EQ(Parse(line + fields + "\r\n", &head, RequestMethod::kUpgrade).state, ParseState::kBad)
        << fields;
  }
  EXPECT_EQ(Parse("HTTP/1.1 403 No\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\n", &head,
                  RequestMethod::kUpgrade)
                .state,
            ParseState::kComplete);
  EXPECT_EQ(head.framing, BodyFraming::kLength);
}

TEST(ResponseHead, FindsTheFraming) {
  struct Row {
    const char* bytes;
    BodyFraming framing;
    AfterResponse after;
  };
  const Row rows[] = {
      {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", BodyFraming::kLength,
       AfterResponse::kKeepAlive},
      {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", BodyFraming::kLength,
       AfterResponse::kKeepAlive},
      {"HTTP/1.1 200\r\nContent-Length:0\r\n\r\n", BodyFraming::kNone, AfterResponse::kKeepAlive},
      {"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", BodyFraming::kChunked,
       AfterResponse::kKeepAlive},
      {"HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 3\r\n\r\n",
       BodyFraming::kLength, AfterResponse::kClose},
      {"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", BodyFraming::kLength, AfterResponse::kClose},
      {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n",
       BodyFraming::kLength, AfterResponse::kKeepAlive},
      {"HTTP/1.1 200 OK\r\n\r\n", BodyFraming::kUntilClose, AfterResponse::kClose},
      {"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", BodyFraming::kNone,
       AfterResponse::kKeepAlive},
      {"HTTP/1.1 304 No\r\n\r\n", BodyFraming::kNone, AfterResponse::kKeepAlive},
      {"HTTP/1.1 100 Go on\r\n\r\n", BodyFraming::kNone, AfterResponse::kKeepAlive},
  };
  for (const Row& row : rows) {
    UpstreamHead head;
    const HeadParse parse = Parse(row.bytes, &head);
    EXPECT_EQ(parse.state, ParseState::kComplete) << row.bytes << parse.problem;
    EXPECT_EQ(parse.size, std::string_view(row.bytes).size());
    EXPECT_EQ(head.framing, row.framing) << row.bytes;
    EXPECT_EQ(head.after, row.after) << row.bytes;
  }
  UpstreamHead head;
  Parse("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", &head, RequestMethod::kHead);
  EXPECT_EQ(head.framing, BodyFraming::kNone);
  EXPECT_EQ(head.content_length, 9U);
}

TEST(ResponseHead, DropsWhatIsAboutTheConnectionOrOurs) {
  UpstreamHead head;
  Parse(
      "HTTP/1.1 200 OK\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
      "Upgrade: h2c\r\nTE: a\r\nTrailer: b\r\nProxy-Authenticate: c\r\nX-Call-Id: forged\r\n"
      "X-Pulga-Outcome: forged\r\nX-Keep:  kept \t\r\nContent-Length: 0\r\n\r\n",
      &head);
  EXPECT_EQ(head.headers, (HeaderList{{"X-Keep", "kept"}}));
}

TEST(ResponseHead, LimitsTheNumberAndTheSizeOfHeaders) {
  const auto with = [](int count, size_t size) {
    std::string bytes = "HTTP/1.1 200 OK\r\n";
    for (int i = 0; i < count; ++i) bytes += "A: " + std::string(size, 'x') + "\r\n";
    return bytes + "\r\n";
  };
  UpstreamHead head;
  EXPECT_EQ(Parse(with(200, 1), &head).state, ParseState::kComplete);
  EXPECT_EQ(Parse(with(201, 1), &head).state, ParseState::kBad);
  EXPECT_EQ(Parse(with(10000, 1), &head).state, ParseState::kBad);
  EXPECT_EQ(Parse(with(1, 65000), &head).state, ParseState::kComplete);
  EXPECT_EQ(Parse(with(1, 65536), &head).state, ParseState::kBad);
  const std::string endless = "HTTP/1.1 200 OK\r\nA: " + std::string(70000, 'x');
  EXPECT_EQ(Parse(endless, &head).state, ParseState::kBad);
}

TEST(ResponseHead, WaitsAtEveryPrefixAndFindsTheEndWhereverTheBytesWereSplit) {
  const std::string bytes = "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 1\r\n\r\n";
  for (size_t split = 0; split < bytes.size(); ++split) {
    UpstreamHead head;
    const std::string_view part(bytes.data(), split);
    ASSERT_EQ(ParseResponseHead(part, 0, RequestMethod::kOther, &head).state,
              ParseState::kIncomplete)
        << split;
    const HeadParse parse = ParseResponseHead(bytes + "z", split, RequestMethod::kOther, &head);
    ASSERT_EQ(parse.state, ParseState::kComplete) << split;
    ASSERT_EQ(parse.size, bytes.size());
  }
}

struct Decoded {
  ParseState state = ParseState::kIncomplete;
  std::string text;
  size_t consumed = 0;
};

Decoded DecodeIn(const std::string& bytes, size_t step) {
  ChunkedDecoder decoder;
  Decoded all;
  for (size_t at = 0; at < bytes.size() && all.state == ParseState::kIncomplete; at += step) {
    std::string part = bytes.substr(at, step);
    const ChunkedDecoder::Step got = decoder.Decode(part.data(), part.size());
    all.state = got.state;
    all.text += part.substr(0, got.produced);
    all.consumed += got.consumed;
  }
  return all;
}

TEST(Chunked, DecodesTheSameHoweverTheBytesAreSplit) {
  const std::string bytes =
      "1\r\na\r\n00a ;ext=\"x\"\r\n0123456789\r\n5\r\n\r\n\r\n!\r\n0\r\nTrailer: t\r\nU: v\r\n\r\n";
  for (size_t step = 1; step <= bytes.size(); ++step) {
    const Decoded got = DecodeIn(bytes, step);
    EXPECT_EQ(got.state, ParseState::kComplete) << step;
    EXPECT_EQ(got.text, "a0123456789\r\n\r\n!") << step;
    EXPECT_EQ(got.consumed, bytes.size()) << step;
  }
}

TEST(Chunked, StopsAtItsEndAndLeavesTheRest) {
  std::string bytes = "1\r\na\r\n0\r\n\r\nHTTP/1.1";
  ChunkedDecoder decoder;
  const ChunkedDecoder::Step step = decoder.Decode(bytes.data(), bytes.size());
  EXPECT_EQ(step.state, ParseState::kComplete);
  EXPECT_EQ(step.consumed, bytes.size() - 8);
}

TEST(Chunked, RefusesWhatIsMalformed) {
  for (const std::string& bytes :
       {std::string("\r\n"), std::string("g\r\n"), std::string("-1\r\n"), std::string(" 1\r\n"),
        std::string("1\na\n"), std::string("1\r\nab\r\n"), std::string("1\r\na\n"),
        std::string("1111111111111111\r\n"), std::string("0\r\n\n"), std::string("0\r\nA: b\n\r\n"),
        "1;" + std::string(5000, 'x') + "\r\n", "0\r\n" + std::string(17000, 'x')}) {
    for (const size_t step : {size_t{1}, size_t{7}, bytes.size()}) {
      EXPECT_EQ(DecodeIn(bytes, step).state, ParseState::kBad) << bytes.substr(0, 40) << step;
    }
  }
}

InvocationRequest AnyRequest() {
  InvocationRequest request;
  request.function.name = "f";
  request.call_id = "id";
  request.method = "GET";
  return request;
}

TEST(RequestHead, NeverLetsAHeaderOrTheTargetEndALineEarly) {
  InvocationRequest request = AnyRequest();
  request.path = "/a b\r\nX: y";
  request.headers = {{"A", "b\r\nC: d"},        {"E\r\nF", "g"}, {"Ok", "yes"},
                     {"Host", "one"},           {"Host", "two"}, {"Transfer-Encoding", "chunked"},
                     {"Expect", "100-continue"}};
  const std::string head = BuildRequestHead(request, {});
  EXPECT_EQ(head,
            "GET /a%20b%0D%0AX:%20y HTTP/1.1\r\nOk: yes\r\nHost: one\r\nX-Call-Id: id\r\n"
            "X-Start-Time: 0\r\nX-Forwarded-Host: one\r\n\r\n");
}

TEST(RequestHead, AnnouncesTheBodyInOneWayOnly) {
  InvocationRequest request = AnyRequest();
  request.method = "POST";
  EXPECT_NE(BuildRequestHead(request, {}).find("Content-Length: 0\r\n"), std::string::npos);
  request.has_body = true;
  EXPECT_NE(BuildRequestHead(request, {}).find("Transfer-Encoding: chunked\r\n"),
            std::string::npos);
  request.content_length = 7;
  const std::string head = BuildRequestHead(request, {});
  EXPECT_NE(head.find("Content-Length: 7\r\n"), std::string::npos);
  EXPECT_EQ(head.find("Transfer-Encoding"), std::string::npos);
}

TEST(RequestEnvironment, IsBoundedAndNeverMisnamed) {
  InvocationRequest request = AnyRequest();
  request.headers = {
      {"content-TYPE", "a"}, {"x", "1"}, {"X", "2"}, {"bad=name", "v"}, {"Method", "forged"}};
  for (int i = 0; i < 500; ++i) request.headers.emplace_back("H" + std::to_string(i), "v");
  request.headers.emplace_back("Large", std::string(40000, 'l'));
  const std::vector<std::string> env = BuildRequestEnvironment(request, {});
  EXPECT_LE(env.size(), 11 + kMaxHeaderVariables);
  const auto has = [&](const std::string& entry) {
    return std::find(env.begin(), env.end(), entry) != env.end();
  };
  EXPECT_TRUE(has("Http_Method=GET"));
  EXPECT_FALSE(has("Http_Method=forged"));
  EXPECT_TRUE(has("Http_Content_Type=a"));
  EXPECT_TRUE(has("Http_X=1, 2"));
  EXPECT_TRUE(has("Http_X_Start_Time=0")) << "however many the caller's headers are";
  EXPECT_TRUE(has("Http_X_Call_Id=id"));
  EXPECT_TRUE(has("Http_Host=" + request.function.name));
  for (const std::string& entry : env) EXPECT_LT(entry.size(), 40000U);
}

TEST(RequestEnvironment, TellsOfTheBodyAsTheClassicWatchdogDoes) {
  const auto told = [](const InvocationRequest& request) {
    std::vector<std::string> of_body;
    for (const std::string& entry : BuildRequestEnvironment(request, {})) {
      if (entry.starts_with("Http_Content") || entry.starts_with("Http_Transfer")) {
        of_body.push_back(entry);
      }
    }
    return of_body;
  };
  using ::testing::ElementsAre;
  InvocationRequest request = AnyRequest();
  request.headers = {{"Transfer_Encoding", "forged"}, {"ContentLength", "9"}};
  EXPECT_THAT(told(request),
              ElementsAre("Http_Content_Length=0", "Http_ContentLength=0", "Http_Contentlength=9"));
  request.headers.clear();
  request.has_body = true;
  EXPECT_THAT(told(request), ElementsAre("Http_Transfer_Encoding=chunked"));
  request.content_length = 7;
  EXPECT_THAT(told(request), ElementsAre("Http_Content_Length=7", "Http_ContentLength=7"));
}

TEST(ServerTiming, NamesTheStepsThatHappened) {
  Receipt receipt;
  EXPECT_EQ(ServerTiming(receipt), "");
  EXPECT_EQ(StartKindName(receipt.start), "none");
  receipt.queue_ms = 0.0041;
  receipt.function_ms = 12.5;
  EXPECT_EQ(ServerTiming(receipt), "queue;dur=0.004, function;dur=12.500");
}

}  // namespace
}  // namespace pulga
