#include "sandbox/spawner_client.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"
#include "base/text.h"
#include "sandbox/cgroup_dialect.h"
#include "sandbox/isolation.h"
#include "sandbox/launcher_client.h"
#include "sandbox/secrets_mount.h"
#include "sandbox/swap_devices.h"
#include "sandbox/wire.h"

namespace pulga {
namespace {

// The kernel's own limit on one string of argv or envp.
constexpr size_t kMaxOneString = 128 * 1024 - 1;
// Less is as good as none.
constexpr uint64_t kLeastFreeSwap = 4 << 20;

TimePoint ToTime(uint64_t ns) { return TimePoint(std::chrono::nanoseconds(ns)); }

// As the launcher says: this kernel has no freezer.
bool StopsBySignals(const std::string& report) {
  const std::vector<Feature> layers = SplitLayers(report).layers;
  const Feature* freezer = FindFeature(layers, "cgroup.freezer");
  return freezer != nullptr && freezer->state == FeatureState::kDegraded;
}

Status CheckExtra(const char* what, const std::vector<std::string>& strings) {
  if (strings.size() > kMaxExtraStrings) {
    return Error{Code::kTooLarge, E2BIG, std::string(what) + ": too many entries"};
  }
  for (const std::string& s : strings) {
    if (s.size() > kMaxOneString) {
      return Error{Code::kTooLarge, E2BIG, std::string(what) + ": an entry is too long"};
    }
    if (s.find('\0') != std::string::npos) {
      return Error{Code::kInvalidArgument, 0, std::string(what) + ": an entry contains a NUL"};
    }
  }
  return OkStatus();
}

}  // namespace

SpawnerClient::SpawnerClient(EventLoop& loop, LauncherClient& launcher, SpawnerEvents& events,
                             Parts parts)
    : loop_(loop),
      launcher_(&launcher),
      events_(events),
      version_id_(parts.version_id),
      swap_limit_(parts.swap_limit),
      socket_(std::move(parts.socket)),
      outgoing_(loop, socket_),
      slots_(parts.slots),
      stops_by_signals_(StopsBySignals(parts.report)),
      warnings_(SplitLayers(parts.report).warnings),
      report_(std::move(parts.report)),
      wishes_(std::move(parts.wishes)),
      secrets_(std::move(parts.secrets)) {}

Result<std::unique_ptr<SpawnerClient>> SpawnerClient::Create(EventLoop& loop,
                                                             LauncherClient& launcher,
                                                             SpawnerEvents& events, Parts parts) {
  const size_t size = RecordsBytes(parts.slots);
  struct stat st = {};
  if (fstat(parts.records.get(), &st) != 0 || st.st_size != static_cast<off_t>(size)) {
    return Error{Code::kIo, 0, "slot records have a wrong size"};
  }
  PULGA_RETURN_IF_ERROR(SetNonBlocking(parts.socket.get()));
  const UniqueFd records = std::move(parts.records);
  std::unique_ptr<SpawnerClient> client(
      new SpawnerClient(loop, launcher, events, std::move(parts)));
  void* map = mmap(nullptr, size, PROT_READ, MAP_SHARED, records.get(), 0);
  if (map == MAP_FAILED) return LastError("map slot records");
  client->records_ = static_cast<const volatile SlotRecord*>(map);
  SpawnerClient* self = client.get();
  PULGA_RETURN_IF_ERROR(
      loop.Watch(self->socket_.fd(), EPOLLIN, [self](uint32_t) { self->OnReadable(); }));
  return client;
}

SpawnerClient::~SpawnerClient() {
  *alive_ = false;
  for (Slot& slot : slots_) CloseWake(slot);
  if (socket_.valid()) loop_.Unwatch(socket_.fd());
  if (records_ != nullptr) {
    munmap(const_cast<SlotRecord*>(records_), RecordsBytes(static_cast<uint16_t>(slots_.size())));
  }
  if (launcher_ != nullptr) launcher_->Forget(this);
}

void SpawnerClient::CloseWake(Slot& slot) {
  if (!slot.wake.valid()) return;
  if (slot.state == State::kParking) loop_.Unwatch(slot.wake.fd());
  slot.wake = MessageSocket();
}

void SpawnerClient::Gone(const Error& why) {
  launcher_ = nullptr;
  if (socket_.valid()) loop_.Unwatch(socket_.fd());
  outgoing_.Clear();
  socket_ = MessageSocket();
  for (Slot& slot : slots_) {
    CloseWake(slot);
    slot.state = State::kFree;
    slot.reclaim = 0;
  }
  events_.OnGone(why);  // may destroy this
}

Status SpawnerClient::Expect(uint16_t slot, State state) const {
  if (!socket_.valid()) return Error{Code::kUnavailable, 0, "the spawner is gone"};
  if (slot >= slots_.size()) return Error{Code::kInvalidArgument, 0, "no such slot"};
  if (slots_[slot].state == state) return OkStatus();
  return Error{Code::kInvalidArgument, 0, "the slot is in another state"};
}

template <typename To>
Status SpawnerClient::SendProgram(To& to, SpawnRequest request, const StartOptions& options) {
  PULGA_RETURN_IF_ERROR(CheckExtra("environment", options.extra_env));
  PULGA_RETURN_IF_ERROR(CheckExtra("arguments", options.extra_args));
  request.envc = static_cast<uint32_t>(options.extra_env.size());
  request.env_bytes = static_cast<uint32_t>(WireSizeOf(options.extra_env));
  request.argc = static_cast<uint32_t>(options.extra_args.size());
  request.arg_bytes = static_cast<uint32_t>(WireSizeOf(options.extra_args));
  WireWriter writer;
  writer.Put(request);
  writer.PutStrings(options.extra_env);
  writer.PutStrings(options.extra_args);
  if (writer.bytes().size() > kMaxSpawnMessage) {
    return Error{Code::kTooLarge, E2BIG, "environment and arguments are too large"};
  }
  const int fds[] = {options.stdin_fd.get(), options.stdout_fd.get(), options.stderr_fd.get(),
                     options.channel_fd.get()};
  for (int i = 0; i < 3; ++i) {
    if (fds[i] >= 0) continue;
    return Error{Code::kInvalidArgument, EBADF, "stdin, stdout and stderr are needed"};
  }
  return to.Send(writer.bytes(), std::span(fds).first(options.channel_fd.valid() ? 4 : 3));
}

Status SpawnerClient::Start(uint16_t slot, StartOptions options) {
  PULGA_RETURN_IF_ERROR(Expect(slot, State::kFree));
  SpawnRequest request = {};
  request.kind = SpawnKind::kStart;
  request.slot = slot;
  PULGA_RETURN_IF_ERROR(SendProgram(outgoing_, request, options));
  slots_[slot].state = State::kRunning;
  return OkStatus();
}

Status SpawnerClient::Park(uint16_t slot) {
  PULGA_RETURN_IF_ERROR(Expect(slot, State::kFree));
  SpawnRequest request = {};
  request.kind = SpawnKind::kPark;
  request.slot = slot;
  PULGA_RETURN_IF_ERROR(outgoing_.SendPod(request));
  slots_[slot].state = State::kParking;
  return OkStatus();
}

Status SpawnerClient::Wake(uint16_t slot, StartOptions options) {
  PULGA_RETURN_IF_ERROR(Expect(slot, State::kParked));
  SpawnRequest request = {};
  request.kind = SpawnKind::kWake;
  request.slot = slot;
  PULGA_RETURN_IF_ERROR(SendProgram(slots_[slot].wake, request, options));
  slots_[slot].state = State::kRunning;
  slots_[slot].wake = MessageSocket();
  return OkStatus();
}

Status SpawnerClient::MakeSockets(uint16_t slot, uint16_t count) {
  PULGA_RETURN_IF_ERROR(Expect(slot, State::kRunning));
  if (count < 1 || count > kMaxSocketsPerRequest) {
    return Error{Code::kInvalidArgument, 0, "1 to 64 sockets at a time"};
  }
  SpawnRequest request = {};
  request.kind = SpawnKind::kSockets;
  request.slot = slot;
  request.number = count;
  return outgoing_.SendPod(request);
}

Status SpawnerClient::SetSecrets(const std::vector<SecretFile>& secrets) {
  if (!socket_.valid()) return Error{Code::kUnavailable, 0, "the spawner is gone"};
  if (secrets.size() != secrets_.names.size()) {
    return Error{Code::kInternal, 0, "secrets: other ones than the version's"};
  }
  PULGA_ASSIGN_OR_RETURN(const UniqueFd bundle, MakeSecretBundle(secrets));
  SpawnRequest request = {};
  request.kind = SpawnKind::kSecrets;
  const int fd = bundle.get();
  return outgoing_.Send(std::as_bytes(std::span(&request, 1)), std::span(&fd, 1));
}

Status SpawnerClient::Signal(uint16_t slot, int signo) {
  if (!socket_.valid()) return Error{Code::kUnavailable, 0, "the spawner is gone"};
  if (slot >= slots_.size() || slots_[slot].state == State::kFree || signo < 1 || signo > 64) {
    return Error{Code::kInvalidArgument, 0, "no such instance or signal"};
  }
  // What is frozen would not notice, and on v1 not even die.
  if (slots_[slot].frozen()) (void)ThawSlot(slot);
  CancelReclaim(slot);
  SpawnRequest request = {};
  request.kind = SpawnKind::kSignal;
  request.slot = slot;
  request.number = static_cast<uint16_t>(signo);
  return outgoing_.SendPod(request);
}

Status SpawnerClient::Freeze(uint16_t slot) {
  PULGA_RETURN_IF_ERROR(Expect(slot, State::kRunning));
  if (!stops_by_signals_ || launcher_ == nullptr) return slots_[slot].freezer.Freeze();
  launcher_->StopSlot(version_id_, slot);
  slots_[slot].stopped = true;
  return OkStatus();
}

// Or has the launcher do it, before anything that it is told from now on.
Status SpawnerClient::ThawSlot(uint16_t slot) {
  if (!std::exchange(slots_[slot].stopped, false)) return slots_[slot].freezer.Thaw();
  if (launcher_ != nullptr) launcher_->ContinueSlot(version_id_, slot);
  return OkStatus();
}

Status SpawnerClient::Thaw(uint16_t slot) {
  PULGA_RETURN_IF_ERROR(Expect(slot, State::kRunning));
  PULGA_RETURN_IF_ERROR(ThawSlot(slot));  // before the launcher hears of it
  CancelReclaim(slot);
  return OkStatus();
}

Status SpawnerClient::CanReclaim() const {
  const std::vector<Feature> layers = SplitLayers(report_).layers;
  const Feature* layer = FindFeature(layers, "cgroup.reclaim");
  if (layer == nullptr || layer->state == FeatureState::kAbsent) {
    return Error{Code::kUnsupported, 0, layer == nullptr ? "not in this kernel" : layer->detail};
  }
  PULGA_ASSIGN_OR_RETURN(const ActiveSwap swap, ReadSwaps());
  PULGA_RETURN_IF_ERROR(MayPushOut(swap, swap_limit_));
  struct sysinfo info = {};
  if (sysinfo(&info) != 0) return LastError("sysinfo");
  if (static_cast<uint64_t>(info.freeswap) * info.mem_unit >= kLeastFreeSwap) return OkStatus();
  return Error{Code::kUnsupported, ENOSPC, "the swap of this board is full"};
}

Status SpawnerClient::Reclaim(uint16_t slot, ReclaimDone done) {
  PULGA_RETURN_IF_ERROR(Expect(slot, State::kRunning));
  PULGA_RETURN_IF_ERROR(CanReclaim());
  if (!slots_[slot].frozen()) {
    return Error{Code::kInvalidArgument, 0, "only what is frozen can be reclaimed"};
  }
  if (slots_[slot].reclaim != 0) {
    return Error{Code::kUnavailable, EBUSY, "it is being reclaimed already"};
  }
  const uint64_t number = slots_[slot].reclaim = ++last_reclaim_;
  const auto told = [this, alive = std::weak_ptr(alive_), slot, number,
                     done = std::move(done)](Result<Reclaimed> brought) {
    if (alive.expired() || slots_[slot].reclaim != number) return;
    slots_[slot].reclaim = 0;
    const auto swap = ReadSwaps();
    if (brought.ok() && swap.ok() && !swap->zram.empty()) {
      brought->zram_bytes = TakenInZram(Memory(slot).swapped, ReadZramUse(*swap));
    }
    done(brought);
  };
  launcher_->Reclaim(version_id_, slot, told);
  return OkStatus();
}

void SpawnerClient::CancelReclaim(uint16_t slot) {
  if (std::exchange(slots_[slot].reclaim, 0) == 0 || launcher_ == nullptr) return;
  launcher_->CancelReclaim(version_id_, slot);
}

void SpawnerClient::Resize(const InstanceSize& size, std::function<void(Status)> done) {
  if (launcher_ == nullptr) return;  // OnGone tells
  launcher_->Resize(version_id_, size,
                    [this, alive = std::weak_ptr(alive_), done = std::move(done)](Status status) {
                      // What is lost with the launcher is answered after Gone().
                      if (!alive.expired() && launcher_ != nullptr) done(std::move(status));
                    });
}

uint32_t SpawnerClient::Processes(uint16_t slot) const {
  return slot < slots_.size() ? slots_[slot].freezer.Processes() : 0;
}

SlotTimes SpawnerClient::Times(uint16_t slot) const {
  if (slot >= slots_.size()) return {};
  const volatile SlotRecord& record = records_[slot];
  SlotTimes times{ToTime(record.begun_ns), ToTime(record.ready_ns), ToTime(record.exec_ns)};
  for (size_t i = 0; i < kSetupSteps; ++i) {
    times.steps[i] = std::chrono::nanoseconds(record.step_ns[i]);
  }
  return times;
}

uint64_t SpawnerClient::MemoryBytes(uint16_t slot) const {
  if (slot >= slots_.size() || !slots_[slot].memory.fd.valid()) return 0;
  char text[32];
  const ssize_t n = pread(slots_[slot].memory.fd.get(), text, sizeof text, 0);
  if (n <= 0) return 0;
  const std::string_view seen(text, static_cast<size_t>(n));
  return ParseCounter(slots_[slot].memory.format, seen).value_or(0);
}

InstanceMemory SpawnerClient::Memory(uint16_t slot) const {
  return slot < slots_.size() ? slots_[slot].parts.Read(MemoryBytes(slot)) : InstanceMemory();
}

std::optional<InstanceCpu> SpawnerClient::Cpu(uint16_t slot) const {
  return slot < slots_.size() ? slots_[slot].cpu.Read() : std::nullopt;
}

std::vector<Feature> SpawnerClient::layers() const {
  std::vector<Feature> layers = SplitLayers(report_).layers;
  if (launcher_ == nullptr) return layers;
  return WithGrants(std::move(layers), FindGrantsUsed(wishes_, launcher_->grants()));
}

std::vector<RefusedCount> SpawnerClient::TakeRefusals() {
  const auto* record = reinterpret_cast<const volatile RefusalRecord*>(records_ + slots_.size());
  return refusals_.Take(*record);
}

void SpawnerClient::OnReadable() {
  const std::shared_ptr<bool> alive = alive_;
  while (*alive && socket_.valid()) {
    auto message = socket_.Receive(sizeof(SpawnEvent));
    if (!message.ok() && message.error().sys_errno == EAGAIN) return;
    SpawnEvent event;
    if (message.ok() && message->fds_lost && message->bytes.size() == sizeof event) {
      memcpy(&event, message->bytes.data(), sizeof event);
      OnEventWithoutFds(event);
      continue;
    }
    if (!message.ok() || message->bytes.size() != sizeof event) {
      // The launcher may hear of our drop before it does of the death, and then says nothing.
      LogWarning("the spawner of version " + std::to_string(version_id_) + " of " +
                 wishes_.function + " died");
      if (launcher_ != nullptr) launcher_->Forget(this);
      return Gone(Error{Code::kUnavailable, 0, "the spawner died"});
    }
    memcpy(&event, message->bytes.data(), sizeof event);
    if (OnEvent(event, std::move(message->fds))) continue;
    if (!*alive) return;
    if (launcher_ != nullptr) launcher_->Forget(this);
    return Gone(Error{Code::kInternal, 0, "the spawner broke the protocol"});
  }
}

// We had no descriptor free: one start fails or is not measured, and the spawner lives on.
void SpawnerClient::OnEventWithoutFds(const SpawnEvent& event) {
  LogWarning(NoDescriptorFree("receive from the spawner of version " + std::to_string(version_id_))
                 .message);
  const bool optional =
      event.kind == SpawnEventKind::kMemoryFds || event.kind == SpawnEventKind::kFreezerFds ||
      event.kind == SpawnEventKind::kStatFds || event.kind == SpawnEventKind::kCpuFds;
  if (optional || event.slot >= slots_.size()) return;
  (void)Signal(event.slot, SIGKILL);  // a parked one that cannot be woken, a server out of reach
}

bool SpawnerClient::OnEvent(const SpawnEvent& event, std::vector<UniqueFd> fds) {
  if (event.slot >= slots_.size()) return false;
  Slot& slot = slots_[event.slot];
  switch (event.kind) {
    case SpawnEventKind::kMemoryFds: {
      if (fds.size() != event.number || event.slot + fds.size() > slots_.size()) return false;
      const auto format = static_cast<CounterFormat>(event.sys_errno);
      for (size_t i = 0; i < fds.size(); ++i) {
        slots_[event.slot + i].memory = {std::move(fds[i]), format};
      }
      return true;
    }
    case SpawnEventKind::kFreezerFds:
      return TakeFreezers(event, std::move(fds));
    case SpawnEventKind::kStatFds:
    case SpawnEventKind::kCpuFds:
      return TakePairs(event, std::move(fds));
    case SpawnEventKind::kWakeSocket: {
      if (slot.state != State::kParking || fds.size() != 1 || slot.wake.valid()) return false;
      slot.wake = MessageSocket(std::move(fds[0]));
      const uint16_t number = event.slot;
      return SetNonBlocking(slot.wake.fd()).ok() &&
             loop_
                 .Watch(slot.wake.fd(), EPOLLIN,
                        [this, number](uint32_t) { OnWakeReadable(number); })
                 .ok();
    }
    case SpawnEventKind::kSockets: {
      if (fds.size() != event.number) return false;
      if (slot.state == State::kRunning) events_.OnSockets(event.slot, std::move(fds));
      return true;
    }
    case SpawnEventKind::kSecrets:
      if (event.sys_errno == 0) return !secrets_.names.empty();
      // It would go on with old ones, or none; a new spawner tries anew.
      LogWarning(
          ErrnoError("put the secrets of " + wishes_.function + " into place", event.sys_errno)
              .message);
      return false;
    case SpawnEventKind::kExit: {
      if (slot.state == State::kFree) return false;
      CloseWake(slot);
      slot.state = State::kFree;
      if (slot.frozen()) (void)ThawSlot(event.slot);  // for the next one in it
      CancelReclaim(event.slot);
      InstanceExit exit;
      exit.slot = event.slot;
      exit.wait_status = event.wait_status;
      exit.setup_step = Printable(std::string_view(event.step, strnlen(event.step, kStepBytes)));
      exit.sys_errno = event.sys_errno;
      exit.oom_killed = event.oom_killed != 0;
      exit.memory_peak_bytes = event.memory_peak_bytes;
      exit.cpu_time = Duration(static_cast<int64_t>(event.cpu_time_ns));
      events_.OnExit(exit);
      return true;
    }
  }
  return false;
}

// They are written to, so they must be what they are said to be.
bool SpawnerClient::TakeFreezers(const SpawnEvent& event, std::vector<UniqueFd> fds) {
  if (fds.size() != 2U * event.number || event.slot + event.number > slots_.size()) return false;
  for (size_t i = 0; i < event.number; ++i) {
    auto freezer = SlotFreezer::Adopt({std::move(fds[2 * i]), std::move(fds[2 * i + 1])});
    if (!freezer.ok()) return false;
    slots_[event.slot + i].freezer = std::move(*freezer);
  }
  return true;
}

// What tells of slots: their memory in parts, or their use of processors.
bool SpawnerClient::TakePairs(const SpawnEvent& event, std::vector<UniqueFd> fds) {
  if (event.sys_errno != 1 && event.sys_errno != 2) return false;
  const auto each = static_cast<size_t>(event.sys_errno);
  if (fds.size() != each * event.number || event.slot + event.number > slots_.size()) return false;
  for (size_t i = 0; i < event.number; ++i) {
    Slot& slot = slots_[event.slot + i];
    UniqueFd first = std::move(fds[each * i]);
    UniqueFd second = each == 2 ? std::move(fds[each * i + 1]) : UniqueFd();
    if (event.kind == SpawnEventKind::kCpuFds) {
      auto cpu = SlotCpu::Adopt({std::move(first), std::move(second)});
      if (!cpu.ok()) return false;
      slot.cpu = std::move(*cpu);
      continue;
    }
    auto parts = SlotMemory::Adopt({std::move(first), std::move(second)});
    if (!parts.ok()) return false;
    slot.parts = std::move(*parts);
  }
  return true;
}

// One byte: parked. End of file: it died, and the spawner tells how.
void SpawnerClient::OnWakeReadable(uint16_t number) {
  Slot& slot = slots_[number];
  const auto message = slot.wake.Receive(16);
  loop_.Unwatch(slot.wake.fd());
  if (!message.ok() || message->bytes.size() != 1) {
    slot.wake = MessageSocket();
    return;
  }
  slot.state = State::kParked;
  events_.OnParked(number);
}

}  // namespace pulga
