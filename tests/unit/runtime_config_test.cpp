#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/daemon/config.h"
#include "runtime/daemon/data_dir.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Error(const ConfigSources& sources) {
  const auto config = LoadConfig(sources);
  return config.ok() ? "" : config.error().message;
}

TEST(DaemonConfig, FlagsWinOverTheFile) {
  auto dir = TempDir::Create("/tmp/pulga-config-");
  ASSERT_TRUE(dir.ok());
  const std::string file = dir->path() + "/pulga.conf";
  ASSERT_TRUE(
      WriteFile(file, "# a comment\nidle = 5s  # and one more\n\nlog-level=debug\r\n").ok());
  const auto config = LoadConfig({{{"idle", "7s"}}, file});
  ASSERT_TRUE(config.ok()) << config.error().message;
  EXPECT_EQ(config->idle, std::chrono::seconds(7));
  EXPECT_EQ(config->log_level, LogLevel::kDebug);
}

TEST(DaemonConfig, SaysWhichLineIsWrong) {
  EXPECT_THAT(ParseConfigText("idle = 5s\nidel = 6s\n").error().message,
              HasSubstr("line 2: unknown setting \"idel\""));
  EXPECT_THAT(ParseConfigText("idle = 5s\nidle = 6s\n").error().message,
              HasSubstr("line 2: \"idle\" is given twice"));
  EXPECT_THAT(ParseConfigText("idle\n").error().message, HasSubstr("line 1: \"key = value\""));
}

TEST(DaemonConfig, RefusesValuesThatMakeNoSense) {
  const std::pair<const char*, const char*> cases[] = {{"idle", "soon"},
                                                       {"idle", "0"},
                                                       {"max-uploads", "0"},
                                                       {"max-uploads", "-1"},
                                                       {"keep-versions", "1e3"},
                                                       {"memory-budget", "lots"},
                                                       {"listen", "8080"},
                                                       {"listen", "a:99999"},
                                                       {"listen", "unix:relative"},
                                                       {"log-level", "loud"},
                                                       {"log-bytes", "65Mi"},
                                                       {"apparmor", "required"},
                                                       {"call-access", "closed"},
                                                       {"insecure-listen", "1"},
                                                       {"data", "relative"},
                                                       {"stop-timeout", "1h"},
                                                       {"nonsense", "1"}};
  for (const auto& [key, value] : cases) {
    EXPECT_THAT(Error({{{key, value}}, ""}), HasSubstr(key)) << value;
  }
}

TEST(DaemonConfig, APublicAddressNeedsTheFlag) {
  EXPECT_THAT(Error({{{"listen", "0.0.0.0:80"}}, ""}), HasSubstr("--insecure-listen"));
  EXPECT_EQ(Error({{{"listen", "0.0.0.0:80"}, {"insecure-listen", "yes"}}, ""}), "");
  EXPECT_EQ(Error({{{"listen", "127.0.0.1:0, [::1]:80, unix:/run/x.sock"}}, ""}), "");
}

TEST(DaemonConfig, ListensOnNoMoreTcpPortsThanAreKeptFromFunctions) {
  std::string listen = "unix:/run/x.sock";
  for (int port = 1; port <= 16; ++port) listen += ",127.0.0.1:" + std::to_string(port);
  EXPECT_EQ(Error({{{"listen", listen}}, ""}), "");
  EXPECT_THAT(Error({{{"listen", listen + ",127.0.0.1:17"}}, ""}),
              HasSubstr("at most 16 TCP addresses"));
}

TEST(DaemonConfig, ReloadChangesWhatMayChangeAndNamesTheRest) {
  DaemonConfig old;
  DaemonConfig fresh;
  fresh.log_level = LogLevel::kDebug;
  fresh.keep_versions = 3;
  fresh.listen = {"127.0.0.1:9"};
  std::vector<std::string> ignored;
  const DaemonConfig merged = MergeReloaded(old, fresh, &ignored);
  EXPECT_EQ(merged.log_level, LogLevel::kDebug);
  EXPECT_EQ(merged.keep_versions, 3U);
  EXPECT_EQ(merged.listen, old.listen);
  EXPECT_THAT(ignored, ElementsAre("listen"));
}

TEST(DaemonConfig, EverySettingHasADefaultItAccepts) {
  for (const Setting& setting : Settings()) {
    EXPECT_EQ(FindSetting(setting.key)->key, setting.key);
    EXPECT_NE(std::string(setting.help), "");
  }
  EXPECT_EQ(Error({}), "");
}

TEST(DataDir, MakesAnAdminKeyOnceAndKeepsIt) {
  auto dir = TempDir::Create("/tmp/pulga-config-");
  ASSERT_TRUE(dir.ok());
  const auto key = LoadAdminKey(dir->path());
  ASSERT_TRUE(key.ok());
  EXPECT_EQ(key->size(), 64U);
  const std::string path = dir->path() + "/admin.key";
  struct stat st = {};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  EXPECT_EQ(LoadAdminKey(dir->path()).value(), *key);
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
}

