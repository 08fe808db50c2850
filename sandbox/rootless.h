// Becoming root of a user namespace of one's own: how `pulga serve` and `pulga run` start for an
// ordinary user. With newuidmap, newgidmap and ranges in /etc/subuid and /etc/subgid the user is id
// 0 there and the ranges are ids 1, 2, ...; else 0 is all there is (HostIds::IsSingle).
// The caller is single-threaded and comes out as the same process, in a mount namespace of its own.
// Source: user_namespaces(7), subuid(5), newuidmap(1).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace pulga {

struct SubIdRange {
  uint32_t first = 0;
  uint32_t count = 0;
};
// The lines of /etc/subuid that name the user or its number.
std::vector<SubIdRange> ParseSubIds(std::string_view text, const std::string& user, uid_t uid);
// newuidmap's arguments behind the pid: 0 is `own`, then the ranges from 1 on.
std::vector<std::string> SubIdArguments(const std::vector<SubIdRange>& ranges, uint32_t own);

// Why more than one id cannot be had, and what to do about it; empty where it can.
std::string WhyOneIdOnly();
// Why the kernel gives this user no user namespace, from its settings and `sys_errno`.
std::string WhyNoUserNamespace(int sys_errno);

struct RootlessEntry {
  std::string one_id_only;  // why; empty normally
};
Result<RootlessEntry> EnterRootless();

}  // namespace pulga
