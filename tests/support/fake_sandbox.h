// FakeSandbox: sandboxes without a kernel's help. Programs are functions of the test that run on
// threads of their own, behind real pipes (exec), real loopback connections (http) or a real socket
// pair (frames); everything is
// told on the loop, in order, as the launcher's client would. Nothing here needs root.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/event_loop.h"
#include "sandbox/sandbox.h"
#include "tests/support/sandbox_without_layers.h"

namespace pulga::testing {

class FakeSandbox;

// What a scripted program may do. Blocking, on its own thread.
class FakeProgram {
 public:
  std::string ReadAll();                       // stdin, to its end
  size_t ReadSome(char* buffer, size_t size);  // 0 = end
  bool Print(std::string_view text);           // stdout; false: nobody reads
  bool Complain(std::string_view text);        // stderr
  void CloseOutput();
  int channel() const { return fds_[3].get(); }  // frames
  void CloseChannel() { fds_[3].Reset(); }
  int WaitForSignal();  // what it was sent; 9 at the latest at the end
  std::string Env(const std::string& name) const;
  std::vector<std::string> args;  // the extra ones

 private:
  friend class FakeSandbox;
  friend class FakeSpawner;
  std::vector<std::string> env_;
  UniqueFd fds_[4];
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<int> signals_;
  bool over_ = false;
  int status = 0;
};

// How it ended, as wait(2) packs it.
inline int Exited(int code) { return code << 8; }
inline int Killed(int signo) { return signo; }
using FakeScript = std::function<int(FakeProgram&)>;

// One connection a scripted server has accepted. Blocking, on its own thread.
class FakeConnection {
 public:
  explicit FakeConnection(UniqueFd fd) : fd_(std::move(fd)) {}
  // Head and body (decoded when chunked); "" when the peer closed.
  std::string ReadRequest();
  std::string ReadHead();
  size_t ReadSome(char* buffer, size_t size);
  bool Send(std::string_view text);
  void Reply(std::string_view body);  // 200 with Content-Length
  void Reset();                       // the end will be an RST
  void Close() { fd_.Reset(); }       // for the sandbox: a handler just returns
  int fd() const { return fd_.get(); }
  uint16_t slot = 0;

 private:
  UniqueFd fd_;
  std::string rest_;
};
using FakeHandler = std::function<void(FakeConnection&)>;

class FakeSandbox final : public SandboxWithoutLayers {
 public:
  explicit FakeSandbox(EventLoop& loop);
  ~FakeSandbox() override;

  // --- what the test says
  FakeScript program = [](FakeProgram&) { return Exited(0); };
  void SetHandler(FakeHandler handler);  // of connections from now on; at first: "hello"
  Duration listen_delay{0};              // http: from start to listen(); negative = never
  Duration park_delay{0};
  Duration build_delay{0};
  Duration set_up_time{0};        // from when a start is asked for to its execve; blocks
  std::string setup_step;         // not empty: every start and park fails there
  bool oom = false;               // the next exits say oom_killed
  bool dies_before_exec = false;  // woken ones end without having run
  int broken_pipes = 0;           // so many spawners die, and a start is the first to notice
  std::string build_error;        // not empty: builds fail
  Code build_error_code = Code::kIo;
  int build_errno = 0;
  int most_spawners = 1000;                         // more are refused: kNoSpace
  std::vector<std::string> warnings;                // of every spawner built from now on
  std::string freeze_error;                         // not empty: nothing can be frozen
  std::string thaw_error;                           // not empty: what is frozen stays so
  std::string reclaim_error = "no swap is active";  // not empty: nothing can be reclaimed
  Duration reclaim_delay{0};
  Reclaimed reclaimed = {1 << 20, 1 << 16, 1 << 14};  // what each reclaim says it brought
  InstanceMemory memory = {1 << 19, 1 << 18, 1 << 18, 1 << 20, 0};  // of each slot
  uint32_t processes = 1;                                           // in each slot
  std::vector<InstanceSize> sizes;                                  // as slots were resized
  std::string resize_error;                                         // not empty: none is
  std::optional<InstanceCpu> cpu;                                   // of each slot
  uint64_t memory_bytes = 1 << 20;                                  // of each slot
  std::vector<Feature> layers;                                      // of each version
  std::vector<RefusedCount> refusals;                               // told to whoever asks next
  int server_exit = -1;  // http: servers end with this instead of listening
  void set_available(bool available) { available_ = available; }
  void KillSpawners(const std::string& why);          // OnGone for all
  void KillInstance(uint16_t slot, int wait_status);  // in every version
  uint16_t port() const { return port_; }

  // --- what it saw
  std::atomic<int> builds{0}, starts{0}, parks{0}, wakes{0}, live{0}, spawners{0};
  std::atomic<int> max_running{0};
  int freezes = 0, thaws = 0;
  int reclaims = 0;           // that ended
  std::set<uint16_t> frozen;  // slots, of all versions
  std::vector<int> signals;
  std::vector<VersionSpec> specs;

  bool available() const override { return available_; }
  void BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) override;

 private:
  friend class FakeSpawner;
  void AcceptLoop();
  void Listen();
  void RunThread(std::function<void()> body);

  EventLoop& loop_;
  bool available_ = true;
  std::set<class FakeSpawner*> live_spawners_;
  std::mutex mutex_;  // guards handler_, threads_, peers_, connections_
  FakeHandler handler_ = [](FakeConnection& c) {
    while (!c.ReadRequest().empty()) c.Reply("hello");
  };
  std::vector<std::thread> threads_;
  std::map<uint16_t, std::pair<FakeSpawner*, uint16_t>> peers_;   // local port -> whose
  std::map<int, std::pair<FakeSpawner*, uint16_t>> connections_;  // accepted fd -> whose
  UniqueFd listener_;
  uint16_t port_ = 0;
  std::atomic<bool> stopping_{false};
  bool listening_ = false;
};

}  // namespace pulga::testing
