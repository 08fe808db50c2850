// The network's helpers outside the launcher: jobs of pulga-netadmin and the router's namespaces,
// inside a network namespace of this program's own. What a job has made is compared as text, so
// that nothing can be missing that filters. Needs root.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/file_io.h"
#include "base/message_socket.h"
#include "base/sys.h"
#include "net/net_job.h"
#include "net/nft_rules.h"
#include "sandbox/id_ranges.h"
#include "tests/support/fault_sweep.h"
#include "tests/support/test_gate.h"

namespace pulga::testing {

// How one job ended.
struct JobEnd {
  Status status;
  bool told = false;  // by an answer, not by its end alone
  int wait_status = 0;
  std::vector<UniqueFd> fds;
  bool done() const { return told && status.ok(); }
};

class NetworkLab : public ::testing::Test {
 protected:
  using Fds = std::array<int, 5>;  // of a job's process, from kNetJobFd on
  // Starts a process with them, under injection or not.
  using Start = std::function<pid_t(const Fds&)>;

  void SetUp() override {
    PULGA_NEEDS_ROOT();
    if (access("/usr/sbin/nft", X_OK) != 0) PULGA_SKIP("no nft to look at the rules with");
    static const int alone = unshare(CLONE_NEWNET);
    ASSERT_EQ(alone, 0);
    ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    null_ = std::move(OpenFile("/dev/null", O_RDWR)).value();
  }

  // --- jobs

  static NetJob JobOf(NetJobKind kind, const std::string& rules) {
    NetJob job;
    job.kind = kind;
    job.range_base = Plan().range.base.value;
    job.range_bits = Plan().range.bits;
    job.port_index = Port().index;
    job.host_id = kRouterNamespaceHostId;
    job.rules_bytes = static_cast<uint32_t>(rules.size());
    return job;
  }
  static NetworkPlan Plan() { return {{{0x0A530000}, 16}, {8080}}; }  // 10.83.0.0/16
  static NetworkPort Port() { return PortOf(Plan().range, 3); }
  static std::vector<AllowEntry> Allow() {
    AllowEntry address, name;
    address.range = {{0xCB007105}, 32};  // 203.0.113.5
    address.first_port = address.last_port = 443;
    name.name = "api.example";
    return {address, name};
  }
  static std::string RulesOf(NetJobKind kind) {
    switch (kind) {
      case NetJobKind::kOpen:
        return BaseRules(Plan());
      case NetJobKind::kAttach:
        return AttachRules(Port(), Allow());
      case NetJobKind::kDetach:
        return DetachRules(Port(), Allow());
      case NetJobKind::kRules:
        return HostAddressRules({{0xC0A84D02}});  // 192.168.77.2
    }
    return "";
  }

  JobEnd Run(NetJobKind kind, const Start& start) {
    const std::string rules = RulesOf(kind);
    const NetJob job = JobOf(kind, rules);
    const UniqueFd request(memfd_create("job", MFD_CLOEXEC));
    EXPECT_EQ(write(request.get(), &job, sizeof job), static_cast<ssize_t>(sizeof job));
    EXPECT_EQ(write(request.get(), rules.data(), rules.size()), static_cast<ssize_t>(rules.size()));
    EXPECT_EQ(lseek(request.get(), 0, SEEK_SET), 0);
    auto answer = std::move(MessageSocket::Pair()).value();
    const bool open = router_.size() == kRouterFds;
    const pid_t pid = start({request.get(), open ? router_[0].get() : null_.get(),
                             open ? router_[1].get() : null_.get(),
                             target_.valid() ? target_.get() : null_.get(), answer.second.fd()});
    JobEnd end;
    EXPECT_EQ(waitpid(pid, &end.wait_status, 0), pid);
    sys::FailNthCall(0, 0);
    answer.second = MessageSocket();
    auto message = std::move(answer.first.Receive(kMaxNetAnswer)).value();
    end.told = !message.bytes.empty();
    if (end.told) end.status = DecodeNetAnswer(message.bytes);
    end.fds = std::move(message.fds);
    NoProcessLeft();
    return end;
  }

  // The program's own: a process that does the job, its n-th call failing (0: none), which
  // `calls` gets the number of.
  static Start Here(int n, int sys_errno, int* calls = nullptr);
  JobEnd RunClean(NetJobKind kind) {
    JobEnd end = Run(kind, Here(0, 0));
    EXPECT_TRUE(end.done()) << (end.told ? end.status.error().message : "no word");
    return end;
  }

  // --- what is there

  // Everything that filters, and every interface, in that namespace.
  static std::string Shown(int netns) {
    std::string out;
    std::thread looker([&out, netns] {
      EXPECT_EQ(setns(netns, CLONE_NEWNET), 0);
      FILE* shown = popen(
          "tail -n +3 /proc/net/dev | cut -d: -f1; nft -s list ruleset; ip -4 rule;"
          "ip route show table all | sed 's/ linkdown//';"
          "ip -4 -o addr | sed 's/ valid_lft.*//'; cd /proc/sys/net;"
          "grep -s . ipv4/ip_forward ipv6/conf/default/disable_ipv6 ipv6/conf/all/disable_ipv6 "
          "ipv4/conf/all/rp_filter ipv4/conf/all/send_redirects bridge/bridge-nf-call-iptables;"
          "bridge -d link | grep -o 'isolated on' || true",
          "re");
      std::array<char, 4096> part;
      while (size_t n = fread(part.data(), 1, part.size(), shown)) out.append(part.data(), n);
      EXPECT_EQ(pclose(shown), 0);
    });
    looker.join();
    return out;
  }
  static void NoProcessLeft() {
    pid_t left = 0;
    for (int tries = 0; tries < 1000 && left >= 0; ++tries) {  // a killed one's child is on its way
      left = waitpid(-1, nullptr, __WALL | WNOHANG);
      if (left == 0) usleep(10000);
    }
    EXPECT_TRUE(left < 0 && errno == ECHILD) << "a process is left";
  }
  // An error that says what failed and why; with the errno injected or one that follows from it.
  static void CheckFailure(const JobEnd& end, const std::string& where) {
    EXPECT_NE(end.wait_status, 0) << where;
    EXPECT_THAT(end.fds, ::testing::IsEmpty()) << where;
    if (!end.told) return;
    ASSERT_FALSE(end.status.ok()) << where;
    EXPECT_NE(end.status.error().message, "") << where;
  }

  void OpenRouter() {
    JobEnd end = RunClean(NetJobKind::kOpen);
    ASSERT_EQ(end.fds.size(), kRouterFds);
    router_ = std::move(end.fds);
  }
  int router_netns() const { return router_[static_cast<size_t>(RouterFd::kNetNs)].get(); }
  // A namespace to attach, of nobody else.
  void MakeTarget() {
    std::thread maker([this] {
      ASSERT_EQ(unshare(CLONE_NEWNET), 0);
      target_ = std::move(OpenFile("/proc/thread-self/ns/net", O_RDONLY)).value();
    });
    maker.join();
  }

  UniqueFd null_;
  std::vector<UniqueFd> router_;  // by RouterFd
  UniqueFd target_;
};

}  // namespace pulga::testing
