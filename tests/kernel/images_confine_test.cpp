// The unpacker's own fence: what is left to a process that has locked itself in.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "images/confine.h"
#include "tests/support/image_lab.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

// Runs `body` locked in below `root`, in namespaces of its own with this process's ids mapped, and
// returns what it wrote.
std::string LockedIn(const std::string& root, Keep keep, const std::function<void(int)>& body) {
  int out[2];
  EXPECT_EQ(pipe(out), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(out[0]);
    const int status_fd = open("/proc/thread-self/status", O_RDONLY);
    const int root_fd = open(root.c_str(), O_PATH | O_DIRECTORY);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0 || status_fd < 0) _exit(1);
    const Status locked = LockIn(root_fd, keep);
    if (!locked.ok()) (void)WriteAll(out[1], locked.error().message);
    if (locked.ok()) {
      char status[8192];
      const ssize_t n = pread(status_fd, status, sizeof status, 0);
      if (n > 0) (void)WriteAll(out[1], std::string_view(status, static_cast<size_t>(n)));
      body(out[1]);
    }
    _exit(0);
  }
  close(out[1]);
  const std::string text = ReadFd(out[0], 1 << 20).value();
  close(out[0]);
  waitpid(child, nullptr, 0);
  return text;
}

class Fence : public ImageLab {};

TEST_F(Fence, LeavesNoCapabilityButOverFiles) {
  const std::string none = LockedIn(canary_, Keep::kNothing, [](int) {});
  for (const char* line : {"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000",
                           "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000",
                           "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}) {
    EXPECT_THAT(none, HasSubstr(line));
  }
  // CHOWN, DAC_OVERRIDE, FOWNER, FSETID
  EXPECT_THAT(LockedIn(canary_, Keep::kFileOwnership, [](int) {}),
              HasSubstr("CapEff:\t000000000000001b"));
}

TEST_F(Fence, RefusesWhatAnUnpackerNeverDoes) {
  const std::string text = LockedIn(canary_, Keep::kFileOwnership, [](int out) {
    const auto tell = [out](const char* what, long result) {
      const std::string line = std::string(what) + (result >= 0      ? " worked\n"
                                                    : errno == EPERM ? " EPERM\n"
                                                                     : " other\n");
      (void)WriteAll(out, line);
    };
    tell("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    tell("mount", mount("x", "/", "tmpfs", 0, nullptr));
    char* const argv[] = {nullptr};
    tell("exec", execve("/secret", argv, argv));
    tell("chroot", chroot("."));
    tell("device", mknod("/dev0", S_IFBLK | 0600, 0x800));
    tell("fork", fork());
  });
  for (const char* what : {"socket", "mount", "exec", "chroot", "device", "fork"}) {
    EXPECT_THAT(text, HasSubstr(std::string(what) + " EPERM"));
  }
}

TEST_F(Fence, ShowsNothingOutsideTheRoot) {
  const std::string outside = dir_.path();
  const std::string text = LockedIn(canary_, Keep::kFileOwnership, [&](int out) {
    struct stat st = {};
    (void)WriteAll(out, fstatat(AT_FDCWD, "/secret", &st, 0) == 0 ? "inside\n" : "lost\n");
    for (const std::string& path : {outside, std::string("/etc"), std::string("/../etc")}) {
      if (fstatat(AT_FDCWD, path.c_str(), &st, 0) == 0) (void)WriteAll(out, "visible\n");
    }
  });
  EXPECT_THAT(text, HasSubstr("inside\n"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("visible")));
}

class SmallDisk : public ImageLab {
 protected:
  void SetUp() override {
    ImageLab::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    ASSERT_EQ(mount("tmpfs", layers_.c_str(), "tmpfs", 0, "size=1m,mode=700"), 0);
  }
  void TearDown() override {
    ImageLab::TearDown();
    if (!canary_.empty()) umount2(layers_.c_str(), MNT_DETACH);
  }
};

TEST_F(SmallDisk, FullIsSaidAndLeavesNothing) {
  EXPECT_THAT(FailureOf({TarBuilder().File("big", std::string(2 << 20, 'x')).Finish()}),
              HasSubstr("No space left"));
  EXPECT_EQ(report_.reason, ImportReason::kNoSpace);
  EXPECT_EQ(TreeOf({TarBuilder().File("small", "x").Finish()}), "small|f|644|0:0|\n");
}

}  // namespace
}  // namespace pulga::testing
