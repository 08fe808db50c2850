// The secrets of a version as its instances see them: files of one small tmpfs, read-only there,
// and written by the spawner alone, which keeps a descriptor of it; running instances see a change
// at once, each file as a whole. Charged to the spawner's cgroup, which never swaps, and to no
// instance. Own process: the spawner; Replace makes plain system calls only. The bundle is the
// daemon's side. Needs: the mount point (skeleton.h), /dev/shm to mount on for a moment.
#pragma once

#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/secret_file.h"

namespace pulga {

// What so many secrets may take at once: each of them, and what is about to replace it.
constexpr uint64_t SecretsMountBytes(size_t secrets) {
  return secrets * 2 * (kMaxSecretBytes + 4096) + (64 << 10);
}

// An unnamed file in memory: the size (uint32) and the bytes of each value, in this order.
Result<UniqueFd> MakeSecretBundle(const std::vector<SecretFile>& secrets);

class SecretsMount {
 public:
  // Once, before the first instance; `secrets` stay named so.
  Status Mount(const std::vector<SecretFile>& secrets);
  // 0, or an errno: then all is as it was, unless the kernel failed between two files.
  int Replace(int bundle_fd) const;
  bool mounted() const { return shown_.valid(); }

 private:
  int WriteAhead(int bundle_fd) const;

  std::vector<std::string> names_;
  UniqueFd shown_;  // what instances see
  UniqueFd ahead_;  // beside it, for what is not complete yet
};

}  // namespace pulga
