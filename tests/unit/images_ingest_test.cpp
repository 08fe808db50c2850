// The unpacker's ingest: an archive while it arrives. Unconfined, no root needed.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "base/file_io.h"
#include "tests/support/archive_builder.h"
#include "tests/support/ingest_harness.h"

namespace pulga {
namespace {

std::string Text(size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) out += static_cast<char>('a' + i * i % 26);
  return out;
}

TEST(Ingest, FindsContentByOffset) {
  testing::TarItem pax;
  pax.name = "short";
  pax.content = "content";
  pax.pax = {{"path", "dir/" + std::string(150, 'n')}};
  const std::string tar =
      testing::TarBuilder().File("a", "").Add(pax).File("./b/../c", "see").Finish();
  for (const std::string& bytes : {tar, testing::Gzip(tar), testing::Zstd(tar)}) {
    const auto got = testing::Ingest(bytes);
    ASSERT_TRUE(got.status.ok()) << got.status.error().message;
    EXPECT_EQ(got.plain, tar);
    const ArchiveMember* member = got.index.FindFile("dir/" + std::string(150, 'n'));
    ASSERT_NE(member, nullptr);
    EXPECT_EQ(tar.substr(member->offset, member->size), "content");
    EXPECT_EQ(member->sha256, testing::Sha256Of("content"));
    EXPECT_EQ(tar.substr(got.index.FindFile("c")->offset, 3), "see");
    EXPECT_EQ(got.index.FindFile("a")->sha256, testing::Sha256Of(""));
  }
}

TEST(Ingest, TellsAMemberBeforeTheNextOneIsThere) {
  int input[2];
  int channel[2];
  ASSERT_EQ(pipe2(input, O_CLOEXEC) + pipe2(channel, O_CLOEXEC), 0);
  const UniqueFd from(input[0]);
  UniqueFd to(input[1]);
  const UniqueFd told(channel[0]);
  std::thread unpacker([&, tell = UniqueFd(channel[1])] {
    const UniqueFd spool(memfd_create("spool", MFD_CLOEXEC));
    UnpackOrder order;
    order.max_entries = 10;
    order.max_bytes = 1 << 20;
    EXPECT_TRUE(RunIngest(order, from.get(), spool.get(), tell.get()).ok());
  });
  const std::string tar = testing::TarBuilder().File("a", "1").File("b", "2").Finish();
  ASSERT_TRUE(WriteAll(to.get(), tar.substr(0, 1024)).ok());
  JobEventReader reader(told.get());
  EXPECT_EQ(DecodeMember(reader.Next().value()->payload)->name, "a");
  ASSERT_TRUE(WriteAll(to.get(), tar.substr(1024)).ok());
  to.Reset();
  EXPECT_EQ(DecodeMember(reader.Next().value()->payload)->name, "b");
  unpacker.join();
}

TEST(Ingest, IsTheSameHoweverTheBytesArrive) {
  const std::string tar =
      testing::TarBuilder().File("a", Text(3000)).Symlink("l", "a").File("b", Text(700)).Finish();
  UnpackOrder order;
  order.max_entries = 10;
  order.max_bytes = 1 << 20;
  for (const std::string& bytes : {tar, testing::Gzip(tar), testing::Zstd(tar)}) {
    for (const size_t step : {1, 7, 511, 512, 513}) {
      std::vector<std::string> pieces;
      for (size_t at = 0; at < bytes.size(); at += step) pieces.push_back(bytes.substr(at, step));
      const auto got = testing::IngestPieces(pieces, order);
      ASSERT_TRUE(got.status.ok()) << got.status.error().message;
      EXPECT_EQ(got.plain, tar);
      ASSERT_EQ(got.members.size(), 3u);
      EXPECT_EQ(got.members[2].member.sha256, testing::Sha256Of(Text(700)));
    }
  }
}

TEST(Ingest, SeesTruncationAtEveryByte) {
  const std::string tar = testing::TarBuilder().File("a", Text(700)).File("b", "x").Finish();
  for (size_t size = 0; size <= tar.size(); ++size) {
    // Complete but for padding and end marks, which hold nothing; half a mark is half a header.
    const bool one_whole = size >= 512 + 700 && size <= 1536;
    const bool both_whole = size >= 2048 + 1;
    const bool half_a_mark = size > 2560 && size < 3072;
    const auto got = testing::Ingest(tar.substr(0, size));
    EXPECT_EQ(got.status.ok(), one_whole || (both_whole && !half_a_mark)) << size;
    EXPECT_EQ(got.members.size(), both_whole ? 2u : size >= 512 + 700 ? 1u : 0u) << size;
  }
  for (const std::string& whole : {testing::Gzip(tar), testing::Zstd(tar)}) {
    for (size_t size = 0; size < whole.size(); ++size) {
      EXPECT_FALSE(testing::Ingest(whole.substr(0, size)).status.ok()) << size;
    }
  }
}

TEST(Ingest, StopsAtItsLimits) {
  UnpackOrder order;
  order.max_entries = 2;
  order.max_bytes = 100'000;
  const std::string two = testing::TarBuilder().File("a", "").File("b", "").Finish();
  EXPECT_TRUE(testing::IngestPieces({two}, order).status.ok());
  const std::string three =
      testing::TarBuilder().File("a", "").File("b", "").File("c", "").Finish();
  EXPECT_EQ(testing::IngestPieces({three}, order).status.error().code, Code::kTooLarge);
  const std::string zeros = testing::TarBuilder().File("z", std::string(8 << 20, '\0')).Finish();
  for (const std::string& bytes : {zeros, testing::Gzip(zeros), testing::Zstd(zeros)}) {
    const auto got = testing::IngestPieces({bytes}, order);
    EXPECT_EQ(got.status.error().code, Code::kTooLarge);
    EXPECT_LE(got.plain.size(), order.max_bytes);
  }
}

TEST(Ingest, SaysWhatCameInsteadOfAnArchive) {
  const auto why = [](const std::string& bytes) {
    const auto got = testing::Ingest(bytes);
    EXPECT_EQ(got.status.error().code, Code::kUnsupported);
    return got.status.error().message;
  };
  EXPECT_THAT(why(""), ::testing::HasSubstr("empty"));
  EXPECT_THAT(why("hello"), ::testing::HasSubstr("text"));
  EXPECT_THAT(why("\x7f"
                  "ELF"),
              ::testing::HasSubstr("a program"));
  EXPECT_THAT(why(testing::Gzip("hello")), ::testing::HasSubstr("text"));
  const std::string twice = testing::Gzip(testing::Gzip("hello"));
  EXPECT_THAT(why(twice), ::testing::HasSubstr("inside compressed data"));
}

TEST(Ingest, ReadsAllGzipMembersAndTheZerosBehindThem) {
  const std::string tar = testing::TarBuilder().File("a", Text(5000)).Finish();
  const std::string bytes = testing::Gzip(tar.substr(0, 1000)) + testing::Gzip(tar.substr(1000)) +
                            std::string(4000, '\0');
  const auto got = testing::Ingest(bytes);
  ASSERT_TRUE(got.status.ok()) << got.status.error().message;
  EXPECT_EQ(got.plain, tar);
}

TEST(Ingest, LayersAreFoundThroughOneLinkInsideTheArchive) {
  const std::string tar = testing::TarBuilder()
                              .File("x/layer.tar", "1")
                              .Symlink("y/layer.tar", "../x/layer.tar")
                              .Symlink("z/layer.tar", "../y/layer.tar")
                              .Symlink("out", "../x")
                              .Symlink("abs", "/etc/shadow")
                              .Symlink("self", "self")
                              .Symlink("dir", "x")
                              .HardLink("hard", "x/layer.tar")
                              .Finish();
  const auto index = testing::Ingest(tar).index;
  for (const char* good : {"x/layer.tar", "y/layer.tar", "hard"})
    EXPECT_TRUE(index.FindLayer(good).ok()) << good;
  for (const char* bad :
       {"z/layer.tar", "out", "abs", "self", "dir", "gone", "/x/layer.tar", "../x", ""}) {
    EXPECT_FALSE(index.FindLayer(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace pulga
