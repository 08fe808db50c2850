#include "sandbox/launch_protocol.h"

#include <algorithm>
#include <set>

#include "base/text.h"
#include "sandbox/access_wire.h"
#include "sandbox/job_rules.h"
#include "sandbox/volumes/volume_jobs.h"

namespace pulga {
namespace {

Error Invalid(std::string message) { return Error{Code::kInvalidArgument, 0, std::move(message)}; }

constexpr uint64_t kMinMemory = 1ULL << 20;
constexpr uint64_t kMaxQuantity = 1ULL << 50;
constexpr uint32_t kMaxCpuMillis = 1000 * 1024;
constexpr uint32_t kMinCpuMillis = 10;

Status CheckLimits(const SandboxLimits& limits) {
  if (limits.memory_bytes < kMinMemory || limits.memory_bytes > kMaxQuantity) {
    return Invalid("memory limit is out of range: at least 1Mi");
  }
  if (limits.swap_bytes > kMaxQuantity) return Invalid("swap limit is out of range");
  if (limits.cpu_millis > kMaxCpuMillis) return Invalid("cpu limit is out of range");
  if (limits.cpu_weight < 1 || limits.cpu_weight > 10000) {
    return Invalid("cpu weight is out of range: 1 to 10000");
  }
  if (limits.pids < 1 || limits.pids > 4U << 20) return Invalid("pids limit is out of range");
  if (limits.io_read_bps > kMaxQuantity || limits.io_write_bps > kMaxQuantity) {
    return Invalid("io limit is out of range");
  }
  if (limits.tmp_bytes > kMaxQuantity) return Invalid("tmp limit is out of range");
  if (limits.nofile < 16 || limits.nofile > 1U << 20) {
    return Invalid("nofile limit is out of range: 16 to 1048576");
  }
  return OkStatus();
}

Status CheckMost(const VersionSpec& spec) {
  const InstanceSize& most = spec.most;
  if (most.memory_bytes != 0 &&
      (most.memory_bytes < spec.limits.memory_bytes || most.memory_bytes > kMaxQuantity)) {
    return Invalid("the most memory is out of range: at least the memory limit");
  }
  if (most.cpu_millis == 0) return OkStatus();
  if (spec.limits.cpu_millis == 0 || most.cpu_millis < spec.limits.cpu_millis ||
      most.cpu_millis > kMaxCpuMillis) {
    return Invalid("the most cpu is out of range: at least the cpu limit");
  }
  return OkStatus();
}

Status CheckStrings(std::string_view what, const std::vector<std::string>& strings) {
  const std::string name(what);
  if (strings.size() > kMaxStrings) return Invalid(name + ": more than 1024 entries");
  if (WireSizeOf(strings) > kMaxStringBytes) return Invalid(name + ": more than 64 KiB");
  for (const std::string& s : strings) {
    if (s.find('\0') != std::string::npos) return Invalid(name + ": an entry contains a NUL");
  }
  return OkStatus();
}

bool IsHostname(std::string_view name) {
  return name.size() <= 63 && std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '.';
         });
}

bool IsFunction(std::string_view text) {
  const size_t slash = text.find('/');
  return slash != std::string_view::npos && IsPlainName(text.substr(0, slash)) &&
         IsPlainName(text.substr(slash + 1));
}

std::vector<std::string> NamesOf(const std::vector<SecretFile>& secrets) {
  std::vector<std::string> names;
  for (const SecretFile& secret : secrets) names.push_back(secret.name);
  return names;
}

Status CheckSecrets(const std::vector<SecretFile>& secrets) {
  if (secrets.size() > kMaxSecretsPerVersion) return Invalid("secrets: more than 64");
  std::set<std::string_view> names;
  for (const SecretFile& secret : secrets) {
    if (!IsSecretName(secret.name)) return Invalid("secrets: an entry is no name of one");
    if (!names.insert(secret.name).second) return Invalid("secrets: one is named twice");
    if (secret.value.size() > kMaxSecretBytes) return Invalid("secrets: one is above 1 MiB");
  }
  return OkStatus();
}

