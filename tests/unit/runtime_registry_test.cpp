// How the daemon may talk to registries: settings, and the administrator's files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "base/text.h"
#include "runtime/daemon/config.h"
#include "runtime/registry_access.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(RegistrySettings, AreReadAndReloaded) {
  const auto config = LoadConfig({{{"plain-http-registries", "Localhost:5000, 10.0.0.2"},
                                   {"https-proxy", "http://me:pw@proxy:3128"},
                                   {"no-proxy", ".lan"},
                                   {"pull-layers", "5"},
                                   {"pull-stall-timeout", "90s"}},
                                  ""});
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_THAT(config->plain_http, ElementsAre("localhost:5000", "10.0.0.2"));
  EXPECT_EQ(config->https_proxy, "http://me:pw@proxy:3128");
  EXPECT_EQ(config->pull_layers, 5u);
  std::vector<std::string> ignored;
  const DaemonConfig merged = MergeReloaded(DaemonConfig{}, *config, &ignored);
  EXPECT_EQ(merged.plain_http, config->plain_http);
  EXPECT_EQ(merged.pull_stall_timeout, std::chrono::seconds(90));
  EXPECT_TRUE(ignored.empty());
}

TEST(RegistrySettings, RefuseWhatIsNoRegistryAndNoProxy) {
  const std::pair<const char*, const char*> kBad[] = {
      {"plain-http-registries", "http://localhost:5000"},
      {"plain-http-registries", "localhost:5000/x"},
      {"plain-http-registries", "name"},
      {"plain-http-registries", "localhost:5000,"},
      {"plain-http-registries", "*"},
      {"https-proxy", "proxy:3128:secret"},
      {"https-proxy", "socks5://secret@proxy"},
      {"http-proxy", "http://se cret"},
      {"pull-layers", "0"},
      {"pull-layers", "17"}};
  for (const auto& [key, value] : kBad) {
    const auto config = LoadConfig({{{key, value}}, ""});
    ASSERT_FALSE(config.ok()) << value;
    EXPECT_THAT(config.error().message, HasSubstr(key));
    EXPECT_THAT(config.error().message, Not(HasSubstr("secret")));
  }
}

class Access : public ::testing::Test {
 protected:
  Access() : dir(std::move(TempDir::Create("/tmp/pulga-registry-")).value()) {
    access.auth_file = dir.path() + "/auth.json";
  }
  Status Write(const std::string& text) { return WriteFile(access.auth_file, text, 0600); }
  TempDir dir;
  RegistryAccess access;
  const std::string ref = "localhost:5000/app:1";
};

TEST_F(Access, AFileThatNobodyNamedMayBeAbsent) {
  EXPECT_TRUE(PrepareRegistry(access, ref, {})->order.login.empty());
  access.auth_file_is_named = true;
  EXPECT_FALSE(PrepareRegistry(access, ref, {}).ok());
}

TEST_F(Access, OnlyTheCredentialsOfThisRegistryAreTaken) {
  ASSERT_TRUE(Write(R"({"auths":{"localhost:5000":{"auth":")" + Base64Encode("a:mine") +
                    R"("},"other":{"auth":")" + Base64Encode("b:theirs") + R"("}}})")
                  .ok());
  const auto prepared = PrepareRegistry(access, ref, {});
  ASSERT_TRUE(prepared.ok());
  EXPECT_EQ(prepared->order.login.password, "mine");
  EXPECT_THAT(prepared->order.Encode(), Not(HasSubstr("theirs")));
  EXPECT_TRUE(PrepareRegistry(access, "localhost:5001/app:1", {})->order.login.empty());
  EXPECT_EQ(PrepareRegistry(access, ref, RegistryLogin{"c", "given", "", ""})->order.login.password,
            "given");
}

TEST_F(Access, ADamagedFileIsSaidAndNotPassedOver) {
  ASSERT_TRUE(Write(R"({"auths":{"other":{"auth":"c2VjcmV0"}}})").ok());
  const auto prepared = PrepareRegistry(access, ref, {});
  ASSERT_FALSE(prepared.ok());
  EXPECT_THAT(prepared.error().message, HasSubstr("other"));
}

TEST_F(Access, CredentialsThatAProgramKeepsAreNotPassedOver) {
  for (const std::string text :
       {R"({"credHelpers":{"localhost:5000":"gcloud"}})",
        R"({"auths":{"https://localhost:5000/v2/":{}},"credsStore":"gcloud"})"}) {
    ASSERT_TRUE(Write(text).ok());
    const auto prepared = PrepareRegistry(access, ref, {});
    ASSERT_FALSE(prepared.ok()) << text;
    EXPECT_THAT(prepared.error().message, HasSubstr("docker-credential-gcloud"));
    EXPECT_THAT(prepared.error().message, HasSubstr("localhost:5000"));
    EXPECT_TRUE(PrepareRegistry(access, "elsewhere:5000/app:1", {}).ok()) << "it has none there";
    EXPECT_TRUE(PrepareRegistry(access, ref, RegistryLogin{"c", "given", "", ""}).ok());
  }
  ASSERT_TRUE(Write(R"({"auths":{"localhost:5000":{"auth":")" + Base64Encode("a:mine") +
                    R"("}},"credHelpers":{"localhost:5000":"x"},"credsStore":"y"})")
                  .ok());
  EXPECT_EQ(PrepareRegistry(access, ref, {})->order.login.password, "mine");
}

TEST_F(Access, AuthoritiesMustBeThere) {
  access.ca_file = dir.path() + "/ca.pem";
  EXPECT_FALSE(PrepareRegistry(access, ref, {}).ok());
  ASSERT_TRUE(WriteFile(access.ca_file, "PEM").ok());
  EXPECT_EQ(PrepareRegistry(access, ref, {})->extra_ca, "PEM");
}

}  // namespace
}  // namespace pulga
