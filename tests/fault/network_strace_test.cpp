// pulga-netadmin and pulga-router from outside: strace makes the n-th call of a set fail, or kills
// at it, for n = 1, 2, 3 ... Finds what libmnl, libnftables and libc do, too. What a job says it
// has made is whole; the router serves confined or not at all. Needs: root, strace.
#include <poll.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "base/process.h"
#include "net/router_wire.h"
#include "tests/fault/launcher_life.h"
#include "tests/fault/network_lab.h"
#include "tests/fault/strace_log.h"

namespace pulga::testing {
namespace {

constexpr int kPatienceMs = 60000;

constexpr Set kNamespaces = {"namespaces", "unshare,setns,?fork,?vfork,clone,clone3", "ENOSPC",
                             ENOSPC};
constexpr Set kPrivileges = {
    "privileges", "setresuid,setresgid,capset,prctl,seccomp,?setrlimit,prlimit64", "EPERM", EPERM};
constexpr Set kFiles = {"files", "?open,openat,?access,faccessat,faccessat2,lseek", "EMFILE",
                        EMFILE};
constexpr Set kSockets = {"sockets",
                          "socket,socketpair,bind,listen,setsockopt,getsockopt,getsockname,fcntl,"
                          "epoll_create1,epoll_ctl,eventfd2",
                          "ENOBUFS", ENOBUFS};
constexpr Set kMessages = {"messages", "sendmsg,recvmsg,sendto,recvfrom,write,read", "EIO", EIO};

std::string BinDir() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
}

class NetworkStrace : public NetworkLab, public ::testing::WithParamInterface<Set> {
 protected:
  void SetUp() override {
    NetworkLab::SetUp();
    if (access(kStrace, X_OK) != 0) PULGA_SKIP("no strace: see scripts/setup");
  }
  std::string log() const { return folder_.path() + "/log"; }
  std::string Log() { return std::move(ReadFile(log(), 64 << 20)).value(); }

  std::vector<std::string> Strace(const std::string& what, int n) const {
    const std::string calls = GetParam().calls;
    return {kStrace,
            "-f",
            "-qq",
            "-o",
            log(),
            "-e",
            "trace=" + calls,
            "-e",
            "inject=" + calls + ":" + what + ":when=" + std::to_string(n)};
  }
  Start Injected(const std::string& what, int n) {
    return [this, what, n](const Fds& fds) {
      SpawnOptions spawn;
      spawn.argv = Strace(what, n);
      spawn.argv.push_back(BinDir() + "/pulga-netadmin");
      spawn.fds = {{0, 0}, {1, 1}, {2, 2}};
      for (size_t i = 0; i < fds.size(); ++i) {
        spawn.fds.emplace_back(fds[i], kNetJobFd + static_cast<int>(i));
      }
      return std::move(SpawnProcess(spawn)).value().pid();
    };
  }
  // `once(n)` for n = 1, 2, 3 ... until it touched nobody.
  void Sweep(const std::function<void(int n)>& once) {
    int n = 1;
    for (; n < kMostCalls && !HasFailure(); ++n) {
      once(n);
      if (!Touched(Log(), n)) break;
    }
    EXPECT_LT(n, kMostCalls);
    fprintf(stderr, "%s: %d calls, %d failed, %d without a word\n", GetParam().name, n, failed_,
            silent_);
  }
  void Count(const JobEnd& end, int n) {
    if (end.done()) return;
    ++failed_;
    // 127 is the dynamic linker's, which the launcher knows.
    silent_ += !end.told && end.wait_status != 127 << 8;
    CheckFailure(end, std::string(GetParam().name) + " call " + std::to_string(n));
  }
  void SweepJobs(const std::string& what);

