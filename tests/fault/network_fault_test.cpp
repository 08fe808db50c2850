// Each system call of each job of pulga-netadmin fails once: the job says which and why, what it
// has made is all there or nothing of it, and the next try works.
#include "net/net_admin.h"
#include "tests/fault/network_lab.h"

namespace pulga::testing {

NetworkLab::Start NetworkLab::Here(int n, int sys_errno, int* calls) {
  return [=](const Fds& fds) {
    const pid_t pid = fork();
    if (pid != 0) {
      if (calls == nullptr) return pid;
      siginfo_t info = {};
      EXPECT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
      *calls = sys::CallsSeen();
      return pid;
    }
    for (size_t i = 0; i < fds.size(); ++i) {
      if (fcntl(fds[i], F_DUPFD, 100 + static_cast<int>(i)) != 100 + static_cast<int>(i)) _exit(9);
    }
    for (int i = 0; i < static_cast<int>(fds.size()); ++i) dup2(100 + i, kNetJobFd + i);
    close_range(kNetAnswerFd + 1, ~0U, 0);
    sys::FailNthCall(n, sys_errno);
    _exit(ServeNetJob());
  };
}

namespace {

using ::testing::HasSubstr;

constexpr int kMostCalls = 1000;

class NetJobFaults : public NetworkLab {
 protected:
  // `check` after each failure; `after` after each round.
  void Sweep(NetJobKind kind, int least, const std::function<void(int n)>& before,
             const std::function<void(JobEnd, int n)>& check) {
    int failed = 0;
    int n = 1;
    for (int calls = kMostCalls; n <= calls && n < kMostCalls && !HasFailure(); ++n) {
      before(n);
      const int fds = CountFds();
      JobEnd end = Run(kind, Here(n, ENOMEM, &calls));
      const bool done = end.done();
      if (!done) {
        ++failed;
        const std::string where = "call " + std::to_string(n);
        CheckFailure(end, where);
        // The answer itself is sent again when it could not be; the library says no errno.
        EXPECT_TRUE(end.told || n + 1 >= calls) << where;
        if (end.told) {
          EXPECT_EQ(end.status.error().sys_errno, ENOMEM) << end.status.error().message;
          EXPECT_THAT(end.status.error().message, HasSubstr(": Cannot allocate memory"));
        }
        EXPECT_EQ(CountFds(), fds) << where;
      }
      check(std::move(end), n);
    }
    EXPECT_GT(failed, least);
    RecordProperty("calls", n);
    fprintf(stderr, "%d calls, %d failed\n", n, failed);
  }
};

TEST_F(NetJobFaults, ARouterIsMadeWithAllItsWallsOrNotAtAll) {
  OpenRouter();
  const std::string whole = Shown(router_netns());
  EXPECT_THAT(whole, HasSubstr("hook forward priority filter; policy drop;"));
  EXPECT_THAT(whole, HasSubstr("conf/all/disable_ipv6:1"));
  router_.clear();
  Sweep(
      NetJobKind::kOpen, 80, [](int) {},
      [&](JobEnd end, int n) {
        if (!end.done()) return;
        ASSERT_EQ(end.fds.size(), kRouterFds);
        EXPECT_EQ(Shown(end.fds[static_cast<size_t>(RouterFd::kNetNs)].get()), whole) << n;
      });
}

TEST_F(NetJobFaults, AFunctionIsAttachedWithItsRulesOrLeavesNothing) {
  OpenRouter();
  MakeTarget();
  const std::string empty = Shown(router_netns());
  const std::string alone = Shown(target_.get());
  RunClean(NetJobKind::kAttach);
  const std::string full = Shown(router_netns());
  const std::string attached = Shown(target_.get());
  EXPECT_THAT(full, HasSubstr("isolated on"));
  EXPECT_THAT(attached, HasSubstr("conf/default/disable_ipv6:1"));
  RunClean(NetJobKind::kDetach);
  EXPECT_EQ(Shown(router_netns()), empty);
  Sweep(
      NetJobKind::kAttach, 30, [&](int) { MakeTarget(); },
      [&](JobEnd end, int n) {
        if (end.done()) {
          EXPECT_EQ(Shown(router_netns()), full) << n;
          EXPECT_EQ(Shown(target_.get()), attached) << n;
        }
        RunClean(NetJobKind::kDetach);
        EXPECT_EQ(Shown(router_netns()), empty) << n;
      });
  RunClean(NetJobKind::kAttach);
}

TEST_F(NetJobFaults, WhatIsDetachedIsGoneAtTheSecondTryAtTheLatest) {
  OpenRouter();
  MakeTarget();
  const std::string empty = Shown(router_netns());
  Sweep(
      NetJobKind::kDetach, 8, [&](int) { RunClean(NetJobKind::kAttach); },
      [&](JobEnd end, int n) {
        if (!end.done()) RunClean(NetJobKind::kDetach);
        EXPECT_EQ(Shown(router_netns()), empty) << n;
      });
}

TEST_F(NetJobFaults, RulesAloneChangeAllOrNothing) {
  OpenRouter();
  const std::string before = Shown(router_netns());
  RunClean(NetJobKind::kRules);
  const std::string after = Shown(router_netns());
  EXPECT_THAT(after, HasSubstr("192.168.77.2"));
  Sweep(
      NetJobKind::kRules, 4,
      [&](int) {
        router_.clear();
        OpenRouter();
      },
      [&](JobEnd end, int n) {
        const std::string shown = Shown(router_netns());
        // Changed and not told, or told and not changed; never by half.
        EXPECT_TRUE(shown == after || (!end.done() && shown == before)) << n << shown;
      });
}

}  // namespace
}  // namespace pulga::testing

int main(int argc, char** argv) {
  pulga::sys::ShareFaultsWithChildren();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
