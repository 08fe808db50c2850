// How the unpacker locks itself in, in this order: limits, the mounts it needs, a root directory
// that holds nothing else, no privileges but those over its own files, system calls.
// Needs: CAP_SYS_ADMIN and CAP_SYS_CHROOT in the own user namespace, and a mount namespace of it in
// which the descriptors were opened; /proc. Kernel: overlay in user namespaces (5.11) for layers
// that have parents.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

struct MergedView {
  UniqueFd root;   // what to read or change
  UniqueFd upper;  // this layer's own part; not valid without parents
};

// Makes `upper` (with the attributes of the parents' root) and `work` in the staging directory and
// mounts parents + upper over each other.
Result<MergedView> MountForWriting(std::span<const int> parents, int staging_fd);
// The parents over each other, read-only.
Result<MergedView> MountForReading(std::span<const int> parents, int staging_fd);

enum class Keep { kNothing, kFileOwnership };  // capabilities left in the user namespace
// chroot to `root_fd`, drop capabilities, no_new_privs, load the system call list.
Status LockIn(int root_fd, Keep keep);
// RLIMIT_FSIZE, CORE and NOFILE; only ever lowers.
Status LimitFiles(uint64_t max_file_bytes);

}  // namespace pulga
