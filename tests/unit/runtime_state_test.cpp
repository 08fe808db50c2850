// The mirrors of the rows in memory, the sweep's plan, logs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/function_log.h"
#include "runtime/function_registry.h"
#include "runtime/image_catalog.h"
#include "runtime/op_queue.h"
#include "runtime/recovery.h"
#include "tests/support/layers.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Layer;
using ::testing::SizeIs;

std::string Digest(const std::string& start) {
  return "sha256:" + start + std::string(64 - start.size(), '0');
}

ImageRecord Image(const std::string& digest, std::vector<uint8_t> layers,
                  std::vector<std::string> refs) {
  ImageRecord image;
  image.digest = digest;
  image.refs = std::move(refs);
  for (const uint8_t n : layers) image.layers.push_back({"", Layer(n), n, false});
  return image;
}

const std::string kHello = "docker.io/library/hello:latest";

TEST(ImageCatalog, FindsAnImageBySeveralSpellings) {
  ImageCatalog catalog;
  catalog.Add(Image(Digest("abcdef123456"), {1}, {kHello}));
  for (const std::string& name : {std::string("hello"), std::string("hello:latest"), kHello,
                                  Digest("abcdef123456"), std::string("abcdef123456")}) {
    const auto found = catalog.Find(name);
    ASSERT_TRUE(found.ok()) << name;
    EXPECT_THAT(found->refs, ElementsAre(kHello));
  }
  for (const char* name : {"hello:2", "abcdef12345", "abcdef123457", "other"}) {
    const auto found = catalog.Find(name);
    ASSERT_FALSE(found.ok()) << name;
    EXPECT_EQ(found.error().code, Code::kNotFound);
    EXPECT_THAT(found.error().message, HasSubstr("pulga image import"));
  }
}

TEST(ImageCatalog, AShortDigestThatFitsTwoIsRefused) {
  ImageCatalog catalog;
  catalog.Add(Image(Digest("aaaaaaaaaaaa1"), {1}, {}));
  catalog.Add(Image(Digest("aaaaaaaaaaaa2"), {2}, {}));
  EXPECT_EQ(catalog.Find("aaaaaaaaaaaa").error().code, Code::kAlreadyExists);
  EXPECT_TRUE(catalog.Find("aaaaaaaaaaaa1").ok());
}

TEST(ImageCatalog, TellsNewFromKnown) {
  ImageCatalog catalog;
  EXPECT_TRUE(catalog.Add(Image(Digest("a"), {1}, {kHello})));
  EXPECT_FALSE(catalog.Add(Image(Digest("a"), {1}, {kHello})));
  EXPECT_TRUE(catalog.Add(Image(Digest("a"), {1}, {"docker.io/library/hello:2"})));
  EXPECT_TRUE(catalog.Add(Image(Digest("b"), {1}, {kHello})));
}

TEST(ImageCatalog, AMovedNameLeavesTheOldImageUntagged) {
  ImageCatalog catalog;
  catalog.Add(Image(Digest("a"), {1}, {kHello}));
  catalog.Add(Image(Digest("b"), {2}, {kHello}));
  EXPECT_EQ(catalog.Find("hello")->digest, Digest("b"));
  EXPECT_THAT(catalog.ByDigest(Digest("a"))->refs, IsEmpty());
  EXPECT_THAT(catalog.List().back().digest, Digest("a"));
}

TEST(ImageCatalog, AMissingLayerIsTroubleUntilTheImageComesAgain) {
  ImageCatalog catalog;
  catalog.Add(Image(Digest("a"), {1, 2}, {kHello}));
  catalog.MarkMissing({Layer(2)});
  EXPECT_THAT(catalog.Find("hello")->trouble, HasSubstr("1 of its 2 layers"));
  EXPECT_THAT(catalog.Layers(), SizeIs(1));
  EXPECT_TRUE(catalog.Add(Image(Digest("a"), {1, 2}, {kHello})));
  EXPECT_EQ(catalog.Find("hello")->trouble, "");
}

TEST(Sweep, RemovesWhatHasNoRowAndReportsWhatHasNoDirectory) {
  const SweepPlan plan = PlanSweep({Layer(1), Layer(2), Layer(2)}, {{Layer(2), 0}, {Layer(3), 0}});
  EXPECT_THAT(plan.remove, ElementsAre(Layer(1)));
  EXPECT_THAT(plan.missing, ElementsAre(Layer(3)));
}

VersionPtr MakeVersion(uint64_t id, uint32_t number, const std::string& digest = Digest("a")) {
  Version version;
  version.key.name = "f";
  version.id = id;
  version.number = number;
  version.image_digest = digest;
  return std::make_shared<const Version>(version);
}

