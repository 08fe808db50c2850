// The OpenFaaS dialect over a real loopback connection and an engine in memory.
#include "api/openfaas/deployment.h"
#include "api/openfaas/function_json.h"
#include "api/openfaas/gateway_metrics.h"
#include "api/openfaas/json_object.h"
#include "api/openfaas/usage_book.h"
#include "runtime/openfaas_timeouts.h"
#include "sandbox/network_rule.h"
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

TEST_F(OpenFaas, NamesFunctionsByALabel) {
  Start();
  Login("POST /system/functions", R"({"service":"e","image":"hello"})");
  Login("POST /system/functions",
        R"({"service":"f","image":"hello","labels":{"faas_function":"mine"}})");
  const std::string listed = BodyOf(Login("GET /system/functions"));
  EXPECT_TRUE(Has(listed, R"("labels":{"faas_function":"e"})")) << listed;
  EXPECT_TRUE(Has(listed, R"("labels":{"faas_function":"mine"})")) << "as said: " << listed;
}

TEST_F(OpenFaas, AddsNoLabelAsFaasd) {
  DaemonConfig config;
  config.provider_name = "faasd";
  Start(config);
  Login("POST /system/functions", R"({"service":"e","image":"hello"})");
  EXPECT_TRUE(Has(BodyOf(Login("GET /system/functions")), R"("labels":{})"));
}

// The statuses decide what faas-cli does next: see docs/openfaas.md.
TEST_F(OpenFaas, DeploysReplacesAndRemovesWithTheStatusesTheCliExpects) {
  Start();
  const std::string body = R"({"service":"f","image":"hello","registryAuth":""})";
  const auto answer = [&](const char* method, const std::string& text) {
    const std::string reply = Login(std::string(method) + " /system/functions", text);
    return std::to_string(StatusOf(reply)) + " " + BodyOf(reply);
  };
  EXPECT_EQ(answer("PUT", body), "404 service f not found\n");
  EXPECT_EQ(answer("POST", body), "200 ");
  EXPECT_EQ(answer("POST", body), "400 service f already exists\n");
  EXPECT_EQ(answer("PUT", body), "200 ");
  EXPECT_EQ(answer("POST", R"({"service":"g","image":"hello","namespace":"x"})"),
            "400 namespace not valid\n");
  EXPECT_TRUE(Has(answer("POST", R"({"service":"g","image":"gone:1"})"),
                  "400 unable to pull image docker.io/library/gone:1: cannot pull: "));
  EXPECT_TRUE(Has(answer("PUT", R"({"service":"f","image":"gone:1"})"), "500 unable to pull"));
  EXPECT_EQ(answer("POST", "{"), "400 this is not valid JSON\n");
  EXPECT_EQ(answer("POST", R"({"image":"hello"})"), "400 service: missing\n");
  EXPECT_EQ(answer("DELETE", R"({"functionName":"f"})"), "200 ");
  EXPECT_EQ(answer("DELETE", R"({"functionName":"f"})"), "404 service f not found\n");
}

TEST_F(OpenFaas, ListsAndShowsFunctions) {
  Start();
  EXPECT_EQ(BodyOf(Login("GET /system/functions")), "[]\n");
  Login("POST /system/functions", R"({"service":"f","image":"hello","envProcess":"cat"})");
  for (const char* path : {"/system/functions", "/system/function/f?usage=1",
                           "/system/function/f.openfaas-fn", "/system/functions?namespace="}) {
    const std::string shown = BodyOf(Login(std::string("GET ") + path));
    EXPECT_TRUE(Has(shown, R"("name":"f","namespace":"openfaas-fn")")) << shown;
    EXPECT_TRUE(
        Has(shown,
            R"("envProcess":"cat","labels":{"faas_function":"f"},"annotations":{},"replicas":1,)"));
  }
  EXPECT_EQ(StatusOf(Login("GET /system/function/g")), 404);
  EXPECT_EQ(StatusOf(Login("GET /system/functions?namespace=x")), 400);
}

