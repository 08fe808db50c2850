#include "images/layer_writer.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"
#include "images/tree_remove.h"

namespace pulga {
namespace {

constexpr uint32_t kNobody = 65534;
constexpr char kDir = 'd';                      // in names_
constexpr char kLinked = 'l';                   // the same
constexpr size_t kMaxHeldNames = 512 << 10;     // of directories, while their children are hidden
constexpr uint64_t kMaxHidden = 16'000'000;     // children that one layer's markers look at
constexpr uint64_t kEntryBytes = 8192;          // what an entry takes on disk beside its content
constexpr uint64_t kDirBytes = 4096;            // the same of a directory
constexpr int64_t kMaxTime = int64_t{1} << 33;  // the year 2242; ext4 ends in 2446

Error Refuse(std::string_view path, std::string_view why) {
  return {Code::kInvalidArgument, 0, Printable(path, 200) + ": " + std::string(why)};
}

// What failed and on which name of the layer.
Error Failed(const char* step, std::string_view path) {
  const int saved = errno;
  return ErrnoError(std::string(step) + " " + Printable(path, 200), saved);
}

std::string JoinPath(std::string_view dir, std::string_view leaf) {
  return dir.empty() ? std::string(leaf) : std::string(dir) + "/" + std::string(leaf);
}

Error TooMany(std::string_view path) {
  return {
      Code::kTooLarge, 0,
      Printable(path, 200) + ": more than " + std::to_string(NameSet::kMost) +
          " directories, and hard links to files of lower layers, in a layer that hides others"};
}

// A directory that is not empty stays; the one above keeps its time.
Status RemoveIfEmpty(int root_fd, const std::string& path) {
  const auto [above, leaf] = SplitPath(path);
  const std::string dir = above.empty() ? "." : std::string(above);
  const UniqueFd fd(sys::OpenBeneath(root_fd, dir.c_str(), O_RDONLY | O_DIRECTORY));
  if (!fd.valid()) return Failed("open", dir);
  const KeepDirTime keep(fd.get());
  if (unlinkat(fd.get(), std::string(leaf).c_str(), AT_REMOVEDIR) == 0) return OkStatus();
  return errno == ENOTEMPTY ? OkStatus() : Status(Failed("remove", path));
}

// What a directory of a lower layer, or an earlier member, said before it is named anew.
Status ClearXattrs(int fd, const std::string& path) {
  std::string names(XATTR_LIST_MAX, '\0');
  const ssize_t size = flistxattr(fd, names.data(), names.size());
  if (size < 0)
    return errno == EOPNOTSUPP ? OkStatus() : Status(Failed("list attributes of", path));
  names.resize(static_cast<size_t>(size));
  for (const std::string_view name : Split(names, '\0')) {
    if (!name.starts_with("user.") || name.starts_with("user.overlay.")) continue;
    if (fremovexattr(fd, std::string(name).c_str()) != 0) {
      return Failed("remove attributes of", path);
    }
  }
  return OkStatus();
}

timespec SaneTime(const timespec& time) {
  const bool sane = time.tv_sec >= 0 && time.tv_sec <= kMaxTime && time.tv_nsec >= 0 &&
                    time.tv_nsec < 1'000'000'000;
  return sane ? time : timespec{std::clamp<int64_t>(time.tv_sec, 0, kMaxTime), 0};
}

}  // namespace

LayerWriter::LayerWriter(const Target& target, UniqueFd times_file)
    : target_(target),
      reserve_(target.upper_fd >= 0 ? target.upper_fd : target.root_fd, target.reserve_bytes),
      walker_(target.root_fd, &reserve_),
      times_(std::move(times_file)) {}

Status LayerWriter::Apply(TarReader& tar) {
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const TarEntry* entry, tar.Next());
    if (entry == nullptr) break;
    if (++result_.entries > target_.max_entries) {
      return Error{Code::kTooLarge, 0,
                   "more than " + std::to_string(target_.max_entries) + " entries"};
    }
    // What its headers hold goes into attributes and into the record.
    const uint64_t read = target_.recorder != nullptr ? target_.recorder->stream_bytes() : 0;
    PULGA_RETURN_IF_ERROR(reserve_.Spend(kEntryBytes + (read - stream_spent_)));
    stream_spent_ = read;
    PULGA_RETURN_IF_ERROR(ApplyEntry(*entry, tar));
  }
  walker_.Forget();
  return times_.Apply(target_.root_fd);
}

