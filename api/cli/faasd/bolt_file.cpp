#include "api/cli/faasd/bolt_file.h"

#include <cstring>
#include <optional>
#include <utility>

namespace pulga::cli {
namespace {

constexpr uint64_t kPageHeader = 16;
constexpr uint64_t kElement = 16;
constexpr uint64_t kBucketHeader = 16;
constexpr uint64_t kMetaBytes = 56;  // before its sum
constexpr uint32_t kMagic = 0xED0CDAED;
constexpr uint32_t kVersion = 2;
constexpr uint16_t kBranchPage = 0x01;
constexpr uint16_t kLeafPage = 0x02;
constexpr uint16_t kMetaPage = 0x04;
constexpr uint32_t kBucketLeaf = 0x01;
constexpr int kDeepest = 32;
constexpr uint64_t kMostEntries = 1 << 20;
constexpr uint64_t kLeastPage = 512;
constexpr uint64_t kMostPage = 1 << 20;

Error Damaged(const std::string& what) {
  return Error{Code::kInvalidArgument, 0, "the database is damaged: " + what};
}

// The caller has checked that it lies within.
template <typename T>
T Load(std::string_view bytes, uint64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

bool Within(std::string_view bytes, uint64_t at, uint64_t size) {
  return at <= bytes.size() && size <= bytes.size() - at;
}

uint64_t Sum(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

struct Meta {
  uint64_t page_size = 0;
  uint64_t root = 0;
  uint64_t transaction = 0;
};

std::optional<Meta> MetaAt(std::string_view bytes, uint64_t at) {
  if (!Within(bytes, at, kPageHeader + kMetaBytes + 8)) return std::nullopt;
  const std::string_view page = bytes.substr(at);
  if ((Load<uint16_t>(page, 8) & kMetaPage) == 0) return std::nullopt;
  const std::string_view meta = page.substr(kPageHeader);
  if (Load<uint32_t>(meta, 0) != kMagic || Load<uint32_t>(meta, 4) != kVersion) return std::nullopt;
  if (Load<uint64_t>(meta, kMetaBytes) != Sum(meta.substr(0, kMetaBytes))) return std::nullopt;
  return Meta{Load<uint32_t>(meta, 8), Load<uint64_t>(meta, 16), Load<uint64_t>(meta, 48)};
}

}  // namespace

// Where the second meta page lies only the first one tells; when that is torn, it is looked for.
Result<BoltFile> BoltFile::Parse(std::string bytes) {
  std::optional<Meta> best = MetaAt(bytes, 0);
  for (uint64_t size = kLeastPage; size <= kMostPage; size *= 2) {
    const std::optional<Meta> other = MetaAt(bytes, size);
    if (!other || other->page_size != size || (best && best->page_size != size)) continue;
    if (!best || other->transaction > best->transaction) best = other;
  }
  if (!best) return Error{Code::kInvalidArgument, 0, "it is no database of bbolt"};
  if (best->page_size < kLeastPage || best->page_size > kMostPage) {
    return Damaged("pages of " + std::to_string(best->page_size) + " bytes");
  }
  BoltFile out;
  out.bytes_ = std::move(bytes);
  out.page_size_ = best->page_size;
  out.root_.root = best->root;
  return out;
}

Result<std::string_view> BoltFile::PageAt(uint64_t number) const {
  const std::string_view all = bytes_;
  if (number >= all.size() / page_size_) return Damaged("a page beyond its end");
  const std::string_view first = all.substr(number * page_size_);
  if (!Within(first, 0, kPageHeader)) return Damaged("half a page");
  const uint64_t size = (1 + uint64_t{Load<uint32_t>(first, 12)}) * page_size_;  // with overflow
  if (!Within(first, 0, size)) return Damaged("a page longer than the file");
  return first.substr(0, size);
}

Status BoltFile::Walk(const Bucket& bucket, const Visit& visit) const {
  WalkState state{visit};
  if (bucket.root == 0) return WalkPage(bucket.inside, 0, state);
  PULGA_ASSIGN_OR_RETURN(const std::string_view page, PageAt(bucket.root));
  return WalkPage(page, 0, state);
}

Status BoltFile::WalkPage(std::string_view page, int depth, WalkState& state) const {
  if (depth > kDeepest) return Damaged("a path without an end");
  if (!Within(page, 0, kPageHeader)) return Damaged("half a page");
  const auto flags = Load<uint16_t>(page, 8);
  const auto count = Load<uint16_t>(page, 10);
  if (!Within(page, kPageHeader, count * kElement)) return Damaged("more elements than fit");
  for (uint64_t i = 0; i < count && !state.stopped; ++i) {
    if (++state.entries > kMostEntries) return Damaged("too many entries");
    const std::string_view element = page.substr(kPageHeader + i * kElement);
    if (flags == kBranchPage) {
      PULGA_ASSIGN_OR_RETURN(const std::string_view below, PageAt(Load<uint64_t>(element, 8)));
      PULGA_RETURN_IF_ERROR(WalkPage(below, depth + 1, state));
      continue;
    }
    if (flags != kLeafPage) return Damaged("a page of another kind in a tree");
    const auto at = Load<uint32_t>(element, 4);
    const uint64_t key = Load<uint32_t>(element, 8);
    const uint64_t value = Load<uint32_t>(element, 12);
    if (!Within(element, at, key + value)) return Damaged("an entry beyond its page");
    const Entry entry{element.substr(at, key), element.substr(at + key, value),
                      (Load<uint32_t>(element, 0) & kBucketLeaf) != 0};
    state.stopped = !state.visit(entry);
  }
  return OkStatus();
}

Result<BoltFile::Bucket> BoltFile::BucketOf(const Entry& entry) {
  if (!entry.is_bucket || !Within(entry.value, 0, kBucketHeader)) return Damaged("half a bucket");
  Bucket bucket;
  bucket.root = Load<uint64_t>(entry.value, 0);
  if (bucket.root == 0) bucket.inside = entry.value.substr(kBucketHeader);
  return bucket;
}

Result<BoltFile::Entry> BoltFile::Find(const Bucket& in, std::string_view key) const {
  std::optional<Entry> found;
  PULGA_RETURN_IF_ERROR(Walk(in, [&](const Entry& entry) {
    if (entry.key == key) found = entry;
    return !found;
  }));
  if (!found) return Error{Code::kNotFound, 0, "no " + std::string(key) + " in the database"};
  return *found;
}

Result<BoltFile::Bucket> BoltFile::Open(const Bucket& in, std::string_view key) const {
  PULGA_ASSIGN_OR_RETURN(const Entry entry, Find(in, key));
  return BucketOf(entry);
}

Result<std::string_view> BoltFile::Value(const Bucket& in, std::string_view key) const {
  PULGA_ASSIGN_OR_RETURN(const Entry entry, Find(in, key));
  if (entry.is_bucket) return Damaged(std::string(key) + " is a bucket");
  return entry.value;
}

}  // namespace pulga::cli
