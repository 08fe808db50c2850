// The command line's pure parts, and its HTTP client against the real front.
#include <nlohmann/json.hpp>
#include <set>

#include "api/cli/args.h"
#include "api/cli/client.h"
#include "api/cli/commands.h"
#include "api/cli/deploy_spec.h"
#include "api/cli/http_reply_parser.h"
#include "api/cli/output.h"
#include "api/cli/stack_export.h"
#include "base/file_io.h"
#include "base/temp_dir.h"
#include "tests/support/loopback.h"

namespace pulga::cli {
namespace {

const Command kSample = {
    "do",
    "WORD",
    "Does.",
    "",
    {{"long", 'l', "X", "a value"}, {"flag", 'f', "", "a switch"}, {"help", 'h', "", "help"}},
    1,
    2};

TEST(CliArgs, TakeEverySpelling) {
  for (const std::vector<std::string>& given :
       std::vector<std::vector<std::string>>{{"--long", "v", "w"},
                                             {"--long=v", "w"},
                                             {"-l", "v", "w"},
                                             {"-lv", "w"},
                                             {"w", "--long", "v"}}) {
    const auto args = ParseArgs(kSample, given);
    ASSERT_TRUE(args.ok()) << given[0];
    EXPECT_EQ(args->Value("long"), "v");
    EXPECT_EQ(args->words(), std::vector<std::string>{"w"});
  }
  EXPECT_EQ(ParseArgs(kSample, {"--", "-f"})->words(), std::vector<std::string>{"-f"});
  EXPECT_TRUE(ParseArgs(kSample, {"-h"})->Has("help"));
}

TEST(CliArgs, RefuseWhatIsWrong) {
  for (const std::vector<std::string>& given :
       std::vector<std::vector<std::string>>{{},
                                             {"a", "b", "c"},
                                             {"--nope", "a"},
                                             {"a", "--long"},
                                             {"--flag=1", "a"},
                                             {"-fx", "a"}}) {
    EXPECT_FALSE(ParseArgs(kSample, given).ok());
  }
}

TEST(CliArgs, WordsOfAProgramAreItsOwn) {
  Command run = kSample;
  run.words = Command::Words::kEndOptions;
  const auto args = ParseArgs(run, {"-f", "image", "--long"});
  ASSERT_TRUE(args.ok());
  EXPECT_EQ(args->words(), (std::vector<std::string>{"image", "--long"}));
}

TEST(CliArgs, EveryCommandHasHelpAndJson) {
  for (const Command& command : ServerCommands()) {
    std::set<std::string> names;
    for (const Option& option : command.options) {
      EXPECT_TRUE(names.insert(option.name).second)
          << command.name << " --" << option.name << " twice";
    }
    EXPECT_TRUE(names.contains("help") && names.contains("json")) << command.name;
    EXPECT_NE(HelpText(command).find("Usage: pulga " + command.name), std::string::npos);
  }
}

TEST(StackExport, WritesWhatFaasCliDeploysAgain) {
  const auto gateway = nlohmann::json::parse(R"([{"name":"f","namespace":"openfaas-fn",
      "image":"docker.io/me/f:1","envProcess":"cat","envVars":{"a":"yes","multi":"x\n\ty: \"z\""},
      "secrets":["key"],"constraints":["c"],"labels":{"faas_function":"f","l":"1"},
      "annotations":{},"limits":{"memory":"40Mi"},"readOnlyRootFilesystem":true}])");
  const auto native = nlohmann::json::parse(
      R"([{"name":"f","namespace":"openfaas-fn","mode":"http","port":8080,"spec":{}}])");
  const StackExport made = MakeStack({gateway, native}, "http://gw:8080");
  EXPECT_EQ(made.yaml, R"(version: 1.0
provider:
  name: openfaas
  gateway: "http://gw:8080"
functions:
  "f":
    lang: dockerfile
    skip_build: true
    namespace: "openfaas-fn"
    image: "docker.io/me/f:1"
    fprocess: "cat"
    environment:
      "a": "yes"
      "multi": "x\n\ty: \"z\""
    secrets:
      - "key"
    constraints:
      - "c"
    labels:
      "l": "1"
    limits:
      "memory": "40Mi"
    readonly_root_filesystem: true
)");
  EXPECT_TRUE(made.left_out.empty());
}

