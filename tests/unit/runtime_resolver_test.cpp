#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/board.h"
#include "runtime/version_resolver.h"

namespace pulga {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

ImageRecord SomeImage() {
  ImageRecord image;
  image.digest = "sha256:" + std::string(64, 'a');
  image.platform = HostPlatform();
  image.config.entrypoint = {"/bin/app"};
  image.config.cmd = {"--serve"};
  image.layers.resize(1);
  return image;
}

FunctionSpec SomeSpec() {
  FunctionSpec spec;
  spec.image = "hello";
  return spec;
}

Version Resolve(const FunctionSpec& spec, const ImageRecord& image) {
  auto version = ResolveVersion(spec, image);
  EXPECT_TRUE(version.ok()) << version.error().message;
  return version.ok() ? std::move(version).value() : Version{};
}

std::string ErrorOf(const FunctionSpec& spec, const ImageRecord& image) {
  const auto version = ResolveVersion(spec, image);
  return version.ok() ? "" : version.error().message;
}

TEST(VersionResolver, TakesEntrypointAndCmdFromTheImage) {
  EXPECT_THAT(Resolve(SomeSpec(), SomeImage()).argv, ElementsAre("/bin/app", "--serve"));
}

TEST(VersionResolver, ArgsReplaceCmdAndCommandReplacesBoth) {
  FunctionSpec spec = SomeSpec();
  spec.args = {"-v"};
  EXPECT_THAT(Resolve(spec, SomeImage()).argv, ElementsAre("/bin/app", "-v"));
  spec.command = {"/bin/other"};
  EXPECT_THAT(Resolve(spec, SomeImage()).argv, ElementsAre("/bin/other", "-v"));
  spec.args.clear();
  EXPECT_THAT(Resolve(spec, SomeImage()).argv, ElementsAre("/bin/other"));
}

TEST(VersionResolver, SaysWhatToAddWhenTheImageHasNoCommand) {
  ImageRecord image = SomeImage();
  image.config.entrypoint.clear();
  image.config.cmd.clear();
  EXPECT_EQ(ErrorOf(SomeSpec(), image), "image hello has no command: give \"command\"");
}

TEST(VersionResolver, NamesBothPlatformsWhenTheImageIsForAnother) {
  ImageRecord image = SomeImage();
  image.platform = {"linux", "s390x", ""};
  EXPECT_THAT(ErrorOf(SomeSpec(), image), HasSubstr("this image is linux/s390x, this board is " +
                                                    PlatformName(HostPlatform())));
}

TEST(VersionResolver, ChoosesExecForAPlainProgram) {
  const Version version = Resolve(SomeSpec(), SomeImage());
  EXPECT_EQ(version.mode, SandboxMode::kExec);
  EXPECT_EQ(version.mode_reason, "the image EXPOSEs no port");
  EXPECT_EQ(version.concurrency, 1U);
  EXPECT_EQ(version.spec.limits.body_bytes, kDefaultExecBytes);
  EXPECT_THAT(version.env, Not(Contains("PORT=8080")));
}

TEST(VersionResolver, ChoosesHttpForAnExposedPort) {
  ImageRecord image = SomeImage();
  image.config.exposed_ports = {5000, 6000};
  const Version version = Resolve(SomeSpec(), image);
  EXPECT_EQ(version.mode, SandboxMode::kHttp);
  EXPECT_EQ(version.mode_reason, "the image EXPOSEs 5000");
  EXPECT_EQ(version.port, 5000);
  EXPECT_EQ(version.concurrency, 100U);
  EXPECT_EQ(version.spec.limits.body_bytes, 0U);
  EXPECT_THAT(version.env, Contains("PORT=5000"));
}

TEST(VersionResolver, ChoosesHttpForAWatchdog) {
  ImageRecord image = SomeImage();
  image.config.entrypoint = {"/usr/bin/fwatchdog"};
  const Version version = Resolve(SomeSpec(), image);
  EXPECT_EQ(version.mode, SandboxMode::kHttp);
  EXPECT_EQ(version.mode_reason, "the command is fwatchdog");
  EXPECT_EQ(version.port, 8080);
}

TEST(VersionResolver, AFramesFunctionIsToldItsDescriptorWhateverTheSpecSays) {
  FunctionSpec spec = SomeSpec();
  spec.mode = ModeChoice::kFrames;
  spec.env["PULGA_FRAMES_FD"] = "7";
  const Version version = Resolve(spec, SomeImage());
  EXPECT_EQ(version.mode, SandboxMode::kFrames);
  EXPECT_EQ(version.concurrency, 100U);
  EXPECT_EQ(version.spec.limits.body_bytes, 0U);
  EXPECT_THAT(version.env, Contains("PULGA_FRAMES_FD=3"));
  EXPECT_THAT(version.env, Not(Contains("PULGA_FRAMES_FD=7")));
  EXPECT_THAT(version.env, Not(Contains("PORT=8080")));
  spec.input = InputKind::kArgument;
  EXPECT_THAT(ErrorOf(spec, SomeImage()), HasSubstr("this is frames mode"));
}

TEST(VersionResolver, TheSpecsWordWinsOverTheImages) {
  ImageRecord image = SomeImage();
  image.config.exposed_ports = {5000};
  image.config.env = {"A=image", "B=image", "PATH=/x"};
  image.config.user = "1000";
  FunctionSpec spec = SomeSpec();
  spec.mode = ModeChoice::kExec;
  spec.env = {{"A", "spec"}, {"C", "spec"}};
  spec.user = "nobody";
  const Version version = Resolve(spec, image);
  EXPECT_EQ(version.mode, SandboxMode::kExec);
  EXPECT_THAT(version.env, ElementsAre("A=spec", "B=image", "PATH=/x", "C=spec"));
  EXPECT_EQ(version.user, "nobody");
}

TEST(VersionResolver, LeavesTheNamesOfTheRequestToIt) {
  ImageRecord image = SomeImage();
  image.config.env = {"Http_Path=/image", "PATH=/x"};
  FunctionSpec spec = SomeSpec();
  spec.env = {{"Http_Method", "FOO"}, {"PULGA_CALL_ID", "1"}, {"HTTP_PROXY", "kept"}};
  spec.mode = ModeChoice::kExec;
  EXPECT_THAT(Resolve(spec, image).env, ElementsAre("PATH=/x", "HTTP_PROXY=kept"));
  spec.mode = ModeChoice::kHttp;
  EXPECT_THAT(Resolve(spec, image).env, Contains("Http_Method=FOO"));
}

TEST(VersionResolver, GivesADefaultPathAndDirectory) {
  const Version version = Resolve(SomeSpec(), SomeImage());
  EXPECT_THAT(version.env,
              ElementsAre("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
  EXPECT_EQ(version.working_dir, "/");
  ImageRecord image = SomeImage();
  image.config.working_dir = "srv/app";
  EXPECT_EQ(Resolve(SomeSpec(), image).working_dir, "/srv/app");
}

TEST(VersionResolver, RefusesWhatTheModeCanNotDo) {
  FunctionSpec spec = SomeSpec();
  spec.scale.concurrency = 5;
  EXPECT_THAT(ErrorOf(spec, SomeImage()), HasSubstr("scale.concurrency"));
  spec = SomeSpec();
  spec.mode = ModeChoice::kHttp;
  spec.input = InputKind::kArgument;
  EXPECT_THAT(ErrorOf(spec, SomeImage()), HasSubstr("input"));
}

TEST(VersionResolver, ResolvingAResolvedSpecChangesNothing) {
  ImageRecord image = SomeImage();
  image.config.exposed_ports = {5000};
  const Version once = Resolve(SomeSpec(), image);
  const Version twice = Resolve(once.spec, image);
  EXPECT_EQ(once.port, twice.port);
  EXPECT_EQ(once.concurrency, twice.concurrency);
  EXPECT_EQ(once.env, twice.env);
}

TEST(Board, ReadsMemTotal) {
  constexpr char kText[] = "MemTotalX: 1 kB\nMemTotal:         508000 kB\nMemFree: 1 kB\n";
  const auto bytes = ParseMeminfo(kText, "MemTotal");
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(*bytes, 508000U * 1024);
  EXPECT_FALSE(ParseMeminfo(kText, "SwapTotal").ok());
}

TEST(Board, BudgetsFourFifthsOfTheTighterLimitAndLessOfASmallBoard) {
  constexpr uint64_t kMib = 1 << 20;
  Board board;
  board.memory_bytes = 5000 * kMib;
  EXPECT_EQ(DefaultMemoryBudget(board), 4000 * kMib);
  board.cgroup_limit_bytes = 2500 * kMib;
  EXPECT_EQ(DefaultMemoryBudget(board), 2000 * kMib);
  board.cgroup_limit_bytes = 512 * kMib;
  EXPECT_EQ(DefaultMemoryBudget(board), 320 * kMib) << "192 MiB are left";
  board.cgroup_limit_bytes = 256 * kMib;
  EXPECT_EQ(DefaultMemoryBudget(board), 160 * kMib);
}

TEST(Board, RefusesLimitsItDoesNotHave) {
  Board board;
  board.cores = 2;
  board.memory_bytes = 512 << 20;
  board.budget_bytes = 256 << 20;
  FunctionSpec spec = SomeSpec();
  EXPECT_TRUE(CheckAgainstBoard(spec, board).ok());
  spec.sandbox.cpu_millis = 3000;
  EXPECT_EQ(CheckAgainstBoard(spec, board).error().message,
            "limits.cpu: 3 is more than this board has (2 cores)");
  spec.sandbox.cpu_millis = 0;
  spec.sandbox.memory_bytes = 1 << 30;
  EXPECT_EQ(CheckAgainstBoard(spec, board).error().message,
            "limits.memory: 1Gi is more than this board has (512.0 MiB)");
  spec.sandbox.memory_bytes = 300 << 20;
  EXPECT_THAT(CheckAgainstBoard(spec, board).error().message, HasSubstr("memory-budget"));
  spec = SomeSpec();
  spec.sandbox.swap_bytes = 1 << 30;
  EXPECT_EQ(CheckAgainstBoard(spec, board).error().message,
            "limits.swap: 1Gi is more than this board has (no swap: give \"0\")");
  board.swap_bytes = 512 << 20;
  EXPECT_EQ(CheckAgainstBoard(spec, board).error().message,
            "limits.swap: 1Gi is more than this board has (512.0 MiB of swap)");
  spec = SomeSpec();
  spec.sandbox.nofile = 4096;
  EXPECT_TRUE(CheckAgainstBoard(spec, board).ok());
  board.max_open_files = 4095;
  EXPECT_THAT(CheckAgainstBoard(spec, board).error().message, HasSubstr("limits.nofile: 4096"));
}

TEST(Board, RefusesALimitOnWritesBesideAVolumeThatMayBeWrittenTo) {
  FunctionSpec spec = SomeSpec();
  spec.access.volumes = {{VolumeKind::kVolume, "data", "/data"}};
  EXPECT_TRUE(CheckEnforceable(spec, {}).ok());
  spec.sandbox.io_write_bps = 1 << 20;
  EXPECT_THAT(CheckEnforceable(spec, {}).error().message,
              HasSubstr("limits.io_write_bps: what is written to the volume data goes to the disk "
                        "later, in nobody's name"));
  spec.allow_unenforced = true;
  EXPECT_TRUE(CheckEnforceable(spec, {}).ok());
  spec.allow_unenforced = false;
  spec.access.volumes[0].read_only = true;
  EXPECT_TRUE(CheckEnforceable(spec, {}).ok());
  spec.access.volumes[0] = {VolumeKind::kDataSet, "data", "/data"};
  EXPECT_TRUE(CheckEnforceable(spec, {}).ok());
}

TEST(Board, RefusesALimitOnReadsBesideAVolumeWhereItDoesNotBindThem) {
  FunctionSpec spec = SomeSpec();
  spec.access.volumes = {{VolumeKind::kVolume, "data", "/data"}};
  spec.sandbox.io_read_bps = 1 << 20;
  EXPECT_TRUE(CheckEnforceable(spec, {{"volume.io", FeatureState::kPresent, "", ""}}).ok());
  const std::vector<Feature> old = {{"volume.io", FeatureState::kDegraded, "before it counts", ""}};
  EXPECT_THAT(CheckEnforceable(spec, old).error().message,
              HasSubstr("limits.io_read_bps: it does not bind what is read from the volume data, "
                        "before it counts"));
  spec.allow_unenforced = true;
  EXPECT_TRUE(CheckEnforceable(spec, old).ok());
}

TEST(Board, GivesHalfACoreByDefaultWhereTheKernelKeepsQuotas) {
  EXPECT_EQ(DefaultCpuMillis(Board(), {}), 500U);
  EXPECT_EQ(DefaultCpuMillis(Board(), {{"cgroup.cpu", FeatureState::kPresent, "", ""}}), 500U);
  EXPECT_EQ(DefaultCpuMillis(Board(), {{"cgroup.cpu", FeatureState::kAbsent, "", ""}}), 0U);
}

TEST(Board, RefusesWhatTheKernelCanNotEnforce) {
  std::vector<Feature> features = {{"cgroup.io", FeatureState::kDegraded, "", "enable it"}};
  FunctionSpec spec = SomeSpec();
  EXPECT_TRUE(CheckEnforceable(spec, features).ok());
  spec.sandbox.io_read_bps = 1 << 20;
  EXPECT_EQ(CheckEnforceable(spec, features).error().message,
            "limits.io_read_bps: this kernel can not enforce it, cgroup.io is degraded: enable it");
  spec.allow_unenforced = true;
  EXPECT_TRUE(CheckEnforceable(spec, features).ok());
  features = {{"cgroup.memory", FeatureState::kAbsent, "", ""}};
  EXPECT_FALSE(CheckEnforceable(spec, features).ok()) << "that one must hold";
}

TEST(Board, LetsAUserWithoutACgroupWaiveEveryLimit) {
  const std::vector<Feature> features = {
      {"cgroup.delegation", FeatureState::kAbsent, "", "ask systemd"},
      {"cgroup.memory", FeatureState::kAbsent, "", ""}};
  FunctionSpec spec = SomeSpec();
  EXPECT_EQ(CheckEnforceable(spec, features).error().message,
            "limits.memory: it can not be enforced here, cgroup.memory is absent, for this daemon "
            "runs as a user and was given no cgroup: ask systemd; or deploy with "
            "allow_unenforced, without this limit");
  spec.allow_unenforced = true;
  EXPECT_TRUE(CheckEnforceable(spec, features).ok());
}

}  // namespace
}  // namespace pulga
