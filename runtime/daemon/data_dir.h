// The daemon's side of the data directory: the admin key and what a crash may have left behind.
// DATA is made by the keeper, 0700, ours; DATA/layers is the launcher's and is never looked into.
// Follows no symlink, removes only names of our own making. Blocks: start-up only.
#pragma once

#include <string>

#include "base/result.h"
#include "runtime/engine.h"

namespace pulga {

// Makes the directory when it is missing; kPermission with advice when it is not ours to use.
Status PrepareDataDir(const std::string& data_dir);
// Temporary files of a run that did not end cleanly.
void RemoveLeftovers(const std::string& data_dir);
// DATA/admin.key: 64 hex digits, mode 0600, made at the first start.
Result<std::string> LoadAdminKey(const std::string& data_dir);
// DATA/secrets/basic-auth-user and basic-auth-password, where faasd has them: one line each, mode
// 0600. What is missing is made: "admin", and 63 random characters. What is there stays.
Result<BasicLogin> LoadGatewayLogin(const std::string& data_dir);

}  // namespace pulga
