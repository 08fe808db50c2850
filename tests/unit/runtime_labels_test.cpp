// com.openfaas.scale.*: what each label becomes, its documented default, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/openfaas_labels.h"
#include "runtime/openfaas_readiness.h"

namespace pulga {
namespace {

using std::chrono::minutes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ScaleLabels : public ::testing::Test {
 protected:
  ScaleLabels() { spec.sandbox.cpu_millis = 500; }
  void Label(const std::string& name, const std::string& value) {
    spec.labels["com.openfaas.scale." + name] = value;
  }
  ScaleSpec Scale() {
    const auto applied = ApplyScaleLabels(spec, mode);
    EXPECT_TRUE(applied.ok()) << applied.error().message;
    if (!applied.ok()) return {};
    warnings = applied->warnings;
    EXPECT_TRUE(ApplyScaleLabels(applied->spec, mode).ok()) << "what is stored is read again";
    return applied->spec.scale;
  }
  std::string Refusal(const std::string& name, const std::string& value) {
    spec.labels.clear();
    Label(name, value);
    const auto applied = ApplyScaleLabels(spec, mode);
    return applied.ok() ? "" : applied.error().message;
  }

  FunctionSpec spec;
  SandboxMode mode = SandboxMode::kHttp;
  std::vector<std::string> warnings;
};

TEST_F(ScaleLabels, AreOnlyThoseOfOpenFaas) {
  EXPECT_FALSE(HasScaleLabels(spec));
  spec.labels = {{"com.openfaas.profile", "x"}, {"min", "7"}};
  EXPECT_FALSE(HasScaleLabels(spec));
  EXPECT_EQ(Scale().min, 0U);
  Label("min", "1");
  EXPECT_TRUE(HasScaleLabels(spec));
}

TEST_F(ScaleLabels, SetMinimumAndMaximum) {
  Label("min", "2");
  Label("max", "20");
  EXPECT_EQ(Scale().min, 2U);
  EXPECT_EQ(Scale().max, 20U);
  spec.labels.erase("com.openfaas.scale.max");
  Label("min", "9");
  EXPECT_EQ(Scale().max, 9U) << "the default is no smaller than the minimum";
}

TEST_F(ScaleLabels, GiveWayToWhatTheSpecSaysItself) {
  spec.scale.max = 3;
  spec.scale.idle = minutes(1);
  Label("max", "20");
  Label("zero", "true");
  EXPECT_EQ(Scale().max, 3U);
  EXPECT_EQ(Scale().idle, minutes(1));
}

TEST_F(ScaleLabels, UndoNoMinimumOrMaximumThatTheSpecSays) {
  spec.scale.min = 3;
  Label("zero", "true");
  EXPECT_EQ(Scale().min, 3U);
  Label("factor", "0");
  EXPECT_EQ(Scale().min, 3U);
  EXPECT_EQ(Scale().max, 3U) << "which was free to be set";
  spec.scale.max = 7;
  EXPECT_EQ(Scale().min, 3U);
  EXPECT_EQ(Scale().max, 7U);
  spec.scale.min = 0;
  spec.labels.erase("com.openfaas.scale.zero");
  EXPECT_EQ(Scale().min, 1U);
  EXPECT_EQ(Scale().max, 7U);
}

TEST_F(ScaleLabels, StopScalingWithAFactorOfZeroOnly) {
  Label("factor", "0");
  Label("max", "6");
  EXPECT_EQ(Scale().min, 1U);
  EXPECT_EQ(Scale().max, 1U);
  Label("factor", "20");
  EXPECT_EQ(Scale().max, 6U);
}

TEST_F(ScaleLabels, LetGoOfTheLastInstanceAfterTheirTime) {
  Label("zero", "true");
  Label("min", "2");
  EXPECT_EQ(Scale().min, 0U);
  EXPECT_EQ(Scale().idle, minutes(15)) << "the default";
  Label("zero-duration", "1h30m");
  EXPECT_EQ(Scale().idle, minutes(90));
  Label("zero", "false");
  EXPECT_EQ(Scale().min, 2U);
  EXPECT_EQ(Scale().idle, Duration::zero());
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("zero-duration: has no effect")));
  spec.labels.erase("com.openfaas.scale.min");
  EXPECT_EQ(Scale().min, 1U) << "who does not go to zero has one";
}

