#include "runtime/version_resolver.h"

#include <algorithm>
#include <string_view>

#include "base/text.h"
#include "images/image_ref.h"
#include "runtime/request_head.h"

namespace pulga {
namespace {

constexpr uint16_t kDefaultPort = 8080;
constexpr uint32_t kDefaultServerConcurrency = 100;
constexpr const char* kFramesVariable = "PULGA_FRAMES_FD";
constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
// Servers by trade: they read the function's request on a port whatever the image EXPOSEs.
constexpr std::string_view kWatchdogs[] = {"fwatchdog", "of-watchdog", "watchdog"};

struct ModeDecision {
  SandboxMode mode;
  std::string reason;
};

std::string ImageName(const ImageRecord& image, const FunctionSpec& spec) {
  return spec.image.empty() ? image.digest : Printable(spec.image, 80);
}

Result<std::vector<std::string>> Argv(const FunctionSpec& spec, const ImageRecord& image) {
  std::vector<std::string> argv = spec.command;
  if (argv.empty()) {
    argv = image.config.entrypoint;
    if (spec.args.empty()) {
      argv.insert(argv.end(), image.config.cmd.begin(), image.config.cmd.end());
    }
  }
  argv.insert(argv.end(), spec.args.begin(), spec.args.end());
  if (!argv.empty() && !argv.front().empty()) return argv;
  return Error{Code::kInvalidArgument, 0,
               "image " + ImageName(image, spec) + " has no command: give \"command\""};
}

std::string_view BaseName(std::string_view path) { return path.substr(path.find_last_of('/') + 1); }

bool IsWatchdog(std::string_view program) {
  return std::find(std::begin(kWatchdogs), std::end(kWatchdogs), BaseName(program)) !=
         std::end(kWatchdogs);
}

ModeDecision ChooseMode(const FunctionSpec& spec, const ImageRecord& image,
                        const std::string& program) {
  if (spec.mode == ModeChoice::kHttp) return {SandboxMode::kHttp, "the function says so"};
  if (spec.mode == ModeChoice::kExec) return {SandboxMode::kExec, "the function says so"};
  if (spec.mode == ModeChoice::kFrames) return {SandboxMode::kFrames, "the function says so"};
  if (IsWatchdog(program)) {
    return {SandboxMode::kHttp, "the command is " + std::string(BaseName(program))};
  }
  if (!image.config.exposed_ports.empty()) {
    return {SandboxMode::kHttp,
            "the image EXPOSEs " + std::to_string(image.config.exposed_ports.front())};
  }
  return {SandboxMode::kExec, "the image EXPOSEs no port"};
}

void SetEnv(std::vector<std::string>& env, const std::string& name, const std::string& value) {
  for (std::string& entry : env) {
    if (entry.compare(0, name.size() + 1, name + "=") == 0) {
      entry = name + "=" + value;
      return;
    }
  }
  env.push_back(name + "=" + value);
}

bool HasEnv(const std::vector<std::string>& env, const std::string& name) {
  for (const std::string& entry : env) {
    if (entry.compare(0, name.size() + 1, name + "=") == 0) return true;
  }
  return false;
}

std::vector<std::string> Environment(const FunctionSpec& spec, const ImageRecord& image,
                                     const Version& version) {
  std::vector<std::string> env;
  for (const std::string& entry : image.config.env) {
    const size_t equals = entry.find('=');
    if (equals == 0 || equals == std::string::npos) continue;
    SetEnv(env, entry.substr(0, equals), entry.substr(equals + 1));
  }
  if (!HasEnv(env, "PATH")) SetEnv(env, "PATH", kDefaultPath);
  // Before the spec's own variables: who sets PORT there means it.
  if (version.mode == SandboxMode::kHttp) SetEnv(env, "PORT", std::to_string(version.port));
  for (const auto& [name, value] : spec.env) SetEnv(env, name, value);
  // After them: it has to be true.
  if (version.mode == SandboxMode::kFrames) {
    SetEnv(env, kFramesVariable, std::to_string(kChannelFd));
  }
  if (version.mode == SandboxMode::kExec) {
    // A program that looks for what its call set must find that, and nothing else.
    std::erase_if(env, [](const std::string& entry) { return IsRequestVariable(entry); });
  }
  return env;
}

std::string WorkingDir(const std::string& written) {
  if (written.empty()) return "/";
  return written.front() == '/' ? written : "/" + written;
}

Status CheckModeRules(const FunctionSpec& spec, const Version& version) {
  if (version.mode == SandboxMode::kExec) {
    if (spec.scale.concurrency > 1) {
      return Error{Code::kInvalidArgument, 0,
                   "scale.concurrency: an exec instance serves one call at a time (" +
                       version.mode_reason + "); use \"scale.max\", or mode \"http\""};
    }
    if (spec.scale.target > 1) {
      return Error{Code::kInvalidArgument, 0,
                   "scale.target: an exec instance serves one call at a time (" +
                       version.mode_reason + "); leave it out, or use mode \"http\""};
    }
    for (const auto& [field, asked] :
         {std::pair("scale.rps_target", spec.scale.rps_target != 0),
          std::pair("scale.cpu_target", spec.scale.cpu_target != 0),
          std::pair("scale.latency_target", spec.scale.latency_target != Duration::zero())}) {
      if (!asked) continue;
      return Error{Code::kInvalidArgument, 0,
                   std::string(field) + ": an exec function has as many instances as calls (" +
                       version.mode_reason + "); leave it out, or use mode \"http\""};
    }
    if (spec.scale.max + spec.scale.parked > kMaxSlots) {
      return Error{Code::kInvalidArgument, 0,
                   "scale: max and parked together are more than " + std::to_string(kMaxSlots)};
    }
    return OkStatus();
  }
  const bool http = version.mode == SandboxMode::kHttp;
  if (http && spec.access.network.mode == NetworkMode::kHost && spec.scale.max > 1) {
    return Error{Code::kInvalidArgument, 0,
                 "scale.max: " + std::to_string(spec.scale.max) +
                     " servers cannot have one port; on the host's network write \"max\": 1"};
  }
  if (spec.input == InputKind::kArgument) {
    return Error{Code::kInvalidArgument, 0,
                 std::string("input: \"argument\" is for exec mode; this is ") +
                     (http ? "http" : "frames") + " mode (" + version.mode_reason + ")"};
  }
  return OkStatus();
}

// Fills in what depends on the mode, so that everybody after this reads plain numbers.
void ResolveByMode(const ImageRecord& image, Version& version) {
  const bool exec = version.mode == SandboxMode::kExec;
  InvocationLimits& limits = version.spec.limits;
  if (limits.body_bytes == kByMode) limits.body_bytes = exec ? kDefaultExecBytes : 0;
  if (limits.output_bytes == kByMode) limits.output_bytes = exec ? kDefaultExecBytes : 0;
  uint32_t& concurrency = version.spec.scale.concurrency;
  if (concurrency == 0) concurrency = exec ? 1 : kDefaultServerConcurrency;
  version.concurrency = concurrency;
  if (version.spec.port == 0) {
    const auto& exposed = image.config.exposed_ports;
    version.spec.port = exposed.empty() ? kDefaultPort : exposed.front();
  }
  version.port = version.spec.port;
}

}  // namespace

bool RunsWatchdog(const Version& version) {
  return !version.argv.empty() && IsWatchdog(version.argv.front());
}

Result<Version> ResolveVersion(const FunctionSpec& spec, const ImageRecord& image) {
  const Status runs_here = CanRunHere(image.platform);
  if (!runs_here.ok()) return Prefix("image " + ImageName(image, spec), runs_here.error());
  Version version;
  version.spec = spec;
  version.image_digest = image.digest;
  const auto ref = NormalizeImageRef(spec.image);
  version.image_ref = ref.ok() ? *ref : spec.image;
  for (const LayerRecord& layer : image.layers) version.layers.push_back(layer.chain_id);
  if (version.layers.empty()) {
    return Error{Code::kInvalidArgument, 0,
                 "image " + ImageName(image, spec) + " has no layers: there is nothing to run"};
  }
  PULGA_ASSIGN_OR_RETURN(version.argv, Argv(spec, image));
  ModeDecision decision = ChooseMode(spec, image, version.argv.front());
  version.mode = decision.mode;
  version.mode_reason = std::move(decision.reason);
  PULGA_RETURN_IF_ERROR(CheckModeRules(spec, version));
  ResolveByMode(image, version);
  version.env = Environment(spec, image, version);
  version.user = spec.user.empty() ? image.config.user : spec.user;
  version.working_dir = WorkingDir(image.config.working_dir);
  return version;
}

Result<SandboxMode> ResolveMode(const FunctionSpec& spec, const ImageRecord& image) {
  PULGA_ASSIGN_OR_RETURN(const std::vector<std::string> argv, Argv(spec, image));
  return ChooseMode(spec, image, argv.front()).mode;
}

}  // namespace pulga
