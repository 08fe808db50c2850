// Databases of bbolt: whatever the file says, reading all of it ends, and stays within it. The meta
// pages are sealed again, so that changes get past their sums.
#include "api/cli/faasd/bolt_file.h"
#include "base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/bolt_bytes.h"

using namespace pulga;       // NOLINT: the target's functions must be global
using namespace pulga::cli;  // NOLINT

namespace {

constexpr size_t kMetas = 2 * 4096;

void WalkAll(const BoltFile& file, const BoltFile::Bucket& in, int depth, size_t* left) {
  (void)file.Walk(in, [&](const BoltFile::Entry& entry) {
    if (*left == 0) return false;
    --*left;
    const auto bucket = BoltFile::BucketOf(entry);
    PULGA_CHECK(entry.is_bucket || !bucket.ok());
    if (bucket.ok() && depth > 0) WalkAll(file, *bucket, depth - 1, left);
    return true;
  });
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  BoltTree tree;
  tree.values["k"] = "value";
  tree.buckets["b"].values["inner"] = "x";
  tree.buckets["b"].buckets["c"].values["l"] = "";
  return {BoltBytes(tree, BoltShape::kInline), BoltBytes(tree, BoltShape::kPages)};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  if (size >= kMetas) {
    SealBoltMeta(bytes, 0);
    SealBoltMeta(bytes, 1);
  }
  const auto file = BoltFile::Parse(std::move(bytes));
  if (!file.ok()) return 0;
  size_t left = 10000;
  WalkAll(*file, file->root(), 6, &left);
  return 0;
}