TEST(FunctionRegistry, RollsBackToTheVersionBeforeTheActiveOne) {
  FunctionRegistry registry;
  const FunctionKey key = MakeVersion(1, 1)->key;
  for (uint32_t n = 1; n <= 3; ++n) registry.Activate(MakeVersion(n, n), {});
  EXPECT_EQ((*registry.RollbackTarget(key, std::nullopt))->number, 2U);
  EXPECT_EQ((*registry.RollbackTarget(key, 1))->number, 1U);
  EXPECT_THAT(registry.RollbackTarget(key, 3).error().message, HasSubstr("active already"));
  EXPECT_EQ(registry.RollbackTarget(key, 9).error().code, Code::kNotFound);
  registry.Activate(MakeVersion(4, 1), {});
  EXPECT_THAT(registry.RollbackTarget(key, std::nullopt).error().message,
              HasSubstr("no version before 1"));
  EXPECT_THAT(registry.Find(key)->versions, SizeIs(3));
}

TEST(FunctionRegistry, ForgetsWhatTheStoreForgot) {
  FunctionRegistry registry;
  registry.Activate(MakeVersion(1, 1), {});
  registry.Activate(MakeVersion(2, 2), {1});
  EXPECT_THAT(registry.Find(MakeVersion(1, 1)->key)->versions, SizeIs(1));
}

TEST(FunctionRegistry, AnImageIsUsedByKeptVersionsAndReservations) {
  FunctionRegistry registry;
  registry.Activate(MakeVersion(1, 1, Digest("a")), {});
  registry.Activate(MakeVersion(2, 2, Digest("b")), {});
  EXPECT_EQ(registry.UserOf(Digest("a")), "function f (version 1)");
  EXPECT_EQ(registry.UserOf(Digest("c")), "");
  registry.Reserve(Digest("c"));
  registry.Reserve(Digest("c"));
  registry.Release(Digest("c"));
  EXPECT_NE(registry.UserOf(Digest("c")), "");
  registry.Release(Digest("c"));
  EXPECT_EQ(registry.UserOf(Digest("c")), "");
}

LogLine Line(const std::string& text) { return {0, 1, "", "stderr", text}; }

TEST(FunctionLogs, KeepsTheNewestAndCountsWhatItDropped) {
  FunctionLogs logs(10 * (sizeof(LogLine) + 10));
  const FunctionKey key{"a", "n", "f"};
  for (int i = 0; i < 100; ++i) logs.Append(key, Line(std::to_string(i)));
  const auto tail = logs.Tail(key, 3);
  ASSERT_THAT(tail, SizeIs(3));
  EXPECT_EQ(tail.front().text, "97");
  EXPECT_GT(logs.dropped(key), 80U);
  EXPECT_EQ(logs.Tail(key, 1000).size() + logs.dropped(key), 100U);
  logs.Forget(key);
  EXPECT_THAT(logs.Tail(key, 10), IsEmpty());
}

TEST(FunctionLogs, CutsEndlessLinesAndKeepsAtLeastOne) {
  FunctionLogs logs(10);
  const FunctionKey key{"a", "n", "f"};
  logs.Append(key, Line(std::string(1 << 20, 'x')));
  EXPECT_EQ(logs.Tail(key, 1).front().text.size(), 4096U);
}

TEST(FunctionLogs, TellsFollowersOfTheirFunctionOnlyAndLetsThemLeaveMeanwhile) {
  FunctionLogs logs;
  const FunctionKey mine{"a", "n", "f"};
  const FunctionKey other{"a", "n", "g"};
  std::vector<std::string> heard;
  FunctionLogs::FollowId id = 0;
  id = logs.Follow(mine, [&](const LogLine& line) {
    heard.push_back(line.text);
    if (line.text == "2") logs.Unfollow(id);
  });
  logs.Append(mine, Line("1"));
  logs.Append(other, Line("x"));
  logs.Append(mine, Line("2"));
  logs.Append(mine, Line("3"));
  EXPECT_THAT(heard, ElementsAre("1", "2"));
}

TEST(OpQueue, RunsOneAfterTheOther) {
  auto loop = EventLoop::Create();
  ASSERT_TRUE(loop.ok());
  OpQueue queue(**loop);
  std::vector<int> order;
  OpQueue::Done finish_first;
  queue.Add([&](OpQueue::Done done) {
    order.push_back(1);
    finish_first = std::move(done);
  });
  queue.Add([&](OpQueue::Done done) {
    order.push_back(2);
    done();
  });
  EXPECT_THAT(order, ElementsAre(1));
  EXPECT_EQ(queue.size(), 2U);
  finish_first();
  while (queue.size() != 0) (*loop)->RunOnce(std::chrono::seconds(1));
  EXPECT_THAT(order, ElementsAre(1, 2));
}

}  // namespace
}  // namespace pulga
