#include "tests/support/fake_sandbox.h"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace pulga::testing {
namespace {

bool WriteAllTo(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n <= 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace

// --- programs

std::string FakeProgram::ReadAll() {
  std::string all;
  char buffer[4096];
  while (const size_t n = ReadSome(buffer, sizeof buffer)) all.append(buffer, n);
  return all;
}

size_t FakeProgram::ReadSome(char* buffer, size_t size) {
  const ssize_t n = read(fds_[0].get(), buffer, size);
  return n > 0 ? static_cast<size_t>(n) : 0;
}

bool FakeProgram::Print(std::string_view text) { return WriteAllTo(fds_[1].get(), text); }
bool FakeProgram::Complain(std::string_view text) { return WriteAllTo(fds_[2].get(), text); }
void FakeProgram::CloseOutput() { fds_[1].Reset(); }

int FakeProgram::WaitForSignal() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !signals_.empty() || over_; });
  if (signals_.empty()) return SIGKILL;
  const int signo = signals_.front();
  signals_.pop_front();
  return signo;
}

std::string FakeProgram::Env(const std::string& name) const {
  for (const std::string& entry : env_) {
    if (entry.rfind(name + "=", 0) == 0) return entry.substr(name.size() + 1);
  }
  return "";
}

// --- connections

size_t FakeConnection::ReadSome(char* buffer, size_t size) {
  if (!rest_.empty()) {
    const size_t n = std::min(size, rest_.size());
    rest_.copy(buffer, n);
    rest_.erase(0, n);
    return n;
  }
  const ssize_t n = read(fd_.get(), buffer, size);
  return n > 0 ? static_cast<size_t>(n) : 0;
}

std::string FakeConnection::ReadHead() {
  for (;;) {
    const size_t end = rest_.find("\r\n\r\n");
    if (end != std::string::npos) {
      std::string head = rest_.substr(0, end + 4);
      rest_.erase(0, end + 4);
      return head;
    }
    char buffer[4096];
    const ssize_t n = read(fd_.get(), buffer, sizeof buffer);
    if (n <= 0) return "";
    rest_.append(buffer, static_cast<size_t>(n));
  }
}

std::string FakeConnection::ReadRequest() {
  std::string request = ReadHead();
  if (request.empty()) return "";
  const auto fill = [this] {
    char buffer[16384];
    const ssize_t n = read(fd_.get(), buffer, sizeof buffer);
    if (n > 0) rest_.append(buffer, static_cast<size_t>(n));
    return n > 0;
  };
  const auto line = [&] {
    while (rest_.find('\n') == std::string::npos && fill()) {
    }
    const std::string text = rest_.substr(0, rest_.find('\n'));
    rest_.erase(0, text.size() + 1);
    return text;
  };
  const auto take = [&](size_t size) {
    while (rest_.size() < size && fill()) {
    }
    request += rest_.substr(0, size);
    rest_.erase(0, size);
  };
  const size_t length = request.find("Content-Length: ");
  if (length != std::string::npos) {
    take(std::stoul(request.substr(length + 16)));
  } else if (request.find("Transfer-Encoding: chunked") != std::string::npos) {
    while (const size_t size = std::stoul("0" + line(), nullptr, 16)) {
      take(size);
      line();
    }
    line();
  }
  return request;
}

bool FakeConnection::Send(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void FakeConnection::Reply(std::string_view body) {
  Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
       std::string(body));
}

void FakeConnection::Reset() {
  const linger hard = {1, 0};
  setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
}

// --- the spawner

class FakeSpawner final : public Spawner {
 public:
  FakeSpawner(FakeSandbox& sandbox, VersionSpec spec, SpawnerEvents& events)
      : sandbox_(sandbox), spec_(std::move(spec)), events_(events), warnings_(sandbox.warnings) {
    sandbox_.live_spawners_.insert(this);
    ++sandbox_.spawners;
  }
  ~FakeSpawner() override {
    sandbox_.live_spawners_.erase(this);
    --sandbox_.spawners;
    gone_ = true;
    for (auto& [slot, instance] : instances_) End(slot, *instance);
  }

