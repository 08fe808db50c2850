// The second part of a layer's record: what its directory looked like once everything was unpacked
// (types, modes, owners, times, sizes, links, extended attributes of every name), and the
// comparison of a directory with it. Walks in one fixed order, streaming; memory bounded by the
// names of one path of directories (8 MiB, else kTooLarge). Nobody may change the tree meanwhile.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "images/layer_record.h"

namespace pulga {

struct TreeTotals {
  uint64_t names = 0;
  uint64_t disk_bytes = 0;  // blocks in use, each file once
};

// Works in the directory: changes the process's working directory.
Result<TreeTotals> RecordTree(int layer_fd, RecordWriter& record);

struct TreeComparison {
  std::vector<LayerDifference> differences;  // the first kMaxDifferences
  uint64_t count = 0;
};
// `record` stands behind the end of the tar. Also changes the working directory.
Result<TreeComparison> CompareTree(int layer_fd, RecordReader& record);

}  // namespace pulga