TEST_F(OpenFaas, ScalesByTheNameInBodyOrPathAndNeverBeyondTheMaximum) {
  Start();
  Login("POST /system/functions", R"({"service":"f","image":"hello"})");
  const auto scaled = [this] {
    return OnLoop([this] { return engine_->functions["f"].activity.scaled.value_or(99); });
  };
  EXPECT_EQ(StatusOf(Login("POST /system/scale-function/f", R"({"replicas":2})")), 202);
  EXPECT_EQ(scaled(), 2U);
  Login("POST /system/scale-function/x", R"({"serviceName":"f","replicas":4000000000})");
  EXPECT_EQ(scaled(), 4U);
  Login("POST /system/scale-function/f", R"({"replicas":0})");
  EXPECT_TRUE(
      Has(BodyOf(Login("GET /system/function/f")), R"("replicas":0,"availableReplicas":0)"));
  EXPECT_EQ(StatusOf(Login("POST /system/scale-function/f", R"({"replicas":1.5})")), 400);
  EXPECT_EQ(StatusOf(Login("POST /system/scale-function/f", "{}")), 400);
  EXPECT_EQ(BodyOf(Login("POST /system/scale-function/g", R"({"replicas":1})")),
            "service g not found\n");
}

TEST_F(OpenFaas, NamespacesAreMadeWithASlashAtTheEnd) {
  Start();
  const std::string body = R"({"name":"dev","labels":{"openfaas":"1"}})";
  EXPECT_EQ(StatusOf(Login("POST /system/namespace/", body)), 201);
  EXPECT_EQ(StatusOf(Login("POST /system/namespace/", body)), 409);
  EXPECT_EQ(BodyOf(Login("GET /system/namespaces")), "[\"dev\",\"openfaas-fn\"]\n");
  EXPECT_EQ(StatusOf(Login("PUT /system/namespace/dev", body)), 202);
  EXPECT_EQ(StatusOf(Login("PUT /system/namespace/other", body)), 400);
  EXPECT_EQ(BodyOf(Login("POST /system/namespace/", R"({"name":"e"})")),
            "request does not have openfaas=1 label\n");
  EXPECT_EQ(StatusOf(Login("DELETE /system/namespace/dev", body)), 202);
  EXPECT_EQ(StatusOf(Login("GET /system/namespace/dev")), 404);
}

TEST_F(OpenFaas, CountsTheCallsOfFunctionsThatExist) {
  Start();
  Login("POST /system/functions", R"({"service":"echo","image":"hello"})");
  EXPECT_TRUE(Has(Call("POST /function/echo", "x"), "X-Served-By: pulga/"));
  Call("POST /function/missing", "x");
  EXPECT_EQ(StatusOf(Call("GET /metrics")), 401);
  const std::string metrics = BodyOf(Login("GET /metrics"));
  for (const char* line :
       {R"(gateway_function_invocation_total{code="200",function_name="echo.openfaas-fn"} 1)",
        R"(gateway_function_invocation_started{function_name="echo.openfaas-fn"} 1)",
        R"(gateway_functions_seconds_count{code="200",function_name="echo.openfaas-fn"} 1)",
        R"(gateway_service_count{function_name="echo.openfaas-fn"} 1)"}) {
    EXPECT_TRUE(Has(metrics, line)) << metrics;
  }
  EXPECT_FALSE(Has(metrics, "missing"));
}

TEST_F(OpenFaas, CountsAndTimesTheRequestsOfManagers) {
  Start();
  Login("GET /system/function/f");
  Login("GET /system/function/g.openfaas-fn");
  Login("GET /system/functions");
  Login("POST /system/namespace/", R"({"name":"dev","labels":{"openfaas":"1"}})");
  Call("GET /system/functions");
  const std::string metrics = BodyOf(Login("GET /metrics"));
  for (const char* line :
       {R"(provider_http_requests_total{code="404",method="GET",path="/system/function"} 2)",
        R"(provider_http_requests_total{code="200",method="GET",path="/system/functions"} 1)",
        R"(provider_http_requests_total{code="201",method="POST",path="/system/namespace"} 1)",
        R"(provider_http_request_duration_seconds_count{code="404",method="GET",)"}) {
    EXPECT_TRUE(Has(metrics, line)) << line << metrics;
  }
}

TEST_F(OpenFaas, CountsNobodyWhoLeftBeforeThereWasAStatus) {
  Start();
  {
    RawClient client = Connect();
    client.Send(
        "POST /system/functions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n"
        "Content-Length: 2\r\n\r\n{");
    ASSERT_TRUE(Eventually([this] { return front_->open_requests() == 1; }));
  }
  ASSERT_TRUE(Eventually([this] { return front_->open_requests() == 0; }));
  const std::string metrics = BodyOf(Login("GET /metrics"));
  EXPECT_FALSE(Has(metrics, R"(path="/system/functions")")) << metrics;
}

