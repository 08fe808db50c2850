// Which members of an archive need not be sent: told by headers alone, and only by ordinary ones.
#include <gtest/gtest.h>
#include <unistd.h>

#include "api/cli/archive_skim.h"
#include "base/file_io.h"

namespace pulga::cli {
namespace {

constexpr size_t kLarge = 64 << 10;
const std::string kDigest(64, 'a');
const std::string kOther(64, 'b');
const std::string kEnd(1024, '\0');

void Seal(std::string* header) {
  header->replace(148, 8, 8, ' ');
  unsigned sum = 0;
  for (const char c : header->substr(0, 512)) sum += static_cast<unsigned char>(c);
  char text[9];
  snprintf(text, sizeof text, "%06o", sum);
  header->replace(148, 8, std::string(text, 6) + std::string("\0 ", 2));
}

std::string Header(const std::string& name, size_t size, char type = '0') {
  std::string out(512, '\0');
  out.replace(0, name.size(), name);
  char text[16];
  snprintf(text, sizeof text, "%011zo", size);
  out.replace(124, 11, text);
  out[156] = type;
  out.replace(257, 8, std::string("ustar\00000", 8));
  Seal(&out);
  return out;
}

std::string Member(const std::string& name, const std::string& data, char type = '0') {
  return Header(name, data.size(), type) + data +
         std::string((512 - data.size() % 512) % 512, '\0');
}

std::string Blob(const std::string& digest, size_t size = kLarge + 1) {
  return Member("blobs/sha256/" + digest, std::string(size, 'x'));
}

std::optional<ArchiveOutline> Outline(const std::string& archive) {
  const UniqueFd file = OpenUnnamedFile("/tmp").value();
  EXPECT_TRUE(WriteAll(file.get(), archive).ok());
  auto outline = SkimArchive(file.get(), archive.size());
  if (outline) SortAsNamed(file.get(), &*outline);
  return outline;
}

std::optional<std::vector<NamedBlob>> Find(const std::string& archive) {
  const auto outline = Outline(archive);
  return outline ? std::optional(outline->blobs) : std::nullopt;
}

std::string Rest(const std::string& archive, const std::set<std::string>& known) {
  std::string out;
  for (const FileRange& range : RangesToSend(Outline(archive).value(), known, archive.size())) {
    EXPECT_GT(range.size, 0u);
    out += archive.substr(range.offset, range.size);
  }
  return out;
}

TEST(ArchiveSkim, LeavesOutWhatIsKnown) {
  const std::string documents = Member("manifest.json", "[]");
  const std::string archive = Blob(kDigest) + Blob(kOther) + documents + kEnd;
  EXPECT_EQ(Rest(archive, {kDigest}), documents + Blob(kOther) + kEnd);
  EXPECT_EQ(Rest(archive, {kOther}), documents + Blob(kDigest) + kEnd);
  EXPECT_EQ(Rest(archive, {kDigest, kOther}), documents + kEnd);
  EXPECT_EQ(Rest(archive, {std::string(64, 'c')}), documents + Blob(kDigest) + Blob(kOther) + kEnd);
}

TEST(ArchiveSkim, DocumentsGoFirstAndLayersFromTheBaseUp) {
  const std::string unnamed(64, 'c');
  const std::string config = Member("config", R"({"sum":"sha256:)" + kOther + R"("})");
  const std::string manifest = Member(
      "manifest.json", R"([{"Layers":["blobs/sha256/)" + kDigest + R"(","blobs/sha256/)" + kOther +
                           R"("],"LayerSources":{"sha256:)" + kOther + R"(":{}}}])");
  const std::string archive = Blob(unnamed) + Blob(kOther) + config + Blob(kDigest) + manifest;
  EXPECT_EQ(Rest(archive + kEnd, {}),
            config + manifest + Blob(kDigest) + Blob(kOther) + Blob(unnamed) + kEnd);
}

TEST(ArchiveSkim, ADigestInALongerWordIsNone) {
  const std::string documents =
      Member("manifest.json", "\"" + kOther + "0\" \"" + kDigest + "\"" + kOther);
  EXPECT_EQ(Rest(Blob(kOther) + documents + Blob(kDigest) + kEnd, {}),
            documents + Blob(kDigest) + Blob(kOther) + kEnd);
  EXPECT_EQ(Rest(documents + Blob(kOther) + kEnd, {}), documents + Blob(kOther) + kEnd);
}

