#include "tests/support/archive_builder.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "images/digest.h"
#include "images/image.h"

namespace pulga::testing {
namespace {

std::string Octal(uint64_t value, int digits) {
  char buffer[32];
  snprintf(buffer, sizeof buffer, "%0*llo", digits, static_cast<unsigned long long>(value));
  return std::string(buffer) + '\0';
}

// Octal while it fits, else base-256 as GNU tar writes it.
std::string Number(uint64_t value, int digits) {
  const uint64_t limit = uint64_t{1} << (3 * digits);
  if (digits >= 21 || value < limit) return Octal(value, digits);
  std::string out(static_cast<size_t>(digits) + 1, '\0');
  for (size_t i = out.size(); i-- > 1 && value != 0; value >>= 8) {
    out[i] = static_cast<char>(value & 0xff);
  }
  out[0] = static_cast<char>(0x80);
  return out;
}

std::string Padded(std::string_view content) {
  std::string out(content);
  out.resize((out.size() + 511) / 512 * 512, '\0');
  return out;
}

std::string Header(const TarItem& item, uint64_t size) {
  std::string block(512, '\0');
  const auto put = [&](size_t at, std::string_view text, size_t limit) {
    memcpy(block.data() + at, text.data(), std::min(text.size(), limit));
  };
  put(0, item.name, 100);
  put(100, Octal(item.mode, 7), 8);
  put(108, Number(item.uid, 7), 8);
  put(116, Number(item.gid, 7), 8);
  put(124, Number(size, 11), 12);
  put(136, Number(item.mtime, 11), 12);
  block[156] = item.type;
  put(157, item.link, 100);
  put(257, std::string_view("ustar\00000", 8), 8);
  for (const auto& [at, bytes] : item.raw) put(at, bytes, bytes.size());
  memset(block.data() + 148, ' ', 8);
  unsigned sum = 0;
  for (const char c : block) sum += static_cast<unsigned char>(c);
  put(148, Octal(sum, 6) + " ", 8);
  return block;
}

std::string PaxRecord(const std::string& key, const std::string& value) {
  const size_t body = key.size() + value.size() + 3;
  size_t size = body + 1;
  while (size != body + std::to_string(size).size()) size = body + std::to_string(size).size();
  return std::to_string(size) + " " + key + "=" + value + "\n";
}

std::string Quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string List(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (size_t i = 0; i < texts.size(); ++i) out += (i != 0 ? "," : "") + Quote(texts[i]);
  return out + "]";
}

std::string TagsJson(const ImageSpec& image) {
  return image.tags.empty() ? "null" : List(image.tags);
}

std::string SavedJson(const std::string& config, const ImageSpec& image,
                      const std::vector<std::string>& layers) {
  return "{\"Config\":" + Quote(config) + ",\"RepoTags\":" + TagsJson(image) +
         ",\"Layers\":" + List(layers) + "}";
}

std::string DescriptorJson(std::string_view type, std::string_view blob, std::string_view more) {
  return "{\"mediaType\":" + Quote(type) + ",\"digest\":\"sha256:" + Sha256Of(blob) +
         "\",\"size\":" + std::to_string(blob.size()) + std::string(more) + "}";
}

std::string JoinObjects(const std::vector<std::string>& objects) {
  std::string out = "[";
  for (size_t i = 0; i < objects.size(); ++i) out += (i != 0 ? "," : "") + objects[i];
  return out + "]";
}

const char* LayerType(LayerSpec::Compression compression) {
  switch (compression) {
    case LayerSpec::Compression::kGzip:
      return "application/vnd.oci.image.layer.v1.tar+gzip";
    case LayerSpec::Compression::kZstd:
      return "application/vnd.oci.image.layer.v1.tar+zstd";
    default:
      return "application/vnd.oci.image.layer.v1.tar";
  }
}

}  // namespace

TarBuilder& TarBuilder::Add(const TarItem& item) {
  auto pax = item.pax;
  if (item.name.size() > 100) pax.emplace_back("path", item.name);
  if (item.link.size() > 100) pax.emplace_back("linkpath", item.link);
  if (!pax.empty()) {
    std::string records;
    for (const auto& [key, value] : pax) records += PaxRecord(key, value);
    TarItem header;
    header.name = "pax";
    header.type = 'x';
    out_ += Header(header, records.size()) + Padded(records);
  }
  out_ += Header(item, item.content.size()) + Padded(item.content);
  return *this;
}

TarBuilder& TarBuilder::File(std::string name, std::string content, uint32_t mode) {
  TarItem item;
  item.name = std::move(name);
  item.content = std::move(content);
  item.mode = mode;
  return Add(item);
}

TarBuilder& TarBuilder::Dir(std::string name, uint32_t mode) {
  TarItem item;
  item.name = std::move(name);
  item.type = '5';
  item.mode = mode;
  return Add(item);
}

TarBuilder& TarBuilder::Symlink(std::string name, std::string target) {
  TarItem item;
  item.name = std::move(name);
  item.type = '2';
  item.link = std::move(target);
  item.mode = 0777;
  return Add(item);
}

TarBuilder& TarBuilder::HardLink(std::string name, std::string target) {
  TarItem item;
  item.name = std::move(name);
  item.type = '1';
  item.link = std::move(target);
  return Add(item);
}

TarBuilder& TarBuilder::Raw(std::string_view bytes) {
  out_ += bytes;
  return *this;
}

TarBuilder& TarBuilder::GnuLong(char type, std::string_view text) {
  TarItem item;
  item.name = "././@LongLink";
  item.type = type;
  std::string header = Header(item, text.size() + 1);
  memcpy(header.data() + 257, "ustar  ", 8);
  // The magic changed the sum.
  memset(header.data() + 148, ' ', 8);
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  const std::string text_sum = Octal(sum, 6) + " ";
  memcpy(header.data() + 148, text_sum.data(), 8);
  out_ += header + Padded(std::string(text) + '\0');
  return *this;
}

std::string TarBuilder::Finish() const {
  std::string out = out_;
  out.append(1024, '\0');
  out.resize((out.size() + 10239) / 10240 * 10240, '\0');
  return out;
}

std::string Gzip(std::string_view plain) {
  z_stream stream = {};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, plain.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(plain.data()));
  stream.avail_in = static_cast<uInt>(plain.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(std::string_view plain, int level, int window_log) {
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
  if (window_log != 0) {
    // A streamed frame announces the window it was made with, not its content's size.
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, window_log);
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  }
  std::string out(ZSTD_compressBound(plain.size()) + 64, '\0');
  ZSTD_inBuffer input = {plain.data(), plain.size(), 0};
  ZSTD_outBuffer output = {out.data(), out.size(), 0};
  ZSTD_compressStream2(context, &output, &input, ZSTD_e_flush);
  ZSTD_compressStream2(context, &output, &input, ZSTD_e_end);
  out.resize(output.pos);
  ZSTD_freeCCtx(context);
  return out;
}

std::string Sha256Of(std::string_view bytes) { return Sha256Hex(bytes); }

std::string MachineArchitecture() { return HostPlatform().architecture; }

std::string BlobOf(const LayerSpec& layer) {
  switch (layer.compression) {
    case LayerSpec::Compression::kGzip:
      return Gzip(layer.tar);
    case LayerSpec::Compression::kZstd:
      return Zstd(layer.tar);
    default:
      return layer.tar;
  }
}

std::string ConfigJson(const ImageSpec& image) {
  if (image.config_json) return *image.config_json;
  std::vector<std::string> ids;
  for (const LayerSpec& layer : image.layers) ids.push_back("sha256:" + Sha256Of(layer.tar));
  const std::string variant = image.architecture.empty() && !HostPlatform().variant.empty()
                                  ? ",\"variant\":" + Quote(HostPlatform().variant)
                                  : "";
  return "{\"architecture\":" +
         Quote(image.architecture.empty() ? MachineArchitecture() : image.architecture) + variant +
         ",\"os\":" + Quote(image.os) + ",\"config\":" + image.config +
         ",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":" + List(ids) + "}}";
}

