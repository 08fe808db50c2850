// Applies one layer's tar entries to a tree: the rules of docs/images.md. The tree is an overlay
// of the parent layers with this layer's upper directory on top, or that directory alone. Needs:
// the ids of `Target::ids` mapped and CHOWN, DAC_OVERRIDE, FOWNER, FSETID over them; exclusive use.
// On failure the tree is garbage; nothing outside `root_fd` was touched.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/id_map.h"
#include "base/result.h"
#include "images/dir_times.h"
#include "images/disk_reserve.h"
#include "images/layer_path.h"
#include "images/layer_record.h"
#include "images/name_set.h"
#include "images/root_walker.h"
#include "images/tar_reader.h"
#include "images/unpack_wire.h"

namespace pulga {

class LayerWriter {
 public:
  struct Target {
    int root_fd = -1;   // the tree to change
    int upper_fd = -1;  // where this layer's own part of it lands; -1 without parent layers
    uint64_t max_entries = 0;
    uint64_t max_bytes = 0;                       // of regular files
    uint64_t reserve_bytes = 0;                   // of the disk, to be left free
    LayerRecorder* recorder = nullptr;            // what `tar` reads from; nullptr: no record
    std::vector<IdExtent> ids = {{0, 0, 65536}};  // that files may be given to
  };
  LayerWriter(const Target& target, UniqueFd times_file);

  // All entries up to the end-of-archive mark, then directory times.
  Status Apply(TarReader& tar);
  const LayerResult& result() const { return result_; }

 private:
  Status ApplyEntry(const TarEntry& entry, TarReader& tar);
  Status ApplyRoot(const TarEntry& entry);
  Status HideLower(const std::string& path);
  Status HideLowerChildren(const std::string& resolved_dir);
  // The subdirectories to go on with, each name with a NUL behind it; at most `room` bytes.
  Result<std::string> HideChildrenOf(const std::string& dir, size_t room);
  // The layer names the directory `resolved`.
  Status AddDir(const std::string& resolved, const timespec& mtime);
  Result<bool> IsOwn(const std::string& resolved);
  bool IsInUpper(const std::string& resolved) const;
  Status MakeRoom(const RootWalker::Parent& parent, const std::string& leaf, EntryType type);
  Status Create(const RootWalker::Parent& parent, const std::string& leaf, const TarEntry& entry,
                TarReader& tar);
  Status WriteRegular(const RootWalker::Parent& parent, const std::string& leaf,
                      const TarEntry& entry, TarReader& tar);
  Status WriteContent(int fd, const std::string& resolved, const TarEntry& entry, TarReader& tar);
  Status SpendContent(uint64_t bytes);
  Status MakeHardLink(const RootWalker::Parent& parent, const std::string& leaf,
                      const TarEntry& entry);
  Status SetAttributes(int fd, const TarEntry& entry);
  Status SetXattrs(int fd, const TarEntry& entry);
  std::pair<uint32_t, uint32_t> Owner(const TarEntry& entry);

  Target target_;
  DiskReserve reserve_;
  RootWalker walker_;
  DirTimes times_;
  LayerResult result_;
  uint64_t stream_spent_ = 0;  // of the tar, told to reserve_
  // Over parents: the directories this layer names, and the lower files that hard links pulled into
  // the upper.
  NameSet names_;
  bool dirs_missing_ = false;  // names_ was full for some directory
  uint64_t hidden_ = 0;        // children that markers have looked at
};

}  // namespace pulga
