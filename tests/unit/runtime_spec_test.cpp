#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/function_spec.h"
#include "runtime/spec_json.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ErrorOf(const Status& status) { return status.ok() ? "" : status.error().message; }

std::string ParseError(std::string_view json) {
  const auto spec = SpecFromJson(json);
  return spec.ok() ? "" : spec.error().message;
}

FunctionSpec Minimal() {
  FunctionSpec spec;
  spec.image = "hello:1";
  return spec;
}

TEST(FunctionName, AcceptsOnlyWhatTheRuleSays) {
  for (const char* name : {"a", "0", "hello", "a-b", "a--b", "x1"}) {
    EXPECT_TRUE(ValidateFunctionName(name).ok()) << name;
  }
  EXPECT_TRUE(ValidateFunctionName(std::string(63, 'a')).ok());
  const std::string bad[] = {"",
                             "-a",
                             "a-",
                             "A",
                             "a.b",
                             "a_b",
                             "a b",
                             "../x",
                             "ü",
                             "a\n",
                             std::string(64, 'a'),
                             std::string("a\0b", 3)};
  for (const std::string& name : bad) {
    EXPECT_THAT(ErrorOf(ValidateFunctionName(name)), HasSubstr("1 to 63 of a-z, 0-9 and '-'"))
        << name;
  }
}

TEST(FunctionSpec, DefaultsAreValid) { EXPECT_EQ(ErrorOf(Validate(Minimal())), ""); }

TEST(FunctionSpec, NamesTheFieldThatIsWrong) {
  using Change = std::function<void(FunctionSpec&)>;
  const std::pair<const char*, Change> cases[] = {
      {"image: missing", [](FunctionSpec& s) { s.image.clear(); }},
      {"limits.memory: 512Ki", [](FunctionSpec& s) { s.sandbox.memory_bytes = 512 << 10; }},
      {"limits.cpu: 5m", [](FunctionSpec& s) { s.sandbox.cpu_millis = 5; }},
      {"limits.cpu_weight: 0", [](FunctionSpec& s) { s.sandbox.cpu_weight = 0; }},
      {"limits.cpu_weight: 10001", [](FunctionSpec& s) { s.sandbox.cpu_weight = 10001; }},
      {"limits.pids: 1", [](FunctionSpec& s) { s.sandbox.pids = 1; }},
      {"limits.tmp: 0", [](FunctionSpec& s) { s.sandbox.tmp_bytes = 0; }},
      {"limits.nofile: 3", [](FunctionSpec& s) { s.sandbox.nofile = 3; }},
      {"limits.io_read_bps: 1", [](FunctionSpec& s) { s.sandbox.io_read_bps = 1; }},
      {"limits.timeout: 0s", [](FunctionSpec& s) { s.limits.timeout = Duration::zero(); }},
      {"limits.body: 2Gi", [](FunctionSpec& s) { s.limits.body_bytes = 2ULL << 30; }},
      {"scale.max: 0", [](FunctionSpec& s) { s.scale.max = 0; }},
      {"scale.max: 100000", [](FunctionSpec& s) { s.scale.max = 100000; }},
      {"scale.min: 5 is more than scale.max, 4", [](FunctionSpec& s) { s.scale.min = 5; }},
      {"scale.weight: 0 is not between 1 and 1000", [](FunctionSpec& s) { s.scale.weight = 0; }},
      {"scale.weight: 1001", [](FunctionSpec& s) { s.scale.weight = 1001; }},
      {"scale.parked: 9", [](FunctionSpec& s) { s.scale.parked = 9; }},
      {"env: a variable has an empty name", [](FunctionSpec& s) { s.env[""] = "x"; }},
      {"env.A=B", [](FunctionSpec& s) { s.env["A=B"] = "x"; }},
      {"env.A", [](FunctionSpec& s) { s.env["A"] = std::string("x\0y", 3); }},
      {"env: more than", [](FunctionSpec& s) { s.env["A"] = std::string(40 << 10, 'x'); }},
      {"args", [](FunctionSpec& s) { s.args = {std::string("a\0b", 3)}; }},
      {"args: 257 words are more than 256", [](FunctionSpec& s) { s.args.assign(257, "x"); }},
      {"command: the program's name", [](FunctionSpec& s) { s.command = {""}; }},
      {"volumes[0].path: ",
       [](FunctionSpec& s) {
         s.access.volumes = {{VolumeKind::kVolume, "data", "/proc", false, 0}};
       }},
      {"user", [](FunctionSpec& s) { s.user = "root\n"; }},
      {"content_type", [](FunctionSpec& s) { s.content_type = "text/plain\r\nX: y"; }},
      {"labels", [](FunctionSpec& s) { s.labels["a"] = std::string(5000, 'x'); }},
  };
  for (const auto& [message, change] : cases) {
    FunctionSpec spec = Minimal();
    change(spec);
    EXPECT_THAT(ErrorOf(Validate(spec)), StartsWith(message));
  }
}

