// Volumes in files that grow: at rest, while functions use them, and after whatever stopped it half
// way. Growing needs CAP_SYS_RESOURCE, which root does not have everywhere: run by the tier vm.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/sys.h"
#include "sandbox/volumes/volume_growth.h"
#include "sandbox/volumes/volume_jobs.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr uint64_t kId = 0x5eed0002;
constexpr uint64_t kBytes = 8ULL << 20;

class GrowingVolumes : public LauncherTest {
 protected:
  void SetUp() override {
    LauncherTest::SetUp();
    if (!CanResizeFileSystems().ok()) PULGA_SKIP("root has no CAP_SYS_RESOURCE here");
    const Status made = Await([&](auto done) {
      world_.client().CreateVolume({kId, kBytes, "data"}, done);
    });
    ASSERT_TRUE(made.ok()) << made.error().message;
    Build(Spec());
    ASSERT_THAT(Say({"write", "/data/note", "kept"}), HasSubstr("ok"));
  }
  VersionSpec Spec() {
    VersionSpec spec = world_.Spec();
    VolumeMount& volume = spec.access.volumes.emplace_back();
    volume.source = VolumeSource(kId);
    volume.path = "/data";
    return spec;
  }
  Status Grow(uint64_t bytes) {
    return Await([&](auto done) { world_.client().ResizeVolume(kId, bytes, done); });
  }
  VolumeState State() {
    const auto listed = ListVolumes();
    return listed.size() == 1 ? listed[0] : VolumeState{};
  }
  void Rest() {
    spawner_.reset();
    EXPECT_TRUE(world_.Until([&] { return world_.LoopDevices().empty(); }));
  }
  std::string File() { return world_.data() + "/volumes/" + VolumeFileName(kId); }
  // All of its file is taken from the disk.
  void ExpectFilled(uint64_t bytes) {
    const VolumeState state = State();
    EXPECT_EQ(state.file_bytes, bytes);
    EXPECT_GT(state.total_bytes, bytes * 3 / 4);
    EXPECT_FALSE(state.damaged);
    struct stat st = {};
    ASSERT_EQ(stat(File().c_str(), &st), 0);
    EXPECT_GE(static_cast<uint64_t>(st.st_blocks) * 512, bytes);
    EXPECT_EQ(Say({"cat", "/data/note"}), "kept");
    const std::string full = Say({"tmpfill", "/data/fill"});
    EXPECT_THAT(full, HasSubstr("errno 28"));
    EXPECT_GT(std::stoull(full), bytes * 3 / 4);
  }
};

TEST_F(GrowingVolumes, GrowWhileTheyAreUsed) {
  EXPECT_THAT(Say({"tmpfill", "/data/full"}), HasSubstr("errno 28"));
  const Status grown = Grow(4 * kBytes);
  ASSERT_TRUE(grown.ok()) << grown.error().message;
  EXPECT_THAT(world_.LoopDevices(), SizeIs(1));
  EXPECT_THAT(Say({"unlink", "/data/full"}), HasSubstr("ok"));
  ExpectFilled(4 * kBytes);
}

TEST_F(GrowingVolumes, GrowAtRestAndAgain) {
  Rest();
  ASSERT_TRUE(Grow(2 * kBytes).ok());
  ASSERT_TRUE(Grow(2 * kBytes).ok());  // nothing to do
  ASSERT_TRUE(Grow(6 * kBytes).ok());
  EXPECT_FALSE(State().mounted);
  Build(Spec());
  ExpectFilled(6 * kBytes);
}

TEST_F(GrowingVolumes, DoNotShrinkAndDoNotOutgrowTheDisk) {
  const Status shrunk = Grow(kBytes / 2);
  ASSERT_FALSE(shrunk.ok());
  EXPECT_EQ(shrunk.error().code, Code::kInvalidArgument);
  EXPECT_THAT(shrunk.error().message, HasSubstr("does not shrink"));
  EXPECT_EQ(Grow(kMaxVolumeBytes).error().code, Code::kNoSpace);
  ExpectFilled(kBytes);
}

// As a kill or a power cut leaves it: the file has grown, and nothing else.
TEST_F(GrowingVolumes, FinishWhatWasBegunAtTheNextMount) {
  Rest();
  const UniqueFd image(open(File().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(fallocate(image.get(), 0, 0, static_cast<off_t>(4 * kBytes)), 0);
  Build(Spec());
  ExpectFilled(4 * kBytes);
}

TEST_F(GrowingVolumes, FinishWhatWasBegunWhileAnotherHasThem) {
  const UniqueFd image(open(File().c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(fallocate(image.get(), 0, 0, static_cast<off_t>(4 * kBytes)), 0);
  Recorder events;
  const auto second = world_.Build(Spec(), events);
  ASSERT_NE(second, nullptr);
  ExpectFilled(4 * kBytes);
}

// Each call fails once, or the process dies before it: the volume is whole, and grows afterwards.
TEST_F(GrowingVolumes, AreWholeWhateverStopsIt) {
  Rest();
  uint64_t size = kBytes;
  const auto attempt = [&](int n, int sys_errno) {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    UniqueFd fd(open((world_.data() + "/volumes").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto dir = VolumesDir::Open(std::move(fd));
    sys::FailNthCall(n, sys_errno);
    const Status grown = GrowVolume(*dir, {kId, size + kBytes});
    _exit(grown.ok() ? 0 : grown.error().message.empty() ? 2 : 1);
  };
  int status = 0;
  for (int n = 1; n < 80; ++n) {
    const pid_t pid = attempt(n, EIO);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_NE(WEXITSTATUS(status), 2) << n;
    EXPECT_TRUE(world_.Until([&] { return world_.LoopDevices().empty(); })) << n;
    const VolumeState state = State();
    ASSERT_FALSE(state.damaged) << n;
    ASSERT_TRUE(state.file_bytes == size || state.file_bytes == size + kBytes) << n;
    if (status == 0) break;
  }
  ASSERT_EQ(status, 0);
  size += kBytes;
  Build(Spec());
  ExpectFilled(size);
}

TEST_F(GrowingVolumes, AreWholeWhenTheLauncherDiesMeanwhile) {
  Rest();
  for (int round = 1; round < 6; ++round) {
    bool answered = false;
    world_.client().ResizeVolume(kId, (1 + static_cast<uint64_t>(round)) * kBytes,
                                 [&](const Status&) { answered = true; });
    for (int i = 0; i < round * round; ++i) world_.loop().RunOnce(std::chrono::milliseconds(2));
    world_.KillLauncher();
    EXPECT_TRUE(world_.Until([&] { return answered; }));
    EXPECT_TRUE(world_.Until([&] { return world_.LoopDevices().empty(); }));
    world_.StartLauncher();
    ASSERT_FALSE(State().damaged);
  }
  ASSERT_TRUE(Grow(6 * kBytes).ok());
  Build(Spec());
  ExpectFilled(6 * kBytes);
}

}  // namespace
}  // namespace pulga::testing