Status LayerWriter::ApplyEntry(const TarEntry& entry, TarReader& tar) {
  PULGA_ASSIGN_OR_RETURN(const LayerPath name, ParseLayerPath(entry.name));
  switch (name.kind) {
    case EntryName::kMetadata:
      return OkStatus();
    case EntryName::kWhiteout:
      return HideLower(name.path);
    case EntryName::kOpaque: {
      if (target_.upper_fd < 0) return OkStatus();
      const auto dir = walker_.Resolve(name.path, RootWalker::Missing::kFail);
      if (!dir.ok()) return dir.error().code == Code::kNotFound ? OkStatus() : Status(dir.error());
      return HideLowerChildren(*dir);
    }
    case EntryName::kPlain:
      break;
  }
  if (entry.type == EntryType::kDevice) {
    ++result_.devices_skipped;
    return OkStatus();
  }
  if (entry.type == EntryType::kOther) return Refuse(entry.name, "an entry of unknown type");
  if (name.path.empty()) return ApplyRoot(entry);
  const auto [dir, leaf] = SplitPath(name.path);
  PULGA_ASSIGN_OR_RETURN(const auto parent, walker_.OpenDir(dir, RootWalker::Missing::kCreate));
  // Lower directories on the way are copied up.
  const auto depth = static_cast<uint64_t>(std::count(parent.dir.begin(), parent.dir.end(), '/'));
  PULGA_RETURN_IF_ERROR(reserve_.Spend(depth * kDirBytes));
  return Create(parent, std::string(leaf), entry, tar);
}

Status LayerWriter::ApplyRoot(const TarEntry& entry) {
  if (entry.type != EntryType::kDirectory) {
    return Refuse(entry.name, "the root must be a directory");
  }
  PULGA_ASSIGN_OR_RETURN(const auto root, walker_.OpenDir("", RootWalker::Missing::kFail));
  PULGA_RETURN_IF_ERROR(ClearXattrs(root.fd, entry.name));
  PULGA_RETURN_IF_ERROR(SetAttributes(root.fd, entry));
  return AddDir("", SaneTime(entry.mtime));
}

Status LayerWriter::AddDir(const std::string& resolved, const timespec& mtime) {
  if (target_.upper_fd >= 0 && !names_.Insert(kDir, resolved)) dirs_missing_ = true;
  return times_.Add(resolved, mtime);
}

