// Who is next where memory is short.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "runtime/policy/turns.h"

namespace pulga {
namespace {

using std::chrono::seconds;

const TimePoint kNow = TimePoint(seconds(1000));

Claim ClaimOf(uint64_t id, uint64_t pass = 0, int since = 0, uint64_t bytes = 1) {
  Claim claim;
  claim.id = id;
  claim.pass = pass;
  claim.since = kNow + seconds(since);
  claim.bytes = bytes;
  return claim;
}

// Functions that always want more: each start is given to the one that is next.
std::vector<uint64_t> InTurn(Turns& turns) {
  std::vector<uint64_t> ids;
  while (!turns.empty()) {
    ids.push_back(turns.First()->id);
    turns.Remove(ids.back());
  }
  return ids;
}

class Rivals {
 public:
  explicit Rivals(std::map<uint64_t, uint32_t> weights) : weights_(std::move(weights)) {
    for (const auto& [id, weight] : weights_) Want(id);
  }
  void Want(uint64_t id) {
    turns.Put(ClaimOf(id, turns.PassFrom(passes_[id]), static_cast<int>(starts_)));
  }
  uint64_t Serve() {
    const Claim next = *turns.First();
    turns.Remove(next.id);
    passes_[next.id] = turns.Started(next.pass, {Taking::kAll / 8, weights_[next.id]});
    ++starts_;
    return next.id;
  }
  std::map<uint64_t, uint32_t> Share(uint32_t starts) {
    std::map<uint64_t, uint32_t> share;
    for (uint32_t i = 0; i < starts; ++i) {
      const uint64_t id = Serve();
      ++share[id];
      Want(id);
    }
    return share;
  }
  Turns turns;

