// An UnpackRunner for tests: starts the real pulga-unpacker the way the launcher does (own user,
// mount, pid, net, ipc and uts namespaces, ids mapped to an unused host range) and publishes layers
// by rename. Each job is a thread that waits for its process. Needs: root.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <string>

#include "images/unpack_runner.h"

namespace pulga::testing {

class ForkedUnpacker final : public UnpackRunner {
 public:
  static constexpr unsigned kFirstHostId = 0x7A000000;

  // `layers_dir` exists; `unpacker` is the program.
  ForkedUnpacker(std::string layers_dir, std::string unpacker);
  std::unique_ptr<RunningJob> Start(UnpackJob job) override;

  std::string LayerPath(const LayerId& id) const { return layers_dir_ + "/" + id.Hex(); }
  size_t jobs() const { return jobs_; }
  long max_rss_kib() const { return max_rss_kib_; }

  // From now on each unpacker is traced to its end, where it tells the most memory it ever held,
  // program and libraries included. Not with sanitizers.
  void WatchMemory() { watch_memory_ = true; }
  // Since the last call, of the largest of them.
  long TakePeakKib() { return peak_kib_.exchange(0); }

 private:
  class Running;
  struct Pipes {  // the child's messages, and its parent's
    int ready[2];
    int go[2];
  };
  Status Run(UnpackJob job, const std::string& staging, std::atomic<pid_t>* pid);
  [[noreturn]] void BeChild(const UnpackJob& job, int request, const std::string& staging,
                            const Pipes& pipes);
  Result<pid_t> ForkChild(const UnpackJob& job, int request, const std::string& staging,
                          const Pipes& pipes);
  Result<int> RunChild(UnpackJob job, const std::string& staging, std::atomic<pid_t>* pid);

  std::string layers_dir_;
  std::string unpacker_;
  std::atomic<size_t> jobs_ = 0;
  std::atomic<long> max_rss_kib_ = 0;
  bool watch_memory_ = false;
  std::atomic<long> peak_kib_ = 0;
};

}  // namespace pulga::testing
