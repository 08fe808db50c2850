// The native routes over a real loopback connection and an engine in memory.
#include <algorithm>

#include "tests/support/loopback.h"

namespace pulga::testing {
namespace {

class RoutesTest : public Loopback {
 protected:
  static bool Has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
  }
};

TEST_F(RoutesTest, ManagementWantsTheKey) {
  Start();
  for (const char* path : {"/v1/images", "/v1/functions/x", "/v1/system", "/v1/nothing", "/v1"}) {
    const std::string reply = Call(std::string("GET ") + path);
    EXPECT_EQ(StatusOf(reply), 401) << path;
    EXPECT_TRUE(Has(reply, "WWW-Authenticate: Bearer")) << reply;
    EXPECT_TRUE(Has(reply, "\"code\":\"unauthorized\"")) << reply;
  }
  const std::string wrong = "GET /v1/system HTTP/1.1\r\nHost: x\r\nAuthorization: ";
  for (const char* key : {"Bearer ", "Bearer wrong", "Basic sesame", "sesame", "Bearer sesame2"}) {
    EXPECT_EQ(StatusOf(Ask(wrong + key + "\r\n")), 401) << key;
  }
  EXPECT_EQ(StatusOf(Admin("GET /v1/system")), 200);
  EXPECT_EQ(StatusOf(Call("GET /healthz")), 200);
}

TEST_F(RoutesTest, TheAdministratorSeesTheGrants) {
  Start();
  const std::string shown = R"("grants":[{"line":3,"grant":"capability KILL functions=a"}])";
  EXPECT_TRUE(Has(Admin("GET /v1/system"), shown));
  EXPECT_FALSE(Has(Call("GET /v1/system"), "KILL"));
}

TEST_F(RoutesTest, UnknownPathsAndMethods) {
  Start();
  EXPECT_EQ(BodyOf(Call("GET /nothing")), "404 page not found\n");
  EXPECT_TRUE(Has(Admin("GET /v1/nothing/1"), "\"code\":\"not_found\""));
  const std::string reply = Admin("DELETE /v1/system");
  EXPECT_EQ(StatusOf(reply), 405);
  EXPECT_TRUE(Has(reply, "Allow: GET, HEAD")) << reply;
}

TEST_F(RoutesTest, ShowsImagesAndTheirListings) {
  Start();
  EXPECT_TRUE(Has(Admin("GET /v1/images"), "\"refs\":[\"hello:1\"]"));
  EXPECT_TRUE(Has(Admin("GET /v1/images/hello"), "\"cmd\":[\"/bin/hello\"]"));
  EXPECT_EQ(BodyOf(Admin("GET /v1/images/hello?view=tree")), "bin|d|755|0:0|\n");
  EXPECT_EQ(StatusOf(Admin("GET /v1/images/hello?view=x")), 400);
  EXPECT_EQ(StatusOf(Admin("GET /v1/images/absent")), 404);
  EXPECT_EQ(StatusOf(Admin("GET /v1/images/UPPER%20CASE")), 400);
  EXPECT_EQ(StatusOf(Admin("GET /v1/images/..%2f..%2fetc")), 400);
  const std::string busy = Admin("DELETE /v1/images/busy");
  EXPECT_EQ(StatusOf(busy), 409);
  EXPECT_TRUE(Has(busy, "image_in_use"));
  for (const char* method : {"DELETE", "GET"}) {
    const std::string several = Admin(std::string(method) + " /v1/images/dddd");
    EXPECT_EQ(StatusOf(several), 409);
    EXPECT_TRUE(Has(several, "image_conflict")) << several;
  }
  EXPECT_EQ(StatusOf(Admin("DELETE /v1/images/hello")), 204);
}

TEST_F(RoutesTest, UploadsStreamToTheEngine) {
  Start();
  OnLoop([this] {
    engine_->import_report.images = {SampleImage("new:1")};
    engine_->upload_delay = std::chrono::milliseconds(2);
    return 0;
  });
  const std::string archive(3 << 20, 'a');
  const std::string reply = Admin("POST /v1/images?ref=new:1", archive);
  EXPECT_EQ(StatusOf(reply), 201) << reply;
  EXPECT_EQ(OnLoop([this] { return engine_->uploaded.size(); }), archive.size());
  EXPECT_TRUE(Has(reply, "\"ref\":\"new:1\""));
}

TEST_F(RoutesTest, UploadRefusalsSayWhatToDo) {
  Start();
  EXPECT_TRUE(Has(Admin("POST /v1/images?ref=BAD", "x"), "invalid_ref"));
  const std::string form =
      Ask("POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\n"
          "Content-Type: multipart/form-data; boundary=\r\nContent-Length: 1\r\n",
          "x");
  EXPECT_EQ(StatusOf(form), 415);
  EXPECT_TRUE(Has(form, "--data-binary")) << form;
  OnLoop([this] {
    engine_->import_report.status = Error{Code::kInvalidArgument, 0, "this is text"};
    engine_->import_report.reason = ImportReason::kNotAnArchive;
    return 0;
  });
  const std::string text = Admin("POST /v1/images", "x");
  EXPECT_EQ(StatusOf(text), 415);
  EXPECT_TRUE(Has(text, "not_an_archive"));
}

TEST_F(RoutesTest, FunctionsAreMadeShownScaledAndRemoved) {
  Start();
  const std::string made = Admin("PUT /v1/functions/f", "{\"image\":\"hello\"}");
  EXPECT_EQ(StatusOf(made), 201) << made;
  EXPECT_TRUE(Has(made, "\"warnings\":[\"swap is not limited on this kernel\"]"));
  EXPECT_TRUE(Has(made, "\"mode_reason\":\"the image EXPOSEs no port\""));
  EXPECT_EQ(StatusOf(Admin("PUT /v1/functions/f", "{\"image\":\"hello\"}")), 200);
  EXPECT_TRUE(Has(Admin("GET /v1/functions"), "\"name\":\"f\""));
  OnLoop([this] {
    engine_->functions["f"].activity.warnings = {"io limits are not enforced"};
    return 0;
  });
  EXPECT_TRUE(Has(Admin("GET /v1/functions/f"), "\"warnings\":[\"io limits are not enforced\"]"));
  EXPECT_TRUE(Has(Admin("PUT /v1/functions/f", "{\"image\":\"hello\"}"),
                  "\"warnings\":[\"swap is not limited on this kernel\","
                  "\"io limits are not enforced\"]"));
  EXPECT_TRUE(Has(Admin("POST /v1/functions/f/scale", "{\"instances\":2}"), "scaled to 2"));
  EXPECT_EQ(StatusOf(Admin("POST /v1/functions/f/rollback", "")), 200);
  EXPECT_TRUE(Has(Admin("POST /v1/functions/f/rollback", "{\"version\":7}"), "version_not_found"));
  EXPECT_EQ(StatusOf(Admin("DELETE /v1/functions/f")), 204);
  EXPECT_TRUE(Has(Admin("GET /v1/functions/f"), "function_not_found"));
}

TEST_F(RoutesTest, BadFunctionsAreRefused) {
  Start();
  EXPECT_EQ(StatusOf(Admin("PUT /v1/functions/a.b", "{\"image\":\"hello\"}")), 400);
  for (const char* name :
       {"UPPER", "-rf", "a_b", "%2e%2e", "a%2fb", "..%5c", "%252e", "%D0%B0", ".a"}) {
    EXPECT_EQ(StatusOf(Admin(std::string("PUT /v1/functions/") + name, "{\"image\":\"hello\"}")),
              400)
        << name;
    const int status = std::string_view(name) == ".a" ? 404 : 400;  // an empty name in a namespace
    EXPECT_EQ(StatusOf(Call(std::string("GET /function/") + name)), status) << name;
  }
  EXPECT_TRUE(Has(Admin("PUT /v1/functions/f", "{\"image\":\"absent\"}"), "image_not_found"));
  EXPECT_TRUE(Has(Admin("PUT /v1/functions/f", "{\"image\":\"hello\",\"x\":1}"), "invalid_spec"));
  EXPECT_EQ(StatusOf(Admin("PUT /v1/functions/f", std::string(300000, 'a'))), 413);
}

TEST_F(RoutesTest, CallsPassTheRequestOn) {
  Start();
  const std::string reply =
      Ask("PUT /function/echo.ns/a%2Fb//c?x=%31&y HTTP/1.1\r\nHost: h\r\nX-Call-Id: "
          "mine-1\r\nX-Own: 1\r\n"
          "Connection: X-Own\r\nKeep-Alive: 1\r\nContent-Length: 3\r\n",
          "abc");
  EXPECT_EQ(BodyOf(reply), "abc");
  EXPECT_TRUE(Has(reply, "X-Call-Id: mine-1\r\n")) << reply;
  EXPECT_FALSE(Has(reply, "forged"));
  EXPECT_TRUE(Has(reply, "X-Pulga-Start: warm\r\n"));
  EXPECT_TRUE(Has(reply, "X-Pulga-Outcome: ok\r\n"));
  EXPECT_TRUE(Has(reply, "Server-Timing: queue;dur=0.004, function;dur=1.500\r\n"));
  const auto call = LastCall();
  EXPECT_EQ(call->request.function.name_space, "ns");
  EXPECT_EQ(call->request.path, "/a%2Fb//c");
  EXPECT_EQ(call->request.query, "x=%31&y");
  EXPECT_EQ(call->request.headers, (HeaderList{{"Host", "h"}, {"X-Call-Id", "mine-1"}}));
}

TEST_F(RoutesTest, AnInsaneCallIdIsReplaced) {
  Start();
  Ask("GET /function/echo HTTP/1.1\r\nHost: h\r\nX-Call-Id: a b\r\n");
  EXPECT_EQ(LastCall()->request.call_id.size(), 36U);
  EXPECT_EQ(LastCall()->request.headers, (HeaderList{{"Host", "h"}}));
}

TEST_F(RoutesTest, StreamedRepliesEndWithTrailersOrAreBrokenOff) {
  Start();
  const std::string whole = Call("GET /function/stream");
  EXPECT_TRUE(Has(whole, "Transfer-Encoding: chunked"));
  EXPECT_TRUE(Has(whole, "Trailer: X-Pulga-Outcome"));
  EXPECT_TRUE(Has(whole, "\r\n0\r\nX-Pulga-Outcome: ok\r\n")) << whole;
  const std::string broken = Call("GET /function/abort");
  EXPECT_TRUE(Has(broken, "piece;")) << broken;
  EXPECT_FALSE(Has(broken, "\r\n0\r\n")) << broken;
}

TEST_F(RoutesTest, SizedRepliesStreamWithTheirLength) {
  Start();
  const std::string reply = Call("GET /function/sized");
  EXPECT_TRUE(Has(reply, "Content-Length: 200000\r\n"));
  EXPECT_EQ(BodyOf(reply).size(), 200000U);
}

TEST_F(RoutesTest, FailedCallsHaveStatusTextAndOutcome) {
  Start();
  const std::string oom = Call("GET /function/oom");
  EXPECT_EQ(StatusOf(oom), 500);
  EXPECT_TRUE(Has(oom, "X-Pulga-Outcome: oom-killed\r\n"));
  EXPECT_TRUE(Has(oom, "text/plain; charset=utf-8"));
  EXPECT_EQ(BodyOf(oom), "it failed: oom-killed\n");
  const std::string full = Call("GET /function/full");
  EXPECT_EQ(StatusOf(full), 429);
  EXPECT_TRUE(Has(full, "Retry-After: 1\r\n"));
  const std::string missing = Call("GET /function/missing");
  EXPECT_EQ(StatusOf(missing), 404);
  EXPECT_TRUE(Has(
      missing, "error finding function missing.openfaas-fn: server returned non-200 status code"));
  const std::string json =
      Ask("GET /function/exit HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\n");
  EXPECT_TRUE(Has(json, "\"code\":\"exited\"")) << json;
  EXPECT_TRUE(Has(json, "\"outcome\":\"exited:3\""));
}

TEST_F(RoutesTest, WhatIsRefusedBeforeACallHasAReceiptToo) {
  Start();
  const std::string host = " HTTP/1.1\r\nHost: h\r\nX-Call-Id: mine-1\r\n";
  const std::tuple<std::string, int, const char*> cases[] = {
      {"GET /function/missing" + host, 404, "rejected:unknown-function"},
      {"GET /function/full" + host, 429, "rejected:queue-full"},
      {"GET /function/UPPER" + host, 400, "rejected:invalid-name"},
      {"GET /function/%zz" + host, 400, "rejected:invalid-path"},
      {"GET /function/" + host, 404, "rejected:not-found"},
      {"BREW /function/echo" + host, 405, "rejected:method-not-allowed"},
      {"TRACE /function/echo" + host, 405, "rejected:method-not-allowed"},
      {"GET /function/echo/x y" + host, 400, "rejected:malformed-request"},
      {"GET /function/echo/x\ty" + host, 400, "rejected:malformed-request"},
      {"GET  /function/echo?a= b" + host, 400, "rejected:malformed-request"},
      {"GET /function/echo" + host + "Host: h\r\n", 400, "rejected:malformed-request"},
      {"GET /function/echo HTTP/1.1\r\n", 400, "rejected:malformed-request"}};
  for (const auto& [request, status, outcome] : cases) {
    const std::string reply = Ask(request);
    EXPECT_EQ(StatusOf(reply), status) << reply;
    EXPECT_TRUE(Has(reply, "\r\nX-Pulga-Start: none\r\n")) << reply;
    EXPECT_TRUE(Has(reply, "\r\nX-OpenFaaS-Internal: proxy\r\n")) << reply;
    EXPECT_EQ(BodyOf(reply).empty(), status == 405) << reply;
    EXPECT_TRUE(Has(reply, "\r\nServer-Timing: queue;dur=0.00")) << reply;
    EXPECT_TRUE(Has(reply, std::string("\r\nX-Pulga-Outcome: ") + outcome + "\r\n")) << reply;
    const bool kept = !Has(outcome, "malformed");
    EXPECT_TRUE(Has(reply, kept ? "\r\nX-Call-Id: mine-1\r\n" : "\r\nX-Call-Id: ")) << reply;
  }
}

TEST_F(RoutesTest, ALengthTooLargeToCountIsCalledThat) {
  Start();
  const std::string reply =
      Ask("POST /function/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n");
  EXPECT_EQ(StatusOf(reply), 413);
  EXPECT_TRUE(Has(reply, "the Content-Length")) << reply;
}

TEST_F(RoutesTest, ARollbackSaysWhichVersionsThereCanBe) {
  Start();
  for (const char* version : {"0", "\"2\"", "-1"}) {
    const std::string reply =
        Admin("POST /v1/functions/hello/rollback", std::string("{\"version\":") + version + "}");
    EXPECT_EQ(StatusOf(reply), 400);
    EXPECT_TRUE(Has(reply, "a whole number from 1 to 4294967295")) << reply;
  }
}

TEST_F(RoutesTest, RepliesOfTheManagementHaveOneCallIdAndNoReceipt) {
  Start();
  const std::string key = " HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer sesame\r\n";
  for (const std::string& request :
       {"GET /v1/images" + key, "GET /v1/nothing" + key, "DELETE /v1/system" + key,
        "OPTIONS /v1/uploads" + key, std::string("GET /v1/system HTTP/1.1\r\nHost: h\r\n")}) {
    const std::string reply = Ask(request + "X-Call-Id: mine-1\r\n");
    EXPECT_TRUE(Has(reply, "\r\nX-Call-Id: mine-1\r\n")) << reply;
    EXPECT_EQ(reply.find("X-Call-Id"), reply.rfind("X-Call-Id")) << reply;
    EXPECT_FALSE(Has(reply, "X-Pulga-Start")) << reply;
  }
}

TEST_F(RoutesTest, MalformedRequestsToTheManagementAreAnsweredInJson) {
  Start();
  const std::string reply = Ask("GET /v1/images HTTP/1.1\r\nHost: h\r\nHost: h\r\n");
  EXPECT_EQ(StatusOf(reply), 400);
  EXPECT_TRUE(Has(reply, "{\"error\":{\"code\":\"malformed_request\",\"message\":\"more than one"))
      << reply;
}

TEST_F(RoutesTest, AFunctionCanNotSplitTheReply) {
  Start();
  RawClient client = Connect();
  client.Send(
      "GET /function/odd HTTP/1.1\r\nHost: h\r\n\r\nGET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string replies = client.ReadUntil("OK\n");
  EXPECT_FALSE(Has(replies, "X-Injected"));
  EXPECT_FALSE(Has(replies, "Content-Length: 77"));
  EXPECT_TRUE(Has(replies, "\r\nGood: tab\there\r\n")) << replies;
  EXPECT_TRUE(Has(replies, "\r\nSet-Cookie: a=1\r\n")) << replies;
  EXPECT_TRUE(Has(replies, "\r\nSet-Cookie: b=2\r\n")) << replies;
  EXPECT_TRUE(Has(replies, "\r\nX-Pulga-Start: warm\r\n")) << replies;
  EXPECT_FALSE(Has(replies, "Empty")) << replies;
  const std::string of_odd = replies.substr(0, replies.find("\r\n\r\n"));
  EXPECT_EQ(of_odd.find("Date: Thu, 01 Jan 1970"), of_odd.rfind("Date: ")) << of_odd;
  EXPECT_EQ(std::count(of_odd.begin(), of_odd.end(), '\1'), 0) << of_odd;
  EXPECT_TRUE(Has(replies, "\r\n\r\noddHTTP/1.1 200 OK")) << replies;
}

TEST_F(RoutesTest, AnAnswerBeforeTheBodysEndReachesTheCaller) {
  Start();
  RawClient client = Connect();
  client.Send(
      "POST /function/early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
  const std::string reply = client.ReadUntil("early");
  EXPECT_EQ(StatusOf(reply), 200);
  EXPECT_TRUE(Has(reply, "Connection: close"));
}

TEST_F(RoutesTest, LogsAreFollowed) {
  Start();
  Admin("PUT /v1/functions/f", "{\"image\":\"hello\"}");
  FunctionKey key;
  key.name = "f";
  const auto append = [this, key](std::string text) {
    OnLoop([this, key, text] {
      return engine_->logs().Append(key, {1, 1, "", "stderr", text}), 0;
    });
  };
  append("before");
  EXPECT_TRUE(Has(Admin("GET /v1/functions/f/logs"), "\"text\":\"before\""));
  EXPECT_EQ(StatusOf(Admin("GET /v1/functions/f/logs?tail=x")), 400);
  EXPECT_EQ(StatusOf(Admin("GET /v1/functions/g/logs")), 404);
  RawClient client = Connect();
  client.Send(
      "GET /v1/functions/f/logs?follow=1&tail=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
      "sesame\r\n\r\n");
  EXPECT_EQ(StatusOf(client.ReadUntil("\r\n\r\n")), 200);
  append("after");
  EXPECT_TRUE(Has(client.ReadUntil("after"), "\"text\":\"after\""));
  OnLoop([this] { return front_->StopAccepting(), 0; });
  EXPECT_TRUE(Has(client.ReadUntil("0\r\n\r\n"), "0\r\n\r\n"));
}

TEST_F(RoutesTest, MakesShowsAndRemovesVolumes) {
  Start();
  OnLoop([this] { return engine_->images["hello:1"] = SampleImage("hello:1"), 0; });
  const std::string made = Admin("PUT /v1/volumes/data", R"({"size":"64Mi"})");
  EXPECT_EQ(StatusOf(made), 201) << made;
  EXPECT_EQ(BodyOf(made),
            R"({"name":"data","kind":"volume","size":"64Mi","size_bytes":67108864,)"
            R"("capacity_bytes":null,"used_bytes":null,"mounted":null,"storage":null,"used_by":[],)"
            R"("trouble":"",)"
            R"("created_at":"1970-01-01T00:00:00.000Z"})"
            "\n");
  EXPECT_EQ(StatusOf(Admin("PUT /v1/volumes/data", R"({"size":"64Mi"})")), 200);
  EXPECT_TRUE(Has(Admin("GET /v1/volumes"), R"("unclaimed":[{"file":"00000000000000ff",)"));
  EXPECT_EQ(StatusOf(Admin("GET /v1/volumes/data")), 200);
  EXPECT_TRUE(Has(Admin("PATCH /v1/volumes/data", R"({"size":"1Gi"})"), R"("size":"1Gi")"));
  EXPECT_TRUE(Has(Admin("PATCH /v1/volumes/absent", R"({"size":"1Gi"})"), "volume_not_found"));
  EXPECT_EQ(StatusOf(Admin("PATCH /v1/volumes/data", R"({"image":"hello:1"})")), 400);
  EXPECT_EQ(StatusOf(Admin("DELETE /v1/volumes/data")), 204);
  EXPECT_TRUE(Has(Admin("GET /v1/volumes/data"), "volume_not_found"));
  EXPECT_TRUE(Has(Admin("DELETE /v1/volumes/busy"), "volume_in_use"));
  EXPECT_TRUE(Has(Admin("PUT /v1/volumes/set", R"({"image":"hello:1"})"), "data_set"));
  EXPECT_TRUE(Has(Admin("PUT /v1/volumes/set2", R"({"image":"absent"})"), "image_not_found"));
  for (const char* body : {"", "[]", "{}", R"({"size":"64Mi","image":"x"})", R"({"size":64})",
                           R"({"size":"1Xi"})", R"({"Size":"64Mi"})", R"({"image":""})"}) {
    EXPECT_EQ(StatusOf(Admin("PUT /v1/volumes/data", body)), 400) << body;
  }
  EXPECT_TRUE(Has(Admin("PUT /v1/volumes/..%2fx", R"({"size":"64Mi"})"), "invalid_name"));
}

TEST_F(RoutesTest, TakesSecretsAndNeverShowsTheirValues) {
  Start();
  const std::string made = Admin("PUT /v1/secrets/db.key?only=new", "hunter2");
  EXPECT_EQ(StatusOf(made), 201) << made;
  EXPECT_EQ(BodyOf(made),
            R"({"name":"db.key","namespace":"openfaas-fn","size_bytes":7,"used_by":[],)"
            R"("created_at":"1970-01-01T00:00:01.000Z",)"
            R"("changed_at":"1970-01-01T00:00:02.000Z"})"
            "\n");
  EXPECT_TRUE(Has(Admin("PUT /v1/secrets/db.key?only=new", "x"), "secret_conflict"));
  EXPECT_EQ(StatusOf(Admin("PUT /v1/secrets/db.key?only=existing", "x")), 200);
  EXPECT_EQ(StatusOf(Admin("PUT /v1/secrets/db.key", "hunter2")), 200);
  EXPECT_EQ(StatusOf(Admin("PUT /v1/secrets/absent?only=existing", "x")), 404);
  EXPECT_TRUE(Has(Admin("PUT /v1/secrets/absent?only=old", "x"), "invalid_argument"));
  EXPECT_TRUE(Has(Admin("PUT /v1/secrets/..%2fx", "x"), "directory traversal found in name"));
  EXPECT_EQ(StatusOf(Admin("PUT /v1/secrets/big", std::string((1 << 20) + 1, 'x'))), 413);
  const std::string list = Admin("GET /v1/secrets");
  EXPECT_TRUE(Has(list, R"({"secrets":[{"name":"db.key",)")) << list;
  EXPECT_FALSE(Has(list, "hunter2"));
  EXPECT_EQ(StatusOf(Admin("PUT /v1/secrets/busy", "x")), 201);
  EXPECT_TRUE(Has(Admin("DELETE /v1/secrets/busy"), "secret_in_use"));
  EXPECT_EQ(StatusOf(Admin("DELETE /v1/secrets/busy?force=1")), 204);
  EXPECT_EQ(StatusOf(Admin("DELETE /v1/secrets/db.key")), 204);
  EXPECT_TRUE(Has(Admin("DELETE /v1/secrets/db.key"), "secret_not_found"));
}

}  // namespace
}  // namespace pulga::testing