WireReader BodyOf(std::string_view message) {
  WireReader reader(message);
  reader.Take<LaunchHeader>();
  return reader;
}

LayerId TakeLayer(WireReader& reader) {
  LayerId id;
  const std::string_view raw = reader.TakeBytes(id.bytes.size());
  if (reader.ok()) memcpy(id.bytes.data(), raw.data(), id.bytes.size());
  return id;
}

void PutLayer(WireWriter& writer, const LayerId& id) { writer.Put(id.bytes); }

}  // namespace

InstanceSize MostOf(const VersionSpec& spec) {
  return {std::max(spec.most.memory_bytes, spec.limits.memory_bytes),
          std::max(spec.most.cpu_millis, spec.limits.cpu_millis)};
}

Status CheckVersionSpec(const VersionSpec& spec) {
  if (spec.version_id == 0) return Invalid("version id 0");
  if (spec.layers.empty() || spec.layers.size() > kMaxLayers) {
    return Invalid("an image needs 1 to 128 layers");
  }
  if (spec.argv.empty() || spec.argv[0].empty()) return Invalid("the image has no command");
  PULGA_RETURN_IF_ERROR(CheckStrings("argv", spec.argv));
  PULGA_RETURN_IF_ERROR(CheckStrings("env", spec.env));
  for (const std::string& e : spec.env) {
    const size_t equals = e.find('=');
    if (equals == 0 || equals == std::string::npos)
      return Invalid("env: an entry is not KEY=VALUE");
  }
  if (spec.user.size() > 255 || spec.user.find('\0') != std::string::npos) {
    return Invalid("user is too long or contains a NUL");
  }
  if (spec.working_dir.empty() || spec.working_dir[0] != '/' || spec.working_dir.size() > 4095 ||
      spec.working_dir.find('\0') != std::string::npos) {
    return Invalid("working directory is not an absolute path");
  }
  if (!IsHostname(spec.hostname)) return Invalid("hostname has other characters than a-z 0-9 . -");
  if (!spec.owner.empty() && !IsPlainName(spec.owner)) return Invalid("owner is no name");
  if (!spec.function.empty() && !IsFunction(spec.function)) {
    return Invalid("function is no NAMESPACE/NAME");
  }
  PULGA_RETURN_IF_ERROR(CheckAccess(spec.access));
  if (spec.slots < 1 || spec.slots > kMaxSlots) return Invalid("slots out of range: 1 to 256");
  if (spec.spare_netns > spec.slots) return Invalid("more spare network namespaces than slots");
  if (spec.mode > SandboxMode::kFrames) {
    return Invalid("unknown mode");
  }
  if (spec.init != InitKind::kPulga && spec.init != InitKind::kNone) return Invalid("unknown init");
  if (spec.meter != VersionSpec::Meter::kNone && spec.meter != VersionSpec::Meter::kCpu) {
    return Invalid("unknown meter");
  }
  PULGA_RETURN_IF_ERROR(CheckMost(spec));
  PULGA_RETURN_IF_ERROR(CheckSecrets(spec.secrets));
  return CheckLimits(spec.limits);
}

