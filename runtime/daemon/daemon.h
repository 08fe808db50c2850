// The daemon process: builds the loop, the storage and spool threads, the state, the sandbox
// client, the dispatcher, the engine and, by the factory given, the HTTP front; then serves until
// told to stop. Has no privileges and needs none. Signals: TERM and INT drain and stop (a second
// one stops at once), HUP reloads the configuration. Returns the process's exit status.
#pragma once

#include <functional>
#include <memory>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/daemon/config.h"
#include "runtime/engine.h"

namespace pulga {

// What the daemon needs of api/'s HTTP server. Loop thread.
class Front {
 public:
  virtual ~Front() = default;  // closes every connection
  // Accepts no new connection from now on; open ones are closed once they have their answer, and
  // calls still coming in on them are refused by the engine with a status.
  virtual void StopAccepting() = 0;
  // A socket that listens where functions with outbound network are: only calls are served there.
  // Replaces the one before; an invalid one ends it.
  virtual Status ServeGateway(UniqueFd socket) = 0;
  virtual size_t open_requests() const = 0;
  // Where it listens, with the ports the kernel chose: "127.0.0.1:40123", "unix:/run/pulga.sock".
  virtual const std::vector<std::string>& bound() const = 0;
  virtual void Reload(const DaemonConfig& config) = 0;
};

using FrontFactory =
    std::function<Result<std::unique_ptr<Front>>(EventLoop&, Engine&, const DaemonConfig&)>;

struct DaemonOptions {
  ConfigSources sources;
  // Inherited seqpacket sockets (contract: sandbox/keeper.h): --keeper-fd and --launcher-fd.
  int keeper_fd = -1;
  int launcher_fd = -1;
};

// Logs why when it returns anything but 0. The front may be made before the first sweep is done.
int RunDaemon(const DaemonOptions& options, const FrontFactory& make_front);

}  // namespace pulga
