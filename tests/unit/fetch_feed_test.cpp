// What the daemon takes from a fetcher, and what it does not: one that was turned by a hostile
// registry says and writes what it likes.
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <deque>
#include <functional>

#include "base/file_io.h"
#include "images/fetch/registry_feed.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

// A fetcher in this process: does what the test says while it is started, then is gone.
class FakeFetcher final : public UnpackRunner {
 public:
  using Errand = std::function<Status(const UnpackJob& job)>;
  std::deque<Errand> errands;
  std::vector<FetchOrder> orders;
  bool cancelled = false;
  UniqueFd held;  // a channel kept open: the errand goes on

  std::unique_ptr<RunningJob> Start(UnpackJob job) override {
    const auto order = FetchOrder::Decode(job.request);
    EXPECT_TRUE(order.has_value());
    orders.push_back(*order);
    EXPECT_FALSE(errands.empty());
    const Errand errand = std::move(errands.front());
    errands.pop_front();
    const Status status = errand(job);
    if (hold) held = std::move(job.channel);
    return std::make_unique<Job>(*this, status);
  }
  bool hold = false;

 private:
  class Job final : public RunningJob {
   public:
    Job(FakeFetcher& fetcher, Status status) : fetcher_(fetcher), status_(std::move(status)) {}
    Status Wait() override { return status_; }
    void Cancel() override { fetcher_.cancelled = true; }

   private:
    FakeFetcher& fetcher_;
    Status status_;
  };
};

void Put(const UnpackJob& job, uint64_t offset, const std::string& bytes) {
  EXPECT_EQ(pwrite(job.output.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)),
            static_cast<ssize_t>(bytes.size()));
}

void Tell(const UnpackJob& job, const std::string& name, uint64_t offset, uint64_t size) {
  ArchiveMember member;
  member.offset = offset;
  member.size = size;
  member.sha256 = std::string(64, '0');
  EXPECT_TRUE(SendEvent(job.channel.get(), JobEventKind::kMember, EncodeMember(name, member)).ok());
}

class Feed : public ::testing::Test {
 protected:
  Feed() {
    options.order.ref = "r.example/app:1";
    options.scratch_dir = "/tmp";
    options.most_bytes = 1000;
  }
  Result<std::unique_ptr<RegistryFeed>> Start() { return RegistryFeed::Start(fetcher, options); }
  PlannedLayer Layer(char digit, uint64_t size) {
    PlannedLayer layer;
    layer.name = "blobs/sha256/" + std::string(64, digit);
    layer.blob_digest = "sha256:" + std::string(64, digit);
    layer.size = size;
    return layer;
  }
  FakeFetcher fetcher;
  RegistryOptions options;
};

TEST_F(Feed, DocumentsComeFirstAndLayersWhenTheyAreWanted) {
  fetcher.errands.push_back([](const UnpackJob& job) {
    Put(job, 0, "{}");
    Tell(job, "blobs/sha256/x", 0, 2);
    return OkStatus();
  });
  fetcher.errands.push_back([this](const UnpackJob& job) {
    Tell(job, Layer('b', 4).name, 12, 4);
    return OkStatus();
  });
  const auto feed = Start();
  ASSERT_TRUE(feed.ok());
  const auto document = (*feed)->Next();
  ASSERT_TRUE(document.ok() && document->has_value());
  EXPECT_EQ((*document)->member.sha256, "") << "what it says of digests is not believed";
  ASSERT_TRUE((*feed)->Want({Layer('a', 10), Layer('b', 4), Layer('a', 10)}).ok());
  ASSERT_EQ(fetcher.orders.at(1).blobs.size(), 2u) << "each layer once";
  EXPECT_EQ(fetcher.orders[1].blobs[0].offset, 2u);
  EXPECT_EQ(fetcher.orders[1].blobs[1].offset, 12u);
  EXPECT_EQ((*(*feed)->Next())->name, Layer('b', 4).name);
  const auto end = (*feed)->Next();
  EXPECT_TRUE(end.ok() && !end->has_value());
}

TEST_F(Feed, WhatWasNotAskedForIsRefused) {
  using Lie = std::function<void(const UnpackJob&)>;
  const Lie kLies[] = {
      [this](const UnpackJob& job) { Tell(job, Layer('a', 10).name, 1, 10); },
      [this](const UnpackJob& job) { Tell(job, Layer('a', 10).name, 0, 11); },
      [this](const UnpackJob& job) { Tell(job, Layer('c', 10).name, 0, 10); },
      [](const UnpackJob& job) { Tell(job, "index.json", 0, 10); },
      [](const UnpackJob& job) {
        EXPECT_TRUE(SendEvent(job.channel.get(), JobEventKind::kMember, "nonsense").ok());
      }};
  for (const Lie& lie : kLies) {
    fetcher.errands.push_back([](const UnpackJob&) { return OkStatus(); });
    fetcher.errands.push_back([&lie](const UnpackJob& job) {
      lie(job);
      return OkStatus();
    });
    const auto feed = Start();
    ASSERT_TRUE(feed.ok() && (*feed)->Next().ok());
    ASSERT_TRUE((*feed)->Want({Layer('a', 10)}).ok());
    EXPECT_FALSE((*feed)->Next().ok());
    EXPECT_TRUE((*feed)->blame().has_value());
  }
}

