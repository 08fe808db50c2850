// The JSON of secrets under /v1: what is told of them, never a value. Pure.
#pragma once

#include <string>
#include <vector>

#include "runtime/secrets/secret.h"

namespace pulga {

std::string SecretJson(const SecretView& secret);  // a line
std::string SecretListJson(const std::vector<SecretView>& secrets);

}  // namespace pulga