  TempDir folder_ = std::move(TempDir::Create("/tmp/pulga-network-strace-")).value();
  int failed_ = 0, silent_ = 0;
};

// Each kind of job under the same injection, in the order of a function's life.
void NetworkStrace::SweepJobs(const std::string& what) {
  OpenRouter();
  MakeTarget();
  const std::string empty = Shown(router_netns());
  RunClean(NetJobKind::kAttach);
  const std::string full = Shown(router_netns());
  const std::string attached = Shown(target_.get());
  RunClean(NetJobKind::kDetach);
  Sweep([&](int n) {
    std::vector<UniqueFd> kept = std::exchange(router_, {});
    JobEnd end = Run(NetJobKind::kOpen, Injected(what, n));
    if (end.done()) {
      ASSERT_EQ(end.fds.size(), kRouterFds);
      EXPECT_EQ(Shown(end.fds[static_cast<size_t>(RouterFd::kNetNs)].get()), empty) << n;
    }
    Count(end, n);
    router_ = std::move(kept);
  });
  Sweep([&](int n) {
    MakeTarget();
    const JobEnd end = Run(NetJobKind::kAttach, Injected(what, n));
    if (end.done()) {
      EXPECT_EQ(Shown(router_netns()), full) << n;
      EXPECT_EQ(Shown(target_.get()), attached) << n;
    }
    Count(end, n);
    const std::string log = Log();
    const JobEnd undone = Run(NetJobKind::kDetach, Injected(what, n));
    Count(undone, n);
    if (!undone.done()) RunClean(NetJobKind::kDetach);
    EXPECT_EQ(Shown(router_netns()), empty) << n;
    EXPECT_TRUE(WriteFile(this->log(), log).ok());
  });
}

TEST_P(NetworkStrace, AJobIsDoneWhollyOrSaysWhyNot) {
  SweepJobs(std::string("error=") + GetParam().error);
  EXPECT_GT(failed_, 0);
  EXPECT_LE(silent_, 1);
}

TEST_P(NetworkStrace, AKilledJobLeavesNothingThatTheNextDoesNotRemove) {
  SweepJobs("signal=KILL");
  EXPECT_GT(failed_, 0);
}

// One start of the router: it serves, confined, or ends having said why.
class RouterStrace : public NetworkStrace {
 protected:
  void StartOnce(int n) {
    auto channel = std::move(MessageSocket::Pair()).value();
    SpawnOptions spawn;
    spawn.argv = Strace(std::string("error=") + GetParam().error, n);
    spawn.argv.push_back(BinDir() + "/pulga-router");
    spawn.argv.push_back("/etc/resolv.conf");
    spawn.fds = {{0, 0}, {1, 1}, {2, 2}, {channel.second.fd(), kRouterChannelFd}};
    for (int i = 0; i < 5; ++i) {
      const auto which = static_cast<size_t>(RouterFd::kTcpRelay) + static_cast<size_t>(i);
      spawn.fds.emplace_back(router_[which].get(), kRouterFirstSocketFd + i);
    }
    PidFd strace = std::move(SpawnProcess(spawn)).value();
    channel.second = MessageSocket();
    heard_ = false;
    const bool served = Served(channel.first, strace.pid(), n);
    channel.first = MessageSocket();
    const auto end = strace.Reap();
    ASSERT_TRUE(end.ok());
    EXPECT_TRUE(heard_ || end->wait_status != 0) << n;
    silent_ += !heard_ && end->wait_status != 127 << 8;
    failed_ += !served;
    NoProcessLeft();
  }
  bool Served(const MessageSocket& channel, pid_t strace, int n) {
    RouterOrder order;
    order.kind = OrderKind::kSetUp;
    order.address = Plan().range.base.value;
    order.bits = Plan().range.bits;
    (void)!channel.SendPod(order).ok();
    pollfd news = {channel.fd(), POLLIN, 0};
    EXPECT_EQ(poll(&news, 1, kPatienceMs), 1) << n;
    auto message = channel.Receive(kMaxNetAnswer);
    // It ended with our order unread.
    if (!message.ok() && message.error().sys_errno == ECONNRESET) {
      message = channel.Receive(kMaxNetAnswer);
    }
    if (!message.ok() || message->bytes.empty()) return false;
    heard_ = true;
    if (message->bytes[0] == '-') {
      const Status why = DecodeNetAnswer(message->bytes);
      EXPECT_NE(why.error().sys_errno, 0) << why.error().message;
      EXPECT_THAT(why.error().message, ::testing::StartsWith("pulga-router: "));
      return false;
    }
    EXPECT_TRUE(DecodeNotice(message->bytes).has_value());
    std::ifstream children("/proc/" + std::to_string(strace) + "/task/" + std::to_string(strace) +
                           "/children");
    std::string router;
    children >> router;
    std::ifstream in("/proc/" + router + "/status");
    const std::string status(std::istreambuf_iterator<char>(in), {});
    EXPECT_EQ(StatusField(status, "Seccomp"), "2") << n;
    return true;
  }
  bool heard_ = false;
};

TEST_P(RouterStrace, ServesConfinedOrSaysWhyNot) {
  OpenRouter();
  Sweep([this](int n) { StartOnce(n); });
  EXPECT_EQ(silent_, 0);
}

// The launcher alone, its helpers untouched: after what failed it goes on, and the next try works.
class LauncherNetworkStrace : public NetworkStrace {
 protected:
  void Live(int n) {
    std::vector<std::string> prefix = Strace(std::string("error=") + GetParam().error, n);
    prefix.erase(std::find(prefix.begin(), prefix.end(), "-f"));
    auto [strace, socket] = world_.StartBareLauncher({prefix});
    {
      LauncherClient client(world_.loop());
      client.SetNetwork(Plan(), [](UniqueFd) {});
      EXPECT_TRUE(client.AdoptLauncher(socket.TakeFd()).ok());
      Tries(client, n);
      if (client.available()) {
        EXPECT_TRUE(world_.Until([&, pid = strace.pid()] { return NobodyIsAttached(pid); })) << n;
      }
    }
    EXPECT_TRUE(strace.Reap().ok());
    EXPECT_TRUE(world_.Until([&] { return world_.Leftovers().empty(); }));
    EXPECT_THAT(world_.Leftovers(), ::testing::IsEmpty()) << n;
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
  }
  // Each call of the set may fail once, so several tries may.
  void Tries(LauncherClient& client, int n) {
    const size_t most = Split(GetParam().calls, ',').size() + 1;
    for (size_t i = 0; i < most; ++i) {
      ++spec_.version_id;
      const Life life = LiveOnce(world_, client, spec_);
      CheckLife(life, "call " + std::to_string(n));
      if (life.fine() || !client.available()) return;
      ++failed_;
    }
    ADD_FAILURE() << "call " << n << ": it never worked again";
  }
  // In no namespace that the launcher holds there is a port.
  static bool NobodyIsAttached(pid_t strace) {
    const std::string child = std::to_string(strace);
    std::ifstream children("/proc/" + child + "/task/" + child + "/children");
    std::string launcher;
    children >> launcher;
    std::error_code ignored;
    for (const auto& fd : std::filesystem::directory_iterator("/proc/" + launcher + "/fd")) {
      if (std::filesystem::read_symlink(fd, ignored).string().rfind("net:", 0) != 0) continue;
      const auto netns = OpenFile(fd.path(), O_RDONLY);
      if (netns.ok() && Shown(netns->get()).find("\n    p0") != std::string::npos) return false;
    }
    return true;
  }
  LauncherWorld world_;
  VersionSpec spec_ = [this] {
    VersionSpec spec = world_.Spec();
    spec.access.network.mode = NetworkMode::kEgress;
    return spec;
  }();
};

TEST_P(LauncherNetworkStrace, GoesOnAndTheNextTryWorks) {
  Sweep([this](int n) { Live(n); });
}

INSTANTIATE_TEST_SUITE_P(Strace, LauncherNetworkStrace,
                         ::testing::Values(kNamespaces, kFiles, kSockets, kMessages), NameOfSet);
INSTANTIATE_TEST_SUITE_P(Strace, NetworkStrace,
                         ::testing::Values(kNamespaces, kPrivileges, kFiles, kSockets, kMessages),
                         NameOfSet);
INSTANTIATE_TEST_SUITE_P(Strace, RouterStrace,
                         ::testing::Values(kPrivileges, kFiles, kSockets, kMessages), NameOfSet);

}  // namespace

NetworkLab::Start NetworkLab::Here(int, int, int*) {
  return [](const Fds& fds) {
    SpawnOptions spawn;
    spawn.argv = {BinDir() + "/pulga-netadmin"};
    spawn.fds = {{0, 0}, {1, 1}, {2, 2}};
    for (size_t i = 0; i < fds.size(); ++i) {
      spawn.fds.emplace_back(fds[i], kNetJobFd + static_cast<int>(i));
    }
    return std::move(SpawnProcess(spawn)).value().pid();
  };
}

}  // namespace pulga::testing
