// Secrets of a version: what its instances see, what they may not do, and changes while they live.
#include "base/text.h"
#include "sandbox/secrets_mount.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class LauncherSecrets : public LauncherTest {
 protected:
  VersionSpec WithSecrets(std::vector<SecretFile> secrets) {
    VersionSpec spec = world_.Spec();
    spec.secrets = std::move(secrets);
    return spec;
  }
  std::string Cat(const std::string& path) { return Probe({"cat", path}).out; }
};

TEST_F(LauncherSecrets, AreFilesThatEveryUserReadsAndNobodyWrites) {
  const std::string value("\0\xff bytes\n", 9);
  for (const char* user : {"", "1000:1000"}) {
    VersionSpec spec = WithSecrets({{"token", value}, {"empty", ""}});
    spec.user = user;
    spawner_.reset();
    Build(spec);
    EXPECT_EQ(Cat("/var/openfaas/secrets/token"), value);
    EXPECT_EQ(Cat("/run/secrets/token"), value);
    EXPECT_EQ(Cat("/run/secrets/empty"), "");
    EXPECT_THAT(Say({"ls", "/var/openfaas/secrets"}),
                AllOf(HasSubstr("token"), HasSubstr("empty"), Not(HasSubstr("ahead"))));
    EXPECT_THAT(Say({"stat", "/run/secrets/token"}), HasSubstr(" 444"));
    for (const char* deed : {"write token", "unlink token", "write new", "mkdir new"}) {
      const auto words = Split(deed, ' ');
      const std::string path = "/var/openfaas/secrets/" + std::string(words[1]);
      EXPECT_THAT(Say({std::string(words[0]), path, "x"}), ContainsRegex("errno (13|30)")) << deed;
    }
  }
}

TEST_F(LauncherSecrets, LeaveNoMountThatCouldBeWrittenTo) {
  Build(WithSecrets({{"token", "x"}}));
  const std::string mounts = Say({"mounts"});
  size_t found = 0;
  for (size_t at = 0; (at = mounts.find("/var/openfaas/secrets ", at)) != std::string::npos; ++at) {
    EXPECT_THAT(mounts.substr(at, 60), HasSubstr("/var/openfaas/secrets ro,nosuid,nodev,noexec"));
    ++found;
  }
  EXPECT_EQ(found, 1U) << mounts;
}

TEST_F(LauncherSecrets, AreNotThereForOthers) {
  EXPECT_THAT(Say({"ls", "/var/openfaas/secrets"}), HasSubstr("errno 2"));
  EXPECT_THAT(Say({"ls", "/run/secrets"}), HasSubstr("errno 2"));
}

TEST_F(LauncherSecrets, ChangeForInstancesThatRunAndThoseThatAreParked) {
  Build(WithSecrets({{"a", "1"}, {"b", "2"}}));
  ASSERT_TRUE(spawner_->Park(1).ok());
  ASSERT_TRUE(world_.Until([&] { return !events_.parked.empty(); }));
  const auto uses = world_.client().SecretUses();
  ASSERT_EQ(uses.size(), 1U);
  EXPECT_EQ(uses[0].names, (std::vector<std::string>{"a", "b"}));
  world_.client().SetSecrets(uses[0].version_id,
                             {{"a", "changed"}, {"b", std::string(1 << 20, 'x')}});
  EXPECT_EQ(Cat("/run/secrets/a"), "changed");
  EXPECT_EQ(Cat("/run/secrets/b").size(), 1U << 20);
  Stdio stdio;
  StartOptions options = world_.WithPipes(stdio);
  options.extra_args = {"cat", "/run/secrets/a"};
  ASSERT_TRUE(spawner_->Wake(1, std::move(options)).ok());
  std::string text;
  EXPECT_TRUE(world_.UntilSaid(stdio, text, "changed"));
}

TEST_F(LauncherSecrets, FillTheirBoundsAndAreReplacedAllAtOnce) {
  std::vector<SecretFile> secrets;
  for (size_t i = 0; i < kMaxSecretsPerVersion; ++i) {
    secrets.push_back({"s" + std::to_string(i), std::string(kMaxSecretBytes, 'x')});
  }
  Build(WithSecrets(secrets));
  EXPECT_EQ(Cat("/run/secrets/s63").size(), kMaxSecretBytes);
  for (SecretFile& secret : secrets) secret.value.assign(kMaxSecretBytes, 'y');
  world_.client().SetSecrets(world_.client().SecretUses()[0].version_id, secrets);
  EXPECT_EQ(Cat("/run/secrets/s63"), std::string(kMaxSecretBytes, 'y'));
}

TEST_F(LauncherSecrets, RefuseAVolumeInTheirPlace) {
  VersionSpec spec = WithSecrets({{"a", "1"}});
  ASSERT_TRUE(Await([&](auto done) {
                world_.client().CreateVolume({7, 8 << 20, "data"}, done);
              }).ok());
  spec.access.volumes = {{VolumeKind::kVolume, VolumeSource(7), "/var/openfaas", false, 0, {}}};
  EXPECT_EQ(world_.Build(spec, events_), nullptr);
  EXPECT_THAT(world_.error.error().message, HasSubstr("secrets are in"));
}

}  // namespace
}  // namespace pulga::testing
