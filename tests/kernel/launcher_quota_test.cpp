// Volumes where the disk keeps project quotas. A program of its own: the kernel has to know quotas
// (CONFIG_QFMT_V2), as Debian's does in the guest of scripts/vm-test, which runs it.
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/file_io.h"
#include "base/sys.h"
#include "sandbox/id_ranges.h"
#include "sandbox/volumes/project_quota.h"
#include "sandbox/volumes/quota_volume.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kId = 0x5eed0001;
constexpr uint64_t kBytes = 8ULL << 20;

// ext4, xfs
::testing::Matcher<std::string> IsFull() {
  return AnyOf(HasSubstr("errno 122"), HasSubstr("errno 28"));
}

class QuotaVolumes : public LauncherTest {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    ASSERT_EQ(unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    const std::string disk = world_.data() + "/disk";
    const std::string make = "truncate -s 256M " + disk +
                             " && mke2fs -q -t ext4 -O project,quota " + "-E quotatype=prjquota " +
                             disk + " && mount -o loop,prjquota " + disk + " " + folder();
    ASSERT_EQ(system(("PATH=$PATH:/usr/sbin:/sbin; " + make).c_str()), 0);
    ASSERT_EQ(chmod(folder().c_str(), 0700), 0);
    dir_.Reset(open(folder().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    world_.StartLauncher();
  }
  void TearDown() override {
    spawner_.reset();
    world_.StopLauncher();
    for (const auto& entry : fs::directory_iterator(folder())) {
      EXPECT_NE(entry.path().filename().string().rfind(".new-", 0), 0U) << entry.path();
    }
    dir_.Reset();
    EXPECT_EQ(umount2(folder().c_str(), 0), 0);
    EXPECT_TRUE(world_.Until([&] { return world_.LoopDevices().empty(); }));
    EXPECT_THAT(world_.Leftovers(), IsEmpty());
  }

  std::string folder() const { return world_.data() + "/volumes"; }
  std::string PathOf(uint64_t id) const { return folder() + "/" + VolumeFolderName(id); }
  VolumesDir Dir() const {
    UniqueFd fd(open(folder().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return std::move(VolumesDir::Open(std::move(fd))).value();
  }
  uint32_t ProjectAt(const std::string& path) const {
    const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return ProjectOf(fd.get()).value();
  }
  ProjectUse UseOf(uint32_t project) const { return ReadProject(dir_.get(), project).value(); }

  Status Create(uint64_t id, uint64_t bytes = kBytes) {
    return Await([&](auto done) { world_.client().CreateVolume({id, bytes, "data"}, done); });
  }
  Status Remove(uint64_t id) {
    return Await([&](auto done) { world_.client().RemoveVolume(id, done); });
  }
  VersionSpec With(const std::vector<std::pair<uint64_t, std::string>>& places) {
    VersionSpec spec = world_.Spec();
    for (const auto& [id, path] : places) {
      VolumeMount& volume = spec.access.volumes.emplace_back();
      volume.source = VolumeSource(id);
      volume.path = path;
    }
    return spec;
  }

  UniqueFd dir_;
};

TEST_F(QuotaVolumes, AreDirectoriesOfProjectsWithALimit) {
  const Status made = Create(kId);
  ASSERT_TRUE(made.ok()) << made.error().message;
  struct stat st = {};
  ASSERT_EQ(lstat(PathOf(kId).c_str(), &st), 0);
  EXPECT_TRUE(S_ISDIR(st.st_mode));
  EXPECT_EQ(st.st_mode & 07777, 01777U);
  EXPECT_EQ(st.st_uid, kOwnerIdBase);
  const uint32_t project = ProjectAt(PathOf(kId));
  EXPECT_NE(project, 0U);
  EXPECT_EQ(UseOf(project).limit_bytes, kBytes);
  const auto listed = ListVolumes();
  ASSERT_THAT(listed, SizeIs(1));
  EXPECT_EQ(listed[0].storage, VolumeStorage::kProjectQuota);
  EXPECT_EQ(listed[0].file_bytes, kBytes);
  EXPECT_FALSE(listed[0].mounted);
  EXPECT_FALSE(listed[0].damaged);
  EXPECT_EQ(Create(kId).error().code, Code::kAlreadyExists);
  ASSERT_TRUE(Create(kId + 1).ok());
  EXPECT_NE(ProjectAt(PathOf(kId + 1)), project);
}

TEST_F(QuotaVolumes, KeepWhatIsWrittenAndAreSafeToMount) {
  ASSERT_TRUE(Create(kId).ok());
  VersionSpec spec = With({{kId, "/data"}, {kId, "/again"}});
  spec.access.volumes[1].read_only = true;
  Build(spec);
  EXPECT_THAT(Say({"write", "/data/note", "kept"}), HasSubstr("ok"));
  EXPECT_EQ(Say({"cat", "/again/note"}), "kept");
  EXPECT_THAT(Say({"write", "/again/note"}), HasSubstr("errno 30"));
  EXPECT_THAT(Say({"mounts"}), HasSubstr("/data rw,nosuid,nodev,noatime"));
  EXPECT_THAT(Say({"stat", "/data"}), HasSubstr("0:0 1777"));
  EXPECT_TRUE(ListVolumes()[0].mounted);
  spawner_.reset();
  world_.KillLauncher();
  world_.StartLauncher();
  Build(With({{kId, "/data"}}));
  EXPECT_EQ(Say({"cat", "/data/note"}), "kept");
}

TEST_F(QuotaVolumes, AreFullAtTheirSizeAndNoFurther) {
  ASSERT_TRUE(Create(kId).ok());
  ASSERT_TRUE(Create(kId + 1).ok());
  Build(With({{kId, "/data"}, {kId + 1, "/other"}}));
  const std::string full = Say({"tmpfill", "/data/fill"});
  EXPECT_THAT(full, IsFull());
  EXPECT_GT(std::stoull(full), kBytes / 2);
  EXPECT_LE(std::stoull(full), kBytes);
  for (const VolumeState& state : ListVolumes()) {
    const bool full_one = state.id == kId;
    EXPECT_EQ(state.free_bytes < kBytes / 16, full_one) << state.free_bytes;
  }
  EXPECT_THAT(Say({"write", "/other/note"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"unlink", "/data/fill"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"write", "/data/note"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"inodes", "/data"}), IsFull());
}

TEST_F(QuotaVolumes, AreNotLeftThroughLinksAndRenames) {
  ASSERT_TRUE(Create(kId).ok());
  ASSERT_TRUE(Create(kId + 1).ok());
  Build(With({{kId, "/data"}, {kId + 1, "/other"}}));
  EXPECT_THAT(Say({"mkdir", "/data/deep"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"tmpfill", "/data/fill"}), IsFull());
  EXPECT_THAT(Say({"link", "/data/fill", "/other/fill"}), HasSubstr("errno 18"));
  EXPECT_THAT(Say({"rename", "/data/fill", "/other/fill"}), HasSubstr("errno 18"));
  EXPECT_THAT(Say({"link", "/data/fill", "/data/second"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"unlink", "/data/fill"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"rename", "/data/second", "/data/deep/second"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"tmpfill", "/data/deep/more"}), IsFull());
  EXPECT_LE(UseOf(ProjectAt(PathOf(kId))).used_bytes, kBytes);
  EXPECT_EQ(ProjectAt(PathOf(kId) + "/deep"), ProjectAt(PathOf(kId)));
}

TEST_F(QuotaVolumes, KeepTheirProjectWhateverAFunctionAsksFor) {
  ASSERT_TRUE(Create(kId).ok());
  const uint32_t project = ProjectAt(PathOf(kId));
  Build(With({{kId, "/data"}}));
  Say({"mkdir", "/data/deep"});
  for (const char* path : {"/data", "/data/deep"}) {
    const std::string tried = Say({"leave-project", path});
    EXPECT_THAT(tried, HasSubstr("read-project: ok"));
    for (const char* way : {"no-project", "other-project", "no-inherit"}) {
      EXPECT_THAT(tried, HasSubstr(std::string(way) + ": errno")) << tried;
    }
    EXPECT_EQ(ProjectAt(PathOf(kId) + (path + 5)), project) << tried;
  }
  EXPECT_EQ(UseOf(project).limit_bytes, kBytes);
}

TEST_F(QuotaVolumes, GoWithTheirLimitsAndNotWhileSomebodyHasThem) {
  ASSERT_TRUE(Create(kId).ok());
  const uint32_t project = ProjectAt(PathOf(kId));
  Build(With({{kId, "/data"}}));
  Say({"mkdir", "/data/deep"});
  Say({"write", "/data/deep/note"});
  EXPECT_EQ(Remove(kId).error().code, Code::kAlreadyExists);
  EXPECT_TRUE(fs::exists(PathOf(kId) + "/deep/note"));
  EXPECT_EQ(UseOf(project).limit_bytes, kBytes);
  spawner_.reset();
  const Status removed = Remove(kId);
  EXPECT_TRUE(removed.ok()) << removed.error().message;
  EXPECT_FALSE(fs::exists(PathOf(kId)));
  EXPECT_TRUE(world_.Until([&] { return UseOf(project).unused(); }));
  EXPECT_EQ(Remove(kId).error().code, Code::kNotFound);
}

TEST_F(QuotaVolumes, AreNotMadeOfWhatOthersWerePromised) {
  ASSERT_TRUE(Create(kId, 100ULL << 20).ok());
  ASSERT_TRUE(Create(kId + 1, 100ULL << 20).ok());
  const Status made = Create(kId + 2, 100ULL << 20);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code, Code::kNoSpace);
  EXPECT_THAT(made.error().message, HasSubstr("other volumes"));
  EXPECT_THAT(ListVolumes(), SizeIs(2));
}

TEST_F(QuotaVolumes, GrowAndShrinkDownToWhatIsUsed) {
  const auto resize = [&](uint64_t bytes) {
    return Await([&](auto done) { world_.client().ResizeVolume(kId, bytes, done); });
  };
  ASSERT_TRUE(Create(kId).ok());
  Build(With({{kId, "/data"}}));
  EXPECT_THAT(Say({"tmpfill", "/data/fill"}), IsFull());
  const Status shrunk = resize(kBytes / 2);
  ASSERT_FALSE(shrunk.ok());
  EXPECT_THAT(shrunk.error().message, HasSubstr("are in use"));
  EXPECT_TRUE(resize(2 * kBytes).ok());
  EXPECT_EQ(ListVolumes()[0].total_bytes, 2 * kBytes);
  const std::string more = Say({"tmpfill", "/data/more"});
  EXPECT_THAT(more, IsFull());
  EXPECT_GT(std::stoull(more), kBytes / 2);
  EXPECT_THAT(Say({"unlink", "/data/fill"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"unlink", "/data/more"}), HasSubstr("ok"));
  EXPECT_TRUE(resize(kBytes / 2).ok());
  EXPECT_EQ(ListVolumes()[0].file_bytes, kBytes / 2);
  EXPECT_EQ(resize(kMaxVolumeBytes).error().code, Code::kNoSpace);
}

TEST_F(QuotaVolumes, ThatACrashLeftHalfRemovedAreSwept) {
  ASSERT_TRUE(Create(kId).ok());
  const uint32_t project = ProjectAt(PathOf(kId));
  fs::create_directories(PathOf(kId) + "/deep/er");
  std::ofstream(PathOf(kId) + "/deep/er/note") << "text";
  world_.KillLauncher();
  fs::rename(PathOf(kId), folder() + "/" + UnfinishedFolderName(kId));
  world_.StartLauncher();
  EXPECT_TRUE(world_.Until([&] { return UseOf(project).unused(); }));
  EXPECT_THAT(ListVolumes(), IsEmpty());
}

TEST_F(QuotaVolumes, WithoutTheirQuotaAreNotMounted) {
  ASSERT_TRUE(Create(kId).ok());
  ASSERT_TRUE(LimitProject(dir_.get(), ProjectAt(PathOf(kId)), 0).ok());
  EXPECT_TRUE(ListVolumes()[0].damaged);
  EXPECT_EQ(world_.Build(With({{kId, "/data"}}), events_), nullptr);
  EXPECT_THAT(world_.error.error().message, HasSubstr("no quota any more"));
  ASSERT_TRUE(Remove(kId).ok());
}

TEST_F(QuotaVolumes, AreFilesWhereTheDirectoryIsInAProjectAlready) {
  ASSERT_TRUE(JoinProject(dir_.get(), 5).ok());
  const Status made = Create(kId);
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_EQ(ListVolumes()[0].storage, VolumeStorage::kLoopFile);
  Build(With({{kId, "/data"}}));
  EXPECT_THAT(Say({"write", "/data/note"}), HasSubstr("ok"));
}

// Each call fails once: all or nothing, and no limit without its directory.
TEST_F(QuotaVolumes, AreMadeAndRemovedWholeOrNotAtAll) {
  const VolumesDir dir = Dir();
  int made_at = 0;
  for (int n = 1; made_at == 0; ++n) {
    ASSERT_LT(n, 100);
    sys::FailNthCall(n, EIO);
    const Status made = CreateQuotaVolume(dir, kId, kBytes);
    sys::FailNthCall(0, 0);
    for (const std::string& name : dir.RemoveLeftovers().value()) {
      EXPECT_TRUE(SweepQuotaVolume(dir, name).ok()) << n;
    }
    if (made.ok()) made_at = n;
    if (!made.ok() && dir.StorageOf(kId)) {  // made, but not known to be durable
      EXPECT_THAT(made.error().message, HasSubstr("fsync"));
      ASSERT_TRUE(RemoveQuotaVolume(dir, kId).ok());
    }
  }
  const uint32_t project = ProjectAt(PathOf(kId));
  for (int n = 1; dir.StorageOf(kId) || n < 3; ++n) {
    ASSERT_LT(n, 100);
    sys::FailNthCall(n, EIO);
    (void)RemoveQuotaVolume(dir, kId);
    sys::FailNthCall(0, 0);
    EXPECT_TRUE(!dir.StorageOf(kId) || UseOf(project).limit_bytes == kBytes) << n;
    for (const std::string& name : dir.RemoveLeftovers().value()) {
      EXPECT_TRUE(SweepQuotaVolume(dir, name).ok()) << n;
    }
  }
  // xfs gives inodes back a little later.
  EXPECT_TRUE(world_.Until([&] { return UseOf(project).unused(); }));
}

}  // namespace
}  // namespace pulga::testing
