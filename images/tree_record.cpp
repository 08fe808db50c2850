#include "images/tree_record.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/text.h"
#include "images/content_sum.h"
#include "images/layer_path.h"

namespace pulga {
namespace {

constexpr size_t kMaxNamesBytes = 8 << 20;
constexpr uint64_t kEndOfDirectory = 0;  // where an entry's name length would stand

// What is compared of one name.
struct Attributes {
  uint64_t mode = 0;  // with the type
  uint64_t uid = 0;
  uint64_t gid = 0;
  uint64_t seconds = 0;
  uint64_t nanoseconds = 0;
  uint64_t size = 0;    // regular files
  uint64_t device = 0;  // whiteouts
  uint64_t xattrs = 0;  // sum over names and values; 0 without any
  std::string target;   // symbolic links

  bool is_directory() const { return S_ISDIR(static_cast<mode_t>(mode)); }
};

void Write(const Attributes& from, RecordWriter& to) {
  for (const uint64_t value : {from.mode, from.uid, from.gid, from.seconds, from.nanoseconds,
                               from.size, from.device, from.xattrs}) {
    to.PutNumber(value);
  }
  to.PutText(from.target);
}

Result<Attributes> ReadAttributes(RecordReader& from) {
  Attributes to;
  for (uint64_t* value : {&to.mode, &to.uid, &to.gid, &to.seconds, &to.nanoseconds, &to.size,
                          &to.device, &to.xattrs}) {
    PULGA_ASSIGN_OR_RETURN(*value, from.Number());
  }
  PULGA_ASSIGN_OR_RETURN(to.target, from.Text());
  return to;
}

// Nothing when they are alike.
const char* DifferenceOf(const Attributes& was, const Attributes& is) {
  if (((was.mode ^ is.mode) & S_IFMT) != 0) return "type";
  if (was.mode != is.mode) return "mode";
  if (was.uid != is.uid || was.gid != is.gid) return "owner";
  if (was.size != is.size) return "size";
  if (was.target != is.target) return "link target";
  if (was.device != is.device) return "device";
  if (was.xattrs != is.xattrs) return "extended attributes";
  if (was.seconds != is.seconds || was.nanoseconds != is.nanoseconds) return "modification time";
  return nullptr;
}

// Of a name in the working directory.
uint64_t SumXattrs(const char* name) {
  char names[4096];
  const ssize_t size = llistxattr(name, names, sizeof names);
  if (size <= 0) return size == 0 || errno == ENOTSUP ? 0 : static_cast<uint64_t>(errno);
  std::vector<std::string> sorted;
  for (const char* at = names; at < names + size; at += sorted.back().size() + 1) {
    sorted.emplace_back(at);
  }
  // Others are the host's business: labels and the like.
  std::erase_if(sorted, [](const std::string& xattr) { return !xattr.starts_with("user."); });
  if (sorted.empty()) return 0;
  std::sort(sorted.begin(), sorted.end());
  ContentSum sum;
  std::string value(65536, '\0');
  for (const std::string& xattr : sorted) {
    const ssize_t n = lgetxattr(name, xattr.c_str(), value.data(), value.size());
    sum.Update(std::string_view(xattr.c_str(), xattr.size() + 1));
    sum.Update(std::string_view(value).substr(0, static_cast<size_t>(std::max<ssize_t>(n, 0))));
  }
  return sum.Finish();
}

Result<Attributes> Look(const char* name, struct stat* st) {
  if (fstatat(AT_FDCWD, name, st, AT_SYMLINK_NOFOLLOW) != 0) {
    return LastError("stat " + Printable(name, 200));
  }
  Attributes out;
  out.mode = st->st_mode;
  out.uid = st->st_uid;
  out.gid = st->st_gid;
  out.seconds = static_cast<uint64_t>(st->st_mtim.tv_sec);
  out.nanoseconds = static_cast<uint64_t>(st->st_mtim.tv_nsec);
  if (S_ISREG(st->st_mode)) out.size = static_cast<uint64_t>(st->st_size);
  if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) out.device = st->st_rdev;
  if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) out.xattrs = SumXattrs(name);
  if (S_ISLNK(st->st_mode)) {
    char buffer[kMaxPathBytes + 1];
    const ssize_t n = readlinkat(AT_FDCWD, name, buffer, sizeof buffer);
    if (n < 0) return LastError("read link " + Printable(name, 200));
    out.target.assign(buffer, static_cast<size_t>(n));
  }
  return out;
}

