// Volumes: made, mounted, shared, full, removed; and what is left when somebody dies meanwhile.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/file_io.h"
#include "sandbox/id_ranges.h"
#include "sandbox/volumes/volume_growth.h"
#include "sandbox/volumes/volume_jobs.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kId = 0x5eed0001;
constexpr uint64_t kBytes = 8ULL << 20;

class LauncherVolumes : public LauncherTest {
 protected:
  Status Create(uint64_t id, uint64_t bytes = kBytes) {
    return Await([&](auto done) { world_.client().CreateVolume({id, bytes, "data"}, done); });
  }
  Status Remove(uint64_t id) {
    return Await([&](auto done) { world_.client().RemoveVolume(id, done); });
  }
  std::string FileOf(uint64_t id) { return world_.data() + "/volumes/" + VolumeFileName(id); }
};

TEST_F(LauncherVolumes, AreFilesOfRootWhoseSpaceIsTaken) {
  const Status made = Create(kId);
  ASSERT_TRUE(made.ok()) << made.error().message;
  struct stat st = {};
  ASSERT_EQ(stat(FileOf(kId).c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, 0U);
  EXPECT_EQ(st.st_mode & 07777, 0600U);
  EXPECT_EQ(static_cast<uint64_t>(st.st_size), kBytes);
  EXPECT_GE(static_cast<uint64_t>(st.st_blocks) * 512, kBytes);
  const auto listed = ListVolumes();
  ASSERT_THAT(listed, SizeIs(1));
  EXPECT_EQ(listed[0].id, kId);
  EXPECT_EQ(listed[0].file_bytes, kBytes);
  EXPECT_GT(listed[0].free_bytes, kBytes / 2);
  EXPECT_FALSE(listed[0].mounted);
  EXPECT_FALSE(listed[0].damaged);
}

TEST_F(LauncherVolumes, AreNeverMadeTwiceAndGoForGood) {
  ASSERT_TRUE(Create(kId).ok());
  EXPECT_EQ(Create(kId).error().code, Code::kAlreadyExists);
  EXPECT_TRUE(Remove(kId).ok());
  EXPECT_EQ(Remove(kId).error().code, Code::kNotFound);
  EXPECT_THAT(ListVolumes(), IsEmpty());
}

// With the capability: launcher_growth_test.
TEST_F(LauncherVolumes, GrowOrSayWhatIsMissing) {
  ASSERT_TRUE(Create(kId).ok());
  const Status grown =
      Await([&](auto done) { world_.client().ResizeVolume(kId, 2 * kBytes, done); });
  if (CanResizeFileSystems().ok()) {
    EXPECT_TRUE(grown.ok()) << grown.error().message;
    return;
  }
  EXPECT_THAT(grown.error().message, HasSubstr("CAP_SYS_RESOURCE"));
  EXPECT_EQ(grown.error().code, Code::kUnsupported);
  EXPECT_EQ(ListVolumes()[0].file_bytes, kBytes);
}

TEST_F(LauncherVolumes, NeitherShrinkNorOutgrowTheDisk) {
  ASSERT_TRUE(Create(kId).ok());
  const auto resize = [&](uint64_t bytes) {
    return Await([&](auto done) { world_.client().ResizeVolume(kId, bytes, done); });
  };
  EXPECT_EQ(resize(kBytes / 2).error().code, Code::kInvalidArgument);
  EXPECT_EQ(resize(kMaxVolumeBytes).error().code, Code::kNoSpace);
  EXPECT_EQ(ListVolumes()[0].file_bytes, kBytes);
}

TEST_F(LauncherVolumes, ThatDoNotFitAreNotMade) {
  const Status made = Create(kId, kMaxVolumeBytes);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code, Code::kNoSpace) << made.error().message;
  EXPECT_THAT(ListVolumes(), IsEmpty());
}

VolumeMount At(const std::string& path, uint64_t id = kId) {
  VolumeMount volume;
  volume.source = VolumeSource(id);
  volume.path = path;
  return volume;
}

class MountedVolumes : public LauncherVolumes {
 protected:
  void SetUp() override {
    LauncherVolumes::SetUp();
    const Status made = Create(kId);
    ASSERT_TRUE(made.ok()) << made.error().message;
  }
  // A user of the volume beside spawner_.
  struct Other {
    Recorder events;
    std::unique_ptr<Spawner> spawner;
  };
  std::unique_ptr<Other> Another(const VersionSpec& spec) {
    auto other = std::make_unique<Other>();
    other->spawner = world_.Build(spec, other->events);
    EXPECT_NE(other->spawner, nullptr) << world_.error.error().message;
    return other;
  }
  std::string SayIn(Other& other, const std::vector<std::string>& args) {
    const RunResult run = world_.Run(*other.spawner, other.events, args);
    return run.out + run.err + run.exit.setup_step;
  }
  VersionSpec With(VolumeMount volume) {
    VersionSpec spec = world_.Spec();
    spec.access.volumes = {std::move(volume)};
    return spec;
  }
  std::string Refusal(const VersionSpec& spec) {
    const auto spawner = world_.Build(spec, events_);
    return spawner != nullptr ? "it was built" : world_.error.error().message;
  }
  bool UntilDetached() {
    return world_.Until([&] { return world_.LoopDevices().empty(); });
  }
};

