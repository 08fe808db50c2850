// Whole archives, good and bad, through the real unpacker: what is accepted, what is refused, and
// that nothing is left behind.
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include <atomic>
#include <random>
#include <thread>

#include "images/digest.h"
#include "tests/support/image_lab.h"
#include "tests/support/ingest_harness.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

class Archives : public ImageLab {
 protected:
  ImageSpec Hello(LayerSpec::Compression compression = LayerSpec::Compression::kPlain) {
    ImageSpec image;
    image.layers = {{TarBuilder().File("hello", "hi", 0755).Finish(), compression},
                    {TarBuilder().File("etc/motd", "day").Finish(), compression}};
    image.tags = {"hello:1"};
    return image;
  }
  const std::string tree_ = "etc/motd|f|644|0:0|\netc|d|755|0:0|\nhello|f|755|0:0|\n";
};

TEST_F(Archives, OfEveryShapeAndCompressionGiveTheSameTree) {
  using Compression = LayerSpec::Compression;
  for (const auto shape : {ArchiveShape::kLegacy, ArchiveShape::kDocker25, ArchiveShape::kOci,
                           ArchiveShape::kSkopeo}) {
    for (const auto inner : {Compression::kPlain, Compression::kGzip, Compression::kZstd}) {
      const std::string tar = ArchiveBuilder(shape, {Hello(inner)}).Tar();
      for (const std::string& bytes : {tar, Gzip(tar), Zstd(tar)}) {
        ASSERT_TRUE(ImportArchive(bytes).status.ok()) << report_.status.error().message;
        EXPECT_EQ(Tree(), tree_);
        EXPECT_EQ(report_.images[0].refs, std::vector<std::string>{"docker.io/library/hello:1"});
      }
    }
  }
}

TEST_F(Archives, ShareLayersThatExist) {
  KnownLayers known;
  options_.claims = &known;
  ASSERT_TRUE(ImportArchive(ArchiveBuilder(ArchiveShape::kOci, {Hello()}).Tar()).status.ok());
  for (const auto& layer : report_.images[0].layers) known.layers[layer.chain_id] = layer;
  const auto created = std::exchange(report_.layers_created, {});
  const size_t jobs = runner_.jobs();
  ASSERT_TRUE(ImportArchive(ArchiveBuilder(ArchiveShape::kOci, {Hello()}).Tar()).status.ok());
  EXPECT_EQ(runner_.jobs(), jobs + 1) << "the ingest alone";
  EXPECT_TRUE(report_.images[0].layers[0].reused);
  EXPECT_EQ(report_.images[0].size_bytes, 5u);
  report_.layers_created = created;
}

TEST_F(Archives, WithWrongDigestsAreRefused) {
  ArchiveBuilder legacy(ArchiveShape::kLegacy, {Hello()});
  for (const std::string& name : legacy.names()) {
    if (!name.ends_with("layer.tar")) continue;
    ArchiveBuilder changed = legacy;
    changed.Set(name, TarBuilder().File("hello", "HI").Finish());
    EXPECT_FALSE(ImportArchive(changed.Tar()).status.ok());
    EXPECT_THAT(report_.status.error().message, HasSubstr("expected sha256:"));
    EXPECT_EQ(report_.reason, ImportReason::kBadImage);
  }
}

TEST_F(Archives, WithAGoodContentInAWrongBlobAreRefused) {
  // The content matches the diff-id, the compressed bytes not their name.
  ArchiveBuilder oci(ArchiveShape::kDocker25, {Hello(LayerSpec::Compression::kGzip)});
  for (const std::string& name : oci.names()) {
    if (!oci.Get(name).starts_with("\x1f\x8b")) continue;
    std::string blob = oci.Get(name);
    blob[4] = 'x';  // the time stamp
    ASSERT_FALSE(ImportArchive(ArchiveBuilder(oci).Set(name, blob).Tar()).status.ok());
    EXPECT_THAT(report_.status.error().message, HasSubstr("blob"));
  }
}

