#include "runtime/board.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "base/file_io.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

uint32_t UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) {
    return static_cast<uint32_t>(CPU_COUNT(&set));
  }
  return static_cast<uint32_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
}

// One limit file; 0 when absent or "max" (v1 writes a huge number instead).
uint64_t ReadLimit(const std::string& path) {
  const auto text = ReadFile(path, 64);
  if (!text.ok()) return 0;
  const std::string& raw = *text;
  const auto value = ParseUint(std::string_view(raw).substr(0, raw.find('\n')));
  return value && *value < (1ULL << 60) ? *value : 0;
}

// Walks from our cgroup up to the hierarchy's root: every level's limit binds.
uint64_t SmallestLimit(const std::string& mount, std::string path, const char* file) {
  uint64_t least = 0;
  while (true) {
    const uint64_t limit = ReadLimit(mount + path + "/" + file);
    if (limit != 0 && (least == 0 || limit < least)) least = limit;
    if (path.empty() || path == "/") return least;
    path.resize(path.find_last_of('/'));
  }
}

// /proc/self/cgroup lines: "ID:CONTROLLERS:PATH"; the unified hierarchy has no controllers.
uint64_t CgroupLimit() {
  const auto text = ReadFile("/proc/self/cgroup", 64 << 10);
  if (!text.ok()) return 0;
  uint64_t least = 0;
  for (const std::string_view line : Split(*text, '\n')) {
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string path(line.substr(second + 1));
    uint64_t limit = 0;
    if (controllers.empty()) limit = SmallestLimit("/sys/fs/cgroup", path, "memory.max");
    for (const std::string_view controller : Split(controllers, ',')) {
      if (controller != "memory") continue;
      limit = SmallestLimit("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes");
    }
    if (limit != 0 && (least == 0 || limit < least)) least = limit;
  }
  return least;
}

Error OverBoard(std::string_view field, const std::string& asked, const std::string& have) {
  return Error{Code::kInvalidArgument, 0,
               std::string(field) + ": " + asked + " is more than this board has (" + have + ")"};
}

bool IsLacking(const Feature* feature) {
  return feature != nullptr && feature->state != FeatureState::kPresent &&
         feature->state != FeatureState::kUnknown;
}

}  // namespace

Result<uint64_t> ParseMeminfo(std::string_view meminfo, std::string_view name) {
  for (std::string_view line : Split(meminfo, '\n')) {
    if (line.substr(0, line.find(':')) != name) continue;
    line = Trim(line.substr(name.size() + 1));
    const auto kib = ParseUint(line.substr(0, line.find(' ')), UINT64_MAX / 1024);
    if (kib) return *kib * 1024;
  }
  return Error{Code::kIo, 0, "/proc/meminfo: no " + std::string(name)};
}

Result<Board> ReadBoard() {
  PULGA_ASSIGN_OR_RETURN(const std::string meminfo, ReadFile("/proc/meminfo", 64 << 10));
  Board board;
  PULGA_ASSIGN_OR_RETURN(board.memory_bytes, ParseMeminfo(meminfo, "MemTotal"));
  const auto swap = ParseMeminfo(meminfo, "SwapTotal");  // kernels built without swap say nothing
  board.swap_bytes = swap.ok() ? *swap : 0;
  board.cores = UsableCores();
  board.cgroup_limit_bytes = CgroupLimit();
  rlimit files = {};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) board.max_open_files = files.rlim_max;
  return board;
}

uint64_t DefaultMemoryBudget(const Board& board) {
  uint64_t usable = board.memory_bytes;
  if (board.cgroup_limit_bytes != 0) usable = std::min(usable, board.cgroup_limit_bytes);
  return usable - std::max(usable / 5, std::min<uint64_t>(192 << 20, usable / 8 * 3));
}

uint32_t DefaultCpuMillis(const Board& board, const std::vector<Feature>& features) {
  return IsLacking(FindFeature(features, "cgroup.cpu"))
             ? 0
             : std::min<uint32_t>(500, board.cores * 1000);
}

