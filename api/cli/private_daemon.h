// A private daemon for one command: on a unix socket in a directory of its own, gone with the
// command, also when that is killed. Blocks. Used by `run` and `bench`. Needs what `serve` needs.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "api/cli/client.h"
#include "api/cli/serve_process.h"
#include "base/process.h"
#include "base/temp_dir.h"
#include "base/unique_fd.h"

namespace pulga::cli {

// From here on the ending signals are something to wait for beside everything else, so that they
// unwind this process; a `kill -9` is the lifeline's matter.
class EndingSignals {
 public:
  static Result<EndingSignals> Take();
  int fd() const { return fd_.get(); }
  // The signal that came; nothing when none did.
  std::optional<int> Received() const;

 private:
  explicit EndingSignals(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// A private daemon on a unix socket in a directory of its own; gone with this object.
class PrivateDaemon {
 public:
  static Result<std::unique_ptr<PrivateDaemon>> Start(const Programs& programs,
                                                      const EndingSignals& signals,
                                                      const std::string& apparmor = "auto");
  ~PrivateDaemon();
  Result<DaemonClient> Client() const;

 private:
  PrivateDaemon(TempDir dir, int cancel_fd) : dir_(std::move(dir)), cancel_fd_(cancel_fd) {}
  Status Spawn(const Programs& programs, const std::string& apparmor);
  Status AwaitReady();
  std::string data() const { return dir_.path() + "/data"; }
  std::string socket() const { return data() + "/pulga.sock"; }

  TempDir dir_;
  UniqueFd lock_;
  int cancel_fd_;
  UniqueFd lifeline_;  // its other end is the keeper's, which stops when this one closes
  PidFd keeper_;
  UniqueFd log_;  // what the daemon says, shown only when it does not start
};

}  // namespace pulga::cli