TEST(SpecJson, ReadsTheDocumentedExample) {
  const auto spec = SpecFromJson(R"({
    "image":"hello:1","mode":"exec","command":["/bin/x"],"args":["-v"],"env":{"A":"b"},
    "user":"1000:1000","port":9000,"input":"argument","content_type":"text/plain","init":"none",
    "allow_unenforced":true,
    "limits":{"memory":"40Mi","swap":"1Mi","cpu":"500m","cpu_weight":50,"pids":64,
      "io_read_bps":"1M","io_write_bps":0,"tmp":"8Mi","nofile":256,"timeout":"1m30s",
      "start_timeout":"5s","grace":"250ms","body":"1Mi","output":"2Mi"},
    "scale":{"min":1,"max":3,"concurrency":1,"queue":7,"queue_wait":"2s","parked":2,"idle":"10m",
             "freeze_after":"250ms","weight":250},
    "network":{"mode":"egress","allow":["203.0.113.0/24:443","udp:example.org:53"]},
    "root":"read-only","secrets":["db.password","token"],
    "volumes":[{"name":"data","path":"/data","size":"64Mi"},{"data_set":"models","path":"/models"},
      {"host":"/srv/x","path":"/x","read_only":true}],
    "devices":["gpio:/dev/gpiochip0",{"device":"/dev/i2c-1","lease":"shared"}],
    "capabilities":["CHOWN","CAP_KILL"],"labels":{"x":"y"},"annotations":{"n":"m"}})");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  EXPECT_EQ(spec->mode, ModeChoice::kExec);
  EXPECT_EQ(spec->input, InputKind::kArgument);
  EXPECT_EQ(spec->sandbox.memory_bytes, 40U << 20);
  EXPECT_EQ(spec->sandbox.io_read_bps, 1000000U);
  EXPECT_EQ(spec->limits.timeout, std::chrono::seconds(90));
  EXPECT_EQ(spec->limits.output_bytes, 2U << 20);
  EXPECT_EQ(spec->scale.idle, std::chrono::minutes(10));
  EXPECT_EQ(spec->scale.freeze_after, std::chrono::milliseconds(250));
  EXPECT_EQ(spec->scale.weight, 250U);
  EXPECT_EQ(SpecFromJson(SpecToJson(*spec))->scale.weight, 250U);
  EXPECT_EQ(spec->labels.at("x"), "y");
  EXPECT_EQ(spec->secrets, (std::vector<std::string>{"db.password", "token"}));
  EXPECT_EQ(SpecFromJson(SpecToJson(*spec))->secrets, spec->secrets);
  EXPECT_TRUE(spec->allow_unenforced);
  EXPECT_EQ(ErrorOf(Validate(*spec)), "");
  EXPECT_EQ(spec->access.network.mode, NetworkMode::kEgress);
  EXPECT_EQ(spec->access.network.allow.at(1).protocol, NetworkProtocol::kUdp);
  EXPECT_EQ(spec->access.volumes.at(0).size_bytes, 64U << 20);
  EXPECT_EQ(spec->access.volumes.at(1).kind, VolumeKind::kDataSet);
  EXPECT_TRUE(spec->access.volumes.at(1).read_only && spec->access.volumes.at(2).read_only);
  EXPECT_EQ(spec->access.devices.at(0).name, "gpio");
  EXPECT_EQ(spec->access.devices.at(1).lease, LeaseKind::kShared);
  EXPECT_EQ(spec->access.capabilities, 0x21U);
  EXPECT_EQ(SpecFromJson(SpecToJson(*spec))->access, spec->access);
}

