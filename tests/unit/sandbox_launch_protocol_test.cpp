// The messages between daemon and launcher, and the paths of a skeleton.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <map>

#include "sandbox/exec_arguments.h"
#include "sandbox/job_rules.h"
#include "sandbox/launch_protocol.h"
#include "sandbox/skeleton.h"
#include "sandbox/spawner_setup.h"

namespace pulga {
namespace {

std::string Text(const WireWriter& writer) {
  return std::string(reinterpret_cast<const char*>(writer.bytes().data()), writer.bytes().size());
}

VersionSpec Spec() {
  VersionSpec spec;
  spec.version_id = 42;
  spec.layers.resize(3);
  spec.layers[2].bytes.fill(9);
  spec.argv = {"/bin/app", "", "two words"};
  spec.env = {"A=1", "EMPTY="};
  spec.user = "app:staff";
  spec.working_dir = "/srv";
  spec.hostname = "flea";
  spec.owner = "admin";
  spec.function = "openfaas-fn/flea";
  spec.access.network.mode = NetworkMode::kEgress;
  spec.access.devices = {{"gpio", "/dev/gpiochip0", LeaseKind::kShared}};
  spec.mode = SandboxMode::kHttp;
  spec.limits.cpu_millis = 250;
  spec.most = {128 << 20, 900};
  spec.slots = 7;
  spec.meter = VersionSpec::Meter::kCpu;
  spec.secrets = {{"token", "never sent"}, {"b", ""}};
  return spec;
}

TEST(LaunchProtocol, CarriesAVersionUnchanged) {
  const VersionSpec spec = Spec();
  const auto got = DecodeBuildVersion(Text(EncodeBuildVersion(5, spec)));
  ASSERT_TRUE(got.ok()) << got.error().message;
  EXPECT_EQ(got->version_id, spec.version_id);
  EXPECT_EQ(got->layers, spec.layers);
  EXPECT_EQ(got->argv, spec.argv);
  EXPECT_EQ(got->env, spec.env);
  EXPECT_EQ(got->user, spec.user);
  EXPECT_EQ(got->working_dir, spec.working_dir);
  EXPECT_EQ(got->hostname, spec.hostname);
  EXPECT_EQ(got->owner, spec.owner);
  EXPECT_EQ(got->function, spec.function);
  EXPECT_EQ(got->access, spec.access);
  EXPECT_EQ(got->mode, spec.mode);
  EXPECT_EQ(got->limits.cpu_millis, spec.limits.cpu_millis);
  EXPECT_EQ(got->slots, spec.slots);
  EXPECT_EQ(got->meter, spec.meter);
  EXPECT_EQ(got->most, spec.most);
  ASSERT_EQ(got->secrets.size(), 2U);
  EXPECT_EQ(got->secrets[0].name, "token");
  EXPECT_EQ(got->secrets[0].value, "") << "the launcher has no use for values";
}

TEST(LaunchProtocol, CarriesAJobAndAReply) {
  UnpackJob job;
  job.kind = UnpackKind::kList;
  job.parents.resize(2);
  job.request = std::string("a\0b", 3);
  const auto got = DecodeUnpack(Text(EncodeUnpack(1, job)));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->job.request, job.request);
  EXPECT_EQ(got->job.parents, job.parents);
  const auto cancel = DecodeCancelUnpack(Text(EncodeCancelUnpack(1, {42})));
  ASSERT_TRUE(cancel.ok());
  EXPECT_EQ(cancel->job, 42u);
  LaunchReply reply;
  reply.request = 9;
  reply.status = Error{Code::kNoSpace, 28, "mount-overlay: No space left on device"};
  const auto back = DecodeReply(Text(EncodeReply(reply)));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->request, 9U);
  EXPECT_EQ(back->status.error().code, Code::kNoSpace);
  EXPECT_EQ(back->status.error().message, reply.status.error().message);
}

TEST(LaunchProtocol, RefusesEveryMessageThatIsCut) {
  const std::string whole = Text(EncodeBuildVersion(5, Spec()));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(DecodeBuildVersion(whole.substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(DecodeBuildVersion(whole + "x").ok());
}

TEST(LaunchProtocol, FlagsTheDescriptorsThatTravelBesideAJob) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  UnpackJob job;
  job.kind = UnpackKind::kIngest;
  job.input.Reset(fds[0]);
  job.channel.Reset(fds[1]);
  const auto got = DecodeUnpack(Text(EncodeUnpack(1, job)));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->job.kind, UnpackKind::kIngest);
  EXPECT_EQ(got->flags, kUnpackHasInput | kUnpackHasChannel);
}

