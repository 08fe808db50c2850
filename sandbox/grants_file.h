// grants.conf: one grant a line, read by the launcher (and, to show it, by `pulga doctor`). A line
// only ever adds a right, so one that is not understood grants nothing and the others hold; a file
// that anybody but root could have written grants nothing at all.
// ParseGrants is pure; ReadGrants blocks on the file. Source: docs/grants.md.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sandbox/grants.h"

namespace pulga {

inline constexpr const char* kDefaultGrantsFile = "/etc/pulga/grants.conf";
inline constexpr size_t kMaxGrantsBytes = 64 * 1024;

struct GrantProblem {
  size_t line = 0;  // from 1
  std::string message;
};

struct GrantsText {
  Grants grants;
  std::vector<GrantLine> lines;  // those that hold
  std::vector<GrantProblem> problems;
};

GrantsText ParseGrants(std::string_view text);
// What the launcher told of its lines, with their numbers.
Grants GrantsOf(const std::vector<GrantLine>& lines);
// kNotFound: there is no file, which is fine. kPermission: it, or a directory on the way to it, is
// not root's alone to write, or is a symlink; the message names which.
Result<GrantsText> ReadGrants(const std::string& path);

}  // namespace pulga
