// VolumeService over a real store and a real storage thread, with files in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/temp_dir.h"
#include "runtime/volume_service.h"
#include "tests/support/fake_volume_host.h"
#include "tests/support/layers.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kBytes = 8 << 20;

FunctionKey Key(const std::string& name) { return {"admin", "openfaas-fn", name}; }

VolumeMount Data(uint64_t bytes = 0) {
  return {VolumeKind::kVolume, "data", "/data", false, bytes, {}};
}

class VolumeServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_ = EventLoop::Create().value();
    Restart();
  }
  void TearDown() override { Stop(); }
  void Stop() {
    volumes_.reset();
    storage_.reset();
    store_.reset();
  }
  void Restart() {
    Stop();
    catalog_ = {};
    store_ = StateStore::Open(dir_.path()).value();
    const StoredState state = store_->Load().value();
    for (const ImageRecord& image : state.images) catalog_.Add(image);
    storage_ = std::make_unique<WorkQueue>("storage", *loop_);
    volumes_ = std::make_unique<VolumeService>(
        VolumeParts{*loop_, clock_, *storage_, *store_, catalog_, host_, dir_.path(),
                    [this](const FunctionKey&) { return users_; }},
        0);
    volumes_->Load(state.volumes);
  }
  void AddImage(const std::string& ref) {
    ImageRecord image;
    image.owner = kDefaultOwner;
    image.digest = "sha256:" + std::string(64, 'a');
    image.refs = {"docker.io/library/" + ref};
    LayerRecord layer;
    layer.chain_id = testing::Layer(3);
    layer.diff_id = std::string(64, 'b');
    image.layers = {layer};
    ASSERT_TRUE(store_->StoreImages({image}, 1).ok());
    catalog_.Add(image);
  }
  void WaitFor(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) loop_->RunOnce(std::chrono::milliseconds(20));
    ASSERT_TRUE(condition());
  }
  Result<VolumePut> Make(const std::string& name, const VolumeWish& wish) {
    std::optional<Result<VolumePut>> put;
    volumes_->Put(Key(name), wish, [&](Result<VolumePut> p) { put = std::move(p); });
    WaitFor([&] { return put.has_value(); });
    return *put;
  }
  Result<VolumeView> Resize(const std::string& name, uint64_t bytes) {
    std::optional<Result<VolumeView>> done;
    volumes_->Resize(Key(name), bytes, [&](Result<VolumeView> view) { done = std::move(view); });
    WaitFor([&] { return done.has_value(); });
    return *done;
  }
  Status Remove(const std::string& name) {
    std::optional<Status> done;
    volumes_->Remove(Key(name), [&](Status s) { done = std::move(s); });
    WaitFor([&] { return done.has_value(); });
    return *done;
  }
  Result<VolumeService::Hold> Ensure(const std::vector<VolumeMount>& mounts) {
    std::optional<Result<VolumeService::Hold>> done;
    volumes_->Ensure(Key("f"), mounts, [&](Result<VolumeService::Hold> h) { done = std::move(h); });
    WaitFor([&] { return done.has_value(); });
    return *done;
  }
  VolumeList List() {
    VolumeList list;
    volumes_->List([&](Result<VolumeList> l) { list = std::move(*l); });
    return list;
  }
  std::string Problem(const VolumeMount& mount) {
    const auto resolved = volumes_->Resolve(Key("f"), {mount});
    return resolved.ok() ? "" : resolved.error().message;
  }

  TempDir dir_ = std::move(TempDir::Create("/tmp/pulga-volumes-")).value();
  SystemClock clock_;
  std::unique_ptr<EventLoop> loop_;
  testing::FakeVolumeHost host_;
  ImageCatalog catalog_;
  std::vector<std::string> users_;
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<WorkQueue> storage_;
  std::unique_ptr<VolumeService> volumes_;
};

TEST_F(VolumeServiceTest, GrowsOnTheDiskAndInTheDatabase) {
  ASSERT_TRUE(Make("data", {kBytes, ""}).ok());
  const auto grown = Resize("data", 2 * kBytes);
  ASSERT_TRUE(grown.ok()) << grown.error().message;
  EXPECT_EQ(grown->row.bytes, 2 * kBytes);
  EXPECT_EQ(host_.disk.begin()->second, 2 * kBytes);
  Restart();
  EXPECT_EQ(List().volumes[0].row.bytes, 2 * kBytes);
}