WireWriter EncodeBuildVersion(uint64_t request, const VersionSpec& spec) {
  BuildVersionBody body = {};
  body.version_id = spec.version_id;
  body.memory_bytes = spec.limits.memory_bytes;
  body.most_memory_bytes = spec.most.memory_bytes;
  body.most_cpu_millis = spec.most.cpu_millis;
  body.swap_bytes = spec.limits.swap_bytes;
  body.io_read_bps = spec.limits.io_read_bps;
  body.io_write_bps = spec.limits.io_write_bps;
  body.tmp_bytes = spec.limits.tmp_bytes;
  body.cpu_millis = spec.limits.cpu_millis;
  body.cpu_weight = spec.limits.cpu_weight;
  body.pids = spec.limits.pids;
  body.nofile = spec.limits.nofile;
  body.layer_count = static_cast<uint32_t>(spec.layers.size());
  body.argc = static_cast<uint32_t>(spec.argv.size());
  body.argv_bytes = static_cast<uint32_t>(WireSizeOf(spec.argv));
  body.envc = static_cast<uint32_t>(spec.env.size());
  body.env_bytes = static_cast<uint32_t>(WireSizeOf(spec.env));
  const std::vector<std::string> secrets = NamesOf(spec.secrets);
  body.secrets = static_cast<uint32_t>(secrets.size());
  body.secret_name_bytes = static_cast<uint32_t>(WireSizeOf(secrets));
  body.user_bytes = static_cast<uint16_t>(spec.user.size());
  body.working_dir_bytes = static_cast<uint16_t>(spec.working_dir.size());
  body.hostname_bytes = static_cast<uint16_t>(spec.hostname.size());
  body.owner_bytes = static_cast<uint16_t>(spec.owner.size());
  body.function_bytes = static_cast<uint16_t>(spec.function.size());
  body.slots = spec.slots;
  body.spare_netns = spec.spare_netns;
  body.mode = static_cast<uint8_t>(spec.mode);
  body.init = static_cast<uint8_t>(spec.init);
  body.meter = static_cast<uint8_t>(spec.meter);
  WireWriter writer;
  writer.Put(LaunchHeader{kLaunchMagic, LaunchKind::kBuildVersion, request});
  writer.Put(body);
  for (const LayerId& id : spec.layers) PutLayer(writer, id);
  writer.PutStrings(spec.argv);
  writer.PutStrings(spec.env);
  writer.PutStrings(secrets);
  writer.PutBytes(spec.user);
  writer.PutBytes(spec.working_dir);
  writer.PutBytes(spec.hostname);
  writer.PutBytes(spec.owner);
  writer.PutBytes(spec.function);
  PutAccess(writer, spec.access);
  return writer;
}

WireWriter EncodeSlot(LaunchKind kind, uint64_t request, const SlotBody& body) {
  WireWriter writer;
  writer.Put(LaunchHeader{kLaunchMagic, kind, request});
  writer.Put(body);
  return writer;
}

WireWriter EncodeResize(uint64_t request, const ResizeBody& body) {
  WireWriter writer;
  writer.Put(LaunchHeader{kLaunchMagic, LaunchKind::kResizeVersion, request});
  writer.Put(body);
  return writer;
}

WireWriter EncodeUnpack(uint64_t request, const UnpackJob& job) {
  UnpackBody body = {};
  body.kind = static_cast<uint32_t>(job.kind);
  body.parent_count = static_cast<uint32_t>(job.parents.size());
  body.request_bytes = static_cast<uint32_t>(job.request.size());
  body.flags = (job.input.valid() ? kUnpackHasInput : 0) |
               (job.output.valid() ? kUnpackHasOutput : 0) |
               (job.channel.valid() ? kUnpackHasChannel : 0);
  memcpy(body.target, job.target.bytes.data(), sizeof body.target);
  WireWriter writer;
  writer.Put(LaunchHeader{kLaunchMagic, LaunchKind::kUnpack, request});
  writer.Put(body);
  for (const LayerId& id : job.parents) PutLayer(writer, id);
  writer.PutBytes(job.request);
  return writer;
}

WireWriter EncodeCancelUnpack(uint64_t request, const CancelUnpackBody& body) {
  WireWriter writer;
  writer.Put(LaunchHeader{kLaunchMagic, LaunchKind::kCancelUnpack, request});
  writer.Put(body);
  return writer;
}

