// What was learned about functions, over a restart: books, rows, and who writes them.
#include <gmock/gmock.h>
#include <unistd.h>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/database.h"
#include "runtime/habit_keeper.h"
#include "runtime/policy/trace.h"
#include "runtime/state_schema.h"
#include "tests/support/call_fixture.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class RecallTest : public ::testing::Test {
 protected:
  void CallAfter(Duration idle) {
    clock.Advance(idle);
    book.OnCallBegun(clock.Now());
    book.OnCallEnded(clock.Now());
  }
  FakeClock clock;
  FunctionBook book{clock.Now()};
};

TEST_F(RecallTest, KeepAliveGoesOnAsLearned) {
  for (int i = 0; i < 8; ++i) CallAfter(minutes(15));
  book.costs().NoteStart(Rung::kCold, milliseconds(70));
  const Warmth before = book.Habit(seconds(60));
  const Learned learned = book.Take(clock);
  clock.Advance(minutes(15));
  FunctionBook after(clock.Now());
  after.Recall(learned, clock);
  EXPECT_EQ(after.Habit(seconds(60)).source, Warmth::Source::kHabit);
  EXPECT_EQ(after.Habit(seconds(60)).from, before.from);
  EXPECT_EQ(after.costs().at(Rung::kCold).start, milliseconds(70));
  EXPECT_EQ(clock.Now() - *after.idle_since(), minutes(15)) << "a call is due";
  after.OnCallBegun(clock.Now());
  EXPECT_EQ(after.habit().observations(), 8U) << "this pause counts as the others do";
}

TEST_F(RecallTest, FrequencyFadesWhileNobodyRuns) {
  for (int i = 0; i < 64; ++i) CallAfter(Duration::zero());
  const Learned learned = book.Take(clock);
  clock.Advance(hours(2));
  FunctionBook after(clock.Now());
  after.Recall(learned, clock);
  EXPECT_NEAR(after.Frequency(clock.Now()), 16, 0.1);
}

TEST_F(RecallTest, APauseThatMakesNoSenseIsNobodys) {
  CallAfter(minutes(1));
  Learned learned = book.Take(clock);
  FunctionBook late(clock.Now()), early(clock.Now()), open(clock.Now());
  early.Recall(learned, FakeClock());
  EXPECT_FALSE(early.idle_since()) << "the wall's clock was set back";
  clock.Advance(hours(5));
  late.Recall(learned, clock);
  EXPECT_FALSE(late.idle_since()) << "the board was off";
  learned.idle_since.reset();
  open.Recall(learned, clock);
  EXPECT_FALSE(open.idle_since());
}

TEST_F(RecallTest, TellsMinutesWithCallsOnceAndTheNewestOfTooMany) {
  EXPECT_FALSE(book.changed());
  CallAfter(minutes(3));  // the clock began at 01:00
  CallAfter(seconds(10));
  CallAfter(minutes(2));
  EXPECT_TRUE(book.changed());
  const std::vector<MinuteOfCalls> told = book.Take(clock).minutes;
  ASSERT_THAT(told, SizeIs(2));
  EXPECT_EQ(told[0].minute, 63);
  EXPECT_EQ(told[0].calls, 2U);
  EXPECT_EQ(told[1].minute, 65);
  EXPECT_FALSE(book.changed());
  EXPECT_THAT(book.Take(clock).minutes, IsEmpty());
  for (int i = 0; i < 40; ++i) CallAfter(minutes(1));
  const std::vector<MinuteOfCalls> most = book.Take(clock).minutes;
  ASSERT_THAT(most, SizeIs(16));
  EXPECT_EQ(most.back().minute, 105);
}

class HabitStoreTest : public testing::CallTest {
 protected:
  HabitStoreTest() : dir_(TempDir::Create("/tmp/pulga-habits-").value()) { Open(); }
  ~HabitStoreTest() override {
    keeper_.reset();
    storage_.reset();
    RunFor(Duration::zero());  // what it answered
  }

