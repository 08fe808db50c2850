#include "net/net_admin.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file_io.h"
#include "base/message_socket.h"
#include "base/sys.h"
#include "net/links.h"
#include "net/net_job.h"
#include "net/nft_apply.h"
#include "net/nft_rules.h"
#include "net/router_sockets.h"

namespace pulga {
namespace {

constexpr uint64_t Bit(int capability) { return 1ULL << capability; }
constexpr uint64_t kForNamespaces = Bit(CAP_SYS_ADMIN) | Bit(CAP_NET_ADMIN);
constexpr uint64_t kForOpening = kForNamespaces | Bit(CAP_SETUID) | Bit(CAP_SETGID);
constexpr uint64_t kForSockets = Bit(CAP_NET_ADMIN) | Bit(CAP_NET_RAW) | Bit(CAP_NET_BIND_SERVICE);

Status KeepOnly(uint64_t kept) {
  if (PULGA_SYS(sys::SetCapabilities, kept, 0) != 0) return LastError("net-capset");
  return OkStatus();
}

Status Enter(const char* step, int ns_fd, int type) {
  if (PULGA_SYS(setns, ns_fd, type) != 0) return LastError(step);
  return OkStatus();
}

Status WriteSysctl(const std::string& name, const char* value) {
  const Status written = WriteFile("/proc/sys/net/" + name, value);
  return written.ok() ? written : Status(Prefix("net-sysctl", written.error()));
}

// A kernel without it has nothing to turn off.
Status WriteSysctlIfThere(const std::string& name, const char* value) {
  if (PULGA_SYS(access, ("/proc/sys/net/" + name).c_str(), F_OK) == 0) {
    return WriteSysctl(name, value);
  }
  return errno == ENOENT ? OkStatus() : Status(LastError("net-sysctl " + name));
}

Status CheckRangeIsFree(const Ipv4Range& range) {
  PULGA_ASSIGN_OR_RETURN(LinkAdmin host, LinkAdmin::Open());
  PULGA_ASSIGN_OR_RETURN(const auto routes, host.Routes());
  for (const Ipv4Range& route : routes) {
    if (!route.Overlaps(range)) continue;
    return Error{Code::kInvalidArgument, EEXIST,
                 "network-range " + FormatIpv4Range(range) + " overlaps " + FormatIpv4Range(route) +
                     ", to which this host has a route: choose another"};
  }
  return OkStatus();
}

// What is inherited from the host differs from host to host: everything that matters is written.
Status SetRouterSysctls() {
  PULGA_RETURN_IF_ERROR(WriteSysctl("ipv4/ip_forward", "0"));
  for (const char* name : {"ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6",
                           // Rules for IP would see bridged frames before they arrive here, once.
                           "bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-arptables"}) {
    const bool bridge = std::string(name).compare(0, 6, "bridge") == 0;
    PULGA_RETURN_IF_ERROR(WriteSysctlIfThere(name, bridge ? "0" : "1"));
  }
  for (const char* name : {"ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter",
                           "ipv4/conf/all/accept_redirects", "ipv4/conf/all/send_redirects"}) {
    PULGA_RETURN_IF_ERROR(WriteSysctl(name, "0"));
  }
  return OkStatus();
}

Status MakeBridge(const NetJob& job) {
  PULGA_ASSIGN_OR_RETURN(LinkAdmin links, LinkAdmin::Open());
  PULGA_RETURN_IF_ERROR(links.SetUp("lo"));
  PULGA_RETURN_IF_ERROR(links.AddBridge(kRouterBridge));
  // The bridge's module is there now, and with it perhaps its settings.
  PULGA_RETURN_IF_ERROR(SetRouterSysctls());
  PULGA_RETURN_IF_ERROR(links.AddAddress(kRouterBridge, RouterAddress(job.range()),
                                         static_cast<uint8_t>(job.range_bits)));
  PULGA_RETURN_IF_ERROR(links.SetUp(kRouterBridge));
  return links.DeliverMarked(kRelayMark, kRelayTable);
}

// In the router's namespaces, made a moment ago.
Status MakeRouter(const NetJob& job, const std::string& rules, const MessageSocket& answer,
                  std::vector<UniqueFd>& fds) {
  PULGA_RETURN_IF_ERROR(KeepOnly(kForSockets));
  for (const char* path : {"/proc/self/ns/user", "/proc/self/ns/net"}) {
    PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY));
    fds.push_back(std::move(fd));
  }
  PULGA_RETURN_IF_ERROR(MakeBridge(job));
  PULGA_RETURN_IF_ERROR(MakeRouterSockets(RouterAddress(job.range()), fds));
  PULGA_RETURN_IF_ERROR(KeepOnly(Bit(CAP_NET_ADMIN)));
  return ApplyNftRules(rules, answer.fd());
}

