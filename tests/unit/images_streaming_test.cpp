// Imports whose archive is still arriving: what is planned and unpacked before its end.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <future>
#include <mutex>
#include <thread>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "base/work_queue.h"
#include "images/importer.h"
#include "images/ingest.h"
#include "images/job_events.h"
#include "images/member_feed.h"
#include "tests/support/archive_builder.h"
#include "tests/support/ingest_harness.h"

namespace pulga {
namespace {

using testing::ArchiveBuilder;
using testing::ArchiveShape;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ImageSpec;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::TarBuilder;

// Ingests for real, on a thread; only pretends to unpack, and says when.
class Runner final : public UnpackRunner {
 public:
  std::unique_ptr<RunningJob> Start(UnpackJob job) override {
    return std::make_unique<Job>(*this, std::make_shared<UnpackJob>(std::move(job)));
  }
  std::vector<UnpackOrder> unpacked() {
    const std::lock_guard lock(mutex_);
    return unpacked_;
  }

 private:
  class Job final : public RunningJob {
   public:
    Job(Runner& runner, const std::shared_ptr<UnpackJob>& job) : ended_(promise_->get_future()) {
      std::thread([&runner, job, promise = promise_] {
        const Status done = runner.Run(*job);
        *job = UnpackJob();
        promise->set_value(done);
      }).detach();
    }
    // A thread can not be killed: one that waits for more of the archive is left to itself.
    ~Job() override = default;
    Status Wait() override { return ended_.get(); }
    void Cancel() override {}

   private:
    std::shared_ptr<std::promise<Status>> promise_ = std::make_shared<std::promise<Status>>();
    std::future<Status> ended_;
  };
  Status Run(const UnpackJob& job) {
    const auto order = UnpackOrder::Decode(job.request).value();
    if (job.kind == UnpackKind::kIngest) {
      const Status done = RunIngest(order, job.input.get(), job.output.get(), job.channel.get());
      if (done.ok()) return done;
      (void)SendEvent(job.channel.get(), JobEventKind::kFailure, EncodeFailure(done.error()));
      return Error{Code::kInvalidArgument, 0, "exit status 1"};
    }
    const std::lock_guard lock(mutex_);
    unpacked_.push_back(order);
    return SendEvent(job.channel.get(), JobEventKind::kLayerResult, LayerResult().Encode());
  }
  std::mutex mutex_;  // guards unpacked_
  std::vector<UnpackOrder> unpacked_;
};

class Streaming : public ::testing::Test {
 protected:
  void SetUp() override {
    signal(SIGPIPE, SIG_IGN);
    int fds[2];
    ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
    to_.Reset(fds[1]);
    options_.claims = &known_;
    report_ = std::async(std::launch::async, [this, input = std::make_shared<UniqueFd>(fds[0])] {
      return importer_.Import(std::move(*input), options_, [this] { return complete_.Wait(); });
    });
  }
  void TearDown() override {
    if (report_.valid()) (void)Finish(OkStatus());
  }
  ImageSpec Image(int layers) {
    ImageSpec image;
    for (int i = 0; i < layers; ++i) {
      image.layers.push_back(
          {TarBuilder().File("f" + std::to_string(i), std::string(3000, 'x')).Finish()});
    }
    image.tags = {"a:1"};
    return image;
  }
  static std::vector<std::string> Documents(const ArchiveBuilder& archive) {
    std::vector<std::string> out;
    for (const std::string& name : archive.names()) {
      if (!name.ends_with("layer.tar")) out.push_back(name);
    }
    return out;
  }
  void Send(std::string_view bytes) { ASSERT_TRUE(WriteAll(to_.get(), bytes).ok()); }
  ImportReport Finish(Status complete) {
    to_.Reset();
    complete_.Set(std::move(complete));
    return report_.get();
  }
  void WaitForUnpacked(size_t layers) {
    for (int i = 0; i < 2000 && runner_.unpacked().size() < layers; ++i) usleep(1000);
    EXPECT_THAT(runner_.unpacked(), SizeIs(layers));
  }

