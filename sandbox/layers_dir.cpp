#include "sandbox/layers_dir.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/file_io.h"
#include "base/sys.h"
#include "sandbox/version_builder.h"

namespace pulga {
namespace {

constexpr const char* kStagingPrefix = ".staging-";
constexpr const char* kTrashPrefix = ".trash-";
constexpr const char* kUpper = "/upper";
constexpr const char* kVictim = "/victim";
constexpr int kLockPauseMs = 10;

bool StartsWith(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

}  // namespace

std::string TrashName(uint64_t number) { return kTrashPrefix + std::to_string(number); }

Result<LayersDir> LayersDir::Open(UniqueFd fd, uid_t owner) {
  if (PULGA_SYS(mkdirat, fd.get(), kBuildDirectory, 0700) != 0 && errno != EEXIST) {
    return LastError("layers: mkdir " + std::string(kBuildDirectory));
  }
  return LayersDir(std::move(fd), owner);
}

bool LayersDir::Has(const LayerId& id) const {
  struct stat st = {};
  return fstatat(fd_.get(), id.Hex().c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

Result<std::vector<LayerId>> LayersDir::List() const {
  const auto names = ListNames(fd_.get());
  if (!names.ok()) return Prefix("layers", names.error());
  std::vector<LayerId> out;
  for (const std::string& name : *names) {
    const auto id = LayerId::FromHex(name);
    if (id.has_value() && Has(*id)) out.push_back(*id);
  }
  return out;
}

Result<std::string> LayersDir::MakeStaging(uint64_t number) const {
  const std::string name = kStagingPrefix + std::to_string(number);
  if (PULGA_SYS(mkdirat, fd_.get(), name.c_str(), 0700) != 0) return LastError("mkdir " + name);
  if (PULGA_SYS(fchownat, fd_.get(), name.c_str(), owner_, owner_, AT_SYMLINK_NOFOLLOW) != 0) {
    const Error error = LastError("chown " + name);
    unlinkat(fd_.get(), name.c_str(), AT_REMOVEDIR);
    return error;
  }
  return name;
}

Status LayersDir::MoveToTrash(const LayerId& id, uint64_t number) const {
  const std::string hex = id.Hex();
  if (PULGA_SYS(renameat, fd_.get(), hex.c_str(), fd_.get(), TrashName(number).c_str()) != 0) {
    return LastError("move layer " + hex + " away");
  }
  return OkStatus();
}

Status LayersDir::MoveToStaging(const LayerId& id, const std::string& staging) const {
  const std::string hex = id.Hex();
  const std::string victim = staging + kVictim;
  if (PULGA_SYS(renameat, fd_.get(), hex.c_str(), fd_.get(), victim.c_str()) != 0) {
    return LastError("move layer " + hex + " away");
  }
  return OkStatus();
}

Status LayersDir::Publish(const std::string& staging, const LayerId& id) const {
  const std::string upper = staging + kUpper;
  const std::string hex = id.Hex();
  struct stat st = {};
  if (fstatat(fd_.get(), upper.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(st.st_mode)) {
    return Error{Code::kIo, 0, "publish layer " + hex + ": the unpacker left no directory"};
  }
  // syncfs: rename must not become durable before the files it makes visible.
  if (PULGA_SYS(syncfs, fd_.get()) != 0) return LastError("publish layer " + hex + ": syncfs");
  if (PULGA_SYS(renameat2, fd_.get(), upper.c_str(), fd_.get(), hex.c_str(), RENAME_NOREPLACE) !=
      0) {
    return LastError("publish layer " + hex);
  }
  if (PULGA_SYS(fsync, fd_.get()) != 0) return LastError("publish layer " + hex + ": fsync");
  return OkStatus();
}

Status LayersDir::Remove(const std::string& name) const { return RemoveTree(fd_.get(), name); }

Status LayersDir::RemoveLeftovers() const {
  const auto names = ListNames(fd_.get());
  if (!names.ok()) return Prefix("layers", names.error());
  Status result;
  for (const std::string& name : *names) {
    if (!StartsWith(name, kStagingPrefix) && !StartsWith(name, kTrashPrefix)) continue;
    const Status removed = Remove(name);
    if (!removed.ok()) result = removed;
  }
  return result;
}

Result<UniqueFd> LayersDir::LockAlone(Duration patience) const {
  // A lock belongs to an open file; fd_ is shared with the keeper.
  PULGA_ASSIGN_OR_RETURN(UniqueFd own, OpenFileAt(fd_.get(), ".", O_RDONLY | O_DIRECTORY));
  const TimePoint deadline = std::chrono::steady_clock::now() + patience;
  while (PULGA_SYS(flock, own.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return LastError("layers: lock");
    if (std::chrono::steady_clock::now() >= deadline) {
      return Error{Code::kUnavailable, EWOULDBLOCK,
                   "layers: the launcher before this one has not ended"};
    }
    poll(nullptr, 0, kLockPauseMs);
  }
  return own;
}

}  // namespace pulga
