// LayerTable: which layers imports use, make, or somebody removes right now, beside the rows of the
// catalog: so that imports may run side by side and beside removals. Loop thread; no I/O.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "images/image.h"
#include "runtime/image_catalog.h"

namespace pulga {

class LayerTable {
 public:
  using Holder = uint64_t;  // one import
  using Found = std::function<void(std::optional<LayerRecord>)>;

  explicit LayerTable(const ImageCatalog& catalog) : catalog_(catalog) {}

  Holder NewHolder() { return ++last_holder_; }
  // The layer if it is on disk and sound; the holder keeps it then.
  std::optional<LayerRecord> Find(Holder holder, const LayerId& id);
  // The same. nullopt: the holder makes it and calls Made. `found` comes later while somebody else
  // makes or removes it.
  void FindOrMake(Holder holder, const LayerId& id, Found found);
  void Made(Holder holder, const LayerId& id, std::optional<LayerRecord> layer);  // nullopt: failed
  // It is given up, but has not ended: it waits for nobody any more, and is told to make layers,
  // which it will not do.
  void Abandon(Holder holder);
  // The import has ended. Returns the layers it leaves behind that nobody needs any more.
  std::vector<LayerId> Release(Holder holder);

  // False: somebody uses or makes it; nobody may remove it now.
  bool BeginRemoval(const LayerId& id);
  void EndRemoval(const LayerId& id);
  // All that are used, made or removed.
  std::set<LayerId> Busy() const;

 private:
  struct Waiter {
    Holder holder;
    Found found;
  };
  struct Entry {
    std::set<Holder> holders;
    std::optional<Holder> maker;
    bool leaving = false;
    std::optional<LayerRecord> layer;  // on disk, with or without a row
    std::deque<Waiter> waiting;
  };
  void Serve(const LayerId& id);

  const ImageCatalog& catalog_;
  Holder last_holder_ = 0;
  std::map<LayerId, Entry> entries_;
  std::set<Holder> abandoned_;
};

}  // namespace pulga
