// Export, verify and prune over a real loopback connection and an engine in memory.
#include <gmock/gmock.h>

#include "tests/support/loopback.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

class UpkeepRoutes : public Loopback {
 protected:
  void SetUp() override {
    Loopback::SetUp();
    Start();
    OnLoop([&] {
      engine_->images["hello:1"] = SampleImage("hello:1");
      engine_->images["x/export"] = SampleImage("x/export");
      return 0;
    });
  }
  std::string Request(const std::string& line, const std::string& body = "") {
    return Ask(line + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\nContent-Length: " +
                   std::to_string(body.size()) + "\r\n",
               body);
  }
};

TEST_F(UpkeepRoutes, AnExportHasALengthAndAFileName) {
  const std::string reply = Request("GET /v1/images/hello:1/export");
  EXPECT_EQ(StatusOf(reply), 200);
  EXPECT_THAT(reply, HasSubstr("Content-Length: 10\r\n"));
  EXPECT_THAT(reply, HasSubstr("Content-Type: application/x-tar"));
  EXPECT_THAT(reply, HasSubstr("filename=\"hello-1.tar\""));
  EXPECT_EQ(BodyOf(reply), "an archive");
}

TEST_F(UpkeepRoutes, AnExportThatBreaksOffIsShorterThanItSaid) {
  OnLoop([&] {
    engine_->archive_breaks = true;
    return 0;
  });
  const std::string reply = Request("GET /v1/images/hello:1/export");
  EXPECT_THAT(reply, HasSubstr("Content-Length: 10\r\n"));
  EXPECT_EQ(BodyOf(reply), "an ar");
}

TEST_F(UpkeepRoutes, UnknownImagesAreNotFound) {
  for (const char* line : {"GET /v1/images/nobody:1/export", "POST /v1/images/nobody:1/verify"}) {
    const std::string reply = Request(line);
    EXPECT_EQ(StatusOf(reply), 404) << line;
    EXPECT_THAT(reply, HasSubstr("image_not_found"));
  }
}

TEST_F(UpkeepRoutes, ANameMayHoldSlashesAndEvenTheRoutesOwnWord) {
  EXPECT_EQ(StatusOf(Request("GET /v1/images/x/export/export")), 200);
  EXPECT_EQ(StatusOf(Request("GET /v1/images/x%2Fexport")), 200);
  EXPECT_EQ(StatusOf(Request("GET /v1/images/hello:1")), 200);
}

TEST_F(UpkeepRoutes, VerifyTellsWhatDiffers) {
  const std::string intact = Request("POST /v1/images/hello:1/verify");
  EXPECT_EQ(StatusOf(intact), 200);
  EXPECT_THAT(intact, HasSubstr("\"intact\":true,\"layers\":[{\"diff_id\":\"sha256:dd"));
  OnLoop([&] {
    engine_->differences = {{"etc/passwd", "content"}};
    return 0;
  });
  EXPECT_THAT(Request("POST /v1/images/hello:1/verify"),
              HasSubstr("\"intact\":false,\"differences\":[{\"path\":\"etc/passwd\","
                        "\"what\":\"content\"}]"));
}

TEST_F(UpkeepRoutes, PruneTakesImagesWithANameOnlyWhenTold) {
  const std::string none = Request("POST /v1/images/prune");
  EXPECT_THAT(none, HasSubstr("{\"images\":[],\"layers\":0,\"freed_bytes\":0}"));
  EXPECT_EQ(StatusOf(Request("POST /v1/images/prune", R"({"all":"yes"})")), 400);
  const std::string all = Request("POST /v1/images/prune", R"({"all":true})");
  EXPECT_EQ(StatusOf(all), 200);
  EXPECT_THAT(all, HasSubstr("\"refs\":[\"hello:1\"]"));
}

TEST_F(UpkeepRoutes, TheyWantTheKey) {
  for (const char* line : {"GET /v1/images/hello:1/export", "POST /v1/images/hello:1/verify",
                           "POST /v1/images/prune"}) {
    EXPECT_EQ(StatusOf(Ask(std::string(line) + " HTTP/1.1\r\nHost: x\r\n")), 401) << line;
  }
}

}  // namespace
}  // namespace pulga::testing
