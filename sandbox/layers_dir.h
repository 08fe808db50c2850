// The launcher's hold on DATA/layers, by one fd taken at start: <chainid hex>/ directories in the
// owner's id range, .staging-N while a job runs, .trash-N on their way out, .mnt to build roots on.
// Blocks on the disk; what may take long (Publish, RemoveLeftovers) runs in forked children.
// The daemon never names anything here but by LayerId.
#pragma once

#include <string>
#include <vector>

#include "base/layer_id.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

class LayersDir {
 public:
  // Makes what has to be there.
  static Result<LayersDir> Open(UniqueFd fd);

  bool Has(const LayerId& id) const;
  Result<std::vector<LayerId>> List() const;
  // An empty ".staging-<number>" owned by id 0 of the owner's range; its name.
  Result<std::string> MakeStaging(uint64_t number) const;
  // The layer out of the way, to ".trash-<number>" or to `victim` inside a staging directory.
  Status MoveToTrash(const LayerId& id, uint64_t number) const;
  Status MoveToStaging(const LayerId& id, const std::string& staging) const;
  // staging/upper becomes the layer, durably. kAlreadyExists: somebody else was first.
  Status Publish(const std::string& staging, const LayerId& id) const;
  // Staging or trash with everything in it.
  Status Remove(const std::string& name) const;
  // All staging and trash directories: nothing is running.
  Status RemoveLeftovers() const;

  int fd() const { return fd_.get(); }

 private:
  explicit LayersDir(UniqueFd fd) : fd_(std::move(fd)) {}
  Result<std::vector<std::string>> Names() const;
  UniqueFd fd_;
};

std::string TrashName(uint64_t number);

}  // namespace pulga
