// http mode: sockets made inside an instance's own network namespace, connected by the daemon.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;

class LauncherHttp : public LauncherTest {
 protected:
  VersionSpec HttpSpec() {
    VersionSpec spec = world_.Spec({"/http-hello"});
    spec.mode = SandboxMode::kHttp;
    spec.spare_netns = 2;
    return spec;
  }
  void StartIn(uint16_t slot) {
    StartOptions options = world_.WithPipes(stdio_[slot]);
    ASSERT_TRUE(spawner_->Start(slot, std::move(options)).ok());
  }
  UniqueFd Socket(uint16_t slot) {
    const int before = events_.socket_events;
    EXPECT_TRUE(spawner_->MakeSockets(slot, 1).ok());
    EXPECT_TRUE(world_.Until([&] { return events_.socket_events > before; }));
    if (events_.sockets.empty()) return UniqueFd();
    UniqueFd out = std::move(events_.sockets.back());
    events_.sockets.pop_back();
    return out;
  }
  // The reply to one GET, connecting as often as it takes.
  std::string Get(uint16_t slot, const std::string& path, uint16_t port = 8080) {
    for (int i = 0; i < 2000; ++i, usleep(5000)) {
      const UniqueFd fd = Socket(slot);
      if (!fd.valid()) return "no socket";
      sockaddr_in to = {};
      to.sin_family = AF_INET;
      to.sin_port = htons(port);
      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to);
      pollfd wait = {fd.get(), POLLOUT, 0};
      poll(&wait, 1, 60000);
      const std::string request = "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n";
      if (send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) continue;
      wait.events = POLLIN;
      poll(&wait, 1, 60000);
      char reply[4096];
      const ssize_t n = recv(fd.get(), reply, sizeof reply, 0);
      return n > 0 ? std::string(reply, static_cast<size_t>(n)) : "no reply";
    }
    return "never listened";
  }
  Stdio stdio_[4];
};

TEST_F(LauncherHttp, ServesThroughSocketsOfItsOwnNetwork) {
  Build(HttpSpec());
  StartIn(0);
  EXPECT_THAT(Get(0, "/"), HasSubstr("200"));
}

TEST_F(LauncherHttp, LetsSeveralInstancesListenOnTheSamePort) {
  Build(HttpSpec());
  for (uint16_t slot = 0; slot < 3; ++slot) StartIn(slot);
  for (uint16_t slot = 0; slot < 3; ++slot) EXPECT_THAT(Get(slot, "/"), HasSubstr("200"));
}

TEST_F(LauncherHttp, TellsHowTheServerEnded) {
  Build(HttpSpec());
  StartIn(0);
  Get(0, "/exit/9");
  ASSERT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
  EXPECT_EQ(WEXITSTATUS(events_.exits[0].wait_status), 9);
  StartIn(0);
  EXPECT_THAT(Get(0, "/"), HasSubstr("200"));
}

TEST_F(LauncherHttp, EndsAServerThatLeavesTermToItsDefaultAtOnce) {
  Build(HttpSpec());
  StartIn(0);
  Get(0, "/");
  ASSERT_TRUE(spawner_->Signal(0, SIGTERM).ok());  // PID 1: the kernel alone would drop it
  ASSERT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
  EXPECT_EQ(WTERMSIG(events_.exits[0].wait_status), SIGKILL);
}

TEST_F(LauncherHttp, LeavesAServerThatIgnoresTermRunning) {
  VersionSpec spec = HttpSpec();
  spec.argv = {"/probe", "ignore-term", "0;", "say", "deaf;", "sleep", "300"};
  Build(spec);
  StartIn(0);
  std::string said;
  ASSERT_TRUE(world_.UntilSaid(stdio_[0], said, "deaf"));
  ASSERT_TRUE(spawner_->Signal(0, SIGTERM).ok());
  ASSERT_TRUE(spawner_->MakeSockets(0, 1).ok());  // answered after the signal
  ASSERT_TRUE(world_.Until([&] { return events_.socket_events > 0; }));
  EXPECT_TRUE(events_.exits.empty());
  ASSERT_TRUE(spawner_->Signal(0, SIGKILL).ok());
  ASSERT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
}

TEST_F(LauncherHttp, BindsLowPortsWithoutAnyCapability) {
  VersionSpec spec = HttpSpec();
  spec.env.push_back("PORT=80");
  Build(spec);
  StartIn(0);
  EXPECT_THAT(Get(0, "/", 80), HasSubstr("200"));
}

TEST_F(LauncherHttp, MakesSocketsOnlyForRunningInstances) {
  Build(HttpSpec());
  EXPECT_FALSE(spawner_->MakeSockets(0, 1).ok());
}

}  // namespace
}  // namespace pulga::testing
