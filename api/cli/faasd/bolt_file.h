// BoltFile: reads a database of bbolt, which is how containerd keeps what it knows. Read-only, of a
// copy in memory; nothing in it is trusted: every offset is checked, a path through pages has a
// bounded length, and a walk a bounded number of entries.
// Source: the file format as go.etcd.io/bbolt writes it (version 2, little endian, which all boards
// we run on are): pages with a header of 16 bytes, two meta pages with FNV-1a sums, B+ trees whose
// leaves hold keys with values, or with further trees ("buckets"), small ones within the value.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga::cli {

class BoltFile {
 public:
  // A tree: of pages from `root` on, or of the one page that lies in `inside`.
  struct Bucket {
    uint64_t root = 0;
    std::string_view inside;
  };
  struct Entry {
    std::string_view key;
    std::string_view value;  // of a bucket: how it is written, for Open
    bool is_bucket = false;
  };
  // False ends the walk.
  using Visit = std::function<bool(const Entry&)>;

  // kInvalidArgument: no such database, or a damaged one. The views above live as long as this.
  static Result<BoltFile> Parse(std::string bytes);
  Bucket root() const { return root_; }

  // In the order of the keys.
  Status Walk(const Bucket& bucket, const Visit& visit) const;
  // kNotFound where there is no bucket (value) of that key.
  Result<Bucket> Open(const Bucket& in, std::string_view key) const;
  Result<std::string_view> Value(const Bucket& in, std::string_view key) const;
  static Result<Bucket> BucketOf(const Entry& entry);

 private:
  struct WalkState {
    const Visit& visit;
    uint64_t entries = 0;
    bool stopped = false;
  };
  Status WalkPage(std::string_view page, int depth, WalkState& state) const;
  Result<std::string_view> PageAt(uint64_t number) const;
  Result<Entry> Find(const Bucket& in, std::string_view key) const;

  std::string bytes_;
  uint64_t page_size_ = 0;
  Bucket root_;
};

}  // namespace pulga::cli
