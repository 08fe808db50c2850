// Messages between the daemon and the launcher: a closed set of structs, ids and bounded blobs,
// never a path. The daemon is trusted with nothing but choice: Decode* checks every field, the
// launcher checks again what only it can know (which layers and versions exist, what the board
// has). One seqpacket message each; fds beside it only where the kind names them. Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/layer_id.h"
#include "base/result.h"
#include "base/unpack_job.h"
#include "net/nft_rules.h"
#include "sandbox/grants.h"
#include "sandbox/sandbox.h"
#include "sandbox/wire.h"

namespace pulga {

inline constexpr uint32_t kLaunchMagic = 0x504c4731;  // "PLG1"
inline constexpr size_t kMaxLaunchMessage = 192 * 1024;
inline constexpr size_t kMaxVersions = 256;
// Versions at once on a board of so many bytes: a spawner with its namespaces, mounts and cgroups
// takes about 1 MiB, nearly all of it the kernel's, which is in no function's limit.
constexpr size_t VersionsThatFit(uint64_t board_bytes) {
  return std::clamp<size_t>(static_cast<size_t>(board_bytes >> 23), 16, kMaxVersions);
}
inline constexpr uint32_t kMaxStrings = 1024;
inline constexpr uint32_t kMaxStringBytes = 64 * 1024;  // argv and env, each
inline constexpr size_t kMaxReplyText = 8192;
// A reply to nobody's request: the grants changed. Its fd: a memfd of EncodeGrants.
inline constexpr uint64_t kGrantsRequest = 0;

enum class LaunchKind : uint32_t {
  kBuildVersion = 1,  // reply fds: spawner socket, slot records
  kDropVersion = 2,
  kKill = 5,
  kReclaim = 3,  // answered when it is over, with EncodeReclaimed as text
  kCancelReclaim = 4,
  kStopSlot = 10,  // where there is no freezer: by signals
  kContinueSlot = 11,
  kResizeVersion = 9,
  kUnpack = 6,      // fds: input, output and channel, as the flags say
  kListLayers = 7,  // reply fd: a memfd of 32-byte ids
  kCancelUnpack = 8,
  kOpenNetwork = 12,  // reply fd: the listening socket of the gateway
  kCreateVolume = 20,
  kRemoveVolume = 21,
  kResizeVolume = 23,
  kListVolumes = 22,  // reply fd: a memfd of VolumeRecords (volume_jobs.h)
  kReply = 100,
};

struct LaunchHeader {
  uint32_t magic = kLaunchMagic;
  LaunchKind kind = LaunchKind::kReply;
  uint64_t request = 0;  // echoed in the reply
};

// Layers, argv, env, names of secrets, the texts and an AccessHeader (access_wire.h) follow, in
// that order.
struct BuildVersionBody {
  uint64_t version_id;
  uint64_t memory_bytes;
  uint64_t most_memory_bytes;
  uint64_t swap_bytes;
  uint64_t io_read_bps;
  uint64_t io_write_bps;
  uint64_t tmp_bytes;
  uint32_t cpu_millis;
  uint32_t most_cpu_millis;
  uint32_t cpu_weight;
  uint32_t pids;
  uint32_t nofile;
  uint32_t layer_count;
  uint32_t argc;
  uint32_t argv_bytes;
  uint32_t envc;
  uint32_t env_bytes;
  uint32_t secrets;
  uint32_t secret_name_bytes;
  uint16_t user_bytes;
  uint16_t working_dir_bytes;
  uint16_t hostname_bytes;
  uint16_t owner_bytes;
  uint16_t function_bytes;
  uint16_t slots;
  uint16_t spare_netns;
  uint8_t mode;
  uint8_t init;
  uint8_t meter;
};

// kDropVersion (slot 0), kKill, kReclaim, kCancelReclaim, kStopSlot, kContinueSlot.
struct SlotBody {
  uint64_t version_id;
  uint32_t slot;
  uint32_t zero;
};

// Of all slots of a version, at most what its build allowed.
struct ResizeBody {
  uint64_t version_id;
  uint64_t memory_bytes;
  uint32_t cpu_millis;
  uint32_t zero;
};

inline constexpr uint32_t kUnpackHasInput = 1;
inline constexpr uint32_t kUnpackHasOutput = 2;
inline constexpr uint32_t kUnpackHasChannel = 4;
struct UnpackBody {
  uint32_t kind;
  uint32_t parent_count;
  uint32_t request_bytes;
  uint32_t flags;
  uint8_t target[32];
};

struct CancelUnpackBody {
  uint64_t job;  // the request of its kUnpack
};

struct OpenNetworkBody {
  uint32_t range_base;
  uint32_t range_bits;
  uint16_t management_ports[kMaxManagementPorts];  // rising, then zeros
};

// kCreateVolume; kResizeVolume, kRemoveVolume and kListVolumes with zeros in the fields they have
// no use for.
struct VolumeRequestBody {
  uint64_t id;
  uint64_t bytes;
  char label[16];  // a-z, 0-9 and '-', filled up with NULs
};

struct ReplyBody {
  uint32_t ok;  // 1 or 0
  uint32_t code;
  int32_t sys_errno;
  uint32_t text_bytes;  // ok: warnings, one a line; else the message
};

struct LaunchReply {
  uint64_t request = 0;
  Status status;
  std::string text;
};

// What its limits may become: `most`, and what they are where it says nothing.
InstanceSize MostOf(const VersionSpec& spec);
// A version as a request may ask for it. kInvalidArgument names the field.
Status CheckVersionSpec(const VersionSpec& spec);

WireWriter EncodeBuildVersion(uint64_t request, const VersionSpec& spec);
WireWriter EncodeSlot(LaunchKind kind, uint64_t request, const SlotBody& body);
WireWriter EncodeResize(uint64_t request, const ResizeBody& body);
// The job's fds travel beside it: input, output, channel, where valid.
WireWriter EncodeUnpack(uint64_t request, const UnpackJob& job);
WireWriter EncodeCancelUnpack(uint64_t request, const CancelUnpackBody& body);
WireWriter EncodeListLayers(uint64_t request);
WireWriter EncodeOpenNetwork(uint64_t request, const NetworkPlan& plan);
WireWriter EncodeVolume(LaunchKind kind, uint64_t request, const VolumeRequestBody& body);
WireWriter EncodeReply(const LaunchReply& reply);

// Malformed framing (no header, wrong magic) is an error; the connection is not worth keeping then.
Result<LaunchHeader> DecodeHeader(std::string_view message);
// Each takes the whole message and fails with kInvalidArgument on any field out of its range.
Result<VersionSpec> DecodeBuildVersion(std::string_view message);
Result<SlotBody> DecodeSlot(std::string_view message);
Result<ResizeBody> DecodeResize(std::string_view message);
struct UnpackRequest {
  UnpackJob job;       // without its fds
  uint32_t flags = 0;  // kUnpackHas...
};
Result<UnpackRequest> DecodeUnpack(std::string_view message);
Result<CancelUnpackBody> DecodeCancelUnpack(std::string_view message);
Status DecodeListLayers(std::string_view message);
Result<NetworkPlan> DecodeOpenNetwork(std::string_view message);
// By the rules of its kind, which is one of the four.
Result<VolumeRequestBody> DecodeVolume(std::string_view message);
Result<LaunchReply> DecodeReply(std::string_view message);

// "BEFORE AFTER".
std::string EncodeReclaimed(const Reclaimed& reclaimed);
Result<Reclaimed> DecodeReclaimed(std::string_view text);

// "NUMBER TAB TEXT" lines.
std::string EncodeGrants(const std::vector<GrantLine>& grants);
std::vector<GrantLine> DecodeGrants(std::string_view text);

}  // namespace pulga
