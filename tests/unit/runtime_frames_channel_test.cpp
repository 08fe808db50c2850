// The daemon's end of a frames channel against a function that means no good, over real sockets.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>

#include <atomic>
#include <thread>

#include "base/close_apart.h"
#include "base/sys.h"
#include "runtime/frames_channel.h"
#include "tests/support/frames_peer.h"

namespace pulga {
namespace {

using testing::FramesPeer;

// A connection that waits ten minutes in close(2) for a peer that does not read.
struct Lingering {
  Lingering() {
    const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* name = reinterpret_cast<sockaddr*>(&address);
    socklen_t size = sizeof address;
    PULGA_CHECK(bind(listener.get(), name, size) == 0 && listen(listener.get(), 1) == 0);
    PULGA_CHECK(getsockname(listener.get(), name, &size) == 0);
    ours.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    PULGA_CHECK(connect(ours.get(), name, size) == 0);
    peer.Reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const linger stay = {1, 600};
    PULGA_CHECK(setsockopt(ours.get(), SOL_SOCKET, SO_LINGER, &stay, sizeof stay) == 0);
    const std::string much(1 << 16, 'x');
    while (send(ours.get(), much.data(), much.size(), MSG_DONTWAIT) > 0) {
    }
  }
  // All of what was sent, and its end.
  bool PeerSeesTheEnd() const {
    char buffer[1 << 16];
    ssize_t n;
    do {
      pollfd wait = {peer.get(), POLLIN, 0};
      if (poll(&wait, 1, 60000) != 1) return false;
      n = read(peer.get(), buffer, sizeof buffer);
    } while (n > 0);
    return n == 0;
  }
  UniqueFd ours;
  UniqueFd peer;
};

TEST(CloseApart, DoesNotWaitForAConnectionThatLingers) {
  Lingering connection;
  CloseApart(std::move(connection.ours));
  EXPECT_TRUE(connection.PeerSeesTheEnd());
}

class User : public FramesUser {
 public:
  void OnReplyHead(std::string_view, FrameEnd end) override {
    ++heads;
    ended = end == FrameEnd::kEnd;
  }
  void OnReplyBody(std::string_view bytes, FrameEnd end) override {
    body += bytes;
    ended = end == FrameEnd::kEnd;
  }
  void OnReplyPause() override {}
  void OnRoom() override {
    ++rooms;
    if (on_room) on_room();
  }
  void OnGivenUp() override { ended = true; }
  std::function<void()> on_room;
  int heads = 0;
  int rooms = 0;
  bool ended = false;
  std::string body;
};

class FramesChannelTest : public ::testing::Test {
 protected:
  FramesChannelTest() {
    auto made = EventLoop::Create();
    PULGA_CHECK(made.ok());
    loop = std::move(made).value();
    notifier = std::make_unique<Notifier>(*loop);
    channel = std::make_unique<FramesChannel>(*loop, *notifier, buffers);
  }
  void Open(Duration patience = std::chrono::hours(1)) {
    auto pair = FramesChannel::MakePair();
    PULGA_CHECK(pair.ok());
    theirs = std::move(pair->theirs);
    peer = std::make_unique<FramesPeer>(theirs.get());
    FramesChannel::Events events;
    events.ready = [this] { ready = true; };
    events.room = [this] { ++rooms; };
    events.ended = [this](FramesChannel::End end, const char* text) {
      ended = end;
      why = text;
    };
    PULGA_CHECK(channel->Open(std::move(pair->ours), {100, patience}, std::move(events)).ok());
  }
  // As on a kernel that cannot be asked to refuse descriptors.
  void OpenAsBefore616() {
    sys::FailNthCall(2, ENOPROTOOPT);  // after socketpair
    Open();
    sys::FailNthCall(0, 0);
  }
  void OpenAndGreet(Duration patience = std::chrono::hours(1)) {
    Open(patience);
    peer->Hello(kMaxFramesWindow);
    ASSERT_TRUE(RunUntil([&] { return ready; }));
  }
  bool RunUntil(const std::function<bool()>& done) {
    const TimePoint deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      loop->RunOnce(std::chrono::milliseconds(20));
    }
    return true;
  }
  // One byte with a descriptor beside it; what sendmsg said.
  ssize_t SendDescriptor(int fd) const {
    char byte = 0;
    iovec bytes = {&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
    msghdr message = {};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    return sendmsg(theirs.get(), &message, MSG_NOSIGNAL);
  }
  // All that waits for the function, as bytes.
  size_t ReadAll() const {
    static char buffer[1 << 16];
    size_t total = 0;
    ssize_t n;
    while ((n = recv(theirs.get(), buffer, sizeof buffer, MSG_DONTWAIT)) > 0) {
      total += static_cast<size_t>(n);
    }
    return total;
  }

  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<Notifier> notifier;
  BufferPool buffers;
  UniqueFd theirs;
  std::unique_ptr<FramesPeer> peer;
  std::unique_ptr<FramesChannel> channel;
  bool ready = false;
  int rooms = 0;
  std::optional<FramesChannel::End> ended;
  std::string why;
};

TEST_F(FramesChannelTest, NoDescriptorComesThroughOnAnyKernel) {
  Open();
  const bool sent = SendDescriptor(theirs.get()) == 1;
  EXPECT_TRUE(sent || errno == EPERM);
  if (!sent) peer->Hello();
  ASSERT_TRUE(RunUntil([&] { return sent ? ended.has_value() : ready; }));
  EXPECT_EQ(why, sent ? "it sent descriptors" : "");
}

TEST_F(FramesChannelTest, BeforeLinux616ADescriptorEndsItAndHoldsNobodyUp) {
  OpenAsBefore616();
  Lingering connection;
  ASSERT_EQ(SendDescriptor(connection.ours.get()), 1);
  connection.ours.Reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(RunUntil([&] { return ended.has_value(); }));
  EXPECT_EQ(ended, FramesChannel::End::kBroken);
  EXPECT_EQ(why, "it sent descriptors");
  channel->Close();
  EXPECT_TRUE(connection.PeerSeesTheEnd());
}

TEST_F(FramesChannelTest, BeforeLinux616WhatWasNeverReadHoldsNobodyUpEither) {
  OpenAsBefore616();
  Lingering connection;
  ASSERT_EQ(SendDescriptor(connection.ours.get()), 1);
  connection.ours.Reset();
  channel.reset();
  EXPECT_TRUE(connection.PeerSeesTheEnd());
}

TEST_F(FramesChannelTest, BeforeLinux616FramesComeAsTheyDoLater) {
  OpenAsBefore616();
  peer->Hello();
  ASSERT_TRUE(RunUntil([&] { return ready; }));
  User user;
  const uint32_t id = channel->Begin(user, "head", FrameEnd::kEnd);
  const std::string body(kFramesReplyWindow, 'x');
  std::thread function([&] { peer->Reply(id, body); });
  EXPECT_TRUE(RunUntil([&] { return user.ended; }));
  function.join();
  EXPECT_TRUE(user.body == body);
}

TEST_F(FramesChannelTest, WhatComesOutOfBandIsReadInItsPlace) {
  for (const bool before_616 : {false, true}) {
    channel = std::make_unique<FramesChannel>(*loop, *notifier, buffers);
    ready = false;
    before_616 ? OpenAsBefore616() : Open();
    std::string hello;
    AppendHello({kFramesVersion, 1, 0}, &hello);
    const ssize_t sent = send(theirs.get(), hello.data(), hello.size(), MSG_OOB | MSG_NOSIGNAL);
    if (sent < 0) {  // a kernel without it
      ASSERT_EQ(send(theirs.get(), hello.data(), hello.size(), MSG_NOSIGNAL), 28);
    }
    EXPECT_TRUE(RunUntil([&] { return ready; }));
  }
}

TEST_F(FramesChannelTest, AFunctionThatWillReadNoMoreHasClosedIt) {
  OpenAndGreet();
  User first;
  peer->Reply(channel->Begin(first, "head", FrameEnd::kEnd), "still counts");
  ASSERT_EQ(shutdown(theirs.get(), SHUT_RD), 0);
  User second;
  channel->Begin(second, "head", FrameEnd::kEnd);
  ASSERT_TRUE(RunUntil([&] { return ended.has_value(); }));
  EXPECT_EQ(ended, FramesChannel::End::kClosed);
  EXPECT_EQ(first.body, "still counts");
  EXPECT_FALSE(second.ended);
}

// Sends frames that are no mistake, without an end, until it no longer can.
TEST_F(FramesChannelTest, DrainingEndsWhateverIsSentMeanwhile) {
  OpenAndGreet();
  User user;
  peer->Head(channel->Begin(user, "head", FrameEnd::kMore), 200);
  std::string frames;
  for (int i = 0; i < 5000; ++i) {
    AppendCredit(0x10000, 1, &frames);
  }
  std::atomic<bool> stopped = false;
  std::thread function([&] {
    peer->Flush();
    while (send(theirs.get(), frames.data(), frames.size(), MSG_NOSIGNAL) > 0) {
    }
    stopped = true;
  });
  ASSERT_TRUE(RunUntil([&] { return user.heads == 1; }));
  channel->Drain();
  EXPECT_TRUE(RunUntil([&] { return stopped.load(); })) << "it can still send";
  function.join();
}

TEST_F(FramesChannelTest, CreditInPiecesThatNoBodyIsWorthEndsIt) {
  Open();
  peer->Hello(1000);
  ASSERT_TRUE(RunUntil([&] { return ready; }));
  User user;
  const uint32_t id = channel->Begin(user, "head", FrameEnd::kMore);
  for (int i = 0; i < 1024 + 17; ++i) peer->Credit(id, 1);
  peer->Flush();
  ASSERT_TRUE(RunUntil([&] { return ended.has_value(); }));
  EXPECT_EQ(ended, FramesChannel::End::kBroken);
  EXPECT_EQ(why, "it grants credit in more pieces than the bodies sent to it are worth");
}

TEST_F(FramesChannelTest, WhoeverGrantsWhatItReadMayDoSoInSmallPieces) {
  Open();
  peer->Hello(1000);
  ASSERT_TRUE(RunUntil([&] { return ready; }));
  User user;
  const uint32_t id = channel->Begin(user, "head", FrameEnd::kMore);
  const std::string body(1000, 'x');
  for (int round = 0; round < 500; ++round) {
    ASSERT_EQ(channel->SendBody(id, body, FrameEnd::kMore), body.size());
    EXPECT_EQ(channel->SendBody(id, "y", FrameEnd::kMore), 0U);
    while (ReadAll() > 0) loop->RunOnce(Duration::zero());
    const int heard = user.rooms;
    for (int i = 0; i < 50; ++i) peer->Credit(id, 20);
    peer->Flush();
    ASSERT_TRUE(RunUntil([&] { return user.rooms > heard && channel->has_room(); })) << why;
    ASSERT_FALSE(ended) << round << why;
  }
}

TEST_F(FramesChannelTest, TellsNobodyOfRoomWhileAnotherSends) {
  OpenAndGreet();
  User waits;
  User sends;
  bool sending = false;
  waits.on_room = [&] { EXPECT_FALSE(sending); };
  const uint32_t id = channel->Begin(waits, "head", FrameEnd::kMore);
  const uint32_t other = channel->Begin(sends, "head", FrameEnd::kMore);
  const std::string much(16 << 20, 'x');
  ASSERT_LT(channel->SendBody(id, much, FrameEnd::kMore), much.size());
  while (ReadAll() > 0) {
    sending = true;
    channel->SendBody(other, std::string(1000, 'y'), FrameEnd::kMore);
    channel->Begin(sends, "head", FrameEnd::kEnd);
    sending = false;
  }
  EXPECT_TRUE(RunUntil([&] {
    ReadAll();
    return waits.rooms == 1;
  }));
}

TEST_F(FramesChannelTest, CreditsThatNobodyReadsFillItAsWell) {
  OpenAndGreet(std::chrono::milliseconds(1));
  User user;
  const uint32_t id = channel->Begin(user, "head", FrameEnd::kMore);
  const std::string much(16 << 20, 'x');
  ASSERT_LT(channel->SendBody(id, much, FrameEnd::kMore), much.size());
  EXPECT_TRUE(channel->has_room());
  for (int i = 0; i < 1 << 16; ++i) channel->Grant(id, kFramesReplyWindow / 2);
  EXPECT_FALSE(channel->has_room());
  EXPECT_TRUE(RunUntil([&] { return ended == FramesChannel::End::kBroken; }));
  EXPECT_EQ(why, "it does not read");
}

TEST_F(FramesChannelTest, RoomGoesAround) {
  OpenAndGreet();
  const std::string much(1 << 20, 'x');
  User users[8];
  size_t served[8] = {};
  for (int i = 0; i < 8; ++i) {
    const uint32_t id = channel->Begin(users[i], "head", FrameEnd::kMore);
    const auto more = [&, id, i] { served[i] += channel->SendBody(id, much, FrameEnd::kMore); };
    users[i].on_room = more;
    more();
  }
  EXPECT_TRUE(RunUntil([&] {
    ReadAll();
    return std::all_of(std::begin(served), std::end(served), [](size_t n) { return n > 0; });
  }));
}

TEST_F(FramesChannelTest, ManyLargeHeadsAtOnceEndNothing) {
  OpenAndGreet();
  User users[60];
  for (User& user : users) {
    ASSERT_NE(channel->Begin(user, std::string(60000, 'h'), FrameEnd::kEnd), 0U);
  }
  EXPECT_FALSE(channel->has_room()) << "whoever asks begins no more";
  EXPECT_TRUE(RunUntil([&] {
    ReadAll();
    return rooms == 1;
  }));
  EXPECT_TRUE(channel->has_room());
  EXPECT_FALSE(ended);
}

TEST_F(FramesChannelTest, WhoReadsNothingWhileItIsFullIsEnded) {
  OpenAndGreet(std::chrono::milliseconds(20));
  User users[60];
  for (User& user : users) channel->Begin(user, std::string(60000, 'h'), FrameEnd::kEnd);
  ASSERT_TRUE(RunUntil([&] { return ended.has_value(); }));
  EXPECT_EQ(ended, FramesChannel::End::kBroken);
  EXPECT_EQ(why, "it does not read");
}

TEST_F(FramesChannelTest, SoIsWhoReadsALittleAndThenNothingMore) {
  OpenAndGreet(std::chrono::milliseconds(200));
  User users[60];
  for (User& user : users) channel->Begin(user, std::string(60000, 'h'), FrameEnd::kEnd);
  constexpr size_t kLittle = 60 * 60000 - 1000000;  // less than 1 MiB waits, more than half of it
  size_t read = 0;
  ASSERT_TRUE(RunUntil([&] {
    char buffer[4096];
    while (read < kLittle) {
      const ssize_t n = recv(theirs.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (n <= 0) break;
      read += static_cast<size_t>(n);
    }
    return read >= kLittle || ended;
  }));
  EXPECT_TRUE(RunUntil([&] { return ended.has_value(); }));
  EXPECT_EQ(rooms, 0);
}

}  // namespace
}  // namespace pulga
