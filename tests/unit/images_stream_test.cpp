// Decompressors, the tar reader and the walk inside a root: no root needed.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "images/archive_index.h"
#include "images/byte_source.h"
#include "images/root_walker.h"
#include "images/tar_reader.h"
#include "images/tree_list.h"
#include "images/tree_remove.h"
#include "images/unpack_jobs.h"
#include "tests/support/archive_builder.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;

class Bytes final : public ByteSource {
 public:
  explicit Bytes(std::string bytes) : bytes_(std::move(bytes)) {}
  Result<size_t> Read(std::span<char> out) override {
    const size_t n = std::min({out.size(), bytes_.size() - at_, size_t{777}});
    memcpy(out.data(), bytes_.data() + at_, n);
    at_ += n;
    return n;
  }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

Result<std::string> Inflate(Compression kind, const std::string& bytes) {
  Bytes source(bytes);
  const auto plain = MakeDecompressor(kind, source);
  std::string out;
  char buffer[1000];
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const size_t n, plain->Read(buffer));
    if (n == 0) return out;
    out.append(buffer, n);
  }
}

std::string Text(size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) out += static_cast<char>('a' + i * i % 26);
  return out;
}

TEST(Gzip, ReadsAllMembersAndTrailingZeros) {
  const std::string two = testing::Gzip(Text(50'000)) + testing::Gzip("tail");
  EXPECT_EQ(Inflate(Compression::kGzip, two).value(), Text(50'000) + "tail");
  EXPECT_EQ(Inflate(Compression::kGzip, two + std::string(3000, '\0')).value(),
            Text(50'000) + "tail");
}

TEST(Gzip, RefusesDamage) {
  const std::string good = testing::Gzip(Text(5000));
  for (size_t cut = 0; cut < good.size(); ++cut) {
    EXPECT_FALSE(Inflate(Compression::kGzip, good.substr(0, cut)).ok()) << cut;
  }
  std::string bad_sum = good;
  bad_sum[bad_sum.size() - 6] ^= 1;
  EXPECT_FALSE(Inflate(Compression::kGzip, bad_sum).ok());
  EXPECT_FALSE(Inflate(Compression::kGzip, good + "junk").ok());
  EXPECT_FALSE(Inflate(Compression::kGzip, good + std::string(10, '\0') + good).ok());
}

TEST(Zstd, ReadsAllFramesAndSkipsSkippableOnes) {
  const std::string skippable = std::string("\x50\x2a\x4d\x18\x05\0\0\0", 8) + "skip!";
  const std::string bytes = testing::Zstd(Text(50'000)) + skippable + testing::Zstd("tail");
  EXPECT_EQ(Inflate(Compression::kZstd, bytes).value(), Text(50'000) + "tail");
  EXPECT_EQ(Inflate(Compression::kZstd, skippable + testing::Zstd("x")).value(), "x");
}

TEST(Zstd, RefusesDamageAndLargeWindows) {
  const std::string good = testing::Zstd(Text(5000));
  for (size_t cut = 1; cut < good.size(); ++cut) {
    EXPECT_FALSE(Inflate(Compression::kZstd, good.substr(0, cut)).ok()) << cut;
  }
  EXPECT_FALSE(Inflate(Compression::kZstd, testing::Zstd(Text(5000), 3, 27)).ok());
  EXPECT_TRUE(Inflate(Compression::kZstd, testing::Zstd(Text(5000), 3, 23)).ok());
}

TEST(Meter, StopsAtItsLimit) {
  Bytes source(Text(1000));
  Meter meter(source, DigestAlgorithm::kSha256, 999);
  const Status drained = Drain(meter);
  ASSERT_FALSE(drained.ok());
  EXPECT_EQ(drained.error().code, Code::kTooLarge);
}

TEST(TarReader, ReadsWhatTheBuilderWrites) {
  Bytes source(testing::TarBuilder().File("f", "hello").Symlink("l", "f").Finish());
  const auto tar = TarReader::Open(source).value();
  const TarEntry* entry = tar->Next().value();
  EXPECT_EQ(entry->name, "f");
  EXPECT_EQ(tar->ReadBlock().value()->bytes, "hello");
  entry = tar->Next().value();
  EXPECT_EQ(entry->type, EntryType::kSymlink);
  EXPECT_EQ(entry->link_target, "f");
  EXPECT_EQ(tar->Next().value(), nullptr);
}

class Files : public ::testing::Test {
 protected:
  UniqueFd Spool(const std::string& bytes) {
    UniqueFd fd = OpenUnnamedFile(dir_.path()).value();
    EXPECT_TRUE(WriteAll(fd.get(), bytes).ok());
    return fd;
  }
  UniqueFd Root() { return OpenFile(dir_.path(), O_RDONLY | O_DIRECTORY).value(); }
  TempDir dir_ = TempDir::Create("/tmp/pulga-stream-").value();
};

TEST_F(Files, WalkStaysInsideTheRoot) {
  const UniqueFd root = Root();
  ASSERT_TRUE(MakeDirs(dir_.path() + "/usr/bin").ok());
  const std::pair<const char*, const char*> links[] = {
      {"bin", "usr/bin"}, {"abs", "/usr"}, {"up", "../../../usr"},
      {"a", "b"},         {"b", "a"},      {"dangling", "/new/place"}};
  for (const auto& [name, target] : links) ASSERT_EQ(symlinkat(target, root.get(), name), 0);
  RootWalker walker(root.get());
  const auto resolve = [&](const char* path) {
    return walker.Resolve(path, RootWalker::Missing::kFail);
  };
  EXPECT_EQ(resolve("bin").value(), "usr/bin");
  EXPECT_EQ(resolve("abs/bin/..").value(), "usr");
  EXPECT_EQ(resolve("up").value(), "usr");
  EXPECT_EQ(resolve("../../..").value(), "");
  EXPECT_FALSE(resolve("a/x").ok());
  EXPECT_EQ(resolve("gone").error().code, Code::kNotFound);
  EXPECT_EQ(walker.Resolve("dangling/x", RootWalker::Missing::kCreate).value(), "new/place/x");
}

TEST_F(Files, RemovalTakesDeepAndWideTreesAndNoLinkTargets) {
  const UniqueFd root = Root();
  ASSERT_TRUE(WriteFile(dir_.path() + "/keep", "x").ok());
  std::string deep = "t";
  UniqueFd at(dup(root.get()));
  for (int i = 0; i < 300; ++i) {
    ASSERT_EQ(mkdirat(at.get(), "t", 0755), 0);
    at.Reset(openat(at.get(), "t", O_RDONLY | O_DIRECTORY));
    for (const char* name : {"1", "2", "3"}) ASSERT_EQ(mkdirat(at.get(), name, 0755), 0);
    ASSERT_EQ(symlinkat("../keep", at.get(), "l"), 0);
    ASSERT_EQ(symlinkat("f", at.get(), "1/l"), 0);
  }
  EXPECT_TRUE(RemoveAll(root.get(), "t").ok());
  EXPECT_TRUE(RemoveAll(root.get(), "t").ok()) << "gone is fine";
  EXPECT_EQ(ReadFile(dir_.path() + "/keep").value(), "x");
}

TEST_F(Files, TreesPrintInTheOrderOfTheirLines) {
  const std::string base = dir_.path() + "/r";
  ASSERT_TRUE(MakeDirs(base + "/a/b").ok());
  for (const char* name : {"/a-b", "/a/z", "/a/b/c", "/a0", "/a b", "/[", "/[["}) {
    ASSERT_TRUE(WriteFile(base + name, name).ok());
  }
  const UniqueFd root = OpenFile(base, O_RDONLY | O_DIRECTORY).value();
  const UniqueFd output = Spool("");
  ASSERT_TRUE(ListTree(root.get(), output.get()).ok());
  lseek(output.get(), 0, SEEK_SET);
  const std::string text = ReadFd(output.get(), 1 << 20).value();
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
    lines.push_back(text.substr(at, text.find('\n', at) - at));
  }
  EXPECT_EQ(lines.size(), 9u);
  EXPECT_TRUE(std::is_sorted(lines.begin(), lines.end())) << text;
}

}  // namespace
}  // namespace pulga
