// DaemonConfig: everything that has a limit or a name in the daemon, from flags and from the file
// given with --config. One `key = value` a line, `#` starts a comment, unknown keys are refused;
// flags win over the file. A key is "reloadable" when SIGHUP may change it (FindSetting).
// Blocks on the file: start-up and reload only. Source: runtime/README.md, "Settings".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "base/result.h"
#include "images/fetch/net_address.h"
#include "net/ipv4.h"
#include "runtime/sense/pressure_policy.h"

namespace pulga {

// /var/lib/pulga; of an ordinary user $XDG_DATA_HOME/pulga, or ~/.local/share/pulga.
std::string DefaultDataDir();

enum class CallAccess : uint8_t { kOpen, kKey };

struct DaemonConfig {
  std::string data_dir = DefaultDataDir();
  std::vector<std::string> listen = {"127.0.0.1:8080"};  // ADDR:PORT, [V6]:PORT or unix:/PATH
  bool insecure_listen = false;                          // a non-loopback address without TLS
  LogLevel log_level = LogLevel::kInfo;
  std::string apparmor = "auto";        // the launcher's, which root starts; here to show it
  std::string provider_name = "pulga";  // what GET /system/info calls us
  // Of a call of a function that OpenFaaS' clients deploy, at least.
  Duration openfaas_timeout = std::chrono::seconds(60);

  // HTTP front.
  CallAccess call_access = CallAccess::kOpen;  // who may call functions from outside
  uint32_t max_connections = 1024;
  Duration header_timeout = std::chrono::seconds(10);      // whole request head
  Duration body_timeout = std::chrono::seconds(60);        // without a byte of the body
  Duration keep_alive_timeout = std::chrono::seconds(60);  // idle connection
  Duration stop_timeout = std::chrono::seconds(20);        // SIGTERM until open calls are ended

  // Functions.
  uint64_t memory_budget_bytes = 0;  // all instances together; 0 = DefaultMemoryBudget
  uint32_t max_instances = 512;
  uint32_t max_functions = 1000;
  Duration idle = std::chrono::seconds(60);
  Duration drain_timeout = std::chrono::seconds(60);
  uint32_t keep_versions = 10;
  uint64_t log_bytes_per_function = 1 << 20;
  Ipv4Range network_range = {{0x0A530000}, 16};  // of functions with outbound network: 10.83.0.0/16

  // The board's pressure (docs/board.md).
  bool pressure = true;  // act on it
  PressureWishes pressure_steps;
  Duration pressure_interval = std::chrono::seconds(2);
  Duration pressure_hold = std::chrono::seconds(10);
  std::string board_root;  // "" = the real one; for tests

  // Imports.
  uint64_t upload_bytes = 8ULL << 30;               // the archive as sent
  uint64_t image_bytes = 16ULL << 30;               // unpacked
  uint64_t reserve_bytes = 32 << 20;                // of the disk, never filled by uploads
  uint32_t max_uploads = 4;                         // stored or imported at once
  uint32_t max_unfinished_uploads = 16;             // resumable ones
  Duration upload_expiry = std::chrono::hours(24);  // of resumable ones, without a byte
  uint32_t disk_high = 85;  // percent in use above which unused images go; 100 = never
  uint32_t disk_low = 75;   // and down to which

  // Tasks (docs/async.md).
  uint32_t max_tasks = 5000;                      // that wait or run
  uint64_t task_bytes = 64 << 20;                 // of requests and answers, on disk
  uint64_t task_message_bytes = 1 << 20;          // of one of them
  uint32_t tasks_at_once = 0;                     // 0 = as many as there are cores
  Duration task_keep = std::chrono::minutes(20);  // once it has ended
  std::vector<NetworkPrefix> callback_networks;   // that callbacks may lead to, beside public ones
  std::string callback_key;                       // file with the key they are signed by; "": none

  // Registries.
  std::string registry_auth;            // credentials as docker login writes them; "" = in data_dir
  std::string registry_ca;              // PEM of authorities beside the host's
  std::vector<std::string> plain_http;  // HOST[:PORT] of registries that may do without TLS
  std::string https_proxy;              // may hold user:password@
  std::string http_proxy;
  std::string no_proxy;
  uint32_t pull_layers = 3;  // fetched at once
  Duration pull_stall_timeout = std::chrono::seconds(30);
};

using SettingList = std::vector<std::pair<std::string, std::string>>;

struct Setting {
  const char* key;  // "memory-budget"; the flag is --memory-budget
  const char* value_name;
  const char* help;
  bool reloadable;
};
const std::vector<Setting>& Settings();  // for --help and the manual, in their order
const Setting* FindSetting(std::string_view key);

// Where a configuration comes from, kept so that it can be read again.
struct ConfigSources {
  SettingList flags;  // in the order given
  std::string file;   // "" = none
};

// Sets one key; the error names it and the value.
Status ApplySetting(std::string_view key, std::string_view value, DaemonConfig& config);
// "FILE:LINE: ..." on errors. Lists nothing twice: a repeated key is an error.
Result<SettingList> ParseConfigText(std::string_view text);
Result<DaemonConfig> LoadConfig(const ConfigSources& sources);
// Rules over several settings: a public address needs insecure-listen, and the like.
Status ValidateConfig(const DaemonConfig& config);
// `old` with the reloadable settings of `fresh`; names the others that differ in `ignored`.
DaemonConfig MergeReloaded(const DaemonConfig& old, const DaemonConfig& fresh,
                           std::vector<std::string>* ignored);

}  // namespace pulga
