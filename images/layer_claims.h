// What an import asks about layers others may have, make or remove at the same time. Blocks; called
// on the importer's thread. runtime/ answers for the daemon, tests from a list.
#pragma once

#include <optional>

#include "images/image.h"

namespace pulga {

class LayerClaims {
 public:
  virtual ~LayerClaims() = default;
  // The layer if it is stored. What was found stays there until the import has ended.
  virtual std::optional<LayerRecord> Find(const LayerId& id) = 0;
  // The same; but when there is none the caller makes it, and says so with Made(). Waits while
  // somebody else makes or removes that very layer.
  virtual std::optional<LayerRecord> FindOrMake(const LayerId& id) = 0;
  // nullptr: it went wrong.
  virtual void Made(const LayerId& id, const LayerRecord* layer) = 0;
};

}  // namespace pulga
