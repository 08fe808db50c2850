// What the daemon's runtime sees of sandboxing: build a version's spawner, start instances in it,
// hear how they ended. Implemented by launcher_client (real) and by tests (fake).
// Everything here is on the loop thread, asynchronous, and never blocks.
#pragma once

#include <sys/types.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/layer_id.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "base/unpack_job.h"
#include "sandbox/access_spec.h"
#include "sandbox/kernel_features.h"
#include "sandbox/secret_file.h"

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

// What of them may change while instances live.
struct InstanceSize {
  uint64_t memory_bytes = 0;
  uint32_t cpu_millis = 0;
  bool operator==(const InstanceSize&) const = default;
};

// kFrames: a server too, but it is spoken to over a socket it inherits (docs/frames.md).
enum class SandboxMode : uint8_t { kExec, kHttp, kFrames };
// One process serves many calls: it is PID 1, and it can be frozen between them.
constexpr bool IsServer(SandboxMode mode) { return mode != SandboxMode::kExec; }
enum class InitKind : uint8_t { kPulga, kNone };  // kNone: the program itself is PID 1

inline constexpr uint16_t kMaxSlots = 256;

// What BuildVersion answers when there are as many versions as there may be, and nothing else does:
// a full disk is kNoSpace too.
inline Error LauncherFull() {
  return {Code::kNoSpace, EUSERS, "too many versions or slots at once"};
}
inline bool IsLauncherFull(const Error& error) {
  return error.code == Code::kNoSpace && error.sys_errno == EUSERS;
}

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
  std::string owner;     // whose it is, for volumes; "" = nobody's
  std::string function;  // "NAMESPACE/NAME", for grants; "" = nobody's, so no grant fits
  AccessSpec access;
  SandboxLimits limits;             // when its slots are made
  InstanceSize most;                // what Resize may make of them; 0: no more than they have
  uint16_t slots = 4;               // instances (parked ones too) that may exist at once
  uint16_t spare_netns = 1;         // http: network namespaces kept ready
  std::vector<SecretFile> secrets;  // what instances find in kSecretsDirectory
  enum class Meter : uint8_t { kNone, kCpu } meter = Meter::kNone;  // kCpu: Spawner::Cpu tells
};

// What a frames function finds its channel as; nothing else above 2 is ever inherited.
inline constexpr int kChannelFd = 3;

