// The history of a daemon that is stopped: read from its data directory, of which nothing changes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/call_history.h"
#include "runtime/policy/trace.h"
#include "runtime/state_schema.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class StoppedHistoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteFile(Path("lock"), "").ok());
    store_ = StateStore::Open(data_.path()).value();
    ImageRecord image;
    image.digest = "sha256:" + std::string(64, 'a');
    image.owner = key_.owner;
    image.platform = {"linux", "riscv64", ""};  // a copy is read anywhere
    image.config.cmd = {"/server"};
    image.config.exposed_ports = {8080};
    ASSERT_TRUE(store_->StoreImages({image}, 1).ok());
    StoredVersion version;
    version.spec_json = R"({"image":"x:1","limits":{"memory":"7Mi"}})";
    version.image_digest = image.digest;
    const auto pending = store_->AddPending(key_, version);
    ASSERT_TRUE(pending.ok()) << pending.error().message;
    ASSERT_TRUE(store_->Activate(pending->id, 10).ok());
    StoredHabit habit{key_, {}};
    habit.learned.at = Learned::WallTime(std::chrono::hours(100));
    habit.learned.minutes = {{6003, 2}};
    habit.learned.costs.NoteStart(Rung::kCold, std::chrono::milliseconds(70));
    ASSERT_TRUE(store_->StoreHabits({habit}).ok());
  }
  std::string Path(const std::string& name) const { return data_.path() + "/" + name; }
  // Its lines, or the error.
  std::string History() const {
    const auto file = HistoryOfStopped(data_.path(), scratch_.path());
    EXPECT_THAT(std::filesystem::directory_iterator(scratch_.path()),
                std::filesystem::directory_iterator())
        << "the copy is gone";
    if (!file.ok()) return file.error().message;
    const std::string text = ReadFd(file->get(), 1 << 20).value();
    EXPECT_TRUE(ParseHistory(text).ok());
    return text.substr(text.find('\n') + 1);
  }
  void Raw(const std::string& sql) {
    store_.reset();
    const auto database = Database::Open(Path("pulga.db")).value();
    const Status done = database->Execute(sql);
    ASSERT_TRUE(done.ok()) << done.error().message;
  }

  const FunctionKey key_{"admin", "openfaas-fn", "f"};
  const std::string line_ = "openfaas-fn/f,caller,7340032,70,100,3*2\n";
  TempDir data_ = TempDir::Create("/tmp/pulga-history-test-").value();
  TempDir scratch_ = TempDir::Create("/tmp/pulga-history-test-").value();
  std::unique_ptr<StateStore> store_;
};

TEST_F(StoppedHistoryTest, IsWhatTheDaemonWouldTell) {
  store_.reset();
  EXPECT_EQ(History(), line_);
  EXPECT_EQ(History(), line_) << "as often as one likes";
}

TEST_F(StoppedHistoryTest, IsReadFromALogThatACrashLeftAndLeavesItThere) {
  const auto before = ReadFile(Path("pulga.db-wal"), 16 << 20).value();
  ASSERT_FALSE(before.empty()) << "the rows are in it";
  EXPECT_EQ(History(), line_);
  EXPECT_EQ(ReadFile(Path("pulga.db-wal"), 16 << 20).value(), before);
}

TEST_F(StoppedHistoryTest, IsRefusedWhileADaemonRunsAndKeepsOneFromStarting) {
  store_.reset();
  const UniqueFd keepers = OpenFile(Path("lock"), O_RDWR).value();
  ASSERT_EQ(flock(keepers.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_THAT(History(), HasSubstr("a pulga daemon is using " + data_.path()));
  ASSERT_EQ(flock(keepers.get(), LOCK_UN), 0);
  EXPECT_EQ(History(), line_);
  ASSERT_EQ(flock(keepers.get(), LOCK_EX | LOCK_NB), 0) << "its lock went with it";
}

TEST_F(StoppedHistoryTest, IsReadFromABackupThatHasNoLock) {
  store_.reset();
  ASSERT_EQ(unlink(Path("lock").c_str()), 0);
  EXPECT_EQ(History(), line_);
  EXPECT_NE(access(Path("lock").c_str(), F_OK), 0) << "none was made";
}

TEST_F(StoppedHistoryTest, OfAnOlderPulgaIsReadWithoutMigratingIt) {
  store_.reset();
  ASSERT_EQ(unlink(Path("pulga.db").c_str()), 0);
  ASSERT_TRUE(Migrate(*Database::Open(Path("pulga.db")).value(), StateMigrations().first(4)).ok());
  const std::string before = ReadFile(Path("pulga.db"), 16 << 20).value();
  EXPECT_EQ(History(), "") << "nobody was called";
  EXPECT_EQ(ReadFile(Path("pulga.db"), 16 << 20).value(), before);
}

TEST_F(StoppedHistoryTest, OfANewerOrForeignDatabaseIsRefused) {
  Raw("PRAGMA user_version = 9999");
  EXPECT_THAT(History(), HasSubstr("written by a newer Pulga (schema 9999"));
  Raw("PRAGMA user_version = 0; PRAGMA application_id = 7");
  EXPECT_THAT(History(), HasSubstr("not one of Pulga's"));
}

TEST_F(StoppedHistoryTest, OfADamagedDatabaseIsRefused) {
  store_.reset();
  std::string bytes = ReadFile(Path("pulga.db"), 16 << 20).value();
  bytes.replace(4096, 8192, 8192, 'x');
  ASSERT_TRUE(WriteFile(Path("pulga.db"), bytes).ok());
  EXPECT_THAT(History(), HasSubstr("is damaged"));
  ASSERT_TRUE(WriteFile(Path("pulga.db"), "no database at all, but a text").ok());
  EXPECT_THAT(History(), HasSubstr("not a database"));
  ASSERT_TRUE(WriteFile(Path("pulga.db"), "").ok());
  EXPECT_THAT(History(), HasSubstr("is empty"));
  ASSERT_EQ(unlink(Path("pulga.db").c_str()), 0);
  EXPECT_THAT(History(), HasSubstr("pulga.db: No such file or directory"));
}

TEST_F(StoppedHistoryTest, OfWhatIsNoDataDirectoryIsRefused) {
  EXPECT_THAT(HistoryOfStopped("/nowhere", scratch_.path()).error().message,
              HasSubstr("/nowhere: No such file or directory"));
  ASSERT_EQ(unlink(Path("lock").c_str()), 0);
  ASSERT_EQ(symlink("/dev/null", Path("lock").c_str()), 0);
  EXPECT_THAT(History(), HasSubstr("lock"));
}

TEST_F(StoppedHistoryTest, CountsWhatHasLostItsImageAsAProgram) {
  Raw("PRAGMA foreign_keys = OFF; DELETE FROM images");
  EXPECT_EQ(History(), "openfaas-fn/f,caller,7340032,250,100,3*2\n");
}

}  // namespace
}  // namespace pulga
