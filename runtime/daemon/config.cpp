#include "runtime/daemon/config.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <set>

#include "base/file_io.h"
#include "base/text.h"
#include "base/units.h"
#include "images/image_ref.h"
#include "net/address_plan.h"
#include "runtime/log_files.h"
#include "sandbox/apparmor.h"

namespace pulga {
namespace {

// The keeper waits 40 s for us.
constexpr Duration kLongestStop = std::chrono::seconds(35);
constexpr Duration kShortestLook = std::chrono::milliseconds(50);
constexpr auto kMostTcpAddresses = static_cast<ptrdiff_t>(kMaxManagementPorts);

using Parse = std::function<Status(std::string_view value, DaemonConfig& config)>;
using Copy =
    std::function<bool(const DaemonConfig& from, DaemonConfig& to)>;  // true: they differed

struct Rule {
  Setting setting;
  Parse parse;
  Copy copy;
};

template <typename T>
Copy CopyOf(T DaemonConfig::*member) {
  return [member](const DaemonConfig& from, DaemonConfig& to) {
    const bool differs = from.*member != to.*member;
    to.*member = from.*member;
    return differs;
  };
}

Rule TextRule(Setting setting, std::string DaemonConfig::*member) {
  return {setting,
          [member](std::string_view value, DaemonConfig& config) -> Status {
            if (value.empty()) return Error{Code::kInvalidArgument, 0, "is empty"};
            config.*member = value;
            return OkStatus();
          },
          CopyOf(member)};
}

Rule BytesRule(Setting setting, uint64_t DaemonConfig::*member) {
  return {setting,
          [member](std::string_view value, DaemonConfig& config) -> Status {
            PULGA_ASSIGN_OR_RETURN(config.*member, ParseBytes(value));
            return OkStatus();
          },
          CopyOf(member)};
}

Rule LogBytesRule(Setting setting) {
  return {setting,
          [](std::string_view value, DaemonConfig& config) -> Status {
            PULGA_ASSIGN_OR_RETURN(const uint64_t bytes, ParseBytes(value));
            if (bytes <= kMostLogBytes) {
              config.log_bytes_per_function = bytes;
              return OkStatus();
            }
            return Error{Code::kInvalidArgument, 0,
                         "at most " + HumanBytes(kMostLogBytes) + " of log for each function"};
          },
          CopyOf(&DaemonConfig::log_bytes_per_function)};
}

Rule DurationRule(Setting setting, Duration DaemonConfig::*member) {
  return {setting,
          [member](std::string_view value, DaemonConfig& config) -> Status {
            PULGA_ASSIGN_OR_RETURN(const Duration parsed, ParseDuration(value));
            if (parsed <= Duration::zero() || parsed > std::chrono::hours(24)) {
              return Error{Code::kInvalidArgument, 0, "must be more than 0 and at most 24h"};
            }
            config.*member = parsed;
            return OkStatus();
          },
          CopyOf(member)};
}

Rule CountRule(Setting setting, uint32_t DaemonConfig::*member,
               std::pair<uint32_t, uint32_t> range) {
  return {setting,
          [member, range](std::string_view value, DaemonConfig& config) -> Status {
            const auto parsed = ParseUint(value, range.second);
            if (!parsed || *parsed < range.first) {
              return Error{Code::kInvalidArgument, 0,
                           "must be a number from " + std::to_string(range.first) + " to " +
                               std::to_string(range.second)};
            }
            config.*member = static_cast<uint32_t>(*parsed);
            return OkStatus();
          },
          CopyOf(member)};
}

Status CheckListen(std::string_view address) {
  if (address.substr(0, 5) == "unix:") {
    if (address.size() > 6 && address[5] == '/' && address.size() < 100) return OkStatus();
    return Error{Code::kInvalidArgument, 0, "\"unix:\" needs an absolute path of at most 94 bytes"};
  }
  const size_t colon = address.rfind(':');
  const auto port =
      colon == std::string_view::npos ? std::nullopt : ParseUint(address.substr(colon + 1), 65535);
  if (port && colon != 0) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "\"" + Printable(address, 60) + "\" is not ADDR:PORT, [V6]:PORT or unix:/PATH"};
}

Status ParseListen(std::string_view value, DaemonConfig& config) {
  std::vector<std::string> addresses;
  for (const std::string_view part : Split(value, ',')) {
    PULGA_RETURN_IF_ERROR(CheckListen(Trim(part)));
    addresses.emplace_back(Trim(part));
  }
  const auto is_tcp = [](const std::string& address) { return address.rfind("unix:", 0) != 0; };
  if (std::count_if(addresses.begin(), addresses.end(), is_tcp) > kMostTcpAddresses) {
    return Error{Code::kInvalidArgument, 0,
                 "at most " + std::to_string(kMostTcpAddresses) + " TCP addresses"};
  }
  config.listen = std::move(addresses);
  return OkStatus();
}

Status ParsePlainHttp(std::string_view value, DaemonConfig& config) {
  std::vector<std::string> hosts;
  for (const std::string_view part : Split(value, ',')) {
    const std::string host(Trim(part));
    // An image's name says best what a registry may be called.
    const auto ref = ParseImageRef(host + "/image");
    if (!ref.ok() || ref->domain != host) {
      return Error{
          Code::kInvalidArgument, 0,
          "\"" + Printable(host, 60) + "\" is no registry: HOST or HOST:PORT, as in images"};
    }
    hosts.push_back(ToLower(host));
  }
  config.plain_http = std::move(hosts);
  return OkStatus();
}

Rule ProxyRule(Setting setting, std::string DaemonConfig::*member) {
  return {setting,
          [member](std::string_view value, DaemonConfig& config) -> Status {
            const bool http = value.starts_with("http://") || value.starts_with("https://");
            bool fit = http && value.size() < 512;
            for (const char c : value) fit = fit && c > 0x20 && c < 0x7f;
            // Without the value, which may hold a password.
            if (!fit)
              return Error{Code::kInvalidArgument, 0, "must be http://[USER:PASSWORD@]HOST:PORT"};
            config.*member = value;
            return OkStatus();
          },
          CopyOf(member)};
}

Status ParseNetworkRange(std::string_view value, DaemonConfig& config) {
  const auto range = ParseIpv4Range(value);
  if (!range) {
    return Error{
        Code::kInvalidArgument, 0,
        "\"" + Printable(value, 40) + "\" is no range of IPv4 addresses like 10.83.0.0/16"};
  }
  PULGA_RETURN_IF_ERROR(CheckNetworkRange(*range));
  config.network_range = *range;
  return OkStatus();
}

Status ParseInsecure(std::string_view value, DaemonConfig& config) {
  if (value != "yes" && value != "no") return Error{Code::kInvalidArgument, 0, "must be yes or no"};
  config.insecure_listen = value == "yes";
  return OkStatus();
}

Status ParseLevel(std::string_view value, DaemonConfig& config) {
  constexpr std::pair<std::string_view, LogLevel> kLevels[] = {{"debug", LogLevel::kDebug},
                                                               {"info", LogLevel::kInfo},
                                                               {"warning", LogLevel::kWarning},
                                                               {"error", LogLevel::kError}};
  for (const auto& [name, level] : kLevels) {
    if (value == name) {
      config.log_level = level;
      return OkStatus();
    }
  }
  return Error{Code::kInvalidArgument, 0, "must be debug, info, warning or error"};
}

Status ParseAppArmor(std::string_view value, DaemonConfig& config) {
  if (!ParseAppArmorUse(value)) {
    return Error{Code::kInvalidArgument, 0, std::string("must be ") + kAppArmorUses};
  }
  config.apparmor = value;
  return OkStatus();
}

Rule AppArmorRule() {
  return {{"apparmor", "auto|require|off",
           "its profile on functions: where it is loaded, on all or no start, never", false},
          ParseAppArmor,
          CopyOf(&DaemonConfig::apparmor)};
}

Status ParseCallAccess(std::string_view value, DaemonConfig& config) {
  if (value != "open" && value != "key") {
    return Error{Code::kInvalidArgument, 0, "must be open or key"};
  }
  config.call_access = value == "key" ? CallAccess::kKey : CallAccess::kOpen;
  return OkStatus();
}

Rule CallAccessRule() {
  return {{"call-access", "open|key",
           "who may call functions: everybody, or keys with the scope invoke", true},
          ParseCallAccess,
          CopyOf(&DaemonConfig::call_access)};
}

std::vector<Rule> OpenFaasRules() {
  return {
      TextRule({"provider-name", "NAME",
                "what OpenFaaS' clients are told this is: faasd for those that look for it", false},
               &DaemonConfig::provider_name),
      DurationRule({"openfaas-timeout", "TIME",
                    "that calls may take of functions OpenFaaS' clients deploy, at least", false},
                   &DaemonConfig::openfaas_timeout),
  };
}

std::vector<Rule> RegistryRules() {
  using C = DaemonConfig;
  return {
      TextRule({"registry-auth", "FILE", "credentials for registries, as docker login writes them",
                true},
               &C::registry_auth),
      TextRule(
          {"registry-ca", "FILE", "certificate authorities of registries, beside the host's", true},
          &C::registry_ca),
      {{"plain-http-registries", "HOST:PORT", "registries without TLS; several with commas", true},
       ParsePlainHttp,
       CopyOf(&C::plain_http)},
      ProxyRule({"https-proxy", "URL", "the proxy towards registries", true}, &C::https_proxy),
      ProxyRule({"http-proxy", "URL", "the same for registries without TLS", true}, &C::http_proxy),
      TextRule({"no-proxy", "HOSTS", "what needs no proxy: hosts, .domains, 10.0.0.0/8, *", true},
               &C::no_proxy),
      CountRule({"pull-layers", "N", "layers fetched at once from a registry", true},
                &C::pull_layers, {1, 16}),
      DurationRule({"pull-stall-timeout", "TIME", "without a byte from a registry", true},
                   &C::pull_stall_timeout),
  };
}

Rule StepsRule(Setting setting, std::optional<PressureSteps> PressureWishes::*member, double most,
               StepOrder order = StepOrder::kRising) {
  return {setting,
          [member, most, order](std::string_view value, DaemonConfig& config) -> Status {
            PULGA_ASSIGN_OR_RETURN(config.pressure_steps.*member, ParseSteps(value, most, order));
            return OkStatus();
          },
          [member](const DaemonConfig& from, DaemonConfig& to) {
            const bool differs = from.pressure_steps.*member != to.pressure_steps.*member;
            to.pressure_steps.*member = from.pressure_steps.*member;
            return differs;
          }};
}

Status ParsePressureChoice(std::string_view value, DaemonConfig& config) {
  if (value != "on" && value != "off") return Error{Code::kInvalidArgument, 0, "must be on or off"};
  config.pressure = value == "on";
  return OkStatus();
}

Status ParseBoardRoot(std::string_view value, DaemonConfig& config) {
  if (!value.starts_with('/')) {
    return Error{Code::kInvalidArgument, 0, "an absolute path is expected"};
  }
  while (value.ends_with('/')) value.remove_suffix(1);
  config.board_root = value;
  return OkStatus();
}

// SHRINK,DELAY,SHED: from where on each level holds.
std::vector<Rule> PressureRules() {
  using C = DaemonConfig;
  using W = PressureWishes;
  return {
      {{"pressure", "on|off", "act when the board is short of memory, hot or slow", true},
       ParsePressureChoice,
       CopyOf(&C::pressure)},
      StepsRule({"pressure-memory", "STEPS", "percent of time that tasks wait for memory", true},
                &W::memory, 100),
      StepsRule({"pressure-io", "STEPS", "percent of time that all tasks wait for a disk", true},
                &W::io, 100),
      StepsRule({"pressure-cpu", "STEPS", "percent of time that tasks wait for a processor", true},
                &W::cpu, 100),
      StepsRule({"pressure-available", "STEPS", "percent of the memory still available", true},
                &W::available, 100, StepOrder::kFalling),
      StepsRule({"pressure-temperature", "STEPS", "degrees Celsius of the processor", true},
                &W::temperature, 150),
      StepsRule({"pressure-write", "STEPS", "milliseconds for a write to the data's disk", true},
                &W::write, 60000),
      DurationRule({"pressure-interval", "TIME", "between two looks at the board", true},
                   &C::pressure_interval),
      DurationRule({"pressure-hold", "TIME", "of ease before a level of pressure falls", true},
                   &C::pressure_hold),
      {{"board-root", "DIR", "where the board's /proc and /sys are read, for tests", false},
       ParseBoardRoot,
       CopyOf(&C::board_root)},
  };
}

Status ParseCallbackNetworks(std::string_view value, DaemonConfig& config) {
  std::vector<NetworkPrefix> networks;
  for (const std::string_view part : Split(value, ',')) {
    const auto network = ParseNetworkPrefix(Trim(part));
    if (!network) {
      return Error{Code::kInvalidArgument, 0,
                   "\"" + Printable(Trim(part), 60) +
                       "\" is no network like 192.168.1.0/24 or fd00::/8, and no address"};
    }
    networks.push_back(*network);
  }
  if (networks.size() > kMaxNetworks) {
    return Error{Code::kInvalidArgument, 0,
                 "at most " + std::to_string(kMaxNetworks) + " networks"};
  }
  config.callback_networks = std::move(networks);
  return OkStatus();
}

std::vector<Rule> TaskRules() {
  using C = DaemonConfig;
  return {
      CountRule({"max-tasks", "N", "asynchronous calls that wait or run", true}, &C::max_tasks,
                {1, 100000}),
      BytesRule({"task-bytes", "SIZE", "of the disk for their requests and answers", true},
                &C::task_bytes),
      BytesRule({"task-message-bytes", "SIZE", "of one of their requests or answers", true},
                &C::task_message_bytes),
      CountRule({"tasks-at-once", "N", "of them that run at once; 0 = as many as cores", true},
                &C::tasks_at_once, {0, 10000}),
      DurationRule({"task-keep", "TIME", "that an ended one can be asked about", true},
                   &C::task_keep),
      {{"callback-networks", "NETWORKS",
        "private ones that X-Callback-Url may lead to, as 192.168.1.0/24; several with commas",
        true},
       ParseCallbackNetworks,
       CopyOf(&C::callback_networks)},
      TextRule({"callback-key", "FILE", "key (whsec_BASE64) that callbacks are signed by", true},
               &C::callback_key),
  };
}

const std::vector<Rule>& Rules() {
  using C = DaemonConfig;
  static const std::vector<Rule> rules = [] {
    std::vector<Rule> all = {
        TextRule({"data", "DIR", "where everything is kept", false}, &C::data_dir),
        {{"listen", "ADDR:PORT", "addresses to serve on, or unix:/PATH; several with commas",
          false},
         ParseListen,
         CopyOf(&C::listen)},
        {{"insecure-listen", "yes|no", "allow a non-loopback address without TLS", false},
         ParseInsecure,
         CopyOf(&C::insecure_listen)},
        {{"log-level", "LEVEL", "debug, info, warning or error", true},
         ParseLevel,
         CopyOf(&C::log_level)},
        AppArmorRule(),
        CallAccessRule(),
        CountRule({"max-connections", "N", "client connections at once", false},
                  &C::max_connections, {4, 100000}),
        DurationRule({"header-timeout", "TIME", "for a whole request head", true},
                     &C::header_timeout),
        DurationRule({"body-timeout", "TIME", "without a byte of a request body", true},
                     &C::body_timeout),
        DurationRule({"keep-alive-timeout", "TIME", "for an idle connection", false},
                     &C::keep_alive_timeout),
        DurationRule({"stop-timeout", "TIME", "for open calls when stopping", true},
                     &C::stop_timeout),
        BytesRule({"memory-budget", "SIZE", "for all instances; 0 = by the board", false},
                  &C::memory_budget_bytes),
        CountRule({"max-instances", "N", "instances of all functions at once", false},
                  &C::max_instances, {1, 10000}),
        DurationRule(
            {"idle", "TIME", "until an unused instance goes, where scale.idle is auto", false},
            &C::idle),
        DurationRule({"drain-timeout", "TIME", "at least, for calls of a replaced version", false},
                     &C::drain_timeout),
        CountRule({"max-functions", "N", "functions deployed at once", true}, &C::max_functions,
                  {1, 100000}),
        CountRule({"keep-versions", "N", "versions kept of each function, for rollback", true},
                  &C::keep_versions, {1, 100}),
        LogBytesRule({"log-bytes", "SIZE", "of log kept for each function, 64 MiB at most", false}),
        {{"network-range", "RANGE",
          "private addresses for functions with outbound network, 10.83.0.0/16 if not given",
          false},
         ParseNetworkRange,
         CopyOf(&C::network_range)},
        BytesRule({"upload-bytes", "SIZE", "of one image archive as sent", true}, &C::upload_bytes),
        BytesRule({"image-bytes", "SIZE", "of one image unpacked", true}, &C::image_bytes),
        BytesRule({"reserve-bytes", "SIZE", "of the disk that uploads leave free", true},
                  &C::reserve_bytes),
        CountRule({"max-uploads", "N", "images uploaded or imported at once", true},
                  &C::max_uploads, {1, 100}),
        CountRule({"max-unfinished-uploads", "N", "resumable uploads kept until they go on", true},
                  &C::max_unfinished_uploads, {1, 1000}),
        DurationRule({"upload-expiry", "TIME", "for a resumable upload to go on", true},
                     &C::upload_expiry),
        CountRule({"disk-high", "PERCENT",
                   "of the disk in use, above which unused images are removed; 100 = never", true},
                  &C::disk_high, {1, 100}),
        CountRule(
            {"disk-low", "PERCENT", "of the disk in use, down to which they are removed", true},
            &C::disk_low, {0, 99}),
    };
    for (const auto more : {&PressureRules, &TaskRules, &RegistryRules, &OpenFaasRules})
      for (Rule& rule : more()) all.push_back(std::move(rule));
    return all;
  }();
  return rules;
}

bool IsLoopback(std::string_view address) {
  return address.substr(0, 5) == "unix:" || address.substr(0, 4) == "127." ||
         address.substr(0, 6) == "[::1]:" || address.substr(0, 10) == "localhost:";
}

}  // namespace

