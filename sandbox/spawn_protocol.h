// Messages between the daemon and one spawner, and the records both sides map.
// The spawner has no privilege over the host, and neither side trusts a number of the other.
// Requests are a SpawnRequest, its env blob, its args blob (NUL-terminated strings); a parked
// instance takes the same message, kind kWake, on its own wake socket and answers nothing.
#pragma once

#include <cstdint>

#include "sandbox/sandbox.h"
#include "sandbox/seccomp_profile.h"

namespace pulga {

inline constexpr size_t kMaxSpawnMessage = 192 * 1024;
inline constexpr uint32_t kMaxExtraStrings = 1024;  // env and args of one request, each
inline constexpr uint16_t kMaxSocketsPerRequest = 64;

enum class SpawnKind : uint32_t {
  kStart = 1,  // fds: stdin, stdout, stderr; of a frames version the channel too
  kPark = 2,
  kWake = 3,     // on the wake socket; fds as kStart
  kSignal = 4,   // number = signal
  kSockets = 5,  // number = how many
  kSecrets = 6,  // 1 fd: what MakeSecretBundle made; of a version that has secrets
};

struct SpawnRequest {
  SpawnKind kind;
  uint16_t slot;
  uint16_t number;
  uint32_t envc;
  uint32_t env_bytes;
  uint32_t argc;
  uint32_t arg_bytes;
};

enum class SpawnEventKind : uint32_t {
  kMemoryFds = 1,   // `number` fds, for slots from `slot` on; sys_errno = CounterFormat
  kWakeSocket = 2,  // 1 fd; the parked instance sends one byte on it when it is ready
  kExit = 3,
  kSockets = 4,     // `number` fds; 0 with sys_errno when they could not be made
  kFreezerFds = 5,  // `number` pairs, FreezerFds of the slots from `slot` on
  kStatFds = 6,  // `number` MemoryFds of the slots from `slot` on; sys_errno = fds of each, 1 or 2
  kCpuFds = 7,   // the same with CpuFds, of a metered version
  kSecrets = 8,  // the answer to each kSecrets; sys_errno: why they are not in place
};

inline constexpr size_t kStepBytes = 32;

struct SpawnEvent {
  SpawnEventKind kind;
  uint16_t slot;
  uint16_t number;
  int32_t wait_status;
  int32_t sys_errno;
  uint32_t oom_killed;
  char step[kStepBytes];  // NUL-terminated; not empty: set-up failed there
  uint64_t memory_peak_bytes;
  uint64_t cpu_time_ns;
};

// One per slot in a memfd; written by the spawner and the instance's set-up, read by the daemon.
// The program never sees it: execve unmaps it and the fd is closed.
struct alignas(128) SlotRecord {
  uint64_t begun_ns;  // CLOCK_MONOTONIC
  uint64_t ready_ns;
  uint64_t exec_ns;
  int32_t wait_status;
  uint32_t has_wait_status;  // PID 1 saw the program end
  int32_t sys_errno;
  char step[kStepBytes];
  uint32_t step_ns[kSetupSteps];  // by SetupStep, after begun_ns
};
static_assert(sizeof(SlotRecord) == 128);

// Behind the slots' records: how often its instances were refused which of RefusedCalls() and,
// behind them, of RefusedArm32Calls(), in that order. Written by the spawner; a count may wrap
// around.
struct alignas(128) RefusalRecord {
  uint32_t total;
  uint32_t counts[kMaxRefusedCalls];
};

inline size_t RecordsBytes(uint16_t slots) {
  return sizeof(SlotRecord) * slots + sizeof(RefusalRecord);
}

}  // namespace pulga