  TempDir dir_ = TempDir::Create("/tmp/pulga-streaming-").value();
  Runner runner_;
  Importer importer_{runner_, ImportLimits(), dir_.path()};
  testing::KnownLayers known_;
  ImportOptions options_;
  Handoff<Status> complete_;
  UniqueFd to_;
  std::future<ImportReport> report_;
};

TEST_F(Streaming, UnpacksLayersWhileTheRestStillComes) {
  ArchiveBuilder archive(ArchiveShape::kLegacy, {Image(3)});
  const std::string tar = archive.First(Documents(archive)).Tar();
  const size_t second = tar.rfind(std::string(3000, 'x'));  // of the last layer
  Send(tar.substr(0, second));
  WaitForUnpacked(2);
  Send(tar.substr(second));
  const ImportReport report = Finish(OkStatus());
  ASSERT_TRUE(report.status.ok()) << report.status.error().message;
  EXPECT_THAT(runner_.unpacked(), SizeIs(3));
  EXPECT_THAT(report.layers_created, SizeIs(3));
}

TEST_F(Streaming, WaitsForTheEndWhereTheDocumentsComeLast) {
  ArchiveBuilder archive(ArchiveShape::kLegacy, {Image(2)});
  Send(archive.Drop("manifest.json").Tar());
  usleep(20'000);
  EXPECT_THAT(runner_.unpacked(), IsEmpty());
  const ImportReport report = Finish(OkStatus());
  EXPECT_EQ(report.reason, ImportReason::kBadImage);
}

TEST_F(Streaming, HashesNothingTwice) {
  Send(ArchiveBuilder(ArchiveShape::kDocker25, {Image(2)}).Tar());
  ASSERT_TRUE(Finish(OkStatus()).status.ok());
  for (const UnpackOrder& order : runner_.unpacked()) {
    EXPECT_EQ(order.blob_digest, "");
    EXPECT_EQ(order.diff_id, "") << "the blob is the layer's tar";
  }
}

TEST_F(Streaming, HashesWhatACompressedLayerHolds) {
  ImageSpec image = Image(1);
  image.layers[0].compression = testing::LayerSpec::Compression::kGzip;
  Send(ArchiveBuilder(ArchiveShape::kOci, {image}).Tar());
  ASSERT_TRUE(Finish(OkStatus()).status.ok());
  EXPECT_EQ(runner_.unpacked().at(0).blob_digest, "") << "hashed as it came";
  EXPECT_EQ(runner_.unpacked().at(0).diff_id, testing::Sha256Of(image.layers[0].tar));
}

TEST_F(Streaming, IsAFailureWhenTheSenderDidNotSayThatThisWasAll) {
  Send(ArchiveBuilder(ArchiveShape::kLegacy, {Image(2)}).Tar());
  const ImportReport report = Finish(Error{Code::kUnavailable, 0, "interrupted"});
  EXPECT_EQ(report.reason, ImportReason::kHelper);
  EXPECT_THAT(report.images, IsEmpty());
}

TEST_F(Streaming, TellsABadLayerWhileTheRestStillComes) {
  ArchiveBuilder archive(ArchiveShape::kOci, {Image(2)});
  std::vector<std::string> documents = {"oci-layout", "index.json"};
  std::string first_layer;
  for (const std::string& name : archive.names()) {
    const bool blob = name.starts_with("blobs/");
    if (blob && archive.Get(name).starts_with("{")) documents.push_back(name);
    if (blob && archive.Get(name) == Image(2).layers[0].tar) first_layer = name;
  }
  std::string other = Image(2).layers[0].tar;
  other[600] = '!';
  documents.push_back(first_layer);
  const std::string tar = archive.Set(first_layer, other).First(documents).Tar();
  Send(tar.substr(0, tar.size() - 4096));
  ASSERT_EQ(report_.wait_for(std::chrono::seconds(10)), std::future_status::ready)
      << "it waited for the end";
  const ImportReport report = Finish(OkStatus());
  EXPECT_EQ(report.reason, ImportReason::kBadImage);
  EXPECT_THAT(report.status.error().message, HasSubstr("layer 1/2: the layer's blob is sha256:"));
}

// A registry, in short: brings the layers it is asked for, and no others.
class AskedFeed final : public MemberFeed {
 public:
  AskedFeed(const ArchiveBuilder& archive, const std::string& dir) {
    plain_ = OpenUnnamedFile(dir).value();
    EXPECT_TRUE(WriteAll(plain_.get(), archive.Tar()).ok());
    for (NamedMember& member : testing::Ingest(archive.Tar()).members) {
      member.member.sha256.clear();
      (member.name.starts_with("blobs/") && member.member.size > 2000 ? layers_ : next_)
          .push_back(std::move(member));
    }
  }
  Result<std::optional<NamedMember>> Next() override {
    if (next_.empty()) return std::optional<NamedMember>();
    NamedMember member = std::move(next_.front());
    next_.erase(next_.begin());
    return std::optional(std::move(member));
  }
  Status Want(const std::vector<PlannedLayer>& layers) override {
    for (const PlannedLayer& layer : layers) {
      asked.push_back(layer.diff_id);
      for (const NamedMember& member : layers_) {
        if (member.name == layer.name) next_.push_back(member);
      }
    }
    return OkStatus();
  }
  bool BringsWhatIsWanted() const override { return true; }
  Status Finish() override { return OkStatus(); }
  int plain_fd() const override { return plain_.get(); }
  void Drop() override { plain_.Reset(); }

  std::vector<std::string> asked;

 private:
  UniqueFd plain_;
  std::vector<NamedMember> next_;
  std::vector<NamedMember> layers_;
};

TEST_F(Streaming, AsksARegistryOnlyForLayersThatAreNotThere) {
  const ImageSpec image = Image(3);
  AskedFeed feed(ArchiveBuilder(ArchiveShape::kOci, {image}), dir_.path());
  std::vector<std::string> diff_ids;
  for (const auto& layer : image.layers) diff_ids.push_back(testing::Sha256Of(layer.tar));
  LayerRecord base;
  base.diff_id = diff_ids[0];
  base.chain_id = NextChainId(std::nullopt, diff_ids[0]);
  known_.layers[base.chain_id] = base;
  const ImportReport report = importer_.Import(feed, options_);
  ASSERT_TRUE(report.status.ok()) << report.status.error().message;
  EXPECT_THAT(feed.asked, ElementsAre(diff_ids[1], diff_ids[2]));
  EXPECT_TRUE(report.images[0].layers[0].reused);
  EXPECT_THAT(report.layers_created, SizeIs(2));
  for (const UnpackOrder& order : runner_.unpacked()) {
    EXPECT_NE(order.diff_id, "") << "nobody but the unpacker has seen these bytes";
    EXPECT_NE(order.blob_digest, "");
  }
}

}  // namespace
}  // namespace pulga
