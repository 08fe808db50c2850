// pulga-start-bench: request -> first byte of one static program, every way of starting it in turn
// within one run: a bare vfork+exec (the floor), a cold sandbox and a parked one inside the
// daemon's own code (dispatcher, launcher, spawner; no HTTP), the same through HTTP, and other
// runtimes.
//   pulga-start-bench --launcher BIN --program FILE --rounds N --gap-ms MS
//                     [--http NAME=PORT/PATH]... [--peer NAME=COMMAND LINE]...
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>

#include "base/file_io.h"
#include "base/ids.h"
#include "base/process.h"
#include "base/temp_dir.h"
#include "base/text.h"
#include "bench/http_client.h"
#include "bench/stats.h"
#include "runtime/board.h"
#include "runtime/dispatcher.h"
#include "sandbox/cgroup.h"
#include "sandbox/launcher_client.h"

namespace pulga::bench {
namespace {

constexpr size_t kColdContender = 1;
constexpr useconds_t kAftermathMicros = 500;
constexpr useconds_t kPeerAftermathMicros = 30'000;  // a shim, a daemon: they are still at it

struct Options {
  std::string launcher;
  std::string program;
  size_t rounds = 200;
  int gap_ms = 0;
  std::vector<std::pair<std::string, std::string>> http;   // NAME, PORT/PATH
  std::vector<std::pair<std::string, std::string>> peers;  // NAME, command line
};

// One way of starting the program. `settle` runs untimed before the idle gap (a parked instance
// is refilled there); `measure` returns microseconds to the first byte.
struct Contender {
  std::string name;
  std::function<Status()> settle;
  std::function<Result<double>()> measure;
  useconds_t aftermath = kAftermathMicros;  // not charged to the next one
};

Result<double> BareStart(const std::vector<std::string>& argv) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return LastError("pipe2");
  UniqueFd out(fds[0]);
  UniqueFd in(fds[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in.get(), STDOUT_FILENO);
  std::vector<char*> args;
  for (const std::string& a : argv) args.push_back(const_cast<char*>(a.c_str()));
  args.push_back(nullptr);
  pid_t pid = 0;
  const double begin = NowMicros();
  const int error = posix_spawn(&pid, args[0], &actions, nullptr, args.data(), environ);
  in.Reset();
  char byte = 0;
  const ssize_t n = error == 0 ? read(out.get(), &byte, 1) : -1;
  const double end = NowMicros();
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return ErrnoError("posix_spawn " + argv[0], error);
  char rest[4096];
  while (read(out.get(), rest, sizeof rest) > 0) {
  }
  waitpid(pid, nullptr, 0);
  if (n != 1) return Error{Code::kIo, 0, argv[0] + " printed nothing"};
  return end - begin;
}

// The launcher's client, with an eye on the versions it builds.
class Watched final : public Sandbox {
 public:
  explicit Watched(Sandbox& real) : real_(real) {}
  bool available() const override { return real_.available(); }
  void BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) override {
    real_.BuildVersion(spec, events, [this, done = std::move(done)](auto built) {
      if (built.ok()) built_.push_back(built->get());
      done(std::move(built));
    });
  }
  uint64_t RunUnpack(UnpackJob job, std::function<void(Status)> done) override {
    return real_.RunUnpack(std::move(job), std::move(done));
  }
  void CancelUnpack(uint64_t job) override { real_.CancelUnpack(job); }
  void ListLayers(std::function<void(Result<std::vector<LayerId>>)> done) override {
    real_.ListLayers(std::move(done));
  }
  // Of the last start of the first version.
  SlotTimes LastTimes() const {
    SlotTimes last;
    for (uint16_t slot = 0; slot < 64; ++slot) {
      const SlotTimes times = built_.front()->Times(slot);
      if (times.begun > last.begun) last = times;
    }
    return last;
  }

