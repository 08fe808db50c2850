// Paths inside a root, by openat2 or, on a kernel without it (tests old-kernel:*), step by step.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/temp_dir.h"
#include "base/unique_fd.h"

namespace pulga {
namespace {

namespace fs = std::filesystem;

class OpenInRoot : public ::testing::Test {
 protected:
  void SetUp() override {
    const fs::path root = dir_.path() + "/root";
    fs::create_directories(root / "a/b");
    std::ofstream(dir_.path() + "/outside") << "outside";
    std::ofstream(root / "file") << "file";
    std::ofstream(root / "a/b/deep") << "deep";
    fs::create_symlink("/a/b", root / "absolute");
    fs::create_symlink("../../../../outside", root / "a/climbs");
    fs::create_symlink("../file", root / "a/up");
    fs::create_symlink("loop", root / "loop");
    fs::create_symlink("nowhere", root / "dangling");
    root_ = std::move(OpenFile(root, O_PATH | O_DIRECTORY)).value();
  }
  // What is read there, or the errno.
  std::string Read(const char* path, int flags = O_RDONLY) {
    const UniqueFd fd(sys::OpenInRoot(root_.get(), path, flags));
    if (!fd.valid()) return std::to_string(errno);
    EXPECT_NE(fcntl(fd.get(), F_GETFD) & FD_CLOEXEC, 0);
    struct stat st = {};
    EXPECT_EQ(fstat(fd.get(), &st), 0);
    if (S_ISDIR(st.st_mode)) return "directory";
    if (S_ISLNK(st.st_mode)) return "link";
    const auto text = ReadFd(fd.get(), 100);
    return text.ok() ? *text : "unreadable";
  }
  static std::string Errno(int number) { return std::to_string(number); }

  TempDir dir_ = std::move(TempDir::Create("/tmp/pulga-open-test")).value();
  UniqueFd root_;
};

TEST_F(OpenInRoot, FindsWhatIsThereByAnyWay) {
  for (const char* path : {"file", "/file", "./file", "a/../file", "//a//up", "absolute/../../file",
                           "../../file", "/../file"}) {
    EXPECT_EQ(Read(path), "file") << path;
  }
  for (const char* path : {"a/b/deep", "absolute/deep", "/absolute/./deep"}) {
    EXPECT_EQ(Read(path), "deep") << path;
  }
}

TEST_F(OpenInRoot, NeverLeavesTheRoot) {
  EXPECT_EQ(Read("a/climbs"), Errno(ENOENT));
  EXPECT_EQ(Read("../outside"), Errno(ENOENT));
  EXPECT_EQ(Read("a/../../outside"), Errno(ENOENT));
}

TEST_F(OpenInRoot, OpensDirectoriesAndTheRootItself) {
  for (const char* path : {"/", ".", "..", "a", "a/", "absolute", "absolute/"}) {
    EXPECT_EQ(Read(path, O_RDONLY | O_DIRECTORY), "directory") << path;
    EXPECT_EQ(Read(path, O_PATH), "directory") << path;
  }
}

TEST_F(OpenInRoot, SaysWhyNot) {
  EXPECT_EQ(Read("loop"), Errno(ELOOP));
  EXPECT_EQ(Read("dangling"), Errno(ENOENT));
  EXPECT_EQ(Read("file/below"), Errno(ENOTDIR));
  EXPECT_EQ(Read("file/"), Errno(ENOTDIR));
  EXPECT_EQ(Read("file", O_RDONLY | O_DIRECTORY), Errno(ENOTDIR));
  EXPECT_EQ(Read(""), Errno(ENOENT));
}

TEST_F(OpenInRoot, LeavesALinkAloneWhenAskedTo) {
  EXPECT_EQ(Read("a/up", O_PATH | O_NOFOLLOW), "link");
  EXPECT_EQ(Read("a/up", O_RDONLY | O_NOFOLLOW), Errno(ELOOP));
  EXPECT_EQ(Read("absolute/deep", O_RDONLY | O_NOFOLLOW), "deep");
}

}  // namespace
}  // namespace pulga