  Status Start(uint16_t slot, StartOptions options) override {
    if (gone_) return Error{Code::kUnavailable, 0, "the spawner is gone"};
    PULGA_CHECK(slot < spec_.slots && instances_.count(slot) == 0);
    if (broken_ || sandbox_.broken_pipes > 0) return BreakPipe();
    ++sandbox_.starts;
    Add(slot);
    if (!sandbox_.setup_step.empty()) return FailSetup(slot);
    Exec(slot, std::move(options));
    return OkStatus();
  }

  std::vector<RefusedCount> TakeRefusals() override { return std::exchange(sandbox_.refusals, {}); }

  Status Park(uint16_t slot) override {
    if (gone_) return Error{Code::kUnavailable, 0, "the spawner is gone"};
    PULGA_CHECK(slot < spec_.slots && instances_.count(slot) == 0);
    ++sandbox_.parks;
    Add(slot);
    if (!sandbox_.setup_step.empty()) return FailSetup(slot);
    const uint64_t life = instances_[slot]->life;
    After(sandbox_.park_delay, slot, life, [this, slot] {
      instances_[slot]->parked = true;
      events_.OnParked(slot);
    });
    return OkStatus();
  }

  Status Wake(uint16_t slot, StartOptions options) override {
    if (gone_) return Error{Code::kUnavailable, 0, "the spawner is gone"};
    PULGA_CHECK(instances_.count(slot) == 1);
    if (broken_ || sandbox_.broken_pipes > 0) return BreakPipe();
    ++sandbox_.wakes;
    if (sandbox_.dies_before_exec) {
      sandbox_.dies_before_exec = false;
      Dies(slot, Killed(SIGKILL));
      return OkStatus();
    }
    Exec(slot, std::move(options));
    return OkStatus();
  }