std::string DefaultDataDir() {
  const char* data_home = getenv("XDG_DATA_HOME");
  const char* home = getenv("HOME");
  if (geteuid() == 0) return "/var/lib/pulga";
  if (data_home != nullptr && data_home[0] == '/') return std::string(data_home) + "/pulga";
  if (home != nullptr && home[0] == '/') return std::string(home) + "/.local/share/pulga";
  return "/var/lib/pulga";
}

const std::vector<Setting>& Settings() {
  static const std::vector<Setting> settings = [] {
    std::vector<Setting> out;
    for (const Rule& rule : Rules()) out.push_back(rule.setting);
    return out;
  }();
  return settings;
}

const Setting* FindSetting(std::string_view key) {
  for (const Setting& setting : Settings()) {
    if (key == setting.key) return &setting;
  }
  return nullptr;
}

Status ApplySetting(std::string_view key, std::string_view value, DaemonConfig& config) {
  for (const Rule& rule : Rules()) {
    if (key != rule.setting.key) continue;
    const Status status = rule.parse(value, config);
    if (!status.ok()) return Prefix(key, status.error());
    return OkStatus();
  }
  return Error{Code::kInvalidArgument, 0, "unknown setting \"" + Printable(key, 40) + "\""};
}

Result<SettingList> ParseConfigText(std::string_view text) {
  SettingList settings;
  std::set<std::string> seen;
  size_t number = 0;
  for (std::string_view line : Split(text, '\n')) {
    ++number;
    const std::string where = "line " + std::to_string(number);
    line = Trim(line.substr(0, line.find('#')));
    if (!line.empty() && line.back() == '\r') line = Trim(line.substr(0, line.size() - 1));
    if (line.empty()) continue;
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) {
      return Error{Code::kInvalidArgument, 0, where + ": \"key = value\" is expected"};
    }
    const std::string key(Trim(line.substr(0, equals)));
    if (FindSetting(key) == nullptr) {
      return Error{Code::kInvalidArgument, 0,
                   where + ": unknown setting \"" + Printable(key, 40) + "\""};
    }
    if (!seen.insert(key).second) {
      return Error{Code::kInvalidArgument, 0, where + ": \"" + key + "\" is given twice"};
    }
    settings.emplace_back(key, Trim(line.substr(equals + 1)));
  }
  return settings;
}

