// What the importer decides: planned over archives in memory, with a runner that scans for real and
// only pretends to unpack.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "images/archive_plan.h"
#include "images/image_config.h"
#include "images/importer.h"
#include "images/ingest.h"
#include "images/job_events.h"
#include "images/unpack_jobs.h"
#include "tests/support/archive_builder.h"
#include "tests/support/thread_job.h"

namespace pulga {
namespace {

using ::testing::AllOf;
using testing::ArchiveBuilder;
using testing::ArchiveShape;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ImageSpec;
using ::testing::IsEmpty;
using testing::TarBuilder;
using testing::ThreadJob;

class FakeRunner final : public UnpackRunner {
 public:
  std::unique_ptr<RunningJob> Start(UnpackJob job) override {
    auto shared = std::make_shared<UnpackJob>(std::move(job));
    return std::make_unique<ThreadJob>([this, shared] {
      const Status done = Run(*shared);
      *shared = UnpackJob();
      return done;
    });
  }
  std::vector<LayerId> published;
  std::vector<size_t> parents;
  int fail_at = -1;
  Error failure;

 private:
  Status Run(const UnpackJob& job) {
    const auto order = UnpackOrder::Decode(job.request);
    if (!order) return Error{Code::kInternal, 0, "bad order"};
    if (job.kind == UnpackKind::kUnpackLayer) return Unpack(job);
    const Status done = RunIngest(*order, job.input.get(), job.output.get(), job.channel.get());
    return done.ok() ? done : Refuse(job, done.error());
  }
  static Status Refuse(const UnpackJob& job, const Error& error) {
    EXPECT_TRUE(SendEvent(job.channel.get(), JobEventKind::kFailure, EncodeFailure(error)).ok());
    return Error{Code::kInvalidArgument, 0, "exit status 1"};
  }
  Status Unpack(const UnpackJob& job) {
    if (static_cast<int>(published.size()) == fail_at) return Refuse(job, failure);
    published.push_back(job.target);
    parents.push_back(job.parents.size());
    LayerResult result;
    result.bytes = 10;
    result.devices_skipped = 2;
    return SendEvent(job.channel.get(), JobEventKind::kLayerResult, result.Encode());
  }
};

class Import : public ::testing::Test {
 protected:
  ImageSpec Image(int layers, std::vector<std::string> tags = {"a:1"}) {
    ImageSpec image;
    for (int i = 0; i < layers; ++i) {
      image.layers.push_back({TarBuilder().File("f" + std::to_string(i), "x").Finish()});
    }
    image.tags = std::move(tags);
    return image;
  }
  ImportReport Run(const std::string& bytes) {
    auto spool = OpenUnnamedFile(dir_.path()).value();
    EXPECT_TRUE(WriteAll(spool.get(), bytes).ok());
    lseek(spool.get(), 0, SEEK_SET);
    return importer_.Import(std::move(spool), options_);
  }
  ImportReport Run(const ArchiveBuilder& archive) { return Run(archive.Tar()); }
  std::string FailureOf(const ArchiveBuilder& archive) {
    const ImportReport report = Run(archive);
    EXPECT_FALSE(report.status.ok());
    EXPECT_THAT(report.images, IsEmpty());
    EXPECT_EQ(report.reason, ImportReason::kBadImage);
    return report.status.ok() ? "" : report.status.error().message;
  }
  std::string FirstName(const ArchiveBuilder& archive, const std::string& end) {
    for (const std::string& name : archive.names()) {
      if (name.ends_with(end) && name != "manifest.json" && name != "index.json") return name;
    }
    return "";
  }
  TempDir dir_ = TempDir::Create("/tmp/pulga-import-").value();
  FakeRunner runner_;
  Importer importer_{runner_, ImportLimits(), dir_.path()};
  ImportOptions options_;
};

TEST_F(Import, UnpacksLayersInOrderOverTheirParents) {
  const ImportReport report = Run(ArchiveBuilder(ArchiveShape::kLegacy, {Image(3)}));
  ASSERT_TRUE(report.status.ok()) << report.status.error().message;
  EXPECT_THAT(runner_.parents, ElementsAre(0u, 1u, 2u));
  EXPECT_EQ(report.layers_created, runner_.published);
  EXPECT_EQ(report.images[0].size_bytes, 30u);
  EXPECT_EQ(report.images[0].digest, "sha256:" + testing::Sha256Of(report.images[0].config_json));
  EXPECT_THAT(report.images[0].refs, ElementsAre("docker.io/library/a:1"));
  EXPECT_EQ(report.warnings.size(), 3u);
}

TEST_F(Import, TellsProgressLayerByLayer) {
  std::vector<ImportProgress> seen;
  options_.progress = [&](const ImportProgress& progress) { seen.push_back(progress); };
  ASSERT_TRUE(Run(testing::Gzip(ArchiveBuilder(ArchiveShape::kOci, {Image(2)}).Tar())).status.ok());
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_EQ(seen[0].step, ImportProgress::Step::kReceive);
  EXPECT_EQ(seen[1].layer, 1u);
  EXPECT_EQ(seen[2].layers, 2u);
  EXPECT_EQ(seen[3].step, ImportProgress::Step::kDone);
}

TEST_F(Import, ListsWhatItPublishedBeforeItFailed) {
  runner_.fail_at = 2;
  runner_.failure = {Code::kNoSpace, 0, "disk full"};
  const ImportReport report = Run(ArchiveBuilder(ArchiveShape::kLegacy, {Image(3)}));
  EXPECT_EQ(report.reason, ImportReason::kNoSpace);
  EXPECT_EQ(report.status.error().message, "layer 3/3: disk full");
  EXPECT_EQ(report.layers_created.size(), 2u);
}

TEST_F(Import, SaysWhenTheHelperIsAway) {
  class Away final : public UnpackRunner {
    std::unique_ptr<RunningJob> Start(UnpackJob) override {
      return std::make_unique<ThreadJob>([] {
        return Status(Error{Code::kUnavailable, 0, "restarting"});
      });
    }
  } away;
  Importer importer(away, ImportLimits(), dir_.path());
  auto spool = OpenUnnamedFile(dir_.path()).value();
  ASSERT_TRUE(WriteAll(spool.get(), ArchiveBuilder(ArchiveShape::kOci, {Image(1)}).Tar()).ok());
  EXPECT_EQ(importer.Import(std::move(spool), {}).reason, ImportReason::kHelper);
}

TEST_F(Import, GivesTheAskedNameAndRefusesBadOnes) {
  options_.ref = "mine:2";
  EXPECT_THAT(Run(ArchiveBuilder(ArchiveShape::kOci, {Image(1)})).images.at(0).refs,
              ElementsAre("docker.io/library/mine:2"));
  for (const std::string& bad : {std::string("../x"), "x@sha256:" + std::string(64, 'a')}) {
    options_.ref = bad;
    EXPECT_EQ(Run(ArchiveBuilder(ArchiveShape::kOci, {Image(1)})).reason, ImportReason::kBadRef);
  }
}

TEST_F(Import, IgnoresBadTagsWithAWarning) {
  const ImportReport report =
      Run(ArchiveBuilder(ArchiveShape::kLegacy, {Image(1, {"../../x:1", "ok:1", ""})}));
  EXPECT_THAT(report.images.at(0).refs, ElementsAre("docker.io/library/ok:1"));
  EXPECT_THAT(report.warnings.at(0), HasSubstr("no image name"));
}

TEST_F(Import, RefusesOneTagOnTwoImages) {
  for (const auto shape : {ArchiveShape::kLegacy, ArchiveShape::kDocker25, ArchiveShape::kOci}) {
    EXPECT_THAT(FailureOf(ArchiveBuilder(shape, {Image(1), Image(2)})), HasSubstr("called a:1"));
  }
}

TEST_F(Import, TakesTwoTagsOfOneImage) {
  for (const auto shape : {ArchiveShape::kLegacy, ArchiveShape::kDocker25}) {
    const ImportReport report = Run(ArchiveBuilder(shape, {Image(1, {"a:1", "b:2"})}));
    ASSERT_EQ(report.images.size(), 1u);
    EXPECT_THAT(report.images[0].refs,
                ElementsAre("docker.io/library/a:1", "docker.io/library/b:2"));
  }
}

TEST_F(Import, ReadsManifestJsonWhenTheIndexIsEmpty) {
  for (const char* manifests : {"null", "[]"}) {
    ArchiveBuilder archive(ArchiveShape::kDocker25, {Image(1, {})});
    archive.Set("index.json", std::string(R"({"schemaVersion":2,"manifests":)") + manifests + "}");
    const ImportReport report = Run(archive);
    ASSERT_TRUE(report.status.ok()) << report.status.error().message;
    EXPECT_THAT(report.images[0].refs, IsEmpty());
  }
}

TEST_F(Import, FindsTheNameOfABareTagInManifestJson) {
  ArchiveBuilder archive(ArchiveShape::kDocker25, {Image(1)});
  archive.Replace("index.json", "io.containerd.image.name\":\"docker.io/library/a:1",
                  "org.opencontainers.image.ref.name\":\"1");
  EXPECT_THAT(Run(archive).images.at(0).refs, ElementsAre("docker.io/library/a:1"));
}

TEST_F(Import, RefusesArchivesWithoutAnImage) {
  EXPECT_THAT(FailureOf(ArchiveBuilder(ArchiveShape::kLegacy, {}).Drop("manifest.json")),
              HasSubstr("no image in this archive"));
  EXPECT_THAT(FailureOf(ArchiveBuilder(ArchiveShape::kLegacy, {})), HasSubstr("names no image"));
  for (const char* text : {"null", "{}", "[{}]", "x", ""}) {
    FailureOf(ArchiveBuilder(ArchiveShape::kLegacy, {Image(1)}).Set("manifest.json", text));
  }
}

TEST_F(Import, SaysThatAnArchiveIsOlderThanManifests) {
  const ArchiveBuilder later(ArchiveShape::kLegacy, {Image(1)});
  for (const bool tagged : {true, false}) {
    ArchiveBuilder old = later;
    for (const std::string& name : later.names()) {
      if (name.find('/') == std::string::npos) old.Drop(name);
    }
    if (tagged) old.Set("repositories", R"({"old":{"1":"0"}})");
    EXPECT_THAT(FailureOf(old), AllOf(HasSubstr("Docker before 1.10"), HasSubstr("docker load")));
  }
}

TEST_F(Import, OwnersShareNoLayer) {
  const ArchiveBuilder archive(ArchiveShape::kDocker25, {Image(2)});
  const ImageRecord ours = Run(archive).images.at(0);
  options_.owner = "somebody";
  const ImageRecord theirs = Run(archive).images.at(0);
  EXPECT_EQ(ours.owner, kDefaultOwner);
  EXPECT_EQ(theirs.owner, "somebody");
  EXPECT_EQ(theirs.digest, ours.digest);
  ASSERT_EQ(theirs.layers.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(theirs.layers[i].diff_id, ours.layers[i].diff_id);
    EXPECT_NE(theirs.layers[i].chain_id, ours.layers[i].chain_id);
  }
  EXPECT_EQ(ours.layers[0].chain_id.Hex(), ours.layers[0].diff_id) << "the image's own ChainID";
}

// What is stored: the layers of one image.
class Stored final : public LayerClaims {
 public:
  explicit Stored(std::vector<LayerRecord> layers) : layers_(std::move(layers)) {}
  std::optional<LayerRecord> Find(const LayerId& id) override {
    for (const LayerRecord& layer : layers_) {
      if (layer.chain_id == id) return layer;
    }
    return std::nullopt;
  }
  std::optional<LayerRecord> FindOrMake(const LayerId& id) override { return Find(id); }
  void Made(const LayerId&, const LayerRecord*) override {}

