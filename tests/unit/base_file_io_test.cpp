#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/temp_dir.h"

namespace pulga {
namespace {

namespace fs = std::filesystem;

class FileIoTest : public testing::Test {
 protected:
  std::string At(const std::string& name) const { return dir_.path() + "/" + name; }
  void TearDown() override { sys::FailNthCall(0, 0); }

  TempDir dir_ = *TempDir::Create(testing::TempDir() + "/pulga-test-");
};

TEST_F(FileIoTest, WhatIsWrittenIsRead) {
  const std::string data(100000, 'x');
  ASSERT_TRUE(WriteFile(At("f"), data).ok());
  EXPECT_EQ(*ReadFile(At("f")), data);
}

TEST_F(FileIoTest, ReadFileRefusesMoreThanItsLimit) {
  ASSERT_TRUE(WriteFile(At("f"), "12345").ok());
  EXPECT_EQ(*ReadFile(At("f"), 5), "12345");
  const auto over = ReadFile(At("f"), 4);
  ASSERT_FALSE(over.ok());
  EXPECT_EQ(over.error().code, Code::kTooLarge);
}

TEST_F(FileIoTest, AMissingFileIsNamedInTheError) {
  const auto missing = ReadFile(At("none"));
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, Code::kNotFound);
  EXPECT_NE(missing.error().message.find("/none"), std::string::npos);
}

TEST_F(FileIoTest, ReadAtWantsAllOfTheRange) {
  ASSERT_TRUE(WriteFile(At("f"), "0123456789").ok());
  const UniqueFd fd = *OpenFile(At("f"), O_RDONLY);
  EXPECT_EQ(*ReadAt(fd.get(), 3, 4), "3456");
  EXPECT_EQ(ReadAt(fd.get(), 8, 4).error().code, Code::kIo);
}

TEST_F(FileIoTest, AnUnnamedFileLeavesNoName) {
  const auto fd = OpenUnnamedFile(dir_.path());
  ASSERT_TRUE(fd.ok());
  ASSERT_TRUE(WriteAll(fd->get(), "spooled").ok());
  EXPECT_EQ(*ReadAt(fd->get(), 0, 7), "spooled");
  EXPECT_TRUE(fs::is_empty(dir_.path()));
}

TEST_F(FileIoTest, DescriptorsAreCloseOnExec) {
  const UniqueFd fd = *OpenFile(dir_.path(), O_RDONLY | O_DIRECTORY);
  EXPECT_EQ(fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST_F(FileIoTest, ADurableWriteReplacesTheWholeFileAndSetsItsMode) {
  ASSERT_TRUE(WriteFileDurably(At("key"), "old and longer", 0600).ok());
  ASSERT_TRUE(WriteFileDurably(At("key"), "new", 0600).ok());
  EXPECT_EQ(*ReadFile(At("key")), "new");
  struct stat st = {};
  ASSERT_EQ(stat(At("key").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
}

TEST_F(FileIoTest, AFailingDurableWriteKeepsTheOldContent) {
  ASSERT_TRUE(WriteFileDurably(At("key"), "old", 0600).ok());
  int n = 1;
  for (; n < 20; ++n) {
    sys::FailNthCall(n, EIO);
    const Status s = WriteFileDurably(At("key"), "new", 0600);
    sys::FailNthCall(0, 0);
    if (s.ok()) break;
    const std::string now = *ReadFile(At("key"));
    EXPECT_TRUE(now == "old" || now == "new") << "call " << n << " left " << now;
  }
  EXPECT_GT(n, 4);
  EXPECT_LT(n, 20);
}

TEST_F(FileIoTest, MakeDirsIsContentWithWhatExists) {
  ASSERT_TRUE(MakeDirs(At("a/b/c"), 0700).ok());
  EXPECT_TRUE(MakeDirs(At("a/b/c"), 0700).ok());
  EXPECT_TRUE(fs::is_directory(At("a/b/c")));
}

TEST_F(FileIoTest, RemoveTreeFollowsNoSymlink) {
  ASSERT_TRUE(MakeDirs(At("outside")).ok());
  ASSERT_TRUE(WriteFile(At("outside/canary"), "alive").ok());
  ASSERT_TRUE(MakeDirs(At("tree/sub")).ok());
  fs::create_directory_symlink(At("outside"), At("tree/sub/link"));
  ASSERT_TRUE(RemoveTree(AT_FDCWD, At("tree")).ok());
  EXPECT_FALSE(fs::exists(At("tree")));
  EXPECT_EQ(*ReadFile(At("outside/canary")), "alive");
}

TEST_F(FileIoTest, RemoveTreeTakesADeepTreeOnASmallStack) {
  UniqueFd here = *OpenFile(dir_.path(), O_RDONLY | O_DIRECTORY);
  for (int depth = 0; depth < 3000; ++depth) {
    ASSERT_EQ(mkdirat(here.get(), "d", 0700), 0);
    here = *OpenFileAt(here.get(), "d", O_RDONLY | O_DIRECTORY);
  }
  ASSERT_TRUE(RemoveTree(AT_FDCWD, At("d")).ok());
  EXPECT_TRUE(fs::is_empty(dir_.path()));
}

TEST_F(FileIoTest, RemovingWhatIsNotThereIsDone) {
  EXPECT_TRUE(RemoveTree(AT_FDCWD, At("none")).ok());
}

TEST_F(FileIoTest, ATempDirGoesWithItsOwner) {
  std::string path;
  {
    const TempDir temp = *TempDir::Create(At("t-"));
    path = temp.path();
    ASSERT_TRUE(WriteFile(path + "/f", "x").ok());
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST_F(FileIoTest, OpenBeneathNeverLeavesItsDirectory) {
  ASSERT_TRUE(MakeDirs(At("root/in")).ok());
  ASSERT_TRUE(WriteFile(At("secret"), "no").ok());
  ASSERT_TRUE(WriteFile(At("root/in/f"), "yes").ok());
  fs::create_symlink("../secret", At("root/link"));
  fs::create_directory_symlink(At("root/in"), At("root/absolute"));
  const UniqueFd root = *OpenFile(At("root"), O_RDONLY | O_DIRECTORY);
  const UniqueFd good(sys::OpenBeneath(root.get(), "in/f", O_RDONLY));
  EXPECT_TRUE(good.valid());
  for (const char* bad : {"../secret", "link", "absolute/f", "/etc/passwd", "in/../../secret"}) {
    const UniqueFd fd(sys::OpenBeneath(root.get(), bad, O_RDONLY));
    EXPECT_FALSE(fd.valid()) << bad;
  }
}

}  // namespace
}  // namespace pulga
