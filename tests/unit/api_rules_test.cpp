// The pure parts of api/: decoding, headers, routes, error mapping, patience, JSON shapes.
#include <gtest/gtest.h>

#include "api/connection_clock.h"
#include "api/error_mapping.h"
#include "api/front.h"
#include "api/json_codec.h"
#include "api/router.h"
#include "base/file_io.h"
#include "base/text.h"
#include "tests/support/fake_engine.h"

namespace pulga::testing {
namespace {

TEST(PercentDecode, DecodesOnceAndRefusesWhatIsBroken) {
  EXPECT_EQ(PercentDecode("a%2fb"), "a/b");
  EXPECT_EQ(PercentDecode("%252e"), "%2e");
  EXPECT_EQ(PercentDecode("caf%C3%A9"), "caf\xc3\xa9");
  for (const char* bad :
       {"%", "%2", "%zz", "%00", "%0a", "%7f", "%c0%ae", "%ff", "%ed%a0%80", "%c3"}) {
    EXPECT_EQ(PercentDecode(bad), std::nullopt) << bad;
  }
}

TEST(QueryValue, TakesTheLastOfAName) {
  EXPECT_EQ(QueryValue("a=1&b=2&a=3", "a"), "3");
  EXPECT_EQ(QueryValue("a=x%20y+z", "a"), "x y z");
  EXPECT_EQ(QueryValue("ab=1", "a"), std::nullopt);
  EXPECT_EQ(QueryValue("", "a"), std::nullopt);
  EXPECT_EQ(QueryValue("a=%00", "a"), "%00");
}

TEST(EndToEndHeaders, DropsHopByHopAndWhatConnectionNames) {
  const HeaderList in = {{"Host", "x"},
                         {"Connection", "close, X-Secret"},
                         {"x-secret", "1"},
                         {"Keep-Alive", "5"},
                         {"TE", "trailers"},
                         {"Upgrade", "h2c"},
                         {"Content-Length", "3"},
                         {"Transfer-Encoding", "chunked"},
                         {"Proxy-Connection", "x"},
                         {"Expect", "100-continue"},
                         {"Accept", "*/*"}};
  const HeaderList out = {{"Host", "x"}, {"Accept", "*/*"}};
  EXPECT_EQ(EndToEndHeaders(in), out);
}

TEST(RequestedUpgrade, IsOneProtocolThatIsNoOtherHttp) {
  HttpRequest request;
  request.method = "GET";
  request.version = "HTTP/1.1";
  const auto asked = [&](std::string protocol, std::string connection = "keep-alive, UPGRADE") {
    request.headers = {{"upgrade", std::move(protocol)}, {"CONNECTION", std::move(connection)}};
    return RequestedUpgrade(request).value_or("");
  };
  EXPECT_EQ(asked("websocket"), "websocket");
  EXPECT_EQ(asked("IRC/6.9"), "IRC/6.9");
  EXPECT_EQ(asked("websocket", "keep-alive"), "");
  for (const char* protocol :
       {"", "/", "a/", "a/b/c", "a b", "one, two", "h2c", "H2C", "HTTP/2.0"}) {
    EXPECT_EQ(asked(protocol), "") << protocol;
  }
  for (const auto& [method, version, chunked] : {std::tuple("HEAD", "HTTP/1.1", false),
                                                 {"GET", "HTTP/1.0", false},
                                                 {"GET", "HTTP/1.1", true}}) {
    request.method = method;
    request.version = version;
    request.chunked = chunked;
    EXPECT_EQ(asked("websocket"), "") << method << version;
  }
  request.headers = {{"Upgrade", "a"}, {"Upgrade", "b"}, {"Connection", "upgrade"}};
  EXPECT_FALSE(RequestedUpgrade(request));
}

TEST(ReplyHeaders, NeverCarryControlBytesOrFraming) {
  EXPECT_TRUE(IsFitReplyHeader("X-A", "b c"));
  EXPECT_FALSE(IsFitReplyHeader("X-A", "b\r\nX-B: 1"));
  EXPECT_FALSE(IsFitReplyHeader("X A", "b"));
  EXPECT_FALSE(IsFitReplyHeader("content-length", "1"));
  EXPECT_FALSE(IsFitReplyHeader("Transfer-Encoding", "chunked"));
}

class RouterTest : public ::testing::Test {
 protected:
  RouterTest() {
    loop_ = std::move(EventLoop::Create()).value();
    engine_ = std::make_unique<FakeEngine>(*loop_);
    AddAllRoutes(router_, *engine_, *loop_, {"pulga"});
  }
  // "PATTERN name rest", or the reason for none.
  std::string Match(std::string_view method, std::string_view path) {
    const RouteMatch match = router_.Match(method, path);
    switch (match.kind) {
      case RouteMatch::Kind::kNotFound:
        return "404";
      case RouteMatch::Kind::kWrongMethod:
        return "405 " + match.allow;
      case RouteMatch::Kind::kBadPath:
        return "400";
      case RouteMatch::Kind::kFound:
        break;
    }
    return match.route->pattern + " " + match.params.name + " " + std::string(match.params.rest);
  }
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<FakeEngine> engine_;
  Router router_;
};

TEST_F(RouterTest, FindsWhatIsThere) {
  EXPECT_EQ(Match("GET", "/v1/images"), "/v1/images  ");
  EXPECT_EQ(Match("GET", "/v1/images/a/b:1"), "/v1/images/{ref...} a/b:1 ");
  EXPECT_EQ(Match("DELETE", "/v1/images/a%2Fb"), "/v1/images/{ref...} a/b ");
  EXPECT_EQ(Match("HEAD", "/v1/functions/x"), "/v1/functions/{name} x ");
  EXPECT_EQ(Match("GET", "/v1/functions/x/logs"), "/v1/functions/{name}/logs x ");
  EXPECT_EQ(Match("PATCH", "/function/x"), "/function/{name}/... x ");
  EXPECT_EQ(Match("GET", "/function/x.ns/a%2f//b"), "/function/{name}/... x.ns /a%2f//b");
  EXPECT_EQ(Match("GET", "/function/x/"), "/function/{name}/... x /");
}

TEST_F(RouterTest, IsNotConfusedByVariants) {
  for (const char* path :
       {"//v1/images", "/v1//images", "/V1/images", "/v1/images/", "/v1/./images", "/.", "/v1",
        "/v1/functions/x/y", "/v1/functions/x/logs/", "/%761/images", "/healthz/", "/function",
        "/function/", "/function//x", "/v1/images;x", "/v1/task", "/metrics/"}) {
    EXPECT_EQ(Match("GET", path), "404") << path;
  }
  EXPECT_EQ(Match("GET", "/v1/functions/%00"), "400");
  EXPECT_EQ(Match("GET", "/v1/functions/%zz/logs"), "400");
  EXPECT_EQ(Match("GET", "/v1/functions/" + std::string(10000, 'a')), "400");
}

TEST_F(RouterTest, NamesTheAllowedMethods) {
  EXPECT_EQ(Match("DELETE", "/v1/images"), "405 POST, GET, HEAD");
  EXPECT_EQ(Match("POST", "/healthz"), "405 GET, HEAD");
  EXPECT_EQ(Match("BREW", "/function/x"), "405 GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
}

TEST_F(RouterTest, QueriesOfTheManagementAreStrict) {
  const auto problem = [this](std::string_view method, std::string_view path,
                              std::string_view query) {
    return QueryProblem(*router_.Match(method, path).route, query).value_or("");
  };
  const auto upload = [&](std::string_view query) { return problem("POST", "/v1/images", query); };
  EXPECT_EQ(upload(""), "");
  EXPECT_EQ(upload("ref=a%3A1&any_platform=1&skipped=0"), "");
  EXPECT_EQ(upload("ref=a&ref=a"), "the query parameter \"ref\" is there twice");
  EXPECT_EQ(upload("reference=a"),
            "the query parameter \"reference\" is not known here, only ref any_platform skipped");
  for (const char* value : {"", "zzz", "true", "2", "01", "%31"}) {
    EXPECT_EQ(
        upload(std::string("any_platform=") + value),
        std::string("the query parameter \"any_platform\" must be 0 or 1, not \"") + value + "\"");
  }
  EXPECT_NE(upload("skipped"), "");
  EXPECT_NE(upload("ref=%zz"), "");
  EXPECT_EQ(problem("GET", "/v1/system", "x"), "the query parameter \"x\" is not known here");
  EXPECT_NE(problem("GET", "/v1/functions/f/logs", "follow=yes"), "");
  EXPECT_NE(problem("GET", "/v1/functions/f/logs", "tail=1&tail=2"), "");
}

// Only the shape of the document is read: paths at two spaces, methods at four.
std::vector<std::string> DocumentedRoutes() {
  std::vector<std::string> out;
  std::string path;
  const auto read = ReadFile(PULGA_SOURCE_DIR "/api/openapi.yaml");
  const std::string text = read.ok() ? *read : "";
  bool in_paths = false;
  for (std::string_view line : Split(text, '\n')) {
    if (!line.empty() && line[0] != ' ') in_paths = line == "paths:";
    if (!in_paths) continue;
    if (line.substr(0, 3) == "  /") path = line.substr(2, line.find(":", 2) - 2);
    for (const char* method : {"get", "head", "post", "put", "patch", "delete", "options"}) {
      const std::string key = std::string("    ") + method + ":";
      if (line.substr(0, key.size()) != key) continue;
      std::string upper(method);
      for (char& c : upper) c = static_cast<char>(c - 32);
      out.push_back(upper + " " + path);
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

TEST_F(RouterTest, HasExactlyTheRoutesOfTheOpenApiDocument) {
  std::vector<std::string> routes;
  for (const Route& route : router_.routes()) {
    if (route.method != "*") {
      routes.push_back(route.method + " " + route.pattern);
      continue;
    }
    for (const char* method : {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}) {
      routes.push_back(std::string(method) + " " + route.pattern);
    }
  }
  std::sort(routes.begin(), routes.end());
  EXPECT_EQ(routes, DocumentedRoutes());
}

TEST_F(RouterTest, TheOpenApiDocumentNamesEveryQueryParameter) {
  const auto document = ReadFile(PULGA_SOURCE_DIR "/api/openapi.yaml");
  ASSERT_TRUE(document.ok());
  for (const Route& route : router_.routes()) {
    for (const QueryParam& param : route.query) {
      const bool flag = param.kind == QueryParam::Kind::kFlag;
      const std::string line = "{name: " + std::string(param.name) +
                               ", in: query, schema: " + (flag ? "{enum: ['0', '1']}" : "");
      EXPECT_NE(document->find(line), std::string::npos) << line;
    }
  }
}

TEST(ErrorMapping, GivesEveryCodeAStatusAndAStableName) {
  const auto map = [](Code code) {
    const ApiError error = ToApiError(Error{code, 0, "m"}, "image");
    return std::to_string(error.status) + " " + error.code;
  };
  EXPECT_EQ(map(Code::kInvalidArgument), "400 invalid_argument");
  EXPECT_EQ(map(Code::kNotFound), "404 image_not_found");
  for (const Code code : {Code::kNotFound, Code::kPermission, Code::kUnsupported}) {
    const Error missing{code, 0, "cannot run \"/bin/x\": it is missing"};
    const ApiError error = ToApiError(missing, "image");
    EXPECT_EQ(std::to_string(error.status) + " " + error.code, "422 cannot_run");
    EXPECT_EQ(error.message, missing.message) << "the image's paths are no secret";
  }
  EXPECT_EQ(map(Code::kAlreadyExists), "409 image_conflict");
  EXPECT_EQ(map(Code::kTooLarge), "413 too_large");
  EXPECT_EQ(map(Code::kUnsupported), "422 unsupported");
  EXPECT_EQ(map(Code::kUnavailable), "503 unavailable");
  EXPECT_EQ(map(Code::kNoSpace), "507 no_space");
  EXPECT_EQ(map(Code::kInternal), "500 internal_error");
}

TEST(ErrorMapping, KeepsHostPathsOutOfMessages) {
  EXPECT_EQ(WithoutHostPaths("open /var/lib/pulga/x.db: Permission denied"),
            "open x.db: Permission denied");
  EXPECT_EQ(WithoutHostPaths("write \"/a/b\" (/c/d)"), "write \"b\" (d)");
  EXPECT_EQ(WithoutHostPaths("linux/arm64 is not linux/amd64"), "linux/arm64 is not linux/amd64");
}

TEST(ErrorMapping, FollowsTheOutcomeTable) {
  const auto status = [](OutcomeKind kind, std::string detail = "") {
    return OutcomeStatus({kind, 1, detail});
  };
  EXPECT_EQ(status(OutcomeKind::kOk), 0);
  EXPECT_EQ(status(OutcomeKind::kExited), 500);
  EXPECT_EQ(status(OutcomeKind::kSignaled), 500);
  EXPECT_EQ(status(OutcomeKind::kOomKilled), 500);
  EXPECT_EQ(status(OutcomeKind::kSyscallDenied), 500);
  EXPECT_EQ(status(OutcomeKind::kTimedOut), 504);
  EXPECT_EQ(status(OutcomeKind::kOutputLimit), 502);
  EXPECT_EQ(status(OutcomeKind::kBadResponse), 502);
  EXPECT_EQ(status(OutcomeKind::kNotReady), 503);
  EXPECT_EQ(status(OutcomeKind::kSetupFailed), 503);
  EXPECT_EQ(status(OutcomeKind::kRejected, "queue-full"), 429);
  EXPECT_EQ(status(OutcomeKind::kRejected, "memory"), 503);
  EXPECT_EQ(status(OutcomeKind::kRejected, "unknown-function"), 404);
  EXPECT_EQ(status(OutcomeKind::kRejected, "body-limit"), 413);
}

TEST(Json, ErrorsHaveCodeMessageAndDetails) {
  EXPECT_EQ(ErrorJson({404, "image_not_found", "no \"x\"", {{"ref", "x"}}}),
            "{\"error\":{\"code\":\"image_not_found\",\"message\":\"no "
            "\\\"x\\\"\",\"details\":{\"ref\":\"x\"}}}\n");
  EXPECT_NE(ErrorJson({400, "c", "bad \xff utf", {}}).find("\xef\xbf\xbd"), std::string::npos);
}

TEST(Json, AnImportTellsEachImageAndLayer) {
  ImportReport report;
  report.images = {SampleImage("hello:1")};
  report.warnings = {"w"};
  EXPECT_EQ(
      ImportReportJson(report),
      "{\"images\":[{\"ref\":\"hello:1\",\"digest\":\"sha256:" + std::string(64, 'd') +
          "\",\"platform\":\"linux/amd64\",\"size_bytes\":1234,\"layers\":[{\"diff_id\":\"sha256:" +
          std::string(64, 'a') + "\",\"chain_id\":\"sha256:" + std::string(64, 'c') +
          "\",\"size_bytes\":1234,\"disk_bytes\":0,\"reused\":false}],\"warnings\":[\"w\"]}]}\n");
}

TEST(Json, LogLinesAreOneRecordEach) {
  const LogLine line{1767323045678, 2, "id", "stderr", "a\nb\x1b[31m", "2-0"};
  EXPECT_EQ(LogLineJson(line),
            "{\"time\":\"2026-01-02T03:04:05.678Z\",\"version\":2,\"call_id\":\"id\","
            "\"stream\":\"stderr\",\"instance\":\"2-0\",\"text\":\"a\\nb\\u001b[31m\"}\n");
}

TEST(Json, SmallBodiesAreReadStrictly) {
  EXPECT_EQ(*ParseScaleBody("{\"instances\":3}"), 3U);
  for (const char* bad :
       {"", "{}", "3", "{\"instances\":-1}", "{\"instances\":1.5}", "{\"instances\":\"1\"}",
        "{\"instances\":1,\"instances\":2}", "{\"instances\":1}x", "{\"instances\":1,\"y\":2}",
        "{\"instances\":1e999999}", "{\"instances\":NaN}", "{\"instances\":99999}", "\xff"}) {
    EXPECT_FALSE(ParseScaleBody(bad).ok()) << bad;
  }
  EXPECT_FALSE(ParseScaleBody(std::string(60000, '[')).ok());
  EXPECT_EQ(*ParseRollbackBody(""), std::nullopt);
  EXPECT_EQ(*ParseRollbackBody("{\"version\":2}"), 2U);
  EXPECT_FALSE(ParseRollbackBody("{\"version\":0}").ok());
}

class ClockTest : public ::testing::Test {
 protected:
  using Phase = ConnectionClock::Phase;
  TimePoint At(int ms) const { return start_ + std::chrono::milliseconds(ms); }
  ConnectionPatience patience_;
  TimePoint start_{std::chrono::hours(1)};
};

TEST_F(ClockTest, HeadsHaveAnAbsoluteDeadline) {
  const ConnectionClock clock(patience_, At(0));
  EXPECT_FALSE(clock.Expired(At(14999)));
  EXPECT_TRUE(clock.Expired(At(15000)));
}

TEST_F(ClockTest, ABodyMayBeSlowButNotForEver) {
  ConnectionClock clock(patience_, At(0));
  clock.Enter(Phase::kBody, At(0));
  for (int s = 1; s < 100; ++s) {
    clock.OnBodyBytes(1024, At(s * 1000));  // exactly the least rate
    EXPECT_FALSE(clock.Expired(At(s * 1000)));
  }
  EXPECT_TRUE(clock.Expired(At(100 * 1000 + 31 * 1000)));
}

TEST_F(ClockTest, OurOwnSlownessCostsTheClientNothing) {
  ConnectionClock clock(patience_, At(0));
  clock.Enter(Phase::kBody, At(0));
  clock.Enter(Phase::kOurs, At(10 * 1000));
  EXPECT_FALSE(clock.Expired(At(9000 * 1000)));
  clock.Enter(Phase::kBody, At(1000 * 1000));
  EXPECT_FALSE(clock.Expired(At(1019 * 1000)));
  EXPECT_TRUE(clock.Expired(At(1020 * 1000)));
}

TEST_F(ClockTest, AReaderThatStallsIsCutAndASlowStreamIsNot) {
  ConnectionClock stalled(patience_, At(0));
  stalled.Enter(Phase::kReply, At(0));
  stalled.OnReplyProgress(0, 5000, At(1000));
  stalled.OnReplyProgress(31, 5000, At(31 * 1000));
  EXPECT_TRUE(stalled.Expired(At(31 * 1000)));
  ConnectionClock idle(patience_, At(0));
  idle.Enter(Phase::kReply, At(0));
  for (int s = 1; s < 200; ++s) {
    idle.OnReplyProgress(31, 0, At(s * 1000));
    EXPECT_FALSE(idle.Expired(At(s * 1000))) << s;
  }
}

TEST(ReasonPhrase, IsTheRegisteredOne) {
  EXPECT_EQ(ReasonPhrase(100), "Continue");
  EXPECT_EQ(ReasonPhrase(414), "URI Too Long");
  EXPECT_EQ(ReasonPhrase(431), "Request Header Fields Too Large");
  EXPECT_EQ(ReasonPhrase(511), "Network Authentication Required");
  for (const int free : {0, 104, 299, 418, 430, 509, 600}) EXPECT_EQ(ReasonPhrase(free), "Unknown");
}

}  // namespace
}  // namespace pulga::testing