  Status MakeSockets(uint16_t slot, uint16_t count) override {
    if (instances_.count(slot) == 0) return Error{Code::kNotFound, 0, "no such slot"};
    auto sockets = std::make_shared<std::vector<UniqueFd>>();
    for (uint16_t i = 0; i < count; ++i) {
      UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      sockaddr_in own = {};
      own.sin_family = AF_INET;
      own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      PULGA_CHECK(bind(fd.get(), reinterpret_cast<sockaddr*>(&own), sizeof own) == 0);
      socklen_t size = sizeof own;
      getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &size);
      std::lock_guard lock(sandbox_.mutex_);
      sandbox_.peers_[ntohs(own.sin_port)] = {this, slot};
      sockets->push_back(std::move(fd));
    }
    After(Duration::zero(), slot, instances_[slot]->life,
          [this, slot, sockets] { events_.OnSockets(slot, std::move(*sockets)); });
    return OkStatus();
  }

  Status Freeze(uint16_t slot) override {
    PULGA_CHECK(instances_.count(slot) == 1);
    if (!sandbox_.freeze_error.empty()) return Error{Code::kUnsupported, 0, sandbox_.freeze_error};
    freeze_of_[slot] = ++sandbox_.freezes;
    sandbox_.frozen.insert(slot);
    return OkStatus();
  }
  Status Thaw(uint16_t slot) override {
    if (!sandbox_.thaw_error.empty()) return Error{Code::kIo, EIO, sandbox_.thaw_error};
    ++sandbox_.thaws;
    sandbox_.frozen.erase(slot);
    return OkStatus();
  }
  Status CanReclaim() const override {
    if (sandbox_.reclaim_error.empty()) return OkStatus();
    return Error{Code::kUnsupported, 0, sandbox_.reclaim_error};
  }
  Status Reclaim(uint16_t slot, ReclaimDone done) override {
    PULGA_RETURN_IF_ERROR(CanReclaim());
    if (sandbox_.frozen.count(slot) == 0) {
      return Error{Code::kInvalidArgument, 0, "it is not frozen"};
    }
    const int freeze = freeze_of_[slot];
    After(sandbox_.reclaim_delay, slot, instances_[slot]->life,
          [this, slot, freeze, done = std::move(done)] {
            // Thawed, and perhaps frozen anew, meanwhile: it was cancelled.
            if (sandbox_.frozen.count(slot) == 0 || freeze_of_[slot] != freeze) return;
            ++sandbox_.reclaims;
            done(sandbox_.reclaimed);
          });
    return OkStatus();
  }
  InstanceMemory Memory(uint16_t) const override { return sandbox_.memory; }
  std::optional<InstanceCpu> Cpu(uint16_t) const override { return sandbox_.cpu; }
  std::vector<Feature> layers() const override { return sandbox_.layers; }
  void Resize(const InstanceSize& size, std::function<void(Status)> done) override {
    sandbox_.loop_.CallAfter(Duration::zero(),
                             [this, size, done = std::move(done), me = std::weak_ptr(alive_)] {
                               if (me.expired() || gone_) return;
                               if (!sandbox_.resize_error.empty()) {
                                 return done(Error{Code::kIo, EBUSY, sandbox_.resize_error});
                               }
                               sandbox_.sizes.push_back(size);
                               done(OkStatus());
                             });
  }
  uint32_t Processes(uint16_t) const override { return sandbox_.processes; }

  Status Signal(uint16_t slot, int signo) override {
    sandbox_.frozen.erase(slot);
    sandbox_.signals.push_back(signo);
    const auto it = instances_.find(slot);
    if (it == instances_.end()) return Error{Code::kNotFound, 0, "no such slot"};
    if (signo == SIGKILL || (it->second->program == nullptr && signo == SIGTERM)) {
      Dies(slot, Killed(signo));
    } else if (it->second->program != nullptr) {
      FakeProgram& program = *it->second->program;
      std::lock_guard lock(program.mutex_);
      program.signals_.push_back(signo);
      program.changed_.notify_all();
    }
    return OkStatus();
  }

  SlotTimes Times(uint16_t slot) const override {
    const auto it = times_.find(slot);
    return it == times_.end() ? SlotTimes() : it->second;
  }
  uint64_t MemoryBytes(uint16_t) const override { return sandbox_.memory_bytes; }
  const std::vector<std::string>& warnings() const override { return warnings_; }

  // The program in `slot` ends: told from the loop, as everything is.
  void Dies(uint16_t slot, int wait_status) {
    const auto it = instances_.find(slot);
    if (it == instances_.end()) return;
    After(Duration::zero(), slot, it->second->life,
          [this, slot, wait_status] { Exit(slot, wait_status, ""); });
  }
  // The end is told of later, as by a socket.
  Status BreakPipe() {
    const Error error{Code::kUnavailable, EPIPE, "sendmsg: Broken pipe"};
    if (std::exchange(broken_, true)) return error;
    --sandbox_.broken_pipes;
    sandbox_.loop_.CallAfter(std::chrono::milliseconds(1), [this, me = std::weak_ptr(alive_)] {
      if (!me.expired() && !gone_) Gone("died");
    });
    return error;
  }
  void Gone(const std::string& why) {
    gone_ = true;
    for (auto& [slot, instance] : instances_) End(slot, *instance);
    instances_.clear();
    events_.OnGone({Code::kUnavailable, 0, why});
  }

 private:
  struct FakeInstance {
    uint64_t life = 0;
    bool parked = false;
    bool running = false;
    std::shared_ptr<FakeProgram> program;
  };

  void Add(uint16_t slot) {
    auto instance = std::make_unique<FakeInstance>();
    instance->life = ++lives_;
    instances_[slot] = std::move(instance);
    times_[slot] = SlotTimes();
    times_[slot].begun = times_[slot].ready = std::chrono::steady_clock::now();
    ++sandbox_.live;
  }

  // Runs `then` from the loop if that very instance is still there.
  void After(Duration delay, uint16_t slot, uint64_t life, std::function<void()> then) {
    sandbox_.loop_.CallAfter(delay, Guarded(slot, life, std::move(then)));
  }
  std::function<void()> Guarded(uint16_t slot, uint64_t life, std::function<void()> then) {
    return [this, alive = std::weak_ptr<char>(alive_), slot, life, then = std::move(then)] {
      if (alive.expired()) return;
      const auto it = instances_.find(slot);
      if (it != instances_.end() && it->second->life == life) then();
    };
  }

  Status FailSetup(uint16_t slot) {
    After(Duration::zero(), slot, instances_[slot]->life,
          [this, slot, step = sandbox_.setup_step] { Exit(slot, 0, step); });
    return OkStatus();
  }

  void Exec(uint16_t slot, StartOptions options) {
    FakeInstance& instance = *instances_[slot];
    instance.running = true;
    int running = 0;
    for (const auto& [other_slot, other] : instances_) running += other->running ? 1 : 0;
    sandbox_.max_running = std::max(sandbox_.max_running.load(), running);
    if (sandbox_.set_up_time > Duration::zero()) std::this_thread::sleep_for(sandbox_.set_up_time);
    times_[slot].exec = std::chrono::steady_clock::now();
    if (spec_.mode == SandboxMode::kHttp) return ServeHttp(slot, std::move(options));
    auto program = std::make_shared<FakeProgram>();
    program->env_ = options.extra_env;
    program->args = options.extra_args;
    program->fds_[0] = std::move(options.stdin_fd);
    program->fds_[1] = std::move(options.stdout_fd);
    program->fds_[2] = std::move(options.stderr_fd);
    program->fds_[3] = std::move(options.channel_fd);
    instance.program = program;
    EventLoop& loop = sandbox_.loop_;
    auto told =
        Guarded(slot, instance.life, [this, slot, program] { Exit(slot, program->status, ""); });
    sandbox_.RunThread([program, told, &loop, script = sandbox_.program] {
      program->status = script(*program);
      for (UniqueFd& fd : program->fds_) fd.Reset();
      loop.Post(told);
    });
  }

  void ServeHttp(uint16_t slot, StartOptions options) {
    auto streams = std::make_shared<StartOptions>(std::move(options));
    const uint64_t life = instances_[slot]->life;
    if (sandbox_.server_exit >= 0) {
      return After(Duration::zero(), slot, life,
                   [this, slot, streams, status = sandbox_.server_exit] {
                     (void)WriteAllTo(streams->stderr_fd.get(), "cannot bind\n");
                     Exit(slot, status, "");
                   });
    }
    if (sandbox_.listen_delay < Duration::zero()) return;
    After(sandbox_.listen_delay, slot, life, [this, streams] { sandbox_.Listen(); });
  }

  void Exit(uint16_t slot, int wait_status, const std::string& step) {
    InstanceExit exit;
    exit.slot = slot;
    exit.wait_status = wait_status;
    exit.setup_step = step;
    exit.sys_errno = step.empty() ? 0 : EPERM;
    exit.oom_killed = sandbox_.oom;
    exit.memory_peak_bytes = 1 << 20;
    End(slot, *instances_[slot]);
    instances_.erase(slot);
    events_.OnExit(exit);
  }

  void End(uint16_t slot, FakeInstance& instance) {
    --sandbox_.live;
    if (instance.program != nullptr) {
      std::lock_guard lock(instance.program->mutex_);
      instance.program->over_ = true;
      instance.program->changed_.notify_all();
    }
    std::lock_guard lock(sandbox_.mutex_);
    for (const auto& [fd, whose] : sandbox_.connections_) {
      if (whose == std::pair(this, slot)) shutdown(fd, SHUT_RDWR);
    }
  }

  FakeSandbox& sandbox_;
  VersionSpec spec_;
  SpawnerEvents& events_;
  bool gone_ = false;
  uint64_t lives_ = 0;
  std::map<uint16_t, std::unique_ptr<FakeInstance>> instances_;
  std::map<uint16_t, SlotTimes> times_;
  std::map<uint16_t, int> freeze_of_;  // which of the sandbox's freezes was the slot's last
  std::vector<std::string> warnings_;
  bool broken_ = false;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