  // As a restart of the daemon does it.
  void Open() {
    keeper_.reset();
    storage_.reset();
    RunFor(Duration::zero());
    store_.reset();
    store_ = StateStore::Open(dir_.path()).value();
    storage_ = std::make_unique<WorkQueue>("storage", *loop);
    Restart();
    keeper_ = std::make_unique<HabitKeeper>(
        HabitParts{*loop, *storage_, *store_, *dispatcher, dir_.path()}, interval_);
    keeper_->Load(store_->Load().value().habits);
  }
  // The rows that a deploy writes.
  void Deploy(const FunctionKey& function) {
    ImageRecord image;
    image.digest = "sha256:" + std::string(64, 'a');
    image.platform = {"linux", "amd64", ""};
    ASSERT_TRUE(store_->StoreImages({image}, 1).ok());
    StoredVersion version;
    version.spec_json = "{}";
    version.image_digest = image.digest;
    const auto pending = store_->AddPending(function, version);
    ASSERT_TRUE(pending.ok()) << pending.error().message;
    ASSERT_TRUE(store_->Activate(pending->id, 10).ok());
  }
  void Raw(const std::string& sql) {
    keeper_.reset();
    storage_.reset();
    store_.reset();
    auto database = Database::Open(dir_.path() + "/pulga.db");
    ASSERT_TRUE(database.ok());
    const Status done = (*database)->Execute(sql);
    ASSERT_TRUE(done.ok()) << done.error().message;
  }
  Status Store(int64_t unix_minute, uint32_t calls, int64_t now_hour) {
    StoredHabit habit{key, {}};
    habit.learned.at = Learned::WallTime(hours(now_hour));
    habit.learned.minutes = {{unix_minute, calls}};
    return store_->StoreHabits({habit});
  }
  std::vector<std::string> Hours() {
    std::vector<std::string> all;
    EXPECT_TRUE(store_
                    ->ForEachHour([&](const CallHour& hour) {
                      all.push_back(hour.key.name + " " + std::to_string(hour.hour) + ": " +
                                    hour.minutes);
                      return OkStatus();
                    })
                    .ok());
    return all;
  }
  uint32_t ColdStarts() const {
    for (const RungStatus& cost : dispatcher->Activity(key).costs) {
      if (cost.rung == "cold") return cost.starts;
    }
    return 0;
  }

  TempDir dir_;
  Duration interval_ = hours(1);
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<WorkQueue> storage_;
  std::unique_ptr<HabitKeeper> keeper_;
  std::vector<std::string> seen_;
};

TEST_F(HabitStoreTest, WhatACallTaughtIsThereAfterARestart) {
  Deploy(key);
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  keeper_->Save();
  Open();
  Restore(MakeVersion(SandboxMode::kHttp));
  EXPECT_EQ(ColdStarts(), 1U);
}

TEST_F(HabitStoreTest, WhatInstancesGrewToIsThereAfterARestart) {
  const auto ranged = [this] {
    auto version = MakeVersion(SandboxMode::kExec);
    version->spec.least_memory_bytes = 32 << 20;
    version->spec.sandbox.memory_bytes = 256 << 20;
    return version;
  };
  Deploy(key);
  ASSERT_TRUE(Activate(ranged()).ok());
  sandbox->oom = true;
  sandbox->program = [](testing::FakeProgram&) { return testing::Killed(SIGKILL); };
  EXPECT_EQ(Call(Request())->outcome(), "oom-killed");
  ASSERT_TRUE(RunUntil([&] { return !sandbox->sizes.empty(); }));
  keeper_->Save();
  Open();
  Restore(ranged());
  EXPECT_EQ(dispatcher->Activity(key).size.memory_bytes, 64U << 20);
}

TEST_F(HabitStoreTest, WhatInstancesGrewToFitsASmallerBoard) {
  const auto ranged = [this] {
    auto version = MakeVersion(SandboxMode::kExec);
    version->spec.least_memory_bytes = 32 << 20;
    version->spec.sandbox.memory_bytes = 256 << 20;
    return version;
  };
  Deploy(key);
  ASSERT_TRUE(Activate(ranged()).ok());
  sandbox->oom = true;
  sandbox->program = [](testing::FakeProgram&) { return testing::Killed(SIGKILL); };
  EXPECT_EQ(Call(Request())->outcome(), "oom-killed");
  ASSERT_TRUE(RunUntil([&] { return !sandbox->sizes.empty(); }));
  keeper_->Save();
  config.memory_budget_bytes = 48 << 20;
  Open();
  Restore(ranged());
  EXPECT_EQ(dispatcher->Activity(key).size.memory_bytes, 48U << 20);
  EXPECT_NE(Call(Request())->outcome(), "rejected:memory");
}

