// Layer records: the same bytes come back from a directory and its record, and whatever changed in
// the directory is told by name.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "images/layer_record.h"
#include "images/tar_reader.h"
#include "images/tree_record.h"
#include "tests/support/archive_builder.h"

namespace pulga {
namespace {

using testing::TarBuilder;

// Hands a text out in pieces of one size.
class TextSource final : public ByteSource {
 public:
  TextSource(std::string_view text, size_t piece) : rest_(text), piece_(piece) {}
  Result<size_t> Read(std::span<char> out) override {
    const size_t n = std::min({rest_.size(), piece_, out.size()});
    rest_.copy(out.data(), n);
    rest_.remove_prefix(n);
    return n;
  }

 private:
  std::string_view rest_;
  size_t piece_;
};

class LayerRecordTest : public ::testing::Test {
 protected:
  // Unpacks regular files and directories into layer_, recording.
  void Unpack(const std::string& tar, size_t piece = 4096, const std::set<std::string>& lost = {}) {
    TextSource source(tar, piece);
    RecordWriter record(record_.get());
    LayerRecorder recorder(source, record);
    auto reader = TarReader::Open(recorder).value();
    while (const TarEntry* entry = reader->Next().value()) Apply(*entry, *reader, recorder);
    ASSERT_TRUE(Drain(recorder).ok());
    recorder.Finish();
    EXPECT_EQ(recorder.stream_bytes(), tar.size());
    for (const std::string& path : lost) recorder.Lost(path);
    const auto totals = RecordTree(layer_fd_.get(), record);
    ASSERT_TRUE(totals.ok()) << totals.error().message;
    ASSERT_TRUE(record.Finish().ok());
    lost_ = recorder.lost();
  }
  void Apply(const TarEntry& entry, TarReader& reader, LayerRecorder& recorder) {
    const std::string path = layer_ + "/" + entry.name;
    if (entry.type == EntryType::kDirectory) {
      ASSERT_TRUE(MakeDirs(path).ok());
      return;
    }
    ASSERT_EQ(entry.type, EntryType::kFile);
    std::string content;
    while (true) {
      const auto block = reader.ReadBlock().value();
      if (!block) break;
      if (content.empty()) {
        ASSERT_TRUE(recorder.Content(entry.name, block->stream_offset, entry.size).ok());
      }
      content += block->bytes;
    }
    ASSERT_TRUE(WriteFile(path, content).ok());
  }
  RecordReader Reader() const {
    struct stat st = {};
    fstat(record_.get(), &st);
    return {record_.get(), 0, static_cast<uint64_t>(st.st_size)};
  }
  std::string Reassembled(std::vector<LayerDifference>* differences = nullptr) const {
    RecordReader record = Reader();
    LayerReassembler reassembler(record, layer_fd_.get());
    std::string out;
    char buffer[1000];
    while (true) {
      const auto n = reassembler.Read(buffer);
      if (!n.ok()) return n.error().message;
      if (*n == 0) break;
      out.append(buffer, *n);
    }
    if (differences != nullptr) *differences = reassembler.differences();
    return out;
  }
  // "path: what" of everything that differs, content and tree, after `change`.
  std::vector<std::string> Differences(const std::function<void()>& change) {
    change();
    RecordReader record = Reader();
    LayerReassembler reassembler(record, layer_fd_.get());
    EXPECT_TRUE(Drain(reassembler).ok());
    std::vector<std::string> out;
    for (const auto& [path, what] : reassembler.differences()) out.push_back(path + ": " + what);
    const auto tree = CompareTree(layer_fd_.get(), record);
    EXPECT_TRUE(tree.ok()) << (tree.ok() ? "" : tree.error().message);
    for (const auto& [path, what] : tree->differences) out.push_back(path + ": " + what);
    return out;
  }
  std::string Path(const char* name) const { return layer_ + "/" + name; }

