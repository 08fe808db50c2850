// Users and API keys over HTTP: which route is which action, and who gets where.
#include "api/account_codec.h"
#include "api/authorization.h"
#include "base/file_io.h"
#include "tests/support/loopback.h"

namespace pulga::testing {
namespace {

TEST(ActionOf, KnowsEveryRouteOfTheManagement) {
  auto loop = EventLoop::Create().value();
  FakeEngine engine(*loop);
  Router router;
  AddAllRoutes(router, engine, *loop, {});
  // What nobody but an administrator may ask because nothing else was said; on purpose.
  const std::vector<std::string> only_administer = {"POST /v1/users", "PATCH /v1/users/{name}",
                                                    "DELETE /v1/users/{name}", "GET /v1/history"};
  for (const Route& route : router.routes()) {
    const bool managed = IsManagementPath(route.pattern) || route.pattern.starts_with("/system");
    const std::string name = route.method + " " + route.pattern;
    const bool listed =
        std::find(only_administer.begin(), only_administer.end(), name) != only_administer.end();
    if (!managed || route.pattern == kSignInPath) continue;
    EXPECT_EQ(ActionOf(route.method, route.pattern) == Action::kAdminister, listed) << name;
  }
}

TEST(ActionOf, TellsLookingFromChangingAndIsNotFooledByPaths) {
  EXPECT_EQ(ActionOf("GET", "/v1/functions/f"), Action::kSeeFunctions);
  EXPECT_EQ(ActionOf("HEAD", "/v1/functions"), Action::kSeeFunctions);
  EXPECT_EQ(ActionOf("GET", "/v1/functions/f/logs"), Action::kDeploy);
  EXPECT_EQ(ActionOf("GET", "/v1/functions/logs"), Action::kSeeFunctions);
  EXPECT_EQ(ActionOf("PUT", "/v1/functions/f"), Action::kDeploy);
  EXPECT_EQ(ActionOf("GET", "/v1/uploads"), Action::kDeploy);
  EXPECT_EQ(ActionOf("POST", "/v1/keys"), Action::kMakeKeys);
  EXPECT_EQ(ActionOf("PUT", "/v1/users/a/password"), Action::kUseAccount);
  EXPECT_EQ(ActionOf("PUT", "/v1/users/password"), Action::kAdminister);
  EXPECT_EQ(ActionOf("PATCH", "/v1/users/a/password"), Action::kAdminister);
  EXPECT_EQ(ActionOf("GET", "/metrics"), Action::kSeeBoard);
  for (const char* odd : {"/v1", "/v1/usersx", "/v1//users", "/v1/Users", "/v1/none", "/ui/"}) {
    EXPECT_EQ(ActionOf("GET", odd), Action::kAdminister) << odd;
  }
}

TEST(AccountBodies, TakeWhatTheyKnowAndNothingElse) {
  EXPECT_EQ(ParseNewUserBody(R"({"name":"ada","role":"standard"})").value().role, Role::kStandard);
  for (const char* bad :
       {"", "[]", "{}", R"({"name":"ada"})", R"({"name":"ada","role":"root"})",
        R"({"name":"../a","role":"limited"})", R"({"name":1,"role":"limited"})",
        R"({"name":"a","name":"b","role":"limited"})", R"({"name":"a","role":"limited","id":7})"}) {
    EXPECT_FALSE(ParseNewUserBody(bad).ok()) << bad;
  }
  EXPECT_EQ(ParseUserChangeBody(R"({"disabled":true})").value().state, UserState::kDisabled);
  for (const char* bad : {"{}", R"({"disabled":1})", R"({"name":"b"})", R"({"role":null})"}) {
    EXPECT_FALSE(ParseUserChangeBody(bad).ok()) << bad;
  }
  const KeyOrder order =
      ParseKeyOrderBody(R"({"scopes":["deploy"],"expires_in":"1h"})", "me").value();
  EXPECT_EQ(order.user, "me");
  EXPECT_EQ(order.lifetime, std::chrono::hours(1));
  for (const char* bad :
       {"{}", R"({"scopes":[]})", R"({"scopes":["all"]})", R"({"scopes":[1]})",
        R"({"scopes":["deploy"],"expires_in":"0s"})", R"({"scopes":["deploy"],"expires_in":"-1h"})",
        R"({"scopes":["deploy"],"user":"a/b"})", R"({"scopes":["deploy"],"label":"\n"})"}) {
    EXPECT_FALSE(ParseKeyOrderBody(bad, "me").ok()) << bad;
  }
}

class AccountRoutesTest : public Loopback {
 protected:
  std::string As(const std::string& key, const std::string& line, const std::string& body = "") {
    return Ask(line + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key +
                   "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n",
               body);
  }
  int StatusAs(const std::string& key, const std::string& line, const std::string& body = "") {
    return StatusOf(As(key, line, body));
  }
  void AddUser(const std::string& name, const std::string& role) {
    const std::string made =
        Admin("POST /v1/users", R"({"name":")" + name + R"(","role":")" + role + "\"}");
    ASSERT_EQ(StatusOf(made), 201) << made;
  }
  // The text of a new key.
  std::string KeyOf(const std::string& user, const std::string& scopes) {
    const std::string made =
        Admin("POST /v1/keys", R"({"user":")" + user + R"(","scopes":[)" + scopes + "]}");
    EXPECT_EQ(StatusOf(made), 201) << made;
    const size_t at = made.find("\"key\":\"") + 7;
    return made.substr(at, made.find('"', at) - at);
  }
  // What the last call's function got.
  std::string AuthorizationOfCall() {
    for (const auto& [name, value] : LastCall()->request.headers) {
      if (EqualsIgnoreCase(name, "Authorization")) return value;
    }
    return "";
  }
  static std::string IdOf(const std::string& key) { return key.substr(6, 16); }
};

constexpr const char* kBoth = R"("sign-in","deploy")";

TEST_F(AccountRoutesTest, AnAdministratorsKeyDoesWhatItsScopesSay) {
  Start();
  const std::string deploy = KeyOf("admin", R"("deploy")");
  EXPECT_EQ(StatusAs(deploy, "PUT /v1/functions/f", R"({"image":"hello"})"), 201);
  EXPECT_EQ(StatusAs(deploy, "GET /v1/functions"), 200);
  EXPECT_EQ(StatusAs(deploy, "GET /system/functions"), 200);
  for (const char* line : {"GET /v1/users", "GET /v1/keys", "GET /v1/system", "GET /v1/history",
                           "GET /system/info", "GET /metrics", "DELETE /v1/users/admin"}) {
    EXPECT_EQ(StatusAs(deploy, line), 403) << line;
  }
  EXPECT_EQ(StatusAs(deploy, "POST /v1/keys", R"({"scopes":["sign-in"]})"), 403);
  const std::string sign_in = KeyOf("admin", R"("sign-in")");
  EXPECT_EQ(StatusAs(sign_in, "GET /v1/functions"), 200);
  EXPECT_EQ(StatusAs(sign_in, "GET /v1/users"), 200);
  EXPECT_EQ(StatusAs(sign_in, "GET /metrics"), 200);
  const std::string refused = As(sign_in, "DELETE /v1/functions/f");
  EXPECT_EQ(StatusOf(refused), 403);
  EXPECT_NE(refused.find("this needs a key with the scope deploy"), std::string::npos) << refused;
  EXPECT_EQ(StatusAs(sign_in, "PUT /system/functions", "{}"), 403);
}

TEST_F(AccountRoutesTest, UsersSeeThemselvesAndNobodyElse) {
  Start();
  AddUser("ada", "standard");
  AddUser("bob", "limited");
  const std::string ada = KeyOf("ada", kBoth);
  const std::string bob = KeyOf("bob", kBoth);
  EXPECT_EQ(BodyOf(As(ada, "GET /v1/users")).find("bob"), std::string::npos);
  EXPECT_EQ(StatusAs(ada, "GET /v1/users/ada"), 200);
  const std::string others = As(ada, "GET /v1/users/bob");
  EXPECT_EQ(StatusOf(others), 404);
  EXPECT_EQ(BodyOf(others), BodyOf(As(ada, "GET /v1/users/ghost"))) << "tells who there is";
  EXPECT_EQ(BodyOf(As(ada, "GET /v1/keys")).find(IdOf(bob)), std::string::npos);
  EXPECT_EQ(BodyOf(As(ada, "DELETE /v1/keys/" + IdOf(bob))),
            BodyOf(As(ada, "DELETE /v1/keys/0000000000000000")));
  EXPECT_EQ(StatusAs(bob, "GET /v1/keys"), 200) << "still there";
  EXPECT_EQ(StatusAs(bob, "DELETE /v1/keys/" + IdOf(bob)), 204);
  EXPECT_EQ(StatusAs(bob, "GET /v1/keys"), 401);
}

TEST_F(AccountRoutesTest, NobodyRaisesThemselves) {
  Start();
  AddUser("ada", "standard");
  AddUser("bob", "limited");
  const std::string ada = KeyOf("ada", kBoth);
  const std::string bob = KeyOf("bob", kBoth);
  for (const std::string& key : {ada, bob}) {
    EXPECT_EQ(StatusAs(key, "PATCH /v1/users/ada", R"({"role":"administrator"})"), 403);
    EXPECT_EQ(StatusAs(key, "POST /v1/users", R"({"name":"eve","role":"administrator"})"), 403);
    EXPECT_EQ(StatusAs(key, "DELETE /v1/users/bob"), 403);
    EXPECT_EQ(StatusAs(key, "PUT /v1/functions/f", R"({"image":"hello"})"), 403);
    EXPECT_EQ(StatusAs(key, "GET /v1/functions"), 403);
    EXPECT_EQ(StatusAs(key, "GET /v1/secrets"), 403);
    EXPECT_EQ(StatusAs(key, "GET /v1/nothing"), 403);
  }
  EXPECT_EQ(StatusAs(ada, "POST /v1/keys", R"({"scopes":["sign-in"]})"), 201);
  EXPECT_EQ(StatusAs(ada, "POST /v1/keys", R"({"user":"admin","scopes":["sign-in"]})"), 404);
  EXPECT_EQ(StatusAs(bob, "POST /v1/keys", R"({"scopes":["sign-in"]})"), 403);
  EXPECT_EQ(StatusAs(ada, "GET /v1/system"), 200);
  EXPECT_EQ(StatusAs(bob, "GET /v1/system"), 403);
}

TEST_F(AccountRoutesTest, DisabledAndRemovedUsersAreStrangersAtOnce) {
  Start();
  AddUser("ada", "administrator");
  const std::string ada = KeyOf("ada", kBoth);
  EXPECT_EQ(StatusAs(ada, "GET /v1/functions"), 200);
  EXPECT_EQ(StatusOf(Admin("PATCH /v1/users/ada", R"({"disabled":true})")), 200);
  const std::string disabled = As(ada, "GET /v1/functions");
  EXPECT_EQ(StatusOf(disabled), 401);
  const std::string unknown = As("pulga_0000000000000000_" + ada.substr(23), "GET /v1/functions");
  EXPECT_EQ(BodyOf(disabled), BodyOf(unknown));
  EXPECT_EQ(StatusAs(ada, "GET /system/functions"), 401);
  EXPECT_EQ(StatusOf(Admin("PATCH /v1/users/ada", R"({"disabled":false})")), 200);
  EXPECT_EQ(StatusAs(ada, "GET /v1/functions"), 200);
  EXPECT_EQ(StatusOf(Admin("DELETE /v1/users/ada")), 204);
  EXPECT_EQ(StatusAs(ada, "GET /v1/functions"), 401);
}

TEST_F(AccountRoutesTest, MistakesAreToldAndKeysNeverShownAgain) {
  Start();
  AddUser("ada", "standard");
  EXPECT_EQ(StatusOf(Admin("POST /v1/users", R"({"name":"ada","role":"limited"})")), 409);
  EXPECT_EQ(StatusOf(Admin("PATCH /v1/users/ghost", R"({"role":"limited"})")), 404);
  EXPECT_EQ(StatusOf(Admin("PATCH /v1/users/admin", R"({"role":"limited"})")), 409);
  EXPECT_EQ(StatusOf(Admin("DELETE /v1/users/admin")), 409);
  EXPECT_EQ(StatusOf(Admin("POST /v1/keys", R"({"user":"ghost","scopes":["deploy"]})")), 404);
  EXPECT_EQ(StatusOf(Admin("POST /v1/keys", "{}")), 400);
  EXPECT_EQ(StatusOf(Admin("DELETE /v1/keys/..%2f")), 404);
  EXPECT_EQ(StatusOf(Admin("POST /v1/users", std::string(5000, ' '))), 413);
  const std::string key = KeyOf("ada", kBoth);
  const std::string list = Admin("GET /v1/keys");
  EXPECT_NE(list.find(IdOf(key)), std::string::npos);
  EXPECT_EQ(list.find(key.substr(23)), std::string::npos);
  EXPECT_EQ(list.find("sha256"), std::string::npos);
}

TEST_F(AccountRoutesTest, APasswordGivesAKeyAndIsChangedByWhoKnowsIt) {
  Start();
  AddUser("ada", "limited");
  const std::string set = "PUT /v1/users/ada/password";
  EXPECT_EQ(StatusOf(Admin(set, R"({"password":"short"})")), 400);
  EXPECT_EQ(StatusOf(Admin(set, R"({"password":"the first of them"})")), 204);
  const std::string in =
      Call("POST /v1/sign-in", R"({"name":"ada","password":"the first of them"})");
  ASSERT_EQ(StatusOf(in), 200) << in;
  const size_t at = in.find("pulga_");
  const std::string key = in.substr(at, in.find('"', at) - at);
  EXPECT_EQ(StatusAs(key, "GET /v1/users/ada"), 200);
  EXPECT_EQ(StatusAs(key, set, R"({"password":"the second of them"})"), 401);
  EXPECT_EQ(StatusAs(key, "PUT /v1/users/admin/password", R"({"password":"the second of them"})"),
            404);
  EXPECT_EQ(
      StatusAs(key, set, R"({"password":"the second of them","current":"the first of them"})"),
      204);
  EXPECT_EQ(StatusAs(key, "GET /v1/users/ada"), 401) << "it ended with the password";
  EXPECT_EQ(Admin("GET /v1/users/ada").find("$7$"), std::string::npos);
}

TEST_F(AccountRoutesTest, WrongPasswordsAreAnsweredAlikeAndThenNotLookedAt) {
  Start();
  AddUser("ada", "limited");
  const auto attempt = [this](const std::string& name) {
    return Call("POST /v1/sign-in", R"({"name":")" + name + R"(","password":"a wrong password"})");
  };
  EXPECT_EQ(BodyOf(attempt("ada")), BodyOf(attempt("ghost")));
  for (uint32_t i = 1; i < SignInLimits::kFreeForUser; ++i)
    EXPECT_EQ(StatusOf(attempt("ada")), 401);
  const std::string refused = attempt("ada");
  EXPECT_EQ(StatusOf(refused), 429);
  EXPECT_NE(refused.find("Retry-After: 1"), std::string::npos) << refused;
  for (const char* bad : {"", "{}", R"({"name":"../a","password":"x"})", R"({"name":1})"}) {
    EXPECT_EQ(StatusOf(Call("POST /v1/sign-in", bad)), 400) << bad;
  }
}

TEST_F(AccountRoutesTest, CallsNeedNoKeyUnlessTheBoardSaysSo) {
  Start();
  const std::string token = "Bearer of-the-function";
  EXPECT_EQ(
      StatusOf(Ask("GET /function/echo HTTP/1.1\r\nHost: x\r\nAuthorization: " + token + "\r\n")),
      200);
  EXPECT_EQ(AuthorizationOfCall(), token) << "it is between the caller and the function";
}

TEST_F(AccountRoutesTest, ACallThatNeedsAKeyIsMadeWithoutIt) {
  DaemonConfig config;
  config.call_access = CallAccess::kKey;
  Start(config);
  AddUser("bob", "limited");
  const std::string caller = KeyOf("bob", R"("invoke")");
  for (const std::string& key : {caller, std::string("sesame")}) {
    EXPECT_EQ(StatusAs(key, "POST /function/echo", "x"), 200);
    EXPECT_EQ(AuthorizationOfCall(), "") << "a function sees its caller's key";
  }
  EXPECT_EQ(StatusAs(caller, "POST /async-function/echo", "x"), 202);
  EXPECT_EQ(StatusOf(Ask("GET /function/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " +
                         Base64Encode("admin:open") + "\r\n")),
            200);
  EXPECT_EQ(StatusOf(Call("GET /healthz")), 200);
}

TEST_F(AccountRoutesTest, ACallThatNeedsAKeyIsRefusedWithoutAFitOne) {
  DaemonConfig config;
  config.call_access = CallAccess::kKey;
  Start(config);
  for (const char* line : {"GET /function/echo", "POST /async-function/echo",
                           "GET /function/absent", "DELETE /async-function/id"}) {
    const std::string refused = Call(line);
    EXPECT_EQ(StatusOf(refused), 401) << line;
    EXPECT_NE(refused.find("WWW-Authenticate: Bearer"), std::string::npos) << refused;
    EXPECT_NE(refused.find("X-Pulga-Outcome: rejected:unauthorized"), std::string::npos) << refused;
  }
  EXPECT_EQ(StatusAs(KeyOf("admin", kBoth), "GET /function/echo"), 403);
  EXPECT_TRUE(OnLoop([this] { return engine_->calls.empty(); }));
  OnLoop([this] { return front_->Reload({}), 0; });
  EXPECT_EQ(StatusOf(Call("GET /function/echo")), 200);
}

}  // namespace
}  // namespace pulga::testing
