#include "sandbox/user_lookup.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"

namespace pulga {
namespace {

struct Lookup {
  std::string_view text;
  std::string_view problem;
  std::string_view file;  // "/etc/passwd"
};

Error BadUser(std::string_view spec, const std::string& problem) {
  return Error{Code::kInvalidArgument, 0, "user \"" + Printable(spec, 64) + "\": " + problem};
}

// What could be meant as a number must be a clean one: "0x0", "00" or "-1" become neither a name
// that might exist nor an id that wraps to 0. "3proxy" is a name.
bool LooksNumeric(std::string_view part) {
  if (part[0] == '-' || part[0] == '+' || part[0] == '0') return true;
  return part.find_first_not_of("0123456789") == std::string_view::npos;
}

std::optional<uint32_t> ParseId(std::string_view part) {
  if (part.size() > 1 && part[0] == '0') return std::nullopt;  // "00", octal, hexadecimal
  const auto id = ParseUint(part, kMaxUserId);
  if (!id) return std::nullopt;
  return static_cast<uint32_t>(*id);
}

std::string IdProblem(std::string_view part) {
  return "\"" + Printable(part, 32) + "\" is not an id from 0 to " + std::to_string(kMaxUserId);
}

std::string NameProblem(std::string_view name, const Lookup& in) {
  std::string text = "\"" + Printable(name, 32) + "\" ";
  if (!in.problem.empty()) {
    return text + "cannot be looked up: the image's " + std::string(in.file) + " " +
           std::string(in.problem);
  }
  return text + "is not in the image's " + std::string(in.file);
}

bool IsCleanName(std::string_view name) {
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return c > ' ' && c != ':' && c != ',' && c != 0x7f; });
}

// The lines of a passwd or group file with at least `fields` fields.
class Lines {
 public:
  Lines(std::string_view text, size_t fields) : rest_(text), fields_(fields) {}
  bool Next(std::vector<std::string_view>& out) {
    while (!rest_.empty()) {
      const size_t end = rest_.find('\n');
      out = Split(rest_.substr(0, end), ':');
      rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
      if (out.size() >= fields_) return true;
    }
    return false;
  }

 private:
  std::string_view rest_;
  size_t fields_;
};

struct PasswdEntry {
  std::string name;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::string home;
};

// By name, or by id where `name` is empty. Lines with ids out of range are skipped.
std::optional<PasswdEntry> FindPasswd(std::string_view text, std::string_view name, uint32_t uid) {
  Lines lines(text, 6);
  std::vector<std::string_view> fields;
  while (lines.Next(fields)) {
    const auto line_uid = ParseId(fields[2]);
    const auto line_gid = ParseId(fields[3]);
    if (!line_uid || !line_gid) continue;
    if (name.empty() ? *line_uid != uid : fields[0] != name) continue;
    return PasswdEntry{std::string(fields[0]), *line_uid, *line_gid, std::string(fields[5])};
  }
  return std::nullopt;
}

std::optional<uint32_t> FindGroup(std::string_view text, std::string_view name) {
  Lines lines(text, 3);
  std::vector<std::string_view> fields;
  while (lines.Next(fields)) {
    const auto gid = ParseId(fields[2]);
    if (gid && fields[0] == name) return gid;
  }
  return std::nullopt;
}

// Groups that list `user` as a member.
std::vector<gid_t> GroupsOf(std::string_view text, std::string_view user) {
  std::vector<gid_t> groups;
  Lines lines(text, 4);
  std::vector<std::string_view> fields;
  while (groups.size() < kMaxUserGroups && lines.Next(fields)) {
    const auto gid = ParseId(fields[2]);
    if (!gid) continue;
    const auto members = Split(fields[3], ',');
    const bool member = std::find(members.begin(), members.end(), user) != members.end();
    const bool known = std::find(groups.begin(), groups.end(), *gid) != groups.end();
    if (member && !known) groups.push_back(*gid);
  }
  return groups;
}

// Returns what is wrong with the user part, or "".
std::string ResolveUserPart(std::string_view part, const UserDatabase& database, ResolvedUser& user,
                            std::string& name) {
  std::optional<PasswdEntry> entry;
  if (LooksNumeric(part)) {
    const auto id = ParseId(part);
    if (!id) return IdProblem(part);
    user.uid = *id;
    entry = FindPasswd(database.passwd, "", *id);  // an id need not be listed
  } else {
    const Lookup in{database.passwd, database.passwd_problem, "/etc/passwd"};
    if (!IsCleanName(part)) return "\"" + Printable(part, 32) + "\" is not a user name or id";
    entry = FindPasswd(database.passwd, part, 0);
    if (!entry) return NameProblem(part, in);
    user.uid = entry->uid;
  }
  if (!entry) return "";
  user.gid = entry->gid;
  name = entry->name;
  if (entry->home.starts_with('/')) user.home = entry->home;
  return "";
}

std::string ResolveGroupPart(std::string_view part, const UserDatabase& database,
                             ResolvedUser& user) {
  std::optional<uint32_t> gid;
  if (LooksNumeric(part)) {
    gid = ParseId(part);
    if (!gid) return IdProblem(part);
  } else {
    const Lookup in{database.group, database.group_problem, "/etc/group"};
    if (!IsCleanName(part)) return "\"" + Printable(part, 32) + "\" is not a group name or id";
    gid = FindGroup(database.group, part);
    if (!gid) return NameProblem(part, in);
  }
  user.gid = *gid;
  return "";
}

void ReadTable(int root_fd, const char* path, std::string& text, std::string& problem) {
  const UniqueFd fd(PULGA_SYS(sys::OpenInRoot, root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  struct stat st = {};
  if (!fd.valid()) {
    if (errno != ENOENT && errno != ENOTDIR) problem = "cannot be opened";
    return;
  }
  if (fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) {
    problem = "is not a regular file";
    return;
  }
  auto content = ReadFd(fd.get(), kMaxUserFileBytes);
  if (content.ok()) {
    text = std::move(*content);
  } else {
    problem = content.error().code == Code::kTooLarge ? "is larger than 1 MiB" : "cannot be read";
  }
}

}  // namespace

Result<ResolvedUser> ResolveUser(std::string_view spec, const UserDatabase& database) {
  ResolvedUser user;
  const size_t colon = spec.find(':');
  const std::string_view user_part = spec.substr(0, colon);
  std::string name;
  if (spec.empty()) {
    // Docker's default is root of the container with its groups.
    (void)ResolveUserPart("0", database, user, name);
  } else {
    if (user_part.empty()) return BadUser(spec, "the part before the colon is empty");
    const std::string problem = ResolveUserPart(user_part, database, user, name);
    if (!problem.empty()) return BadUser(spec, problem);
  }
  if (colon == std::string_view::npos) {
    if (!name.empty()) user.groups = GroupsOf(database.group, name);
    return user;
  }
  const std::string_view group_part = spec.substr(colon + 1);
  if (group_part.empty()) return BadUser(spec, "the part after the colon is empty");
  const std::string problem = ResolveGroupPart(group_part, database, user);
  if (!problem.empty()) return BadUser(spec, problem);
  return user;
}

UserDatabase ReadUserDatabase(int root_fd) {
  UserDatabase database;
  ReadTable(root_fd, "etc/passwd", database.passwd, database.passwd_problem);
  ReadTable(root_fd, "etc/group", database.group, database.group_problem);
  return database;
}

}  // namespace pulga
