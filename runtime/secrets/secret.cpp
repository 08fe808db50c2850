#include "runtime/secrets/secret.h"

#include "base/units.h"
#include "sandbox/secret_file.h"

namespace pulga {

Status CheckSecretName(std::string_view name) {
  if (name.find('/') != std::string_view::npos || name.find("..") != std::string_view::npos) {
    return Error{Code::kInvalidArgument, 0, "directory traversal found in name"};
  }
  if (IsSecretName(name)) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "name: 1 to 253 of a-z, A-Z, 0-9, '.', '-' and '_', not beginning with '.'"};
}

Status CheckSecretBytes(uint64_t bytes) {
  if (bytes <= kMaxSecretBytesPerVersion) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "secrets: these are " + HumanBytes(bytes) + " together, and a function may have " +
                   HumanBytes(kMaxSecretBytesPerVersion)};
}

}  // namespace pulga