TEST_F(VolumeServiceTest, StaysAsItWasWhenItCannotGrow) {
  ASSERT_TRUE(Make("data", {kBytes, ""}).ok());
  EXPECT_EQ(Resize("absent", kBytes).error().code, Code::kNotFound);
  EXPECT_EQ(Resize("data", 1).error().code, Code::kInvalidArgument);
  EXPECT_EQ(Resize("data", kMaxVolumeBytes).error().code, Code::kNoSpace);
  host_.failure = Error{Code::kUnsupported, 0, "cannot"};
  EXPECT_EQ(Resize("data", 2 * kBytes).error().code, Code::kUnsupported);
  EXPECT_EQ(List().volumes[0].row.bytes, kBytes);
}

TEST_F(VolumeServiceTest, AdoptsTheSizeThatACrashKeptFromTheDatabase) {
  ASSERT_TRUE(Make("data", {kBytes, ""}).ok());
  host_.disk.begin()->second = 2 * kBytes;
  Restart();
  volumes_->Sweep();
  WaitFor([&] { return List().volumes[0].row.bytes == 2 * kBytes; });
}

TEST_F(VolumeServiceTest, TellsHowTheDiskKeepsIt) {
  host_.storage = VolumeStorage::kProjectQuota;
  const auto put = Make("data", {kBytes, ""});
  ASSERT_TRUE(put->volume.state.has_value());
  EXPECT_EQ(put->volume.state->storage, VolumeStorage::kProjectQuota);
  EXPECT_EQ(List().volumes[0].state->storage, VolumeStorage::kProjectQuota);
}

TEST_F(VolumeServiceTest, MakesEachOnceAndKeepsItOverARestart) {
  EXPECT_EQ(Make("data", {kBytes, ""})->effect, VolumePut::Effect::kCreated);
  EXPECT_EQ(Make("data", {kBytes, ""})->effect, VolumePut::Effect::kUnchanged);
  EXPECT_EQ(Make("data", {2 * kBytes, ""}).error().code, Code::kAlreadyExists);
  EXPECT_THAT(host_.disk, SizeIs(1));
  Restart();
  ASSERT_THAT(List().volumes, SizeIs(1));
  EXPECT_EQ(List().volumes[0].row.bytes, kBytes);
  EXPECT_TRUE(Remove("data").ok());
  EXPECT_THAT(host_.disk, IsEmpty());
  EXPECT_EQ(Remove("data").error().code, Code::kNotFound);
}

TEST_F(VolumeServiceTest, LeavesNoRowOfWhatCouldNotBeMade) {
  host_.failure = Error{Code::kNoSpace, 0, "the disk is full"};
  EXPECT_EQ(Make("data", {kBytes, ""}).error().code, Code::kNoSpace);
  host_.failure = OkStatus();
  EXPECT_TRUE(Make("data", {kBytes, ""}).ok()) << "and its name is free";
}

TEST_F(VolumeServiceTest, KeepsTheReserveOfTheDisk) {
  volumes_->SetReserve(UINT64_MAX / 2);
  const auto made = Make("data", {kBytes, ""});
  EXPECT_EQ(made.error().code, Code::kNoSpace);
  EXPECT_THAT(made.error().message, HasSubstr("reserve-bytes"));
  EXPECT_THAT(host_.disk, IsEmpty());
}

TEST_F(VolumeServiceTest, SweepsWhatALauncherLeftThatDied) {
  host_.failure = host_.removal = Error{Code::kUnavailable, 0, "the launcher died"};
  host_.left_by_failure = true;
  EXPECT_EQ(Make("data", {kBytes, ""}).error().code, Code::kUnavailable);
  EXPECT_THAT(host_.disk, SizeIs(1));
  EXPECT_THAT(List().volumes, IsEmpty());
  EXPECT_THAT(List().unclaimed, IsEmpty());
  host_.failure = host_.removal = OkStatus();
  Restart();  // its row says as much
  volumes_->Sweep();
  WaitFor([&] { return host_.disk.empty(); });
  EXPECT_TRUE(Make("data", {kBytes, ""}).ok());
  Restart();
  EXPECT_THAT(List().volumes, SizeIs(1));
}

