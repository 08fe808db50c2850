// A real launcher on a temporary data directory with hand-made layers, for kernel tests. Needs
// root. What it leaves behind is part of what the tests check: Leftovers() is empty after Stop().
// What the launcher says goes to a file, whose end a failing test shows.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/process.h"
#include "base/temp_dir.h"
#include "sandbox/launcher_client.h"

namespace pulga::testing {

// Remembers what a spawner says.
class Recorder : public SpawnerEvents {
 public:
  void OnParked(uint16_t slot) override { parked.push_back(slot); }
  void OnExit(const InstanceExit& exit) override { exits.push_back(exit); }
  void OnSockets(uint16_t, std::vector<UniqueFd> fds) override {
    for (UniqueFd& fd : fds) sockets.push_back(std::move(fd));
    ++socket_events;
  }
  void OnGone(const Error& why) override { gone.push_back(why.message); }

  std::vector<uint16_t> parked;
  std::vector<InstanceExit> exits;
  std::vector<UniqueFd> sockets;
  std::vector<std::string> gone;
  int socket_events = 0;
};

struct RunResult {
  InstanceExit exit;
  std::string out;
  std::string err;
  bool ended = false;
};

// The three ends of a program's stdio that a caller keeps.
struct Stdio {
  UniqueFd in;   // write
  UniqueFd out;  // read
  UniqueFd err;  // read
};

// Of a launcher's command line: what goes before it (a tracer, another kernel), and behind it.
struct LauncherWords {
  std::vector<std::string> prefix;
  std::vector<std::string> options = {};
};

class LauncherWorld {
 public:
  LauncherWorld();
  ~LauncherWorld();

  void StartLauncher(LauncherWords words = {});
  // The same launcher in a process forked from this one, which shares injected faults with us.
  void ForkLauncher();
  // One without a client: its process and the daemon's end of the socket.
  std::pair<PidFd, MessageSocket> StartBareLauncher(LauncherWords words = {});
  void StopLauncher();  // by closing the socket, as a dying daemon does
  void KillLauncher();
  EventLoop& loop() { return *loop_; }
  LauncherClient& client() { return *client_; }
  pid_t launcher_pid() const { return launcher_.pid(); }
  std::string tree() const { return tree_; }
  const std::string& data() const { return data_.path(); }
  // Not there unless a test writes it.
  std::string grants_file() const { return data_.path() + "/grants.conf"; }
  // Writes the file and has the launcher read it.
  void Grant(const std::string& text);

  // Turns the loop until `done` or a minute has passed (emulated processors are slow); false then.
  bool Until(const std::function<bool()>& done);

  // The layer every test has: /probe, /echo, /http-hello, /etc/{passwd,group}, /bin -> /usr/bin.
  LayerId base_layer() const { return base_; }
  // An empty layer directory to be filled under the returned path; then OwnLayer.
  std::string MakeLayer(const LayerId& id);
  void OwnLayer(const std::string& path);

  VersionSpec Spec(std::vector<std::string> argv = {"/probe"});
  // nullptr: `error` says why.
  std::unique_ptr<Spawner> Build(const VersionSpec& spec, SpawnerEvents& events);
  Status error;

  // One cold start in slot 0, run to its end.
  RunResult Run(Spawner& spawner, Recorder& events, const std::vector<std::string>& args,
                const std::string& input = "");
  // A parked one in slot 0, woken.
  RunResult RunParked(Spawner& spawner, Recorder& events, const std::vector<std::string>& args,
                      const std::string& input = "");
  // Options with pipes, whose other ends go to `stdio`.
  StartOptions WithPipes(Stdio& stdio);

  // Adds to `text` what the program writes until `word` is in it.
  bool UntilSaid(Stdio& stdio, std::string& text, const std::string& word);

  // Those with a file of this world's behind them.
  std::vector<std::string> LoopDevices() const;

  // Cgroups, loop devices, mounts, processes and directories that carry this world's name.
  std::vector<std::string> Leftovers();

 private:
  RunResult Finish(Recorder& events, size_t exits_before, Stdio stdio, const std::string& input);

  TempDir data_;
  UniqueFd log_;
  std::string tree_;
  LayerId base_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<LauncherClient> client_;
  PidFd launcher_;
};

// The path of a program of this build.
std::string ProgramBeside(const std::string& name);

// Shows the end of a log when the test that wrote it has failed.
void ShowLogOfFailure(const std::string& path);

// "key:\tvalue" lines as /proc/self/status has them.
std::string StatusField(const std::string& status, const std::string& key);

}  // namespace pulga::testing
