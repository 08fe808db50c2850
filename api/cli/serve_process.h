// Finding and starting the processes behind `serve` and `run`.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace pulga::cli {

// Beside this executable first, then in PATH. kNotFound says where it was looked for.
Result<std::string> FindLauncher();
Result<std::string> OwnPath();

struct KeeperCommand {
  std::string data_dir;
  std::string user;  // "" = the keeper's default
  std::vector<std::string> daemon_args;
};
Result<std::vector<std::string>> KeeperArguments(const KeeperCommand& command);

// Says plainly what is missing when this is not root.
Status CheckRoot(const std::string& command);
// Against the current directory, when relative.
std::string AbsolutePath(const std::string& path);

}  // namespace pulga::cli
