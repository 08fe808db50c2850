// Which ids there are, how a user gets them, and what its daemon sees: plans, without a kernel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sandbox/daemon_start.h"
#include "sandbox/id_ranges.h"
#include "sandbox/rootless.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr const char* kWholeHost = "         0          0 4294967295\n";

uint64_t IdsOfImages(const HostIds& ids) {
  uint64_t sum = 0;
  for (const IdExtent& extent : ids.owner) sum += extent.count;
  return sum;
}

TEST(HostIds, OnAHostAreRangesOfTheirOwn) {
  const auto ids = PlanHostIds(kWholeHost, kWholeHost);
  ASSERT_TRUE(ids.ok());
  EXPECT_TRUE(ids->on_host);
  EXPECT_EQ(ids->OwnerRoot(), kOwnerIdBase);
  EXPECT_EQ(ids->SpawnerHostId(0x10002), kSpawnerIdBase + 2);
  EXPECT_EQ(ids->daemon, kDaemonFallbackId);
  EXPECT_TRUE(IsHostIdMap(kWholeHost));
}

TEST(HostIds, OfAUserLieWithinWhatIsMappedAndDoNotOverlap) {
  for (const uint64_t count : {64U, 5000U, 65536U, 70000U, 1000000U}) {
    const std::string map = "0 1000 1\n1 100000 " + std::to_string(count) + "\n";
    const auto ids = PlanHostIds(map, map);
    ASSERT_TRUE(ids.ok());
    EXPECT_FALSE(ids->on_host || ids->IsSingle()) << count;
    EXPECT_GT(ids->daemon, 0U) << "0 is the user";
    EXPECT_EQ(ids->fetcher, ids->daemon + 1);
    EXPECT_EQ(ids->spawner_base, ids->fetcher + 1);
    EXPECT_EQ(ids->OwnerRoot(), ids->spawner_base + ids->spawners);
    const IdExtent& last = ids->owner.back();
    EXPECT_LE(uint64_t{last.host} + last.count, count + 1) << count;
    EXPECT_EQ(IdsOfImages(*ids), std::min<uint64_t>(kMappedIds, count + 1 - ids->OwnerRoot()));
    EXPECT_LT(ids->SpawnerHostId(UINT64_MAX), ids->OwnerRoot());
  }
}

TEST(HostIds, FavouritesOfImagesAreMappedWhereNotAllAre) {
  const auto ids = PlanHostIds("0 1000 1\n1 100000 65536\n", "0 1000 1\n1 100000 65536\n");
  for (const uint32_t id : {0U, 1U, 1000U, 33333U, 65500U, 65532U, 65533U, 65534U}) {
    EXPECT_TRUE(ids->Maps(id)) << id;
  }
  EXPECT_FALSE(ids->Maps(65535));
}

TEST(HostIds, WithoutRangesOneIdIsForAll) {
  for (const char* gids : {"0 1000 1\n", "0 1000 1\n1 100000 65536\n"}) {
    const auto ids = PlanHostIds("0 1000 1\n", gids);
    EXPECT_TRUE(ids->IsSingle());
    EXPECT_EQ(ids->SpawnerHostId(7), 0U);
    EXPECT_EQ(ids->SpawnerInnerId(), 0U);
    EXPECT_FALSE(ids->Maps(1));
  }
  EXPECT_FALSE(PlanHostIds("5 1000 1\n", "0 1000 1\n").ok());
}

TEST(SubIds, AreThoseOfTheUserByNameOrNumber) {
  const char* text = "root:1:5\nann:100000:65536\nbad:x:1\nann:7\n1000:300000:10\nann:0:9\n";
  const auto ranges = ParseSubIds(text, "ann", 1000);
  ASSERT_EQ(ranges.size(), 2U);
  EXPECT_EQ(ranges[0].first, 100000U);
  EXPECT_EQ(ranges[1].count, 10U);
  EXPECT_THAT(ParseSubIds(text, "bob", 1001), IsEmpty());
}

TEST(SubIds, FollowTheUsersOwnId) {
  EXPECT_THAT(SubIdArguments({{100000, 65536}, {300000, 10}}, 1000),
              ElementsAre("0", "1000", "1", "1", "100000", "65536", "65537", "300000", "10"));
}

TEST(DaemonView, ShowsOnlyWhatIsNamedOfAClosedDirectory) {
  const auto closed = [](const std::string& dir) {
    return dir == "/h/ann" || dir == "/h/ann/.local" || dir == "/secret";
  };
  const auto view = PlanDaemonView(
      {"/h/ann/.local/share/pulga", "/etc/pulga.conf", "/h/ann/conf", "/secret/ca.pem"}, closed);
  EXPECT_THAT(view.covered, ElementsAre("/h/ann", "/secret"));
  EXPECT_THAT(view.shown,
              ElementsAre("/h/ann/.local/share/pulga", "/h/ann/conf", "/secret/ca.pem"));
}

TEST(DaemonView, CoversNothingWhereAllIsOpen) {
  const auto view = PlanDaemonView({"/srv/data"}, [](const std::string&) { return false; });
  EXPECT_THAT(view.covered, IsEmpty());
  EXPECT_THAT(view.shown, IsEmpty());
}

}  // namespace
}  // namespace pulga