  TempDir dir_ = TempDir::Create("/tmp/pulga-record-").value();
  std::string layer_ = [this] {
    const std::string path = dir_.path() + "/layer";
    EXPECT_TRUE(MakeDirs(path).ok());
    return path;
  }();
  UniqueFd layer_fd_ = OpenFile(layer_, O_RDONLY | O_DIRECTORY).value();
  UniqueFd record_ = OpenUnnamedFile(dir_.path()).value();
  std::set<std::string> lost_;
};

std::string Noise(size_t size, uint32_t seed) {
  std::string out(size, '\0');
  for (char& c : out) c = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
  return out;
}

std::string SampleTar() {
  TarBuilder tar;
  tar.Dir("etc/").File("etc/empty", "").File("etc/one", "1").File("etc/block", Noise(512, 1));
  tar.File("etc/" + std::string(120, 'n'), Noise(70'000, 2));
  tar.Dir("usr/")
      .Dir("usr/bin/")
      .File("usr/bin/big", Noise(300'000, 3))
      .File("zero", std::string(4096, '\0'));
  return tar.Finish();
}

TEST_F(LayerRecordTest, GivesTheSameBytesBackHoweverTheyCame) {
  const std::string tar = SampleTar();
  for (const size_t piece : {1u, 7u, 512u, 513u, 4096u, 65536u}) {
    ASSERT_EQ(ftruncate(record_.get(), 0), 0);
    lseek(record_.get(), 0, SEEK_SET);
    Unpack(tar, piece);
    EXPECT_TRUE(Reassembled() == tar) << "pieces of " << piece;
  }
}

TEST_F(LayerRecordTest, HoldsNoContentOfFiles) {
  const std::string tar = SampleTar();
  Unpack(tar);
  struct stat st = {};
  ASSERT_EQ(fstat(record_.get(), &st), 0);
  EXPECT_LT(st.st_size, 2048) << "of " << tar.size();
}

TEST_F(LayerRecordTest, KeepsWhatFollowsTheEndOfTheArchive) {
  const std::string tar = SampleTar() + "appended by somebody" + std::string(70'000, 'x');
  Unpack(tar);
  EXPECT_TRUE(Reassembled() == tar);
}

TEST_F(LayerRecordTest, KeepsContentThatALaterMemberReplaced) {
  TarBuilder builder;
  builder.Dir("d/").File("twice", "the first").File("other", "o").File("twice", "the second one");
  builder.File("d/gone", "below a directory that went");
  const std::string tar = builder.Finish();
  Unpack(tar, 4096, {"twice", "d"});
  ASSERT_FALSE(Reassembled() == tar);
  ASSERT_EQ(unlink(Path("d/gone").c_str()), 0);
  RecordReader first = Reader();
  UniqueFd second = OpenUnnamedFile(dir_.path()).value();
  RecordWriter rewritten(second.get());
  TextSource again(tar, 100);
  ASSERT_TRUE(RewriteRecord(first, again, lost_, rewritten).ok());
  ASSERT_TRUE(rewritten.Finish().ok());
  record_ = std::move(second);
  EXPECT_TRUE(Reassembled() == tar);
}

TEST_F(LayerRecordTest, RefusesToRewriteFromAnotherStream) {
  Unpack(SampleTar());
  RecordReader first = Reader();
  UniqueFd second = OpenUnnamedFile(dir_.path()).value();
  RecordWriter rewritten(second.get());
  TextSource shorter("too short", 100);
  EXPECT_FALSE(RewriteRecord(first, shorter, {"zero"}, rewritten).ok());
}

TEST_F(LayerRecordTest, FindsNothingInAnUntouchedDirectory) {
  Unpack(SampleTar());
  EXPECT_EQ(Differences([] {}), std::vector<std::string>{});
}

TEST_F(LayerRecordTest, NamesAFileWithAFlippedByte) {
  Unpack(SampleTar());
  struct stat st = {};
  ASSERT_EQ(stat(Path("usr/bin/big").c_str(), &st), 0);
  const auto found = Differences([&] {
    const UniqueFd fd = OpenFile(Path("usr/bin/big"), O_RDWR).value();
    const std::string byte = ReadAt(fd.get(), 299'999, 1).value();
    const char flipped = static_cast<char>(byte[0] ^ 1);
    ASSERT_EQ(pwrite(fd.get(), &flipped, 1, 299'999), 1);
    const timespec times[2] = {st.st_atim, st.st_mtim};
    ASSERT_EQ(futimens(fd.get(), times), 0);
  });
  EXPECT_EQ(found, std::vector<std::string>{"usr/bin/big: content"});
}

TEST_F(LayerRecordTest, NamesAFileWithAnotherMode) {
  Unpack(SampleTar());
  const auto found = Differences([&] { ASSERT_EQ(chmod(Path("etc/one").c_str(), 0600), 0); });
  EXPECT_EQ(found, std::vector<std::string>{"etc/one: mode"});
}

TEST_F(LayerRecordTest, NamesWhatIsMissingAndWhatWasAdded) {
  Unpack(SampleTar());
  struct stat st = {};
  ASSERT_EQ(stat(Path("etc").c_str(), &st), 0);
  const auto found = Differences([&] {
    ASSERT_EQ(unlink(Path("etc/one").c_str()), 0);
    ASSERT_TRUE(MakeDirs(Path("etc/more/and/more")).ok());
    const timespec times[2] = {st.st_atim, st.st_mtim};
    ASSERT_EQ(utimensat(AT_FDCWD, Path("etc").c_str(), times, 0), 0);
  });
  EXPECT_EQ(found,
            (std::vector<std::string>{"etc/one: missing", "etc/more: added", "etc/one: missing"}));
}

TEST_F(LayerRecordTest, ComparesOnBehindADirectoryThatIsGone) {
  Unpack(SampleTar());
  const auto found = Differences([&] {
    ASSERT_TRUE(RemoveTree(layer_fd_.get(), "usr").ok());
    ASSERT_TRUE(WriteFile(Path("usr"), "a file now").ok());
    ASSERT_EQ(chmod(Path("zero").c_str(), 0600), 0);
  });
  EXPECT_EQ(found, (std::vector<std::string>{"usr/bin/big: missing", ".: modification time",
                                             "usr: type", "zero: mode"}));
}

TEST_F(LayerRecordTest, ADamagedRecordIsAnErrorNotADifference) {
  Unpack(SampleTar());
  const char byte = 0x55;
  ASSERT_EQ(pwrite(record_.get(), &byte, 1, 40), 1);
  RecordReader record = Reader();
  LayerReassembler reassembler(record, layer_fd_.get());
  EXPECT_FALSE(Drain(reassembler).ok());
}

TEST(ContentSum, DependsOnEveryByteAndNotOnThePieces) {
  const std::string text = Noise(1000, 9);
  const auto sum_of = [](const std::string& bytes, size_t piece) {
    ContentSum sum;
    for (size_t at = 0; at < bytes.size(); at += piece)
      sum.Update(std::string_view(bytes).substr(at, piece));
    return sum.Finish();
  };
  std::set<uint64_t> sums = {sum_of(text, 1000)};
  for (const size_t piece : {1u, 31u, 32u, 33u, 64u})
    EXPECT_TRUE(sums.contains(sum_of(text, piece)));
  for (size_t i = 0; i < text.size(); ++i) {
    std::string other = text;
    other[i] = static_cast<char>(other[i] ^ 4);
    EXPECT_TRUE(sums.insert(sum_of(other, 1000)).second) << i;
  }
  EXPECT_TRUE(sums.insert(sum_of(text + std::string(1, '\0'), 1000)).second);
}

}  // namespace
}  // namespace pulga
