#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/board_codec.h"
#include "api/cli/board_view.h"
#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/serve_process.h"
#include "api/cli/zram_setup.h"
#include "api/front.h"
#include "api/json_codec.h"
#include "base/text.h"
#include "runtime/daemon/daemon.h"
#include "sandbox/apparmor.h"
#include "sandbox/grants_file.h"
#include "sandbox/isolation.h"

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
  if (geteuid() != 0 && args.Has("user")) {
    return UsageError("--user: only root can choose whom the daemon runs as");
  }
  if (geteuid() != 0 && args.Has("grants")) {
    return UsageError("--grants: only root can grant what is the host's");
  }
  const auto programs = FindPrograms();
  if (!programs.ok()) return Fail(programs.error());
  const Status root = BecomeRoot("pulga serve");
  if (!root.ok()) return Fail(root.error());
  const auto command =
      KeeperArguments({*programs, config->data_dir, args.Value("user").value_or(""),
                       DaemonArgs(sources), args.Value("grants").value_or(""), config->apparmor});
  if (args.Has("json")) {
    PrintOut(Json({{"data", config->data_dir}, {"listen", config->listen}}).dump() + "\n");
  }
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  return Fail(LastError("exec " + command[0]));
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

std::string LayersTable(const std::vector<Feature>& features, const Style& style) {
  Table table({"ISOLATION LAYER", "STATE", "WHY"});
  for (const Feature& layer : BoardIsolation(features)) {
    table.Add({{layer.name},
               {std::string(FeatureStateName(layer.state)), StateColour(layer.state)},
               {layer.detail}});
  }
  return "\n" + table.Render(style);
}

struct GrantsShown {
  std::string file;
  std::vector<std::string> lines;
  std::vector<std::string> problems;  // "FILE:LINE: ..."
};

GrantsShown LookAtGrants(const Args& args) {
  GrantsShown shown;
  shown.file = AbsolutePath(args.Value("grants").value_or(kDefaultGrantsFile));
  const auto read = ReadGrants(shown.file);
  if (read.ok()) {
    for (const GrantLine& line : read->lines) shown.lines.push_back(line.text);
    for (const GrantProblem& problem : read->problems) {
      shown.problems.push_back(shown.file + ":" + std::to_string(problem.line) +
                               ": this line grants nothing: " + problem.message);
    }
  } else if (read.error().code != Code::kNotFound) {
    shown.problems.push_back("no grants hold: " + read.error().message);
  }
  return shown;
}

std::string GrantsTable(const GrantsShown& grants, const Style& style) {
  std::string text = "\ngrants of " + grants.file + ":" + (grants.lines.empty() ? " none\n" : "\n");
  for (const std::string& line : grants.lines) text += "  " + line + "\n";
  for (const std::string& problem : grants.problems) {
    text += style.Paint(Colour::kRed, problem) + "\n";
  }
  return text;
}

