// An UnpackRunner for tests: starts the real pulga-unpacker the way the launcher does (own user,
// mount, pid, net, ipc and uts namespaces, ids mapped to an unused host range) and publishes layers
// by rename. Needs: root.
#pragma once

#include <string>

#include "images/unpack_runner.h"

namespace pulga::testing {

class ForkedUnpacker final : public UnpackRunner {
 public:
  static constexpr unsigned kFirstHostId = 0x7A000000;

  // `layers_dir` exists; `unpacker` is the program.
  ForkedUnpacker(std::string layers_dir, std::string unpacker);
  Status Run(UnpackJob job) override;

  std::string LayerPath(const LayerId& id) const { return layers_dir_ + "/" + id.Hex(); }
  size_t jobs() const { return jobs_; }
  long max_rss_kib() const { return max_rss_kib_; }

 private:
  Result<int> RunChild(const UnpackJob& job, const std::string& staging);

  std::string layers_dir_;
  std::string unpacker_;
  size_t jobs_ = 0;
  long max_rss_kib_ = 0;
};

}  // namespace pulga::testing