// The walk both sides share: a directory at a time, names in byte order, the working directory
// going along.
class Walk {
 public:
  Status Enter(int dir_fd);
  // The next name of the innermost directory; nullptr at its end.
  const char* Peek() const {
    const Level& level = levels_.back();
    return level.next < level.order.size() ? level.names.data() + level.order[level.next] : nullptr;
  }
  void Pop() { ++levels_.back().next; }
  Status Descend(const std::string& name);
  Status Ascend();
  size_t depth() const { return levels_.size(); }
  std::string PathOf(const std::string& name) const { return path_ + name; }

 private:
  struct Level {
    std::string names;  // each with its NUL
    std::vector<uint32_t> order;
    size_t next = 0;
    size_t path_size = 0;
    size_t bytes() const { return names.capacity() + order.capacity() * sizeof(uint32_t); }
  };
  Result<Level> ReadHere();

  std::vector<Level> levels_;
  std::string path_;  // of the innermost directory, with '/' at its end
  size_t held_bytes_ = 0;
};

Result<Walk::Level> Walk::ReadHere() {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir("."), closedir);
  if (dir == nullptr) return LastError("read " + Printable(path_, 200));
  Level level;
  level.path_size = path_.size();
  while (const dirent* entry = readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    level.order.push_back(static_cast<uint32_t>(level.names.size()));
    level.names.append(name.data(), name.size() + 1);
    if (held_bytes_ + level.bytes() > kMaxNamesBytes) {
      return Error{Code::kTooLarge, 0, Printable(path_, 200) + ": too many names in a directory"};
    }
  }
  std::sort(level.order.begin(), level.order.end(), [&](uint32_t a, uint32_t b) {
    return std::string_view(level.names.data() + a) < std::string_view(level.names.data() + b);
  });
  return level;
}

Status Walk::Enter(int dir_fd) {
  if (fchdir(dir_fd) != 0) return LastError("enter the layer");
  PULGA_ASSIGN_OR_RETURN(Level level, ReadHere());
  levels_.push_back(std::move(level));
  return OkStatus();
}