TEST_F(OpenFaas, AnEmptyFunctionNameIsNoFunction) {
  Start();
  EXPECT_EQ(StatusOf(Call("POST /function/.openfaas-fn", "x")), 404);
  EXPECT_EQ(StatusOf(Call("POST /function/Odd", "x")), 400);
  EXPECT_TRUE(Has(Call("GET /"), "Location: /ui/\r\n"));
  EXPECT_EQ(StatusOf(Login("POST /system/alert", R"({"alerts":[]})")), 200);
}

TEST(GatewayMetrics, ForgetsRemovedFunctionsAndBoundsCodes) {
  GatewayMetrics metrics;
  FunctionStatus there;
  there.key.name = "f";
  there.active = std::make_shared<Version>();
  for (int status = 100; status < 200; ++status) {
    metrics.NoteEnded(there.key, status, std::chrono::milliseconds(30));
  }
  const std::string text = metrics.Text({there}, {});
  EXPECT_NE(text.find(R"(invocation_total{code="other",function_name="f.openfaas-fn"} 68)"),
            std::string::npos);
  EXPECT_NE(text.find(R"(_bucket{code="100",function_name="f.openfaas-fn",le="0.025"} 0)"),
            std::string::npos);
  EXPECT_NE(text.find(R"(_bucket{code="100",function_name="f.openfaas-fn",le="0.05"} 1)"),
            std::string::npos);
  EXPECT_EQ(metrics.Text({}, {}).find("f.openfaas-fn"), std::string::npos);
}

Result<Deployment> Parse(const std::string& fields, DeploymentRoom room = {}) {
  const auto body = JsonObject::Parse(R"({"service":"f","image":"hello")" + fields + "}");
  return ParseDeployment(*body, "", room);
}

TEST(OpenFaasDeployment, MapsWhatMeansSomethingHere) {
  const auto made =
      Parse(R"(,"envProcess":"cat","envVars":{"n":3},"limits":{"memory":"","cpu":"1m"})",
            {64ULL << 20, NetworkMode::kEgress});
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_EQ(made->spec.env, (std::map<std::string, std::string>{{"fprocess", "cat"}, {"n", "3"}}));
  EXPECT_EQ(made->spec.mode, ModeChoice::kHttp);
  EXPECT_EQ(made->spec.port, 8080);
  EXPECT_EQ(made->spec.sandbox.cpu_millis, 10U);
  EXPECT_EQ(made->spec.sandbox.memory_bytes, 64ULL << 20) << "the budget is less than 128 MiB";
  EXPECT_EQ(made->spec.access.network.mode, NetworkMode::kEgress);
  const auto both = Parse(R"(,"envProcess":"cat","envVars":{"fprocess":"env"})");
  EXPECT_EQ(both->spec.env.at("fprocess"), "env");
}

TEST(OpenFaasDeployment, TakesTheTimeOfTheSetting) {
  EXPECT_EQ(Parse("")->spec.limits.timeout, std::chrono::seconds(60));
  DeploymentRoom room;
  room.timeout = std::chrono::minutes(5);
  EXPECT_EQ(Parse("", room)->spec.limits.timeout, std::chrono::minutes(5));
}

TEST(OpenFaasDeployment, MayOpenTheWayToALocalNetwork) {
  const DeploymentRoom room{1ULL << 30, NetworkMode::kEgress};
  const auto allow = [](const std::string& rules) {
    return R"(,"annotations":{"pulga.network.allow":")" + rules + "\"}";
  };
  const auto made = Parse(allow("192.168.1.5:1883, udp:10.0.0.0/8:53"), room);
  ASSERT_TRUE(made.ok()) << made.error().message;
  ASSERT_EQ(made->spec.access.network.allow.size(), 2U);
  EXPECT_EQ(made->spec.access.network.allow[0], *ParseNetworkRule("192.168.1.5:1883"));
  const auto odd = Parse(allow("192.168.1.5/99"), room);
  ASSERT_FALSE(odd.ok());
  EXPECT_TRUE(odd.error().message.starts_with("pulga.network.allow: ")) << odd.error().message;
  EXPECT_FALSE(Parse(allow("192.168.1.5:1883")).ok()) << "there is no network to open";
}