ArchiveBuilder::ArchiveBuilder(ArchiveShape shape, const std::vector<ImageSpec>& images) {
  switch (shape) {
    case ArchiveShape::kLegacy:
      AddLegacy(images);
      break;
    case ArchiveShape::kSkopeo:
      AddSkopeo(images);
      break;
    case ArchiveShape::kDocker25:
    case ArchiveShape::kOci:
      AddBlobs(shape, images);
      break;
  }
}

void ArchiveBuilder::AddLegacy(const std::vector<ImageSpec>& images) {
  std::vector<std::string> saved;
  std::map<std::string, std::string> first;  // blob -> the member that holds it
  size_t serial = 0;
  for (const ImageSpec& image : images) {
    std::vector<std::string> layers;
    for (const LayerSpec& layer : image.layers) {
      const std::string blob = BlobOf(layer);
      const std::string id = Sha256Of("layer " + std::to_string(++serial));
      Set(id + "/VERSION", "1.0");
      Set(id + "/json", "{\"id\":\"" + id + "\"}");
      const std::string name = id + "/layer.tar";
      if (const auto [it, added] = first.try_emplace(blob, name); added) {
        Set(name, blob);
      } else {
        TarItem link;
        link.name = name;
        link.type = '2';
        link.link = "../" + it->second;
        SetItem(link);
      }
      layers.push_back(name);
    }
    const std::string config = ConfigJson(image);
    const std::string config_name = Sha256Of(config) + ".json";
    Set(config_name, config);
    saved.push_back(SavedJson(config_name, image, layers));
  }
  Set("manifest.json", JoinObjects(saved));
  Set("repositories", "{}");
}

