// Hands rule text (net/nft_rules.h) to the kernel in one transaction: all of it or nothing. Acts on
// the caller's network namespace and needs CAP_NET_ADMIN there. pulga-netadmin only; the one user
// of libnftables, which brings a JSON parser along.
#pragma once

#include <string>

#include "base/result.h"

namespace pulga {

// `answer_fd`: where the answer of this process goes (net_job.h). The library ends the whole
// program when it gets no netlink socket or no memory; then this is said there.
Status ApplyNftRules(const std::string& rules, int answer_fd);

}  // namespace pulga