TEST_F(ScaleLabels, ScaleByCapacityAsCallsAtOnce) {
  Label("type", "capacity");
  EXPECT_EQ(Scale().target, 45U) << "50, at 0.9 of it";
  Label("target", "10");
  Label("target-proportion", "0.5");
  EXPECT_EQ(Scale().target, 5U);
  Label("target", "400");
  Label("target-proportion", "1");
  EXPECT_EQ(Scale().target, 400U);
  EXPECT_EQ(Scale().concurrency, 400U);
  spec.scale.concurrency = 8;
  EXPECT_EQ(Scale().target, 8U);
  EXPECT_THAT(warnings, ElementsAre());
}

TEST_F(ScaleLabels, ScaleByCpuAsAPartOfTheLimit) {
  Label("type", "cpu");
  EXPECT_EQ(Scale().cpu_target, 9U) << "45m of 500m";
  Label("target", "500");
  EXPECT_EQ(Scale().cpu_target, 90U);
  Label("target", "5000");
  EXPECT_EQ(Scale().cpu_target, 100U);
  spec.sandbox.cpu_millis = 0;
  EXPECT_EQ(Scale().cpu_target, 0U);
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("without limits.cpu")));
}

TEST_F(ScaleLabels, ScaleByRequestsPerSecond) {
  Label("type", "rps");
  EXPECT_EQ(Scale().rps_target, 45U) << "50, at 0.9 of it";
  Label("target", "10");
  EXPECT_EQ(Scale().rps_target, 9U);
  spec.labels.erase("com.openfaas.scale.type");
  EXPECT_EQ(Scale().rps_target, 9U) << "the type that OpenFaaS takes without one";
  Label("target-proportion", "0.01");
  EXPECT_EQ(Scale().rps_target, 1U);
  spec.scale.rps_target = 3;
  EXPECT_EQ(Scale().rps_target, 3U) << "the spec's own";
  EXPECT_THAT(warnings, ElementsAre());
}

TEST_F(ScaleLabels, OfTheCommunityEditionScaleAtItsAlert) {
  Label("max", "2");
  EXPECT_EQ(Scale().rps_target, 0U) << "a spec of our own scales by calls at once";
  spec.openfaas = OpenFaasSpec();
  EXPECT_EQ(Scale().rps_target, 5U);
  Label("min", "2");
  EXPECT_EQ(Scale().rps_target, 0U) << "min is max";
  spec.labels = {{"com.openfaas.scale.min", "1"}};
  EXPECT_EQ(Scale().rps_target, 0U) << "it names no maximum";
  Label("max", "8");
  Label("factor", "0");
  EXPECT_EQ(Scale().rps_target, 0U) << "no scaling";
  Label("factor", "20");
  Label("type", "capacity");
  EXPECT_EQ(Scale().rps_target, 0U);
  spec.labels.erase("com.openfaas.scale.type");
  spec.scale.target = 4;
  EXPECT_EQ(Scale().rps_target, 0U);
}

TEST_F(ScaleLabels, SayWhatTheyCannotDo) {
  const std::pair<const char*, const char*> cases[] = {{"queue", "calls that wait always count"},
                                                       {"gpu", "\"gpu\" is not known here"}};
  for (const auto& [type, warning] : cases) {
    Label("type", type);
    EXPECT_EQ(Scale().target, 0U);
    EXPECT_THAT(warnings, ElementsAre(HasSubstr(warning)));
  }
  mode = SandboxMode::kExec;
  Label("type", "capacity");
  EXPECT_EQ(Scale().target, 0U);
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("an exec function has")));
}