TEST(StackExport, WritesNothingThatFaasCliWouldSubstituteOrYamlRefuse) {
  const auto gateway = nlohmann::json::parse(
      R"([{"name":"f","envVars":{"a":"\\d ${X} $$","b":"\ud83d\ude00 \u00e9"}}])");
  const auto native =
      nlohmann::json::parse(R"([{"name":"f","mode":"http","port":8080,"spec":{}}])");
  const std::string yaml = MakeStack({gateway, native}, "http://gw").yaml;
  EXPECT_NE(yaml.find(R"("a": "\u005cd \u0024{X} \u0024\u0024")"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find(R"("b": "\U0001f600 \u00e9")"), std::string::npos) << yaml;
}

TEST(StackExport, TakesOneOfEachName) {
  const auto gateway = nlohmann::json::parse(
      R"([{"name":"f","namespace":"a"},{"name":"f","namespace":"b"},
          {"name":"g","namespace":"b"}])");
  const auto native = nlohmann::json::parse(
      R"([{"name":"f","namespace":"a","mode":"http","port":8080,"spec":{}},
          {"name":"f","namespace":"b","mode":"http","port":8080,"spec":{}},
          {"name":"g","namespace":"b","mode":"http","port":8080,"spec":{}}])");
  const StackExport made = MakeStack({gateway, native}, "http://gw");
  EXPECT_NE(made.yaml.find("  \"g\":\n"), std::string::npos) << made.yaml;
  ASSERT_EQ(made.left_out.size(), 1U);
  EXPECT_EQ(made.left_out[0],
            "f: its name is another's, of namespace a: export its own, b, with -n");
}

TEST(StackExport, LeavesOutWhatOpenFaasCanNotRunAndSaysWhy) {
  const auto left_out = [](const std::string& fields) {
    const auto gateway = nlohmann::json::parse(R"([{"name":"f","namespace":"n"}])");
    const auto native = nlohmann::json::parse(R"([{"name":"f","namespace":"n",)" + fields + "}]");
    const StackExport made = MakeStack({gateway, native}, "http://gw");
    EXPECT_NE(made.yaml.find(made.left_out.empty() ? "\"f\":" : "functions: {}\n"),
              std::string::npos);
    return made.left_out.empty() ? "" : made.left_out.front();
  };
  EXPECT_EQ(left_out(R"("mode":"http","port":8080)"), "");
  EXPECT_EQ(left_out(R"("mode":"exec","port":null)"),
            "f: mode exec: there functions are servers on port 8080");
  EXPECT_EQ(left_out(R"("mode":"http","port":3000)"), "f: it listens on port 3000, not on 8080");
  EXPECT_EQ(left_out(R"("mode":"http","port":8080,"spec":{"args":["x"]})"),
            "f: its spec has args of its own");
  EXPECT_EQ(left_out(R"("mode":"http","port":8080,"spec":{"user":"0"})"),
            "f: its spec has a user of its own");
  EXPECT_EQ(left_out(R"("mode":"http","port":8080,"spec":{"volumes":[{"name":"v"}]})"),
            "f: it has volumes of this board");
}

TEST(CliTable, AlignsAndTamesCells) {
  Table table({"NAME", "N"});
  table.Add({{"a"}, {"1"}});
  table.Add({{"long\x1b[31m"}, {"22", Colour::kRed}});
  EXPECT_EQ(table.Render(Style(false)), "NAME       N\na          1\nlong?[31m  22\n");
  EXPECT_NE(table.Render(Style(true)).find("\x1b[31m22\x1b[0m"), std::string::npos);
}

TEST(CliProgress, ShowsPartAndRate) {
  EXPECT_EQ(ProgressBar::Line("x", {12 << 20, 24 << 20}, 2, 200),
            "x  [============>           ]  50%  12.0 MiB / 24.0 MiB  6.0 MiB/s");
  EXPECT_EQ(ProgressBar::Line("x", {1 << 20, 0}, 0, 200), "x  1.0 MiB");
}

TEST(CliUrl, TakesHttpAndUnix) {
  EXPECT_EQ(ParseDaemonUrl("http://h")->port, "80");
  EXPECT_EQ(ParseDaemonUrl("http://[::1]:8080/")->host, "::1");
  EXPECT_EQ(ParseDaemonUrl("unix:/run/x")->unix_path, "/run/x");
  for (const char* bad :
       {"", "h:1", "https://h", "http://", "http://h/p", "http://h:x", "unix:x"}) {
    EXPECT_FALSE(ParseDaemonUrl(bad).ok()) << bad;
  }
}

Result<DeploySpec> Spec(const std::vector<std::string>& given, const std::string& file = "") {
  const Command deploy{"deploy", "", "", "", DeploySpecOptions(), 0, 9};
  const auto args = ParseArgs(deploy, given);
  if (!args.ok()) return args.error();
  return BuildDeploySpec(*args, file);
}

TEST(CliDeploy, FlagsBecomeASpec) {
  EXPECT_EQ(
      Spec({"--image", "a", "--memory", "64Mi", "--pids", "-3", "-e", "K=V=1", "--max", "2"})->json,
      "{\"limits\":{\"memory\":\"64Mi\",\"pids\":-3},\"scale\":{\"max\":2},\"env\":{\"K\":\"V=1\"},"
      "\"image\":\"a\"}");
  EXPECT_EQ(Spec({"--pids", "many"})->json, "{\"limits\":{\"pids\":\"many\"}}");
  EXPECT_FALSE(Spec({"-e", "novalue"}).ok());
}