// One program start. The fds become 0, 1, 2 and kChannelFd; the caller's copies may be closed after
// the call.
struct StartOptions {
  std::vector<std::string> extra_env;   // appended to VersionSpec::env
  std::vector<std::string> extra_args;  // appended to VersionSpec::argv
  UniqueFd stdin_fd;
  UniqueFd stdout_fd;
  UniqueFd stderr_fd;
  UniqueFd channel_fd;  // frames: needed; else there must be none
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

// What set-up has behind it, in order. With spare namespaces kMounts is short, and kNetwork is
// http's.
enum class SetupStep : uint8_t {
  kCloned,
  kCgroups,
  kNetwork,
  kMountNamespace,
  kMounts,
  kPrivileges,
  kFilter,
};
inline constexpr size_t kSetupSteps = 7;

// CLOCK_MONOTONIC moments written by the instance's set-up code; epoch value = not reached.
struct SlotTimes {
  TimePoint begun;  // the spawner took the request up
  TimePoint ready;  // everything but execve done (parked here, or about to exec)
  TimePoint exec;   // just before execve
  std::array<Duration, kSetupSteps> steps = {};  // by SetupStep, from `begun`; 0 = not reached
};

// A system call that instances were refused, and how often.
struct RefusedCount {
  std::string_view name;  // for good
  uint32_t count = 0;
};

// What a reclaim brought, by the total of the slot's cgroup.
struct Reclaimed {
  uint64_t before_bytes = 0;
  uint64_t after_bytes = 0;
  // Of the board's memory, for what lies in zram now: compressed, as all that is there on average.
  // No cgroup is charged for it.
  uint64_t zram_bytes = 0;
};

// What an instance takes, by its cgroup; 0 where unreadable. A page of a file (a layer's above all)
// is charged to whoever touched it first, and to nobody else: over all instances each is counted
// once, but who has it is chance, and it goes when memory is short. Own need: anon + kernel.
struct InstanceMemory {
  uint64_t anon = 0;     // heaps, stacks, and what lies in its tmpfs
  uint64_t file = 0;     // page cache charged to it
  uint64_t kernel = 0;   // page tables, stacks, inodes, what sockets hold
  uint64_t total = 0;    // what its limit counts
  uint64_t swapped = 0;  // pushed out, before compression; in no other number
};

// What a slot's cgroup counted, over all instances there were in it.
struct InstanceCpu {
  Duration used{0};
  uint64_t throttled = 0;  // periods in which its quota held it up
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
  // To the program (exec) or PID 1 (servers). SIGKILL ends the whole instance.
  virtual Status Signal(uint16_t slot, int signo) = 0;
  // server: the cgroup freezer. All of a running instance stops within a moment; it goes on at once
  // when thawed, or sent a signal. kUnsupported: this kernel has none.
  virtual Status Freeze(uint16_t slot) = 0;
  virtual Status Thaw(uint16_t slot) = 0;
  // Whether Reclaim has a chance now: this kernel can, swap with room is active, all zram unless
  // limits.swap > 0. Cheap: reads /proc/swaps. The error, kUnsupported, says what is missing.
  virtual Status CanReclaim() const = 0;
  // server, frozen ones only (else kInvalidArgument): pushes the instance's pages out to swap, in a
  // process of low priority; one instance of the board at a time, further ones wait their turn.
  // `done` is called from the loop, some 10 s after its turn at the latest; an instance that keeps
  // its pages is no error. Thaw, Signal and the instance's end cancel it without a wait: `done` is
  // then never called, nor after OnGone. What is thawed takes its pages back one by one as it
  // touches them. kUnavailable: the slot's last one is still being cancelled; later.
  using ReclaimDone = std::function<void(Result<Reclaimed>)>;
  virtual Status Reclaim(uint16_t slot, ReclaimDone done) = 0;
  // New limits for all instances, those there are and those to come; never above VersionSpec::most.
  // `done` is called from the loop, never after OnGone; on an error the limits are as they were,
  // but where the kernel refused that too. One at a time, else kUnavailable.
  virtual void Resize(const InstanceSize& size, std::function<void(Status)> done) = 0;
  virtual uint32_t Processes(uint16_t slot) const = 0;  // server: living ones; 0 where unreadable
  virtual SlotTimes Times(uint16_t slot) const = 0;
  // Current memory of the slot's cgroup; 0 where unreadable.
  virtual uint64_t MemoryBytes(uint16_t slot) const = 0;
  // The same in parts: some 30 us, so tens of instances per second, not on the path of a call.
  virtual InstanceMemory Memory(uint16_t slot) const = 0;
  // Of a version with Meter::kCpu; none where unreadable. Some 5 us.
  virtual std::optional<InstanceCpu> Cpu(uint16_t slot) const = 0;
  // Limits the kernel could not enforce, in words; empty normally.
  virtual const std::vector<std::string>& warnings() const = 0;
  // Refusals since it was last asked; nothing where they are not counted (layers() says so).
  virtual std::vector<RefusedCount> TakeRefusals() { return {}; }
  // What its instances really got of the isolation report's layers (isolation.h).
  virtual std::vector<Feature> layers() const { return {}; }
};

// A built version that has secrets.
struct SecretUse {
  uint64_t version_id = 0;
  std::string owner;  // as its VersionSpec had them
  std::string function;
  std::vector<std::string> names;
};

class Sandbox {
 public:
  virtual ~Sandbox() = default;
  // False between a launcher's death and its successor; calls then fail with kUnavailable.
  virtual bool available() const = 0;
  // `events` must outlive the Spawner. Errors name the step ("mount overlay: ...").
  using BuildDone = std::function<void(Result<std::unique_ptr<Spawner>>)>;
  virtual void BuildVersion(const VersionSpec& spec, SpawnerEvents& events, BuildDone done) = 0;
  // Those that live now, and new values for one of them, in the order of its names; its instances
  // see them a moment later. A version that cannot take them is gone (OnGone).
  virtual std::vector<SecretUse> SecretUses() const { return {}; }
  virtual void SetSecrets(uint64_t /*version_id*/, const std::vector<SecretFile>& /*secrets*/) {}
  // Runs a confined helper. Ok: it exited 0 and, for kUnpackLayer, the layer is published.
  // Returns the job's number for CancelUnpack.
  virtual uint64_t RunUnpack(UnpackJob job, std::function<void(Status)> done) = 0;
  // Kills the job: its `done` gets kUnavailable unless it has ended meanwhile.
  virtual void CancelUnpack(uint64_t job) = 0;
  // Names of the layers on disk, for the start-up sweep.
  virtual void ListLayers(std::function<void(Result<std::vector<LayerId>>)> done) = 0;
};

}  // namespace pulga
