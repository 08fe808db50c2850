#include "sandbox/spawner.h"

#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/sys.h"
#include "sandbox/build_report.h"
#include "sandbox/clone_child.h"
#include "sandbox/default_signal.h"
#include "sandbox/instance_trial.h"
#include "sandbox/isolation.h"
#include "sandbox/received_fds.h"
#include "sandbox/spawner_setup.h"

namespace pulga {
namespace {

constexpr int kFdsPerMessage = 128;
constexpr uint64_t kAttachPatienceNs = 10'000'000'000;

alignas(16) char g_request[kMaxSpawnMessage];

struct Slot {
  pid_t pid = 0;  // PID 1 of the instance, as the spawner sees it; 0 = free
  SpareNetns netns;
  UniqueFd mounts;  // kept until its end is told: taking mounts down costs more than the telling
  std::vector<int> v1_tasks;
  int v2_dir = -1;
  SlotCounters counters;
};

int FdsOf(SpawnKind kind, SandboxMode mode) {
  const int of_start = mode == SandboxMode::kFrames ? kStdioAndChannelFds : kStdioFds;
  if (kind == SpawnKind::kStart) return of_start;
  return kind == SpawnKind::kSecrets ? 1 : 0;
}

// Of the instance as a whole: PID 1 has waited for everybody else in it.
Duration CpuTime(const rusage& usage) {
  const auto of = [](const timeval& t) {
    return std::chrono::seconds(t.tv_sec) + std::chrono::microseconds(t.tv_usec);
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

class SpawnerLoop {
 public:
  SpawnerLoop(std::unique_ptr<SpawnerState> state, std::vector<SlotCgroup> cgroups);
  void SendMemoryFds();
  void SendFreezers(std::vector<FreezerFds> freezers);
  using FdPair = std::pair<UniqueFd, UniqueFd>;  // the second one may be missing
  void SendPairs(SpawnEventKind kind, const std::vector<FdPair>& pairs);
  [[noreturn]] void Run();

 private:
  void ServeSocket();
  int SignalFor(uint16_t number, int signo) const;
  void ServeRequest(const SpawnRequest& request, size_t blob_size, const ReceivedFds& fds);
  void Start(const SpawnRequest& request, size_t blob_size, const ReceivedFds& fds);
  void Park(uint16_t slot);
  bool SettingUp() const;
  // By grant: the spawner itself is in the host's namespace, and so is whatever it clones.
  bool OnHostNetwork() const { return state_->spec.access.network.mode == NetworkMode::kHost; }
  void Clone(uint16_t number, ChildRun& run);
  bool AwaitLauncher();
  void MakeSockets(uint16_t slot, uint16_t count);
  void ReplaceSecrets(const ReceivedFds& fds);
  void ReapChildren();
  void ReportExit(uint16_t number, int wait_status, Duration cpu_time = Duration::zero());
  void SendEvent(const SpawnEvent& event, const int* fds, int count);

  std::unique_ptr<SpawnerState> state_;
  std::vector<CgroupJoin> joins_;
  std::vector<Slot> slots_;
  uint64_t begun_ns_ = 0;
};

SpawnerLoop::SpawnerLoop(std::unique_ptr<SpawnerState> state, std::vector<SlotCgroup> cgroups)
    : state_(std::move(state)) {
  for (SlotCgroup& cgroup : cgroups) {
    Slot slot;
    for (const UniqueFd& fd : cgroup.join.v1_tasks) slot.v1_tasks.push_back(fd.get());
    slot.v2_dir = cgroup.join.v2_dir.get();
    slot.counters = SlotCounters(std::move(cgroup.counters));
    slot.counters.Begin();
    slots_.push_back(std::move(slot));
    joins_.push_back(std::move(cgroup.join));
  }
}

void SpawnerLoop::SendEvent(const SpawnEvent& event, const int* fds, int count) {
  iovec iov = {const_cast<SpawnEvent*>(&event), sizeof event};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kFdsPerMessage)];
  msghdr msg = {};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  if (count > 0) {
    const size_t bytes = sizeof(int) * static_cast<size_t>(count);
    msg.msg_control = control;
    msg.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* header = CMSG_FIRSTHDR(&msg);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(header), fds, bytes);
  }
  ssize_t n;
  do {
    n = PULGA_SYS(sendmsg, state_->socket_fd, &msg, MSG_NOSIGNAL);
  } while (n < 0 && errno == EINTR);
  // The daemon is gone, and the instances have nobody to answer to.
  if (n < 0) _exit(errno == EPIPE || errno == ECONNRESET ? 0 : 1);
}

void SpawnerLoop::SendMemoryFds() {
  for (size_t first = 0; first < slots_.size(); first += kFdsPerMessage) {
    int fds[kFdsPerMessage];
    int count = 0;
    CounterFormat format = CounterFormat::kNumber;
    for (size_t i = first; i < slots_.size() && count < kFdsPerMessage; ++i) {
      const CounterFd& counter = slots_[i].counters.fds().memory_current;
      if (!counter.fd.valid()) return;
      fds[count++] = counter.fd.get();
      format = counter.format;
    }
    SpawnEvent event = {};
    event.kind = SpawnEventKind::kMemoryFds;
    event.slot = static_cast<uint16_t>(first);
    event.number = static_cast<uint16_t>(count);
    event.sys_errno = static_cast<int32_t>(format);
    SendEvent(event, fds, count);
  }
}

void SpawnerLoop::SendFreezers(std::vector<FreezerFds> freezers) {
  for (size_t first = 0; first < freezers.size(); first += kFdsPerMessage / 2) {
    int fds[kFdsPerMessage];
    SpawnEvent event = {};
    event.kind = SpawnEventKind::kFreezerFds;
    event.slot = static_cast<uint16_t>(first);
    for (size_t i = first; i < freezers.size() && event.number < kFdsPerMessage / 2; ++i) {
      if (!freezers[i].state.valid()) return;
      fds[2 * event.number] = freezers[i].state.get();
      fds[2 * event.number++ + 1] = freezers[i].processes.get();
    }
    SendEvent(event, fds, 2 * event.number);
  }
}

void SpawnerLoop::SendPairs(SpawnEventKind kind, const std::vector<FdPair>& pairs) {
  if (pairs.empty() || !pairs[0].first.valid()) return;
  const size_t each = pairs[0].second.valid() ? 2 : 1;
  for (size_t first = 0; first < pairs.size(); first += kFdsPerMessage / each) {
    int fds[kFdsPerMessage];
    int count = 0;
    SpawnEvent event = {};
    event.kind = kind;
    event.slot = static_cast<uint16_t>(first);
    event.sys_errno = static_cast<int32_t>(each);
    for (size_t i = first; i < pairs.size() && event.number < kFdsPerMessage / each; ++i) {
      if (!pairs[i].first.valid() || pairs[i].second.valid() != (each == 2)) return;
      fds[count++] = pairs[i].first.get();
      if (each == 2) fds[count++] = pairs[i].second.get();
      ++event.number;
    }
    SendEvent(event, fds, count);
  }
}

// In a burst the processors share the work; it is the single start that must not wait for one.
bool SpawnerLoop::SettingUp() const {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].pid > 0 && state_->records[i].ready_ns == 0) return true;
  }
  return false;
}

