// The archives of real images beside the project give exactly the trees two other tools gave.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "base/text.h"
#include "images/importer.h"
#include "tests/support/archive_builder.h"
#include "tests/support/forked_unpacker.h"
#include "tests/support/test_gate.h"

namespace pulga {
namespace {

struct CorpusCase {
  std::string file;
  size_t entries = 0;
  std::string meta;
  std::string content;
};

void PrintTo(const CorpusCase& one, std::ostream* out) { *out << one.file; }

std::string Field(const std::string& line, const std::string& key) {
  const size_t at = line.find(key + "=");
  if (at == std::string::npos) return "";
  const size_t begin = at + key.size() + 1;
  return line.substr(begin, line.find_first_not_of("0123456789abcdef", begin) - begin);
}

std::vector<CorpusCase> Cases() {
  std::vector<CorpusCase> out;
  std::ifstream in(std::string(PULGA_CORPUS_DIR) + "/CORPUS.tsv");
  std::string line;
  while (std::getline(in, line)) {
    const std::string file = line.substr(0, line.find('\t'));
    const auto entries = ParseUint(Field(line, "entries"));
    if (entries) out.push_back({file, *entries, Field(line, "meta"), Field(line, "content")});
  }
  return out;
}

std::string Read(Result<UniqueFd> file) {
  EXPECT_TRUE(file.ok()) << (file.ok() ? "" : file.error().message);
  return file.ok() ? ReadFd(file->get(), 64 << 20).value() : "";
}

class Corpus : public ::testing::TestWithParam<CorpusCase> {};

TEST_P(Corpus, GivesTheGoldenTree) {
  PULGA_NEEDS_ROOT();
  auto dir = TempDir::Create("/tmp/pulga-corpus-").value();
  testing::ForkedUnpacker runner(dir.path(), PULGA_UNPACKER);
  Importer importer(runner, ImportLimits(), dir.path());
  ImportOptions options;
  options.any_platform = AnyPlatform::kStore;
  auto spool = OpenFile(std::string(PULGA_CORPUS_DIR) + "/" + GetParam().file, O_RDONLY);
  ASSERT_TRUE(spool.ok());
  const ImportReport report = importer.Import(std::move(*spool), options);
  ASSERT_TRUE(report.status.ok()) << report.status.error().message;
  ASSERT_EQ(report.images.size(), 1u);
  std::vector<LayerId> layers;
  for (const LayerRecord& layer : report.images[0].layers) layers.push_back(layer.chain_id);
  const std::string tree = Read(importer.Tree(layers));
  EXPECT_EQ(std::count(tree.begin(), tree.end(), '\n'), GetParam().entries);
  EXPECT_EQ(testing::Sha256Of(tree).substr(0, 16), GetParam().meta);
  EXPECT_EQ(testing::Sha256Of(Read(importer.Sums(layers))).substr(0, 16), GetParam().content);
#if !defined(__SANITIZE_ADDRESS__)
  EXPECT_LT(runner.max_rss_kib(), 16 * 1024);
#endif
  for (const LayerId& layer : report.layers_created) EXPECT_TRUE(importer.Remove(layer).ok());
}

INSTANTIATE_TEST_SUITE_P(All, Corpus, ::testing::ValuesIn(Cases()),
                         [](const auto& one) { return "Archive" + one.param.file.substr(0, 2); });

TEST(CorpusList, HoldsTheSixArchives) { EXPECT_GE(Cases().size(), 6u); }

}  // namespace
}  // namespace pulga