TEST(JobRules, GiveTheHostsNetworkToTheFetcherAlone) {
  for (uint32_t kind = 0; kind < 100; ++kind) {
    const auto rules = RulesOf(static_cast<UnpackKind>(kind));
    if (!rules) continue;
    const bool fetcher = rules->program == HelperProgram::kFetcher;
    EXPECT_EQ(fetcher, static_cast<UnpackKind>(kind) == UnpackKind::kFetch);
    EXPECT_EQ(rules->network == HelperNetwork::kHost, fetcher);
  }
}

TEST(LaunchProtocol, NamesTheFieldThatIsWrong) {
  VersionSpec spec = Spec();
  spec.argv.clear();
  EXPECT_THAT(CheckVersionSpec(spec).error().message, ::testing::HasSubstr("no command"));
  spec = Spec();
  spec.env = {"=x"};
  EXPECT_THAT(CheckVersionSpec(spec).error().message, ::testing::HasSubstr("env"));
  spec = Spec();
  spec.limits.memory_bytes = 1000;
  EXPECT_THAT(CheckVersionSpec(spec).error().message, ::testing::HasSubstr("memory"));
  for (const char* function : {"x", "/", "a/", "/b", "a/b/c", "a/../b", "A/b"}) {
    spec = Spec();
    spec.function = function;
    EXPECT_THAT(CheckVersionSpec(spec).error().message, ::testing::HasSubstr("NAMESPACE/NAME"));
  }
  spec = Spec();
  spec.owner = "../x";
  EXPECT_THAT(CheckVersionSpec(spec).error().message, ::testing::HasSubstr("owner"));
}

TEST(LaunchProtocol, GrantsAreToldAsTheyStandInTheirFile) {
  const std::vector<GrantLine> lines = {{2, "network host functions=a"}, {9, "capability\tKILL"}};
  EXPECT_EQ(DecodeGrants(EncodeGrants(lines)), lines);
  EXPECT_TRUE(DecodeGrants("").empty());
  EXPECT_TRUE(DecodeGrants("no number\nx\ty\n").empty());
}

// A machine may hold us to less already: then only this sees that they are there.
TEST(VersionRlimits, AreThoseOfTheProfile) {
  std::map<int, rlim_t> most;
  for (const ResourceLimit& limit : VersionRlimits()) most[limit.resource] = limit.most;
  const std::map<int, rlim_t> wanted = {{RLIMIT_CORE, 0},          {RLIMIT_MSGQUEUE, 0},
                                        {RLIMIT_NICE, 0},          {RLIMIT_RTPRIO, 0},
                                        {RLIMIT_MEMLOCK, 8 << 20}, {RLIMIT_SIGPENDING, 1024}};
  EXPECT_EQ(most, wanted);
}

TEST(ExecArguments, PutsARequestsStringsBehindTheVersions) {
  std::vector<std::string> argv = {"app"};
  std::vector<std::string> env = {"A=1"};
  ExecArguments arguments(argv, env);
  std::string blob("B=2\0C=\0arg\0", 11);
  SpawnRequest request = {};
  request.envc = 2;
  request.env_bytes = 7;
  request.argc = 1;
  request.arg_bytes = 4;
  ASSERT_TRUE(arguments.Assemble(request, blob.data(), blob.size()));
  EXPECT_STREQ(arguments.envp()[2], "C=");
  EXPECT_EQ(arguments.envp()[3], nullptr);
  EXPECT_STREQ(arguments.argv()[1], "arg");
  EXPECT_EQ(arguments.argv()[2], nullptr);
  request.envc = 3;
  EXPECT_FALSE(arguments.Assemble(request, blob.data(), blob.size()));
  request.envc = 2;
  request.env_bytes = 6;
  EXPECT_FALSE(arguments.Assemble(request, blob.data(), blob.size()));
}

TEST(LaunchProtocol, ABoardHoldsAsManyVersionsAsItHasMemoryForTheirSpawners) {
  EXPECT_EQ(VersionsThatFit(0), 16U);
  EXPECT_EQ(VersionsThatFit(512ULL << 20), 64U);
  EXPECT_EQ(VersionsThatFit(8ULL << 30), kMaxVersions);
}

TEST(Skeleton, NormalizesPathsInsideTheRoot) {
  EXPECT_EQ(NormalizePath("/a//b/../c/."), "/a/c");
  EXPECT_EQ(NormalizePath("/../../etc"), "/etc");
  EXPECT_EQ(NormalizePath(""), "/");
  EXPECT_TRUE(IsBelow("/proc/self", "/proc"));
  EXPECT_FALSE(IsBelow("/process", "/proc"));
}

}  // namespace
}  // namespace pulga