TEST(CliDeploy, WhatIsAskedForBeyondTheWallsBecomesLists) {
  EXPECT_EQ(Spec({"--network", "egress", "--allow", "1.2.3.4:80", "--allow", "x.org"})->json,
            R"({"network":{"mode":"egress","allow":["1.2.3.4:80","x.org"]}})");
  EXPECT_EQ(Spec({"--volume", "data:/data:size=64Mi", "--volume", "data-set=m:/m", "--volume",
                  "/srv/x:/x:ro"})
                ->json,
            R"({"volumes":[{"name":"data","path":"/data","size":"64Mi"},)"
            R"({"data_set":"m","path":"/m"},{"host":"/srv/x","path":"/x","read_only":true}]})");
  EXPECT_EQ(Spec({"--device", "gpio:/dev/gpiochip0", "--device", "/dev/i2c-1,shared"})->json,
            R"({"devices":["gpio:/dev/gpiochip0",{"device":"/dev/i2c-1","lease":"shared"}]})");
  EXPECT_EQ(Spec({"--capability", "CHOWN"}, R"({"capabilities":["KILL"]})")->json,
            R"({"capabilities":["CHOWN"]})");
  for (const char* volume : {"", "data", ":/data", "data:/data:rw", "data:/data:ro:x"}) {
    EXPECT_FALSE(Spec({"--volume", volume}).ok()) << volume;
  }
}

TEST(CliDeploy, FlagsWinOverTheFile) {
  const auto spec =
      Spec({"--memory", "1Gi"},
           "{\"name\":\"n\",\"image\":\"i\",\"limits\":{\"memory\":\"1\",\"pids\":2}}");
  EXPECT_EQ(spec->name, "n");
  EXPECT_EQ(spec->image, "i");
  EXPECT_EQ(spec->json, "{\"image\":\"i\",\"limits\":{\"memory\":\"1Gi\",\"pids\":2}}");
  EXPECT_FALSE(Spec({}, "[]").ok());
  EXPECT_FALSE(Spec({"--memory", "1"}, "{\"limits\":3}").ok());
}

TEST(CliReplies, ParseInAnyPieces) {
  const std::string wire =
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3;x\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n";
  for (size_t piece = 1; piece <= wire.size(); ++piece) {
    const BodySink none;
    ReplyParser parser(none);
    for (size_t at = 0; at < wire.size(); at += piece)
      ASSERT_TRUE(parser.Feed(wire.substr(at, piece)).ok());
    ASSERT_TRUE(parser.done());
    EXPECT_TRUE(parser.reply().complete);
    EXPECT_EQ(parser.reply().body, "abc0123456789");
    EXPECT_EQ(parser.reply().Header("x-t"), "1");
  }
}

TEST(CliReplies, KnowWhenTheyBrokeOff) {
  const BodySink none;
  ReplyParser parser(none);
  ASSERT_TRUE(parser.Feed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").ok());
  ASSERT_TRUE(parser.End().ok());
  EXPECT_TRUE(parser.done());
  EXPECT_FALSE(parser.reply().complete);
  ReplyParser nothing(none);
  EXPECT_FALSE(nothing.End().ok());
  ReplyParser noise(none);
  EXPECT_FALSE(noise.Feed("SSH-2.0-x\r\n\r\n").ok());
}

class CliClientTest : public testing::Loopback {
 protected:
  DaemonClient Client(const std::string& key = "sesame") {
    return DaemonClient(*ParseDaemonUrl("http://127.0.0.1:" + std::to_string(port_)), key);
  }
};

TEST_F(CliClientTest, TellsTheDaemonsOwnMessage) {
  Start();
  EXPECT_TRUE(Client().Get("/v1/images").ok());
  EXPECT_EQ(Client().Get("/v1/functions/f").error().message, "there is no function of that name");
  EXPECT_NE(Client("").Get("/v1/images").error().message.find("admin key"), std::string::npos);
}

TEST_F(CliClientTest, ImportsAFileAndHearsARefusalInTheMiddle) {
  Start();
  OnLoop([this] { return engine_->import_report.images = {testing::SampleImage("new:1")}, 0; });
  auto dir = TempDir::Create("/tmp/pulga-cli-test-");
  const std::string file = dir->path() + "/x.tar";
  ASSERT_TRUE(WriteFile(file, std::string(4 << 20, 'a')).ok());
  const auto reply = ImportArchive(Client(), {file, "", false});
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_EQ(ImportedRefs(reply->body), std::vector<std::string>{"new:1"});
  OnLoop([this] { return engine_->upload_limit = 1 << 20; });
  EXPECT_EQ(ImportArchive(Client(), {file, "", false}).error().code, Code::kTooLarge);
}

TEST_F(CliClientTest, PrintsTheReceipt) {
  Start();
  ClientRequest request;
  request.target = "/function/echo";
  const auto reply = Client().Invoke(request, {});
  ASSERT_TRUE(reply.ok());
  const std::string table = ReceiptTable(*reply);
  EXPECT_NE(table.find("start     warm\n"), std::string::npos) << table;
  EXPECT_NE(table.find("queue          0.004 ms\n"), std::string::npos) << table;
  EXPECT_NE(table.find("outcome   ok\n"), std::string::npos) << table;
}

}  // namespace
}  // namespace pulga::cli
