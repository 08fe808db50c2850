#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/serve_process.h"
#include "api/front.h"
#include "api/json_codec.h"
#include "base/text.h"
#include "runtime/daemon/daemon.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::ordered_json;

std::vector<Option> SettingOptions() {
  std::vector<Option> out;
  for (const Setting& setting : Settings()) {
    const bool is_switch = std::string_view(setting.key) == "insecure-listen";
    out.push_back({setting.key, 0, is_switch ? "" : setting.value_name, setting.help});
  }
  out.push_back({"config", 0, "FILE", "settings as \"key = value\" lines; flags win over them"});
  return out;
}

// --listen may be repeated; the daemon's setting is one list.
ConfigSources SourcesOf(const Args& args) {
  ConfigSources sources;
  for (const Setting& setting : Settings()) {
    const std::string key = setting.key;
    if (!args.Has(key)) continue;
    std::string value = *args.Value(key);
    if (key == "listen") value = Join(args.Values(key), ",");
    if (key == "insecure-listen") value = "yes";
    if (key == "data") value = AbsolutePath(value);
    sources.flags.emplace_back(key, value);
  }
  if (const auto file = args.Value("config")) sources.file = AbsolutePath(*file);
  return sources;
}

std::vector<std::string> DaemonArgs(const ConfigSources& sources) {
  std::vector<std::string> out;
  for (const auto& [key, value] : sources.flags) {
    if (key == "data") continue;  // the keeper gives its own
    out.push_back("--" + key);
    if (key != "insecure-listen") out.push_back(value);
  }
  if (!sources.file.empty()) out.insert(out.end(), {"--config", sources.file});
  return out;
}

int RunServe(const Args& args) {
  const ConfigSources sources = SourcesOf(args);
  const auto config = LoadConfig(sources);
  if (!config.ok()) return UsageError(config.error().message);
  for (const std::string& address : config->listen) {
    const auto parsed = ParseListenAddress(address);
    if (!parsed.ok()) return UsageError(parsed.error().message);
  }
  const Status root = CheckRoot("pulga serve");
  if (!root.ok()) return Fail(root.error());
  const auto command =
      KeeperArguments({config->data_dir, args.Value("user").value_or(""), DaemonArgs(sources)});
  if (!command.ok()) return Fail(command.error());
  if (args.Has("json")) {
    PrintOut(Json({{"data", config->data_dir}, {"listen", config->listen}}).dump() + "\n");
  }
  std::vector<char*> argv;
  for (const std::string& word : *command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  return Fail(LastError("exec " + (*command)[0]));
}

int RunServeDaemon(const Args& args) {
  signal(SIGPIPE, SIG_IGN);
  DaemonOptions options;
  options.sources = SourcesOf(args);
  const auto keeper = ParseUint(args.Value("keeper-fd").value_or(""), 1 << 20);
  const auto launcher = ParseUint(args.Value("launcher-fd").value_or(""), 1 << 20);
  if (!keeper || !launcher)
    return UsageError("serve-daemon is started by the keeper: use pulga serve");
  options.keeper_fd = static_cast<int>(*keeper);
  options.launcher_fd = static_cast<int>(*launcher);
  return RunDaemon(options, &ApiFront::Create);
}

// Without these no function can run at all.
bool IsNeeded(const std::string& name) {
  for (const char* needed :
       {"namespace.user", "namespace.mount", "namespace.pid", "namespace.net", "namespace.uts",
        "namespace.ipc", "seccomp", "overlay.userns", "cgroup.memory", "cgroup.pids"}) {
    if (name == needed) return true;
  }
  return false;
}

Colour StateColour(FeatureState state) {
  switch (state) {
    case FeatureState::kPresent:
      return Colour::kGreen;
    case FeatureState::kDegraded:
      return Colour::kYellow;
    case FeatureState::kAbsent:
      return Colour::kRed;
    case FeatureState::kUnknown:
      return Colour::kFaint;
  }
  return Colour::kNone;
}

int RunDoctor(const Args& args) {
  const std::vector<Feature> features = ProbeKernelFeatures();
  std::vector<std::string> missing;
  Table table({"FEATURE", "STATE", "DETAIL", "WHAT TO DO"});
  for (const Feature& feature : features) {
    if (feature.state == FeatureState::kAbsent && IsNeeded(feature.name))
      missing.push_back(feature.name);
    table.Add({{feature.name},
               {std::string(FeatureStateName(feature.state)), StateColour(feature.state)},
               {feature.detail},
               {feature.advice}});
  }
  if (args.Has("json")) {
    PrintOut(FeaturesJson(features));
  } else {
    const Style style = Style::ForFd(STDOUT_FILENO);
    PrintOut(table.Render(style) + "\n");
    PrintOut(missing.empty() ? style.Paint(Colour::kGreen, "functions can run here") + "\n"
                             : style.Paint(Colour::kRed, "functions can not run here") + ": " +
                                   Join(missing, ", ") + " missing\n");
  }
  return missing.empty() ? kExitOk : kExitFailed;
}

int RunVersion(const Args& args) {
  PrintOut(args.Has("json") ? Json({{"version", PULGA_VERSION}}).dump() + "\n"
                            : std::string("pulga ") + PULGA_VERSION + "\n");
  return kExitOk;
}

}  // namespace

std::vector<Command> ServerCommands() {
  const std::vector<Option> user = {{"user", 0, "NAME", "whom the daemon runs as (pulga)"}};
  const std::vector<Option> fds = {{"keeper-fd", 0, "N", "socket to the keeper"},
                                   {"launcher-fd", 0, "N", "socket to the launcher"}};
  Command daemon{"serve-daemon",
                 "",
                 "The unprivileged daemon; started by the keeper only.",
                 "",
                 SettingOptions() + fds + CommonOptions(),
                 0,
                 0,
                 &RunServeDaemon};
  daemon.listed = false;
  return {
      {"serve", "[--data DIR] [--listen ADDR:PORT] [options]",
       "Run the daemon. Needs root to start.",
       "The first start makes DIR, the database and the admin key (DIR/admin.key). SIGTERM drains "
       "and\n"
       "stops, SIGHUP reloads the settings that allow it.",
       SettingOptions() + user + CommonOptions(), 0, 0, &RunServe},
      daemon,
      {"doctor", "", "What this kernel and board offer and lack, and what to do about it.",
       "Works without a daemon. As root it can find out more.", CommonOptions(), 0, 0, &RunDoctor},
      {"version", "", "Print the version.", "", CommonOptions(), 0, 0, &RunVersion},
  };
}

}  // namespace pulga::cli