TEST(SpecJson, WritesWhatItReads) {
  FunctionSpec spec = Minimal();
  spec.mode = ModeChoice::kHttp;
  spec.env["K"] = "v \" \\ \xc3\xbc";
  spec.sandbox.cpu_millis = 1500;
  spec.sandbox.memory_bytes = (64 << 20) + 1;
  spec.limits.body_bytes = 0;
  spec.limits.timeout = std::chrono::milliseconds(1500);
  spec.scale.idle = std::chrono::seconds(30);
  spec.allow_unenforced = true;
  spec.openfaas = {"cat", {{"memory", "40m"}}, {{"cpu", "1"}}, {"node == x"}, true};
  const std::string text = SpecToJson(spec);
  const auto again = SpecFromJson(text);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(SpecToJson(*again), text);
  EXPECT_EQ(again->env, spec.env);
  EXPECT_EQ(again->openfaas->limits, spec.openfaas->limits);
  EXPECT_EQ(again->openfaas->env_process, "cat");
  EXPECT_TRUE(again->openfaas->read_only_root);
  EXPECT_TRUE(again->allow_unenforced);
  EXPECT_EQ(again->sandbox.memory_bytes, spec.sandbox.memory_bytes);
  EXPECT_EQ(again->limits.output_bytes, kByMode);
}

TEST(SpecJson, LeavesDefaultsWhereNothingOrNullIsGiven) {
  const auto spec = SpecFromJson(R"({"image":"a","env":null,"limits":{"memory":null}})");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->sandbox.memory_bytes, SandboxLimits{}.memory_bytes);
  EXPECT_EQ(spec->limits.body_bytes, kByMode);
  EXPECT_EQ(spec->sandbox.cpu_millis, kCpuNotGiven);
  const auto again = SpecFromJson(SpecToJson(*spec));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->sandbox.cpu_millis, kCpuNotGiven);
  EXPECT_EQ(SpecFromJson(R"({"image":"a","limits":{"cpu":"0"}})")->sandbox.cpu_millis, 0U);
}

TEST(SpecJson, FreezesAfterASecondAtOnceOrNever) {
  const std::pair<const char*, Duration> cases[] = {{"{}", std::chrono::seconds(1)},
                                                    {R"({"freeze_after":0})", Duration::zero()},
                                                    {R"({"freeze_after":"0"})", Duration::zero()},
                                                    {R"({"freeze_after":"never"})", kNeverFreeze},
                                                    {R"({"freeze_after":"off"})", kNeverFreeze}};
  for (const auto& [scale, wanted] : cases) {
    const auto spec = SpecFromJson(R"({"image":"a","scale":)" + std::string(scale) + "}");
    ASSERT_TRUE(spec.ok()) << scale;
    EXPECT_EQ(spec->scale.freeze_after, wanted) << scale;
    EXPECT_TRUE(Validate(*spec).ok()) << scale;
    EXPECT_EQ(SpecFromJson(SpecToJson(*spec))->scale.freeze_after, wanted) << scale;
  }
}

TEST(SpecJson, ReadsLimitsThatAreRangesAndWritesThemAgain) {
  const auto spec = SpecFromJson(R"({"image":"a","limits":{
      "memory":{"min":"32Mi","max":"256Mi"},"cpu":{"min":"100m","max":"1"}}})");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  EXPECT_EQ(ErrorOf(Validate(*spec)), "");
  const auto again = SpecFromJson(SpecToJson(*spec));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->least_memory_bytes, 32U << 20);
  EXPECT_EQ(again->sandbox.memory_bytes, 256U << 20);
  EXPECT_EQ(again->least_cpu_millis, 100U);
  EXPECT_EQ(again->sandbox.cpu_millis, 1000U);
  const auto point =
      SpecFromJson(R"({"image":"a","limits":{"memory":{"min":"32Mi","max":"32Mi"}}})");
  EXPECT_EQ(point->least_memory_bytes, 0U) << "no range";
}

TEST(SpecJson, SaysWhatIsWrongWithARange) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"image":"a","limits":{"memory":{"min":"1Mi"}}})", "limits.memory: a range has"},
      {R"({"image":"a","limits":{"memory":{"min":"x","max":"2Mi"}}})", "limits.memory.min: not a"},
      {R"({"image":"a","limits":{"memory":{"least":"1Mi"}}})", "limits.memory.least: unknown"},
      {R"({"image":"a","limits":{"memory":{"min":"0","max":"8Mi"}}})", "limits.memory.min: 0 is"},
      {R"({"image":"a","limits":{"memory":{"min":"9Mi","max":"8Mi"}}})",
       "limits.memory.min: 9Mi is not between 1Mi and 8Mi"},
      {R"({"image":"a","limits":{"cpu":{"min":"2","max":"1"}}})", "limits.cpu.min: 2 is not betw"},
      {R"({"image":"a","limits":{"cpu":{"min":"1","max":"0"}}})", "limits.cpu.min: 1 is not betw"},
  };
  for (const auto& [json, message] : cases) {
    const auto spec = SpecFromJson(json);
    EXPECT_THAT(spec.ok() ? ErrorOf(Validate(*spec)) : spec.error().message, HasSubstr(message));
  }
}