TEST_F(Feed, AnImageAskedForByDigestIsThatOne) {
  const std::string good(64, 'a');
  const std::string evil(64, 'e');
  options.order.ref = "r.example/app@sha256:" + good;
  for (const std::string& top : {good, evil}) {
    fetcher.errands.push_back([&](const UnpackJob& job) {
      const std::string index = TopIndex({DigestAlgorithm::kSha256, top}, 2, TopKind::kManifest);
      Put(job, 0, "{}" + index);
      Tell(job, "blobs/sha256/" + good, 0, 2);
      Tell(job, "index.json", 2, index.size());
      return OkStatus();
    });
    const auto feed = Start();
    ASSERT_TRUE(feed.ok() && (*feed)->Next().ok());
    EXPECT_EQ((*feed)->Next().ok(), top == good);
  }
}

TEST_F(Feed, TheQuotaIsSeenBeforeAnythingIsFetched) {
  fetcher.errands.push_back([](const UnpackJob&) { return OkStatus(); });
  const auto feed = Start();
  ASSERT_TRUE(feed.ok());
  const Status wanted = (*feed)->Want({Layer('a', 600), Layer('b', 401)});
  ASSERT_FALSE(wanted.ok());
  EXPECT_EQ(wanted.error().code, Code::kTooLarge);
  EXPECT_EQ((*feed)->blame(), ImportReason::kTooLarge);
  EXPECT_EQ(fetcher.orders.size(), 1u);
}

TEST_F(Feed, FullDisksAreNotFilled) {
  options.reserve_bytes = uint64_t{1} << 62;
  const auto feed = Start();
  ASSERT_FALSE(feed.ok());
  EXPECT_EQ(feed.error().code, Code::kNoSpace);
  EXPECT_TRUE(fetcher.orders.empty());
}

TEST_F(Feed, TheFetchersOwnWordsAreToldApartFromItsDeath) {
  const Status refused = Error{Code::kInvalidArgument, 0, "it refused"};
  fetcher.errands.push_back([&](const UnpackJob& job) {
    EXPECT_TRUE(SendEvent(job.channel.get(), JobEventKind::kFailure,
                          EncodeFailure({Code::kPermission, 0, "who are you"}))
                    .ok());
    return refused;
  });
  auto feed = Start();
  ASSERT_TRUE(feed.ok());
  EXPECT_EQ((*feed)->Next().error().message, "who are you");
  EXPECT_EQ((*feed)->blame(), ImportReason::kDenied);
  fetcher.errands.push_back([](const UnpackJob&) {
    return Status(Error{Code::kUnavailable, 0, "no launcher"});
  });
  feed = Start();
  EXPECT_FALSE((*feed)->Next().ok());
  EXPECT_EQ((*feed)->blame(), ImportReason::kHelper);
}

TEST_F(Feed, ACancelledPullEndsWithoutAWordFromTheFetcher) {
  const UniqueFd cancel(eventfd(1, EFD_CLOEXEC));
  options.cancel_fd = cancel.get();
  fetcher.hold = true;
  fetcher.errands.push_back([](const UnpackJob&) { return OkStatus(); });
  auto feed = Start();
  ASSERT_TRUE(feed.ok());
  const auto next = (*feed)->Next();
  ASSERT_FALSE(next.ok());
  EXPECT_EQ(next.error().code, Code::kUnavailable);
  EXPECT_TRUE(fetcher.cancelled);
}

TEST_F(Feed, ProgressIsPassedOnAndNonsenseIsNot) {
  std::vector<PullProgress> told;
  options.progress = [&told](const PullProgress& progress) { told.push_back(progress); };
  fetcher.errands.push_back([](const UnpackJob&) { return OkStatus(); });
  fetcher.errands.push_back([](const UnpackJob& job) {
    for (const auto& [layer, bytes] : {std::pair{0, 5}, std::pair{7, 1}, std::pair{0, 500}}) {
      FieldWriter out;
      out.PutU64(static_cast<uint64_t>(layer));
      out.PutU64(static_cast<uint64_t>(bytes));
      EXPECT_TRUE(SendEvent(job.channel.get(), JobEventKind::kProgress, out.bytes()).ok());
    }
    return OkStatus();
  });
  const auto feed = Start();
  ASSERT_TRUE(feed.ok() && (*feed)->Next().ok());
  ASSERT_TRUE((*feed)->Want({Layer('a', 10)}).ok());
  ASSERT_TRUE((*feed)->Next().ok());
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].bytes, 5u);
  EXPECT_EQ(told[1].bytes, 10u) << "never more than there is";
  EXPECT_EQ(told[0].total_size, 10u);
}

}  // namespace
}  // namespace pulga
