// A fixture that imports generated layers with the real unpacker, beside a canary no import may
// touch. Needs root.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "images/importer.h"
#include "tests/support/archive_builder.h"
#include "tests/support/forked_unpacker.h"
#include "tests/support/test_gate.h"

namespace pulga::testing {

class ImageLab : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    canary_ = dir_.path() + "/canary";
    ASSERT_TRUE(MakeDirs(canary_, 0755).ok());
    ASSERT_TRUE(WriteFile(canary_ + "/secret", "untouched", 0640).ok());
    ASSERT_TRUE(MakeDirs(layers_, 0700).ok());
  }
  void TearDown() override {
    if (canary_.empty()) return;
    struct stat st = {};
    ASSERT_EQ(lstat((canary_ + "/secret").c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, S_IFREG | 0640u);
    EXPECT_EQ(st.st_nlink, 1u);
    EXPECT_EQ(st.st_uid, 0u);
    EXPECT_EQ(ReadFile(canary_ + "/secret").value(), "untouched");
    EXPECT_EQ(Names(canary_), std::vector<std::string>{"secret"});
    for (const LayerId& id : report_.layers_created) EXPECT_TRUE(importer_.Remove(id).ok());
    EXPECT_EQ(Names(layers_), std::vector<std::string>{}) << "left behind";
#if !defined(__SANITIZE_ADDRESS__)
    EXPECT_LT(runner_.max_rss_kib(), 16 * 1024);
#endif
  }

  static std::vector<std::string> Names(const std::string& dir) {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
      out.push_back(entry.path().filename().string());
    }
    return out;
  }

  // What came before is removed first.
  ImportReport& ImportArchive(const std::string& bytes) {
    for (const LayerId& id : report_.layers_created) EXPECT_TRUE(importer_.Remove(id).ok());
    auto spool = OpenUnnamedFile(dir_.path()).value();
    EXPECT_TRUE(WriteAll(spool.get(), bytes).ok());
    lseek(spool.get(), 0, SEEK_SET);
    report_ = importer_.Import(std::move(spool), options_);
    return report_;
  }
  ImportReport& Import(const std::vector<std::string>& tars) {
    ImageSpec image;
    for (const std::string& tar : tars) image.layers.push_back({tar});
    return ImportArchive(ArchiveBuilder(ArchiveShape::kLegacy, {image}).Tar());
  }
  // The tree's lines after a successful import of these layers.
  std::string TreeOf(const std::vector<std::string>& tars) {
    const ImportReport& report = Import(tars);
    EXPECT_TRUE(report.status.ok()) << report.status.error().message;
    return report.status.ok() ? Tree() : "";
  }
  std::string Tree() { return ReadAll(importer_.Tree(ChainIds())); }
  std::string Sums() { return ReadAll(importer_.Sums(ChainIds())); }
  std::vector<LayerId> ChainIds() const {
    std::vector<LayerId> ids;
    for (const LayerRecord& layer : report_.images.at(0).layers) ids.push_back(layer.chain_id);
    return ids;
  }
  // The host's path of a file in the topmost layer.
  std::string TopPath(const std::string& name) const {
    return runner_.LayerPath(ChainIds().back()) + "/" + name;
  }
  std::string FailureOf(const std::vector<std::string>& tars) {
    const ImportReport& report = Import(tars);
    EXPECT_FALSE(report.status.ok());
    return report.status.ok() ? "" : report.status.error().message;
  }

  TempDir dir_ = TempDir::Create("/tmp/pulga-images-").value();
  std::string layers_ = dir_.path() + "/layers";
  std::string canary_;
  ForkedUnpacker runner_{layers_, PULGA_UNPACKER};
  ImportLimits limits_;
  Importer importer_{runner_, limits_, dir_.path()};
  ImportOptions options_;
  ImportReport report_;

 private:
  static std::string ReadAll(Result<UniqueFd> file) {
    EXPECT_TRUE(file.ok()) << (file.ok() ? "" : file.error().message);
    return file.ok() ? ReadFd(file->get(), 64 << 20).value() : "";
  }
};

}  // namespace pulga::testing