TEST(ArchiveSkim, WhatFollowsTheEndStaysThere) {
  const std::string more = kEnd + "signature";
  EXPECT_EQ(Rest(Blob(kDigest) + Member("a", "b") + more, {}),
            Member("a", "b") + Blob(kDigest) + more);
}

TEST(ArchiveSkim, KnowsEveryNameThatTellsADigest) {
  const std::string data(kLarge, 'x');
  for (const std::string& name : {"blobs/sha256/" + kDigest, "./blobs/sha256/" + kDigest,
                                  kDigest + ".tar", "./" + kDigest + ".tar"}) {
    const auto found = Find(Member(name, data) + kEnd);
    ASSERT_TRUE(found && found->size() == 1) << name;
    EXPECT_EQ(found->front().digest, kDigest);
  }
  for (const std::string& name : {kDigest + "/layer.tar", "blobs/sha512/" + kDigest, kDigest,
                                  "blobs/sha256/" + kDigest.substr(1), "x/" + kDigest + ".tar",
                                  "blobs/sha256/" + std::string(64, 'A')}) {
    const auto found = Find(Member(name, data) + kEnd);
    EXPECT_TRUE(found && found->empty()) << name;
  }
}

TEST(ArchiveSkim, SmallBlobsAreNotWorthIt) {
  EXPECT_TRUE(Find(Blob(kDigest, kLarge - 1) + kEnd)->empty());
  EXPECT_EQ(Find(Blob(kDigest, kLarge) + kEnd)->size(), 1u);
}

TEST(ArchiveSkim, PassesOrdinaryMembersAndTheirPaxHeaders) {
  const std::string pax = Member("pax", "20 mtime=1700000000\n", 'x');
  const std::string before = Member("blobs/", "", '5') + Member("link", "", '2');
  EXPECT_EQ(Rest(before + pax + Blob(kDigest) + kEnd, {kDigest}), before + kEnd);
}

TEST(ArchiveSkim, JoinsTheTwoHalvesOfAName) {
  std::string header = Header(kDigest, kLarge);
  header.replace(345, 12, "blobs/sha256");
  Seal(&header);
  EXPECT_EQ(Find(header + std::string(kLarge, 'x') + kEnd)->size(), 1u);
  header.replace(257, 8, std::string("ustar  \0", 8));  // there it is no half of a name
  Seal(&header);
  EXPECT_TRUE(Find(header + std::string(kLarge, 'x') + kEnd)->empty());
}

TEST(ArchiveSkim, UnusualArchivesGoAsAWhole) {
  const std::string good = Blob(kDigest);
  ASSERT_TRUE(Find(good + kEnd));
  std::string bad_sum = good;
  bad_sum[0] = 'c';
  std::string base256 = good;
  base256[124] = '\x80';
  Seal(&base256);
  std::string v7 = good;
  v7.replace(257, 8, 8, '\0');
  Seal(&v7);
  for (const auto& [what, archive] : std::vector<std::pair<std::string, std::string>>{
           {"empty", ""},
           {"short", "x"},
           {"no end", good},
           {"cut off", good.substr(0, good.size() - 512)},
           {"checksum", bad_sum + kEnd},
           {"base-256 size", base256 + kEnd},
           {"old tar", v7 + kEnd},
           {"size beyond the end", good + Header("f", size_t{1} << 32) + kEnd},
           {"directory with content", good + Member("d", "x", '5') + kEnd},
           {"the same blob twice", good + good + kEnd},
           {"size in a PAX header", Member("p", "12 size=99\n", 'x') + good + kEnd},
           {"name in a PAX header", Member("p", "12 path=xy\n", 'x') + good + kEnd},
           {"PAX header of nothing", good + Member("p", "9 a=bcd\n", 'x') + kEnd},
           {"large PAX header", Member("p", std::string(1 << 17, 'x'), 'x') + good + kEnd},
           {"gzip", "\x1f\x8b" + good + kEnd}}) {
    EXPECT_FALSE(Find(archive)) << what;
  }
  for (const char type : {'1', '3', '4', '6', '7', 'g', 'L', 'K', 'S', 'V', 'M'}) {
    EXPECT_FALSE(Find(Member("m", "", type) + good + kEnd)) << type;
  }
}

}  // namespace
}  // namespace pulga::cli
