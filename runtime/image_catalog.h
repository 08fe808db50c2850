// ImageCatalog: the images' rows mirrored in memory, and the pure decisions on them: what a name
// means, which layers are there, what an import brings that is new. Of one owner, the only one
// until accounts come: each will have their own. Loop thread, never blocks.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/layer_id.h"
#include "base/result.h"
#include "images/image.h"

namespace pulga {

// What a layer and its record take on the disk.
uint64_t DiskBytes(const LayerRecord& layer);

class ImageCatalog {
 public:
  // True when something was new: an image, a name, or a layer that had been missing.
  bool Add(const ImageRecord& image);
  void RemoveRef(const std::string& ref);
  void RemoveImage(const std::string& digest);

  // `name` is an image name in any spelling, "sha256:..." or at least 12 digits of it.
  // kNotFound says how to get it, kAlreadyExists that a short digest fits several.
  Result<ImageRecord> Find(const std::string& name) const;
  Result<ImageRecord> ByDigest(const std::string& digest) const;
  std::vector<ImageRecord> List() const;  // by first name, untagged ones last
  size_t size() const { return images_.size(); }

  // A layer of any image, unless it is missing on disk.
  std::optional<LayerRecord> FindLayer(const LayerId& id) const;
  // Layers that are published and sound, with their sizes: what an import may skip.
  std::map<LayerId, uint64_t> Layers() const;
  // Rows without a directory. Their images get a `trouble` until they are imported again.
  void MarkMissing(const std::vector<LayerId>& layers);
  // Hidden from Find while its removal is under way.
  void SetLeaving(const std::string& digest, bool leaving);

  void Touch(const std::string& digest, int64_t now_unix_ms);
  // Somebody reads its layers, for as long as the token lives.
  using Pin = std::shared_ptr<const std::string>;
  Pin PinImage(const std::string& digest);
  bool pinned(const std::string& digest) const;
  // How many images use each layer, as their rows say.
  const std::map<LayerId, uint32_t>& layer_users() const { return layer_users_; }

 private:
  struct Entry {
    ImageRecord record;  // refs are kept in refs_
    bool leaving = false;
  };
  ImageRecord Describe(const Entry& entry) const;

  std::map<std::string, Entry> images_;      // by digest
  std::map<std::string, std::string> refs_;  // normalised name -> digest
  std::set<LayerId> missing_;
  std::map<LayerId, uint32_t> layer_users_;
  std::map<std::string, std::weak_ptr<const std::string>> pins_;  // by digest
};

}  // namespace pulga