// A diff-id is of the tar: who gives that of the compressed bytes has named no tar at all.
TEST_F(Archives, WithADiffIdOfTheCompressedBytesAreRefused) {
  const std::string tar = TarBuilder().File("hello", "hi").Finish();
  for (const std::string& packed : {Gzip(tar), Zstd(tar)}) {
    for (const auto shape : {ArchiveShape::kLegacy, ArchiveShape::kOci}) {
      // The builder's own diff-id and blob: the compressed bytes as they are.
      const ArchiveBuilder archive(shape, {ImageSpec{{{packed}}, {}, "linux", "", "{}", {}}});
      ASSERT_FALSE(ImportArchive(archive.Tar()).status.ok());
      EXPECT_THAT(report_.status.error().message, HasSubstr("damaged tar"));
      EXPECT_EQ(report_.reason, ImportReason::kBadImage);
      EXPECT_TRUE(report_.layers_created.empty());
    }
  }
}

TEST_F(Archives, WithSha512BlobsAreVerified) {
  const std::string tar = TarBuilder().File("hello", "hi").Finish();
  Hasher hasher(DigestAlgorithm::kSha512);
  hasher.Update(tar);
  const std::string hex = hasher.Finish().hex;
  ArchiveBuilder archive(ArchiveShape::kOci, {ImageSpec{{{tar}}, {}, "linux", "", "{}", {}}});
  const std::string old_manifest = [&] {
    for (const std::string& name : archive.names()) {
      if (archive.Get(name).find("\"layers\":[{") != std::string::npos) return archive.Get(name);
    }
    return std::string();
  }();
  std::string manifest = old_manifest;
  const std::string old_digest = "sha256:" + Sha256Of(tar);
  manifest.replace(manifest.find(old_digest), old_digest.size(), "sha512:" + hex);
  archive.Set("blobs/sha256/" + Sha256Of(manifest), manifest);
  archive.Replace("index.json", Sha256Of(old_manifest), Sha256Of(manifest));
  archive.Replace("index.json", "\"size\":" + std::to_string(old_manifest.size()),
                  "\"size\":" + std::to_string(manifest.size()));
  archive.Set("blobs/sha512/" + hex, tar);
  EXPECT_TRUE(ImportArchive(archive.Tar()).status.ok()) << report_.status.error().message;
  const std::string padded = tar.substr(0, tar.size() - 1) + "x";
  EXPECT_FALSE(ImportArchive(archive.Set("blobs/sha512/" + hex, padded).Tar()).status.ok());
}

TEST_F(Archives, ThatAreNoneAreToldWhatWasExpected) {
  const std::string cases[] = {"",
                               "x",
                               "just text\n",
                               std::string("\x7f"
                                           "ELF") +
                                   std::string(5000, 'x'),
                               std::string("\xfd"
                                           "7zXZ\0",
                                           6) +
                                   "data",
                               "BZh91AY",
                               "PK\3\4zip",
                               std::string(4096, '\xee'),
                               Gzip("just text"),
                               Gzip(Gzip("x"))};
  for (const std::string& bytes : cases) {
    EXPECT_FALSE(ImportArchive(bytes).status.ok());
    EXPECT_EQ(report_.reason, ImportReason::kNotAnArchive) << bytes.substr(0, 8);
    EXPECT_THAT(report_.status.error().message, HasSubstr("docker save"));
  }
}

TEST_F(Archives, InOtherFormatsAreRefusedByName) {
  using std::string_literals::operator""s;
  const std::pair<std::string, const char*> formats[] = {{"\xfd"s + "7zXZ\0"s, "xz"},
                                                         {"BZh91AY&SY"s, "bzip2"},
                                                         {"\x04\x22\x4d\x18"s, "lz4"},
                                                         {"LRZI\0\6"s, "lrzip"},
                                                         {"\x89LZO\0\r\n\x1a\n"s, "lzop"},
                                                         {"GRZipII\0"s, "grzip"},
                                                         {"LZIP\1"s, "lzip"},
                                                         {"\x1f\x9d\x90"s, "compress"},
                                                         {"\xed\xab\xee\xdb"s, "rpm"},
                                                         {"7z\xbc\xaf\x27\x1c"s, "7z"},
                                                         {"PK\3\4"s, "zip"},
                                                         {"Rar!\x1a\7"s, "rar"},
                                                         {"070701"s, "cpio"}};
  for (const auto& [magic, name] : formats) {
    const std::string blob = magic + std::string(1000, '\1');
    ASSERT_FALSE(ImportArchive(blob).status.ok());
    EXPECT_THAT(report_.status.error().message, HasSubstr(name));
    EXPECT_EQ(report_.reason, ImportReason::kNotAnArchive);
    ImageSpec image;
    image.layers = {{blob}};
    ASSERT_FALSE(ImportArchive(ArchiveBuilder(ArchiveShape::kLegacy, {image}).Tar()).status.ok());
    EXPECT_THAT(report_.status.error().message, HasSubstr(name));
    EXPECT_EQ(report_.reason, ImportReason::kBadImage);
  }
  // These have no mark where one looks first.
  const std::string iso = std::string(32769, '\0') + "CD001" + std::string(5000, '\0');
  EXPECT_FALSE(ImportArchive(iso).status.ok());
  for (const char* text : {"begin 644 x\n#0V%T\n`\nend\n", "qqqqqqqqqqqqqqqq"}) {
    EXPECT_FALSE(ImportArchive(text).status.ok());
    EXPECT_THAT(FailureOf({text}), HasSubstr("damaged tar"));
  }
}