WireWriter EncodeListLayers(uint64_t request) {
  WireWriter writer;
  writer.Put(LaunchHeader{kLaunchMagic, LaunchKind::kListLayers, request});
  return writer;
}

WireWriter EncodeOpenNetwork(uint64_t request, const NetworkPlan& plan) {
  WireWriter writer;
  writer.Put(LaunchHeader{kLaunchMagic, LaunchKind::kOpenNetwork, request});
  OpenNetworkBody body = {plan.range.base.value, plan.range.bits, {}};
  const size_t count = std::min(plan.management_ports.size(), kMaxManagementPorts);
  std::copy_n(plan.management_ports.begin(), count, body.management_ports);
  writer.Put(body);
  return writer;
}

WireWriter EncodeVolume(LaunchKind kind, uint64_t request, const VolumeRequestBody& body) {
  WireWriter writer;
  writer.Put(LaunchHeader{kLaunchMagic, kind, request});
  writer.Put(body);
  return writer;
}

WireWriter EncodeReply(const LaunchReply& reply) {
  const std::string& full = reply.status.ok() ? reply.text : reply.status.error().message;
  const std::string text = full.substr(0, kMaxReplyText);
  ReplyBody body = {};
  body.ok = reply.status.ok() ? 1 : 0;
  if (!reply.status.ok()) {
    body.code = static_cast<uint32_t>(reply.status.error().code);
    body.sys_errno = reply.status.error().sys_errno;
  }
  body.text_bytes = static_cast<uint32_t>(text.size());
  WireWriter writer;
  writer.Put(LaunchHeader{kLaunchMagic, LaunchKind::kReply, reply.request});
  writer.Put(body);
  writer.PutBytes(text);
  return writer;
}

Result<LaunchHeader> DecodeHeader(std::string_view message) {
  WireReader reader(message);
  const auto header = reader.Take<LaunchHeader>();
  if (!reader.ok() || header.magic != kLaunchMagic) return Invalid("not a launcher message");
  return header;
}

Result<VersionSpec> DecodeBuildVersion(std::string_view message) {
  WireReader reader = BodyOf(message);
  const auto body = reader.Take<BuildVersionBody>();
  if (!reader.ok()) return Invalid("build-version: too short");
  if (body.layer_count > kMaxLayers) return Invalid("build-version: too many layers");
  if (body.argc > kMaxStrings || body.envc > kMaxStrings || body.argv_bytes > kMaxStringBytes ||
      body.env_bytes > kMaxStringBytes) {
    return Invalid("build-version: argv or env is too large");
  }
  if (body.secrets > kMaxSecretsPerVersion ||
      body.secret_name_bytes > kMaxSecretsPerVersion * (kMaxSecretName + 1)) {
    return Invalid("build-version: too many secrets");
  }
  VersionSpec spec;
  spec.version_id = body.version_id;
  spec.mode = static_cast<SandboxMode>(body.mode);
  spec.init = static_cast<InitKind>(body.init);
  spec.meter = static_cast<VersionSpec::Meter>(body.meter);
  spec.slots = body.slots;
  spec.spare_netns = body.spare_netns;
  spec.limits = {body.memory_bytes, body.swap_bytes,   body.cpu_millis, body.cpu_weight, body.pids,
                 body.io_read_bps,  body.io_write_bps, body.tmp_bytes,  body.nofile};
  spec.most = {body.most_memory_bytes, body.most_cpu_millis};
  for (uint32_t i = 0; i < body.layer_count; ++i) spec.layers.push_back(TakeLayer(reader));
  spec.argv = reader.TakeStrings(body.argc, body.argv_bytes);
  spec.env = reader.TakeStrings(body.envc, body.env_bytes);
  for (std::string& name : reader.TakeStrings(body.secrets, body.secret_name_bytes)) {
    spec.secrets.push_back({std::move(name), ""});
  }
  spec.user = std::string(reader.TakeBytes(body.user_bytes));
  spec.working_dir = std::string(reader.TakeBytes(body.working_dir_bytes));
  spec.hostname = std::string(reader.TakeBytes(body.hostname_bytes));
  spec.owner = std::string(reader.TakeBytes(body.owner_bytes));
  spec.function = std::string(reader.TakeBytes(body.function_bytes));
  auto access = TakeAccess(reader);
  if (!access.ok()) return Prefix("build-version", access.error());
  spec.access = std::move(*access);
  if (!reader.finished()) return Invalid("build-version: sizes do not add up");
  Status checked = CheckVersionSpec(spec);
  if (!checked.ok()) return Prefix("build-version", checked.error());
  return spec;
}

