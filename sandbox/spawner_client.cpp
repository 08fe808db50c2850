#include "sandbox/spawner_client.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/log.h"
#include "base/text.h"
#include "sandbox/cgroup_dialect.h"
#include "sandbox/launcher_client.h"
#include "sandbox/wire.h"

namespace pulga {
namespace {

// The kernel's own limit on one string of argv or envp.
constexpr size_t kMaxOneString = 128 * 1024 - 1;

TimePoint ToTime(uint64_t ns) { return TimePoint(std::chrono::nanoseconds(ns)); }

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
      socket_(std::move(parts.socket)),
      slots_(parts.slots),
      warnings_(std::move(parts.warnings)) {}

Result<std::unique_ptr<SpawnerClient>> SpawnerClient::Create(EventLoop& loop,
                                                             LauncherClient& launcher,
                                                             SpawnerEvents& events, Parts parts) {
  const size_t size = sizeof(SlotRecord) * parts.slots;
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
    munmap(const_cast<SlotRecord*>(records_), sizeof(SlotRecord) * slots_.size());
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
  socket_ = MessageSocket();
  for (Slot& slot : slots_) {
    CloseWake(slot);
    slot.state = State::kFree;
  }
  events_.OnGone(why);  // may destroy this
}

Status SpawnerClient::Expect(uint16_t slot, State state) const {
  if (!socket_.valid()) return Error{Code::kUnavailable, 0, "the spawner is gone"};
  if (slot >= slots_.size()) return Error{Code::kInvalidArgument, 0, "no such slot"};
  if (slots_[slot].state == state) return OkStatus();
  return Error{Code::kInvalidArgument, 0, "the slot is in another state"};
}

Status SpawnerClient::SendProgram(const MessageSocket& to, SpawnRequest request,
                                  const StartOptions& options) {
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
  const int fds[3] = {options.stdin_fd.get(), options.stdout_fd.get(), options.stderr_fd.get()};
  for (int fd : fds) {
    if (fd < 0) return Error{Code::kInvalidArgument, EBADF, "stdin, stdout and stderr are needed"};
  }
  return to.Send(writer.bytes(), fds);
}

Status SpawnerClient::Start(uint16_t slot, StartOptions options) {
  PULGA_RETURN_IF_ERROR(Expect(slot, State::kFree));
  SpawnRequest request = {};
  request.kind = SpawnKind::kStart;
  request.slot = slot;
  PULGA_RETURN_IF_ERROR(SendProgram(socket_, request, options));
  slots_[slot].state = State::kRunning;
  return OkStatus();
}

Status SpawnerClient::Park(uint16_t slot) {
  PULGA_RETURN_IF_ERROR(Expect(slot, State::kFree));
  SpawnRequest request = {};
  request.kind = SpawnKind::kPark;
  request.slot = slot;
  PULGA_RETURN_IF_ERROR(socket_.SendPod(request));
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
  return socket_.SendPod(request);
}

Status SpawnerClient::Signal(uint16_t slot, int signo) {
  if (!socket_.valid()) return Error{Code::kUnavailable, 0, "the spawner is gone"};
  if (slot >= slots_.size() || slots_[slot].state == State::kFree || signo < 1 || signo > 64) {
    return Error{Code::kInvalidArgument, 0, "no such instance or signal"};
  }
  SpawnRequest request = {};
  request.kind = SpawnKind::kSignal;
  request.slot = slot;
  request.number = static_cast<uint16_t>(signo);
  return socket_.SendPod(request);
}

SlotTimes SpawnerClient::Times(uint16_t slot) const {
  if (slot >= slots_.size()) return {};
  const volatile SlotRecord& record = records_[slot];
  return {ToTime(record.begun_ns), ToTime(record.ready_ns), ToTime(record.exec_ns)};
}

uint64_t SpawnerClient::MemoryBytes(uint16_t slot) const {
  if (slot >= slots_.size() || !slots_[slot].memory.fd.valid()) return 0;
  char text[32];
  const ssize_t n = pread(slots_[slot].memory.fd.get(), text, sizeof text, 0);
  if (n <= 0) return 0;
  const std::string_view seen(text, static_cast<size_t>(n));
  return ParseCounter(slots_[slot].memory.format, seen).value_or(0);
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
  if (event.kind == SpawnEventKind::kMemoryFds || event.slot >= slots_.size()) return;
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
    case SpawnEventKind::kExit: {
      if (slot.state == State::kFree) return false;
      CloseWake(slot);
      slot.state = State::kFree;
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
