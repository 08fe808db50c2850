#include "api/cli/serve_process.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "base/text.h"

namespace pulga::cli {

Result<std::string> OwnPath() {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  if (n <= 0 || n == PATH_MAX) return LastError("read /proc/self/exe");
  return std::string(path, static_cast<size_t>(n));
}

Result<std::string> FindLauncher() {
  PULGA_ASSIGN_OR_RETURN(const std::string own, OwnPath());
  const std::string beside = own.substr(0, own.rfind('/') + 1) + "pulga-launcher";
  if (access(beside.c_str(), X_OK) == 0) return beside;
  const char* path = getenv("PATH");
  for (std::string_view dir : Split(path != nullptr ? path : "", ':')) {
    const std::string candidate = std::string(dir) + "/pulga-launcher";
    if (!dir.empty() && access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return Error{Code::kNotFound, 0,
               "pulga-launcher is neither beside pulga nor in PATH; install both"};
}

Result<std::vector<std::string>> KeeperArguments(const KeeperCommand& command) {
  PULGA_ASSIGN_OR_RETURN(const std::string launcher, FindLauncher());
  PULGA_ASSIGN_OR_RETURN(const std::string own, OwnPath());
  std::vector<std::string> out = {launcher, "keeper", "--pulga", own, "--data", command.data_dir};
  if (!command.user.empty()) out.insert(out.end(), {"--user", command.user});
  out.push_back("--");
  out.insert(out.end(), command.daemon_args.begin(), command.daemon_args.end());
  return out;
}

Status CheckRoot(const std::string& command) {
  if (geteuid() == 0) return OkStatus();
  return Error{
      Code::kPermission, 0,
      command +
          " must be started as root: sandboxes need mounts, cgroups and id ranges. Only two "
          "small processes keep root (keeper and launcher); the daemon gives up every privilege "
          "before it sees the network. Try: sudo " +
          command};
}

std::string AbsolutePath(const std::string& path) {
  if (!path.empty() && path[0] == '/') return path;
  char here[PATH_MAX];
  return getcwd(here, sizeof here) == nullptr ? path : std::string(here) + "/" + path;
}

}  // namespace pulga::cli