// The two below take turns over a socket pair: one has its user namespace, the other has mapped it.
Status Turn(int go_fd) {
  if (PULGA_SYS(send, go_fd, "", 1, MSG_NOSIGNAL) == 1) return OkStatus();
  return LastError("send");
}

Status AwaitTurn(int go_fd) {
  char byte = 0;
  const ssize_t n = PULGA_SYS(recv, go_fd, &byte, 1, 0);
  if (n < 0) return LastError("recv");
  return n == 1 ? OkStatus() : Status(Error{Code::kInternal, 0, "the other is gone"});
}

Status EnterNewNamespaces(int go_fd) {
  if (PULGA_SYS(prctl, PR_SET_PDEATHSIG, SIGKILL) != 0) return LastError("net-pdeathsig");
  if (PULGA_SYS(unshare, CLONE_NEWUSER) != 0) return LastError("net-new-user-namespace");
  for (Status (*const step)(int) : {Turn, AwaitTurn}) {
    const Status done = step(go_fd);
    if (!done.ok()) return Prefix("net-id-map", done.error());
  }
  if (PULGA_SYS(setresgid, 0, 0, 0) != 0 || PULGA_SYS(setresuid, 0, 0, 0) != 0) {
    return LastError("net-ids");
  }
  if (PULGA_SYS(unshare, CLONE_NEWNET) != 0) return LastError("net-new-network-namespace");
  return OkStatus();
}

// Its answer goes through `answer` like ours: a text, and the descriptors.
[[noreturn]] void RouterMaker(const NetJob& job, const std::string& rules, int go_fd,
                              const MessageSocket& answer) {
  std::vector<UniqueFd> fds;
  Status made = EnterNewNamespaces(go_fd);
  if (made.ok()) made = MakeRouter(job, rules, answer, fds);
  std::vector<int> numbers;
  for (const UniqueFd& fd : fds) numbers.push_back(fd.get());
  _exit(TellNetAnswer(answer, made, numbers) ? 0 : 1);
}

Status MapOneId(pid_t child, uint32_t host_id) {
  const std::string directory = "/proc/" + std::to_string(child);
  const std::string map = "0 " + std::to_string(host_id) + " 1\n";
  PULGA_RETURN_IF_ERROR(WriteFile(directory + "/setgroups", "deny"));
  PULGA_RETURN_IF_ERROR(WriteFile(directory + "/gid_map", map));
  return WriteFile(directory + "/uid_map", map);
}

// What the maker did when it was let go on, or why it was not.
Status Make(pid_t maker, const NetJob& job, int go_fd, const MessageSocket& answer,
            std::vector<UniqueFd>& fds) {
  const Status ready = AwaitTurn(go_fd);
  Status mapped = ready.ok() ? MapOneId(maker, job.host_id) : ready;
  if (mapped.ok()) mapped = Turn(go_fd);
  if (!mapped.ok()) kill(maker, SIGKILL);
  auto heard = answer.Receive(kMaxNetAnswer + 1);
  // One that had ended before has said why.
  if (!mapped.ok() && (!heard.ok() || heard->bytes.empty())) {
    return Prefix("net-id-map", mapped.error());
  }
  PULGA_ASSIGN_OR_RETURN(Message made, std::move(heard));
  if (made.bytes.empty()) return Error{Code::kInternal, 0, "the router's maker died"};
  PULGA_RETURN_IF_ERROR(DecodeNetAnswer(made.bytes));
  if (made.fds_lost) return NoDescriptorFree("the router's sockets");
  fds = std::move(made.fds);
  return OkStatus();
}

Status Open(const NetJob& job, const std::string& rules, std::vector<UniqueFd>& fds) {
  PULGA_RETURN_IF_ERROR(CheckRangeIsFree(job.range()));
  PULGA_ASSIGN_OR_RETURN(auto go, MessageSocket::Pair());
  PULGA_ASSIGN_OR_RETURN(auto answer, MessageSocket::Pair());
  const pid_t pid = sys::Faulted() ? -1 : fork();
  if (pid < 0) return LastError("net-fork");
  if (pid == 0) {
    go.first = MessageSocket();
    answer.first = MessageSocket();
    RouterMaker(job, rules, go.second.fd(), answer.second);
  }
  go.second = MessageSocket();
  answer.second = MessageSocket();
  const Status made = Make(pid, job, go.first.fd(), answer.first, fds);
  // It has said all it had to say; one that could not would wait for us.
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
  return made;
}