 private:
  Sandbox& real_;
  std::vector<const Spawner*> built_;  // none is dropped before the end
};

// The cold start in steps, each from the end of the one before.
class StepSeries {
 public:
  void Add(const SlotTimes& times, const Receipt& receipt) {
    Duration before{0};
    for (size_t i = 0; i < kSetupSteps; ++i) {
      Take(i, times.steps[i] - before);
      before = times.steps[i];
    }
    Take(kSetupSteps, times.ready - times.begun - before);
    Take(kSetupSteps + 1, times.exec - times.ready);
    series_[kSetupSteps + 2].microseconds.push_back(receipt.exec_ms * 1000);
  }
  void Print() const { PrintJson("cold, by step of set-up", series_); }

 private:
  void Take(size_t step, Duration time) {
    series_[step].microseconds.push_back(std::chrono::duration<double, std::micro>(time).count());
  }
  std::vector<Series> series_ = {{"clone, up to its first instruction", {}},
                                 {"joining the cgroups, cgroup namespace", {}},
                                 {"network namespace (exec: the version's own)", {}},
                                 {"joining a prepared mount namespace", {}},
                                 {"mounts that wait for the pid namespace", {}},
                                 {"directory, rlimit, ids, capabilities, Landlock", {}},
                                 {"loading the filter", {}},
                                 {"clone of the program beside its init", {}},
                                 {"stdio, close_range, signals", {}},
                                 {"execve, up to the first byte read", {}}};
};

// The daemon's own path without HTTP: Dispatcher::Invoke until the first byte can be read.
class InDaemon {
 public:
  static Result<std::unique_ptr<InDaemon>> Create(const Options& options);
  Status Activate(const std::string& name, uint32_t parked);
  Result<double> Call(const std::string& name);
  Status WaitParked(const std::string& name);
  const Receipt& last_receipt() const { return receipt_; }
  SlotTimes last_times() const { return watched_->LastTimes(); }

 private:
  class Waiter final : public InvocationObserver {
   public:
    void OnHead() override { woken = true; }
    void OnReadable() override { woken = true; }
    void OnWritable() override {}
    bool woken = false;
  };
  explicit InDaemon(TempDir data) : data_(std::move(data)) {}

  TempDir data_;
  SystemClock clock_;
  std::unique_ptr<EventLoop> loop_;
  FunctionLogs logs_;
  std::unique_ptr<LauncherClient> client_;
  std::unique_ptr<Watched> watched_;
  PidFd launcher_;
  std::unique_ptr<Dispatcher> dispatcher_;
  LayerId layer_;
  uint64_t next_id_ = 1;
  Receipt receipt_;
};

constexpr uid_t kOwnerBase = 0x7A000000;

Status MakeLayer(const std::string& layers, const LayerId& id, const std::string& program) {
  const std::string root = layers + "/" + id.Hex();
  PULGA_RETURN_IF_ERROR(MakeDirs(root));
  PULGA_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(program, 16 << 20));
  PULGA_RETURN_IF_ERROR(WriteFile(root + "/program", bytes, 0755));
  for (const std::string& path : {root, root + "/program"}) {
    if (chown(path.c_str(), kOwnerBase, kOwnerBase) != 0 || chmod(path.c_str(), 0755) != 0) {
      return LastError("chown " + path);
    }
  }
  return OkStatus();
}

