// POST /v1/images/pull over a real loopback connection and an engine in memory.
#include "base/text.h"
#include "tests/support/loopback.h"

namespace pulga::testing {
namespace {

class PullRoute : public Loopback {
 protected:
  static bool Has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
  }
  std::string Pull(const std::string& body, const std::string& headers = "") {
    return Ask("POST /v1/images/pull HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n" +
                   headers + "Content-Length: " + std::to_string(body.size()) + "\r\n",
               body);
  }
  void Give(ImportReport report) {
    OnLoop([&] {
      engine_->import_report = std::move(report);
      return 0;
    });
  }
};

TEST_F(PullRoute, AnswersOnceWhenItIsDone) {
  Start();
  ImportReport report;
  report.images = {SampleImage("new:1")};
  Give(report);
  const std::string reply = Pull(R"({"ref":"new"})");
  EXPECT_EQ(StatusOf(reply), 201);
  EXPECT_TRUE(Has(BodyOf(reply), "\"ref\":\"new:1\"")) << reply;
  report.anything_new = false;
  Give(report);
  EXPECT_EQ(StatusOf(Pull(R"({"ref":"new"})")), 200);
}

TEST_F(PullRoute, TellsProgressLineByLineToWhoWantsIt) {
  Start();
  ImportReport report;
  report.images = {SampleImage("new:1")};
  Give(report);
  const std::string reply = Pull(R"({"ref":"new"})", "Accept: application/x-ndjson\r\n");
  EXPECT_EQ(StatusOf(reply), 200);
  EXPECT_TRUE(Has(reply,
                  "{\"progress\":{\"layer\":1,\"layers\":2,\"digest\":\"sha256:aa\","
                  "\"bytes\":5,\"size\":10,\"total_size\":30}}\n"))
      << reply;
  EXPECT_TRUE(Has(reply, "{\"result\":{\"images\":[")) << reply;
  report = {};
  report.status = Error{Code::kPermission, 0, "who are you"};
  report.reason = ImportReason::kDenied;
  Give(report);
  const std::string refused = Pull(R"({"ref":"new"})", "Accept: application/x-ndjson\r\n");
  EXPECT_TRUE(Has(refused, "{\"error\":{\"code\":\"registry_denied\",\"message\":\"who are you\""))
      << refused;
}

TEST_F(PullRoute, FailuresHaveTheirStatus) {
  Start();
  const std::pair<ImportReason, int> kReasons[] = {{ImportReason::kDenied, 403},
                                                   {ImportReason::kNoSuchImage, 404},
                                                   {ImportReason::kRegistry, 502},
                                                   {ImportReason::kHelper, 503}};
  for (const auto& [reason, status] : kReasons) {
    ImportReport report;
    report.status = Error{Code::kUnavailable, 0, "told"};
    report.reason = reason;
    Give(report);
    EXPECT_EQ(StatusOf(Pull(R"({"ref":"new"})")), status);
  }
}

TEST_F(PullRoute, CredentialsAreReadAsDockerWritesThem) {
  Start();
  const std::string auth = Base64Encode("me:secret");
  EXPECT_EQ(StatusOf(Pull("{\"ref\":\"a\",\"auth\":\"" + auth + "\"}")), 201);
  EXPECT_EQ(StatusOf(Pull(R"({"ref":"a","auth":{"identitytoken":"t"}})")), 201);
  EXPECT_EQ(StatusOf(Pull(R"({"ref":"a"})")), 201);
  OnLoop([this] {
    EXPECT_EQ(engine_->pulls.at(0).login->password, "secret");
    EXPECT_EQ(engine_->pulls.at(1).login->identity_token, "t");
    EXPECT_FALSE(engine_->pulls.at(2).login.has_value());
    return 0;
  });
}

TEST_F(PullRoute, BadRequestsAreRefused) {
  Start();
  for (const char* body : {"", "{}", "[]", R"({"ref":""})", R"({"ref":"A B"})", R"({"ref":1})",
                           R"({"ref":"a","ref":"b"})", R"({"ref":"a","tag":"1"})",
                           R"({"ref":"a","auth":"secret"})", R"({"ref":"a","auth":5})"}) {
    const std::string reply = Pull(body);
    EXPECT_EQ(StatusOf(reply), 400) << body;
    EXPECT_FALSE(Has(reply, "secret")) << reply;
  }
  EXPECT_EQ(StatusOf(Pull(std::string(70'000, ' '))), 413);
}

TEST_F(PullRoute, WhoLeavesEndsIt) {
  Start();
  {
    RawClient client = Connect();
    const std::string body = R"({"ref":"slow"})";
    client.Send(
        "POST /v1/images/pull HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n"
        "Content-Length: " +
        std::to_string(body.size()) + "\r\n\r\n" + body);
    EXPECT_TRUE(Eventually([this] { return engine_->pulls.size() == 1; }));
    EXPECT_EQ(OnLoop([this] { return engine_->pulls_cancelled; }), 0);
  }
  EXPECT_TRUE(Eventually([this] { return engine_->pulls_cancelled == 1; }));
}

}  // namespace
}  // namespace pulga::testing
