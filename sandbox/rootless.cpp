#include "sandbox/rootless.h"

#include <fcntl.h>
#include <pwd.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>

#include "base/file_io.h"
#include "base/log.h"
#include "base/process.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/unique_fd.h"

namespace pulga {
namespace {

constexpr const char* kSubUids = "/etc/subuid";
constexpr const char* kSubGids = "/etc/subgid";
constexpr size_t kMaxSubIdFile = 1 << 20;

// As newuidmap knows it. Not in the launcher: a static program cannot ask the host's name services.
std::string UserName() {
  const passwd* entry = getpwuid(geteuid());
  return entry != nullptr ? entry->pw_name : std::to_string(geteuid());
}

std::string FindTool(const std::string& name) {
  const char* path = getenv("PATH");
  const std::string dirs = std::string(path != nullptr ? path : "") + ":/usr/bin:/bin";
  for (const std::string_view dir : Split(dirs, ':')) {
    const std::string candidate = std::string(dir) + "/" + name;
    if (!dir.empty() && dir[0] == '/' && access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "";
}

struct Mapping {
  std::string tool;
  std::vector<SubIdRange> ranges;
  uint32_t own = 0;
};

struct Mappings {
  std::vector<Mapping> all;  // of user ids, of group ids; or none, and
  std::string why_none;
};

Mappings NoMappings(std::string why) { return {{}, std::move(why)}; }

// Read once: what is said and what is done must not differ.
Mappings FindMappings() {
  struct Kind {
    const char* tool;
    const char* file;
    uint32_t own;
  };
  const std::string user = UserName();
  const uid_t uid = geteuid();
  Mappings found;
  for (const Kind& kind :
       {Kind{"newuidmap", kSubUids, uid}, Kind{"newgidmap", kSubGids, getegid()}}) {
    const std::string tool = FindTool(kind.tool);
    if (tool.empty()) {
      return NoMappings("there is no " + std::string(kind.tool) + " (package uidmap)");
    }
    const auto text = ReadFile(kind.file, kMaxSubIdFile);
    if (!text.ok() && text.error().sys_errno != ENOENT) return NoMappings(text.error().message);
    auto ranges = text.ok() ? ParseSubIds(*text, user, uid) : std::vector<SubIdRange>();
    if (ranges.empty()) {
      return NoMappings(std::string(kind.file) + " names no ids for " + Printable(user) +
                        ": sudo usermod --add-subuids 200000-265535 --add-subgids 200000-265535 " +
                        Printable(user));
    }
    found.all.push_back({tool, std::move(ranges), kind.own});
  }
  return found;
}

Status WriteMapOf(pid_t process, const Mapping& mapping) {
  SpawnOptions spawn;
  spawn.argv = {mapping.tool, std::to_string(process)};
  for (const std::string& word : SubIdArguments(mapping.ranges, mapping.own)) {
    spawn.argv.push_back(word);
  }
  spawn.fds = {{1, 1}, {2, 2}};
  PULGA_ASSIGN_OR_RETURN(PidFd tool, SpawnProcess(spawn));
  PULGA_ASSIGN_OR_RETURN(const ExitInfo end, tool.Reap());
  if (end.wait_status == 0) return OkStatus();
  return Error{Code::kPermission, 0, "wait status " + std::to_string(end.wait_status)};
}

// A process that stays outside and writes the maps once told to: inside nobody may.
class MapWriter {
 public:
  static Result<MapWriter> Fork(const std::vector<Mapping>& mappings);
  // Whether all maps were written.
  bool Write();
  void Abandon();

 private:
  MapWriter(pid_t pid, UniqueFd go) : pid_(pid), go_(std::move(go)) {}
  pid_t pid_;
  UniqueFd go_;
};

Result<MapWriter> MapWriter::Fork(const std::vector<Mapping>& mappings) {
  int ends[2];  // sockets: a write to a pipe would raise SIGPIPE, were the other process gone
  if (PULGA_SYS(socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return LastError("rootless: socketpair");
  }
  const UniqueFd wait_end(ends[0]);
  UniqueFd go_end(ends[1]);
  const pid_t parent = getpid();
  const pid_t pid = sys::Faulted() ? -1 : fork();
  if (pid < 0) return LastError("rootless: fork");
  if (pid > 0) return MapWriter(pid, std::move(go_end));
  go_end.Reset();
  char go;
  if (read(wait_end.get(), &go, 1) != 1) _exit(1);
  for (const Mapping& mapping : mappings) {
    const Status written = WriteMapOf(parent, mapping);
    if (written.ok()) continue;
    LogError("rootless: " + mapping.tool + ": " + written.error().message);
    _exit(1);
  }
  _exit(0);
}

bool MapWriter::Write() {
  const bool told = PULGA_SYS(send, go_.get(), "", 1, MSG_NOSIGNAL) == 1;
  go_.Reset();
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  return told && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void MapWriter::Abandon() {
  go_.Reset();
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Status WriteText(const char* path, const std::string& text) {
  const auto fd = OpenFile(path, O_WRONLY);
  if (!fd.ok()) return Prefix("rootless", fd.error());
  const Status written = WriteAll(fd->get(), text);
  return written.ok() ? written : Status(Prefix("rootless: " + std::string(path), written.error()));
}

std::string OneId(uint32_t own) { return "0 " + std::to_string(own) + " 1"; }

// What is mapped already cannot be mapped again: a map that newuidmap did write stays.
Result<bool> IsMapped(const char* path) {
  const auto present = ReadFile(path);
  if (!present.ok()) return Prefix("rootless", present.error());
  return !present->empty();
}

Status MapOneId(uid_t uid, gid_t gid) {
  PULGA_ASSIGN_OR_RETURN(const bool users, IsMapped("/proc/self/uid_map"));
  if (!users) PULGA_RETURN_IF_ERROR(WriteText("/proc/self/uid_map", OneId(uid)));
  PULGA_ASSIGN_OR_RETURN(const bool groups, IsMapped("/proc/self/gid_map"));
  if (groups) return OkStatus();
  // Without CAP_SETGID outside, groups can be mapped only once they can not be given up any more.
  PULGA_RETURN_IF_ERROR(WriteText("/proc/self/setgroups", "deny"));
  return WriteText("/proc/self/gid_map", OneId(gid));
}

// "1" and the like in a file of one number; nothing where the kernel has no such setting.
std::optional<uint64_t> Setting(const char* path) {
  const auto text = ReadFile(path, 64);
  if (!text.ok()) return std::nullopt;
  return ParseUint(Trim(std::string_view(*text).substr(0, text->find('\n'))));
}

}  // namespace

std::vector<SubIdRange> ParseSubIds(std::string_view text, const std::string& user, uid_t uid) {
  std::vector<SubIdRange> out;
  for (const std::string_view line : Split(text, '\n')) {
    const auto fields = Split(line, ':');
    if (fields.size() != 3 || (fields[0] != user && fields[0] != std::to_string(uid))) continue;
    const auto first = ParseUint(fields[1], UINT32_MAX - 1);
    const auto count = ParseUint(fields[2], UINT32_MAX);
    if (!first || !count || *first == 0 || *count == 0 || *first + *count > UINT32_MAX) continue;
    out.push_back({static_cast<uint32_t>(*first), static_cast<uint32_t>(*count)});
  }
  return out;
}

std::vector<std::string> SubIdArguments(const std::vector<SubIdRange>& ranges, uint32_t own) {
  std::vector<std::string> out = {"0", std::to_string(own), "1"};
  uint64_t next = 1;
  for (const SubIdRange& range : ranges) {
    if (next + range.count > UINT32_MAX) break;
    for (const uint64_t number : {next, uint64_t{range.first}, uint64_t{range.count}}) {
      out.push_back(std::to_string(number));
    }
    next += range.count;
  }
  return out;
}

std::string WhyOneIdOnly() { return FindMappings().why_none; }

std::string WhyNoUserNamespace(int sys_errno) {
  if (Setting("/proc/sys/kernel/unprivileged_userns_clone") == 0u) {
    return "users may make no user namespaces: sudo sysctl kernel.unprivileged_userns_clone=1";
  }
  if (Setting("/proc/sys/user/max_user_namespaces") == 0u) {
    return "users may make no user namespaces: sudo sysctl user.max_user_namespaces=15000";
  }
  if (Setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1u) {
    return "AppArmor lets users make no user namespaces: sudo sysctl "
           "kernel.apparmor_restrict_unprivileged_userns=0";
  }
  if (sys_errno == ENOSPC) return "too many user namespaces: raise user.max_user_namespaces";
  return "this kernel, or what Pulga was started in, forbids user namespaces";
}

Result<RootlessEntry> EnterRootless() {
  const uid_t uid = geteuid();
  const gid_t gid = getegid();
  const Mappings mappings = FindMappings();
  RootlessEntry entry{mappings.why_none};
  PULGA_ASSIGN_OR_RETURN(MapWriter writer, MapWriter::Fork(mappings.all));
  if (PULGA_SYS(unshare, CLONE_NEWUSER | CLONE_NEWNS) != 0) {
    Error error = LastError("rootless: unshare");
    writer.Abandon();
    error.message += ": " + WhyNoUserNamespace(error.sys_errno);
    return error;
  }
  if (mappings.all.empty()) {
    writer.Abandon();
  } else {
    if (writer.Write()) return entry;
    // A tool whose start or end could not be watched may have done its work all the same.
    PULGA_ASSIGN_OR_RETURN(const bool users, IsMapped("/proc/self/uid_map"));
    PULGA_ASSIGN_OR_RETURN(const bool groups, IsMapped("/proc/self/gid_map"));
    if (users && groups) return entry;
    entry.one_id_only = "newuidmap or newgidmap refused";
  }
  PULGA_RETURN_IF_ERROR(MapOneId(uid, gid));
  return entry;
}

}  // namespace pulga
