// How pulga-fetcher locks itself in before it says or hears a byte: a root of a few small files
// (host names, resolver, CA certificates), read-only; no capability, no_new_privs, its own list of
// system calls. The network is the host's.
// Needs: CAP_SYS_ADMIN and CAP_SYS_CHROOT in the own user namespace, a mount namespace of it,
// /proc.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace pulga {

inline constexpr const char* kFetchCaFile = "/etc/ssl/certs/ca-certificates.crt";  // once inside

struct FetchView {
  std::string extra_ca;     // PEM, beside the host's own authorities
  uint64_t max_file_bytes;  // of the output
};

Status LockInFetcher(const FetchView& view);

}  // namespace pulga