TEST(OpenFaasDeployment, FitsMemoryToTheBoardHoweverItIsWritten) {
  const auto memory = [](const std::string& text) {
    const auto made = Parse(R"(,"limits":{"memory":")" + text + "\"}", {1ULL << 30, {}});
    return made.ok() ? made->spec.sandbox.memory_bytes : 0;
  };
  EXPECT_EQ(memory("40Mi"), 40ULL << 20);
  EXPECT_EQ(memory("40m"), 40ULL << 20);
  EXPECT_EQ(memory("20M"), 20'000'000U);
  EXPECT_EQ(memory("5Mi"), 5ULL << 20);
  EXPECT_EQ(memory("1"), 1ULL << 20);
  EXPECT_EQ(memory("64Gi"), 1ULL << 30);
  EXPECT_EQ(memory("1g"), 1ULL << 30);
  EXPECT_EQ(memory("lots"), 0U) << "no quantity";
}

TEST(OpenFaasDeployment, ComesBackAsItWasSaid) {
  const auto made =
      Parse(R"(,"envProcess":"cat","envVars":{"a":"b"},"constraints":["c"],"labels":{"l":"m"},)"
            R"("limits":{"memory":"40m"},"requests":{"cpu":"1"},"readOnlyRootFilesystem":true)");
  FunctionStatus status;
  auto version = std::make_shared<Version>();
  version->spec = made->spec;
  status.active = version;
  const std::string shown = OpenFaasStatusJson(status, NameLabel::kNone, std::nullopt);
  EXPECT_NE(shown.find(R"("envProcess":"cat","envVars":{"a":"b"},"constraints":["c"],)"
                       R"("limits":{"memory":"40m"},"requests":{"cpu":"1"},)"
                       R"("readOnlyRootFilesystem":true,"labels":{"l":"m"},"annotations":{},)"),
            std::string::npos)
      << shown;
}

TEST(OpenFaasReplicas, AnIdleFunctionHasTheOneThatTheNextCallFinds) {
  FunctionStatus status;
  auto version = std::make_shared<Version>();
  status.active = version;
  EXPECT_EQ(ReplicasOf(status).wanted, 1U);
  EXPECT_EQ(ReplicasOf(status).available, 1U);
  status.activity.trouble = "its image is gone";
  EXPECT_EQ(ReplicasOf(status).available, 0U);
  status.activity.trouble.clear();
  status.activity.scaled = 0;
  EXPECT_EQ(ReplicasOf(status).wanted, 0U);
  status.activity.instances.resize(2);
  status.activity.instances[0].step = "warm";
  status.activity.instances[1].step = "starting";
  EXPECT_EQ(ReplicasOf(status).wanted, 1U) << "a call woke it";
  status.activity.scaled.reset();
  status.activity.instances.clear();
  version->spec.labels["com.openfaas.scale.zero"] = "true";
  EXPECT_EQ(ReplicasOf(status).wanted, 0U) << "it says of itself that it rests at none";
  EXPECT_EQ(ReplicasOf(status).available, 0U);
  status.activity.trouble = "its image is gone";
  EXPECT_EQ(ReplicasOf(status).wanted, 1U);
  status.activity.trouble.clear();
  status.activity.instances.resize(1);
  status.activity.instances[0].step = "warm";
  version->spec.scale.min = 3;
  EXPECT_EQ(ReplicasOf(status).wanted, 3U);
  EXPECT_EQ(ReplicasOf(status).available, 1U);
}

InstanceStatus Running(int64_t age_ms, int cpu_ms) {
  InstanceStatus instance;
  instance.age_ms = age_ms;
  instance.cpu_used = std::chrono::milliseconds(cpu_ms);
  return instance;
}