// --- the sandbox

FakeSandbox::FakeSandbox(EventLoop& loop) : loop_(loop) {
  listener_.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in own = {};
  own.sin_family = AF_INET;
  own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  PULGA_CHECK(bind(listener_.get(), reinterpret_cast<sockaddr*>(&own), sizeof own) == 0);
  socklen_t size = sizeof own;
  getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&own), &size);
  port_ = ntohs(own.sin_port);
}

FakeSandbox::~FakeSandbox() {
  stopping_ = true;
  for (;;) {
    std::vector<std::thread> batch;
    {
      std::lock_guard lock(mutex_);
      for (const auto& [fd, whose] : connections_) shutdown(fd, SHUT_RDWR);
      batch.swap(threads_);
    }
    if (batch.empty()) break;
    for (std::thread& thread : batch) thread.join();
  }
}

void FakeSandbox::SetHandler(FakeHandler handler) {
  std::lock_guard lock(mutex_);
  handler_ = std::move(handler);
}

void FakeSandbox::RunThread(std::function<void()> body) {
  std::lock_guard lock(mutex_);
  threads_.emplace_back(std::move(body));
}

void FakeSandbox::BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) {
  ++builds;
  specs.push_back(spec);
  loop_.CallAfter(build_delay, [this, spec, &events, done = std::move(done)] {
    if (!available_) return done(Error{Code::kUnavailable, 0, "the launcher is restarting"});
    if (spawners >= most_spawners) return done(LauncherFull());
    if (!build_error.empty()) return done(Error{build_error_code, build_errno, build_error});
    done(std::unique_ptr<Spawner>(std::make_unique<FakeSpawner>(*this, spec, events)));
  });
}