Result<DaemonConfig> LoadConfig(const ConfigSources& sources) {
  DaemonConfig config;
  if (!sources.file.empty()) {
    PULGA_ASSIGN_OR_RETURN(const std::string text, ReadFile(sources.file, 256 << 10));
    const auto settings = ParseConfigText(text);
    if (!settings.ok()) return Prefix(sources.file, settings.error());
    for (const auto& [key, value] : *settings) {
      const Status status = ApplySetting(key, value, config);
      if (!status.ok()) return Prefix(sources.file, status.error());
    }
  }
  for (const auto& [key, value] : sources.flags) {
    PULGA_RETURN_IF_ERROR(ApplySetting(key, value, config));
  }
  PULGA_RETURN_IF_ERROR(ValidateConfig(config));
  return config;
}

Status ValidateConfig(const DaemonConfig& config) {
  if (config.data_dir.empty() || config.data_dir.front() != '/') {
    return Error{Code::kInvalidArgument, 0, "data: an absolute path is expected"};
  }
  if (config.stop_timeout > kLongestStop) {
    return Error{Code::kInvalidArgument, 0,
                 "stop-timeout: at most " + FormatDuration(kLongestStop)};
  }
  if (config.pressure_interval < kShortestLook) {
    return Error{Code::kInvalidArgument, 0,
                 "pressure-interval: at least " + FormatDuration(kShortestLook)};
  }
  if (config.disk_low >= config.disk_high) {
    return Error{Code::kInvalidArgument, 0, "disk-low: must be less than disk-high"};
  }
  for (const std::string& address : config.listen) {
    if (config.insecure_listen || IsLoopback(address)) continue;
    return Error{Code::kInvalidArgument, 0,
                 "listen: " + Printable(address, 60) +
                     " can be reached from other machines and there is no TLS; if that is meant, "
                     "add --insecure-listen"};
  }
  return OkStatus();
}

DaemonConfig MergeReloaded(const DaemonConfig& old, const DaemonConfig& fresh,
                           std::vector<std::string>* ignored) {
  DaemonConfig merged = old;
  for (const Rule& rule : Rules()) {
    if (rule.setting.reloadable) {
      rule.copy(fresh, merged);
      continue;
    }
    DaemonConfig scratch = old;
    if (rule.copy(fresh, scratch)) ignored->push_back(rule.setting.key);
  }
  return merged;
}

}  // namespace pulga