TEST_F(ScaleLabels, AreNoAnnotations) {
  spec.annotations["com.openfaas.scale.max"] = "9";
  EXPECT_TRUE(HasScaleLabels(spec));
  EXPECT_EQ(Scale().max, 4U);
  EXPECT_THAT(warnings, ElementsAre(StartsWith("annotations.com.openfaas.scale.max: has no")));
}

TEST_F(ScaleLabels, AreRefusedByNameWhereTheyMakeNoSense) {
  const std::pair<const char*, const char*> cases[] = {{"min", "-1"},
                                                       {"min", "257"},
                                                       {"min", "many"},
                                                       {"max", "0"},
                                                       {"max", "257"},
                                                       {"max", ""},
                                                       {"factor", "101"},
                                                       {"factor", "-1"},
                                                       {"zero", "yes"},
                                                       {"zero", ""},
                                                       {"zero-duration", "15"},
                                                       {"zero-duration", "0s"},
                                                       {"target", "0"},
                                                       {"target", "1.5"},
                                                       {"target-proportion", "0"},
                                                       {"target-proportion", "1.1"},
                                                       {"target-proportion", "x"},
                                                       {"target-proportion", ""}};
  for (const auto& [name, value] : cases) {
    EXPECT_THAT(Refusal(name, value), StartsWith("labels.com.openfaas.scale." + std::string(name)))
        << value;
  }
  spec.labels.clear();
  Label("max", "2");
  Label("min", "3");
  EXPECT_THAT(ApplyScaleLabels(spec, mode).error().message,
              HasSubstr("scale.min: the minimum, 3, is more than the maximum, 2"));
}

TEST(ReadyAnnotations, NameAPathAndHowItIsAsked) {
  const auto read = [](std::map<std::string, std::string> said) {
    std::map<std::string, std::string> annotations;
    for (auto& [key, value] : said) annotations["com.openfaas.ready.http." + key] = value;
    return ReadyProbeOf(annotations);
  };
  EXPECT_FALSE(read({})->has_value());
  EXPECT_FALSE(read({{"periodSeconds", "2"}})->has_value()) << "nothing to ask for";
  const auto usual = read({{"path", "/ready"}});
  EXPECT_EQ((*usual)->path, "/ready");
  EXPECT_EQ((*usual)->initial_delay, Duration::zero());
  EXPECT_EQ((*usual)->period, std::chrono::milliseconds(100));
  const auto set = read({{"path", "/r?a=b"},
                         {"initialDelay", "9"},
                         {"initialDelaySeconds", "3"},
                         {"periodSeconds", "2"}});
  EXPECT_EQ((*set)->initial_delay, std::chrono::seconds(3));
  EXPECT_EQ((*set)->period, std::chrono::seconds(2));
  for (const char* path : {"ready", "/a b", "/a\r\nX: y", "/\xc3\xa4"}) {
    EXPECT_FALSE(read({{"path", path}}).ok()) << path;
  }
  EXPECT_EQ(read({{"path", "/"}, {"periodSeconds", "soon"}}).error().message,
            "annotations.com.openfaas.ready.http.periodSeconds: \"soon\" is no number of seconds, "
            "at most 3000");
  EXPECT_EQ((*read({{"path", "/"}, {"initialDelay", "1s"}}))->initial_delay,
            std::chrono::seconds(1));
  EXPECT_FALSE(read({{"path", "/"}, {"initialDelay", "51m"}}).ok());
  EXPECT_FALSE(read({{"path", "/"}, {"initialDelay", "3001"}}).ok());
}

TEST(HealthProbe, HeedsA503ForHalfOfTheStartsTime) {
  const ReadyProbe probe = HealthProbe(std::chrono::seconds(40));
  EXPECT_EQ(probe.path, "/_/health");
  EXPECT_EQ(probe.rule, ReadyProbe::Rule::kUnlessBusy);
  EXPECT_EQ(probe.believed, std::chrono::seconds(20));
  EXPECT_EQ(probe.initial_delay, Duration::zero());
}

}  // namespace
}  // namespace pulga