TEST(SpecJson, SaysWhichTargetIsWrongAndWhy) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"scale":{"cpu_target":"most"}})", "scale.cpu_target: percent of limits.cpu, 1 to 100"},
      {R"({"scale":{"cpu_target":101}})", "scale.cpu_target: 101 is not between 1 and 100"},
      {R"({"scale":{"latency_target":200}})", "scale.latency_target: a duration like"},
      {R"({"scale":{"latency_target":"0s"}})", "scale.latency_target: 0 is no time a call takes"},
      {R"({"scale":{"latency_percentile":0}})", "scale.latency_percentile: 0 is not between"},
  };
  for (const auto& [json, message] : cases) {
    const auto spec = SpecFromJson(json);
    ASSERT_FALSE(spec.ok()) << json;
    EXPECT_THAT(spec.error().message, HasSubstr(message));
  }
}

TEST(SpecJson, KeepsTargetsThatWereGivenAndAddsNone) {
  const auto given = SpecFromJson(R"({"image":"a","scale":{"cpu_target":"auto",
      "latency_target":"200ms","latency_percentile":99}})");
  ASSERT_TRUE(given.ok());
  const auto spec = SpecFromJson(SpecToJson(*given));
  EXPECT_EQ(spec->scale.cpu_target, 80U);
  EXPECT_EQ(spec->scale.latency_target, std::chrono::milliseconds(200));
  EXPECT_EQ(spec->scale.latency_percentile, 99U);
  EXPECT_EQ(SpecToJson(*SpecFromJson(R"({"image":"a"})")).find("_target"), std::string::npos);
}

TEST(SpecJson, SaysTheRangeAlsoOfATimeThatIsFarTooLong) {
  for (const char* time : {"1000000h", "99999999999999999999999h"}) {
    const auto spec =
        SpecFromJson(std::string(R"({"image":"a","limits":{"timeout":")") + time + "\"}}");
    ASSERT_TRUE(spec.ok());
    EXPECT_THAT(ErrorOf(Validate(*spec)),
                HasSubstr("limits.timeout: such a time is not between 1ms and 24h"));
  }
}

