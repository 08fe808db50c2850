// The launcher's hold on DATA/layers, by one fd taken at start: <chainid hex>/ directories in the
// owner's id range, .staging-N while a job runs, .trash-N on their way out, .mnt to build roots on.
// Blocks on the disk; what may take long (Publish, RemoveLeftovers) runs in forked children.
// The daemon never names anything here but by LayerId.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/layer_id.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace pulga {

class LayersDir {
 public:
  // Makes what has to be there. `owner`: id 0 of the layers' range.
  static Result<LayersDir> Open(UniqueFd fd, uid_t owner);

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
  // All staging and trash directories: the caller holds LockAlone, and nothing is running.
  Status RemoveLeftovers() const;

  // One launcher at a time: a keeper that was killed leaves one that is still tidying up when the
  // next keeper starts its own. kUnavailable: it did not end in time. Held until the fd is closed.
  Result<UniqueFd> LockAlone(Duration patience) const;

  int fd() const { return fd_.get(); }

 private:
  LayersDir(UniqueFd fd, uid_t owner) : fd_(std::move(fd)), owner_(owner) {}
  UniqueFd fd_;
  uid_t owner_;
};

std::string TrashName(uint64_t number);

}  // namespace pulga
