// Host directories with an owner in grants.conf: the function's user is that one there, and nobody
// else. Without: launcher_volumes_test.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/unique_fd.h"
#include "sandbox/id_ranges.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

class OwnedHostDirectories : public LauncherTest {
 protected:
  void SetUp() override {
    LauncherTest::SetUp();
    if (geteuid() != 0) return;
    std::filesystem::create_directory(host_);
    ASSERT_EQ(chown(host_.c_str(), 3000, 3001), 0);
    Make("note", 0600, {3000, 3001});
    Make("private", 0600, {2000, 2000});
    Make("public", 0666, {0, 0});
    Make("of-the-group", 0660, {2000, 3001});
  }
  // Where they cannot be had (a kernel that is only pretended to be old is one), a refusal is the
  // answer.
  bool AreRefusedHere() {
    struct statfs fs = {};
    const UniqueFd here(open(host_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const bool ext4 = fstatfs(here.get(), &fs) == 0 && fs.f_type == EXT4_SUPER_MAGIC;
    if (ext4 && UniqueFd(sys::CloneMount(here.get())).valid()) return false;
    world_.Grant("host-directory " + host_ + " read-write owner=3000 functions=*\n");
    const std::string why = Refusal(With(host_));
    if (why.empty()) return false;  // not every other file system is like that
    EXPECT_THAT(why, HasSubstr("id-mapped mounts"));
    return true;
  }
  void Make(const std::string& name, mode_t mode, HostOwner owner) {
    std::ofstream(host_ + "/" + name) << "text of " << name;
    ASSERT_EQ(chmod((host_ + "/" + name).c_str(), mode), 0);
    ASSERT_EQ(chown((host_ + "/" + name).c_str(), owner.uid, owner.gid), 0);
  }
  std::string OwnerOf(const std::string& name) {
    struct stat st = {};
    if (stat((host_ + "/" + name).c_str(), &st) != 0) return "is not there";
    return FormatOwner({st.st_uid, st.st_gid});
  }
  VersionSpec With(const std::string& source) {
    VersionSpec spec = world_.Spec();
    spec.user = "app";
    spec.access.volumes = {{VolumeKind::kHost, source, "/host", false, 0}};
    return spec;
  }
  std::string Refusal(const VersionSpec& spec) {
    auto spawner = world_.Build(spec, events_);
    return spawner == nullptr ? world_.error.error().message : "";
  }

  std::string host_ = world_.data() + "/host";
};

TEST_F(OwnedHostDirectories, AreUsedAsThatUserOfTheHost) {
  if (AreRefusedHere()) return;
  world_.Grant("host-directory " + host_ + " read-write owner=3000:3001 functions=*\n");
  Build(With(host_));
  const std::string ids = Say({"ids"});
  EXPECT_EQ(Say({"cat", "/host/note"}), "text of note");
  EXPECT_EQ(Say({"cat", "/host/of-the-group"}), "text of of-the-group");
  EXPECT_THAT(Say({"write", "/host/new", "kept"}), HasSubstr("ok"));
  EXPECT_EQ(ReadFile(host_ + "/new").value(), "kept");
  EXPECT_EQ(OwnerOf("new"), "3000:3001");
  EXPECT_THAT(Say({"mkdir", "/host/folder"}), HasSubstr("ok"));
  EXPECT_EQ(OwnerOf("folder"), "3000:3001");
  for (const char* name : {"/host", "/host/note", "/host/new"}) {
    EXPECT_THAT(Say({"stat", name}), HasSubstr("1000:1001")) << name << " of app: " << ids;
  }
}

TEST_F(OwnedHostDirectories, HoldTheFilesOfOthersAsThoseOfOthers) {
  if (AreRefusedHere()) return;
  world_.Grant("host-directory " + host_ + " read-write owner=3000:3001 functions=*\n");
  Build(With(host_));
  EXPECT_THAT(Say({"cat", "/host/private"}), HasSubstr("errno 13"));
  EXPECT_THAT(Say({"stat", "/host/private"}), HasSubstr("65534:65534"));
  EXPECT_EQ(Say({"cat", "/host/public"}), "text of public");
  EXPECT_THAT(Say({"write", "/host/public", "by all"}), HasSubstr("ok"));
  EXPECT_EQ(OwnerOf("public"), "0:0");
}

// With every capability over its own ids it becomes anybody of its image, and is nobody there.
TEST_F(OwnedHostDirectories, GiveNothingToOtherIdsOfTheImage) {
  if (AreRefusedHere()) return;
  world_.Grant("host-directory " + host_ +
               " read-write owner=3000:3001 functions=*\n"
               "capability SETUID functions=*\ncapability SETGID functions=*\n"
               "capability DAC_OVERRIDE functions=*\ncapability FOWNER functions=*\n");
  VersionSpec spec = With(host_);
  ASSERT_EQ(chmod(host_.c_str(), 0777), 0);
  for (const char* name : {"DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID"}) {
    spec.access.capabilities |= uint64_t{1} << CapabilityNumber(name).value();
  }
  Build(spec);
  EXPECT_THAT(Say({"cat", "/host/private"}), HasSubstr("errno 13"));
  for (const char* id : {"0", "5", "65534"}) {
    const std::string setuid = std::to_string(SYS_setuid);
    EXPECT_THAT(Say({"syscall", setuid, std::string(id) + ";", "write", "/host/strange", "x"}),
                HasSubstr("errno 75"));  // EOVERFLOW: nobody on that disk
    EXPECT_EQ(OwnerOf("strange"), "is not there");
  }
}

TEST_F(OwnedHostDirectories, CanBeReadOnly) {
  if (AreRefusedHere()) return;
  world_.Grant("host-directory " + host_ + " read-only owner=0 functions=*\n");
  Make("of-root", 0600, {0, 0});
  VersionSpec spec = With(host_);
  spec.access.volumes[0].read_only = true;
  Build(spec);
  EXPECT_EQ(Say({"cat", "/host/of-root"}), "text of of-root");
  EXPECT_THAT(Say({"write", "/host/of-root", "x"}), HasSubstr("errno 30"));
  EXPECT_THAT(Say({"mounts"}), HasSubstr("/host ro,nosuid,nodev"));
}

TEST_F(OwnedHostDirectories, TakeNoDevicesAndNoSetuid) {
  if (AreRefusedHere()) return;
  world_.Grant("host-directory " + host_ + " read-write owner=1000 functions=*\n");
  Build(With(host_));
  EXPECT_THAT(Say({"mounts"}), HasSubstr("/host rw,nosuid,nodev"));
  const auto layers = spawner_->layers();
  const Feature* layer = FindFeature(layers, "host_directories");
  ASSERT_NE(layer, nullptr);
  EXPECT_EQ(layer->detail, "by grant: " + host_ + " as 1000:1000 (grants.conf:1)");
}

TEST_F(OwnedHostDirectories, EndWithTheirOwnersLine) {
  if (AreRefusedHere()) return;
  world_.Grant("host-directory " + host_ + " read-write owner=3000:3001 functions=*\n");
  Build(With(host_));
  world_.Grant("# moved down\nhost-directory " + host_ +
               " read-write functions=* owner=3000:3001\n");
  EXPECT_EQ(Say({"cat", "/host/note"}), "text of note") << "it is the same owner";
  world_.Grant("host-directory " + host_ + " read-write owner=3000:3002 functions=*\n");
  EXPECT_TRUE(world_.Until([&] { return !events_.gone.empty(); }));
}

TEST_F(OwnedHostDirectories, AreRefusedWhereTheKernelOrTheFileSystemCannot) {
  world_.Grant("host-directory /proc read-write owner=1000 functions=*\n");
  EXPECT_THAT(Refusal(With("/proc/sys")),
              ::testing::AllOf(HasSubstr("volume at /host: owner=1000:1000 of grants.conf: "),
                               HasSubstr("id-mapped mounts")));
  EXPECT_EQ(world_.error.error().code, Code::kUnsupported);
}

TEST_F(OwnedHostDirectories, NeedAUserThatTheImageHas) {
  world_.Grant("host-directory " + host_ + " read-write owner=3000:3001 functions=*\n");
  VersionSpec spec = With(host_);
  spec.user = "stranger";
  EXPECT_THAT(Refusal(spec), HasSubstr("user: "));
  EXPECT_EQ(world_.error.error().code, Code::kInvalidArgument);
}

}  // namespace
}  // namespace pulga::testing
