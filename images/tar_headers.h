// The raw headers of one member, beside what libarchive makes of them. It composes names that were
// decomposed, but a file's name is what the layer says it is; and it takes a number that is none
// for 0 or for its first digits, where other engines refuse or read on. Pure.
// Source: POSIX pax "ustar" and "Extended Header"; GNU tar's base-256 numbers and sparse members.
#pragma once

#include <string_view>

#include "base/result.h"

namespace pulga {

struct PaxNames {
  std::string_view path;       // empty: none given, or plain ASCII
  std::string_view link_path;  // likewise
};

// `headers` begins with the first header of a member and goes to its last one at least.
// kInvalidArgument for a number that is none or does not fit, a NUL in a name, a record that is
// damaged.
Result<PaxNames> CheckHeaders(std::string_view headers);

}  // namespace pulga
