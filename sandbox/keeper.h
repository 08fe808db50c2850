// The keeper: starts the launcher (root) and the daemon (its final ids, no capability, no new
// privileges), waits, restarts what dies with exponential back-off. Parses nothing from outside but
// its own command line. Root; one thread; blocks in its loop until told to stop.
// Contract with the daemon: it gets --keeper-fd N and --launcher-fd M (seqpacket sockets). It sends
// one byte 'R' on the keeper socket once it serves; a daemon that exits by itself before it ever
// did so ends the keeper with the same status (a port in use is no crash). The keeper sends one
// byte 'L' with a new launcher socket beside it after each restart of the launcher. A process that
// cannot be started is tried again, also with back-off; only the very first failure ends the
// keeper. SIGTERM and SIGINT: SIGTERM to the daemon, its drain is awaited. SIGHUP is passed on to
// both.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace pulga {

inline constexpr const char* kDefaultDaemonUser = "pulga";

struct KeeperOptions {
  std::string launcher_path;  // this executable
  std::string pulga_path;     // the daemon: `PATH serve-daemon ARGS...`
  std::string data_dir;
  std::string user = kDefaultDaemonUser;  // that one need not be there
  std::string grants_file;                // "" = the launcher's default
  std::string apparmor;                   // "" = the launcher's default
  std::vector<std::string> daemon_args;   // passed on, after the fds
  int lifeline_fd = -1;  // a pipe or socket; its other end closed means the same as SIGTERM
  Duration stop_limit = std::chrono::seconds(40);
};

// Delay before the n-th restart in a row (n = 0: at once): 0, 100 ms, 200 ms ... 10 s.
Duration RestartDelay(int restarts_in_a_row);
inline constexpr Duration kAliveLongEnough = std::chrono::seconds(10);  // resets the row

// The back-off of one process that may die again and again.
class RestartBackOff {
 public:
  // The delay before the next start of one that has lived so long.
  Duration After(Duration lived);

 private:
  int restarts_in_a_row_ = 0;
};

// Returns the exit status for main.
int RunKeeper(const KeeperOptions& options);

}  // namespace pulga