// Made by this layer, not merely visible through it.
Result<bool> LayerWriter::IsOwn(const std::string& resolved) {
  struct stat st = {};
  if (fstatat(target_.upper_fd, resolved.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return false;
    return Failed("stat", resolved);
  }
  if (S_ISCHR(st.st_mode)) return false;  // a whiteout: this layer makes no other device
  if (!S_ISDIR(st.st_mode)) return !names_.Contains(kLinked, resolved);
  const bool named = names_.Contains(kDir, resolved);
  // Few are layers of so many directories, and none of them hides any; a guess would be a wrong
  // tree.
  if (!named && dirs_missing_) return TooMany(resolved);
  return named;
}

Status LayerWriter::HideLower(const std::string& path) {
  if (target_.upper_fd < 0) return OkStatus();
  const auto [dir, leaf_view] = SplitPath(path);
  const std::string leaf(leaf_view);
  const auto parent = walker_.OpenDir(dir, RootWalker::Missing::kFail);
  if (!parent.ok()) {
    return parent.error().code == Code::kNotFound ? OkStatus() : Status(parent.error());
  }
  struct stat st = {};
  if (fstatat(parent->fd, leaf.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? OkStatus() : Status(Failed("stat", path));
  }
  const std::string resolved = JoinPath(parent->dir, leaf);
  PULGA_ASSIGN_OR_RETURN(const bool own, IsOwn(resolved));
  struct stat in_upper = {};
  const bool in_both =
      fstatat(target_.upper_fd, resolved.c_str(), &in_upper, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISDIR(in_upper.st_mode) && S_ISDIR(st.st_mode);
  if (in_both) PULGA_RETURN_IF_ERROR(HideLowerChildren(resolved));
  if (own) return OkStatus();
  walker_.Forget();
  if (in_both) {
    // Gone unless this layer put something into it.
    return RemoveIfEmpty(target_.root_fd, resolved);
  }
  PULGA_ASSIGN_OR_RETURN(const auto again, walker_.OpenDir(dir, RootWalker::Missing::kFail));
  PULGA_RETURN_IF_ERROR(RemoveAll(again.fd, leaf));
  walker_.Forget();
  return OkStatus();
}

// Depth first, holding the names of one path of directories.
Status LayerWriter::HideLowerChildren(const std::string& resolved_dir) {
  struct Level {
    size_t path_size = 0;
    std::string names;  // of subdirectories, NUL behind each
    size_t next = 0;
  };
  walker_.Forget();
  std::string path = resolved_dir;
  size_t held = 0;
  std::vector<Level> levels;
  while (true) {
    PULGA_ASSIGN_OR_RETURN(std::string names, HideChildrenOf(path, kMaxHeldNames - held));
    held += names.size();
    levels.push_back({path.size(), std::move(names)});
    while (levels.back().next == levels.back().names.size()) {
      path.resize(levels.back().path_size);
      held -= levels.back().names.size();
      levels.pop_back();
      if (levels.empty()) return OkStatus();
      // A directory this layer only passed through and that is empty now was a lower one.
      PULGA_ASSIGN_OR_RETURN(const bool own, IsOwn(path));
      if (!own) (void)RemoveIfEmpty(target_.root_fd, path);
    }
    Level& level = levels.back();
    const std::string leaf = level.names.c_str() + level.next;
    level.next += leaf.size() + 1;
    path.resize(level.path_size);
    path = JoinPath(path, leaf);
  }
}

Result<std::string> LayerWriter::HideChildrenOf(const std::string& dir, size_t room) {
  const char* name = dir.empty() ? "." : dir.c_str();
  UniqueFd fd(sys::OpenBeneath(target_.root_fd, name, O_RDONLY | O_DIRECTORY));
  if (!fd.valid()) return Failed("open", dir);
  const UniqueFd upper(sys::OpenBeneath(target_.upper_fd, name, O_RDONLY | O_DIRECTORY));
  const KeepDirTime keep(fd.get());
  UniqueFd copy(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(fdopendir(copy.get()), closedir);
  if (stream == nullptr) return Failed("read", dir);
  (void)copy.Release();
  std::string dirs;
  while (const dirent* child = readdir(stream.get())) {
    const std::string leaf = child->d_name;
    if (leaf == "." || leaf == "..") continue;
    struct stat st = {};
    const bool in_upper =
        upper.valid() && fstatat(upper.get(), leaf.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (++hidden_ > kMaxHidden || leaf.size() >= room - dirs.size()) {
      return Error{Code::kTooLarge, 0,
                   "/" + Printable(dir, 200) + ": too many names to hide those of lower layers"};
    }
    if (in_upper && S_ISDIR(st.st_mode)) {
      dirs.append(leaf.c_str(), leaf.size() + 1);
    } else if (!in_upper || names_.Contains(kLinked, JoinPath(dir, leaf))) {
      PULGA_RETURN_IF_ERROR(RemoveAll(fd.get(), leaf));
    }
  }
  return dirs;
}

bool LayerWriter::IsInUpper(const std::string& resolved) const {
  struct stat st = {};
  return target_.upper_fd < 0 ||
         fstatat(target_.upper_fd, resolved.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
}

// A directory stays where a directory comes; everything else makes way.
Status LayerWriter::MakeRoom(const RootWalker::Parent& parent, const std::string& leaf,
                             EntryType type) {
  const std::string resolved = JoinPath(parent.dir, leaf);
  names_.Erase(kLinked, resolved);
  struct stat st = {};
  if (fstatat(parent.fd, leaf.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    return errno == ENOENT ? OkStatus() : Status(Failed("stat", leaf));
  }
  if (S_ISDIR(st.st_mode) && type == EntryType::kDirectory) return OkStatus();
  if (target_.recorder != nullptr && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)) &&
      IsInUpper(resolved)) {
    target_.recorder->Lost(resolved);
  }
  // `parent` may have been found through this very link: "l -> ." and then "l/l".
  if (!S_ISREG(st.st_mode)) walker_.Doubt();
  return RemoveAll(parent.fd, leaf);
}

Status LayerWriter::Create(const RootWalker::Parent& parent, const std::string& leaf,
                           const TarEntry& entry, TarReader& tar) {
  const std::string& path = entry.name;
  if (entry.type == EntryType::kHardLink) return MakeHardLink(parent, leaf, entry);
  PULGA_RETURN_IF_ERROR(MakeRoom(parent, leaf, entry.type));
  if (entry.type == EntryType::kFile) return WriteRegular(parent, leaf, entry, tar);
  const timespec times[2] = {SaneTime(entry.mtime), SaneTime(entry.mtime)};
  if (entry.type == EntryType::kDirectory) {
    const bool made = mkdirat(parent.fd, leaf.c_str(), 0700) == 0;
    if (!made && errno != EEXIST) return Failed("mkdir", path);
    UniqueFd fd(openat(parent.fd, leaf.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!fd.valid()) return Failed("open", path);
    if (!made) PULGA_RETURN_IF_ERROR(ClearXattrs(fd.get(), path));
    PULGA_RETURN_IF_ERROR(SetAttributes(fd.get(), entry));
    return AddDir(JoinPath(parent.dir, leaf), times[0]);
  }
  const auto [uid, gid] = Owner(entry);
  if (entry.type == EntryType::kSymlink) {
    if (entry.link_target.empty() || entry.link_target.size() > kMaxPathBytes) {
      return Refuse(path, "a symbolic link to an empty or too long target");
    }
    if (symlinkat(entry.link_target.c_str(), parent.fd, leaf.c_str()) != 0) {
      return Failed("symlink", path);
    }
  } else if (mkfifoat(parent.fd, leaf.c_str(), 0600) != 0) {
    return Failed("mkfifo", path);
  }
  if (fchownat(parent.fd, leaf.c_str(), uid, gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return Failed("chown", path);
  }
  if (entry.type == EntryType::kFifo && fchmodat(parent.fd, leaf.c_str(), entry.mode, 0) != 0) {
    return Failed("chmod", path);
  }
  if (utimensat(parent.fd, leaf.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
    return Failed("set times of", path);
  }
  return OkStatus();
}

Status LayerWriter::WriteRegular(const RootWalker::Parent& parent, const std::string& leaf,
                                 const TarEntry& entry, TarReader& tar) {
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  UniqueFd fd(openat(parent.fd, leaf.c_str(), flags, 0600));
  if (!fd.valid()) return Failed("create", entry.name);
  const Status written = WriteContent(fd.get(), JoinPath(parent.dir, leaf), entry, tar);
  if (!written.ok()) return Prefix("write " + Printable(entry.name, 200), written.error());
  PULGA_RETURN_IF_ERROR(SetAttributes(fd.get(), entry));
  const timespec times[2] = {SaneTime(entry.mtime), SaneTime(entry.mtime)};
  if (futimens(fd.get(), times) != 0) return Failed("set times of", entry.name);
  return OkStatus();
}

Status LayerWriter::WriteContent(int fd, const std::string& resolved, const TarEntry& entry,
                                 TarReader& tar) {
  PULGA_RETURN_IF_ERROR(SpendContent(entry.size));
  uint64_t end = 0;
  while (true) {
    PULGA_ASSIGN_OR_RETURN(const auto block, tar.ReadBlock());
    if (!block) break;
    if (block->offset > entry.size || block->bytes.size() > entry.size - block->offset) {
      return Error{Code::kInvalidArgument, 0, "more content than its header says"};
    }
    if (block->offset != end && lseek(fd, static_cast<off_t>(block->offset), SEEK_SET) < 0) {
      return LastError("seek");
    }
    // What holes stand for is not in the stream: a sparse file stays in the record.
    if (end == 0 && block->offset == 0 && !entry.sparse && target_.recorder != nullptr) {
      PULGA_RETURN_IF_ERROR(target_.recorder->Content(resolved, block->stream_offset, entry.size));
    }
    PULGA_RETURN_IF_ERROR(reserve_.Spend(block->bytes.size()));
    PULGA_RETURN_IF_ERROR(WriteAll(fd, block->bytes));
    end = block->offset + block->bytes.size();
  }
  if (end < entry.size && ftruncate(fd, static_cast<off_t>(entry.size)) != 0) {
    return LastError("extend");
  }
  return OkStatus();
}

Status LayerWriter::SpendContent(uint64_t bytes) {
  if (bytes > target_.max_bytes - result_.bytes) {
    return Error{
        Code::kTooLarge, 0,
        "the layer's files hold more than " + std::to_string(target_.max_bytes) + " bytes"};
  }
  result_.bytes += bytes;
  return OkStatus();
}

Status LayerWriter::MakeHardLink(const RootWalker::Parent& parent, const std::string& leaf,
                                 const TarEntry& entry) {
  // The target's directory is looked up like any other, so ".." stops at the root.
  std::string_view target = entry.link_target;
  if (target.size() > 2 * kMaxPathBytes) return Refuse(entry.name, "the link target is too long");
  while (target.ends_with('/')) target.remove_suffix(1);
  const auto [dir, target_leaf_view] = SplitPath(target);
  const std::string target_leaf(target_leaf_view);
  if (target_leaf.empty() || target_leaf == "." || target_leaf == "..") {
    return Refuse(entry.name, "a hard link to a directory");
  }
  const auto missing = [&] {
    return Refuse(entry.name, "a hard link to " + Printable(entry.link_target, 200) +
                                  ", which the image does not hold");
  };
  RootWalker targets(target_.root_fd);
  const auto from = targets.OpenDir(dir, RootWalker::Missing::kFail);
  if (!from.ok()) return from.error().code == Code::kNotFound ? missing() : from.error();
  struct stat st = {};
  if (fstatat(from->fd, target_leaf.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return missing();
  if (S_ISDIR(st.st_mode)) return Refuse(entry.name, "a hard link to a directory");
  const std::string resolved = JoinPath(from->dir, target_leaf);
  if (resolved == JoinPath(parent.dir, leaf)) return OkStatus();
  if (target_.upper_fd >= 0) {
    struct stat upper = {};
    const bool lower =
        fstatat(target_.upper_fd, resolved.c_str(), &upper, AT_SYMLINK_NOFOLLOW) != 0;
    if (lower && !names_.Insert(kLinked, resolved)) return TooMany(entry.name);
    if (lower && S_ISREG(st.st_mode)) {
      // All of it is copied into the upper before there is a second name.
      const auto size = static_cast<uint64_t>(st.st_size);
      const Status spent = SpendContent(size);
      if (!spent.ok()) return Prefix("link " + Printable(entry.name, 200), spent.error());
      PULGA_RETURN_IF_ERROR(reserve_.Spend(size));
    }
  }
  PULGA_RETURN_IF_ERROR(MakeRoom(parent, leaf, entry.type));
  if (linkat(from->fd, target_leaf.c_str(), parent.fd, leaf.c_str(), 0) != 0) {
    return errno == ENOENT ? missing() : Failed("link", entry.name);
  }
  return OkStatus();
}

std::pair<uint32_t, uint32_t> LayerWriter::Owner(const TarEntry& entry) {
  const auto valid = [&](int64_t id) {
    return id >= 0 && MapsId(target_.ids, static_cast<uint64_t>(id));
  };
  if (!valid(entry.uid) || !valid(entry.gid)) ++result_.ids_squashed;
  const uint32_t other = valid(kNobody) ? kNobody : 0;
  return {valid(entry.uid) ? static_cast<uint32_t>(entry.uid) : other,
          valid(entry.gid) ? static_cast<uint32_t>(entry.gid) : other};
}

// Owner first: chown clears setuid and setgid.
Status LayerWriter::SetAttributes(int fd, const TarEntry& entry) {
  const auto [uid, gid] = Owner(entry);
  if (fchown(fd, uid, gid) != 0) return Failed("chown", entry.name);
  if (fchmod(fd, entry.mode) != 0) return Failed("chmod", entry.name);
  return SetXattrs(fd, entry);
}

Status LayerWriter::SetXattrs(int fd, const TarEntry& entry) {
  for (const TarXattr& xattr : entry.xattrs) {
    const bool keep = xattr.name.starts_with("user.") && !xattr.name.starts_with("user.overlay.");
    if (!keep) {
      ++result_.xattrs_dropped;
      continue;
    }
    if (fsetxattr(fd, xattr.name.c_str(), xattr.value.data(), xattr.value.size(), 0) != 0) {
      if (errno != EOPNOTSUPP && errno != ENOSPC && errno != ERANGE && errno != E2BIG) {
        return Failed("set attributes of", entry.name);
      }
      ++result_.xattrs_dropped;  // the file system's own limit
    }
  }
  return OkStatus();
}

}  // namespace pulga
