// pulga-launcher: `keeper` (see keeper.h) and `launcher` (see launcher.h).
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/text.h"
#include "sandbox/keeper.h"
#include "sandbox/launcher.h"

namespace pulga {
namespace {

constexpr int kUsageError = 2;
constexpr const char* kUsage =
    "usage: pulga-launcher keeper --pulga PATH --data DIR [--user NAME] [--grants FILE]\n"
    "                             [--apparmor auto|require|off] [--lifeline-fd N]\n"
    "                             [-- DAEMON-ARGS...]\n"
    "       (started by `pulga serve`; there is nothing to run by hand)\n";

int Usage() {
  fputs(kUsage, stderr);
  return kUsageError;
}

std::string OwnPath() {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  return n < 0 ? "" : std::string(path, static_cast<size_t>(n));
}

// "--name value" pairs up to "--"; what follows goes into `rest`.
std::optional<std::vector<std::pair<std::string, std::string>>> ParsePairs(
    const std::vector<std::string>& args, std::vector<std::string>& rest) {
  std::vector<std::pair<std::string, std::string>> out;
  for (size_t i = 0; i < args.size(); i += 2) {
    if (args[i] == "--") {
      rest.assign(args.begin() + static_cast<ptrdiff_t>(i) + 1, args.end());
      return out;
    }
    if (i + 1 >= args.size()) return std::nullopt;
    out.emplace_back(args[i], args[i + 1]);
  }
  return out;
}

int KeeperMain(const std::vector<std::string>& args) {
  KeeperOptions options;
  options.launcher_path = OwnPath();
  const auto pairs = ParsePairs(args, options.daemon_args);
  if (!pairs.has_value()) return Usage();
  for (const auto& [name, value] : *pairs) {
    if (name == "--pulga")
      options.pulga_path = value;
    else if (name == "--data")
      options.data_dir = value;
    else if (name == "--user")
      options.user = value;
    else if (name == "--grants")
      options.grants_file = value;
    else if (name == "--apparmor" && ParseAppArmorUse(value))
      options.apparmor = value;
    else if (const auto fd = ParseUint(value, INT_MAX); name == "--lifeline-fd" && fd)
      options.lifeline_fd = static_cast<int>(*fd);
    else
      return Usage();
  }
  if (options.pulga_path.empty() || options.data_dir.empty()) return Usage();
  return RunKeeper(options);
}

// As many as permitted: each slot of a version holds a handful.
void RaiseFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int RunLauncher(LauncherOptions options) {
  auto loop = EventLoop::Create();
  if (!loop.ok()) return LogError(loop.error().message), 1;
  std::unique_ptr<Launcher> serving;
  const Status signals = (*loop)->OnSignals({SIGTERM, SIGINT, SIGHUP}, [&](int signo) {
    if (signo != SIGHUP) return (*loop)->Stop();
    if (serving != nullptr) serving->ReloadGrants();
  });
  if (!signals.ok()) return LogError(signals.error().message), 1;
  auto launcher = Launcher::Create(**loop, std::move(options));
  if (!launcher.ok()) return LogError(launcher.error().message), 1;
  serving = std::move(*launcher);
  (*loop)->Run();
  serving->Shutdown();
  return serving->broken() ? 1 : 0;
}

int LauncherMain(const std::vector<std::string>& args) {
  SetLogTag("launcher");
  prctl(PR_SET_NAME, "pulga-launcher");
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  LauncherOptions options;
  std::vector<std::string> rest;
  const auto pairs = ParsePairs(args, rest);
  if (!pairs.has_value()) return Usage();
  for (const auto& [name, value] : *pairs) {
    const auto number = ParseUint(value, INT_MAX);
    if (name == "--tree")
      options.tree_name = value;
    else if (name == "--grants")
      options.grants_file = value;
    else if (const auto use = ParseAppArmorUse(value); name == "--apparmor" && use)
      options.apparmor = *use;
    else if (name == "--socket-fd" && number)
      options.socket.Reset(static_cast<int>(*number));
    else if (name == "--layers-fd" && number)
      options.layers.Reset(static_cast<int>(*number));
    else if (name == "--volumes-fd" && number)
      options.volumes.Reset(static_cast<int>(*number));
    else
      return Usage();
  }
  if (!options.socket.valid() || !options.layers.valid() || options.tree_name.empty()) {
    return Usage();
  }
  for (const UniqueFd* fd : {&options.socket, &options.layers, &options.volumes}) {
    if (fd->valid() && fcntl(fd->get(), F_SETFD, FD_CLOEXEC) != 0) return Usage();
  }
  const std::string self = OwnPath();
  const std::string beside = self.substr(0, self.rfind('/') + 1);
  for (const auto& [name, fd] : {std::pair("pulga-unpacker", &options.unpacker),
                                 std::pair("pulga-fetcher", &options.fetcher),
                                 std::pair("pulga-netadmin", &options.netadmin),
                                 std::pair("pulga-router", &options.router)}) {
    fd->Reset(open((beside + name).c_str(), O_PATH | O_CLOEXEC));
    // One that is there and can not be had now is no missing one: the next launcher has it.
    if (!fd->valid() && errno != ENOENT) return LogError(LastError(name).message), 1;
  }
  if (!options.unpacker.valid()) LogWarning("no pulga-unpacker beside " + self);
  if (!options.fetcher.valid()) LogWarning("no pulga-fetcher beside " + self + ": no pulls");
  auto ids = ReadHostIds();
  if (!ids.ok()) return LogError(ids.error().message), 1;
  options.ids = std::move(*ids);
  RaiseFileLimit();
  return RunLauncher(std::move(options));
}

}  // namespace
}  // namespace pulga

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.empty()) return pulga::Usage();
  const std::vector<std::string> rest(args.begin() + 1, args.end());
  if (args[0] == "keeper") return pulga::KeeperMain(rest);
  if (args[0] == "launcher") return pulga::LauncherMain(rest);
  return pulga::Usage();
}