TEST(UsageBook, TellsTheUseSinceItWasLastAskedFor) {
  UsageBook book;
  FunctionStatus status;
  EXPECT_EQ(book.CpuMillis(status), std::nullopt);
  const auto ask = [&](std::vector<InstanceStatus> instances) {
    status.activity.instances = std::move(instances);
    return book.CpuMillis(status);
  };
  EXPECT_EQ(ask({Running(10000, 1000)}), 100U) << "since it began";
  EXPECT_EQ(ask({Running(10500, 1400)}), 100U) << "too short a time to tell";
  EXPECT_EQ(ask({Running(12000, 2000)}), 500U);
  EXPECT_EQ(ask({Running(2000, 20)}), 10U) << "another instance in the same slot";
  InstanceStatus second = Running(1000, 250);
  second.slot = 1;
  EXPECT_EQ(ask({Running(3000, 30), second}), 260U) << "all of them together";
  EXPECT_EQ(ask({InstanceStatus()}), std::nullopt) << "a kernel that does not tell";
}

TEST(OpenFaasStatus, ShowsUsageInMillicoresAndBytes) {
  FunctionStatus status;
  status.active = std::make_shared<Version>();
  const std::string shown = OpenFaasStatusJson(status, NameLabel::kNone, FunctionUsage{4096, 250});
  EXPECT_NE(shown.find(R"("usage":{"cpu":250,"totalMemoryBytes":4096})"), std::string::npos);
  EXPECT_EQ(OpenFaasStatusJson(status, NameLabel::kNone, FunctionUsage()).find("\"cpu\""),
            std::string::npos);
}

TEST(WatchdogTimeouts, AreTheLongestOfWhatTheWatchdogIsTold) {
  using std::chrono::seconds;
  EXPECT_EQ(WatchdogTimeout({"a=b"}, seconds(60)), seconds(60));
  EXPECT_EQ(WatchdogTimeout({"exec_timeout=10s"}, seconds(60)), seconds(60));
  EXPECT_EQ(WatchdogTimeout({"write_timeout=1m30s", "exec_timeout=80"}, seconds(60)), seconds(92));
  EXPECT_EQ(WatchdogTimeout({"exec_timeout=0"}, seconds(60)), std::chrono::hours(24));
  EXPECT_EQ(WatchdogTimeout({"read_timeout=0", "exec_timeout=soon"}, seconds(60)), seconds(60));
  EXPECT_EQ(WatchdogTimeout({"exec_timeout=99999999999999"}, seconds(60)), std::chrono::hours(24));
}

TEST_F(OpenFaas, KeepsSecretsAsFaasCliSendsThem) {
  Start();
  const auto value = [this](const char* name) {
    return OnLoop([&] { return engine_->secrets[{"admin", "openfaas-fn", name}]; });
  };
  EXPECT_EQ(BodyOf(Login("GET /system/secrets")), "[]\n");
  const std::string made = Login("POST /system/secrets", R"({"name":"a.b","value":"hunter2"})");
  EXPECT_EQ(StatusOf(made), 200) << made;
  EXPECT_EQ(value("a.b"), "hunter2");
  EXPECT_EQ(StatusOf(Login("POST /system/secrets", R"({"name":"a.b","value":"again"})")), 200);
  EXPECT_EQ(StatusOf(Login("PUT /system/secrets",
                           R"({"name":"a.b","value":"\ufffd","rawValue":"AP8K","namespace":""})")),
            200);
  EXPECT_EQ(value("a.b"), std::string("\0\xff\n", 3)) << "the bytes win over the text";
  EXPECT_EQ(BodyOf(Login("GET /system/secrets?namespace=openfaas-fn")),
            R"([{"name":"a.b","namespace":"openfaas-fn"}])"
            "\n");
  EXPECT_EQ(StatusOf(Login("GET /system/secrets?namespace=other")), 400);
  const std::string absent = Login("PUT /system/secrets", R"({"name":"absent","value":"x"})");
  EXPECT_EQ(StatusOf(absent), 404);
  EXPECT_EQ(BodyOf(absent), "unable to find secret: absent\n");
  EXPECT_EQ(StatusOf(Login("DELETE /system/secrets", R"({"name":"a.b"})")), 200);
  EXPECT_EQ(StatusOf(Login("DELETE /system/secrets", R"({"name":"a.b"})")), 404);
}