TEST_F(MountedVolumes, KeepWhatIsWrittenFromOneInstanceToTheNext) {
  Build(With(At("/data")));
  EXPECT_THAT(Say({"write", "/data/note", "kept"}), HasSubstr("ok"));
  EXPECT_EQ(Say({"cat", "/data/note"}), "kept");
  EXPECT_THAT(Say({"ls", "/data"}), ::testing::Eq("note\n"));
}

TEST_F(MountedVolumes, OutliveTheirVersionAndTheLauncher) {
  Build(With(At("/data")));
  Say({"write", "/data/note", "kept"});
  spawner_.reset();
  EXPECT_TRUE(UntilDetached());
  Build(With(At("/elsewhere")));
  EXPECT_EQ(Say({"cat", "/elsewhere/note"}), "kept");
  world_.KillLauncher();
  EXPECT_TRUE(UntilDetached()) << "the last mounts are gone, and the loop device is not";
  spawner_.reset();
  world_.StartLauncher();
  Build(With(At("/data")));
  EXPECT_EQ(Say({"cat", "/data/note"}), "kept");
}

TEST_F(MountedVolumes, AreOneFileSystemForAllVersionsThatHaveThem) {
  Build(With(At("/data")));
  const auto other = Another(With(At("/shared")));
  EXPECT_THAT(world_.LoopDevices(), SizeIs(1));
  Say({"write", "/data/note", "of-one"});
  EXPECT_EQ(SayIn(*other, {"cat", "/shared/note"}), "of-one");
  SayIn(*other, {"write", "/shared/answer", "of-the-other"});
  EXPECT_EQ(Say({"cat", "/data/answer"}), "of-the-other");
  EXPECT_TRUE(ListVolumes()[0].mounted);
}

TEST_F(MountedVolumes, AreFullAtTheirSizeAndNoFurther) {
  Build(With(At("/data")));
  const std::string full = Say({"tmpfill", "/data/fill"});
  EXPECT_THAT(full, HasSubstr("errno 28"));
  const uint64_t written = std::stoull(full);
  EXPECT_GT(written, kBytes / 2);
  EXPECT_LT(written, kBytes);
  const VolumeState state = ListVolumes()[0];  // and it shows
  EXPECT_TRUE(state.mounted);
  EXPECT_GE(state.total_bytes, written);
  EXPECT_LT(state.free_bytes, kBytes / 16);
  struct stat st = {};
  ASSERT_EQ(stat(FileOf(kId).c_str(), &st), 0);
  EXPECT_EQ(static_cast<uint64_t>(st.st_size), kBytes);
  EXPECT_THAT(Say({"unlink", "/data/fill"}), HasSubstr("ok"));
  EXPECT_THAT(Say({"write", "/data/note", "again"}), HasSubstr("ok"));
}

TEST_F(MountedVolumes, CanBeReadOnlyForOneAndNotForAnother) {
  VolumeMount read_only = At("/data");
  read_only.read_only = true;
  Build(With(read_only));
  const auto writer = Another(With(At("/data")));
  SayIn(*writer, {"write", "/data/note", "text"});
  EXPECT_EQ(Say({"cat", "/data/note"}), "text");
  EXPECT_THAT(Say({"write", "/data/note", "changed"}), HasSubstr("errno 30"));
  EXPECT_THAT(Say({"write", "/data/new"}), HasSubstr("errno 30"));
}

TEST_F(MountedVolumes, BelongToTheIdsInside) {
  VersionSpec spec = With(At("/data"));
  spec.user = "1000:1001";
  Build(spec);
  EXPECT_THAT(Say({"write", "/data/note"}), HasSubstr("ok"));
  const auto root = Another(With(At("/data")));
  EXPECT_THAT(SayIn(*root, {"stat", "/data/note"}), HasSubstr("1000:1001"));
  EXPECT_THAT(SayIn(*root, {"stat", "/data"}), HasSubstr("0:0 1777"));
}

