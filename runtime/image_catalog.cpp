#include "runtime/image_catalog.h"

#include <algorithm>

#include "base/text.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

constexpr size_t kMinShortDigest = 12;

Error NoSuchImage(const std::string& name) {
  return Error{
      Code::kNotFound, 0,
      "image " + Printable(name, 120) + " is not here: import it first (pulga image import FILE)"};
}

bool IsShortDigest(const std::string& text) {
  return text.size() >= kMinShortDigest && text.size() <= 64 &&
         text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

bool ImageCatalog::Add(const ImageRecord& image) {
  const auto [it, is_new] = images_.try_emplace(image.digest);
  bool changed = is_new;
  if (is_new) {
    it->second.record = image;
    for (const LayerRecord& layer : image.layers) ++layer_users_[layer.chain_id];
  }
  it->second.record.refs.clear();
  it->second.record.last_used_unix_ms =
      std::max(it->second.record.last_used_unix_ms, image.last_used_unix_ms);
  for (const LayerRecord& layer : image.layers)
    changed = missing_.erase(layer.chain_id) != 0 || changed;
  for (const std::string& ref : image.refs) {
    std::string& digest = refs_[ref];
    changed = changed || digest != image.digest;
    digest = image.digest;
  }
  return changed;
}

void ImageCatalog::RemoveRef(const std::string& ref) { refs_.erase(ref); }

void ImageCatalog::RemoveImage(const std::string& digest) {
  const auto it = images_.find(digest);
  if (it == images_.end()) return;
  for (const LayerRecord& layer : it->second.record.layers) {
    if (--layer_users_[layer.chain_id] == 0) layer_users_.erase(layer.chain_id);
  }
  images_.erase(it);
  std::erase_if(refs_, [&digest](const auto& ref) { return ref.second == digest; });
}

ImageRecord ImageCatalog::Describe(const Entry& entry) const {
  ImageRecord record = entry.record;
  record.refs.clear();
  for (const auto& [ref, digest] : refs_) {
    if (digest == record.digest) record.refs.push_back(ref);
  }
  size_t missing = 0;
  for (LayerRecord& layer : record.layers) {
    layer.reused = false;
    missing += missing_.count(layer.chain_id);
    const uint64_t bytes = DiskBytes(layer);
    record.disk_bytes += bytes;
    const auto users = layer_users_.find(layer.chain_id);
    if (users != layer_users_.end() && users->second > 1) record.shared_bytes += bytes;
  }
  if (missing != 0) {
    record.trouble = std::to_string(missing) + " of its " + std::to_string(record.layers.size()) +
                     " layers are missing on disk: import the image again";
  }
  return record;
}

Result<ImageRecord> ImageCatalog::ByDigest(const std::string& digest) const {
  const auto it = images_.find(digest);
  if (it == images_.end() || it->second.leaving) return NoSuchImage(digest);
  return Describe(it->second);
}

Result<ImageRecord> ImageCatalog::Find(const std::string& name) const {
  if (IsSha256Digest(name)) return ByDigest(name);
  const auto normalised = NormalizeImageRef(name);
  if (normalised.ok()) {
    const auto it = refs_.find(*normalised);
    if (it != refs_.end()) {
      const auto found = ByDigest(it->second);
      return found.ok() ? found : NoSuchImage(name);
    }
  }
  if (IsShortDigest(name)) {
    const std::string prefix = "sha256:" + name;
    const auto first = images_.lower_bound(prefix);
    if (first != images_.end() && first->first.compare(0, prefix.size(), prefix) == 0) {
      const auto second = std::next(first);
      if (second == images_.end() || second->first.compare(0, prefix.size(), prefix) != 0) {
        return ByDigest(first->first);
      }
      return Error{Code::kAlreadyExists, 0, name + " is the beginning of several images' digests"};
    }
  }
  if (!normalised.ok()) return normalised.error();
  return NoSuchImage(name);
}

std::vector<ImageRecord> ImageCatalog::List() const {
  std::vector<ImageRecord> images;
  for (const auto& [digest, entry] : images_) images.push_back(Describe(entry));
  std::stable_sort(images.begin(), images.end(), [](const ImageRecord& a, const ImageRecord& b) {
    if (a.refs.empty() != b.refs.empty()) return b.refs.empty();
    return a.refs < b.refs;
  });
  return images;
}

std::optional<LayerRecord> ImageCatalog::FindLayer(const LayerId& id) const {
  if (missing_.contains(id)) return std::nullopt;
  for (const auto& [digest, entry] : images_) {
    for (const LayerRecord& layer : entry.record.layers) {
      if (layer.chain_id == id) return layer;
    }
  }
  return std::nullopt;
}

std::map<LayerId, uint64_t> ImageCatalog::Layers() const {
  std::map<LayerId, uint64_t> layers;
  for (const auto& [digest, entry] : images_) {
    for (const LayerRecord& layer : entry.record.layers) {
      if (!missing_.contains(layer.chain_id)) layers[layer.chain_id] = layer.size_bytes;
    }
  }
  return layers;
}

void ImageCatalog::MarkMissing(const std::vector<LayerId>& layers) {
  missing_.insert(layers.begin(), layers.end());
}

void ImageCatalog::Touch(const std::string& digest, int64_t now_unix_ms) {
  const auto it = images_.find(digest);
  if (it != images_.end()) it->second.record.last_used_unix_ms = now_unix_ms;
}

ImageCatalog::Pin ImageCatalog::PinImage(const std::string& digest) {
  Pin pin = pins_[digest].lock();
  if (pin == nullptr) pins_[digest] = pin = std::make_shared<const std::string>(digest);
  return pin;
}

bool ImageCatalog::pinned(const std::string& digest) const {
  const auto it = pins_.find(digest);
  return it != pins_.end() && !it->second.expired();
}

uint64_t DiskBytes(const LayerRecord& layer) {
  // Of layers from before it was counted, the files' own size is the best there is.
  return (layer.disk_bytes != 0 ? layer.disk_bytes : layer.size_bytes) + layer.record_bytes;
}

void ImageCatalog::SetLeaving(const std::string& digest, bool leaving) {
  const auto it = images_.find(digest);
  if (it != images_.end()) it->second.leaving = leaving;
}

}  // namespace pulga