Status CheckAgainstBoard(const FunctionSpec& spec, const Board& board) {
  if (spec.sandbox.memory_bytes > board.memory_bytes) {
    return OverBoard("limits.memory", FormatBytes(spec.sandbox.memory_bytes),
                     HumanBytes(board.memory_bytes));
  }
  if (board.budget_bytes != 0 && spec.sandbox.memory_bytes > board.budget_bytes) {
    return Error{Code::kInvalidArgument, 0,
                 "limits.memory: " + FormatBytes(spec.sandbox.memory_bytes) +
                     " is more than all instances together may use (" +
                     HumanBytes(board.budget_bytes) + ", setting memory-budget)"};
  }
  if (spec.sandbox.swap_bytes > board.swap_bytes) {
    return OverBoard(
        "limits.swap", FormatBytes(spec.sandbox.swap_bytes),
        board.swap_bytes == 0 ? "no swap: give \"0\"" : HumanBytes(board.swap_bytes) + " of swap");
  }
  if (spec.sandbox.tmp_bytes > board.memory_bytes) {
    return OverBoard("limits.tmp", FormatBytes(spec.sandbox.tmp_bytes),
                     HumanBytes(board.memory_bytes) + " of memory");
  }
  if (board.max_open_files != 0 && spec.sandbox.nofile > board.max_open_files) {
    return OverBoard("limits.nofile", std::to_string(spec.sandbox.nofile),
                     std::to_string(board.max_open_files) + " as this daemon's own hard limit");
  }
  if (spec.sandbox.cpu_millis > board.cores * 1000) {
    return OverBoard("limits.cpu", FormatCpuMillis(spec.sandbox.cpu_millis),
                     std::to_string(board.cores) + (board.cores == 1 ? " core" : " cores"));
  }
  return OkStatus();
}

namespace {

// A volume's file is read and written by the kernel in the name of who reads or writes the volume:
// what is read counts for the function. What is written mostly waits, and is written for nobody.
Status CheckVolumesIo(const FunctionSpec& spec, const std::vector<Feature>& features) {
  for (const VolumeMount& volume : spec.access.volumes) {
    if (volume.kind != VolumeKind::kVolume) continue;
    if (spec.sandbox.io_write_bps != 0 && !volume.read_only) {
      return Error{Code::kUnsupported, 0,
                   "limits.io_write_bps: what is written to the volume " +
                       Printable(volume.source) +
                       " goes to the disk later, in nobody's name; deploy without it, with the "
                       "volume read-only, or with allow_unenforced"};
    }
    const Feature* reads = FindFeature(features, "volume.io");
    if (spec.sandbox.io_read_bps == 0 || !IsLacking(reads)) continue;
    return Error{Code::kUnsupported, 0,
                 "limits.io_read_bps: it does not bind what is read from the volume " +
                     Printable(volume.source) + ", " + reads->detail +
                     "; deploy without it, or with allow_unenforced"};
  }
  return OkStatus();
}

}  // namespace

Status CheckEnforceable(const FunctionSpec& spec, const std::vector<Feature>& features) {
  const SandboxLimits defaults;
  const SandboxLimits& limits = spec.sandbox;
  struct Rule {
    const char* feature;
    const char* field;
    bool wanted;
  };
  const bool strict = !spec.allow_unenforced;
  if (strict) PULGA_RETURN_IF_ERROR(CheckVolumesIo(spec, features));
  // Root can have every controller the kernel has; a user only those of a cgroup it is given.
  const Feature* delegation = FindFeature(features, "cgroup.delegation");
  const bool must = strict || delegation == nullptr;
  const Rule rules[] = {
      {"cgroup.memory", "limits.memory", must},
      {"cgroup.pids", "limits.pids", must},
      {"cgroup.cpu", "limits.cpu", strict && limits.cpu_millis != 0},
      {"cgroup.cpu", "limits.cpu_weight", strict && limits.cpu_weight != defaults.cpu_weight},
      {"cgroup.io", "limits.io_read_bps", strict && limits.io_read_bps != 0},
      {"cgroup.io", "limits.io_write_bps", strict && limits.io_write_bps != 0},
  };
  for (const auto& rule : rules) {
    const Feature* feature = rule.wanted ? FindFeature(features, rule.feature) : nullptr;
    if (!IsLacking(feature)) continue;
    const std::string state =
        std::string(rule.feature) + " is " + std::string(FeatureStateName(feature->state));
    if (delegation != nullptr && delegation->state == FeatureState::kAbsent) {
      return Error{
          Code::kUnsupported, 0,
          std::string(rule.field) + ": it can not be enforced here, " + state +
              ", for this daemon runs as a user and was given no cgroup: " + delegation->advice +
              "; or deploy with allow_unenforced, without this limit"};
    }
    return Error{Code::kUnsupported, 0,
                 std::string(rule.field) + ": this kernel can not enforce it, " + state +
                     (feature->advice.empty() ? "" : ": " + feature->advice)};
  }
  return OkStatus();
}

}  // namespace pulga
