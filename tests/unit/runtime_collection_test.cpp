// Which images go when the disk fills.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/image_collection.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

LayerId Layer(uint8_t n) {
  LayerId id;
  id.bytes.fill(n);
  return id;
}

struct Given {
  const char* digest;
  int64_t last_used;
  std::vector<uint8_t> layers;  // of n bytes each
  bool in_use = false;
};

std::vector<CollectionCandidate> Images(const std::vector<Given>& given) {
  std::vector<CollectionCandidate> out;
  for (const Given& image : given) {
    CollectionCandidate candidate;
    candidate.digest = image.digest;
    candidate.last_used_unix_ms = image.last_used;
    candidate.in_use = image.in_use;
    for (const uint8_t n : image.layers) candidate.layers[Layer(n)] = n;
    out.push_back(std::move(candidate));
  }
  return out;
}

std::vector<std::string> Collected(const DiskUse& disk, const std::vector<Given>& images) {
  return PlanCollection(disk, CollectionMarks{85, 75}, {Images(images), {}}).digests;
}

TEST(ImageCollection, LeavesEverythingBelowTheHighMark) {
  EXPECT_THAT(Collected({85, 15}, {{"a", 1, {50}}}), IsEmpty());
  EXPECT_THAT(Collected({86, 14}, {{"a", 1, {50}}}), ElementsAre("a"));
}

TEST(ImageCollection, GivesUpTheLongestUnusedFirstAndStopsAtTheLowMark) {
  const std::vector<Given> images = {{"new", 9, {20}}, {"old", 1, {11}}, {"older", 0, {10}}};
  EXPECT_THAT(Collected({90, 10}, images), ElementsAre("older", "old"));
  EXPECT_THAT(Collected({97, 3}, images), ElementsAre("older", "old", "new"));
}

TEST(ImageCollection, NeverTouchesWhatIsInUse) {
  EXPECT_THAT(Collected({99, 1}, {{"used", 0, {60}, true}, {"free", 5, {1}}}), ElementsAre("free"));
}

TEST(ImageCollection, CountsALayerOnlyOnceNobodyElseHasIt) {
  // 15 are wanted. "a" alone frees 1, as "b" has the rest; together they free 21.
  const std::vector<Given> images = {{"a", 1, {20, 1}}, {"b", 2, {20}}, {"c", 3, {30}}};
  const auto plan = PlanCollection({90, 10}, CollectionMarks{85, 75}, {Images(images), {}});
  EXPECT_THAT(plan.digests, ElementsAre("a", "b"));
  EXPECT_EQ(plan.freed_bytes, 21u);
}

TEST(ImageCollection, ALayerOfAnImageInUseFreesNothing) {
  const auto plan = PlanCollection({90, 10}, CollectionMarks{85, 75},
                                   {Images({{"a", 1, {20}}, {"used", 2, {20}, true}}), {}});
  EXPECT_EQ(plan.freed_bytes, 0u);
}

TEST(ImageCollection, SaysWhy) {
  const auto plan =
      PlanCollection({90, 10}, CollectionMarks{85, 75}, {Images({{"a", 1, {20}}}), {}});
  EXPECT_THAT(plan.reason, HasSubstr("the disk is 90 % full, above the mark of 85 %"));
  EXPECT_THAT(plan.reason, HasSubstr("1 unused images"));
  const auto none =
      PlanCollection({90, 10}, CollectionMarks{85, 75}, {Images({{"a", 1, {20}, true}}), {}});
  EXPECT_THAT(none.reason, HasSubstr("every image is in use, or was within the last 10 minutes"));
}

TEST(ImageCollection, UploadsThatStoppedGoBeforeAnyImage) {
  const std::vector<UploadCandidate> uploads = {
      {"new", false, 9, 10}, {"sending", true, 0, 50}, {"old", false, 1, 10}};
  const CollectionMarks marks{85, 75};
  const auto some = PlanCollection({86, 14}, marks, {Images({{"a", 0, {20}}}), uploads});
  EXPECT_THAT(some.uploads, ElementsAre("old", "new"));
  EXPECT_THAT(some.digests, IsEmpty());
  EXPECT_EQ(some.freed_bytes, 20u);
  EXPECT_THAT(some.reason, HasSubstr("2 uploads that stopped half way and 0 unused images"));
  const auto all = PlanCollection({97, 3}, marks, {Images({{"a", 0, {20}}}), uploads});
  EXPECT_THAT(all.uploads, ElementsAre("old", "new"));
  EXPECT_THAT(all.digests, ElementsAre("a"));
  EXPECT_THAT(PlanCollection({85, 15}, marks, {{}, uploads}).uploads, IsEmpty());
}

TEST(ImageCollection, AHundredPercentMeansNever) {
  const auto plan =
      PlanCollection({100, 0}, CollectionMarks{100, 75}, {Images({{"a", 1, {20}}}), {}});
  EXPECT_THAT(plan.digests, IsEmpty());
  EXPECT_EQ(plan.reason, "");
}

TEST(ImageCollection, HoldsOnDisksOfAnySize) {
  EXPECT_THAT(Collected({0, 0}, {{"a", 1, {20}}}), IsEmpty());
  const uint64_t huge = uint64_t{1} << 62;
  EXPECT_THAT(Collected({huge - 1000, 1000}, {{"a", 1, {20}}}), ElementsAre("a"));
  EXPECT_EQ((DiskUse{huge - 1000, 1000}.percent()), 100u);
}

}  // namespace
}  // namespace pulga