Result<std::unique_ptr<InDaemon>> InDaemon::Create(const Options& options) {
  PULGA_ASSIGN_OR_RETURN(TempDir data, TempDir::Create("/tmp/pulga-bench-"));
  std::unique_ptr<InDaemon> self(new InDaemon(std::move(data)));
  PULGA_ASSIGN_OR_RETURN(self->loop_, EventLoop::Create());
  FillRandom(self->layer_.bytes.data(), self->layer_.bytes.size());
  const std::string layers = self->data_.path() + "/layers";
  PULGA_RETURN_IF_ERROR(MakeDirs(layers, 0700));
  PULGA_RETURN_IF_ERROR(MakeLayer(layers, self->layer_, options.program));
  PULGA_ASSIGN_OR_RETURN(auto pair, MessageSocket::Pair());
  PULGA_ASSIGN_OR_RETURN(UniqueFd layers_fd, OpenFile(layers, O_RDONLY | O_DIRECTORY));
  SpawnOptions spawn;
  spawn.argv = {options.launcher, "launcher", "--tree",      CgroupTreeName(self->data_.path()),
                "--socket-fd",    "3",        "--layers-fd", "4"};
  spawn.fds = {{pair.second.fd(), 3}, {layers_fd.get(), 4}, {STDERR_FILENO, STDERR_FILENO}};
  PULGA_ASSIGN_OR_RETURN(self->launcher_, SpawnProcess(spawn));
  pair.second = MessageSocket();
  self->client_ = std::make_unique<LauncherClient>(*self->loop_);
  PULGA_RETURN_IF_ERROR(self->client_->AdoptLauncher(pair.first.TakeFd()));
  self->watched_ = std::make_unique<Watched>(*self->client_);
  PULGA_ASSIGN_OR_RETURN(const Board board, ReadBoard());
  DispatcherConfig config;
  config.memory_budget_bytes = DefaultMemoryBudget(board);
  self->dispatcher_ =
      Dispatcher::Create(config, *self->loop_, self->clock_, *self->watched_, self->logs_);
  return self;
}

Status InDaemon::Activate(const std::string& name, uint32_t parked) {
  auto version = std::make_shared<Version>();
  version->key.name = name;
  version->id = next_id_++;
  version->spec.scale.parked = parked;
  version->spec.sandbox.cpu_millis = 1000;
  version->layers = {layer_};
  version->argv = {"/program"};
  version->env = {"PATH=/"};
  version->working_dir = "/";
  std::optional<Status> done;
  dispatcher_->Activate(version, [&](Status s) { done = std::move(s); });
  while (!done) loop_->RunOnce(std::chrono::seconds(1));
  return *done;
}

Result<double> InDaemon::Call(const std::string& name) {
  Waiter waiter;
  InvocationRequest request;
  request.function.name = name;
  request.call_id = "bench";
  request.method = "GET";
  request.wants_stream = true;
  char buffer[4096];
  double first = 0;
  const double begin = NowMicros();
  auto invocation = dispatcher_->Invoke(std::move(request), waiter);
  while (true) {
    const ReadResult got = invocation->Read(buffer, sizeof buffer);
    if (got.state == ReadState::kData && first == 0) first = NowMicros();
    if (got.state == ReadState::kEnd || got.state == ReadState::kAborted) break;
    if (got.state == ReadState::kWait) loop_->RunOnce(std::chrono::seconds(5));
  }
  if (first == 0 || invocation->outcome().kind != OutcomeKind::kOk) {
    return Error{
        Code::kIo, 0,
        name + ": " + OutcomeName(invocation->outcome()) + " " + invocation->FailureText()};
  }
  receipt_ = invocation->receipt();
  return first - begin;
}

Status InDaemon::WaitParked(const std::string& name) {
  FunctionKey key;
  key.name = name;
  for (int i = 0; i < 2000; ++i) {
    for (const InstanceStatus& instance : dispatcher_->Activity(key).instances) {
      if (instance.step == "parked") return OkStatus();
    }
    loop_->RunOnce(std::chrono::milliseconds(5));
  }
  return Error{Code::kTimeout, 0, "no instance was parked"};
}

Result<Options> ParseOptions(int argc, char** argv) {
  Options out;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    const std::string value = argv[i + 1];
    const size_t equals = value.find('=');
    if (key == "--launcher") {
      out.launcher = value;
    } else if (key == "--program") {
      out.program = value;
    } else if (key == "--rounds") {
      out.rounds = static_cast<size_t>(atol(argv[i + 1]));
    } else if (key == "--gap-ms") {
      out.gap_ms = atoi(argv[i + 1]);
    } else if ((key == "--http" || key == "--peer") && equals != std::string::npos) {
      (key == "--http" ? out.http : out.peers)
          .emplace_back(value.substr(0, equals), value.substr(equals + 1));
    } else {
      return Error{Code::kInvalidArgument, 0, "bad option: " + key};
    }
  }
  return out;
}

