// Counting what is refused: the pace of the answers, and reading a spawner's record.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sandbox/isolation.h"
#include "sandbox/refusals.h"
#include "sandbox/seccomp_profile.h"

namespace pulga {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint64_t kMs = 1'000'000;
constexpr uint64_t kStart = 5'000 * kMs;

TEST(AnswerPace, ABurstGoesAtOnceAndThenSoManyASecond) {
  AnswerPace pace;
  uint32_t at_once = 0;
  while (pace.Take(kStart)) ++at_once;
  EXPECT_EQ(at_once, AnswerPace::kBurst);
  uint32_t later = 0;
  for (uint64_t ms = 0; ms <= 2000; ++ms) {
    while (pace.Take(kStart + ms * kMs)) ++later;
  }
  EXPECT_EQ(later, 2 * AnswerPace::kPerSecond);
}

TEST(AnswerPace, SaysHowLongToWaitAndKeepsToIt) {
  AnswerPace pace;
  EXPECT_EQ(pace.WaitMs(kStart), -1);
  while (pace.Take(kStart)) {
  }
  const int wait = pace.WaitMs(kStart);
  EXPECT_GT(wait, 0);
  EXPECT_LE(wait, 20);
  const uint64_t then = kStart + static_cast<uint64_t>(wait) * kMs;
  EXPECT_EQ(pace.WaitMs(then), -1);
  EXPECT_TRUE(pace.Take(then));
}

TEST(AnswerPace, RestGivesTheBurstBackAndNoMore) {
  AnswerPace pace;
  while (pace.Take(kStart)) {
  }
  const uint64_t later = kStart + 3600 * 1000 * kMs;
  uint32_t at_once = 0;
  while (pace.Take(later)) ++at_once;
  EXPECT_EQ(at_once, AnswerPace::kBurst);
}

size_t IndexOf(std::string_view name) {
  size_t index = 0;
  while (RefusedCalls()[index].name != name) ++index;
  return index;
}

TEST(RefusalReader, TellsByNameWhatIsNew) {
  RefusalRecord record = {};
  RefusalReader reader;
  EXPECT_THAT(reader.Take(record), IsEmpty());
  record.counts[IndexOf("mount")] = 3;
  record.total = 3;
  const auto first = reader.Take(record);
  ASSERT_THAT(first, SizeIs(1));
  EXPECT_EQ(first[0].name, "mount");
  EXPECT_EQ(first[0].count, 3U);
  EXPECT_THAT(reader.Take(record), IsEmpty());
  record.counts[IndexOf("mount")] = 4;
  record.counts[IndexOf("socket")] = 1;
  record.total = 5;
  EXPECT_THAT(reader.Take(record), SizeIs(2));
}

TEST(RefusalReader, TakesWrapAroundsButNoCountThatGoesBack) {
  RefusalRecord record = {};
  RefusalReader reader;
  const size_t index = IndexOf("ptrace");
  record.counts[index] = 2;
  record.total = 2;
  EXPECT_EQ(reader.Take(record)[0].count, 2U);
  record.counts[index] = 1;
  record.total = 1;
  EXPECT_THAT(reader.Take(record), IsEmpty());
  record.counts[index] = 3;
  record.total = 3;
  EXPECT_EQ(reader.Take(record)[0].count, 1U) << "what went back is not counted twice";
  record.counts[index] = 0x40000000;
  record.total = 4;
  (void)reader.Take(record);
  record.counts[index] = 0x80000000;
  record.total = 5;
  (void)reader.Take(record);
  record.counts[index] = 0xc0000000;
  record.total = 6;
  (void)reader.Take(record);
  record.counts[index] = 1;
  record.total = 7;
  EXPECT_EQ(reader.Take(record)[0].count, 0x40000001U) << "it went round";
}

TEST(RefusalLayer, SaysWhyNothingIsCounted) {
  EXPECT_EQ(RefusalLayer(0).state, FeatureState::kPresent);
  EXPECT_EQ(RefusalLayer(EINVAL).state, FeatureState::kAbsent);
  EXPECT_THAT(RefusalLayer(EINVAL).detail, ::testing::HasSubstr("Linux 5.0"));
  EXPECT_THAT(RefusalLayer(EBUSY).detail, ::testing::HasSubstr("listens"));
}

}  // namespace
}  // namespace pulga
