// Random identifiers from the kernel's generator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pulga {

void FillRandom(void* out, size_t size);
std::string RandomHex(size_t bytes);  // lower case, 2 * bytes characters
std::string RandomUuid();             // version 4; not before a fork

}  // namespace pulga
