#include "sandbox/egress_network.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "sandbox/id_ranges.h"
#include "sandbox/network_rule.h"

namespace pulga {
namespace {

constexpr Duration kJobTimeout = std::chrono::seconds(10);
constexpr Duration kRouterPause = std::chrono::milliseconds(500);
constexpr Duration kDetachPause = std::chrono::milliseconds(200);
constexpr Duration kLongestDetachPause = std::chrono::minutes(1);
constexpr size_t kMaxQueuedJobs = 512;
constexpr size_t kMaxNotice = std::max(sizeof(RouterNotice), kMaxNetAnswer);
constexpr size_t kMaxPinsWaiting = 1024;
// A router that reads nothing for so long is stuck. As it starts, all it is told may not fit in the
// socket at once.
constexpr int kRouterPatienceMs = 1000;
constexpr size_t kMaxPinsPerJob = 400;  // within kMaxNetRules
constexpr Duration kRefusedLogPause = std::chrono::seconds(10);
constexpr uint32_t kShortestPin = 30;
constexpr uint32_t kLongestPin = 4000;

Result<UniqueFd> AsFile(const NetJob& job, const std::string& rules) {
  UniqueFd fd(sys::Faulted() ? -1 : sys::MemfdCreate("net-job", MFD_CLOEXEC));
  if (!fd.valid()) return LastError("net-job");
  std::string bytes(reinterpret_cast<const char*>(&job), sizeof job);
  PULGA_RETURN_IF_ERROR(WriteAll(fd.get(), bytes + rules));
  if (PULGA_SYS(lseek, fd.get(), 0, SEEK_SET) != 0) return LastError("net-job");
  return fd;
}

Status SendPatiently(const MessageSocket& router, std::span<const std::byte> order) {
  while (true) {
    const Status sent = router.Send(order);
    if (sent.ok() || sent.error().sys_errno != EAGAIN) return sent;
    pollfd room = {router.fd(), POLLOUT, 0};
    if (poll(&room, 1, kRouterPatienceMs) == 0) return sent;
  }
}

uint32_t FirstFour(const std::array<uint8_t, 16>& bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | bytes[i];
  return value;
}

}  // namespace

Result<std::vector<AllowEntry>> EgressRules(const std::vector<NetworkRule>& rules) {
  std::vector<AllowEntry> out;
  for (const NetworkRule& rule : rules) {
    const auto bad = [&](const char* why) {
      return Error{Code::kInvalidArgument, 0,
                   "network.allow: \"" + FormatNetworkRule(rule) + "\": " + why};
    };
    if (rule.peer == PeerKind::kIpv6) return bad("outbound network is IPv4 only");
    AllowEntry entry;
    entry.name = rule.name;
    entry.range = {{FirstFour(rule.address)}, rule.prefix_bits};
    entry.protocol = rule.protocol == NetworkProtocol::kUdp ? IpProtocol::kUdp : IpProtocol::kTcp;
    entry.first_port = rule.first_port;
    entry.last_port = rule.last_port;
    if (rule.peer == PeerKind::kIpv4 && IsNeverReachable(entry.range)) {
      return bad("loopback, multicast and reserved addresses can not be allowed");
    }
    out.push_back(std::move(entry));
  }
  return out;
}

EgressNetwork::~EgressNetwork() {
  loop_.Cancel(job_timer_);
  loop_.Cancel(opening_timer_);
  for (const auto& [index, attached] : attached_) loop_.Cancel(attached.again);
  StopRouter();
}

// --- jobs

void EgressNetwork::Enqueue(Job job) {
  if (jobs_.size() >= kMaxQueuedJobs) {
    loop_.Post([done = std::move(job.done)] {
      done(Error{Code::kUnavailable, 0, "too much to do on the network at once"}, {});
    });
    return;
  }
  job.job.range_base = plan_.range.base.value;
  job.job.range_bits = plan_.range.bits;
  jobs_.push_back(std::move(job));
  RunNext();
}

void EgressNetwork::RunNext() {
  if (running_ || jobs_.empty()) return;
  running_ = true;
  const Status started = StartJob(jobs_.front());
  if (started.ok()) return;
  loop_.Post([this, started] { EndJob(started, {}); });
}

// What it calls may ask for more.
void EgressNetwork::EndJob(const Status& status, std::vector<UniqueFd> fds) {
  running_ = false;
  const Job job = std::move(jobs_.front());
  jobs_.pop_front();
  job.done(status, std::move(fds));
  RunNext();
}

Result<PidFd> EgressNetwork::Fork(NetHelper helper, NetChild& child) {
  PULGA_ASSIGN_OR_RETURN(child.cgroup, parts_.cgroup(helper));
  return parts_.fork([&child] { return ExecNetChild(child); }, child.cgroup->v2_dir.get());
}

Status EgressNetwork::StartJob(Job& job) {
  if (job.compose) job.rules = job.compose();
  job.job.rules_bytes = static_cast<uint32_t>(job.rules.size());
  if (parts_.admin_fd < 0) {
    return Error{Code::kUnsupported, ENOENT,
                 "pulga-netadmin is not installed beside pulga-launcher (it needs the packages "
                 "libnftables1 and libmnl0)"};
  }
  PULGA_ASSIGN_OR_RETURN(const UniqueFd request, AsFile(job.job, job.rules));
  PULGA_ASSIGN_OR_RETURN(auto answer, MessageSocket::Pair());
  PULGA_RETURN_IF_ERROR(SetNonBlocking(answer.first.fd()));
  NetChild child;
  child.program_fd = parts_.admin_fd;
  child.name = "pulga-netadmin";
  const auto fd_or_none = [&](RouterFd which) {
    return fds_.empty() ? -1 : fds_[static_cast<size_t>(which)].get();
  };
  child.fds = {request.get(), fd_or_none(RouterFd::kUserNs), fd_or_none(RouterFd::kNetNs),
               job.target.valid() ? job.target.get() : -1, answer.second.fd()};
  child.answer = child.fds.size() - 1;
  PULGA_ASSIGN_OR_RETURN(PidFd process, Fork(NetHelper::kAdmin, child));
  const int pid = process.pid();
  PULGA_RETURN_IF_ERROR(
      parts_.watch_child(std::move(process), [this](const ExitInfo& info) { OnJobEnd(info); }));
  answer_ = std::move(answer.first);
  running_pid_ = pid;
  job_late_ = false;
  job_timer_ = loop_.CallAfter(kJobTimeout, [this] {
    job_timer_ = 0;
    job_late_ = true;
    parts_.kill_child(running_pid_);
  });
  return OkStatus();
}

namespace {

Status AnswerOf(const Result<Message>& answer, int wait_status, bool late) {
  // 127: the dynamic linker found no library.
  if (wait_status == 127 << 8) {
    return Error{Code::kUnsupported, ENOENT,
                 "pulga-netadmin does not start: are libnftables1 and libmnl0 installed?"};
  }
  if (late) return ErrnoError("pulga-netadmin took too long", ETIMEDOUT);
  if (!answer.ok() && answer.error().sys_errno != EAGAIN) {
    return Prefix("pulga-netadmin's answer", answer.error());
  }
  if (!answer.ok() || answer->bytes.empty()) {
    return Error{Code::kInternal, 0,
                 "pulga-netadmin ended without a word, wait status " + std::to_string(wait_status)};
  }
  PULGA_RETURN_IF_ERROR(DecodeNetAnswer(answer->bytes));
  return answer->fds_lost ? Status(NoDescriptorFree("pulga-netadmin's answer")) : OkStatus();
}

}  // namespace

void EgressNetwork::OnJobEnd(const ExitInfo& info) {
  loop_.Cancel(std::exchange(job_timer_, 0));
  running_pid_ = -1;
  auto answer = answer_.Receive(kMaxNetAnswer + 1);
  answer_ = MessageSocket();
  std::vector<UniqueFd> fds;
  const Status status = AnswerOf(answer, info.wait_status, job_late_);
  if (status.ok()) fds = std::move(answer->fds);
  EndJob(status, std::move(fds));
}

void EgressNetwork::RunRules(std::function<std::string()> compose,
                             std::function<void(const Status&)> done) {
  Job job;
  job.job.kind = NetJobKind::kRules;
  job.compose = std::move(compose);
  job.done = [done = std::move(done)](const Status& status, std::vector<UniqueFd>) {
    done(status);
  };
  Enqueue(std::move(job));
}

// --- the router's namespaces

void EgressNetwork::Open(const NetworkPlan& plan, std::function<void(Result<UniqueFd>)> done) {
  if (state_ != State::kClosed &&
      (plan.range != plan_.range || plan.management_ports != plan_.management_ports)) {
    return done(Error{Code::kInvalidArgument, 0, "the network is open with another range"});
  }
  opens_.push_back(std::move(done));
  if (state_ == State::kOpen) return AnswerOpens(OkStatus());
  if (state_ == State::kOpening) return;
  state_ = State::kOpening;
  plan_ = plan;
  opening_timer_ = loop_.CallAfter(2 * kJobTimeout, [this] {
    opening_timer_ = 0;
    GiveUpOpening(ErrnoError("the router does not begin to serve", ETIMEDOUT));
  });
  Job job;
  job.job.kind = NetJobKind::kOpen;
  job.job.host_id = kRouterNamespaceHostId;
  job.rules = BaseRules(plan);
  job.done = [this](const Status& status, std::vector<UniqueFd> fds) {
    OnOpened(status, std::move(fds));
  };
  Enqueue(std::move(job));
}

void EgressNetwork::OnOpened(const Status& status, std::vector<UniqueFd> fds) {
  if (state_ != State::kOpening) return;  // too late: nobody waits for it
  if (!status.ok()) return GiveUpOpening(status);
  if (fds.size() != kRouterFds) {
    return GiveUpOpening(Error{Code::kInternal, 0, "no router came"});
  }
  fds_ = std::move(fds);
  pool_.emplace(plan_.range);
  const Status started = TryStartRouter();
  // Open once the host's addresses are known, and closed.
  if (!started.ok()) GiveUpOpening(Prefix("router", started.error()));
}

// Whoever asks next begins anew.
void EgressNetwork::GiveUpOpening(const Status& why) {
  if (state_ != State::kOpening) return;
  loop_.Cancel(std::exchange(opening_timer_, 0));
  state_ = State::kClosed;
  StopRouter();
  fds_.clear();
  AnswerOpens(why);
}

void EgressNetwork::AnswerOpens(const Status& status) {
  for (auto& done : std::exchange(opens_, {})) {
    if (!status.ok()) {
      done(Prefix("outbound network", status.error()));
      continue;
    }
    const int gateway = fds_[static_cast<size_t>(RouterFd::kGateway)].get();
    UniqueFd copy(PULGA_SYS(fcntl, gateway, F_DUPFD_CLOEXEC, 0));
    if (copy.valid())
      done(std::move(copy));
    else
      done(LastError("outbound network: gateway"));
  }
}

// --- ports

void EgressNetwork::Attach(Attachment what, std::function<void(Result<uint32_t>)> done) {
  auto port = is_open() ? pool_->Take() : std::nullopt;
  if (!port) {
    const Error why = is_open() ? Error{Code::kNoSpace, 0, "network: every address is in use"}
                                : Error{Code::kUnavailable, 0, "outbound network is not open"};
    loop_.Post([why, done = std::move(done)] { done(why); });
    return;
  }
  const uint32_t index = port->index;
  Job job;
  job.job.kind = NetJobKind::kAttach;
  job.job.port_index = index;
  job.rules = AttachRules(*port, what.allow);
  job.target = std::move(what.netns);
  // The router must know it before it can speak; one that can not be told is told anew.
  const std::string order = EncodeAdmission({port->address, what.version}, what.allow);
  Attached& attached = attached_[index];
  attached.port = *port;
  attached.serial = next_serial_++;
  attached.version = what.version;
  attached.allow = std::move(what.allow);
  if (router_.valid() && !SendPatiently(router_, std::as_bytes(std::span(order))).ok()) {
    parts_.kill_child(router_pid_);
  }
  job.done = [this, index, done = std::move(done)](const Status& status, std::vector<UniqueFd>) {
    if (status.ok()) return done(index);
    Detach(index);
    done(Prefix("network", status.error()));
  };
  Enqueue(std::move(job));
}

void EgressNetwork::Detach(uint32_t index) {
  const auto found = attached_.find(index);
  if (found == attached_.end() || std::exchange(found->second.leaving, true)) return;
  found->second.pause = kDetachPause;
  TakeAway(index);
}

void EgressNetwork::TakeAway(uint32_t index) {
  Attached& attached = attached_.at(index);
  Job job;
  job.job.kind = NetJobKind::kDetach;
  job.job.port_index = index;
  job.rules = DetachRules(attached.port, attached.allow);
  job.done = [this, index](const Status& status, std::vector<UniqueFd>) {
    if (status.ok()) return GiveBack(index);
    // Until then its address stays out of use: what it was allowed may still be open.
    LogError("detach a function: " + status.error().message);
    Attached& left = attached_.at(index);
    left.again = loop_.CallAfter(left.pause, [this, index] { TakeAway(index); });
    left.pause = std::min(2 * left.pause, kLongestDetachPause);
  };
  Enqueue(std::move(job));
}

void EgressNetwork::GiveBack(uint32_t index) {
  const auto found = attached_.find(index);
  if (found == attached_.end()) return;
  RouterOrder order;
  order.kind = OrderKind::kForget;
  order.address = found->second.port.address.value;
  TellRouter(order);
  attached_.erase(found);
  pool_->Give(index);
}

// --- the router process

void EgressNetwork::StartRouter() {
  const Status started = TryStartRouter();
  if (started.ok()) return;
  LogError("start the router: " + started.error().message);
  StopRouter();
  router_timer_ = loop_.CallAfter(kRouterPause, [this] {
    router_timer_ = 0;
    StartRouter();
  });
}

Status EgressNetwork::TryStartRouter() {
  if (parts_.router_fd < 0) return Error{Code::kUnsupported, ENOENT, "pulga-router is missing"};
  PULGA_ASSIGN_OR_RETURN(auto sockets, MessageSocket::Pair());
  PULGA_RETURN_IF_ERROR(SetNonBlocking(sockets.first.fd()));
  NetChild child;
  child.program_fd = parts_.router_fd;
  child.name = "pulga-router";
  child.arguments = {"/etc/resolv.conf"};
  child.id = kRouterHostId;
  router_failed_ = OkStatus();
  child.fds.push_back(sockets.second.fd());
  for (auto which = static_cast<size_t>(RouterFd::kTcpRelay);
       which < static_cast<size_t>(RouterFd::kGateway); ++which) {
    child.fds.push_back(fds_[which].get());
  }
  PULGA_ASSIGN_OR_RETURN(PidFd process, Fork(NetHelper::kRouter, child));
  const int pid = process.pid();
  PULGA_RETURN_IF_ERROR(parts_.watch_child(std::move(process), [this, pid](const ExitInfo& info) {
    if (router_pid_ == pid) OnRouterEnd(info);
  }));
  router_pid_ = pid;
  router_ = std::move(sockets.first);
  PULGA_RETURN_IF_ERROR(loop_.Watch(router_.fd(), EPOLLIN, [this](uint32_t) { OnRouterNotice(); }));
  RouterOrder order;
  order.kind = OrderKind::kSetUp;
  order.address = plan_.range.base.value;
  order.bits = plan_.range.bits;
  std::ranges::copy(plan_.management_ports, order.management_ports);
  PULGA_RETURN_IF_ERROR(router_.SendPod(order));
  for (const auto& [index, attached] : attached_) {
    const Holder holder{attached.port.address, attached.version};
    const std::string admission = EncodeAdmission(holder, attached.allow);
    PULGA_RETURN_IF_ERROR(SendPatiently(router_, std::as_bytes(std::span(admission))));
  }
  return OkStatus();
}

void EgressNetwork::OnRouterEnd(const ExitInfo& info) {
  while (router_.valid() && router_failed_.ok()) {  // its last word may still wait
    const auto message = router_.Receive(kMaxNotice);
    // It left something unread.
    if (!message.ok() && message.error().sys_errno == ECONNRESET) continue;
    if (!message.ok() || message->bytes.empty()) break;
    if (message->bytes[0] == '-') router_failed_ = DecodeNetAnswer(message->bytes);
  }
  const Status why =
      router_failed_.ok()
          ? Error{Code::kUnavailable, 0,
                  "the router ended, wait status " + std::to_string(info.wait_status)}
          : router_failed_;
  router_pid_ = -1;
  if (state_ == State::kOpening) return GiveUpOpening(why);
  LogWarning(why.error().message + ": starting another");
  StopRouter();
  router_timer_ = loop_.CallAfter(kRouterPause, [this] {
    router_timer_ = 0;
    StartRouter();
  });
}

void EgressNetwork::StopRouter() {
  loop_.Cancel(std::exchange(router_timer_, 0));
  if (router_.valid()) loop_.Unwatch(router_.fd());
  router_ = MessageSocket();
  for (const AskedPin& asked :
       std::exchange(pins_waiting_, {})) {  // the next one has other questions
    if (Attached* asker = AskerOf(asked))
      asker->pins.Failed(asked.pin.entry, asked.pin.address, asked.until);
  }
  for (AskedPin& asked : pins_opening_) asked.heard = false;
  if (router_pid_ >= 0) parts_.kill_child(std::exchange(router_pid_, -1));
}

void EgressNetwork::TellRouter(const RouterOrder& order) {
  if (!router_.valid()) return;
  const Status sent = SendPatiently(router_, std::as_bytes(std::span(&order, 1)));
  // One that does not read is as good as dead; its end starts another.
  if (!sent.ok() && router_pid_ >= 0) parts_.kill_child(router_pid_);
}

void EgressNetwork::OnRouterNotice() {
  auto message = router_.Receive(kMaxNotice);
  if (!message.ok() && message.error().sys_errno == EAGAIN) return;
  const auto notice = message.ok() ? DecodeNotice(message->bytes) : std::nullopt;
  if (message.ok() && !message->bytes.empty() && message->bytes[0] == '-') {
    router_failed_ = DecodeNetAnswer(message->bytes);
  }
  if (!notice || !router_failed_.ok()) {
    loop_.Unwatch(router_.fd());
    if (router_pid_ >= 0) parts_.kill_child(router_pid_);
    return;
  }
  if (notice->kind == NoticeKind::kPin) return OnPin(*notice);
  if (notice->kind == NoticeKind::kHostAddresses) return OnHostAddresses(*notice);
  if (notice->kind == NoticeKind::kRefused) return OnRefused(*notice);
}

std::map<uint32_t, EgressNetwork::Attached>::iterator EgressNetwork::FindByAddress(
    uint32_t address) {
  return std::find_if(attached_.begin(), attached_.end(), [address](const auto& entry) {
    return entry.second.port.address.value == address && !entry.second.leaving;
  });
}

// The router's word chooses an address of a name; which names, and that no name leads into the
// house, is decided here.
void EgressNetwork::OnPin(const RouterNotice& notice) {
  RouterOrder answer;
  answer.kind = OrderKind::kPinned;
  answer.request = notice.request;
  const auto found = FindByAddress(notice.function);
  const bool fits = found != attached_.end() && notice.entry < found->second.allow.size() &&
                    pins_waiting_.size() < kMaxPinsWaiting &&
                    !found->second.allow[notice.entry].name.empty() && IsPublic({notice.address});
  if (!fits) return TellRouter(answer);
  Pin pin;
  pin.index = found->first;
  pin.entry = notice.entry;
  pin.address = {notice.address};
  pin.seconds = std::clamp(notice.seconds, kShortestPin, kLongestPin);
  const TimePoint now = loop_.Now();
  const TimePoint until = now + std::chrono::seconds(pin.seconds);
  if (!found->second.pins.Set(pin.entry, pin.address, until, now)) return TellRouter(answer);
  pins_waiting_.push_back({pin, until, found->second.serial, answer});
  QueuePins();
}

// One job for all that wait: who looks up name after name delays no attach by more than that.
void EgressNetwork::QueuePins() {
  if (std::exchange(pins_queued_, true)) return;
  const auto began = std::make_shared<bool>(false);
  const auto compose = [this, began] {
    *began = true;
    return ComposePins();
  };
  RunRules(compose, [this, began](const Status& status) { AnswerPins(status, *began); });
}

std::string EgressNetwork::ComposePins() {
  pins_queued_ = false;
  auto waiting = std::exchange(pins_waiting_, {});
  if (waiting.size() > kMaxPinsPerJob) {
    pins_waiting_.assign(waiting.begin() + kMaxPinsPerJob, waiting.end());
    waiting.resize(kMaxPinsPerJob);
    QueuePins();
  }
  std::string rules;
  for (const AskedPin& asked : waiting) {
    if (AskerOf(asked) == nullptr) {
      TellRouter(asked.answer);
      continue;
    }
    rules += PinRules(asked.pin);
    pins_opening_.push_back(asked);
  }
  return rules;
}

void EgressNetwork::AnswerPins(const Status& status, bool began) {
  if (!status.ok()) LogWarning("open names' addresses: " + status.error().message);
  if (!began) pins_queued_ = false;
  auto asked = std::exchange(began ? pins_opening_ : pins_waiting_, {});
  for (AskedPin& one : asked) {
    if (Attached* asker = AskerOf(one)) {
      const auto told = status.ok() ? &PinTable::Opened : &PinTable::Failed;
      (asker->pins.*told)(one.pin.entry, one.pin.address, one.until);
    }
    one.answer.ok = status.ok() ? 1 : 0;
    if (one.heard) TellRouter(one.answer);
  }
}

EgressNetwork::Attached* EgressNetwork::AskerOf(const AskedPin& asked) {
  const auto found = attached_.find(asked.pin.index);
  if (found == attached_.end() || found->second.serial != asked.serial) return nullptr;
  return found->second.leaving ? nullptr : &found->second;
}

void EgressNetwork::OnRefused(const RouterNotice& notice) {
  const auto found = FindByAddress(notice.function);
  if (found == attached_.end()) return;
  Attached& attached = found->second;
  attached.refused += notice.refused;
  const TimePoint now = loop_.Now();
  if (now - attached.refused_logged < kRefusedLogPause) return;
  attached.refused_logged = now;
  LogWarning("outbound network: version " + std::to_string(attached.version) + " at " +
             FormatIpv4(attached.port.address) +
             " has its share: " + std::to_string(std::exchange(attached.refused, 0)) +
             " connections, datagrams or questions refused");
}

// However often they change while others wait, they are written once.
void EgressNetwork::OnHostAddresses(const RouterNotice& notice) {
  host_addresses_.clear();
  for (uint32_t i = 0; i < notice.count; ++i) host_addresses_.push_back({notice.addresses[i]});
  if (std::exchange(host_addresses_queued_, true)) return;
  const auto compose = [this] {
    host_addresses_queued_ = false;
    return HostAddressRules(host_addresses_);
  };
  RunRules(compose, [this](const Status& status) {
    host_addresses_queued_ = host_addresses_queued_ && status.ok();  // it may never have begun
    if (!status.ok() && state_ == State::kOpening) return GiveUpOpening(status);
    if (!status.ok()) {
      LogError("close the host's addresses: " + status.error().message);
      // The next one tells them again. This one refuses them, too, but both shall.
      if (router_pid_ >= 0) parts_.kill_child(router_pid_);
    }
    if (!status.ok() || state_ != State::kOpening) return;
    loop_.Cancel(std::exchange(opening_timer_, 0));
    state_ = State::kOpen;
    LogInfo("outbound network: functions get addresses of " + FormatIpv4Range(plan_.range));
    AnswerOpens(OkStatus());
  });
}

}  // namespace pulga