 private:
  std::vector<LayerRecord> layers_;
};

TEST_F(Import, TakesLayersThatWereLeftOutFromTheStore) {
  for (const ArchiveShape shape : {ArchiveShape::kDocker25, ArchiveShape::kOci}) {
    options_ = ImportOptions();
    ArchiveBuilder archive(shape, {Image(2)});
    const ImageRecord whole = Run(archive).images.at(0);
    const std::string left_out = "blobs/sha256/" + whole.layers[0].diff_id;
    ASSERT_THAT(archive.names(), ::testing::Contains(left_out));
    archive.Drop(left_out);
    Stored stored({whole.layers[0]});
    options_.claims = &stored;
    EXPECT_THAT(FailureOf(archive), HasSubstr("layer 1")) << "nobody said so";
    options_.absent = AbsentLayers::kIfStored;
    const ImportReport report = Run(archive);
    ASSERT_TRUE(report.status.ok()) << report.status.error().message;
    EXPECT_EQ(report.images.at(0).digest, whole.digest);
    EXPECT_TRUE(report.images[0].layers[0].reused);
    EXPECT_FALSE(report.images[0].layers[1].reused);

    Stored elsewhere({whole.layers[1]});
    options_.claims = &elsewhere;
    const ImportReport gone = Run(archive);
    EXPECT_EQ(gone.reason, ImportReason::kLayerGone);
    EXPECT_THAT(gone.status.error().message, HasSubstr("send the whole archive"));
  }
}

TEST_F(Import, RefusesCountsThatDoNotMatch) {
  ArchiveBuilder archive(ArchiveShape::kLegacy, {Image(2)});
  const std::string layer = FirstName(archive, "layer.tar");
  EXPECT_THAT(FailureOf(archive.Replace("manifest.json", "\"" + layer + "\",", "")),
              HasSubstr("lists 1 layers"));
  EXPECT_THAT(FailureOf(ArchiveBuilder(ArchiveShape::kLegacy, {Image(0)})), HasSubstr("no layers"));
}

TEST_F(Import, RefusesPathsThatLeaveTheArchive) {
  for (const char* path : {"../../etc/shadow", "/etc/shadow", "/proc/self/environ", "gone"}) {
    ArchiveBuilder archive(ArchiveShape::kLegacy, {Image(1)});
    const std::string config = FirstName(archive, ".json");
    EXPECT_THAT(FailureOf(ArchiveBuilder(archive).Replace("manifest.json", config, path)),
                HasSubstr("Config"));
    const std::string layer = FirstName(archive, "layer.tar");
    EXPECT_THAT(FailureOf(archive.Replace("manifest.json", layer, path)), HasSubstr("layer 1"));
  }
}

TEST_F(Import, RefusesAManifestJsonThatIsALink) {
  for (const char type : {'1', '2'}) {
    ArchiveBuilder archive(ArchiveShape::kLegacy, {Image(1)});
    archive.Set("other.json", archive.Get("manifest.json"));
    testing::TarItem link;
    link.name = "manifest.json";
    link.type = type;
    link.link = "other.json";
    FailureOf(archive.SetItem(link));
  }
}

TEST_F(Import, RefusesConfigurationsThatAreNotWhatTheirNamePromises) {
  for (const auto shape : {ArchiveShape::kLegacy, ArchiveShape::kDocker25, ArchiveShape::kOci}) {
    ArchiveBuilder archive(shape, {Image(1)});
    for (const std::string& name : archive.names()) {
      if (archive.Get(name).find("\"rootfs\"") == std::string::npos) continue;
      std::string changed = archive.Get(name);
      changed[changed.find("true")] = 'T';
      EXPECT_THAT(FailureOf(archive.Set(name, changed)), HasSubstr("expected sha256:"));
    }
  }
}

TEST_F(Import, RefusesSizesThatAreNotTheBlobs) {
  ArchiveBuilder archive(ArchiveShape::kOci, {Image(1)});
  const std::string index = archive.Get("index.json");
  const size_t at = index.find("\"size\":") + 7;
  const uint64_t size = std::stoull(index.substr(at));
  for (const uint64_t wrong : {size + 1, size - 1, uint64_t{1} << 62}) {
    ArchiveBuilder changed = archive;
    changed.Set("index.json", index.substr(0, at) + std::to_string(wrong) +
                                  index.substr(index.find_first_of(",}", at)));
    EXPECT_THAT(FailureOf(changed), HasSubstr("bytes, expected"));
  }
}

// An index in the archive's blobs, and what index.json says about it.
std::string AddIndex(ArchiveBuilder& archive, const std::string& manifests) {
  const std::string index = R"({"schemaVersion":2,"manifests":[)" + manifests + "]}";
  archive.Set("blobs/sha256/" + testing::Sha256Of(index), index);
  return R"({"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:)" +
         testing::Sha256Of(index) + R"(","size":)" + std::to_string(index.size()) + "}";
}