TEST_F(MountedVolumes, TakeNoDevicesAndNoSetuid) {
  Build(With(At("/data")));
  const std::string mounts = Say({"mounts"});
  const size_t at = mounts.find(" /data ");
  ASSERT_NE(at, std::string::npos);
  const std::string line = mounts.substr(at, mounts.find('\n', at) - at);
  EXPECT_THAT(line, HasSubstr("nosuid,nodev"));
  EXPECT_THAT(line, HasSubstr("ext4"));
}

TEST_F(MountedVolumes, AreNotRemovedWhileSomebodyHasThem) {
  Build(With(At("/data")));
  EXPECT_EQ(Remove(kId).error().code, Code::kAlreadyExists);
  EXPECT_TRUE(fs::exists(FileOf(kId)));
  spawner_.reset();
  EXPECT_TRUE(Remove(kId).ok());
  EXPECT_FALSE(fs::exists(FileOf(kId)));
}

TEST_F(MountedVolumes, AreRefusedWhereTheImageOrTheSandboxHasSomethingElse) {
  EXPECT_THAT(Refusal(With(At("/probe"))), HasSubstr("not a directory"));
  EXPECT_THAT(Refusal(With(At("/data", kId + 1))), HasSubstr("missing"));
  VersionSpec nested = With(At("/bin"));
  nested.access.volumes.push_back(At("/usr/bin"));
  EXPECT_THAT(Refusal(nested), HasSubstr("inside the one at"));
  LayerId id;
  id.bytes.fill(0x31);
  const std::string layer = world_.MakeLayer(id);
  fs::create_symlink("tmp", layer + "/data");
  fs::create_directory(layer + "/tmp");
  world_.OwnLayer(layer);
  VersionSpec linked = With(At("/data"));
  linked.layers.push_back(id);
  EXPECT_THAT(Refusal(linked), HasSubstr("the sandbox's own"));
}

TEST_F(MountedVolumes, AreBelievedOnlyWhenRootAloneCanHaveMadeThem) {
  ASSERT_EQ(chown(FileOf(kId).c_str(), 1000, 1000), 0);
  EXPECT_THAT(Refusal(With(At("/data"))), HasSubstr("only root"));
  ASSERT_EQ(chown(FileOf(kId).c_str(), 0, 0), 0);
  ASSERT_EQ(chmod(FileOf(kId).c_str(), 0644), 0);
  EXPECT_THAT(Refusal(With(At("/data"))), HasSubstr("only root"));
  ASSERT_EQ(chmod(FileOf(kId).c_str(), 0600), 0);
  fs::rename(FileOf(kId), FileOf(kId) + ".away");
  fs::create_symlink(FileOf(kId) + ".away", FileOf(kId));
  EXPECT_THAT(Refusal(With(At("/data"))), HasSubstr("volume"));
}

TEST_F(MountedVolumes, AreRepairedBeforeTheyAreMountedAgain) {
  // As the kernel notes it when it meets damage.
  const std::string debugfs = "debugfs -w -R 'set_super_value state 2' " + FileOf(kId);
  ASSERT_EQ(system((debugfs + " >/dev/null 2>&1").c_str()), 0);
  EXPECT_TRUE(ListVolumes()[0].damaged);
  Build(With(At("/data")));
  EXPECT_THAT(Say({"write", "/data/note"}), HasSubstr("ok"));
  spawner_.reset();
  EXPECT_TRUE(UntilDetached());
  EXPECT_FALSE(ListVolumes()[0].damaged);
}

TEST_F(MountedVolumes, ThatAreNoFileSystemsAreNotTouched) {
  const UniqueFd image(open(FileOf(kId).c_str(), O_RDWR | O_CLOEXEC));
  const std::string zeros(65536, '\0');
  ASSERT_EQ(pwrite(image.get(), zeros.data(), zeros.size(), 0), ssize_t{65536});
  EXPECT_THAT(Refusal(With(At("/data"))), HasSubstr("no file system"));
  EXPECT_TRUE(ListVolumes()[0].damaged);
}

