// What starts and instances cost, as seen lately.
#include <gtest/gtest.h>

#include "runtime/policy/cost_book.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kMiB = 1 << 20;

TEST(CostBook, AssumesCostsBeforeTheFirstObservation) {
  const Ladder server = CostBook().MakeLadder(CostBook::Kind::kServer, 64 * kMiB);
  EXPECT_EQ(server[Rung::kCold].start, milliseconds(260));
  EXPECT_EQ(server[Rung::kFrozen].bytes, 64 * kMiB) << "it may hold all of it";
  EXPECT_TRUE(server[Rung::kCold].offered);
  EXPECT_FALSE(server[Rung::kFrozen].offered) << "the caller knows";
  const Ladder program = CostBook().MakeLadder(CostBook::Kind::kProgram, 64 * kMiB);
  EXPECT_EQ(program[Rung::kParked].bytes, kParkedInstanceBytes);
  EXPECT_LT(program[Rung::kParked].start, program[Rung::kCold].start);
}

TEST(CostBook, TakesTheFirstObservationWholeAndTheNextByAQuarter) {
  CostBook book;
  book.NoteStart(Rung::kCold, milliseconds(100));
  EXPECT_EQ(book.at(Rung::kCold).start, milliseconds(100));
  book.NoteStart(Rung::kCold, milliseconds(200));
  EXPECT_EQ(book.at(Rung::kCold).start, milliseconds(125));
  EXPECT_EQ(book.at(Rung::kCold).starts, 2U);
  book.NoteBytes(Rung::kFrozen, 40 * kMiB);
  book.NoteBytes(Rung::kFrozen, 20 * kMiB);
  EXPECT_EQ(book.at(Rung::kFrozen).bytes, 35 * kMiB);
  const Ladder ladder = book.MakeLadder(CostBook::Kind::kServer, 64 * kMiB);
  EXPECT_EQ(ladder[Rung::kCold].start, milliseconds(125));
  EXPECT_EQ(ladder[Rung::kFrozen].bytes, 35 * kMiB);
}

TEST(CostBook, NoAssumptionRaisesWhatWasSeen) {
  CostBook book;
  book.NoteStart(Rung::kCold, std::chrono::microseconds(900));
  for (const auto kind : {CostBook::Kind::kServer, CostBook::Kind::kProgram}) {
    const Ladder ladder = book.MakeLadder(kind, 64 * kMiB);
    EXPECT_EQ(ladder[Rung::kCold].start, std::chrono::microseconds(900));
    EXPECT_LE(ladder[Rung::kParked].start, std::chrono::microseconds(900));
    EXPECT_LE(ladder[Rung::kFrozen].start, ladder[Rung::kReclaimed].start);
  }
  book.NoteStart(Rung::kFrozen, milliseconds(3));
  EXPECT_EQ(book.MakeLadder(CostBook::Kind::kServer, 64 * kMiB)[Rung::kCold].start, milliseconds(3))
      << "what was seen above does";
}

TEST(CostBook, MakesALadderThatOnlyGoesDown) {
  CostBook book;
  book.NoteBytes(Rung::kFrozen, 90 * kMiB);  // more than the limit: read while it was charged
  book.NoteBytes(Rung::kReclaimed, 95 * kMiB);
  book.NoteStart(Rung::kFrozen, milliseconds(900));
  const Ladder ladder = book.MakeLadder(CostBook::Kind::kServer, 64 * kMiB);
  for (size_t i = 1; i < kRungs; ++i) {
    EXPECT_LE(ladder.rungs[i - 1].bytes, ladder.rungs[i].bytes) << i;
    EXPECT_GE(ladder.rungs[i - 1].start, ladder.rungs[i].start) << i;
  }
}

TEST(CostBook, IsReadBackAsItWasWritten) {
  EXPECT_EQ(CostBook().Serialise(), "");
  CostBook book;
  book.NoteStart(Rung::kCold, milliseconds(100));
  book.NoteStart(Rung::kCold, milliseconds(100));
  book.NoteBytes(Rung::kFrozen, 40 * kMiB);
  const std::string text = book.Serialise();
  EXPECT_EQ(text, "cold=100000000*2,0*0 frozen=0*0,41943040*1");
  const auto read = CostBook::Parse(text);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->Serialise(), text);
  EXPECT_EQ(read->at(Rung::kFrozen).bytes, 40 * kMiB);
  for (const char* bad :
       {" ", "cold", "cold=1*1", "mild=1*1,1*1", "cold=1*1,1*1,1*1", "cold=-1*1,1*1", "cold=1*1,1",
        "cold=1*1,999999999999999999*1", "cold=1*4294967296,1*1"}) {
    EXPECT_FALSE(CostBook::Parse(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace pulga
