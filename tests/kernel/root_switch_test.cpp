// Leaving the host's root: by pivot_root, and from a root that cannot be pivoted, as on a board
// that runs from its initramfs. The first root is there beneath the machine's own: a child in a
// mount namespace of its own detaches what lies over it.
#include "base/root_switch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/file_io.h"
#include "base/scope_exit.h"
#include "base/sys.h"
#include "base/text.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

// What a child tells by its exit status: 0, or the line of what went wrong.
#define MUST(condition)                          \
  do {                                           \
    if (!(condition)) return __LINE__ % 199 + 1; \
  } while (false)

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// As chroot(2) says: whoever may use it gets out of a root that only chroot made.
std::string ClimbOut() {
  if (mkdir("/jail", 0700) != 0 || chroot("/jail") != 0) return "no jail";
  for (int i = 0; i < 32; ++i) {
    if (chdir("..") != 0) return "no way up";
  }
  if (chroot(".") != 0) return "no way in";
  return Exists("/new-root") ? "inside" : "outside";
}

// In the machine's first root, or in the one it runs from: a new root with a proc in it, entered,
// and a mount beside it.
class SwitchesRoot : public ::testing::Test {
 protected:
  enum class From { kFirst, kUsual };

  void SetUp() override { PULGA_NEED(geteuid() == 0, "mounting needs root"); }

