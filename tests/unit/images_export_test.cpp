// The archive an image leaves as: its documents, its bytes, read back by our own reader of
// archives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "images/archive_export.h"
#include "images/digest.h"
#include "images/manifest.h"
#include "images/tar_reader.h"
#include "tests/support/text_source.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kConfig =
    R"({"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}})";

ImageRecord Image() {
  ImageRecord image;
  image.config_bytes = std::string_view(kConfig).size();
  image.digest = "sha256:" + Sha256Hex(kConfig);
  for (const uint64_t size : {1024, 700, 1024}) {
    LayerRecord layer;
    layer.diff_id = Sha256Hex(std::string(size, 'x'));
    layer.chain_id.bytes.fill(static_cast<uint8_t>(image.layers.size()));
    layer.stream_bytes = size;
    layer.record_bytes = 1;
    image.layers.push_back(layer);
  }
  return image;
}

std::string Bytes(const ExportPlan& plan) {
  std::string out;
  for (const ExportPart& part : plan.parts) {
    out += part.text;
    if (part.config_bytes != 0) out += kConfig;
    out += std::string(part.layer_bytes, 'x');
  }
  return out;
}

// Name and content of each file, in order.
std::vector<std::pair<std::string, std::string>> Members(const std::string& tar) {
  testing::TextSource text(tar);
  const auto reader = TarReader::Open(text).value();
  std::vector<std::pair<std::string, std::string>> out;
  while (const TarEntry* entry = reader->Next().value()) {
    if (entry->type != EntryType::kFile) continue;
    std::string content;
    const std::string name = entry->name;
    while (const auto block = reader->ReadBlock().value()) content += block->bytes;
    out.emplace_back(name, content);
  }
  return out;
}

TEST(ArchiveExport, IsATarOfTheSizeItPromisesWithTheDocumentsFirst) {
  const auto plan = PlanExport(Image(), "docker.io/library/hello:1");
  ASSERT_TRUE(plan.ok());
  const std::string tar = Bytes(*plan);
  EXPECT_EQ(tar.size(), plan->bytes);
  EXPECT_EQ(tar.size() % 512, 0u);
  const auto members = Members(tar);
  ASSERT_EQ(members.size(), 7u);  // the third layer is the first one's blob
  EXPECT_EQ(members[0].first, "oci-layout");
  EXPECT_EQ(members[1].first, "index.json");
  EXPECT_EQ(members[2].first, "manifest.json");
  EXPECT_TRUE(CheckOciLayout(members[0].second).ok());
  for (size_t i = 3; i < members.size(); ++i) {
    EXPECT_EQ(members[i].first, "blobs/sha256/" + Sha256Hex(members[i].second));
  }
}

TEST(ArchiveExport, ItsIndexLeadsToTheManifestAndThatToTheLayers) {
  const ImageRecord image = Image();
  const auto members = Members(Bytes(*PlanExport(image, "docker.io/library/hello:1")));
  const auto index = ParseOciDocument(members[1].second);
  ASSERT_TRUE(index.ok());
  ASSERT_EQ(index->manifests.size(), 1u);
  EXPECT_EQ(index->manifests[0].name, "docker.io/library/hello:1");
  EXPECT_EQ(index->manifests[0].digest.hex, Sha256Hex(members[3].second));
  const auto manifest = ParseOciDocument(members[3].second);
  ASSERT_TRUE(manifest.ok());
  EXPECT_EQ(manifest->config.digest.ToString(), image.digest);
  ASSERT_EQ(manifest->layers.size(), 3u);
  EXPECT_EQ(manifest->layers[1].digest.hex, image.layers[1].diff_id);
  EXPECT_EQ(manifest->layers[1].size, 700u);
}

TEST(ArchiveExport, ItsManifestJsonSaysTheSame) {
  const ImageRecord image = Image();
  const auto members = Members(Bytes(*PlanExport(image, "docker.io/library/hello:1")));
  const auto saved = ParseSavedImages(members[2].second);
  ASSERT_TRUE(saved.ok());
  ASSERT_EQ(saved->size(), 1u);
  EXPECT_THAT((*saved)[0].repo_tags, ElementsAre("hello:1"));
  EXPECT_EQ((*saved)[0].config, "blobs/sha256/" + Sha256Hex(kConfig));
  EXPECT_EQ((*saved)[0].layers[2], "blobs/sha256/" + image.layers[0].diff_id);
}

TEST(ArchiveExport, WithoutANameItCarriesNone) {
  const auto members = Members(Bytes(*PlanExport(Image(), "")));
  EXPECT_THAT(members[2].second, HasSubstr("\"RepoTags\":null"));
  EXPECT_EQ(ParseOciDocument(members[1].second)->manifests[0].name, "");
}

TEST(ArchiveExport, TheSameImageGivesTheSameBytes) {
  EXPECT_EQ(Bytes(*PlanExport(Image(), "a:1")), Bytes(*PlanExport(Image(), "a:1")));
}

TEST(ArchiveExport, ALayerOfNineGigabytesKeepsItsSize) {
  ImageRecord image = Image();
  image.layers[1].stream_bytes = uint64_t{9} << 30;
  const auto plan = PlanExport(image, "");
  ASSERT_TRUE(plan.ok());
  const std::string_view before = plan->parts[2].text;
  testing::TextSource text(before.substr(before.size() - 512));
  const auto reader = TarReader::Open(text);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ((*reader)->Next().value()->size, uint64_t{9} << 30);
}

TEST(ArchiveExport, RefusesLayersWithoutARecord) {
  ImageRecord image = Image();
  image.layers[1].record_bytes = 0;
  const auto plan = PlanExport(image, "");
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.error().code, Code::kUnsupported);
  EXPECT_THAT(plan.error().message, HasSubstr("import it again"));
}

}  // namespace
}  // namespace pulga
