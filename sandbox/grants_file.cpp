#include "sandbox/grants_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"
#include "net/service_name.h"
#include "sandbox/id_ranges.h"

namespace pulga {
namespace {

constexpr size_t kMaxLine = 4096;
constexpr size_t kMaxProblems = 64;

Error Bad(std::string message) { return Error{Code::kInvalidArgument, 0, std::move(message)}; }

std::string Quoted(std::string_view text) { return "\"" + Printable(text, 80) + "\""; }

// A line taken apart: its words, and its "key=value"s, of which each is known and given once.
struct Line {
  size_t number = 0;
  std::vector<std::string> words;
  std::map<std::string, std::string> options;
};

Result<Line> TakeApart(std::string_view text) {
  Line line;
  if (text.size() > kMaxLine) return Bad("longer than " + std::to_string(kMaxLine) + " bytes");
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\t') || byte >= 0x7f) {
      return Bad("holds a control or non-ASCII character");
    }
  }
  std::string blank(text);
  std::replace(blank.begin(), blank.end(), '\t', ' ');
  for (const std::string_view word : Split(blank, ' ')) {
    if (word.empty()) continue;
    const size_t equals = word.find('=');
    if (equals == std::string_view::npos) {
      line.words.emplace_back(word);
      continue;
    }
    const std::string key(word.substr(0, equals));
    if (key != "functions" && key != "lease" && key != "owner")
      return Bad(Quoted(key) + " is no option");
    if (!line.options.emplace(key, word.substr(equals + 1)).second) {
      return Bad(Quoted(key) + " is given twice");
    }
  }
  return line;
}

Result<GrantedTo> ParseFunctions(const Line& line) {
  const auto given = line.options.find("functions");
  if (given == line.options.end()) {
    return Bad("for whom? end the line with functions=NAME,NAMESPACE/NAME or functions=*");
  }
  GrantedTo to;
  to.line = line.number;
  if (given->second == "*") {
    to.everyone = true;
    return to;
  }
  for (const std::string_view word : Split(given->second, ',')) {
    const size_t slash = word.find('/');
    const bool bare = slash == std::string_view::npos;
    const std::string_view space = bare ? kDefaultNamespace : word.substr(0, slash);
    const std::string_view name = bare ? word : word.substr(slash + 1);
    if (!IsPlainName(space) || !IsPlainName(name)) return Bad(Quoted(word) + " is no function");
    to.functions.push_back(std::string(space) + "/" + std::string(name));
  }
  return to;
}

Status WantWords(const Line& line, size_t count, const char* form) {
  if (line.words.size() == count) return OkStatus();
  return Bad(std::string("write: ") + form + " functions=...");
}

Status AddCapability(const Line& line, GrantedTo to, Grants& grants) {
  PULGA_RETURN_IF_ERROR(WantWords(line, 2, "capability NAME"));
  const auto number = CapabilityNumber(line.words[1]);
  if (!number) return Bad(Quoted(line.words[1]) + " is not one of " + KnownCapabilities());
  grants.capabilities.push_back({*number, std::move(to)});
  return OkStatus();
}

Status AddNetwork(const Line& line, GrantedTo to, Grants& grants) {
  PULGA_RETURN_IF_ERROR(WantWords(line, 2, "network host"));
  if (line.words[1] != "host") return Bad(Quoted(line.words[1]) + " is no network but \"host\"");
  grants.host_networks.push_back({std::move(to)});
  return OkStatus();
}

Result<uint32_t> ParseHostId(std::string_view text) {
  const auto id = ParseUint(text);
  if (!id) {
    return Bad(Quoted(text) +
               " is no number: write owner=UID or owner=UID:GID, as `id` shows them");
  }
  if (*id < kHostIdLimit) return static_cast<uint32_t>(*id);
  return Bad(Quoted(text) + " is no owner: ids from " + std::to_string(kHostIdLimit) +
             " on are Pulga's own, or nobody's");
}

// Nobody writes as root: in the mount set-user-id is inert, but on the host a program of root's
// that a function made set-user-id would not be.
Result<HostOwner> ParseOwner(std::string_view text, HostDirectoryUse use) {
  const size_t colon = text.find(':');
  HostOwner owner;
  PULGA_ASSIGN_OR_RETURN(owner.uid, ParseHostId(text.substr(0, colon)));
  owner.gid = owner.uid;
  if (colon != std::string_view::npos) {
    PULGA_ASSIGN_OR_RETURN(owner.gid, ParseHostId(text.substr(colon + 1)));
  }
  if (use == HostDirectoryUse::kReadWrite && (owner.uid == 0 || owner.gid == 0)) {
    return Bad("no function writes as root (user or group 0): name another owner, or read-only");
  }
  return owner;
}

Status AddHostDirectory(const Line& line, GrantedTo to, Grants& grants) {
  PULGA_RETURN_IF_ERROR(
      WantWords(line, 3, "host-directory PATH read-only|read-write [owner=UID[:GID]]"));
  if (!IsCleanPath(line.words[1]) || line.words[1] == "/") {
    return Bad(Quoted(line.words[1]) + " is no absolute path of a directory but the root");
  }
  if (line.words[2] != "read-only" && line.words[2] != "read-write") {
    return Bad(Quoted(line.words[2]) + " is neither read-only nor read-write");
  }
  const auto use =
      line.words[2] == "read-only" ? HostDirectoryUse::kReadOnly : HostDirectoryUse::kReadWrite;
  HostDirectoryGrant grant{line.words[1], use, std::move(to)};
  if (const auto owner = line.options.find("owner"); owner != line.options.end()) {
    PULGA_ASSIGN_OR_RETURN(grant.owner, ParseOwner(owner->second, use));
  }
  grants.host_directories.push_back(std::move(grant));
  return OkStatus();
}