TEST_F(OpenFaas, TakesASecretsNamespaceFromTheBodyThenTheQuery) {
  Start();
  const std::string early = Login("POST /system/secrets?namespace=q", R"({"name":"s"})");
  EXPECT_EQ(BodyOf(early), "namespace not valid\n");
  for (const char* body :
       {R"({"name":"q","labels":{"openfaas":"1"}})", R"({"name":"b","labels":{"openfaas":"1"}})"}) {
    EXPECT_EQ(StatusOf(Login("POST /system/namespace/", body)), 201);
  }
  EXPECT_EQ(StatusOf(Login("POST /system/secrets?namespace=q", R"({"name":"s","value":"1"})")),
            200);
  EXPECT_EQ(StatusOf(Login("POST /system/secrets?namespace=q",
                           R"({"name":"s","namespace":"b","value":"2"})")),
            200);
  EXPECT_EQ(BodyOf(Login("GET /system/secrets?namespace=b")),
            "[{\"name\":\"s\",\"namespace\":\"b\"}]\n");
  EXPECT_EQ(StatusOf(Login("DELETE /system/secrets?namespace=q", R"({"name":"s"})")), 200);
  EXPECT_EQ(BodyOf(Login("GET /system/secrets?namespace=q")), "[]\n");
}

TEST_F(OpenFaas, RefusesSecretsInItsOwnWords) {
  Start();
  EXPECT_EQ(StatusOf(Call("POST /system/secrets")), 401);
  for (const char* name : {"../x", "a/b", ".."}) {
    const std::string reply =
        Login("POST /system/secrets", std::string(R"({"value":"x","name":")") + name + "\"}");
    EXPECT_EQ(StatusOf(reply), 400);
    EXPECT_EQ(BodyOf(reply), "directory traversal found in name\n");
  }
  for (const char* body :
       {"", "{", "[]", R"({"name":""})", R"({"name":" "})", R"({"name":1})",
        R"({"name":"a","rawValue":"!"})", R"({"name":"a","namespace":"../b"})"}) {
    EXPECT_EQ(StatusOf(Login("POST /system/secrets", body)), 400) << body;
  }
  EXPECT_EQ(StatusOf(Login("POST /system/secrets", R"({"name":"busy","value":"x"})")), 200);
  EXPECT_EQ(StatusOf(Login("DELETE /system/secrets", R"({"name":"busy"})")), 409);
  const std::string large = R"({"name":"large","value":")" + std::string(1 << 20, 'x') + "\"}";
  EXPECT_EQ(OnLoop([this] { return engine_->works_apart; }), 0U);
  EXPECT_EQ(StatusOf(Login("POST /system/secrets", large)), 200);
  EXPECT_EQ(OnLoop([this] { return engine_->works_apart; }), 1U) << "not read on the loop";
  EXPECT_EQ(StatusOf(Login("POST /system/secrets", std::string(8 << 20, ' '))), 413);
}

TEST_F(OpenFaas, TakesTheLargestSecretAsFaasCliSendsIt) {
  Start();
  const std::string value(1 << 20, '\xff');
  std::string text;
  for (size_t i = 0; i < value.size(); ++i) text += "\\ufffd";
  const std::string reply =
      Login("POST /system/secrets",
            R"({"name":"s","value":")" + text + R"(","rawValue":")" + Base64Encode(value) + "\"}");
  EXPECT_EQ(StatusOf(reply), 200) << reply;
  EXPECT_TRUE(OnLoop([&] { return engine_->secrets[{"admin", "openfaas-fn", "s"}] == value; }));
}

class OpenFaasLogs : public OpenFaas {
 protected:
  void SetUp() override {
    OpenFaas::SetUp();
    Start();
    OnLoop([this] {
      const int64_t now = UnixMillis(SystemClock());
      Append("old", now - 3600 * 1000, "1-0");
      Append("one", now - 2000, "1-0");
      Append("two \xff", now - 1000, "1-1");
      return 0;
    });
  }
  void Append(const std::string& text, int64_t unix_ms, const std::string& instance) {
    engine_->logs().Append({"admin", "openfaas-fn", "f"},
                           {unix_ms, 1, "", "stderr", text, instance});
  }
  size_t Lines(const std::string& query) {
    const std::string reply = Login("GET /system/logs?name=f" + query);
    EXPECT_EQ(StatusOf(reply), 200) << reply;
    size_t count = 0;
    for (size_t at = 0; (at = reply.find(R"({"name":"f")", at)) != std::string::npos; ++at) ++count;
    return count;
  }
};