TEST_F(VolumeServiceTest, KeepsFilesWithoutARowAndTellsOfThem) {
  host_.disk[77] = kBytes;
  volumes_->Sweep();
  EXPECT_TRUE(Make("data", {kBytes, ""}).ok());  // behind the sweep
  EXPECT_THAT(host_.disk, SizeIs(2));
  ASSERT_THAT(List().unclaimed, SizeIs(1));
  EXPECT_EQ(List().unclaimed[0].id, 77U);
}

TEST_F(VolumeServiceTest, RefusesToRemoveWhatIsUsed) {
  ASSERT_TRUE(Make("data", {kBytes, ""}).ok());
  users_ = {"f", "g"};
  EXPECT_THAT(Remove("data").error().message, HasSubstr("in use by function f, function g"));
  users_ = {};
  auto hold = Ensure({Data()});
  EXPECT_EQ(Remove("data").error().code, Code::kAlreadyExists) << "a deploy is under way";
  *hold = nullptr;
  EXPECT_TRUE(Remove("data").ok());
}

TEST_F(VolumeServiceTest, TakesBackARemovalWhenSomebodyStillWrites) {
  ASSERT_TRUE(Make("data", {kBytes, ""}).ok());
  host_.removal = Error{Code::kAlreadyExists, 0, "mounted"};
  EXPECT_EQ(Remove("data").error().code, Code::kAlreadyExists);
  ASSERT_THAT(List().volumes, SizeIs(1));
  Restart();
  EXPECT_THAT(List().volumes, SizeIs(1));
}

TEST_F(VolumeServiceTest, MakesForADeployWhatHasASize) {
  ASSERT_TRUE(Ensure({Data()}).ok());
  EXPECT_THAT(Problem(Data()), HasSubstr("volume data does not exist"));
  ASSERT_TRUE(Ensure({Data(kBytes)}).ok());
  const auto resolved = volumes_->Resolve(Key("f"), {Data(kBytes)});
  ASSERT_TRUE(resolved.ok());
  EXPECT_EQ(VolumeIdOf((*resolved)[0].source), List().volumes[0].row.id);
  EXPECT_THAT(Ensure({Data(2 * kBytes)}).error().message, HasSubstr("has 8Mi, not 16Mi"));
  ASSERT_TRUE(Resize("data", 2 * kBytes).ok());
  EXPECT_EQ(Problem(Data(kBytes)), "");  // what was deployed before goes on
  EXPECT_EQ(Ensure({{VolumeKind::kVolume, "more", "/more", false, 1, {}}}).error().code,
            Code::kInvalidArgument);
}

TEST_F(VolumeServiceTest, KeepsTheImageOfADataSet) {
  EXPECT_EQ(Make("set", {0, "models"}).error().code, Code::kNotFound);
  AddImage("models:latest");
  ASSERT_TRUE(Make("set", {0, "models"}).ok());
  Restart();
  const std::string digest = catalog_.Find("models")->digest;
  EXPECT_EQ(volumes_->UserOf(digest), "data set set");
  EXPECT_FALSE(store_->RemoveImages({{kDefaultOwner, digest}}).ok());
  const auto resolved =
      volumes_->Resolve(Key("f"), {{VolumeKind::kDataSet, "set", "/models", true, 0, {}}});
  ASSERT_TRUE(resolved.ok());
  EXPECT_THAT((*resolved)[0].layers, ::testing::ElementsAre(testing::Layer(3)));
  EXPECT_THAT(Problem({VolumeKind::kVolume, "set", "/data", false, 0, {}}),
              HasSubstr("is a data set"));
  EXPECT_THAT(host_.disk, IsEmpty());
  EXPECT_TRUE(Remove("set").ok());
  EXPECT_TRUE(store_->RemoveImages({{kDefaultOwner, digest}}).ok());
}

}  // namespace
}  // namespace pulga