Result<SlotBody> DecodeSlot(std::string_view message) {
  WireReader reader = BodyOf(message);
  const auto body = reader.Take<SlotBody>();
  if (!reader.finished()) return Invalid("wrong size");
  if (body.version_id == 0) return Invalid("version id 0");
  if (body.slot >= kMaxSlots || body.zero != 0) return Invalid("slot out of range");
  return body;
}

Result<ResizeBody> DecodeResize(std::string_view message) {
  WireReader reader = BodyOf(message);
  const auto body = reader.Take<ResizeBody>();
  if (!reader.finished()) return Invalid("resize: wrong size");
  if (body.version_id == 0) return Invalid("resize: version id 0");
  if (body.memory_bytes < kMinMemory || body.memory_bytes > kMaxQuantity) {
    return Invalid("resize: memory is out of range: at least 1Mi");
  }
  if (body.cpu_millis > kMaxCpuMillis ||
      (body.cpu_millis != 0 && body.cpu_millis < kMinCpuMillis)) {
    return Invalid("resize: cpu is out of range: at least 10m");
  }
  if (body.zero != 0) return Invalid("resize: a field it has no use for");
  return body;
}

Result<UnpackRequest> DecodeUnpack(std::string_view message) {
  WireReader reader = BodyOf(message);
  const auto body = reader.Take<UnpackBody>();
  if (!reader.ok()) return Invalid("unpack: too short");
  if (!RulesOf(static_cast<UnpackKind>(body.kind))) return Invalid("unpack: unknown kind");
  if (body.parent_count > kMaxLayers) return Invalid("unpack: too many parents");
  if (body.request_bytes > kMaxUnpackRequestBytes) return Invalid("unpack: request too large");
  if ((body.flags & ~(kUnpackHasInput | kUnpackHasOutput | kUnpackHasChannel)) != 0) {
    return Invalid("unpack: unknown flags");
  }
  UnpackRequest out;
  out.flags = body.flags;
  out.job.kind = static_cast<UnpackKind>(body.kind);
  memcpy(out.job.target.bytes.data(), body.target, sizeof body.target);
  for (uint32_t i = 0; i < body.parent_count; ++i) out.job.parents.push_back(TakeLayer(reader));
  out.job.request = std::string(reader.TakeBytes(body.request_bytes));
  if (!reader.finished()) return Invalid("unpack: sizes do not add up");
  return out;
}

Result<CancelUnpackBody> DecodeCancelUnpack(std::string_view message) {
  WireReader reader = BodyOf(message);
  const auto body = reader.Take<CancelUnpackBody>();
  if (!reader.finished()) return Invalid("cancel-unpack: wrong size");
  return body;
}

