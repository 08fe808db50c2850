#include "tests/kernel/launcher_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/file_io.h"
#include "base/log.h"
#include "base/process.h"
#include "base/text.h"
#include "sandbox/cgroup.h"
#include "sandbox/id_ranges.h"
#include "sandbox/launcher.h"

namespace pulga::testing {
namespace {

namespace fs = std::filesystem;

std::string Slurp(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::pair<UniqueFd, UniqueFd> MakePipe() {
  int fds[2];
  EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

void ReadInto(int fd, std::string& out) {
  char buffer[65536];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) out.append(buffer, static_cast<size_t>(n));
}

}  // namespace

LauncherWorld::LauncherWorld()
    : data_(std::move(TempDir::Create("/tmp/pulga-kernel-test-")).value()),
      log_(open((data_.path() + "/launcher.log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                0600)),
      loop_(std::move(EventLoop::Create()).value()) {
  // What outlives the launcher becomes our child, where Leftovers() finds it.
  EXPECT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  base_.bytes.fill(0x11);
  tree_ = CgroupTreeName(data_.path());
  EXPECT_TRUE(MakeDirs(data_.path() + "/layers", 0700).ok());
  EXPECT_TRUE(MakeDirs(data_.path() + "/volumes", 0700).ok());
  const std::string layer = MakeLayer(base_);
  for (const char* dir : {"/etc", "/usr", "/usr/bin", "/srv"}) fs::create_directory(layer + dir);
  fs::create_symlink("usr/bin", layer + "/bin");
  for (const char* name : {"probe", "echo", "hello", "http-hello"}) {
    fs::copy_file(ProgramBeside(std::string("rootfs/") + name), layer + "/" + name);
  }
  fs::copy_file(ProgramBeside("rootfs/hello"), layer + "/usr/bin/hello");
  std::ofstream(layer + "/etc/passwd") << "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/srv/app:\n";
  std::ofstream(layer + "/etc/group") << "root:x:0:\napp:x:1001:\nextra:x:2000:app\n";
  std::ofstream(layer + "/usr/bin/data") << "not a program\n";
  fs::permissions(layer + "/usr/bin/data", fs::perms(0644));
  OwnLayer(layer);
}

LauncherWorld::~LauncherWorld() {
  client_.reset();
  if (launcher_.valid()) {
    (void)launcher_.Signal(SIGTERM);
    (void)launcher_.Reap();
  }
  ShowLogOfFailure(data_.path() + "/launcher.log");
}

std::string LauncherWorld::MakeLayer(const LayerId& id) {
  const std::string path = data_.path() + "/layers/" + id.Hex();
  EXPECT_TRUE(MakeDirs(path, 0755).ok());
  return path;
}

void LauncherWorld::OwnLayer(const std::string& path) {
  EXPECT_EQ(lchown(path.c_str(), kOwnerIdBase, kOwnerIdBase), 0);
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    EXPECT_EQ(lchown(entry.path().c_str(), kOwnerIdBase, kOwnerIdBase), 0);
  }
}

std::pair<PidFd, MessageSocket> LauncherWorld::StartBareLauncher(LauncherWords words) {
  auto sockets = std::move(MessageSocket::Pair()).value();
  const UniqueFd layers =
      std::move(OpenFile(data_.path() + "/layers", O_RDONLY | O_DIRECTORY)).value();
  const UniqueFd volumes =
      std::move(OpenFile(data_.path() + "/volumes", O_RDONLY | O_DIRECTORY)).value();
  SpawnOptions spawn;
  spawn.argv = std::move(words.prefix);
  spawn.argv.push_back(ProgramBeside("pulga-launcher"));
  for (const char* arg :
       {"launcher", "--socket-fd", "3", "--layers-fd", "4", "--volumes-fd", "5"}) {
    spawn.argv.emplace_back(arg);
  }
  for (const std::string& arg :
       {std::string("--tree"), tree_, std::string("--grants"), grants_file()}) {
    spawn.argv.push_back(arg);
  }
  spawn.argv.insert(spawn.argv.end(), words.options.begin(), words.options.end());
  spawn.fds = {{0, 0},
               {1, 1},
               {log_.get(), 2},
               {sockets.first.fd(), 3},
               {layers.get(), 4},
               {volumes.get(), 5}};
  spawn.blocked = {SIGHUP};
  return {std::move(SpawnProcess(spawn)).value(), std::move(sockets.second)};
}

void LauncherWorld::StartLauncher(LauncherWords words) {
  auto [process, socket] = StartBareLauncher(std::move(words));
  launcher_ = std::move(process);
  if (client_ == nullptr) client_ = std::make_unique<LauncherClient>(*loop_);
  ASSERT_TRUE(client_->AdoptLauncher(socket.TakeFd()).ok());
}

namespace {

// `ready` closes once it serves, or has ended.
[[noreturn]] void RunLauncherHere(LauncherOptions options, UniqueFd ready) {
  auto loop = EventLoop::Create();
  if (!loop.ok()) _exit(10);
  if (!(*loop)->OnSignals({SIGTERM}, [&](int) { (*loop)->Stop(); }).ok()) _exit(11);
  auto launcher = Launcher::Create(**loop, std::move(options));
  if (!launcher.ok()) {
    LogError(launcher.error().message);
    _exit(12);
  }
  ready.Reset();
  (*loop)->Run();
  (*launcher)->Shutdown();
  _exit((*launcher)->broken() ? 13 : 0);
}

}  // namespace

void LauncherWorld::ForkLauncher() {
  auto sockets = std::move(MessageSocket::Pair()).value();
  LauncherOptions options;
  options.tree_name = tree_;
  options.grants_file = grants_file();
  options.layers = OpenFile(data_.path() + "/layers", O_RDONLY | O_DIRECTORY).value();
  options.volumes = OpenFile(data_.path() + "/volumes", O_RDONLY | O_DIRECTORY).value();
  options.unpacker.Reset(open(ProgramBeside("pulga-unpacker").c_str(), O_PATH | O_CLOEXEC));
  options.socket = sockets.first.TakeFd();
  auto [until_ready, ready] = MakePipe();
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    dup2(log_.get(), STDERR_FILENO);
    CloseAllBut({options.layers.get(), options.volumes.get(), options.unpacker.get(),
                 options.socket.get(), ready.get()});
    RunLauncherHere(std::move(options), std::move(ready));
  }
  ready.Reset();
  char nothing = 0;
  EXPECT_EQ(read(until_ready.get(), &nothing, 1), 0);  // so that its descriptors can be counted
  launcher_ = std::move(PidFd::OfChild(pid)).value();
  if (client_ == nullptr) client_ = std::make_unique<LauncherClient>(*loop_);
  ASSERT_TRUE(client_->AdoptLauncher(sockets.second.TakeFd()).ok());
}

void LauncherWorld::Grant(const std::string& text) {
  EXPECT_TRUE(WriteFile(grants_file(), text, 0600).ok());
  if (!launcher_.valid()) return;
  const auto times_read = [&] {
    const std::string log = Slurp(data_.path() + "/launcher.log");
    int count = 0;
    for (const char* word : {" grants\n", "no grants hold"}) {
      for (size_t at = log.find(word); at != std::string::npos; at = log.find(word, at + 1))
        ++count;
    }
    return count;
  };
  const int before = times_read();
  EXPECT_TRUE(launcher_.Signal(SIGHUP).ok());
  EXPECT_TRUE(Until([&] { return times_read() > before; }));
}

void LauncherWorld::StopLauncher() {
  client_.reset();
  if (launcher_.valid()) {
    const auto info = launcher_.Reap();
    EXPECT_TRUE(info.ok() && info->wait_status == 0) << "the launcher did not end cleanly";
  }
}

void LauncherWorld::KillLauncher() {
  (void)launcher_.Signal(SIGKILL);
  (void)launcher_.Reap();
}

bool LauncherWorld::Until(const std::function<bool()>& done) {
  const TimePoint end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    loop_->RunOnce(std::chrono::milliseconds(20));
  }
  return true;
}

VersionSpec LauncherWorld::Spec(std::vector<std::string> argv) {
  VersionSpec spec;
  static uint64_t next_version = 1;
  spec.version_id = next_version++;
  spec.layers = {base_};
  spec.argv = std::move(argv);
  spec.env = {"GREETING=hello"};
  spec.hostname = "flea";
  return spec;
}

std::unique_ptr<Spawner> LauncherWorld::Build(const VersionSpec& spec, SpawnerEvents& events) {
  std::unique_ptr<Spawner> out;
  bool answered = false;
  client_->BuildVersion(spec, events, [&](Result<std::unique_ptr<Spawner>> built) {
    answered = true;
    error = Status(built);
    if (built.ok()) out = std::move(*built);
  });
  EXPECT_TRUE(Until([&] { return answered; }));
  return out;
}

StartOptions LauncherWorld::WithPipes(Stdio& stdio) {
  StartOptions options;
  std::tie(options.stdin_fd, stdio.in) = MakePipe();
  std::tie(stdio.out, options.stdout_fd) = MakePipe();
  std::tie(stdio.err, options.stderr_fd) = MakePipe();
  for (const UniqueFd* end : {&stdio.out, &stdio.err}) {  // no call of ours: fault tests count them
    EXPECT_EQ(fcntl(end->get(), F_SETFL, O_NONBLOCK), 0);
  }
  return options;
}

RunResult LauncherWorld::Finish(Recorder& events, size_t exits_before, Stdio stdio,
                                const std::string& input) {
  RunResult result;
  EXPECT_TRUE(WriteAll(stdio.in.get(), input).ok());
  stdio.in.Reset();
  result.ended = Until([&] {
    ReadInto(stdio.out.get(), result.out);
    ReadInto(stdio.err.get(), result.err);
    return events.exits.size() > exits_before;
  });
  ReadInto(stdio.out.get(), result.out);
  ReadInto(stdio.err.get(), result.err);
  if (result.ended) result.exit = events.exits.back();
  return result;
}

RunResult LauncherWorld::Run(Spawner& spawner, Recorder& events,
                             const std::vector<std::string>& args, const std::string& input) {
  Stdio stdio;
  StartOptions options = WithPipes(stdio);
  options.extra_args = args;
  const size_t before = events.exits.size();
  const Status started = spawner.Start(0, std::move(options));
  EXPECT_TRUE(started.ok()) << started.error().message;
  if (!started.ok()) return {};
  return Finish(events, before, std::move(stdio), input);
}

RunResult LauncherWorld::RunParked(Spawner& spawner, Recorder& events,
                                   const std::vector<std::string>& args, const std::string& input) {
  const size_t parked = events.parked.size();
  const size_t before = events.exits.size();
  EXPECT_TRUE(spawner.Park(0).ok());
  EXPECT_TRUE(Until([&] { return events.parked.size() > parked || events.exits.size() > before; }));
  Stdio stdio;
  StartOptions options = WithPipes(stdio);
  options.extra_args = args;
  const Status woken = spawner.Wake(0, std::move(options));
  EXPECT_TRUE(woken.ok()) << woken.error().message;
  if (!woken.ok()) return {};
  return Finish(events, before, std::move(stdio), input);
}

bool LauncherWorld::UntilSaid(Stdio& stdio, std::string& text, const std::string& word) {
  return Until([&] {
    ReadInto(stdio.out.get(), text);
    return text.find(word) != std::string::npos;
  });
}

std::vector<std::string> LauncherWorld::LoopDevices() const {
  std::vector<std::string> out;
  std::error_code ignored;
  for (const auto& block : fs::directory_iterator("/sys/block", ignored)) {
    const std::string file = Slurp(block.path().string() + "/loop/backing_file");
    if (file.rfind(data_.path() + "/", 0) == 0) out.push_back(block.path().filename());
  }
  return out;
}

std::vector<std::string> LauncherWorld::Leftovers() {
  std::vector<std::string> out;
  std::error_code ignored;
  for (const auto& mount : fs::directory_iterator("/sys/fs/cgroup", ignored)) {
    if (fs::exists(mount.path() / tree_, ignored)) out.push_back(mount.path() / tree_);
  }
  if (fs::exists("/sys/fs/cgroup/" + tree_, ignored)) out.push_back("/sys/fs/cgroup/" + tree_);
  std::istringstream mounts(Slurp("/proc/self/mountinfo"));
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(data_.path()) != std::string::npos) out.push_back(line);
  }
  for (const std::string& loop : LoopDevices()) out.push_back(loop);
  for (const auto& entry : fs::directory_iterator(data_.path() + "/volumes")) {
    const std::string name = entry.path().filename();
    if (name.rfind(".new-", 0) == 0) out.push_back(name);
  }
  for (const auto& entry : fs::directory_iterator(data_.path() + "/layers")) {
    const std::string name = entry.path().filename();
    if (name.rfind(".staging", 0) == 0 || name.rfind(".trash", 0) == 0) out.push_back(name);
  }
  for (const auto& process : fs::directory_iterator("/proc", ignored)) {
    const std::string status = Slurp(process.path().string() + "/status");
    if (StatusField(status, "PPid") != std::to_string(getpid())) continue;
    if (StatusField(status, "State").rfind('Z', 0) == 0) continue;
    if (process.path().filename() == std::to_string(launcher_.pid())) continue;
    out.push_back(status.substr(0, 30));
  }
  return out;
}

std::string ProgramBeside(const std::string& name) {
  return fs::read_symlink("/proc/self/exe").parent_path().string() + "/" + name;
}

void ShowLogOfFailure(const std::string& path) {
  if (!::testing::Test::HasFailure()) return;
  constexpr size_t kShown = 4000;
  const std::string log = Slurp(path);
  fprintf(stderr, "--- end of %s ---\n%s", fs::path(path).filename().c_str(),
          log.substr(log.size() - std::min(log.size(), kShown)).c_str());
}

std::string StatusField(const std::string& status, const std::string& key) {
  const size_t at = ("\n" + status).find("\n" + key + ":");
  if (at == std::string::npos) return "";
  const size_t begin = at + key.size() + 1;
  return std::string(Trim(std::string_view(status).substr(begin, status.find('\n', at) - begin)));
}

}  // namespace pulga::testing
