// The layers' records as files of the daemon, DATA/layer-records/<chain id>: bytes the unpacker
// wrote and will read again, which nobody in between looks into. A record exists for each layer
// with a row; others are garbage. Blocks: spool thread, and the sweep.
#pragma once

#include <string>
#include <vector>

#include "base/layer_id.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

class RecordStore {
 public:
  // The directory is made with the first record.
  explicit RecordStore(const std::string& data_dir) : dir_(data_dir + "/layer-records") {}

  // Copies `record` beside and renames it; durable once the caller has synced the file system.
  // Returns its size.
  Result<uint64_t> Store(const LayerId& layer, int record_fd) const;
  // kNotFound for layers that came before there were records.
  Result<UniqueFd> Open(const LayerId& layer) const;
  // With what an interrupted Store left. Not being there is as good.
  Status Remove(const LayerId& layer) const;
  // All layers with something to remove.
  Result<std::vector<LayerId>> List() const;

 private:
  std::string PathOf(const LayerId& layer) const { return dir_ + "/" + layer.Hex(); }
  std::string UnfinishedPathOf(const LayerId& layer) const;
  std::string dir_;
};

}  // namespace pulga