 private:
  std::map<uint64_t, uint32_t> weights_;
  std::map<uint64_t, uint64_t> passes_;
  uint32_t starts_ = 0;
};

TEST(Turns, SharesFollowTheWeightsToAStart) {
  auto share = Rivals({{1, 100}, {2, 200}, {3, 1000}, {4, 50}}).Share(1350);
  EXPECT_NEAR(share[1], 100, 1);
  EXPECT_NEAR(share[2], 200, 1);
  EXPECT_NEAR(share[3], 1000, 1);
  EXPECT_NEAR(share[4], 50, 1);
}

TEST(Turns, OfEqualsTheOldestCallIsNext) {
  Turns turns;
  turns.Put(ClaimOf(1, 0, 3));
  turns.Put(ClaimOf(2, 0, 1));
  turns.Put(ClaimOf(3, 0, 2));
  EXPECT_EQ(InTurn(turns), (std::vector<uint64_t>{2, 3, 1}));
}

TEST(Turns, WhoWasAwayIsNextAndSavedNothingUp) {
  Rivals rivals({{1, 100}, {2, 100}});
  rivals.turns.Remove(2);
  rivals.Share(1000);
  rivals.Want(2);
  auto share = rivals.Share(10);
  EXPECT_EQ(share[1], 5U);
  EXPECT_EQ(share[2], 5U);
}

// A light one got ahead of its turn because only it was small enough.
TEST(Turns, AStartOutOfTurnSendsNoNewcomerBack) {
  Turns turns;
  turns.Put(ClaimOf(1, 0));
  const uint64_t light = turns.Started(turns.Started(0, {10, 1}), {10, 1});
  EXPECT_EQ(turns.PassFrom(0), 0U) << "1 is still where the turn is";
  EXPECT_EQ(light, 20'000U);
}

TEST(Turns, AMinimumIsBehindAllCalls) {
  Turns turns;
  Claim minimum = ClaimOf(1, 0);
  minimum.what = Claim::For::kMinimum;
  turns.Put(minimum);
  turns.Put(ClaimOf(2, 100));
  EXPECT_EQ(InTurn(turns), (std::vector<uint64_t>{2, 1}));
}

// Beside a plain list that is sorted each time.
class TurnsAndAList : public ::testing::Test {
 protected:
  void Change() {
    const uint64_t id = random() % 40;
    std::erase_if(list, [id](const Claim& claim) { return claim.id == id; });
    if (random() % 3 == 0) return turns.Remove(id);
    Claim claim = ClaimOf(id, random() % 5, static_cast<int>(random() % 5), random() % 50);
    if (random() % 4 == 0) claim.what = Claim::For::kMinimum;
    if (random() % 3 == 0) claim.place = Claim::Place::kHas;
    if (random() % 8 == 0) claim.closes_at = kNow + seconds(random() % 9);
    turns.Put(claim);
    list.push_back(claim);
    std::sort(list.begin(), list.end(), Turns::IsAhead);
  }
  void CheckFits() {
    const Turns::Amount free{random() % 60, random() % 2};
    const auto fits = std::find_if(list.begin(), list.end(), [&](const Claim& claim) {
      const bool place = claim.place == Claim::Place::kHas || free.places > 0;
      return place && claim.bytes <= free.bytes;
    });
    const Claim* found = turns.FirstThatFits(free);
    ASSERT_EQ(found == nullptr, fits == list.end());
    if (found == nullptr) return;
    ASSERT_EQ(found->id, fits->id);
  }
  void CheckBeyond() {
    const Turns::Amount most{random() % 1000, random() % 30};
    Turns::Amount sum;
    const auto beyond = std::find_if(list.begin(), list.end(), [&](const Claim& claim) {
      sum.bytes += claim.bytes;
      sum.places += claim.place == Claim::Place::kNeeds ? 1 : 0;
      return sum.bytes > most.bytes || sum.places > most.places;
    });
    const Claim* found = turns.FirstBeyond(most);
    ASSERT_EQ(found == nullptr, beyond == list.end());
    if (found == nullptr) return;
    ASSERT_EQ(found->id, beyond->id);
  }
  void CheckAhead() {
    const Claim claim = ClaimOf(random() % 40, random() % 5, static_cast<int>(random() % 5));
    const TimePoint now = kNow + seconds(random() % 9);
    Turns::Amount ahead;
    bool closed = false;
    for (const Claim& other : list) {
      if (!Turns::IsAhead(other, claim)) continue;
      ahead.bytes += other.bytes;
      ahead.places += other.place == Claim::Place::kNeeds ? 1 : 0;
      closed = closed || other.closes_at <= now;
    }
    ASSERT_EQ(turns.WantedAhead(claim).bytes, ahead.bytes);
    ASSERT_EQ(turns.WantedAhead(claim).places, ahead.places);
    ASSERT_EQ(turns.IsClosedTo(claim, now), closed);
    const auto closes = std::find_if(list.begin(), list.end(),
                                     [&](const Claim& other) { return other.closes_at <= now; });
    const Claim* found = turns.FirstThatCloses(now);
    ASSERT_EQ(found == nullptr, closes == list.end());
    if (found == nullptr) return;
    ASSERT_EQ(found->id, closes->id);
  }

  std::mt19937_64 random{7};
  Turns turns;
  std::vector<Claim> list;
};

TEST_F(TurnsAndAList, SayTheSame) {
  for (int i = 0; i < 20000; ++i) {
    Change();
    ASSERT_EQ(turns.size(), list.size());
    const uint64_t first = list.empty() ? 0 : list.front().id;
    ASSERT_EQ(turns.First() == nullptr ? 0 : turns.First()->id, first);
    ASSERT_NO_FATAL_FAILURE(CheckFits());
    ASSERT_NO_FATAL_FAILURE(CheckBeyond());
    ASSERT_NO_FATAL_FAILURE(CheckAhead());
  }
}

TEST(Turns, AQuestionGoesDownSomeDozensOfTenThousandClaims) {
  Turns turns;
  for (uint64_t id = 0; id < 10000; ++id) turns.Put(ClaimOf(id, id));
  for (uint64_t id = 0; id < 10000; id += 2) turns.Remove(id);
  EXPECT_LT(turns.Depth(), 50U);
}

}  // namespace
}  // namespace pulga