// The rules last, in the router's user namespace and with CAP_NET_ADMIN there alone.
Status ApplyInRouter(const std::string& rules) {
  if (rules.empty()) return OkStatus();
  PULGA_RETURN_IF_ERROR(Enter("net-enter-user", kNetUserNsFd, CLONE_NEWUSER));
  PULGA_RETURN_IF_ERROR(KeepOnly(Bit(CAP_NET_ADMIN)));
  return ApplyNftRules(rules, kNetAnswerFd);
}

Status Attach(const NetJob& job, const std::string& rules) {
  const NetworkPort port = PortOf(job.range(), job.port_index);
  PULGA_RETURN_IF_ERROR(Enter("net-enter-function", kNetTargetNsFd, CLONE_NEWNET));
  PULGA_ASSIGN_OR_RETURN(LinkAdmin function, LinkAdmin::Open());
  PULGA_RETURN_IF_ERROR(WriteSysctlIfThere("ipv6/conf/default/disable_ipv6", "1"));
  PULGA_RETURN_IF_ERROR(Enter("net-enter-router", kNetRouterNsFd, CLONE_NEWNET));
  PULGA_ASSIGN_OR_RETURN(LinkAdmin router, LinkAdmin::Open());
  PULGA_RETURN_IF_ERROR(
      router.AddVeth({port.interface, kFunctionInterface, port.mac, kNetTargetNsFd}));
  PULGA_RETURN_IF_ERROR(router.AddPort(port.interface, kRouterBridge));
  PULGA_RETURN_IF_ERROR(
      function.AddAddress(kFunctionInterface, port.address, static_cast<uint8_t>(job.range_bits)));
  PULGA_RETURN_IF_ERROR(function.SetUp(kFunctionInterface));
  PULGA_RETURN_IF_ERROR(function.AddDefaultRoute(RouterAddress(job.range())));
  return ApplyInRouter(rules);
}

Status Detach(const NetJob& job, const std::string& rules) {
  PULGA_RETURN_IF_ERROR(Enter("net-enter-user", kNetUserNsFd, CLONE_NEWUSER));
  PULGA_RETURN_IF_ERROR(Enter("net-enter-router", kNetRouterNsFd, CLONE_NEWNET));
  PULGA_RETURN_IF_ERROR(KeepOnly(Bit(CAP_NET_ADMIN)));
  PULGA_ASSIGN_OR_RETURN(LinkAdmin router, LinkAdmin::Open());
  const Status gone = router.Delete(PortOf(job.range(), job.port_index).interface);
  const Status unruled = rules.empty() ? OkStatus() : ApplyNftRules(rules, kNetAnswerFd);
  return gone.ok() ? unruled : gone;
}

Status ApplyAlone(const std::string& rules) {
  PULGA_RETURN_IF_ERROR(Enter("net-enter-router", kNetRouterNsFd, CLONE_NEWNET));
  return ApplyInRouter(rules);
}

// `fds`: what kOpen answers with, in the order of RouterFd.
Status RunNetJob(const NetJob& job, const std::string& rules, std::vector<UniqueFd>& fds) {
  if (PULGA_SYS(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return LastError("net-no-new-privs");
  PULGA_RETURN_IF_ERROR(KeepOnly(job.kind == NetJobKind::kOpen ? kForOpening : kForNamespaces));
  switch (job.kind) {
    case NetJobKind::kOpen:
      return Open(job, rules, fds);
    case NetJobKind::kAttach:
      return Attach(job, rules);
    case NetJobKind::kDetach:
      return Detach(job, rules);
    case NetJobKind::kRules:
      return ApplyAlone(rules);
  }
  return Error{Code::kInvalidArgument, 0, "unknown kind of job"};
}

Result<std::pair<NetJob, std::string>> ReadJob() {
  PULGA_ASSIGN_OR_RETURN(const std::string raw, ReadFd(kNetJobFd, sizeof(NetJob) + kMaxNetRules));
  NetJob job;
  if (raw.size() < sizeof job) return Error{Code::kInvalidArgument, 0, "the job is too short"};
  memcpy(&job, raw.data(), sizeof job);
  if (job.magic != kNetJobMagic || raw.size() - sizeof job != job.rules_bytes) {
    return Error{Code::kInvalidArgument, 0, "this is no job"};
  }
  return std::pair(job, raw.substr(sizeof job));
}

}  // namespace

int ServeNetJob() {
  const MessageSocket answer{UniqueFd(kNetAnswerFd)};
  const auto job = ReadJob();
  std::vector<UniqueFd> fds;
  const Status done =
      job.ok() ? RunNetJob(job->first, job->second, fds) : Status(Prefix("net-job", job.error()));
  std::vector<int> numbers;
  for (const UniqueFd& fd : fds) numbers.push_back(fd.get());
  return TellNetAnswer(answer, done, numbers) ? 0 : 1;
}

}  // namespace pulga
