#include "runtime/daemon/data_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "base/file_io.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/own_file.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kPasswordCharacters = 63;

// A rootless daemon's: it is the user's, who is another id, and open to our group, which nobody
// else is in. Who may not enter it cannot open what is in it, whatever a file's own mode.
bool IsSharedWithItsUser(const struct stat& dir) {
  return dir.st_uid != geteuid() && dir.st_gid == getegid() && (dir.st_mode & 0077) == 0070;
}

Result<bool> IsShared(const std::string& data_dir) {
  struct stat dir = {};
  if (stat(data_dir.c_str(), &dir) != 0) return LastError("stat " + data_dir);
  return IsSharedWithItsUser(dir);
}

// The file's only line. It gets `mode`, and is made where it is missing.
Result<std::string> LoadLine(const std::string& path, mode_t mode,
                             const std::function<std::string()>& make) {
  const auto file = OpenOwnFile(path, mode);
  if (!file.ok() && file.error().code == Code::kNotFound) {
    std::string line = make();
    PULGA_RETURN_IF_ERROR(WriteFileDurably(path, line, mode));
    LogInfo("made a new " + path.substr(path.rfind('/') + 1));
    return line;
  }
  if (!file.ok()) return file.error();
  PULGA_ASSIGN_OR_RETURN(std::string line, ReadFd(file->get(), 4096));
  while (!line.empty() && std::string_view("\r\n ").find(line.back()) != std::string_view::npos) {
    line.pop_back();
  }
  return line;
}

// As many characters of letters and digits, each as likely as another.
std::string RandomPassword(size_t size) {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  constexpr size_t kFair = 256 / kAlphabet.size() * kAlphabet.size();
  std::string password;
  while (password.size() < size) {
    unsigned char byte = 0;
    FillRandom(&byte, 1);
    if (byte < kFair) password += kAlphabet[byte % kAlphabet.size()];
  }
  return password;
}

bool IsLeftover(std::string_view name) {
  return name.substr(0, 5) == ".tmp-" || name == "admin.key.new" || name == "secrets.key.new";
}

}  // namespace

Status PrepareDataDir(const std::string& data_dir) {
  PULGA_RETURN_IF_ERROR(MakeDirs(data_dir, 0700));
  PULGA_ASSIGN_OR_RETURN(const UniqueFd dir,
                         OpenFile(data_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  struct stat st = {};
  if (fstat(dir.get(), &st) != 0) return LastError("stat " + data_dir);
  if (IsSharedWithItsUser(st)) return OkStatus();
  if (st.st_uid != geteuid()) {
    return Error{Code::kPermission, 0,
                 data_dir +
                     " belongs to another user: start with 'pulga serve' as root, or "
                     "chown it"};
  }
  if ((st.st_mode & 0077) != 0 && fchmod(dir.get(), 0700) != 0) {
    return LastError("chmod " + data_dir);
  }
  return OkStatus();
}

void RemoveLeftovers(const std::string& data_dir) {
  auto fd = OpenFile(data_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!fd.ok()) return;
  DIR* dir = fdopendir(fd->get());
  if (dir == nullptr) return;
  const int dir_fd = fd->Release();  // closedir closes it
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir)) {
    if (IsLeftover(entry->d_name)) names.emplace_back(entry->d_name);
  }
  for (const std::string& name : names) {
    if (unlinkat(dir_fd, name.c_str(), 0) == 0) LogInfo("removed leftover " + Printable(name));
  }
  closedir(dir);
}

Result<std::string> LoadAdminKey(const std::string& data_dir) {
  const std::string path = data_dir + "/admin.key";
  PULGA_ASSIGN_OR_RETURN(const bool shared, IsShared(data_dir));
  PULGA_ASSIGN_OR_RETURN(const std::string key,
                         LoadLine(path, shared ? 0604 : 0600, [] { return RandomHex(kKeyBytes); }));
  const bool sound = key.size() == 2 * kKeyBytes && HexDecode(key).has_value();
  if (sound) return key;
  return Error{Code::kIo, 0,
               path + ": 64 hex digits are expected; remove the file to have a new key made"};
}

Result<BasicLogin> LoadGatewayLogin(const std::string& data_dir) {
  const std::string dir = data_dir + "/secrets/";
  PULGA_ASSIGN_OR_RETURN(const bool shared, IsShared(data_dir));
  PULGA_RETURN_IF_ERROR(MakeDirs(data_dir + "/secrets", shared ? 0705 : 0700));
  const mode_t mode = shared ? 0604 : 0600;
  BasicLogin login;
  PULGA_ASSIGN_OR_RETURN(login.user,
                         LoadLine(dir + "basic-auth-user", mode, [] { return "admin"; }));
  PULGA_ASSIGN_OR_RETURN(login.password, LoadLine(dir + "basic-auth-password", mode, [] {
                           return RandomPassword(kPasswordCharacters);
                         }));
  if (login.user.find(':') == std::string::npos && !login.user.empty() && !login.password.empty()) {
    return login;
  }
  return Error{Code::kIo, 0,
               dir +
                   "basic-auth-user, basic-auth-password: a name without \":\" and a password are "
                   "expected; remove the files to have new ones made"};
}

}  // namespace pulga