TEST(SpecJson, SaysWhichFieldIsWrongAndWhy) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"imagee":"a"})", "imagee: unknown field"},
      {R"({"limits":{"memroy":"1Mi"}})", "limits.memroy: unknown field"},
      {R"({"scale":{"freeze_after":1}})",
       "scale.freeze_after: a duration like \"1s\", \"0\" for at once, or \"never\" is expected"},
      {R"({"scale":{"freeze_after":"soon"}})", "scale.freeze_after: not a duration: \"soon\""},
      {R"({"image":5})", "image: a string is expected, not 5"},
      {R"({"limits":7})", "limits: an object is expected, not 7"},
      {R"({"limits":{"swap":"-1"}})", "limits.swap: not a size: \"-1\""},
      {R"({"limits":{"swap":true}})", "limits.swap: a size like \"64Mi\" is expected, not true"},
      {R"({"limits":{"body":18446744073709551615}})",
       "limits.body: 18446744073709551615 is too large"},
      {R"({"limits":{"cpu":"99999"}})", "\"99999\" (write it like 500m or 2): from 10m to 1024"},
      {R"({"limits":{"pids":1}})", "limits.pids: 1 is not between 4 and 32768"},
      {R"({"limits":{"pids":1e300}})",
       "limits.pids: a whole number between 4 and 32768 is expected"},
      {R"({"limits":{"pids":"64"}})", "is expected, not \"64\""},
      {R"({"limits":{"nofile":1.5}})", "is expected, not 1.5"},
      {R"({"limits":{"memory":[]}})", "limits.memory: a size like \"64Mi\" is expected, not []"},
      {R"({"limits":{"timeout":1e300}})", "limits.timeout: a duration like"},
      {R"({"limits":{"timeout":"-1s"}})", "limits.timeout: not a duration: \"-1s\""},
      {R"({"port":0})", "port: 0 is not between 1 and 65535"},
      {R"({"port":-1})", "port: -1 is not between 1 and 65535"},
      {R"({"port":"80"})", "port: a whole number between 1 and 65535 is expected, not \"80\""},
      {R"({"scale":{"concurrency":0}})", "scale.concurrency: 0 is not between 1 and 10000"},
      {R"({"scale":{"queue":-7}})", "scale.queue: -7 is not between 0 and 100000"},
      {R"({"scale":{"max":true}})", "scale.max: a whole number between 1 and"},
      {R"({"limits":{"memory":"-5Mi"}})", "limits.memory: not a size: \"-5Mi\""},
      {R"({"limits":{"memory":-5}})", "limits.memory: -5 is negative"},
      {R"({"limits":{"memory":"99999999999999999999Gi"}})", "limits.memory: not a size"},
      {R"({"limits":{"memory":1.5}})", "limits.memory: a whole number is expected, not 1.5"},
      {R"({"limits":{"cpu":"-1"}})", "limits.cpu: not a cpu amount"},
      {R"({"limits":{"cpu":1e300}})", "limits.cpu: not a cpu amount"},
      {R"({"limits":{"timeout":30}})", "limits.timeout: a duration like"},
      {R"({"limits":{"timeout":"30"}})", "limits.timeout: not a duration"},
      {R"({"limits":{"pids":4294967297}})", "limits.pids: 4294967297 is not between 4 and 32768"},
      {R"({"port":70000})", "port: 70000 is not between 1 and 65535"},
      {R"({"scale":{"max":-1}})", "scale.max: -1 is not between 1 and"},
      {R"({"mode":"fast"})", "mode: \"fast\" is not one of auto, http, exec, frames"},
      {R"({"args":"x"})", "args: an array of strings"},
      {R"({"args":[1]})", "args: an array of strings"},
      {R"({"env":{"A":1}})", "env.A: a string is expected"},
      {R"({"network":{"mode":"bridge"}})", "\"bridge\" is not one of none, egress, host"},
      {R"({"network":{"allow":["1.2.3.4","1.2.3.4/8"]}})", "network.allow[1]: \"1.2.3.4/8\": the"},
      {R"({"network":{"allow":"x"}})", "network.allow: an array of strings is expected"},
      {R"({"network":{"deny":[]}})", "network.deny: unknown field"},
      {R"({"secrets":"x"})", "secrets: an array of strings"},
      {R"({"volumes":["x"]})", "volumes[0]: an object is expected"},
      {R"({"volumes":[{"path":"/x"}]})", "volumes[0]: one of \"name\", \"data_set\" and"},
      {R"({"volumes":[{"name":"a","host":"/x","path":"/x"}]})", "volumes[0]: one of \"name\""},
      {R"({"volumes":[{"name":"a","path":"/x","mode":1}]})", "volumes[0].mode: unknown field"},
      {R"({"devices":[7]})", "devices[0]: \"gpio:/dev/gpiochip0\" is expected, not 7"},
      {R"({"devices":["/dev/a","gpio"]})", "devices[1]: \"gpio\" is no path below /dev"},
      {R"({"devices":[{"device":"/dev/a","lease":"mine"}]})", "devices[0].lease: \"mine\" is not"},
      {R"({"capabilities":["SYS_ADMIN"]})", "capabilities: \"SYS_ADMIN\" is not one of CHOWN,"},
      {R"({"image":"a","image":"b"})", "the field \"image\" is given twice"},
      {R"({"env":{"A":"1","A":"2"}})", "the field \"A\" is given twice"},
      {R"([])", "a JSON object is expected"},
      {R"("x")", "a JSON object is expected"},
      {R"({"image":"a"} x)", "not valid JSON"},
      {"{\"image\":\"\xff\"}", "not valid JSON"},
      {"", "not valid JSON"},
  };
  for (const auto& [json, message] : cases)
    EXPECT_THAT(ParseError(json), HasSubstr(message)) << json;
}

TEST(SpecJson, RefusesDeepAndHugeDocuments) {
  const std::string deep = "{\"args\":" + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_EQ(ParseError(deep), "nested too deeply");
  const std::string huge = "{\"image\":\"" + std::string(kMaxSpecBytes, 'a') + "\"}";
  EXPECT_THAT(ParseError(huge), HasSubstr("larger than 256Ki"));
}

}  // namespace
}  // namespace pulga