Result<std::vector<Contender>> Contenders(const Options& options, InDaemon& daemon) {
  std::vector<Contender> out;
  const auto nothing = [] { return OkStatus(); };
  out.push_back({"bare vfork+exec", nothing, [&] { return BareStart({options.program}); }});
  PULGA_RETURN_IF_ERROR(daemon.Activate("cold", 0));
  PULGA_RETURN_IF_ERROR(daemon.Activate("parked", 1));
  for (const char* name : {"cold", "parked"}) {  // builds the spawner, which is not what is timed
    PULGA_RETURN_IF_ERROR(Status(daemon.Call(name)));
  }
  out.push_back({"cold, in daemon", nothing, [&] { return daemon.Call("cold"); }});
  out.push_back({"parked, in daemon", [&] { return daemon.WaitParked("parked"); },
                 [&] { return daemon.Call("parked"); }});
  for (const auto& [name, where] : options.http) {
    const size_t slash = where.find('/');
    const auto port = ParseUint(where.substr(0, slash), 65535);
    if (!port || slash == std::string::npos) {
      return Error{Code::kInvalidArgument, 0, "--http wants NAME=PORT/PATH"};
    }
    PULGA_ASSIGN_OR_RETURN(HttpConnection c, HttpConnection::Connect(static_cast<uint16_t>(*port)));
    auto connection = std::make_shared<HttpConnection>(std::move(c));
    const auto refill = [] {  // the other daemon parks its next instance meanwhile
      usleep(3000);
      return OkStatus();
    };
    out.push_back({name, refill, [connection, path = where.substr(slash)]() -> Result<double> {
                     const double begin = NowMicros();
                     PULGA_RETURN_IF_ERROR(connection->Get(path));
                     return connection->first_byte() - begin;
                   }});
  }
  for (const auto& [name, command] : options.peers) {
    std::vector<std::string> peer_argv;
    for (std::string_view word : Split(command, ' ')) peer_argv.emplace_back(word);
    out.push_back(
        {name, nothing, [peer_argv] { return BareStart(peer_argv); }, kPeerAftermathMicros});
  }
  return out;
}

Status Main(int argc, char** argv) {
  PULGA_ASSIGN_OR_RETURN(const Options options, ParseOptions(argc, argv));
  PULGA_ASSIGN_OR_RETURN(auto daemon, InDaemon::Create(options));
  PULGA_ASSIGN_OR_RETURN(const std::vector<Contender> contenders, Contenders(options, *daemon));
  std::vector<Series> series;
  for (const Contender& c : contenders) series.push_back({c.name, {}});
  std::vector<Series> steps = {{"queue", {}}, {"sandbox", {}}};  // of the cold start
  StepSeries setup;
  constexpr size_t kWarmUp = 5;
  for (size_t round = 0; round < options.rounds + kWarmUp; ++round) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      PULGA_RETURN_IF_ERROR(contenders[i].settle());
      if (options.gap_ms > 0) usleep(static_cast<useconds_t>(options.gap_ms) * 1000);
      auto took = contenders[i].measure();
      if (!took.ok()) return Prefix(contenders[i].name, took.error());
      // What one contender leaves behind (reaping, refilling) is not charged to the next. The
      // daemon's loop runs in here only: what it has not got to by now, it would do in a later
      // turn.
      PULGA_RETURN_IF_ERROR(daemon->WaitParked("parked"));
      usleep(contenders[i].aftermath);
      if (round < kWarmUp) continue;
      series[i].microseconds.push_back(*took);
      if (i == kColdContender) {
        const Receipt& r = daemon->last_receipt();
        steps[0].microseconds.push_back(r.queue_ms * 1000);
        steps[1].microseconds.push_back(r.sandbox_ms * 1000);
        setup.Add(daemon->last_times(), r);
      }
    }
  }
  PrintJson(options.gap_ms > 0 ? "paced" : "tight", series);
  PrintJson("cold, by step", steps);
  setup.Print();
  return OkStatus();
}

}  // namespace
}  // namespace pulga::bench

int main(int argc, char** argv) {
  return pulga::bench::ExitStatus("pulga-start-bench", pulga::bench::Main(argc, argv));
}
