// The descriptors of the simulation beside the kernel's: the same calls, the same answers, and the
// same events in the same order.
#include "tests/support/sim_descriptors.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <random>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace pulga {
namespace {

using testing::SimDescriptors;

// Random calls on pipes and pairs of sockets that an epoll watches; what each of them said.
class Script {
 public:
  explicit Script(uint32_t seed) : random_(seed), epoll_(epoll_create1(EPOLL_CLOEXEC)) {}
  std::vector<std::string> Run() {
    for (int step = 0; step < 300; ++step) Step();
    while (!ends_.empty()) Close(0);
    epoll_.Reset();
    return std::move(said_);
  }

 private:
  enum class Pair : uint8_t { kPipe, kSockets };
  struct End {
    UniqueFd fd;
    Pair pair = Pair::kPipe;
    uint64_t name = 0;
    uint32_t events = 0;  // watched for; 0: not watched
  };

  size_t Below(size_t end) { return random_() % end; }
  void Say(const char* what, const End& end, int64_t result) {
    said_.push_back(std::string(what) + " " + std::to_string(end.name) + ": " +
                    std::to_string(result) + (result < 0 ? " " + std::to_string(errno) : ""));
  }
  void Step() {
    const size_t what = ends_.size() < 4 ? 0 : Below(11);
    const size_t at = ends_.empty() ? 0 : Below(ends_.size());
    if (what == 0 && ends_.size() < 16) return Open(Below(2) == 0 ? Pair::kPipe : Pair::kSockets);
    if (what == 1) return Close(at);
    if (what <= 4) return Watch(ends_[at]);
    if (what <= 6) return Write(ends_[at]);
    if (what <= 8) return Read(ends_[at]);
    Wait();
  }
  void Open(Pair pair) {
    std::array<int, 2> fds{};
    const int made = pair == Pair::kPipe
                         ? pipe2(fds.data(), O_NONBLOCK | O_CLOEXEC)
                         : socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds.data());
    ASSERT_EQ(made, 0);
    for (const int fd : fds) ends_.push_back({UniqueFd(fd), pair, ++last_name_, 0});
  }
  void Close(size_t at) {
    if (ends_[at].events != 0) Unwatch(ends_[at]);
    ends_.erase(ends_.begin() + static_cast<ptrdiff_t>(at));
  }
  void Unwatch(End& end) {
    end.events = 0;
    Say("unwatch", end, epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, end.fd.get(), nullptr));
  }
  void Watch(End& end) {
    if (end.events != 0 && Below(3) == 0) return Unwatch(end);
    const std::array<uint32_t, 4> choice{EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT, EPOLLRDHUP};
    epoll_event event = {};
    event.events = choice[Below(4)];
    // Which write to a pipe is an edge, Linux has changed its mind about.
    if (end.pair == Pair::kSockets && Below(2) == 0) event.events |= EPOLLET;
    event.data.u64 = end.name;
    const int how = end.events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    end.events = event.events;
    Say("watch", end, epoll_ctl(epoll_.get(), how, end.fd.get(), &event));
  }
  void Write(const End& end) {
    Say("write", end, write(end.fd.get(), "some bytes", 1 + Below(10)));
  }
  void Read(const End& end) {
    std::array<char, 4096> bytes{};
    const ssize_t size = read(end.fd.get(), bytes.data(), bytes.size());
    Say("read", end, size);
    if (size > 0) said_.back().append(bytes.data(), static_cast<size_t>(size));
  }
  void Wait() {
    std::array<epoll_event, 8> events{};
    const int size = epoll_wait(epoll_.get(), events.data(), 1 + static_cast<int>(Below(8)), 0);
    said_.push_back("wait: " + std::to_string(size));
    for (int i = 0; i < size; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      said_.back() += " " + std::to_string(event.data.u64) + ":" + std::to_string(event.events);
    }
  }

  std::mt19937 random_;
  UniqueFd epoll_;
  std::vector<End> ends_;
  uint64_t last_name_ = 0;
  std::vector<std::string> said_;
};

TEST(SimDescriptors, SayWhatTheKernelSays) {
  signal(SIGPIPE, SIG_IGN);
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    const std::vector<std::string> kernels = Script(seed).Run();
    const SimDescriptors descriptors;
    const std::vector<std::string> ours = Script(seed).Run();
    ASSERT_EQ(ours.size(), kernels.size());
    for (size_t i = 0; i < ours.size(); ++i) {
      ASSERT_EQ(ours[i], kernels[i]) << "seed " << seed << ", call " << i;
    }
    EXPECT_EQ(descriptors.open(), 0U);
    EXPECT_EQ(descriptors.broken(), "");
  }
}

TEST(SimDescriptors, NoticeWhatIsClosedTwice) {
  std::array<int, 2> ends{};
  const SimDescriptors twice;
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  close(ends[0]);
  EXPECT_EQ(twice.broken(), "");
  EXPECT_EQ(twice.open(), 1U);
  EXPECT_EQ(close(ends[0]), -1);
  EXPECT_EQ(twice.broken(), "a descriptor is closed twice");
}

TEST(SimDescriptors, NoticeWhatIsClosedWhileItIsWatched) {
  std::array<int, 2> ends{};
  const SimDescriptors descriptors;
  const UniqueFd epoll(epoll_create1(0));
  ASSERT_EQ(pipe2(ends.data(), O_CLOEXEC), 0);
  epoll_event event = {};
  ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, ends[0], &event), 0);
  close(ends[0]);
  EXPECT_EQ(descriptors.broken(), "a descriptor is closed while it is watched");
}

}  // namespace
}  // namespace pulga
