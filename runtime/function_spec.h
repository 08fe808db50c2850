// FunctionSpec: what a user asks for when deploying, already typed. runtime/spec_json makes it from
// JSON and back; Validate() holds every rule that needs no image and no board. Pure.
// Source: docs/api.md "Function spec".
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/owner.h"
#include "base/result.h"
#include "net/service_name.h"
#include "sandbox/sandbox.h"

namespace pulga {

struct FunctionKey {
  std::string owner = kDefaultOwner;
  std::string name_space = kDefaultNamespace;
  std::string name;
  auto operator<=>(const FunctionKey&) const = default;
};

// [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])? ; the error names the rule.
Status ValidateFunctionName(const std::string& name);

enum class ModeChoice : uint8_t { kAuto, kHttp, kExec, kFrames };
enum class InputKind : uint8_t { kStdin, kArgument };
enum class InitChoice : uint8_t { kAuto, kNone };
enum class PullPolicy : uint8_t { kIfNotPresent, kAlways, kNever };

// body_bytes and output_bytes: not given. The resolver replaces it, so no Version ever has it.
inline constexpr uint64_t kByMode = UINT64_MAX;
inline constexpr uint64_t kDefaultExecBytes = 6ULL << 20;
inline constexpr Duration kNeverFreeze = Duration::max();
// cpu_millis: not given. A deploy replaces it (DefaultCpuMillis), so no Version ever has it.
inline constexpr uint32_t kCpuNotGiven = UINT32_MAX;

struct InvocationLimits {
  Duration timeout = std::chrono::seconds(30);
  Duration start_timeout = std::chrono::seconds(20);
  Duration grace = std::chrono::seconds(5);
  // exec: always enforced, 6 MiB when not given; http: 0 = streamed without a bound, when not given
  // too.
  uint64_t body_bytes = kByMode;
  uint64_t output_bytes = kByMode;
};

struct ScaleSpec {
  uint32_t min = 0;
  uint32_t max = 4;
  uint32_t concurrency = 0;  // 0 = not given, by mode: exec 1, http 100
  uint32_t target = 0;       // http: calls at once that one instance is meant for; 0 = concurrency
  uint32_t rps_target = 0;   // http: calls per second one instance is meant for; 0 = not asked
  uint32_t cpu_target = 0;   // http: percent of limits.cpu that instances should use; 0 = not asked
  Duration latency_target{0};        // http: what calls should take; 0 = not asked
  uint32_t latency_percentile = 95;  // how many of 100 of them
  uint32_t queue = 100;
  uint32_t weight = 100;  // its share of starts where memory or places for instances are short
  Duration queue_wait = std::chrono::seconds(10);
  uint32_t parked = 1;                              // exec: sandboxes kept ready
  Duration idle{0};                                 // 0 = auto: the pool's fixed rule
  Duration freeze_after = std::chrono::seconds(1);  // http: of idleness; or kNeverFreeze
};

// What a client of OpenFaaS said that counts otherwise here, or not at all: it gets it back as it
// said it.
struct OpenFaasSpec {
  std::string env_process;                      // env.fprocess, where nothing else set that
  std::map<std::string, std::string> limits;    // "memory": "40m"
  std::map<std::string, std::string> requests;  // the same
  std::vector<std::string> constraints;
  bool read_only_root = false;
};

struct FunctionSpec {
  std::string image;                            // as the user wrote it
  PullPolicy pull = PullPolicy::kIfNotPresent;  // when deploying asks the image's registry
  ModeChoice mode = ModeChoice::kAuto;
  std::vector<std::string> command;  // replaces the image's entrypoint and cmd
  std::vector<std::string> args;     // replaces the image's cmd
  std::map<std::string, std::string> env;
  std::string user;   // "" = the image's
  uint16_t port = 0;  // 0 = not given, by image: its first EXPOSEd tcp port, else 8080
  InputKind input = InputKind::kStdin;
  std::string content_type = "application/octet-stream";
  InitChoice init = InitChoice::kAuto;
  SandboxLimits sandbox;
  // Where limits.memory or limits.cpu is a range: its lower end. What `sandbox` says is the upper.
  uint64_t least_memory_bytes = 0;
  uint32_t least_cpu_millis = 0;
  InvocationLimits limits;
  bool allow_unenforced = false;  // cpu and io limits this kernel can not hold: a warning, no error
  ScaleSpec scale;
  std::vector<std::string> secrets;  // names
  AccessSpec access;                 // network, volumes, devices, capabilities
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;
  std::optional<OpenFaasSpec> openfaas;  // only where such a client deployed it
};

// What the whole numbers may be, both ends included.
struct NumberRange {
  uint64_t least;
  uint64_t most;
};
inline constexpr NumberRange kPortRange{1, 65535};
inline constexpr NumberRange kCpuWeightRange{1, 10000};
inline constexpr NumberRange kPidsRange{4, 32768};
inline constexpr NumberRange kNofileRange{16, 1 << 20};
inline constexpr NumberRange kMinRange{0, kMaxSlots};  // and no more than scale.max
inline constexpr NumberRange kMaxRange{1, kMaxSlots};
inline constexpr NumberRange kConcurrencyRange{1, 10000};
inline constexpr NumberRange kQueueRange{0, 100000};
inline constexpr NumberRange kRpsTargetRange{1, 1000000};
inline constexpr NumberRange kCpuTargetRange{1, 100};
inline constexpr uint32_t kDefaultCpuTarget = 80;  // "auto"
inline constexpr NumberRange kPercentileRange{1, 99};
inline constexpr NumberRange kWeightRange{1, 1000};

// kInvalidArgument: too many of them, or too long ones.
Status CheckLabels(std::string_view field, const std::map<std::string, std::string>& labels);
// kInvalidArgument: "limits.pids: 1 is not between 4 and 32768".
Status CheckNumber(std::string_view field, uint64_t value, NumberRange range);
// kInvalidArgument; the message begins with the field: "limits.memory: ...".
Status Validate(const FunctionSpec& spec);

}  // namespace pulga