TEST(DataDir, MakesTheGatewaysLoginOnceAndKeepsIt) {
  auto dir = TempDir::Create("/tmp/pulga-config-");
  ASSERT_TRUE(dir.ok());
  const auto login = LoadGatewayLogin(dir->path());
  ASSERT_TRUE(login.ok()) << login.error().message;
  EXPECT_EQ(login->user, "admin");
  EXPECT_EQ(login->password.size(), 63U);
  const std::string path = dir->path() + "/secrets/basic-auth-password";
  struct stat st = {};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
  EXPECT_EQ(LoadGatewayLogin(dir->path())->password, login->password);
  ASSERT_TRUE(WriteFile(path, "of faasd\n").ok());
  EXPECT_EQ(LoadGatewayLogin(dir->path())->password, "of faasd");
  ASSERT_TRUE(WriteFile(path, "\n").ok());
  EXPECT_FALSE(LoadGatewayLogin(dir->path()).ok()) << "an empty password would open it to all";
}

TEST(DataDir, ALoginOfAnotherUsersIsTakenAsItIsOrRefusedWithAdvice) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  auto dir = TempDir::Create("/tmp/pulga-config-");
  ASSERT_TRUE(dir.ok());
  ASSERT_TRUE(LoadGatewayLogin(dir->path()).ok());
  const std::string path = dir->path() + "/secrets/basic-auth-password";
  ASSERT_EQ(chown(path.c_str(), 1, 1), 0);
  EXPECT_TRUE(LoadGatewayLogin(dir->path()).ok()) << "its mode is right already";
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  const auto refused = LoadGatewayLogin(dir->path());
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.error().message, HasSubstr("chown 0 " + path));
}

TEST(DataDir, RefusesADamagedOrLinkedKey) {
  auto dir = TempDir::Create("/tmp/pulga-config-");
  ASSERT_TRUE(dir.ok());
  const std::string path = dir->path() + "/admin.key";
  ASSERT_TRUE(WriteFile(path, "short").ok());
  EXPECT_THAT(LoadAdminKey(dir->path()).error().message, HasSubstr("64 hex digits"));
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(symlink("/dev/null", path.c_str()), 0);
  EXPECT_FALSE(LoadAdminKey(dir->path()).ok());
}

TEST(DataDir, RemovesOnlyLeftoversOfItsOwn) {
  auto dir = TempDir::Create("/tmp/pulga-config-");
  ASSERT_TRUE(dir.ok());
  ASSERT_TRUE(WriteFile(dir->path() + "/.tmp-1234", "x").ok());
  ASSERT_TRUE(WriteFile(dir->path() + "/mine", "x").ok());
  ASSERT_EQ(symlink((dir->path() + "/mine").c_str(), (dir->path() + "/.tmp-link").c_str()), 0);
  RemoveLeftovers(dir->path());
  EXPECT_NE(access((dir->path() + "/.tmp-1234").c_str(), F_OK), 0);
  EXPECT_EQ(access((dir->path() + "/mine").c_str(), F_OK), 0);
}

TEST(DaemonConfig, TheLowMarkOfTheDiskLiesBelowTheHighOne) {
  ConfigSources sources;
  sources.flags = {{"disk-high", "60"}, {"disk-low", "50"}};
  EXPECT_TRUE(LoadConfig(sources).ok());
  sources.flags = {{"disk-high", "60"}, {"disk-low", "60"}};
  EXPECT_FALSE(LoadConfig(sources).ok());
  sources.flags = {{"disk-high", "60"}};  // the default low mark is 75
  EXPECT_FALSE(LoadConfig(sources).ok());
  sources.flags = {{"disk-high", "100"}};
  EXPECT_TRUE(LoadConfig(sources).ok()) << "never";
}

TEST(DaemonConfig, StepsOfPressureChangeWithAReloadAndTheirRootDoesNot) {
  const auto old = LoadConfig({{{"board-root", "/a/"}}, ""});
  const auto fresh =
      LoadConfig({{{"board-root", "/b"}, {"pressure", "off"}, {"pressure-memory", "1,2,off"}}, ""});
  ASSERT_TRUE(old.ok() && fresh.ok());
  EXPECT_EQ(old->board_root, "/a");
  std::vector<std::string> ignored;
  const DaemonConfig merged = MergeReloaded(*old, *fresh, &ignored);
  EXPECT_FALSE(merged.pressure);
  EXPECT_EQ(FormatSteps(merged.pressure_steps.memory.value()), "1,2,off");
  EXPECT_EQ(merged.board_root, "/a");
  EXPECT_THAT(ignored, ElementsAre("board-root"));
}

}  // namespace
}  // namespace pulga
