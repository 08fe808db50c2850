// Unpack jobs through a real launcher and the real pulga-unpacker.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <optional>

#include "base/file_io.h"
#include "images/job_events.h"
#include "images/unpack_wire.h"
#include "sandbox/id_ranges.h"
#include "tests/kernel/launcher_unpack_fixture.h"
#include "tests/support/archive_builder.h"

namespace pulga::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(LauncherUnpack, PublishesALayerThatAVersionCanUse) {
  const std::string tar = TarBuilder().File("etc/motd", "a new layer\n").Finish();
  const Status done = Run(LayerJob(tar, Id(0x31)));
  ASSERT_TRUE(done.ok()) << done.error().message << Told();
  struct stat st = {};
  ASSERT_EQ(stat((PathOf(Id(0x31)) + "/etc/motd").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, kOwnerIdBase);
  VersionSpec spec = world_.Spec();
  spec.layers.push_back(Id(0x31));
  Build(spec);
  EXPECT_EQ(Say({"cat", "/etc/motd"}), "a new layer\n");
  EXPECT_THAT(Say({"cat", "/etc/passwd"}), HasSubstr("app"));
}

TEST_F(LauncherUnpack, PublishesNothingOfALayerWithAnotherDigest) {
  UnpackJob job = LayerJob(TarBuilder().File("x", "y").Finish(), Id(0x32));
  job.input = FileOf(TarBuilder().File("x", "z").Finish());
  const Status done = Run(std::move(job));
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().code, Code::kInvalidArgument) << done.error().message;
  EXPECT_THAT(Told(), HasSubstr("the layer's content is sha256:"));
  EXPECT_FALSE(fs::exists(PathOf(Id(0x32))));
}

TEST_F(LauncherUnpack, ReplacesALayerThatNobodyKnows) {
  fs::create_directory(PathOf(Id(0x33)));
  const std::string tar = TarBuilder().File("fresh", "1").Finish();
  ASSERT_TRUE(Run(LayerJob(tar, Id(0x33))).ok());
  EXPECT_TRUE(fs::exists(PathOf(Id(0x33)) + "/fresh"));
}

TEST_F(LauncherUnpack, ListsTheTreeOfALayer) {
  UnpackJob job;
  job.kind = UnpackKind::kList;
  UnpackOrder order;
  order.kind = UnpackKind::kList;
  job.request = order.Encode();
  job.parents = {world_.base_layer()};
  const Status done = Run(std::move(job));
  ASSERT_TRUE(done.ok()) << done.error().message << Told();
  EXPECT_THAT(Output(), HasSubstr("etc/passwd"));
}

// Starts an ingest whose upload comes through the returned pipe; `done` gets its end.
class LauncherIngest : public LauncherUnpack {
 protected:
  UniqueFd Start() {
    signal(SIGPIPE, SIG_IGN);
    UnpackOrder order;
    order.kind = UnpackKind::kIngest;
    order.max_entries = 100;
    order.max_bytes = 1 << 20;
    UnpackJob job;
    job.kind = order.kind;
    job.request = order.Encode();
    output_ = FileOf("");
    job.output.Reset(dup(output_.get()));
    int input[2];
    int channel[2];
    EXPECT_EQ(pipe2(input, O_CLOEXEC) + pipe2(channel, O_CLOEXEC), 0);
    job.input.Reset(input[0]);
    channel_.Reset(channel[0]);
    job.channel.Reset(channel[1]);
    number_ = world_.client().RunUnpack(std::move(job), [this](Status s) { done_ = s; });
    return UniqueFd(input[1]);
  }
  uint64_t number_ = 0;
  std::optional<Status> done_;
};

TEST_F(LauncherIngest, TellsMembersWhileTheUploadArrives) {
  UniqueFd upload = Start();
  const std::string tar = TarBuilder().File("a", "one").File("b", "two").Finish();
  ASSERT_TRUE(WriteAll(upload.get(), tar.substr(0, 1024)).ok());
  world_.Until([&] {  // the launcher needs turns of the loop to start it
    pollfd told = {channel_.get(), POLLIN, 0};
    return poll(&told, 1, 0) == 1;
  });
  JobEventReader reader(channel_.get());
  EXPECT_THAT(reader.Next().value()->payload, HasSubstr(Sha256Of("one")));
  EXPECT_FALSE(done_.has_value());
  ASSERT_TRUE(WriteAll(upload.get(), tar.substr(1024)).ok());
  upload.Reset();
  ASSERT_TRUE(world_.Until([&] { return done_.has_value(); }));
  EXPECT_TRUE(done_->ok()) << done_->error().message;
  EXPECT_EQ(Output(), tar);
}

TEST_F(LauncherIngest, EndsWhenItsJobIsCancelled) {
  const UniqueFd upload = Start();
  ASSERT_TRUE(WriteAll(upload.get(), TarBuilder().File("a", "one").Finish()).ok());
  JobEventReader reader(channel_.get());
  world_.Until([&] {
    pollfd told = {channel_.get(), POLLIN, 0};
    return poll(&told, 1, 0) == 1;
  });
  world_.client().CancelUnpack(number_);
  ASSERT_TRUE(world_.Until([&] { return done_.has_value(); }));
  EXPECT_EQ(done_->error().code, Code::kUnavailable) << done_->error().message;
  EXPECT_EQ(write(upload.get(), "x", 1), -1) << "nobody reads any more";
}

// The unpacker is at work, and the launcher has not yet read that it was started.
TEST_F(LauncherIngest, EndsWhenCancelledBeforeTheLauncherKnowsItsProcess) {
  const UniqueFd upload = Start();
  const std::string launcher = std::to_string(world_.launcher_pid());
  const std::string children = "/proc/" + launcher + "/task/" + launcher + "/children";
  std::string set_up;
  while (set_up.empty()) {
    world_.loop().RunOnce(Duration::zero());
    set_up = ReadFile(children).value();
  }
  ASSERT_EQ(kill(world_.launcher_pid(), SIGSTOP), 0);
  ASSERT_TRUE(WriteAll(upload.get(), TarBuilder().File("a", "one").Finish()).ok());
  world_.Until([&] {
    pollfd told = {channel_.get(), POLLIN, 0};
    return poll(&told, 1, 0) == 1;
  });
  world_.client().CancelUnpack(number_);
  ASSERT_EQ(kill(world_.launcher_pid(), SIGCONT), 0);
  ASSERT_TRUE(world_.Until([&] { return done_.has_value(); }));
  EXPECT_EQ(done_->error().code, Code::kUnavailable) << done_->error().message;
}

TEST_F(LauncherUnpack, RemovesALayer) {
  fs::create_directories(PathOf(Id(0x34)) + "/deep/er");
  world_.OwnLayer(PathOf(Id(0x34)));
  UnpackJob job;
  job.kind = UnpackKind::kRemove;
  UnpackOrder order;
  order.kind = UnpackKind::kRemove;
  job.request = order.Encode();
  job.target = Id(0x34);
  const Status done = Run(std::move(job));
  ASSERT_TRUE(done.ok()) << done.error().message << Told();
  EXPECT_FALSE(fs::exists(PathOf(Id(0x34))));
}

TEST_F(LauncherUnpack, RefusesJobsThatNameWhatIsNotThere) {
  UnpackJob job = LayerJob("", Id(0x35));
  job.parents = {Id(0x99)};
  EXPECT_THAT(Run(std::move(job)).error().message, HasSubstr("missing"));
  job = LayerJob("", Id(0x35));
  job.input.Reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(Run(std::move(job)).error().message, HasSubstr("regular file"));
}

}  // namespace
}  // namespace pulga::testing
