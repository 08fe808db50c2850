// Image USER ("", "uid", "name", "uid:gid", "name:group" and mixtures) to numbers, by the image's
// own /etc/passwd and /etc/group, which are hostile input: bounded, regular files only. No group
// given: gid of the passwd entry (0 for an id not listed) and supplementary groups by /etc/group.
// Group given: no supplementary groups. Ids must fit the 65536 that are mapped; anything that could
// wrap to 0 is refused. Source: images/README.md, config fields; cases U57, U58.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pulga {

inline constexpr uint32_t kMaxUserId = 65534;
inline constexpr size_t kMaxUserGroups = 64;
inline constexpr size_t kMaxUserFileBytes = 1 << 20;

struct UserDatabase {
  std::string passwd;
  std::string group;
  std::string passwd_problem;  // why the file could not be read; empty if it was, or is absent
  std::string group_problem;
};

struct ResolvedUser {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  std::string home = "/";  // for HOME when the environment has none
};

// kInvalidArgument says which part and why. Pure.
Result<ResolvedUser> ResolveUser(std::string_view spec, const UserDatabase& database);
// Reads etc/passwd and etc/group below `root_fd`, resolving symlinks inside it. Never blocks on a
// FIFO or device. A missing file is an empty one; other trouble is noted in the *_problem fields
// and matters only if a name has to be looked up.
UserDatabase ReadUserDatabase(int root_fd);

}  // namespace pulga