std::string DoctorJson(const std::vector<Feature>& features, const GrantsShown& grants,
                       const BoardReport& board) {
  Json json = Json::parse(FeaturesJson(features), nullptr, /*allow_exceptions=*/false);
  json["grants"] = {{"file", grants.file}, {"lines", grants.lines}, {"problems", grants.problems}};
  json["board"] = Json::parse(BoardJson(board), nullptr, /*allow_exceptions=*/false);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// `waivable`: limits that a rootless daemon has no cgroup for.
std::string Verdict(const Style& style, const std::vector<std::string>& missing,
                    const std::vector<std::string>& waivable) {
  if (!missing.empty()) {
    return style.Paint(Colour::kRed, "functions can not run here") + ": " + Join(missing, ", ") +
           " missing\n";
  }
  if (waivable.empty()) return style.Paint(Colour::kGreen, "functions can run here") + "\n";
  return style.Paint(Colour::kYellow, "functions can run here only with allow_unenforced") + ": " +
         Join(waivable, ", ") + " missing\n";
}

int RunDoctor(const Args& args) {
  if (args.Has("setup-zram")) {
    return SetUpZram(args.Has("yes") ? ZramConsent::kDo : ZramConsent::kPrint);
  }
  if (args.Has("yes")) return UsageError("--yes: only with --setup-zram");
  const CgroupsFor whose = geteuid() == 0 ? CgroupsFor::kOwn : CgroupsFor::kUser;
  const auto apparmor = ParseAppArmorUse(args.Value("apparmor").value_or("auto"));
  if (!apparmor) return UsageError(std::string("--apparmor: must be ") + kAppArmorUses);
  std::vector<Feature> features = ProbeKernelFeatures(whose);
  ShowUse(*apparmor, features);
  std::vector<std::string> missing;
  std::vector<std::string> waivable;
  const bool of_user = FindFeature(features, "cgroup.delegation") != nullptr;
  Table table({"FEATURE", "STATE", "DETAIL", "WHAT TO DO"});
  for (const Feature& feature : features) {
    const bool required = feature.name == "apparmor" && apparmor == AppArmorUse::kRequire;
    const bool needed =
        feature.state == FeatureState::kAbsent && (required || IsNeeded(feature.name));
    const bool limit = of_user && feature.name.starts_with("cgroup.");
    if (needed) (limit ? waivable : missing).push_back(feature.name);
    table.Add({{feature.name},
               {std::string(FeatureStateName(feature.state)), StateColour(feature.state)},
               {feature.detail},
               {feature.advice}});
  }
  const BoardReport board =
      ReportOnce(BoardReader(args.Value("board-root").value_or(""), DefaultDataDir()), {});
  if (args.Has("json")) {
    PrintOut(DoctorJson(features, LookAtGrants(args), board));
  } else {
    const Style style = Style::ForFd(STDOUT_FILENO);
    PrintOut(table.Render(style) + LayersTable(features, style) +
             GrantsTable(LookAtGrants(args), style) + BoardTable(board, style) + "\n");
    PrintOut(Verdict(style, missing, waivable));
  }
  return missing.empty() && waivable.empty() ? kExitOk : kExitFailed;
}

int RunVersion(const Args& args) {
  PrintOut(args.Has("json") ? Json({{"version", PULGA_VERSION}}).dump() + "\n"
                            : std::string("pulga ") + PULGA_VERSION + "\n");
  return kExitOk;
}

}  // namespace

std::vector<Command> ServerCommands() {
  const std::vector<Option> user = {{"user", 0, "NAME", "whom the daemon runs as (pulga)"}};
  const std::vector<Option> grants = {
      {"grants", 0, "FILE", "what functions may have of the host (/etc/pulga/grants.conf)"}};
  const std::vector<Option> board = {
      {"board-root", 0, "DIR", "where the board's /proc and /sys are read, for tests"}};
  const std::vector<Option> zram = {
      {"setup-zram", 0, "", "print what swap in compressed memory takes"},
      {"yes", 0, "", "with --setup-zram: set it up, now and at each start"}};
  const std::vector<Option> apparmor = {
      {"apparmor", 0, "auto|require|off", "as the daemon has it: require makes a lack an error"}};
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
       "Run the daemon, as root or (docs/rootless.md) as an ordinary user.",
       "The first start makes DIR, the database and the admin key (DIR/admin.key). SIGTERM drains "
       "and\n"
       "stops, SIGHUP reloads the settings that allow it.",
       SettingOptions() + user + grants + CommonOptions(), 0, 0, &RunServe},
      daemon,
      {"doctor", "", "What this kernel and board offer and lack, and what to do about it.",
       "Works without a daemon. As root it can find out more. With --setup-zram it tells how to\n"
       "have the pages of idle functions compressed in memory, and with --yes does it.",
       grants + apparmor + board + zram + CommonOptions(), 0, 0, &RunDoctor},
      {"version", "", "Print the version.", "", CommonOptions(), 0, 0, &RunVersion},
  };
}

}  // namespace pulga::cli
