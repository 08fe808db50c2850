// The keeper's child on its way to become the daemon: what it sees of the user's files (rootless),
// its ids, no capability, no new privileges, exec. Never returns; what fails goes to the log.
// Rootless: the daemon is another id than the user, and homes are closed to others. What it needs
// below such a directory is shown to it in a mount namespace of its own, under the same names, and
// nothing else of it. Needs: root, or root of the keeper's user namespace.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sandbox/keeper_setup.h"

namespace pulga {

struct DaemonStart {
  std::vector<std::string> args;  // args[0] is the program's path
  DaemonIds ids;
  std::vector<int> kept_fds;
  std::string data_dir;
};

[[noreturn]] void BecomeDaemon(const DaemonStart& start);

// Which directories are covered by empty ones, and which paths below them are shown.
struct DaemonView {
  std::vector<std::string> covered;
  std::vector<std::string> shown;
};
// Pure but for `is_closed`: whether strangers may not pass through a directory.
DaemonView PlanDaemonView(const std::vector<std::string>& paths,
                          const std::function<bool(const std::string&)>& is_closed);

}  // namespace pulga