TEST_F(HabitStoreTest, HabitsOfTheSchemaBeforeSizesAreKept) {
  IdleHistogram pauses;
  pauses.Add(minutes(7));
  keeper_.reset();
  storage_.reset();
  store_.reset();
  const std::string path = dir_.path() + "/pulga.db";
  ASSERT_EQ(unlink(path.c_str()), 0);
  {
    auto old = Database::Open(path);
    ASSERT_TRUE(old.ok());
    ASSERT_TRUE(Migrate(**old, StateMigrations().first(4)).ok());
    const std::string row = "(7, '" + pauses.Serialise() + "', '" + CostBook().Serialise() + "'";
    const Status done = (*old)->Execute(
        "INSERT INTO images (owner, digest, os, architecture, variant, size_bytes, config,"
        " config_json, created_unix_ms, last_used_unix_ms) VALUES"
        " ('admin', 'sha256:a', 'linux', 'amd64', '', 1, '{}', '{}', 1, 1);"
        "INSERT INTO functions VALUES (7, 'admin', 'openfaas-fn', 'f');"
        "INSERT INTO versions (id, function_id, number, state, spec, image_owner, image_digest,"
        " created_unix_ms) VALUES (9, 7, 1, 'active', '{}', 'admin', 'sha256:a', 1);"
        "INSERT INTO habits VALUES " +
        row + ", 0, 0, 1)");
    ASSERT_TRUE(done.ok()) << done.error().message;
  }
  Open();
  const auto habits = store_->Load()->habits;
  ASSERT_THAT(habits, SizeIs(1));
  EXPECT_EQ(habits[0].learned.habit.observations(), 1U);
  EXPECT_FALSE(habits[0].learned.size);
}

TEST_F(HabitStoreTest, WritesByItselfNowAndThen) {
  Deploy(key);
  interval_ = milliseconds(5);
  Open();
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  EXPECT_EQ(Call(Request())->outcome(), "ok");
  ASSERT_TRUE(RunUntil([&] {
    storage_->Run([this] { return Hours(); },
                  [this](std::vector<std::string> rows) { seen_ = std::move(rows); });
    return !seen_.empty();
  }));
}

TEST_F(HabitStoreTest, TheHistoryIsATraceWithWhatWasMeasured) {
  Deploy(key);
  StoredHabit habit{key, {}};
  habit.learned.at = Learned::WallTime(hours(100));
  habit.learned.minutes = {{6003, 2}};
  habit.learned.costs.NoteStart(Rung::kCold, milliseconds(70));
  habit.learned.costs.NoteBytes(Rung::kFrozen, 5 << 20);
  ASSERT_TRUE(store_->StoreHabits({habit}).ok());
  const auto history = [&](const HistoryFacts& facts) {
    std::string text;
    keeper_->History({{key, facts}}, [&](const Result<UniqueFd>& file) {
      text = ReadFd(file->get(), 1 << 20).value();
    });
    EXPECT_TRUE(RunUntil([&] { return !text.empty(); }));
    return text.substr(text.find('\n') + 1);
  };
  const std::string name = key.name_space + "/f";
  EXPECT_EQ(history({1 << 26, true, false}), name + ",caller,5242880,70,100,3*2\n");
  EXPECT_EQ(history({1 << 26, false, true}), name + ",timer,67108864,250,100,3*2\n");
  keeper_->History(
      {}, [&](const Result<UniqueFd>& file) { seen_ = {ReadFd(file->get(), 1 << 20).value()}; });
  ASSERT_TRUE(RunUntil([&] { return !seen_.empty(); }));
  EXPECT_TRUE(ParseHistory(seen_[0])->calls.empty()) << "of those it was told of";
}

TEST_F(HabitStoreTest, GoesWithTheFunction) {
  Deploy(key);
  ASSERT_TRUE(Store(100, 1, 2).ok());
  ASSERT_TRUE(store_->DeleteFunction(key).ok());
  EXPECT_THAT(store_->Load()->habits, IsEmpty());
  EXPECT_THAT(Hours(), IsEmpty());
  ASSERT_TRUE(Store(100, 1, 2).ok()) << "one that is gone by now is passed over";
  Deploy(key);
  EXPECT_THAT(store_->Load()->habits, IsEmpty());
  EXPECT_THAT(Hours(), IsEmpty());
}

TEST_F(HabitStoreTest, NothingRecalledReachesAFunctionThatTakesTheName) {
  Learned learned;
  learned.costs.NoteStart(Rung::kCold, seconds(1));
  dispatcher->Recall(key, learned);  // of a function whose image is lost
  bool gone = false;
  dispatcher->Deactivate(key, [&] { gone = true; });
  ASSERT_TRUE(RunUntil([&] { return gone; }));
  ASSERT_TRUE(Activate(MakeVersion(SandboxMode::kHttp)).ok());
  EXPECT_EQ(ColdStarts(), 0U);
}