TEST_F(Archives, ReadGzipOfManyMembersAndTrailingZeros) {
  const std::string tar = TarBuilder().File("hello", "hi", 0755).Finish();
  const std::string parts = Gzip(tar.substr(0, 700)) + Gzip("") + Gzip(tar.substr(700));
  for (const std::string& blob : {parts, parts + std::string(1000, '\0')}) {
    ArchiveBuilder archive(ArchiveShape::kLegacy, {ImageSpec{{{tar}}, {}, "linux", "", "{}", {}}});
    for (const std::string& name : archive.names()) {
      if (name.ends_with("layer.tar")) archive.Set(name, blob);
    }
    ASSERT_TRUE(ImportArchive(archive.Tar()).status.ok()) << report_.status.error().message;
    EXPECT_EQ(Tree(), "hello|f|755|0:0|\n");
  }
}

TEST_F(Archives, ThatUnpackToTooMuchStopAtTheLimit) {
  ImportLimits small;
  small.archive_bytes = 1 << 20;
  small.layer_bytes = 1 << 20;
  small.layer_stream_bytes = 2 << 20;
  small.layer_entries = 50;
  small.archive_members = 20;
  Importer importer(runner_, small, dir_.path());
  TarBuilder many;
  for (int i = 0; i < 60; ++i) many.File("f" + std::to_string(i), "");
  TarBuilder members;
  for (int i = 0; i < 30; ++i) members.File("m" + std::to_string(i), "");
  const auto layer = [](const std::string& tar, LayerSpec::Compression compression) {
    return ArchiveBuilder(ArchiveShape::kOci,
                          {ImageSpec{{{tar, compression}}, {}, "linux", "", "{}", {}}})
        .Tar();
  };
  using Compression = LayerSpec::Compression;
  const std::string zeros = TarBuilder().File("z", std::string(1 << 21, '\0')).Finish();
  const std::string padding = TarBuilder().File("z", "").Finish() + std::string(3 << 20, '\0');
  for (const std::string& bytes :
       {Gzip(TarBuilder().File("z", std::string(3 << 20, '\0')).Finish()),
        layer(zeros, Compression::kGzip), layer(zeros, Compression::kZstd),
        layer(padding, Compression::kGzip), layer(many.Finish(), Compression::kPlain),
        members.Finish()}) {
    auto spool = OpenUnnamedFile(dir_.path()).value();
    ASSERT_TRUE(WriteAll(spool.get(), bytes).ok());
    lseek(spool.get(), 0, SEEK_SET);
    const ImportReport report = importer.Import(std::move(spool), options_);
    ASSERT_FALSE(report.status.ok());
    EXPECT_EQ(report.reason, ImportReason::kTooLarge) << report.status.error().message;
    EXPECT_TRUE(report.layers_created.empty());
  }
}

// Blocks below a directory, in KiB, at their highest while `work` runs.
class HighestUse {
 public:
  explicit HighestUse(std::string dir)
      : dir_(std::move(dir)), free_(FreeKib()), thread_([this] {
          while (!done_) lowest_ = std::min(lowest_.load(), FreeKib());
        }) {}
  uint64_t StopKib() {
    done_ = true;
    thread_.join();
    return free_ - lowest_;
  }

