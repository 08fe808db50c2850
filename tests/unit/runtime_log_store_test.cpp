// Functions' logs on disk: the lines' form, the two files that take turns, batches, and what a
// crash leaves.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/function_log.h"
#include "runtime/log_store.h"

namespace pulga {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const FunctionKey kKey{"admin", "openfaas-fn", "f"};

LogLine Line(const std::string& text, int64_t unix_ms = 1000) {
  return {unix_ms, 3, "call-1", "stderr", text, "3-0"};
}

std::vector<std::string> TextsOf(const std::deque<LogLine>& lines) {
  std::vector<std::string> texts;
  for (const LogLine& line : lines) texts.push_back(line.text);
  return texts;
}

TEST(LogLines, AreReadAsTheyWereWritten) {
  for (const std::string& text : {std::string(), std::string("two words  "),
                                  std::string("\xff\0x", 3), std::string(4096, 'x')}) {
    const std::string written = FormatLogLine(Line(text));
    ASSERT_TRUE(written.ends_with('\n'));
    const auto read = ParseLogLine(written.substr(0, written.size() - 1));
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->text, text);
    EXPECT_EQ(read->unix_ms, 1000);
    EXPECT_EQ(read->version, 3U);
    EXPECT_EQ(read->call_id + " " + read->stream + " " + read->instance, "call-1 stderr 3-0");
  }
}

TEST(LogLines, StayOneLineWhateverIsInThem) {
  const std::string written = FormatLogLine({5, 1, "id of\ntwo", "", "a\nb", ""});
  EXPECT_EQ(written, "5 1 - - id_of_two a b\n");
  for (const char* bad : {"", "1", "1 1 a b c", "x 1 a b c text", "1 -1 a b c text", " 1 a b c d e",
                          "1 99999999999 a b c text"}) {
    EXPECT_FALSE(ParseLogLine(bad)) << bad;
  }
}

TEST(LogLines, AreChosenByTimeInstanceAndNumber) {
  std::deque<LogLine> lines = {Line("a", 1), Line("b", 2), Line("c", 3)};
  lines[1].instance = "3-1";
  const auto chosen = [&](const LogQuery& query) { return TextsOf(SelectLines(lines, query)); };
  EXPECT_THAT(chosen({}), ElementsAre("a", "b", "c"));
  EXPECT_THAT(chosen({2, {}, ""}), ElementsAre("b", "c"));
  EXPECT_THAT(chosen({0, {}, ""}), IsEmpty());
  EXPECT_THAT(chosen({{}, 2, ""}), ElementsAre("b", "c"));
  EXPECT_THAT(chosen({1, 1, "3-0"}), ElementsAre("c"));
}

class LogFilesTest : public ::testing::Test {
 protected:
  void Append(const std::string& text) {
    ASSERT_TRUE(files_.Append(kKey, FormatLogLine(Line(text))).ok());
  }
  std::vector<std::string> Texts() const { return TextsOf(files_.Read(kKey, {})); }
  std::string PathOf(const char* end) const {
    return dir_.path() + "/logs/admin.openfaas-fn.f" + end;
  }

  TempDir dir_{TempDir::Create("/tmp/pulga-log-test-").value()};
  LogFiles files_{dir_.path(), 2000};
};

TEST_F(LogFilesTest, KeepTheNewestWithinTheirBound) {
  EXPECT_THAT(Texts(), IsEmpty());
  for (int i = 0; i < 300; ++i) Append("line " + std::to_string(i));
  uint64_t bytes = 0;
  for (const auto& file : fs::directory_iterator(dir_.path() + "/logs")) bytes += file.file_size();
  EXPECT_LE(bytes, 2000U);
  const auto texts = Texts();
  EXPECT_GT(texts.size(), 1000U / 50);
  EXPECT_EQ(texts.back(), "line 299");
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(texts[i], "line " + std::to_string(300 - texts.size() + i)) << "a gap";
  }
}

TEST_F(LogFilesTest, AreNotHiddenByABoundThatWasLowered) {
  LogFiles large(dir_.path(), 8 << 20);
  const std::string much(1 << 19, 'x');
  for (int i = 0; i < 12; ++i) {
    ASSERT_TRUE(large.Append(kKey, FormatLogLine(Line(std::to_string(i) + much))).ok());
  }
  const auto texts = Texts();
  ASSERT_EQ(texts.size(), 2U)
      << "the newest that the bound of now allows, and what a writer may add";
  EXPECT_EQ(texts[0], "10" + much);
  EXPECT_EQ(texts[1], "11" + much);
}