// Until the launcher has answered; false when that takes too long. What others of the version are
// refused meanwhile is answered, or they would wait as long.
bool SpawnerLoop::AwaitLauncher() {
  const uint64_t end = MonotonicNs() + kAttachPatienceNs;
  RefusalListener& refusals = state_->refusals;
  pollfd fds[2] = {{state_->netns.attach_fd(), POLLIN, 0}, {-1, POLLIN, 0}};
  while (true) {
    const uint64_t now = MonotonicNs();
    if (now >= end) return false;
    fds[1].fd = refusals.fd(now);
    const int left = static_cast<int>((end - now) / 1'000'000) + 1;
    const int pace = refusals.WaitMs(now);
    const int n = poll(fds, 2, pace < 0 ? left : std::min(left, pace));
    if (n < 0 && errno != EINTR) _exit(1);
    if (n <= 0) continue;
    if (fds[0].revents != 0) return true;
    refusals.AnswerOne(now, *state_->refusal_record);
  }
}

// A failure here is the spawner's own; it is reported like one of the child.
void SpawnerLoop::Clone(uint16_t number, ChildRun& run) {
  Slot& slot = slots_[number];
  SlotRecord& record = state_->records[number];
  record = {};
  record.begun_ns = begun_ns_;
  run.plan = &state_->plan;
  run.arguments = state_->arguments.get();
  run.record = &record;
  run.v1_tasks = slot.v1_tasks;
  if (state_->spec.mode == SandboxMode::kHttp && !OnHostNetwork()) {
    slot.netns = state_->netns.Take([this] { return AwaitLauncher(); });
    if (!slot.netns.fd.valid()) {
      strcpy(record.step, "net-new");
      record.sys_errno = errno;
      return ReportExit(number, 0);
    }
    run.netns = slot.netns.fd.get();
  }
  CloneOptions options;
  slot.mounts = state_->spares.TakeMounts();
  run.mount_namespace = slot.mounts.get();
  const UniqueFd ruleset = state_->spares.TakeRuleset();
  run.ruleset = ruleset.get();
  options.flags = kInstanceNamespaces | (slot.mounts.valid() ? 0 : CLONE_NEWNS) |
                  (state_->spares.TakeIpc() ? 0 : CLONE_NEWIPC);
  options.cgroup_fd = slot.v2_dir;
  const bool execs_at_once = run.wake < 0 && run.plan->init == InitKind::kNone;
  options.memory = execs_at_once ? CloneMemory::kVfork : CloneMemory::kFork;
  const bool stays = run.wake < 0 && !SettingUp() && state_->same_cpu.Stay();
  if (stays) run.stayed = &state_->same_cpu;
  slot.pid = CloneChild(options, ChildMain, &run);
  const int failed = errno;
  if (stays) (void)state_->same_cpu.GiveBack();  // or with the next one: no instance keeps less
  if (slot.pid > 0) return;
  slot.pid = 0;
  strcpy(record.step, "clone");
  record.sys_errno = failed;
  ReportExit(number, 0);
}

