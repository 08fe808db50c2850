#include "runtime/secrets/secret.h"

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

}  // namespace pulga