void FakeSandbox::KillSpawners(const std::string& why) {
  const std::set<FakeSpawner*> all = live_spawners_;
  for (FakeSpawner* spawner : all) spawner->Gone(why);
}

void FakeSandbox::KillInstance(uint16_t slot, int wait_status) {
  const std::set<FakeSpawner*> all = live_spawners_;
  for (FakeSpawner* spawner : all) spawner->Dies(slot, wait_status);
}

void FakeSandbox::Listen() {
  if (std::exchange(listening_, true)) return;
  PULGA_CHECK(listen(listener_.get(), 512) == 0);
  RunThread([this] { AcceptLoop(); });
}

void FakeSandbox::AcceptLoop() {
  while (!stopping_) {
    pollfd ready = {listener_.get(), POLLIN, 0};
    if (poll(&ready, 1, 20) <= 0) continue;
    sockaddr_in peer = {};
    socklen_t size = sizeof peer;
    UniqueFd fd(accept4(listener_.get(), reinterpret_cast<sockaddr*>(&peer), &size, SOCK_CLOEXEC));
    if (!fd.valid()) continue;
    std::lock_guard lock(mutex_);
    const std::pair<FakeSpawner*, uint16_t> whose = peers_[ntohs(peer.sin_port)];
    const int number = fd.get();
    connections_[number] = whose;
    auto connection = std::make_shared<FakeConnection>(std::move(fd));
    connection->slot = whose.second;
    threads_.emplace_back([this, connection, number, serve = handler_] {
      serve(*connection);
      std::lock_guard inner(mutex_);
      connections_.erase(number);
      connection->Close();
    });
  }
}

}  // namespace pulga::testing