TEST_F(MountedVolumes, WaitForWhoeverHoldsTheirFile) {
  const UniqueFd image(open(FileOf(kId).c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(flock(image.get(), LOCK_EX), 0);
  bool answered = false;
  std::unique_ptr<Spawner> built;
  world_.client().BuildVersion(With(At("/data")), events_,
                               [&](Result<std::unique_ptr<Spawner>> result) {
                                 answered = true;
                                 if (result.ok()) built = std::move(*result);
                               });
  for (int i = 0; i < 20; ++i) world_.loop().RunOnce(std::chrono::milliseconds(10));
  EXPECT_FALSE(answered) << "two file systems on one file would destroy it";
  EXPECT_THAT(world_.LoopDevices(), IsEmpty());
  ASSERT_EQ(flock(image.get(), LOCK_UN), 0);
  EXPECT_TRUE(world_.Until([&] { return answered; }));
  EXPECT_NE(built, nullptr);
}

TEST_F(MountedVolumes, LeaveNothingBehindWhenTheLauncherDiesWhileItMakesOne) {
  bool answered = false;
  world_.client().CreateVolume({kId + 1, kBytes, "data"}, [&](Status) { answered = true; });
  world_.KillLauncher();
  EXPECT_TRUE(world_.Until([&] { return answered; }));
  EXPECT_TRUE(UntilDetached());
  EXPECT_TRUE(world_.Until([&] {  // its children go with it
    const auto left = world_.Leftovers();
    return std::none_of(left.begin(), left.end(),
                        [](const std::string& what) { return what.starts_with("Name:"); });
  }));
  world_.StartLauncher();
  const auto volumes = ListVolumes();  // whole, or not there
  for (const VolumeState& volume : volumes) EXPECT_FALSE(volume.damaged);
  EXPECT_LE(volumes.size(), 2U);
}

TEST_F(MountedVolumes, ShowAHostDirectoryThatIsGranted) {
  const std::string host = world_.data() + "/host";
  fs::create_directories(host + "/inner");
  std::ofstream(host + "/inner/note") << "of the host";
  fs::create_symlink(host, world_.data() + "/link");
  VolumeMount shown;
  shown.kind = VolumeKind::kHost;
  shown.source = host + "/inner";
  shown.path = "/host";
  shown.read_only = true;
  EXPECT_THAT(Refusal(With(shown)), HasSubstr("grants.conf"));
  world_.Grant("host-directory " + world_.data() + " read-only functions=*\n");
  Build(With(shown));
  EXPECT_EQ(Say({"cat", "/host/note"}), "of the host");
  EXPECT_THAT(Say({"write", "/host/new"}), HasSubstr("errno 30"));
  EXPECT_THAT(Say({"mounts"}), HasSubstr("/host ro,nosuid,nodev"));
  VolumeMount writable = shown;
  writable.read_only = false;
  EXPECT_THAT(Refusal(With(writable)), HasSubstr("read-write"));
  VolumeMount linked = shown;
  linked.source = world_.data() + "/link/inner";  // might lead anywhere
  EXPECT_THAT(Refusal(With(linked)), HasSubstr("bind-host-directory"));
  linked.source = host + "/inner/note";
  EXPECT_THAT(Refusal(With(linked)), HasSubstr("bind-host-directory"));
}

TEST_F(MountedVolumes, ShowAHostDirectoryToWriteTo) {
  const std::string host = world_.data() + "/host";
  fs::create_directory(host);
  ASSERT_EQ(chown(host.c_str(), kOwnerIdBase + 5, kOwnerIdBase + 5), 0);
  world_.Grant("host-directory " + host + " read-write functions=*\n");
  VolumeMount shown;
  shown.kind = VolumeKind::kHost;
  shown.source = host;
  shown.path = "/host";
  VersionSpec spec = With(shown);
  spec.user = "5:5";
  Build(spec);
  EXPECT_THAT(Say({"write", "/host/new", "kept"}), HasSubstr("ok"));
  EXPECT_EQ(ReadFile(host + "/new").value(), "kept");
  struct stat st = {};  // as the host sees it: nobody's but the function's
  ASSERT_EQ(stat((host + "/new").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, kOwnerIdBase + 5);
  EXPECT_EQ(st.st_gid, kOwnerIdBase + 5);
  EXPECT_THAT(Say({"stat", "/host/new"}), HasSubstr("5:5"));
}

TEST_F(MountedVolumes, ShowAnImageAsADataSet) {
  LayerId id;
  id.bytes.fill(0x32);
  const std::string layer = world_.MakeLayer(id);
  std::ofstream(layer + "/weights") << "one two three";
  world_.OwnLayer(layer);
  VolumeMount set;
  set.kind = VolumeKind::kDataSet;
  set.source = VolumeSource(7);
  set.path = "/models";
  set.read_only = true;
  set.layers = {id};
  Build(With(set));
  EXPECT_EQ(Say({"cat", "/models/weights"}), "one two three");
  EXPECT_THAT(Say({"write", "/models/new"}), HasSubstr("errno 30"));
  EXPECT_THAT(Say({"stat", "/models"}), HasSubstr("0:0 755"));
  set.layers[0].bytes.fill(0x33);
  EXPECT_THAT(Refusal(With(set)), HasSubstr("is missing"));
}

}  // namespace
}  // namespace pulga::testing