void SpawnerLoop::Start(const SpawnRequest& request, size_t blob_size, const ReceivedFds& fds) {
  if (!state_->arguments->Assemble(request, g_request + sizeof request, blob_size)) _exit(1);
  ChildRun run;
  memcpy(run.stdio, fds.fds(), sizeof run.stdio);
  if (fds.count() == kStdioAndChannelFds) run.channel = fds.fds()[kStdioFds];
  Clone(request.slot, run);
}

void SpawnerLoop::Park(uint16_t number) {
  int pair[2];
  if (PULGA_SYS(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    SlotRecord& record = state_->records[number];
    record = {};
    strcpy(record.step, "park");
    record.sys_errno = errno;
    return ReportExit(number, 0);
  }
  const UniqueFd ours(pair[0]);
  const UniqueFd theirs(pair[1]);
  SpawnEvent event = {};
  event.kind = SpawnEventKind::kWakeSocket;
  event.slot = number;
  event.number = 1;
  SendEvent(event, &pair[0], 1);
  ChildRun run;
  run.wake = theirs.get();
  Clone(number, run);
}

void SpawnerLoop::MakeSockets(uint16_t number, uint16_t count) {
  std::vector<UniqueFd> sockets;
  SpawnEvent event = {};
  event.kind = SpawnEventKind::kSockets;
  event.slot = number;
  if (OnHostNetwork() && slots_[number].pid > 0) {
    event.sys_errno = MakeTcpSockets(sockets, count);
  } else if (slots_[number].netns.fd.valid()) {
    event.sys_errno = state_->netns.MakeSockets(slots_[number].netns.fd.get(), sockets, count);
  } else {
    event.sys_errno = ENOTCONN;
  }
  int fds[kMaxSocketsPerRequest];
  for (const UniqueFd& fd : sockets) fds[event.number++] = fd.get();
  SendEvent(event, fds, event.number);
}

void SpawnerLoop::ReplaceSecrets(const ReceivedFds& fds) {
  SpawnEvent event = {};
  event.kind = SpawnEventKind::kSecrets;
  event.sys_errno = state_->secrets.Replace(fds.fds()[0]);
  SendEvent(event, nullptr, 0);
}

// Our init passes on every signal, though while it waits for one /proc shows none as blocked;
// before the program is there it has nobody to pass it to.
int SpawnerLoop::SignalFor(uint16_t number, int signo) const {
  if (state_->plan.init != InitKind::kPulga) return AsOrdinarySignal(slots_[number].pid, signo);
  return signo == SIGTERM && state_->records[number].ready_ns == 0 ? SIGKILL : signo;
}

// The daemon keeps to free slots and known kinds; one that does not is not worth serving.
void SpawnerLoop::ServeRequest(const SpawnRequest& request, size_t blob_size,
                               const ReceivedFds& fds) {
  if (request.slot >= slots_.size()) _exit(1);
  if (fds.count() != FdsOf(request.kind, state_->spec.mode)) _exit(1);
  Slot& slot = slots_[request.slot];
  switch (request.kind) {
    case SpawnKind::kStart:
      if (slot.pid != 0) _exit(1);
      return Start(request, blob_size, fds);
    case SpawnKind::kPark:
      // What is woken gets no channel.
      if (slot.pid != 0 || state_->spec.mode == SandboxMode::kFrames) _exit(1);
      return Park(request.slot);
    case SpawnKind::kSignal:
      if (request.number < 1 || request.number > 64) _exit(1);
      if (slot.pid > 0) kill(slot.pid, SignalFor(request.slot, request.number));
      return;
    case SpawnKind::kSockets:
      if (request.number < 1 || request.number > kMaxSocketsPerRequest) _exit(1);
      return MakeSockets(request.slot, request.number);
    case SpawnKind::kSecrets:
      if (!state_->secrets.mounted()) _exit(1);
      return ReplaceSecrets(fds);
    case SpawnKind::kWake:
      break;
  }
  _exit(1);
}

void SpawnerLoop::ServeSocket() {
  StdioMessage message(g_request, sizeof g_request);
  const ssize_t n = message.Receive(state_->socket_fd, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  begun_ns_ = MonotonicNs();
  if (n <= 0) _exit(n == 0 ? 0 : 1);
  const ReceivedFds fds(message.header());
  SpawnRequest request;
  if (!fds.proper() || n < static_cast<ssize_t>(sizeof request)) _exit(1);
  memcpy(&request, g_request, sizeof request);
  ServeRequest(request, static_cast<size_t>(n) - sizeof request, fds);
}

void SpawnerLoop::ReportExit(uint16_t number, int wait_status, Duration cpu_time) {
  Slot& slot = slots_[number];
  const SlotRecord& record = state_->records[number];
  const SlotUsage usage = slot.counters.End();
  slot.pid = 0;
  state_->netns.Release(std::exchange(slot.netns, {}));
  SpawnEvent event = {};
  event.kind = SpawnEventKind::kExit;
  event.slot = number;
  event.wait_status = record.has_wait_status == 1 ? record.wait_status : wait_status;
  event.sys_errno = record.sys_errno;
  memcpy(event.step, record.step, sizeof event.step - 1);
  event.oom_killed = usage.oom_kills > 0 ? 1 : 0;
  event.memory_peak_bytes = usage.memory_peak_bytes;
  event.cpu_time_ns = static_cast<uint64_t>(std::max(usage.cpu_time, cpu_time).count());
  SendEvent(event, nullptr, 0);
  slot.mounts.Reset();
  slot.counters.Begin();
  state_->spares.Refresh();
}

void SpawnerLoop::ReapChildren() {
  signalfd_siginfo info;
  while (read(state_->signal_fd, &info, sizeof info) == sizeof info) {
  }
  int status = 0;
  rusage usage = {};
  pid_t pid;
  while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
    for (size_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].pid != pid) continue;
      ReportExit(static_cast<uint16_t>(i), status, CpuTime(usage));
      break;
    }
  }
}

