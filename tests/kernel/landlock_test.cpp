// The fence by itself: around this process, where every mount is writable.
#include "sandbox/landlock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdio>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "sandbox/privileges.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

class LandlockFence : public ::testing::Test {
 protected:
  void SetUp() override {
    const int version = LandlockVersion();
    if (version < kLandlockUsable) GTEST_SKIP() << "this kernel has no Landlock of use";
    ASSERT_TRUE(MakeDirs(Path("in/deep")).ok());
    ASSERT_TRUE(MakeDirs(Path("out")).ok());
    ASSERT_TRUE(WriteFile(Path("out/file"), "text").ok());
    fence_.Init(version, {Path("in"), Path("missing")});
  }
  std::string Path(const std::string& name) const { return dir_.path() + "/" + name; }
  // What `deed` returns inside the fence.
  template <typename Deed>
  int Inside(Deed deed) {
    return testing::RunInChild([&] {
      if (!NoNewPrivs().ok()) return 201;
      const UniqueFd ruleset = fence_.MakeRuleset();
      if (!ruleset.valid() || !RestrictSelf(ruleset.get()).ok()) return 202;
      return deed();
    });
  }
  int OpenInside(const std::string& name, int flags) {
    return Inside([&] { return open(Path(name).c_str(), flags, 0600) < 0 ? errno : 0; });
  }

  const TempDir dir_ = TempDir::Create("/tmp/pulga-landlock-test-").value();
  Landlock fence_;
};

TEST_F(LandlockFence, AllowsWritingWhereItIsTold) {
  EXPECT_EQ(OpenInside("in/new", O_WRONLY | O_CREAT), 0);
  EXPECT_EQ(OpenInside("in/deep/new", O_WRONLY | O_CREAT | O_TRUNC), 0);
  EXPECT_EQ(Inside([&] { return mkdir(Path("in/dir").c_str(), 0700) == 0 ? 0 : errno; }), 0);
  EXPECT_EQ(Inside([] { return open("/dev/null", O_RDWR) < 0 ? errno : 0; }), 0);
}

TEST_F(LandlockFence, RefusesWritingAnywhereElse) {
  EXPECT_EQ(OpenInside("out/new", O_WRONLY | O_CREAT), EACCES);
  EXPECT_EQ(OpenInside("out/file", O_WRONLY), EACCES);
  EXPECT_EQ(Inside([&] { return mkdir(Path("out/dir").c_str(), 0700) == 0 ? 0 : errno; }), EACCES);
  EXPECT_EQ(Inside([&] { return unlink(Path("out/file").c_str()) == 0 ? 0 : errno; }), EACCES);
  EXPECT_EQ(Inside([&] { return rmdir(Path("out").c_str()) == 0 ? 0 : errno; }), EACCES);
}

TEST_F(LandlockFence, LetsEverythingBeRead) {
  EXPECT_EQ(OpenInside("out/file", O_RDONLY), 0);
  EXPECT_EQ(OpenInside("out", O_RDONLY | O_DIRECTORY), 0);
  EXPECT_EQ(Inside([] { return execl("/bin/true", "true", nullptr), errno; }), 0);
}

// What the first version of Landlock refuses, and why that one is not used.
TEST_F(LandlockFence, LetsFilesMoveBetweenDirectoriesItMayWrite) {
  ASSERT_TRUE(WriteFile(Path("in/file"), "text").ok());
  EXPECT_EQ(Inside([&] {
              return rename(Path("in/file").c_str(), Path("in/deep/file").c_str()) == 0 ? 0 : errno;
            }),
            0);
  EXPECT_NE(Inside([&] {
              return rename(Path("in/deep/file").c_str(), Path("out/it").c_str()) == 0 ? 0 : errno;
            }),
            0);
}

TEST_F(LandlockFence, NoDeviceIsMadeEvenWhereFilesAre) {
  PULGA_NEED(geteuid() == 0, "making devices needs root");
  const int made = Inside([&] {
    return mknod(Path("in/null").c_str(), S_IFCHR | 0600, (1 << 8) + 3) == 0 ? 0 : errno;
  });
  EXPECT_EQ(made, EACCES);
}

TEST(Landlock, OfTheFirstVersionIsNotUsed) {
  Landlock fence;
  fence.Init(1, {"/tmp"});
  EXPECT_FALSE(fence.active());
  fence.Init(2, {"/tmp"});
  EXPECT_TRUE(fence.active());
}

}  // namespace
}  // namespace pulga