TEST_F(HabitStoreTest, DamagedRowsAreSkippedAndWrittenAnew) {
  FunctionKey other = key;
  other.name = "other";
  Deploy(key);
  Deploy(other);
  ASSERT_TRUE(Store(100, 1, 2).ok());
  StoredHabit habit{other, {}};
  habit.learned.habit.Add(minutes(7));
  ASSERT_TRUE(store_->StoreHabits({habit}).ok());
  for (const char* damage :
       {"pauses = 'x'", "pauses = '0;240*1'", "pauses = '0;1*200,2*200'", "costs = 'hot=1*1,1*1'",
        "costs = 'cold=1*1'", "costs = 'cold=99999999999999999*1,0*0'", "calls_lately_milli = -1",
        "saved_unix_ms = 9223372036854775807", "idle_since_unix_ms = -5", "memory_bytes = -1",
        "memory_bytes = 9223372036854775807", "cpu_millis = -1", "cpu_millis = 4294967296"}) {
    Raw(std::string("UPDATE habits SET ") + damage + " WHERE function_id = 1");
    ::testing::internal::CaptureStderr();
    Open();
    const auto state = store_->Load();
    const std::string log = ::testing::internal::GetCapturedStderr();
    ASSERT_TRUE(state.ok()) << damage;
    ASSERT_THAT(state->habits, SizeIs(1)) << damage;
    EXPECT_EQ(state->habits[0].key.name, "other");
    EXPECT_EQ(state->habits[0].learned.habit.observations(), 1U);
    EXPECT_THAT(log, HasSubstr("what was learned about function f is damaged")) << damage;
    ASSERT_TRUE(Store(100, 1, 2).ok());
  }
  Raw("UPDATE call_hours SET minutes = '61*1'");
  Open();
  EXPECT_THAT(Hours(), IsEmpty());
  ASSERT_TRUE(Store(105, 2, 2).ok());
  EXPECT_THAT(Hours(), ElementsAre("f 1: 45*2"));
}

TEST_F(HabitStoreTest, MinutesAddUpWithinTwoWeeks) {
  Deploy(key);
  ASSERT_TRUE(Store(60 * 100 + 3, 2, 100).ok());
  ASSERT_TRUE(Store(60 * 100 + 3, 1, 100).ok());
  ASSERT_TRUE(Store(60 * 100 + 4, 3, 100).ok());
  ASSERT_TRUE(Store(60 * 101, 1, 101).ok());
  EXPECT_THAT(Hours(), ElementsAre("f 100: 3-4*3", "f 101: 0*1"));
  ASSERT_TRUE(Store(60 * 437, 1, 437).ok());
  EXPECT_THAT(Hours(), ElementsAre("f 101: 0*1", "f 437: 0*1"));
}

TEST_F(HabitStoreTest, HoursOfAClockThatWasFarAheadGoOnceADayOfThePastIsThere) {
  Deploy(key);
  ASSERT_TRUE(Store(60 * 900, 1, 900).ok());
  ASSERT_TRUE(Store(60 * 100, 1, 100).ok());
  ASSERT_TRUE(Store(60 * 123, 1, 123).ok());
  EXPECT_THAT(Hours(), SizeIs(3)) << "or is it this clock that is not set?";
  ASSERT_TRUE(Store(60 * 124, 1, 124).ok());
  EXPECT_THAT(Hours(), ElementsAre("f 100: 0*1", "f 123: 0*1", "f 124: 0*1"));
}

TEST_F(HabitStoreTest, TheHistoryEndsNow) {
  Deploy(key);
  ASSERT_TRUE(Store(60 * 2000000, 1, 2000000).ok());
  ASSERT_TRUE(Store(60 * 4000, 1, 4000).ok());
  std::string text;
  keeper_->History({{key, {}}}, [&](const Result<UniqueFd>& file) {
    text = ReadFd(file->get(), 1 << 20).value();
  });
  ASSERT_TRUE(RunUntil([&] { return !text.empty(); }));
  const auto trace = ParseHistory(text);
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  EXPECT_THAT(trace->calls, SizeIs(1));
}

TEST_F(HabitStoreTest, HistoryIsBoundedWhateverTheNumberOfFunctions) {
  Deploy(key);
  Raw("INSERT INTO functions (owner, name_space, name) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL"
      " SELECT i + 1 FROM n WHERE i < 400) SELECT 'admin', 'ns', 'n' || i FROM n;"
      "INSERT INTO call_hours WITH RECURSIVE h(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM h"
      " WHERE i < 1199) SELECT i, id, '0-59*1' FROM h, functions");  // 80,200
  store_ = StateStore::Open(dir_.path()).value();
  ASSERT_TRUE(Store(60 * 1200, 1, 1200).ok());
  const size_t rows = Hours().size();
  EXPECT_LE(rows, 50000U);
  EXPECT_GE(rows, 49000U);
}

}  // namespace
}  // namespace pulga
