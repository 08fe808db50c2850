// Databases as bbolt writes them, small ones, for the tests of who reads them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace pulga {

// A bucket: values and further buckets by their keys.
struct BoltTree {
  std::map<std::string, std::string> values;
  std::map<std::string, BoltTree> buckets;
};

enum class BoltShape { kInline, kPages };  // how further buckets lie: in a value, or on pages

// Pages of 4096 bytes. kPages: every bucket has a leaf page of its own below a branch page.
std::string BoltBytes(const BoltTree& tree, BoltShape shape);
// The sum of the meta page `number` (0, 1) put right again.
void SealBoltMeta(std::string& file, int number);

}  // namespace pulga
