#include "images/tree_list.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_io.h"
#include "base/text.h"
#include "images/digest.h"
#include "images/layer_path.h"

namespace pulga {
namespace {

constexpr size_t kMaxNamesBytes = 8 << 20;
constexpr size_t kMaxKnownSums = 4096;

enum class Listing { kTree, kSums };

// What is to print of one name: itself, or what lies below it.
struct Item {
  uint32_t offset;
  uint16_t size;
  char end;  // '/': below it; '|': itself in a tree; '\0': itself in sums
};

// One directory on the way down, its items in the order they print.
struct Level {
  std::string names;
  std::vector<Item> items;
  size_t next = 0;
  size_t path_size = 0;  // of the directory's own path

  std::string_view Name(const Item& item) const {
    return std::string_view(names).substr(item.offset, item.size);
  }
  size_t bytes() const { return names.capacity() + items.capacity() * sizeof(Item); }
};

class Lister {
 public:
  Lister(Listing listing, int output_fd) : listing_(listing), output_fd_(output_fd) {}
  Status Run(int root_fd);

 private:
  Result<Level> ReadLevel(int dir_fd);
  Status PrintItem(const std::string& name);
  Status PrintTreeLine(const std::string& name, const struct stat& st);
  Status PrintSumLine(const std::string& name, const struct stat& st);
  Result<std::string> SumOf(const std::string& name, const struct stat& st);
  Status Print(std::string_view line);
  Status Flush();
  Status Descend(const std::string& name);
  Status Ascend();

  Listing listing_;
  int output_fd_;
  UniqueFd dir_;      // the deepest level's
  std::string path_;  // its path
  std::vector<Level> levels_;
  size_t held_bytes_ = 0;
  std::string out_;
  std::map<std::pair<dev_t, ino_t>, std::string> sums_;  // of files with several names
};

char TypeLetter(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return 'f';
    case S_IFDIR:
      return 'd';
    case S_IFLNK:
      return 'l';
    case S_IFIFO:
      return 'p';
    case S_IFSOCK:
      return 's';
    case S_IFCHR:
      return 'c';
    default:
      return 'b';
  }
}

std::string EscapeField(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f && c != '\\' && c != '|') {
      out += c;
    } else {
      char escaped[8];
      snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      out += escaped;
    }
  }
  return out;
}