TEST_F(LogFilesTest, PassOverWhatACrashCut) {
  Append("whole");
  const std::string path = PathOf(".log");
  ASSERT_TRUE(WriteFile(path, ReadFile(path).value() + "1000 3 stderr 3-0 call").ok());
  EXPECT_THAT(Texts(), ElementsAre("whole"));
  Append("next");
  EXPECT_THAT(Texts(), ElementsAre("whole", "next"));
  ASSERT_TRUE(WriteFile(path, std::string(500, '\0') + "\n" + FormatLogLine(Line("after"))).ok());
  EXPECT_THAT(Texts(), ElementsAre("after"));
}

TEST_F(LogFilesTest, GoWithTheirFunctionAndWhenNobodyHasThem) {
  const FunctionKey other{"admin", "openfaas-fn", "other"};
  Append("x");
  ASSERT_TRUE(files_.Append(other, FormatLogLine(Line("y"))).ok());
  files_.Sweep({kKey});
  EXPECT_THAT(Texts(), ElementsAre("x"));
  EXPECT_THAT(files_.Read(other, {}), IsEmpty());
  files_.Remove(kKey);
  EXPECT_TRUE(fs::is_empty(dir_.path() + "/logs"));
}

TEST_F(LogFilesTest, AreForNobodyElse) {
  Append("x");
  EXPECT_EQ(fs::status(dir_.path() + "/logs").permissions(), fs::perms(0700));
  EXPECT_EQ(fs::status(PathOf(".log")).permissions(), fs::perms(0600));
}

class LogStoreTest : public ::testing::Test {
 protected:
  LogStoreTest() : loop_(EventLoop::Create().value()) { Restart(); }
  ~LogStoreTest() override { Stop(); }
  void Stop() {
    logs_.SetStore(nullptr);
    store_.reset();
    storage_.reset();
  }
  void Restart() {
    Stop();
    storage_ = std::make_unique<WorkQueue>("storage", *loop_);
    store_ = std::make_unique<LogStore>(*loop_, *storage_, LogFiles(dir_.path(), 1 << 20));
    logs_.SetStore(store_.get());
  }
  std::vector<std::string> Read(const LogQuery& query = {}) {
    std::optional<std::deque<LogLine>> lines;
    logs_.Read(kKey, query, [&](std::deque<LogLine> read) { lines = std::move(read); });
    while (!lines) loop_->RunOnce(std::chrono::seconds(1));
    return TextsOf(*lines);
  }
  bool OnDisk() const { return fs::exists(dir_.path() + "/logs"); }

  TempDir dir_{TempDir::Create("/tmp/pulga-log-test-").value()};
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<WorkQueue> storage_;
  std::unique_ptr<LogStore> store_;
  FunctionLogs logs_;
};

TEST_F(LogStoreTest, WritesInBatchesAndStillTellsEverythingAtOnce) {
  for (int i = 0; i < 50; ++i) logs_.Append(kKey, Line(std::to_string(i)));
  EXPECT_FALSE(OnDisk()) << "no write for each line";
  EXPECT_EQ(Read().size(), 50U);
  logs_.Append(kKey, Line("50"));
  EXPECT_THAT(Read({2, {}, ""}), ElementsAre("49", "50"));
}

TEST_F(LogStoreTest, OutlivesTheDaemonAndGoesWithItsFunction) {
  logs_.Append(kKey, Line("before"));
  Restart();
  logs_.Append(kKey, Line("after"));
  EXPECT_THAT(Read(), ElementsAre("before", "after"));
  logs_.Append(kKey, Line("never read"));
  logs_.Forget(kKey);
  EXPECT_THAT(Read(), IsEmpty());
}

TEST_F(LogStoreTest, DropsLinesRatherThanMemoryWhenTheDiskIsSlow) {
  Handoff<bool> go;
  storage_->Run([&go] { go.Wait(); });
  for (int i = 0; i < 3000; ++i) logs_.Append(kKey, Line(std::string(4000, 'x')));
  go.Set(true);
  const size_t kept = Read().size();
  EXPECT_GT(kept, 100U) << "the ring is full";
  EXPECT_LE(kept, (1U << 20) / 4000);
  Read();  // by now it has heard that all is written
  logs_.Append(kKey, Line("again"));
  EXPECT_EQ(Read().back(), "again");
}

TEST_F(LogStoreTest, LosesNothingWhenReadAndFollowedAtOnce) {
  logs_.Append(kKey, Line("1"));
  std::vector<std::string> followed;
  const auto id = logs_.Follow(kKey, [&](const LogLine& line) { followed.push_back(line.text); });
  std::optional<std::deque<LogLine>> lines;
  logs_.Read(kKey, {}, [&](std::deque<LogLine> read) { lines = std::move(read); });
  logs_.Append(kKey, Line("2"));
  while (!lines) loop_->RunOnce(std::chrono::seconds(1));
  EXPECT_THAT(TextsOf(*lines), ElementsAre("1"));
  EXPECT_THAT(followed, ElementsAre("2"));
  logs_.Unfollow(id);
}

}  // namespace
}  // namespace pulga