Status Walk::Descend(const std::string& name) {
  const UniqueFd dir(open(name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!dir.valid() || fchdir(dir.get()) != 0) return LastError("open " + Printable(name, 200));
  path_ += name;
  path_ += '/';
  held_bytes_ += levels_.back().bytes();
  PULGA_ASSIGN_OR_RETURN(Level level, ReadHere());
  levels_.push_back(std::move(level));
  return OkStatus();
}

Status Walk::Ascend() {
  if (levels_.size() == 1) {  // never above the layer
    levels_.clear();
    return OkStatus();
  }
  const UniqueFd up(open("..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!up.valid() || fchdir(up.get()) != 0) return LastError("leave " + Printable(path_, 200));
  levels_.pop_back();
  held_bytes_ -= levels_.back().bytes();
  path_.resize(levels_.back().path_size);
  return OkStatus();
}

// Shares of files with several names, in 2^-20 bytes, so that each file counts once.
class DiskUse {
 public:
  void Add(const struct stat& st) {
    const uint64_t bytes = static_cast<uint64_t>(st.st_blocks) * 512;
    const uint64_t links = S_ISDIR(st.st_mode) ? 1 : std::max<uint64_t>(st.st_nlink, 1);
    sum_ += (bytes << 20) / links;
  }
  uint64_t bytes() const { return (sum_ + (1 << 19)) >> 20; }

 private:
  uint64_t sum_ = 0;
};

class Comparer {
 public:
  Comparer(int layer_fd, RecordReader& record) : layer_fd_(layer_fd), record_(record) {}
  Result<TreeComparison> Run();

 private:
  // The record's next name in this directory; "" at its end.
  Status ReadName();
  Status CompareName();
  Status SkipRecorded();
  void Differ(const std::string& path, const char* what) {
    ++result_.count;
    if (result_.differences.size() < kMaxDifferences) result_.differences.push_back({path, what});
  }

  int layer_fd_;
  RecordReader& record_;
  Walk walk_;
  std::string name_;
  TreeComparison result_;
};

Status Comparer::ReadName() {
  PULGA_ASSIGN_OR_RETURN(name_, record_.Text());
  return OkStatus();
}

// Behind the attributes of a recorded directory: all that lies in it.
Status Comparer::SkipRecorded() {
  for (size_t depth = 1; depth > 0;) {
    PULGA_ASSIGN_OR_RETURN(const std::string name, record_.Text());
    if (name.empty()) {
      --depth;
      continue;
    }
    PULGA_ASSIGN_OR_RETURN(const Attributes was, ReadAttributes(record_));
    if (was.is_directory()) ++depth;
  }
  return OkStatus();
}

Status Comparer::CompareName() {
  const char* here = walk_.Peek();
  const int order = here == nullptr ? 1
                    : name_.empty() ? -1
                                    : std::string_view(here).compare(name_);
  if (order < 0) {
    Differ(walk_.PathOf(here), "added");
    walk_.Pop();
    return OkStatus();
  }
  PULGA_ASSIGN_OR_RETURN(const Attributes was, ReadAttributes(record_));
  if (order > 0) {
    Differ(walk_.PathOf(name_), "missing");
    if (was.is_directory()) PULGA_RETURN_IF_ERROR(SkipRecorded());
    return ReadName();
  }
  const std::string name = std::exchange(name_, {});
  struct stat st = {};
  PULGA_ASSIGN_OR_RETURN(const Attributes is, Look(name.c_str(), &st));
  if (const char* what = DifferenceOf(was, is)) Differ(walk_.PathOf(name), what);
  walk_.Pop();
  if (was.is_directory() && is.is_directory()) {
    PULGA_RETURN_IF_ERROR(walk_.Descend(name));
  } else if (was.is_directory()) {
    PULGA_RETURN_IF_ERROR(SkipRecorded());
  }
  return ReadName();
}

Result<TreeComparison> Comparer::Run() {
  PULGA_RETURN_IF_ERROR(walk_.Enter(layer_fd_));
  PULGA_ASSIGN_OR_RETURN(const Attributes was, ReadAttributes(record_));
  struct stat st = {};
  PULGA_ASSIGN_OR_RETURN(const Attributes is, Look(".", &st));
  if (const char* what = DifferenceOf(was, is)) Differ(".", what);
  PULGA_RETURN_IF_ERROR(ReadName());
  while (true) {
    if (walk_.Peek() != nullptr || !name_.empty()) {
      PULGA_RETURN_IF_ERROR(CompareName());
      continue;
    }
    PULGA_RETURN_IF_ERROR(walk_.Ascend());
    if (walk_.depth() == 0) return std::move(result_);
    PULGA_RETURN_IF_ERROR(ReadName());
  }
}

}  // namespace

Result<TreeTotals> RecordTree(int layer_fd, RecordWriter& record) {
  Walk walk;
  TreeTotals totals;
  DiskUse disk;
  struct stat st = {};
  PULGA_RETURN_IF_ERROR(walk.Enter(layer_fd));
  PULGA_ASSIGN_OR_RETURN(const Attributes root, Look(".", &st));
  Write(root, record);
  disk.Add(st);
  while (walk.depth() > 0) {
    if (walk.Peek() == nullptr) {
      record.PutNumber(kEndOfDirectory);
      PULGA_RETURN_IF_ERROR(walk.Ascend());
      continue;
    }
    const std::string name = walk.Peek();
    walk.Pop();
    PULGA_ASSIGN_OR_RETURN(const Attributes attributes, Look(name.c_str(), &st));
    record.PutText(name);
    Write(attributes, record);
    disk.Add(st);
    ++totals.names;
    if (attributes.is_directory()) PULGA_RETURN_IF_ERROR(walk.Descend(name));
  }
  totals.disk_bytes = disk.bytes();
  return totals;
}

Result<TreeComparison> CompareTree(int layer_fd, RecordReader& record) {
  return Comparer(layer_fd, record).Run();
}

}  // namespace pulga
