// What the unpacker holds at most, whatever it is given: 16 MiB, program and libraries included.
#include <gmock/gmock.h>

#include "tests/support/image_lab.h"

#if !defined(__SANITIZE_ADDRESS__)  // its own memory would be measured

namespace pulga::testing {
namespace {

constexpr long kMostKib = 16 * 1024;

class UnpackerMemory : public ImageLab {
 protected:
  void SetUp() override {
    ImageLab::SetUp();
    runner_.WatchMemory();
  }
  // Imports and, where that works, lists, sums and verifies; nothing of it holds more.
  void ExpectBounded(const std::string& archive, const char* what) {
    ImportArchive(archive);
    if (report_.status.ok()) {
      (void)Tree();
      (void)Sums();
    }
    const long peak = runner_.TakePeakKib();
    EXPECT_GT(peak, 500) << "not measured";
    EXPECT_LE(peak, kMostKib) << what;
    RecordProperty(what, std::to_string(peak) + " KiB");
    printf("%s: %ld KiB, %s\n", what, peak,
           report_.status.ok() ? "taken" : report_.status.error().message.c_str());
  }
  static std::string Archive(const std::vector<LayerSpec>& layers) {
    ImageSpec image;
    image.layers = layers;
    return ArchiveBuilder(ArchiveShape::kLegacy, {image}).Tar();
  }
  static std::string Layer(const TarBuilder& tar) { return Archive({{tar.Finish()}}); }
};

std::string Noise(size_t size) {
  std::string out(size, '\0');
  uint64_t state = 1;
  for (char& c : out) c = static_cast<char>((state = state * 6364136223846793005u + 1) >> 56);
  return out;
}

// 4,000 bytes and more, of which the kernel's limit on one path allows few.
std::string LongPath(size_t number) {
  std::string path;
  for (int i = 0; i < 15; ++i) path += std::string(250, 'p') + "/";
  return path + std::to_string(number);
}

constexpr size_t kLongNames = 4500;  // 17 MB of them

TEST_F(UnpackerMemory, IsBoundedForTheLargestZstdWindow) {
  // 8 MiB of noise twice: the second half refers to the first one, all of the window is used.
  const std::string half = Noise(7 << 20);
  const std::string tar = TarBuilder().File("f", half + half).Finish();
  ArchiveBuilder archive(ArchiveShape::kLegacy, {ImageSpec{{{tar}}, {}, "linux", "", "{}", {}}});
  for (const std::string& name : archive.names()) {
    if (name.ends_with("layer.tar")) archive.Set(name, Zstd(tar, 3, 23));
  }
  ExpectBounded(archive.Tar(), "a layer with windowLog 23");
  EXPECT_TRUE(report_.status.ok()) << report_.status.error().message;
  ExpectBounded(Zstd(archive.Tar(), 3, 23), "with windowLog 23 inside and outside");
  EXPECT_TRUE(report_.status.ok()) << report_.status.error().message;
}

TEST_F(UnpackerMemory, IsBoundedForHugePaxHeaders) {
  TarItem path;
  path.pax = {{"path", std::string(1'000'000, 'p')}};
  ExpectBounded(Layer(TarBuilder().Add(path)), "a name of 1 MB");
  TarItem unicode;
  for (int i = 0; i < 500'000; ++i) unicode.name += "\xc3\xa9";
  ExpectBounded(Layer(TarBuilder().Add(unicode)), "a name of 500,000 umlauts");
  TarItem attributes;
  attributes.name = "f";
  for (int i = 0; i < 7; ++i) {
    attributes.pax.emplace_back("SCHILY.xattr.user." + std::to_string(i), Noise(64'000));
  }
  ExpectBounded(Layer(TarBuilder().Add(attributes)), "attributes of 448 kB");
  EXPECT_TRUE(report_.status.ok()) << report_.status.error().message;
  TarItem small;
  small.name = "f";
  for (int i = 0; i < 40'000; ++i) {
    small.pax.emplace_back("SCHILY.xattr.user." + std::to_string(i), "");
  }
  ExpectBounded(Layer(TarBuilder().Add(small)), "40,000 attributes");
  ExpectBounded(Layer(TarBuilder().GnuLong('K', std::string(1'000'000, 'k')).Symlink("l", "x")),
                "a link target of 1 MB");
  TarBuilder repeated;
  for (int i = 0; i < 100; ++i) repeated.GnuLong('L', std::string(100'000, 'l'));
  ExpectBounded(Layer(repeated.File("f", "")), "a hundred headers before one member");
}

TarItem SparseItem(size_t pieces) {
  std::string map = std::to_string(pieces) + "\n";
  for (size_t i = 0; i < pieces; ++i) map += "0\n0\n";
  TarItem item;
  item.name = "GNUSparseFile.0/s";
  item.content = map + std::string(512 - map.size() % 512, '\0');
  item.pax = {{"GNU.sparse.major", "1"},
              {"GNU.sparse.minor", "0"},
              {"GNU.sparse.name", "s"},
              {"GNU.sparse.realsize", "1000000"}};
  return item;
}

TEST_F(UnpackerMemory, IsBoundedForSparseMaps) {
  ExpectBounded(Layer(TarBuilder().Add(SparseItem(120'000))), "a map of 120,000 pieces");
  ExpectBounded(Layer(TarBuilder().Add(SparseItem(400'000))), "a map of 400,000 pieces");
  EXPECT_FALSE(report_.status.ok());
  TarItem old;
  old.name = "s";
  old.pax = {{"GNU.sparse.size", "1000000"}, {"GNU.sparse.numblocks", "120000"}};
  std::string list = "0,0";
  for (int i = 1; i < 120'000; ++i) list += ",0,0";
  old.pax.emplace_back("GNU.sparse.map", list);
  ExpectBounded(Layer(TarBuilder().Add(old)), "a map of 120,000 pieces in a PAX header");
}

TEST_F(UnpackerMemory, IsBoundedForManyEntries) {
  TarBuilder links;
  links.File("f", "x");
  for (int i = 0; i < 10'000; ++i) links.HardLink("h" + std::to_string(i), "f");
  ExpectBounded(Layer(links), "10,000 hard links");
  TarBuilder dirs;
  for (int i = 0; i < 10'000; ++i)
    dirs.Dir("d" + std::to_string(i % 300) + "/" + std::to_string(i));
  ExpectBounded(Layer(dirs), "10,000 directories");
  TarBuilder members;
  for (int i = 0; i < 100'000; ++i) members.File("m" + std::to_string(i), "");
  ExpectBounded(members.Finish(), "an archive of 100,000 members");
  std::string deep;
  while (deep.size() < 4000) deep += "d/";
  TarBuilder tree;
  for (int i = 0; i < 100; ++i) tree.File(deep + std::to_string(i), "x");
  ExpectBounded(Layer(tree), "2,000 directories deep");
}

TEST_F(UnpackerMemory, IsBoundedForLinksToLongNames) {
  TarBuilder lower;
  TarBuilder upper;
  for (size_t i = 0; i < kLongNames; ++i) {
    lower.File(LongPath(i), "x");
    upper.HardLink("h" + std::to_string(i), LongPath(i));
  }
  ExpectBounded(Archive({{lower.Finish()}, {upper.Finish()}}), "links to long lower names");
  EXPECT_TRUE(report_.status.ok());
}

TEST_F(UnpackerMemory, IsBoundedForMarkersOverManyDirectories) {
  const std::string lower = TarBuilder().File("lower", "x").File(LongPath(0) + "/f", "x").Finish();
  TarBuilder dirs;
  for (size_t i = 0; i < kLongNames; ++i) dirs.Dir(LongPath(i));
  TarBuilder opaque = dirs;
  opaque.File(".wh..wh..opq", "");
  ExpectBounded(Archive({{lower}, {opaque.Finish()}}), "an opaque marker over 4,500 directories");
  ASSERT_TRUE(report_.status.ok()) << report_.status.error().message;
  EXPECT_EQ(Tree().find("lower"), std::string::npos);
  for (size_t i = 0; i < kLongNames; ++i) {
    dirs.File(LongPath(i).insert(LongPath(i).rfind('/') + 1, ".wh."), "");
  }
  ExpectBounded(Archive({{lower}, {dirs.Finish()}}), "whiteouts of 4,500 directories");
  EXPECT_TRUE(report_.status.ok()) << report_.status.error().message;
  TarBuilder flat;
  for (size_t i = 0; i < 12'000; ++i) flat.Dir(std::string(240, 'd') + std::to_string(i));
  flat.File(".wh..wh..opq", "");
  ExpectBounded(Archive({{lower}, {flat.Finish()}}),
                "a marker over 3 MB of names in one directory");
  EXPECT_EQ(report_.reason, ImportReason::kTooLarge);
}

TEST_F(UnpackerMemory, IsBoundedForMarkersInTheLargestZstdWindow) {
  TarBuilder tar;
  for (size_t i = 0; i < 2'000; ++i) tar.Dir(std::string(240, 'd') + std::to_string(i));
  const std::string half = Noise(7 << 20);
  const std::string top = tar.File("noise", half + half).File(".wh..wh..opq", "").Finish();
  ArchiveBuilder archive(
      ArchiveShape::kLegacy,
      {ImageSpec{{{TarBuilder().File("f", "x").Finish()}, {top}}, {}, "linux", "", "{}", {}}});
  for (const std::string& name : archive.names()) {
    if (archive.Get(name) == top) archive.Set(name, Zstd(top, 3, 23));
  }
  ExpectBounded(archive.Tar(), "a marker over 480 kB of names, with windowLog 23");
  EXPECT_TRUE(report_.status.ok()) << report_.status.error().message;
}

TEST_F(UnpackerMemory, IsBoundedForLongNamesThatComeTwice) {
  TarBuilder twice;
  for (size_t i = 0; i < 2 * kLongNames; ++i) twice.File(LongPath(i % kLongNames), "x");
  ExpectBounded(Layer(twice), "long names that come twice");
  EXPECT_TRUE(report_.status.ok());
}

TEST_F(UnpackerMemory, IsBoundedForHugeDocuments) {
  std::string deep = "[{\"Config\":\"c.json\",\"Layers\":[\"";
  deep += std::string(50 << 20, 'a') + "\"]}]";
  TarItem manifest;
  manifest.name = "manifest.json";
  manifest.content = deep;
  ExpectBounded(TarBuilder().Add(manifest).Finish(), "a manifest of 50 MiB");
  EXPECT_FALSE(report_.status.ok());
}

}  // namespace
}  // namespace pulga::testing

#endif