bool IsDirectory(int dir_fd, const dirent& entry) {
  if (entry.d_type != DT_UNKNOWN) return entry.d_type == DT_DIR;
  struct stat st = {};
  return fstatat(dir_fd, entry.d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

Result<Level> Lister::ReadLevel(int dir_fd) {
  UniqueFd copy(openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy.valid()) return LastError("open " + Printable(path_, 200));
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(fdopendir(copy.get()), closedir);
  if (dir == nullptr) return LastError("read " + Printable(path_, 200));
  (void)copy.Release();
  Level level;
  level.path_size = path_.size();
  const char self = listing_ == Listing::kTree ? '|' : '\0';
  while (const dirent* entry = readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    const auto offset = static_cast<uint32_t>(level.names.size());
    const auto size = static_cast<uint16_t>(name.size());
    level.names += name;
    const bool is_dir = IsDirectory(dir_fd, *entry);
    if (is_dir) level.items.push_back({offset, size, '/'});
    if (!is_dir || listing_ == Listing::kTree) level.items.push_back({offset, size, self});
    if (held_bytes_ + level.bytes() > kMaxNamesBytes) {
      return Error{Code::kTooLarge, 0, Printable(path_, 200) + ": too many names in a directory"};
    }
  }
  std::sort(level.items.begin(), level.items.end(), [&](const Item& a, const Item& b) {
    const std::string_view x = level.Name(a);
    const std::string_view y = level.Name(b);
    const size_t common = std::min(x.size(), y.size());
    const int order = x.compare(0, common, y, 0, common);
    if (order != 0) return order < 0;
    const auto after = [common](std::string_view name, char end) {
      return static_cast<unsigned char>(common < name.size() ? name[common] : end);
    };
    return after(x, a.end) < after(y, b.end);
  });
  return level;
}

Status Lister::Run(int root_fd) {
  dir_ = UniqueFd(openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir_.valid()) return LastError("open the root");
  PULGA_ASSIGN_OR_RETURN(Level root, ReadLevel(dir_.get()));
  levels_.push_back(std::move(root));
  while (true) {
    Level& level = levels_.back();
    if (level.next == level.items.size()) {
      if (levels_.size() == 1) return Flush();
      PULGA_RETURN_IF_ERROR(Ascend());
      continue;
    }
    const Item item = level.items[level.next++];
    const std::string name(level.Name(item));
    PULGA_RETURN_IF_ERROR(item.end == '/' ? Descend(name) : PrintItem(name));
  }
}

Status Lister::Descend(const std::string& name) {
  UniqueFd sub(openat(dir_.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!sub.valid()) return LastError("open " + Printable(path_ + name, 200));
  path_ += name;
  path_ += '/';
  held_bytes_ += levels_.back().bytes();
  PULGA_ASSIGN_OR_RETURN(Level level, ReadLevel(sub.get()));
  levels_.push_back(std::move(level));
  dir_ = std::move(sub);
  return OkStatus();
}

Status Lister::Ascend() {
  UniqueFd up(openat(dir_.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!up.valid()) return LastError("open the parent of " + Printable(path_, 200));
  levels_.pop_back();
  held_bytes_ -= levels_.back().bytes();
  path_.resize(levels_.back().path_size);
  dir_ = std::move(up);
  return OkStatus();
}

Status Lister::PrintItem(const std::string& name) {
  struct stat st = {};
  if (fstatat(dir_.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    return LastError("stat " + Printable(path_ + name, 200));
  }
  if (listing_ == Listing::kTree) return PrintTreeLine(name, st);
  return S_ISREG(st.st_mode) ? PrintSumLine(name, st) : OkStatus();
}

Status Lister::PrintTreeLine(const std::string& name, const struct stat& st) {
  std::string target;
  if (S_ISLNK(st.st_mode)) {
    char buffer[kMaxPathBytes + 1];
    const ssize_t n = readlinkat(dir_.get(), name.c_str(), buffer, sizeof buffer);
    if (n < 0) return LastError("read link " + Printable(path_ + name, 200));
    target.assign(buffer, static_cast<size_t>(n));
  }
  char fields[64];
  snprintf(fields, sizeof fields, "|%c|%o|%u:%u|", TypeLetter(st.st_mode), st.st_mode & 07777,
           st.st_uid, st.st_gid);
  return Print(EscapeField(path_ + name) + fields + EscapeField(target) + "\n");
}

Status Lister::PrintSumLine(const std::string& name, const struct stat& st) {
  PULGA_ASSIGN_OR_RETURN(const std::string sum, SumOf(name, st));
  std::string shown;
  bool escaped = false;
  for (const char c : path_ + name) {
    escaped = escaped || c == '\\' || c == '\n' || c == '\r';
    if (c == '\\')
      shown += "\\\\";
    else if (c == '\n')
      shown += "\\n";
    else if (c == '\r')
      shown += "\\r";
    else
      shown += c;
  }
  return Print((escaped ? "\\" : "") + sum + "  ./" + shown + "\n");
}

Result<std::string> Lister::SumOf(const std::string& name, const struct stat& st) {
  const auto key = std::make_pair(st.st_dev, st.st_ino);
  const auto known = sums_.find(key);
  if (st.st_nlink > 1 && known != sums_.end()) return known->second;
  UniqueFd fd(openat(dir_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return LastError("open " + Printable(path_ + name, 200));
  Hasher hasher(DigestAlgorithm::kSha256);
  char buffer[32768];
  while (true) {
    const ssize_t n = read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LastError("read " + Printable(path_ + name, 200));
    if (n == 0) break;
    hasher.Update({buffer, static_cast<size_t>(n)});
  }
  std::string hex = hasher.Finish().hex;
  if (st.st_nlink > 1 && sums_.size() < kMaxKnownSums) sums_[key] = hex;
  return hex;
}

Status Lister::Print(std::string_view line) {
  out_ += line;
  return out_.size() < 32768 ? OkStatus() : Flush();
}

Status Lister::Flush() {
  const Status written = WriteAll(output_fd_, out_);
  out_.clear();
  return written;
}

}  // namespace

Status ListTree(int root_fd, int output_fd) {
  return Lister(Listing::kTree, output_fd).Run(root_fd);
}

Status ListSums(int root_fd, int output_fd) {
  return Lister(Listing::kSums, output_fd).Run(root_fd);
}

}  // namespace pulga