std::string InnerManifests(const ArchiveBuilder& archive) {
  const std::string index = archive.Get("index.json");
  const size_t begin = index.find('[') + 1;
  return index.substr(begin, index.rfind(']') - begin);
}

TEST_F(Import, FollowsNestedIndexesToTheManifestThatIsThere) {
  ArchiveBuilder archive(ArchiveShape::kOci, {Image(1, {})});
  const std::string absent = R"({"digest":"sha256:)" + std::string(64, 'e') +
                             R"(","size":5,"platform":{"os":"linux","architecture":"s390x"}})";
  const std::string nested = AddIndex(archive, absent + "," + InnerManifests(archive));
  archive.Set("index.json", R"({"manifests":[)" + nested + "]}");
  EXPECT_TRUE(Run(archive).status.ok());
}

TEST_F(Import, RefusesIndexesNestedTooDeep) {
  ArchiveBuilder archive(ArchiveShape::kOci, {Image(1, {})});
  std::string inner = InnerManifests(archive);
  for (int i = 0; i < 10; ++i) inner = AddIndex(archive, inner);
  EXPECT_THAT(FailureOf(archive.Set("index.json", R"({"manifests":[)" + inner + "]}")),
              HasSubstr("too deep"));
}

// --- what an archive may ask of the daemon itself