Result<VolumeRequestBody> DecodeVolume(std::string_view message) {
  WireReader reader(message);
  const LaunchKind kind = reader.Take<LaunchHeader>().kind;
  const auto body = reader.Take<VolumeRequestBody>();
  if (!reader.finished()) return Invalid("volume: wrong size");
  if ((kind == LaunchKind::kListVolumes) != (body.id == 0)) return Invalid("volume: id");
  const std::string_view label(body.label, sizeof body.label);
  const std::string_view text = label.substr(0, label.find('\0'));
  if (label.find_first_not_of('\0', text.size()) != std::string_view::npos) {
    return Invalid("volume: label");
  }
  const bool sized = kind == LaunchKind::kCreateVolume || kind == LaunchKind::kResizeVolume;
  if ((!sized && body.bytes != 0) || (kind != LaunchKind::kCreateVolume && !text.empty())) {
    return Invalid("volume: fields it has no use for");
  }
  if (!sized) return body;
  if (text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") != std::string_view::npos) {
    return Invalid("volume: label");
  }
  if (body.bytes < kMinVolumeBytes || body.bytes > kMaxVolumeBytes) {
    return Invalid("volume: size is out of range: 4Mi to 1Ti");
  }
  return body;
}

Status DecodeListLayers(std::string_view message) {
  return BodyOf(message).finished() ? OkStatus() : Invalid("list-layers: wrong size");
}

Result<NetworkPlan> DecodeOpenNetwork(std::string_view message) {
  WireReader reader = BodyOf(message);
  const auto body = reader.Take<OpenNetworkBody>();
  if (!reader.finished()) return Invalid("open-network: wrong size");
  if (body.range_bits > 32) return Invalid("open-network: range out of range");
  NetworkPlan plan;
  plan.range = {{body.range_base}, static_cast<uint8_t>(body.range_bits)};
  bool over = false;
  for (const uint16_t port : body.management_ports) {
    if (port == 0) {
      over = true;
    } else if (over ||
               (!plan.management_ports.empty() && port <= *plan.management_ports.rbegin())) {
      return Invalid("open-network: ports are not rising");
    } else {
      plan.management_ports.insert(port);
    }
  }
  const Status checked = CheckNetworkRange(plan.range);
  if (!checked.ok()) return Prefix("open-network", checked.error());
  return plan;
}

Result<LaunchReply> DecodeReply(std::string_view message) {
  PULGA_ASSIGN_OR_RETURN(const LaunchHeader header, DecodeHeader(message));
  WireReader reader = BodyOf(message);
  const auto body = reader.Take<ReplyBody>();
  std::string text(reader.TakeBytes(body.text_bytes));
  if (!reader.finished() || header.kind != LaunchKind::kReply || body.ok > 1 ||
      body.code > static_cast<uint32_t>(Code::kInternal)) {
    return Error{Code::kIo, 0, "malformed reply from the launcher"};
  }
  LaunchReply reply;
  reply.request = header.request;
  if (body.ok == 1) {
    reply.text = std::move(text);
  } else {
    reply.status = Error{static_cast<Code>(body.code), body.sys_errno, std::move(text)};
  }
  return reply;
}

std::string EncodeReclaimed(const Reclaimed& reclaimed) {
  return std::to_string(reclaimed.before_bytes) + " " + std::to_string(reclaimed.after_bytes);
}

Result<Reclaimed> DecodeReclaimed(std::string_view text) {
  const size_t space = text.find(' ');
  const auto before = ParseUint(text.substr(0, space));
  const auto after = ParseUint(space == std::string_view::npos ? "" : text.substr(space + 1));
  if (!before || !after) return Invalid("reclaim: no two numbers");
  return Reclaimed{*before, *after, 0};
}

std::string EncodeGrants(const std::vector<GrantLine>& grants) {
  std::string out;
  for (const GrantLine& grant : grants) {
    out += std::to_string(grant.number) + "\t" + grant.text + "\n";
  }
  return out;
}

std::vector<GrantLine> DecodeGrants(std::string_view text) {
  std::vector<GrantLine> grants;
  for (const std::string_view line : Split(text, '\n')) {
    const size_t tab = line.find('\t');
    if (tab == std::string_view::npos) continue;
    const auto number = ParseUint(line.substr(0, tab));
    if (number) grants.push_back({*number, std::string(line.substr(tab + 1))});
  }
  return grants;
}

}  // namespace pulga
