// How this daemon may talk to registries: settings and the credentials the administrator keeps in a
// file, read anew for each pull. Blocks on files: an importer's thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "images/fetch/registry_feed.h"

namespace pulga {

struct RegistryAccess {
  std::string auth_file;
  bool auth_file_is_named = false;  // by a setting: then it must be there
  std::string ca_file;              // "" = none beside the host's
  std::vector<std::string> plain_http;
  ProxySettings proxies;
  uint32_t at_once = 3;
  Duration stall_timeout = std::chrono::seconds(30);
  uint64_t reserve_bytes = 0;  // of the disk, to be left free
};

// All a RegistryFeed needs for `ref` (normalised). `login` replaces the administrator's.
// kInvalidArgument or kPermission when a file of the administrator can not be used: a pull without
// the credentials that were meant would end in a riddle.
Result<RegistryOptions> PrepareRegistry(const RegistryAccess& access, const std::string& ref,
                                        const std::optional<RegistryLogin>& login);

}  // namespace pulga