TEST_F(Import, RefusesMoreNamesThanAnybodyGives) {
  std::vector<std::string> tags;
  for (size_t i = 0; i < kMaxNames; ++i) tags.push_back("a:" + std::to_string(i));
  EXPECT_EQ(Run(ArchiveBuilder(ArchiveShape::kLegacy, {Image(1, tags)})).images.at(0).refs.size(),
            kMaxNames);
  tags.push_back("one:more");
  const ImportReport report = Run(ArchiveBuilder(ArchiveShape::kLegacy, {Image(1, tags)}));
  ASSERT_FALSE(report.status.ok());
  EXPECT_EQ(report.reason, ImportReason::kTooLarge);
  EXPECT_THAT(report.status.error().message, HasSubstr("more than 256 names"));
}

ImageSpec WithLabel(ImageSpec image, size_t bytes, const std::string& tag) {
  image.config = R"({"Labels":{"k":")" + std::string(bytes, 'v') + R"(","tag":")" + tag + "\"}}";
  image.tags = {tag};
  return image;
}

TEST_F(Import, RefusesDocumentsThatTogetherTakeTooMuchMemory) {
  const ImportReport one =
      Run(ArchiveBuilder(ArchiveShape::kLegacy, {WithLabel(Image(1), kMaxConfigBytes, "a:1")}));
  EXPECT_EQ(one.reason, ImportReason::kTooLarge);
  std::vector<ImageSpec> images;
  for (int i = 0; i < 10; ++i) {
    images.push_back(WithLabel(Image(1), 900'000, "a:" + std::to_string(i)));
  }
  for (const auto shape : {ArchiveShape::kLegacy, ArchiveShape::kOci}) {
    const ImportReport report = Run(ArchiveBuilder(shape, images));
    ASSERT_FALSE(report.status.ok());
    EXPECT_EQ(report.reason, ImportReason::kTooLarge);
    EXPECT_THAT(report.status.error().message, HasSubstr("together"));
  }
  images.resize(5);
  EXPECT_TRUE(Run(ArchiveBuilder(ArchiveShape::kLegacy, images)).status.ok());
}

TEST_F(Import, KeepsLabelsUpToALimit) {
  std::string labels;
  for (int i = 0; i < 100; ++i) {
    labels += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":\"" + std::string(2000, 'v') + "\"";
  }
  ImageSpec image = Image(1);
  image.config = R"({"Labels":{)" + labels + "}}";
  const ImportReport report = Run(ArchiveBuilder(ArchiveShape::kLegacy, {image}));
  size_t kept = 0;
  for (const auto& [key, value] : report.images.at(0).config.labels) {
    kept += key.size() + value.size();
  }
  EXPECT_LE(kept, kMaxLabelBytes);
  EXPECT_GE(kept, kMaxLabelBytes - 2100);
}

TEST_F(Import, RefusesIndexesThatNameTheSameDocumentsWithoutEnd) {
  ArchiveBuilder archive(ArchiveShape::kOci, {Image(1, {})});
  std::string inner = InnerManifests(archive);
  for (int depth = 0; depth < 3; ++depth) {
    const std::string one = AddIndex(archive, depth == 0 ? "" : inner);
    inner = one;
    for (int i = 1; i < 100; ++i) inner += "," + one;
  }
  int reads = 0;
  options_.wanted = [&reads] { return ++reads > 0; };
  const ImportReport report = Run(archive.Set("index.json", R"({"manifests":[)" + inner + "]}"));
  EXPECT_EQ(report.reason, ImportReason::kTooLarge);
  EXPECT_LT(reads, 100'000);  // of a million
}

TEST_F(Import, DoesNotPlanAnewForEachDocumentThatComes) {
  std::vector<ImageSpec> images;
  for (int i = 0; i < 200; ++i) images.push_back(WithLabel(Image(1), 10, "a:" + std::to_string(i)));
  ArchiveBuilder archive(ArchiveShape::kOci, images);
  int reads = 0;
  options_.wanted = [&reads] { return ++reads > 0; };
  const ImportReport report = Run(archive.First({"oci-layout", "index.json"}));
  EXPECT_EQ(report.reason, ImportReason::kTooLarge);  // so many images
  EXPECT_LT(reads, 10'000);
}

TEST_F(Import, StopsPlanningWhenNobodyWantsItAnyMore) {
  int reads = 0;
  options_.wanted = [&reads] { return ++reads < 2; };
  const ImportReport report = Run(ArchiveBuilder(ArchiveShape::kOci, {Image(1)}));
  EXPECT_EQ(report.reason, ImportReason::kHelper);
  EXPECT_THAT(report.status.error().message, HasSubstr("given up"));
}

TEST_F(Import, SaysWhichPlatformIsMissing) {
  const Platform host = HostPlatform();
  const auto absent = [](const std::string& os, const std::string& architecture,
                         const std::string& variant) {
    return R"({"manifests":[{"digest":"sha256:)" + std::string(64, 'e') +
           R"(","size":5,"platform":{"os":")" + os + R"(","architecture":")" + architecture +
           R"(","variant":")" + variant + "\"}}]}";
  };
  ArchiveBuilder archive(ArchiveShape::kOci, {Image(1, {})});
  EXPECT_THAT(
      FailureOf(archive.Set("index.json", absent(host.os, host.architecture, host.variant))),
      HasSubstr("does not hold it"));
  EXPECT_THAT(FailureOf(archive.Set("index.json", absent("plan9", "mips", ""))),
              HasSubstr("this image is plan9/mips, this board is linux/"));
}

TEST_F(Import, PrefersThePlatformOfThisBoard) {
  ImageSpec foreign = Image(2, {});
  foreign.architecture = "mips";
  const ArchiveBuilder other(ArchiveShape::kOci, {foreign});
  ArchiveBuilder archive(ArchiveShape::kOci, {Image(1, {})});
  for (const std::string& name : other.names()) {
    if (name.starts_with("blobs/")) archive.Set(name, other.Get(name));
  }
  archive.Set("index.json",
              R"({"manifests":[)" + InnerManifests(other) + "," + InnerManifests(archive) + "]}");
  options_.any_platform = AnyPlatform::kStore;
  const ImportReport report = Run(archive);
  ASSERT_TRUE(report.status.ok()) << report.status.error().message;
  EXPECT_EQ(report.images[0].platform, HostPlatform());
}

TEST_F(Import, IgnoresMembersItDoesNotKnow) {
  ArchiveBuilder archive(ArchiveShape::kLegacy, {Image(1)});
  archive.Set("README", "x").Set("._manifest.json", "apple").Set(std::string(2000, 'n'), "long");
  EXPECT_TRUE(Run(archive).status.ok());
}

}  // namespace
}  // namespace pulga