TEST_F(OpenFaasLogs, AreLinesAsFaasCliReadsThem) {
  const std::string reply = Login("GET /system/logs?name=f&instance=1-0");
  EXPECT_TRUE(Has(reply, "Content-Type: application/x-ndjson\r\n")) << reply;
  EXPECT_TRUE(
      Has(reply, R"({"name":"f","namespace":"openfaas-fn","instance":"1-0","timestamp":")"));
  EXPECT_TRUE(Has(reply, R"(Z","text":"one"})"));
  EXPECT_EQ(StatusOf(Call("GET /system/logs?name=f")), 401);
}

TEST_F(OpenFaasLogs, BeginWhereTheyAreAskedTo) {
  EXPECT_EQ(Lines(""), 2U) << "five minutes back";
  EXPECT_EQ(Lines("&tail=-1"), 2U);
  EXPECT_EQ(Lines("&tail=0"), 2U);
  EXPECT_EQ(Lines("&tail=1"), 1U);
  EXPECT_EQ(Lines("&tail=3"), 3U) << "who says how many is not asked when";
  EXPECT_EQ(Lines("&since=1970-01-01T00:00:00Z"), 3U);
  EXPECT_EQ(Lines("&since=2999-01-01T00:00:00.123456789%2B02:00"), 0U);
  EXPECT_EQ(Lines("&instance=1-1"), 1U);
  EXPECT_EQ(Lines("&tail=1&tail=3&since=&follow="), 3U) << "the last of a parameter counts";
  EXPECT_EQ(Lines("&namespace=other"), 0U);
  EXPECT_EQ(Lines("&name=unknown"), 0U);
}

TEST_F(OpenFaasLogs, AreEmptyForWhatCanBeNoFunctionsName) {
  const FunctionKey keys[] = {{"admin", "openfaas-fn", "../f"}, {"admin", "../dev", "f"}};
  for (const FunctionKey& key : keys) {
    OnLoop([&] {
      engine_->logs().Append(key, {UnixMillis(SystemClock()), 1, "", "stderr", "not told", "1-0"});
      return 0;
    });
    for (const char* follow : {"", "&follow=true"}) {
      const std::string reply =
          Login("GET /system/logs?name=" + key.name + "&namespace=" + key.name_space + follow);
      EXPECT_EQ(StatusOf(reply), 200);
      EXPECT_EQ(BodyOf(reply), "");
    }
  }
}

TEST_F(OpenFaasLogs, RefuseWhatTheyCannotRead) {
  for (const char* query :
       {"&tail=x", "&tail=1.5", "&tail=--1", "&follow=maybe", "&since=yesterday",
        "&since=2026-13-01T00:00:00Z", "&since=2026-01-01T00:00:00", "&since=2026-01-01",
        "&tail=99999999999999999999"}) {
    const std::string reply = Login(std::string("GET /system/logs?name=f") + query);
    EXPECT_EQ(StatusOf(reply), 422) << query;
    EXPECT_EQ(BodyOf(reply), "could not parse the log request\n");
  }
}

TEST(LenientJson, ReadsWhatClientsOfAllAgesSend) {
  const auto read =
      JsonObject::Parse(R"({"a":"x","n":3,"on":true,"list":["a","b"],"none":null,"more":{"x":[1]},)"
                        R"("texts":{"a":"1","b":2,"c":true,"d":null}})");
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->Text("a"), "x");
  EXPECT_EQ(read->Number("n"), 3U);
  EXPECT_TRUE(read->Flag("on"));
  EXPECT_EQ(read->Texts("list"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read->TextMap("texts").at("b"), "2");
  EXPECT_EQ(read->TextMap("texts").at("d"), "") << "as Go reads it";
  EXPECT_FALSE(read->Has("none"));
  EXPECT_EQ(read->Text("none") + read->Text("absent"), "");
  EXPECT_TRUE(read->status().ok());
}

TEST(LenientJson, NamesTheFirstFieldOfAnotherType) {
  const auto read = JsonObject::Parse(R"({"a":1,"n":1.5,"m":-1,"list":[1],"texts":{"x":{}}})");
  ASSERT_TRUE(read.ok());
  read->Number("n");
  read->Text("a");
  EXPECT_EQ(read->status().error().message, "n: a whole number, not below 0, is expected");
  const auto fails = [](const auto& use) {
    const auto again = JsonObject::Parse(R"({"a":1,"m":-1,"list":[1],"texts":{"x":{}}})");
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
