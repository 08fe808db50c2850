// The layers' records as files of the daemon, DATA/layer-records/<chain id>: bytes the unpacker
// wrote and will read again, which nobody in between looks into. A record exists for each layer
// with a row; others are garbage. Blocks: spool thread, and the sweep.
#pragma once

#include <set>
#include <string>

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
  // Not being there is as good.
  Status Remove(const LayerId& layer) const;
  // Removes everything but the records of `layers`; how many went.
  Result<size_t> Sweep(const std::set<LayerId>& layers) const;

 private:
  std::string PathOf(const LayerId& layer) const { return dir_ + "/" + layer.Hex(); }
  std::string dir_;
};

}  // namespace pulga