 private:
  uint64_t FreeKib() const {
    struct statfs disk = {};
    statfs(dir_.c_str(), &disk);
    return static_cast<uint64_t>(disk.f_bfree) * static_cast<uint64_t>(disk.f_bsize) / 1024;
  }
  std::string dir_;
  uint64_t free_;
  std::atomic<uint64_t> lowest_ = UINT64_MAX;
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

// A disk of its own for the layers, so that what is on it can be told.
class Quotas : public ImageLab {
 protected:
  void SetUp() override {
    ImageLab::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    ASSERT_EQ(mount("tmpfs", layers_.c_str(), "tmpfs", 0, "size=64m,mode=700"), 0);
  }
  void TearDown() override {
    ImageLab::TearDown();
    if (!canary_.empty()) umount2(layers_.c_str(), MNT_DETACH);
  }
  // Refused for `reason`, and never more than `kib` on the disk.
  void ExpectRefused(const ImportLimits& limits, const std::vector<std::string>& tars,
                     ArchiveShape shape, ImportReason reason, uint64_t kib) {
    ImageSpec image;
    for (const std::string& tar : tars) {
      image.layers.push_back({tar, LayerSpec::Compression::kGzip});
    }
    ArchiveBuilder archive(shape, {image});
    for (const bool early : {false, true}) {
      if (early) archive.First({"index.json", "oci-layout", "manifest.json"});
      Importer importer(runner_, limits, dir_.path());
      auto spool = OpenUnnamedFile(dir_.path()).value();
      ASSERT_TRUE(WriteAll(spool.get(), archive.Tar()).ok());
      lseek(spool.get(), 0, SEEK_SET);
      HighestUse use(layers_);
      const ImportReport report = importer.Import(std::move(spool), options_);
      EXPECT_LT(use.StopKib(), kib);
      ASSERT_FALSE(report.status.ok());
      EXPECT_EQ(report.reason, reason) << report.status.error().message;
      for (const LayerId& id : report.layers_created) EXPECT_TRUE(importer.Remove(id).ok());
    }
  }
};

TEST_F(Quotas, OfAnImageStopTheLayerThatPassesThem) {
  ImportLimits limits;
  limits.image_bytes = 10 << 20;
  std::vector<std::string> tars;
  for (int i = 0; i < 8; ++i) {
    tars.push_back(TarBuilder().File(std::to_string(i), std::string(6 << 20, '0')).Finish());
  }
  for (const auto shape : {ArchiveShape::kLegacy, ArchiveShape::kOci}) {
    ExpectRefused(limits, tars, shape, ImportReason::kTooLarge, 8 << 10);
  }
}

TEST_F(Quotas, CountWhatHardLinksToLowerFilesCopy) {
  ImportLimits limits;
  limits.image_bytes = 15 << 20;
  std::vector<std::string> tars = {TarBuilder().File("f", std::string(6 << 20, '0')).Finish()};
  for (int i = 0; i < 6; ++i) {
    tars.push_back(TarBuilder().HardLink("l" + std::to_string(i), "f").Finish());
    // The next one finds it in a lower layer again.
  }
  ExpectRefused(limits, tars, ArchiveShape::kOci, ImportReason::kTooLarge, 14 << 10);
}

TEST_F(Quotas, LeaveTheReserveFree) {
  ImportLimits limits;
  limits.reserve_bytes = 40 << 20;  // of 64
  const std::string big = TarBuilder().File("f", std::string(30 << 20, '0')).Finish();
  ExpectRefused(limits, {big}, ArchiveShape::kOci, ImportReason::kNoSpace, 25 << 10);
  TarBuilder files;
  for (int i = 0; i < 12'000; ++i) files.File(std::to_string(i), "");
  ASSERT_EQ(mount(nullptr, layers_.c_str(), nullptr, MS_REMOUNT, "size=64m,nr_inodes=4000"), 0);
  ExpectRefused(limits, {files.Finish()}, ArchiveShape::kOci, ImportReason::kNoSpace, 25 << 10);
  EXPECT_THAT(FailureOf({files.Finish()}), HasSubstr("No space left")) << "without a reserve";
}

TEST_F(Archives, WithZstdWindowsOver8MiBAreRefused) {
  const std::string tar = TarBuilder().File("z", std::string(1 << 16, 'a')).Finish();
  ArchiveBuilder archive(ArchiveShape::kLegacy, {ImageSpec{{{tar}}, {}, "linux", "", "{}", {}}});
  for (const std::string& name : archive.names()) {
    if (name.ends_with("layer.tar")) archive.Set(name, Zstd(tar, 3, 27));
  }
  ASSERT_FALSE(ImportArchive(archive.Tar()).status.ok());
  EXPECT_THAT(report_.status.error().message, HasSubstr("zstd"));
}

TEST_F(Archives, CutAnywhereAreRefusedOrWhole) {
  const std::string tar = ArchiveBuilder(ArchiveShape::kDocker25, {Hello()}).Tar();
  size_t accepted = 0;
  for (size_t cut = 0; cut < tar.size(); cut += 512) {
    const ImportReport& report = ImportArchive(tar.substr(0, cut));
    if (!report.status.ok()) {
      EXPECT_NE(report.reason, ImportReason::kInternal) << report.status.error().message;
      continue;
    }
    ++accepted;
    EXPECT_EQ(Tree(), tree_) << cut;
  }
  EXPECT_LT(accepted, 25u) << "only the padding may be missing";
}

TEST_F(Archives, WithFlippedBitsAreRefusedOrWhole) {
  const std::string tar =
      ArchiveBuilder(ArchiveShape::kOci, {Hello(LayerSpec::Compression::kGzip)}).Tar();
  std::mt19937 random(1);
  for (int i = 0; i < 100; ++i) {
    std::string bytes = tar;
    bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    if (ImportArchive(bytes).status.ok()) {
      EXPECT_EQ(Tree(), tree_);
    } else {
      EXPECT_NE(report_.reason, ImportReason::kInternal) << report_.status.error().message;
    }
  }
}

// What is refused where, number by number: unit TarHeaders.
TEST_F(Archives, WithBadNumbersInLayersOrAroundThemAreRefused) {
  for (const char* size : {"-1", "1e9", "18446744073709551615", "9223372036854775808", "5 ", ""}) {
    TarItem item;
    item.name = "f";
    item.content = "12345";
    item.pax = {{"size", size}};
    const std::string tar = TarBuilder().Add(item).Finish();
    EXPECT_THAT(FailureOf({tar}), HasSubstr("damaged tar")) << size;
    EXPECT_EQ(report_.reason, ImportReason::kBadImage) << size;
    EXPECT_FALSE(ImportArchive(tar).status.ok());
    EXPECT_THAT(report_.status.error().message, HasSubstr("damaged tar")) << size;
  }
}

TEST_F(Archives, ForAnotherBoardNameBothAndAreStoredOnRequest) {
  ImageSpec image = Hello();
  image.architecture = MachineArchitecture() == "riscv64" ? "s390x" : "riscv64";
  const std::string tar = ArchiveBuilder(ArchiveShape::kDocker25, {image}).Tar();
  ASSERT_FALSE(ImportArchive(tar).status.ok());
  EXPECT_EQ(report_.status.error().message, "this image is linux/" + image.architecture +
                                                ", this board is " + PlatformName(HostPlatform()));
  EXPECT_EQ(report_.reason, ImportReason::kBadImage);
  options_.any_platform = AnyPlatform::kStore;
  EXPECT_TRUE(ImportArchive(tar).status.ok());
}

TEST_F(Archives, OfSeveralImagesTakeNoSingleName) {
  ImageSpec other = Hello();
  other.layers.pop_back();
  other.tags = {"other:2"};
  const std::string tar = ArchiveBuilder(ArchiveShape::kLegacy, {Hello(), other}).Tar();
  ASSERT_TRUE(ImportArchive(tar).status.ok());
  EXPECT_EQ(report_.images.size(), 2u);
  EXPECT_EQ(report_.layers_created.size(), 2u) << "the base is shared";
  options_.ref = "mine";
  ASSERT_FALSE(ImportArchive(tar).status.ok());
  EXPECT_EQ(report_.reason, ImportReason::kAmbiguous);
}

}  // namespace
}  // namespace pulga::testing
