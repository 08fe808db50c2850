// The OpenFaaS dialect over a real loopback connection and an engine in memory.
#include "api/openfaas/json_object.h"
#include "tests/support/loopback.h"

namespace pulga::testing {
namespace {

class OpenFaas : public Loopback {
 protected:
  static bool Has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
  }
  std::string AskAs(const std::string& request_line, const std::string& authorization,
                    const std::string& body = "") {
    return Ask(request_line + " HTTP/1.1\r\nHost: x\r\nAuthorization: " + authorization +
                   "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n",
               body);
  }
  std::string Login(const std::string& request_line, const std::string& body = "") {
    return AskAs(request_line, "Basic " + Base64Encode("admin:open"), body);
  }
};

TEST_F(OpenFaas, StrangersAreTurnedAwayAsTheGatewayDoes) {
  Start();
  const std::vector<std::string> keys = {"",
                                         "Bearer ",
                                         "Bearer wrong",
                                         "Basic !",
                                         "Basic " + Base64Encode("admin:wrong"),
                                         "Basic " + Base64Encode("admin:open:"),
                                         "Basic " + Base64Encode(":")};
  for (const std::string& key : keys) {
    const std::string reply = AskAs("GET /system/info", key);
    EXPECT_EQ(StatusOf(reply), 401) << key;
    EXPECT_TRUE(Has(reply, "WWW-Authenticate: Basic realm=\"Restricted\"\r\n")) << reply;
    EXPECT_EQ(BodyOf(reply), "invalid credentials");
  }
  for (const char* path : {"/system", "/system/none", "/ui/"}) {
    EXPECT_EQ(StatusOf(Call(std::string("GET ") + path)), 401) << path;
  }
  EXPECT_EQ(StatusOf(Call("GET /systematic")), 404);
}

TEST_F(OpenFaas, TheLoginAndTheAdminKeyOpenIt) {
  Start();
  EXPECT_EQ(StatusOf(Login("GET /system/info")), 200);
  EXPECT_EQ(StatusOf(Admin("GET /system/info")), 200);
  EXPECT_EQ(StatusOf(Login("GET /system/info?any=thing&any=thing")), 200);
  EXPECT_EQ(StatusOf(Login("GET /v1/system")), 401) << "the password is not the admin key";
}

TEST_F(OpenFaas, UnknownPathsAndMethodsAreThoseOfTheOriginal) {
  Start();
  const std::string missing = Login("GET /system/telemetry");
  EXPECT_EQ(StatusOf(missing), 404);
  EXPECT_EQ(BodyOf(missing), "404 page not found\n");
  EXPECT_TRUE(Has(missing, "X-Content-Type-Options: nosniff\r\n"));
  EXPECT_TRUE(Has(missing, "Content-Type: text/plain; charset=utf-8\r\n"));
  const std::string wrong = Login("PATCH /system/info");
  EXPECT_EQ(StatusOf(wrong), 405);
  EXPECT_EQ(BodyOf(wrong), "");
}

TEST_F(OpenFaas, SaysWhatItIsUnderTheConfiguredName) {
  DaemonConfig config;
  config.provider_name = "faasd";
  Start(config);
  const std::string info = BodyOf(Login("GET /system/info"));
  EXPECT_TRUE(Has(info, R"("provider":"faasd")")) << info;
  for (const char* field : {"sha", "release", "orchestration", "arch"}) {
    EXPECT_TRUE(Has(info, "\"" + std::string(field) + "\":\"")) << field;
    EXPECT_FALSE(Has(info, "\"" + std::string(field) + "\":\"\"")) << field;
  }
}

TEST(LenientJson, ReadsWhatClientsOfAllAgesSend) {
  const auto read =
      JsonObject::Parse(R"({"a":"x","n":3,"on":true,"list":["a","b"],"none":null,"more":{"x":[1]},)"
                        R"("texts":{"a":"1","b":2,"c":true}})");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->Text("a"), "x");
  EXPECT_EQ(read->Number("n"), 3U);
  EXPECT_TRUE(read->Flag("on"));
  EXPECT_EQ(read->Texts("list"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read->TextMap("texts").at("b"), "2");
  EXPECT_FALSE(read->Has("none"));
  EXPECT_EQ(read->Text("none") + read->Text("absent"), "");
  EXPECT_TRUE(read->status().ok());
}

TEST(LenientJson, NamesTheFirstFieldOfAnotherType) {
  const auto read = JsonObject::Parse(R"({"a":1,"n":1.5,"m":-1,"list":[1],"texts":{"x":null}})");
  ASSERT_TRUE(read.ok());
  read->Number("n");
  read->Text("a");
  EXPECT_EQ(read->status().error().message, "n: a whole number, not below 0, is expected");
  const auto fails = [](const auto& use) {
    const auto again = JsonObject::Parse(R"({"a":1,"m":-1,"list":[1],"texts":{"x":null}})");
    use(*again);
    return !again->status().ok();
  };
  EXPECT_TRUE(fails([](const JsonObject& json) { json.Text("a"); }));
  EXPECT_TRUE(fails([](const JsonObject& json) { json.Number("m"); }));
  EXPECT_TRUE(fails([](const JsonObject& json) { json.Flag("a"); }));
  EXPECT_TRUE(fails([](const JsonObject& json) { json.Texts("list"); }));
  EXPECT_TRUE(fails([](const JsonObject& json) { json.TextMap("texts"); }));
}

TEST(LenientJson, RefusesWhatIsNoObject) {
  for (const char* text : {"[]", "1", "{", "{}}", "{\"a\":1,\"a\":2}", "\"x\""}) {
    EXPECT_FALSE(JsonObject::Parse(text).ok()) << text;
  }
  EXPECT_TRUE(JsonObject::Parse("").ok()) << "an empty body has no fields";
}

}  // namespace
}  // namespace pulga::testing