  int EnterNewRoot(From from) {
    MUST(unshare(CLONE_NEWNS) == 0);
    MUST(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    const UniqueFd space(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    if (from == From::kFirst) {  // what lies over it goes, in this namespace
      MUST(umount2("/", MNT_DETACH) == 0 && setns(space.get(), CLONE_NEWNS) == 0);
    }
    MUST(chdir(from == From::kFirst ? "/" : "/tmp") == 0);
    old_.Reset(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    for (const std::string& name : {new_, beside_}) {
      MUST(mkdir(name.c_str(), 0700) == 0);
      MUST(mount("test", name.c_str(), "tmpfs", 0, "size=64k") == 0);
    }
    MUST(chdir(new_.c_str()) == 0);
    MUST(mkdir("new-root", 0700) == 0 && mkdir("proc", 0700) == 0);
    MUST(mount("proc", "proc", "proc", 0, nullptr) == 0);
    seen_.Reset(open("proc/self/mountinfo", O_RDONLY | O_CLOEXEC));
    MUST(seen_.valid());
    return 0;
  }
  template <typename Deed>
  int Inside(From from, Deed deed) {
    return testing::RunInChild([&] {
      const ScopeExit remove([&] {
        for (const std::string& name : {new_, beside_}) {
          (void)!fchdir(old_.get());
          umount2(name.c_str(), MNT_DETACH);
          unlinkat(old_.get(), name.c_str(), AT_REMOVEDIR);
        }
      });
      const int failed = EnterNewRoot(from);
      return failed != 0 ? failed : testing::RunInChild(deed);
    });
  }
  // The mounts that the old root still shows.
  std::string Mounts() const {
    return lseek(seen_.get(), 0, SEEK_SET) == 0 ? ReadFd(seen_.get(), 1 << 20).value() : "";
  }

  const std::string new_ = "pulga-root-switch-" + std::to_string(getpid());
  const std::string beside_ = new_ + "-beside";
  UniqueFd old_, seen_;
};

TEST_F(SwitchesRoot, ByPivotRootWhereTheKernelDoesIt) {
  EXPECT_EQ(Inside(From::kUsual,
                   [&] {
                     const auto way = SwitchRoot(seen_.get());
                     MUST(way.ok() && *way == RootSwitch::kPivoted);
                     MUST(Exists("/new-root") && ClimbOut() == "inside");
                     return 0;
                   }),
            0);
}

TEST_F(SwitchesRoot, ByMovingItOverTheFirstRootAndNothingOfThatIsReached) {
  EXPECT_EQ(Inside(From::kFirst,
                   [&] {
                     MUST(sys::PivotRoot(".", ".") != 0 && errno == EINVAL);
                     MUST(IsFirstRoot(Mounts()));
                     const auto way = SwitchRoot(seen_.get());
                     MUST(way.ok() && *way == RootSwitch::kMovedOver);
                     MUST(Exists("/new-root") && !Exists("/" + beside_));
                     MUST(Exists("/proc/self/root/new-root") && Exists("/proc/1/../../new-root"));
                     MUST(ClimbOut() == "inside");
                     return 0;
                   }),
            0);
}

// Every version's mount namespace would keep what is mounted beside busy, and be slow to copy.
TEST_F(SwitchesRoot, AndDetachesAllElseThatWasMounted) {
  EXPECT_EQ(Inside(From::kFirst,
                   [&] {
                     MUST(Mounts().find(beside_) != std::string::npos);
                     MUST(SwitchRoot(seen_.get()).ok());
                     MUST(Mounts().find(beside_) == std::string::npos);
                     MUST(Mounts().find(" /proc ") != std::string::npos);
                     return 0;
                   }),
            0);
}

// Root of a user namespace has all it takes to unmount, but not this mount.
TEST_F(SwitchesRoot, AUserNamespaceCannotLiftTheNewRootOffTheFirst) {
  EXPECT_EQ(Inside(From::kFirst,
                   [&] {
                     MUST(SwitchRoot(seen_.get()).ok());
                     MUST(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
                     MUST(umount2("/", MNT_DETACH) != 0 && errno == EINVAL);
                     MUST(mount("/", "/proc", nullptr, MS_MOVE, nullptr) != 0);
                     const UniqueFd space(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
                     MUST(setns(space.get(), CLONE_NEWNS) == 0 && Exists("/new-root"));
                     return 0;
                   }),
            0);
}

// The fetcher's case: what was mounted before belongs to a more privileged namespace.
TEST_F(SwitchesRoot, InAUserNamespaceToo) {
  EXPECT_EQ(Inside(From::kFirst,
                   [&] {
                     MUST(unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0);
                     const UniqueFd self(open("proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC));
                     const UniqueFd seen(openat(self.get(), "mountinfo", O_RDONLY | O_CLOEXEC));
                     MUST(seen.valid());
                     for (const char* line : {"setgroups:deny", "uid_map:0 0 1", "gid_map:0 0 1"}) {
                       const auto parts = Split(line, ':');
                       const std::string name(parts[0]);
                       const UniqueFd fd(openat(self.get(), name.c_str(), O_WRONLY | O_CLOEXEC));
                       MUST(WriteAll(fd.get(), parts[1]).ok());
                     }
                     MUST(mount("own", "proc", "tmpfs", 0, nullptr) == 0 && chdir("proc") == 0);
                     MUST(mkdir("new-root", 0700) == 0);
                     const auto way = SwitchRoot(seen.get());
                     MUST(way.ok() && *way == RootSwitch::kMovedOver);
                     MUST(Exists("/new-root") && !Exists("/proc") && ClimbOut() == "inside");
                     return 0;
                   }),
            0);
}

// EINVAL says much else: then nothing is moved anywhere.
TEST_F(SwitchesRoot, NotForAnyOtherReasonToRefuse) {
  EXPECT_EQ(Inside(From::kUsual,
                   [&] {
                     MUST(chdir("new-root") == 0);  // no mount point
                     const auto way = SwitchRoot(seen_.get());
                     MUST(!way.ok() && way.error().sys_errno == EINVAL);
                     MUST(way.error().message.find("pivot-root") == 0 && Exists("/proc/self"));
                     return 0;
                   }),
            0);
  EXPECT_EQ(Inside(From::kFirst,
                   [&] {
                     MUST(chdir("new-root") == 0);
                     const auto way = SwitchRoot(seen_.get());
                     MUST(!way.ok() && way.error().message.find("move-root") == 0);
                     MUST(Mounts().find(beside_) != std::string::npos);
                     return 0;
                   }),
            0);
  EXPECT_EQ(Inside(From::kFirst,
                   [&] {
                     sys::FailNthCall(1, EPERM);
                     const auto way = SwitchRoot(seen_.get());
                     MUST(!way.ok() && way.error().sys_errno == EPERM);
                     MUST(Mounts().find(beside_) != std::string::npos);
                     return 0;
                   }),
            0);
}

}  // namespace
}  // namespace pulga