Status AddDevice(const Line& line, GrantedTo to, Grants& grants) {
  PULGA_RETURN_IF_ERROR(WantWords(line, 3, "device NAME /dev/PATH [lease=exclusive|shared]"));
  if (!IsPlainName(line.words[1])) return Bad(Quoted(line.words[1]) + " is no name of a grant");
  PULGA_ASSIGN_OR_RETURN(const DeviceRequest device,
                         ParseDevice(line.words[1] + ":" + line.words[2]));
  DeviceGrant grant{device.name, device.path, LeaseKind::kExclusive, std::move(to)};
  const auto lease = line.options.find("lease");
  if (lease != line.options.end()) {
    if (lease->second != "exclusive" && lease->second != "shared") {
      return Bad(Quoted(lease->second) + " is no lease: exclusive or shared");
    }
    if (lease->second == "shared") grant.lease = LeaseKind::kShared;
  }
  grants.devices.push_back(std::move(grant));
  return OkStatus();
}

Status AddLine(std::string_view text, size_t number, Grants& grants) {
  PULGA_ASSIGN_OR_RETURN(Line line, TakeApart(text));
  line.number = number;
  const std::string kind = line.words.empty() ? "" : line.words[0];
  if (kind != "device" && line.options.contains("lease")) return Bad("only devices are leased");
  if (kind != "host-directory" && line.options.contains("owner")) {
    return Bad("only host directories have owners");
  }
  struct Kind {
    const char* name;
    Status (*add)(const Line& line, GrantedTo to, Grants& grants);
  };
  for (const Kind& known :
       {Kind{"capability", &AddCapability}, Kind{"network", &AddNetwork},
        Kind{"host-directory", &AddHostDirectory}, Kind{"device", &AddDevice}}) {
    if (kind != known.name) continue;
    PULGA_ASSIGN_OR_RETURN(GrantedTo to, ParseFunctions(line));
    return known.add(line, std::move(to), grants);
  }
  return Bad(Quoted(kind) + " is not one of capability, network, host-directory, device");
}

// Who may write it decides who grants. A directory with the sticky bit lets nobody replace what is
// root's in it.
Status CheckOnlyRootWrites(int fd, const std::string& path) {
  struct stat st = {};
  if (fstat(fd, &st) != 0) return LastError("stat " + path);
  const auto refuse = [&](const char* why) {
    return Error{Code::kPermission, 0, path + ": " + why};
  };
  if (st.st_uid != 0) return refuse("is not owned by root");
  const bool sticky = S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX) != 0;
  if ((st.st_mode & 0022) != 0 && !sticky) {
    return refuse("can be written by others than root (chmod go-w)");
  }
  return OkStatus();
}

Result<UniqueFd> OpenPart(int dir, const std::string& name, const std::string& path, int flags) {
  UniqueFd fd(PULGA_SYS(openat, dir, name.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (fd.valid()) return fd;
  if (errno == ELOOP || errno == ENOTDIR) {
    return Error{Code::kPermission, errno, path + ": is a symlink or no directory"};
  }
  return LastError("open " + path);
}

}  // namespace

GrantsText ParseGrants(std::string_view text) {
  GrantsText out;
  size_t number = 0;
  for (const std::string_view raw : Split(text, '\n')) {
    ++number;
    const std::string_view line = Trim(raw.substr(0, raw.find('#')));
    if (line.empty()) continue;
    const Status added = AddLine(line, number, out.grants);
    if (added.ok()) {
      out.lines.push_back({number, std::string(line)});
    } else if (out.problems.size() < kMaxProblems) {
      out.problems.push_back({number, added.error().message});
    }
  }
  return out;
}

Grants GrantsOf(const std::vector<GrantLine>& lines) {
  std::string text;
  size_t at = 1;
  for (const GrantLine& line : lines) {
    if (line.number < at || line.number > kMaxGrantsBytes) continue;
    text.append(line.number - at, '\n');
    text += line.text;
    at = line.number;
  }
  return ParseGrants(text).grants;
}

Result<GrantsText> ReadGrants(const std::string& path) {
  if (!IsCleanPath(path) || path == "/") return Bad(Quoted(path) + " is no absolute path");
  PULGA_ASSIGN_OR_RETURN(UniqueFd at, OpenFile("/", O_RDONLY | O_DIRECTORY));
  Status trusted = CheckOnlyRootWrites(at.get(), "/");
  const auto parts = Split(std::string_view(path).substr(1), '/');
  std::string sofar;
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    sofar += "/" + std::string(parts[i]);
    PULGA_ASSIGN_OR_RETURN(at, OpenPart(at.get(), std::string(parts[i]), sofar,
                                        last ? O_RDONLY : O_RDONLY | O_DIRECTORY));
    if (trusted.ok()) trusted = CheckOnlyRootWrites(at.get(), sofar);
  }
  // A file that is not there is no matter of trust.
  PULGA_RETURN_IF_ERROR(std::move(trusted));
  struct stat st = {};
  if (fstat(at.get(), &st) != 0) return LastError("stat " + path);
  if (!S_ISREG(st.st_mode)) return Error{Code::kPermission, 0, path + ": is no regular file"};
  auto text = ReadFd(at.get(), kMaxGrantsBytes);
  if (!text.ok()) return Prefix(path, text.error());
  return ParseGrants(*text);
}

}  // namespace pulga