void SpawnerLoop::Run() {
  pollfd fds[5] = {{state_->socket_fd, POLLIN, 0},
                   {state_->signal_fd, POLLIN, 0},
                   {state_->lifeline_fd, POLLIN, 0},
                   {state_->netns.attach_fd(), POLLIN, 0},
                   {-1, POLLIN, 0}};
  RefusalListener& refusals = state_->refusals;
  while (true) {
    const uint64_t now = MonotonicNs();
    fds[4].fd = refusals.fd(now);
    const int wait = refusals.WaitMs(now);
    const bool full = state_->netns.full();
    const int n = poll(fds, 5, full ? wait : 0);
    if (n < 0 && errno != EINTR) _exit(1);
    if (n == 0 && !full && !state_->netns.Refill(1).ok()) {
      // Out of namespaces or memory for now: the next Take() tries again and reports it.
      poll(fds, 5, wait);
    }
    if (n <= 0) continue;
    if (fds[1].revents != 0) ReapChildren();
    if (fds[2].revents != 0) _exit(0);
    if (fds[3].revents != 0) state_->netns.OnAnswer();
    if (fds[0].revents != 0) ServeSocket();
    if (fds[4].revents != 0) refusals.AnswerOne(now, *state_->refusal_record);
  }
}

}  // namespace

void SpawnerMain(void* raw) {
  SpawnerInput& input = *static_cast<SpawnerInput*>(raw);
  auto state = SetUpSpawner(input);
  if (!state.ok()) {
    ReportFailure(input.report_fd, state.error());
    _exit(1);
  }
  std::vector<FreezerFds> freezers;
  std::vector<SpawnerLoop::FdPair> memory;
  std::vector<SpawnerLoop::FdPair> cpu;
  for (SlotCgroup& slot : input.slots) {
    freezers.push_back(std::move(slot.freezer));
    memory.emplace_back(std::move(slot.memory.stat), std::move(slot.memory.swap));
    cpu.emplace_back(std::move(slot.cpu.usage), std::move(slot.cpu.throttled));
  }
  const std::string layers = EncodeLayers((*state)->layers);
  SpawnerLoop loop(std::move(*state), std::move(input.slots));
  loop.SendMemoryFds();
  loop.SendFreezers(std::move(freezers));
  loop.SendPairs(SpawnEventKind::kStatFds, memory);
  loop.SendPairs(SpawnEventKind::kCpuFds, cpu);
  memory.clear();
  cpu.clear();
  if (!SendReport(input.report_fd, MakeReport(ReportKind::kReady, -1, layers)).ok()) _exit(1);
  close(input.report_fd);
  malloc_trim(0);  // what set-up freed: every clone would copy its page tables
  loop.Run();
}

}  // namespace pulga