void ArchiveBuilder::AddSkopeo(const std::vector<ImageSpec>& images) {
  std::vector<std::string> saved;
  size_t serial = 0;
  for (const ImageSpec& image : images) {
    std::vector<std::string> layers;
    for (const LayerSpec& layer : image.layers) {
      const std::string name = Sha256Of(layer.tar) + ".tar";
      Set(name, BlobOf(layer));
      TarItem link;
      link.name = Sha256Of("skopeo " + std::to_string(++serial)) + "/layer.tar";
      link.type = '2';
      link.link = "../" + name;
      SetItem(link);
      layers.push_back(link.name);
    }
    const std::string config = ConfigJson(image);
    Set(Sha256Of(config) + ".json", config);
    saved.push_back(SavedJson(Sha256Of(config) + ".json", image, layers));
  }
  Set("manifest.json", JoinObjects(saved));
}

void ArchiveBuilder::AddBlobs(ArchiveShape shape, const std::vector<ImageSpec>& images) {
  std::vector<std::string> saved;
  std::vector<std::string> manifests;
  const auto add_blob = [&](const std::string& blob) {
    Set("blobs/sha256/" + Sha256Of(blob), blob);
    return "blobs/sha256/" + Sha256Of(blob);
  };
  for (const ImageSpec& image : images) {
    std::vector<std::string> layers;
    std::vector<std::string> descriptors;
    for (const LayerSpec& layer : image.layers) {
      const std::string blob = BlobOf(layer);
      layers.push_back(add_blob(blob));
      descriptors.push_back(DescriptorJson(LayerType(layer.compression), blob, ""));
    }
    const std::string config = ConfigJson(image);
    saved.push_back(SavedJson(add_blob(config), image, layers));
    const std::string manifest =
        "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\","
        "\"config\":" +
        DescriptorJson("application/vnd.oci.image.config.v1+json", config, "") +
        ",\"layers\":" + JoinObjects(descriptors) + "}";
    add_blob(manifest);
    for (const std::string& tag : image.tags) {
      manifests.push_back(DescriptorJson("application/vnd.oci.image.manifest.v1+json", manifest,
                                         ",\"annotations\":{\"io.containerd.image.name\":" +
                                             Quote("docker.io/library/" + tag) + "}"));
    }
    if (image.tags.empty()) {
      manifests.push_back(
          DescriptorJson("application/vnd.oci.image.manifest.v1+json", manifest, ""));
    }
  }
  Set("index.json", "{\"schemaVersion\":2,\"manifests\":" + JoinObjects(manifests) + "}");
  Set("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
  if (shape == ArchiveShape::kDocker25) Set("manifest.json", JoinObjects(saved));
}

ArchiveBuilder& ArchiveBuilder::Set(const std::string& name, std::string content) {
  TarItem item;
  item.name = name;
  item.content = std::move(content);
  return SetItem(std::move(item));
}

ArchiveBuilder& ArchiveBuilder::SetItem(TarItem item) {
  for (TarItem& known : items_) {
    if (known.name == item.name) {
      known = std::move(item);
      return *this;
    }
  }
  items_.push_back(std::move(item));
  return *this;
}

ArchiveBuilder& ArchiveBuilder::Drop(const std::string& name) {
  std::erase_if(items_, [&](const TarItem& item) { return item.name == name; });
  return *this;
}

std::string ArchiveBuilder::Get(const std::string& name) const {
  for (const TarItem& item : items_) {
    if (item.name == name) return item.content;
  }
  return "";
}

ArchiveBuilder& ArchiveBuilder::Replace(const std::string& name, std::string_view from,
                                        std::string_view to) {
  std::string content = Get(name);
  for (size_t at = content.find(from); at != std::string::npos;
       at = content.find(from, at + to.size())) {
    content.replace(at, from.size(), to);
  }
  return Set(name, std::move(content));
}

ArchiveBuilder& ArchiveBuilder::First(const std::vector<std::string>& names) {
  std::stable_sort(items_.begin(), items_.end(), [&](const TarItem& a, const TarItem& b) {
    const auto place = [&](const TarItem& item) {
      return std::find(names.begin(), names.end(), item.name) - names.begin();
    };
    return place(a) < place(b);
  });
  return *this;
}

std::vector<std::string> ArchiveBuilder::names() const {
  std::vector<std::string> out;
  for (const TarItem& item : items_) out.push_back(item.name);
  return out;
}

std::string ArchiveBuilder::Tar() const {
  TarBuilder tar;
  for (const TarItem& item : items_) tar.Add(item);
  return tar.Finish();
}

}  // namespace pulga::testing
