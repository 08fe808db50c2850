// What the daemon's runtime sees of sandboxing: build a version's spawner, start instances in it,
// hear how they ended. Implemented by launcher_client (real) and by tests (fake).
// Everything here is on the loop thread, asynchronous, and never blocks.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/layer_id.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "base/unpack_job.h"

namespace pulga {

// Enforced by the kernel for each instance and readable back from its cgroup. 0 = see each field.
struct SandboxLimits {
  uint64_t memory_bytes = 64ULL << 20;
  uint64_t swap_bytes = 0;    // on top of memory; 0 = none
  uint32_t cpu_millis = 0;    // thousandths of one core; 0 = no quota
  uint32_t cpu_weight = 100;  // 1..10000, v2's scale
  uint32_t pids = 128;
  uint64_t io_read_bps = 0;  // 0 = unlimited
  uint64_t io_write_bps = 0;
  uint64_t tmp_bytes = 16ULL << 20;
  uint32_t nofile = 1024;
};

enum class SandboxMode : uint8_t { kExec, kHttp };
enum class InitKind : uint8_t { kPulga, kNone };  // kNone: the program itself is PID 1

inline constexpr uint16_t kMaxSlots = 256;

// Everything a version's instances have in common.
struct VersionSpec {
  uint64_t version_id = 0;      // unique among live versions of this daemon, never 0
  std::vector<LayerId> layers;  // base first
  SandboxMode mode = SandboxMode::kExec;
  InitKind init = InitKind::kPulga;
  std::vector<std::string> argv;  // not empty; argv[0] is searched in the image's PATH
  std::vector<std::string> env;   // "K=V"
  std::string user;               // as the image or the spec writes it; "" = 0:0
  std::string working_dir = "/";
  std::string hostname;
  SandboxLimits limits;
  uint16_t slots = 4;        // instances (parked ones too) that may exist at once
  uint16_t spare_netns = 1;  // http: network namespaces kept ready
};

// One program start. The fds become 0, 1 and 2; the caller's copies may be closed after the call.
struct StartOptions {
  std::vector<std::string> extra_env;   // appended to VersionSpec::env
  std::vector<std::string> extra_args;  // appended to VersionSpec::argv
  UniqueFd stdin_fd;
  UniqueFd stdout_fd;
  UniqueFd stderr_fd;
};

struct InstanceExit {
  uint16_t slot = 0;
  int wait_status = 0;     // the program's own, as wait(2) packs it
  std::string setup_step;  // not empty: set-up failed there, the program never ran
  int sys_errno = 0;
  bool oom_killed = false;
  uint64_t memory_peak_bytes = 0;  // 0 where the kernel does not tell
  Duration cpu_time{0};
};

// CLOCK_MONOTONIC moments written by the instance's set-up code; epoch value = not reached.
struct SlotTimes {
  TimePoint begun;  // the spawner took the request up
  TimePoint ready;  // everything but execve done (parked here, or about to exec)
  TimePoint exec;   // just before execve
};

// Events of one version.
class SpawnerEvents {
 public:
  virtual ~SpawnerEvents() = default;
  virtual void OnParked(uint16_t slot) = 0;           // may be woken from now on
  virtual void OnExit(const InstanceExit& exit) = 0;  // all of it is dead; the slot is free
  virtual void OnSockets(uint16_t slot, std::vector<UniqueFd> sockets) = 0;  // http, unconnected
  // The spawner, or the launcher above it, died: every instance with it. Destroy the Spawner.
  virtual void OnGone(const Error& why) = 0;
};

// A built version. Destroying it kills its instances and removes everything it held.
class Spawner {
 public:
  virtual ~Spawner() = default;
  // Slot numbers are the caller's: 0 .. slots-1, free ones only. An accepted call always ends in
  // OnExit (or OnGone).
  virtual Status Start(uint16_t slot, StartOptions options) = 0;
  virtual Status Park(uint16_t slot) = 0;
  virtual Status Wake(uint16_t slot, StartOptions options) = 0;  // after OnParked
  // `count` non-blocking TCP sockets made in the instance's network namespace -> OnSockets.
  virtual Status MakeSockets(uint16_t slot, uint16_t count) = 0;
  // To the program (exec) or PID 1 (http). SIGKILL ends the whole instance.
  virtual Status Signal(uint16_t slot, int signo) = 0;
  virtual SlotTimes Times(uint16_t slot) const = 0;
  // Current memory of the slot's cgroup; 0 where unreadable.
  virtual uint64_t MemoryBytes(uint16_t slot) const = 0;
  // Limits the kernel could not enforce, in words; empty normally.
  virtual const std::vector<std::string>& warnings() const = 0;
};

class Sandbox {
 public:
  virtual ~Sandbox() = default;
  // False between a launcher's death and its successor; calls then fail with kUnavailable.
  virtual bool available() const = 0;
  // `events` must outlive the Spawner. Errors name the step ("mount overlay: ...").
  using BuildDone = std::function<void(Result<std::unique_ptr<Spawner>>)>;
  virtual void BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) = 0;
  // The cgroup freezer, through the launcher.
  virtual void Freeze(uint64_t version_id, uint16_t slot, std::function<void(Status)> done) = 0;
  virtual void Thaw(uint64_t version_id, uint16_t slot, std::function<void(Status)> done) = 0;
  // Runs a confined helper. Ok: it exited 0 and, for kUnpackLayer, the layer is published.
  // Returns the job's number for CancelUnpack.
  virtual uint64_t RunUnpack(UnpackJob job, std::function<void(Status)> done) = 0;
  // Kills the job: its `done` gets kUnavailable unless it has ended meanwhile.
  virtual void CancelUnpack(uint64_t job) = 0;
  // Names of the layers on disk, for the start-up sweep.
  virtual void ListLayers(std::function<void(Result<std::vector<LayerId>>)> done) = 0;
};

}  // namespace pulga
