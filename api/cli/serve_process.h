// Finding and starting the processes behind `serve` and `run`.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace pulga::cli {

// Beside this executable first, then in PATH. kNotFound says where it was looked for.
Result<std::string> FindLauncher();
Result<std::string> OwnPath();

struct Programs {
  std::string pulga;
  std::string launcher;
};
// Before BecomeRoot: in another mount namespace the kernel may not know one's own path any more.
Result<Programs> FindPrograms();

struct KeeperCommand {
  Programs programs;
  std::string data_dir;
  std::string user;  // "" = the keeper's default
  std::vector<std::string> daemon_args;
  std::string grants_file = {};  // "" = the launcher's default
  std::string apparmor = {};     // likewise
};
std::vector<std::string> KeeperArguments(const KeeperCommand& command);

// Root of the host as it is; an ordinary user becomes root of a user namespace, and is told when it
// is a lesser one. Says plainly what is missing where that cannot be.
Status BecomeRoot(const std::string& command);
// Against the current directory, when relative.
std::string AbsolutePath(const std::string& path);

}  // namespace pulga::cli
