#include "api/cli/serve_process.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

#include "api/cli/output.h"
#include "base/text.h"
#include "sandbox/rootless.h"

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

Result<Programs> FindPrograms() {
  Programs programs;
  PULGA_ASSIGN_OR_RETURN(programs.launcher, FindLauncher());
  PULGA_ASSIGN_OR_RETURN(programs.pulga, OwnPath());
  return programs;
}

std::vector<std::string> KeeperArguments(const KeeperCommand& command) {
  std::vector<std::string> out = {command.programs.launcher, "keeper", "--pulga",
                                  command.programs.pulga,    "--data", command.data_dir};
  if (!command.user.empty()) out.insert(out.end(), {"--user", command.user});
  if (!command.grants_file.empty()) {
    out.insert(out.end(), {"--grants", AbsolutePath(command.grants_file)});
  }
  if (!command.apparmor.empty()) out.insert(out.end(), {"--apparmor", command.apparmor});
  out.push_back("--");
  out.insert(out.end(), command.daemon_args.begin(), command.daemon_args.end());
  return out;
}

Status BecomeRoot(const std::string& command) {
  if (geteuid() == 0) return OkStatus();
  const auto entered = EnterRootless();
  if (!entered.ok()) {
    Error error = entered.error();
    error.message += ". Or start it as root: sudo " + command;
    return error;
  }
  if (!entered->one_id_only.empty()) {
    PrintErr(command + ": one id serves as the daemon's and all functions', which walls them off " +
             "less: " + entered->one_id_only + "\n");
  }
  return OkStatus();
}

std::string AbsolutePath(const std::string& path) {
  if (!path.empty() && path[0] == '/') return path;
  char here[PATH_MAX];
  return getcwd(here, sizeof here) == nullptr ? path : std::string(here) + "/" + path;
}

}  // namespace pulga::cli
