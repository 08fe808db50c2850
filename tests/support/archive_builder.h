// Writes tar streams and image archives of every shape for tests: well-formed ones, and ones with
// hostile headers, which is why the headers are written by hand. Everything is in memory.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pulga::testing {

// One member. `type` is the header's typeflag: '0' file, '5' directory, '2' symbolic link, '1' hard
// link, '3' and '4' devices, '6' FIFO.
struct TarItem {
  std::string name;
  char type = '0';
  std::string content;
  std::string link;
  uint32_t mode = 0644;
  uint64_t uid = 0;
  uint64_t gid = 0;
  uint64_t mtime = 1'000'000'000;
  std::vector<std::pair<std::string, std::string>> pax;  // records of a PAX header before it
  // Bytes of its header as given, by offset: 100 mode, 108 uid, 116 gid, 124 size, 136 time.
  std::vector<std::pair<size_t, std::string>> raw = {};
};

class TarBuilder {
 public:
  TarBuilder& Add(const TarItem& item);  // names over 100 bytes get a PAX header
  TarBuilder& File(std::string name, std::string content, uint32_t mode = 0644);
  TarBuilder& Dir(std::string name, uint32_t mode = 0755);
  TarBuilder& Symlink(std::string name, std::string target);
  TarBuilder& HardLink(std::string name, std::string target);
  TarBuilder& Raw(std::string_view bytes);
  // A GNU long name ('L') or link ('K') header for the next member.
  TarBuilder& GnuLong(char type, std::string_view text);
  // With the end-of-archive blocks and padding to 10 KiB as tar writes it.
  std::string Finish() const;
  const std::string& unfinished() const { return out_; }

 private:
  std::string out_;
};

std::string Gzip(std::string_view plain);
std::string Zstd(std::string_view plain, int level = 3, int window_log = 0);
std::string Sha256Of(std::string_view bytes);  // hex

struct LayerSpec {
  enum class Compression { kPlain, kGzip, kZstd };
  std::string tar;
  Compression compression = Compression::kPlain;
};

// What an image says. `config` is the "config" object's JSON text.
struct ImageSpec {
  std::vector<LayerSpec> layers;
  std::vector<std::string> tags;  // none: null
  std::string os = "linux";
  std::string architecture;  // empty: this machine's
  std::string config = R"({"Cmd":["/bin/true"]})";
  std::optional<std::string> config_json;  // instead of everything above
};

enum class ArchiveShape {
  kLegacy,    // <id>/{VERSION,json,layer.tar}, <sha256>.json, manifest.json, repositories
  kDocker25,  // blobs/, index.json, oci-layout, manifest.json
  kOci,       // blobs/, index.json, oci-layout
  kSkopeo,    // <diffid>.tar, <id>/layer.tar symbolic links
};

// The members of an image archive, to change before they are written.
class ArchiveBuilder {
 public:
  ArchiveBuilder(ArchiveShape shape, const std::vector<ImageSpec>& images);
  // Replaces or adds; removes.
  ArchiveBuilder& Set(const std::string& name, std::string content);
  ArchiveBuilder& SetItem(TarItem item);
  ArchiveBuilder& Drop(const std::string& name);
  std::string Get(const std::string& name) const;
  // Puts `from` -> `to` in a document, and where blobs name each other by digest, stays truthful
  // only for index.json and manifest.json.
  ArchiveBuilder& Replace(const std::string& name, std::string_view from, std::string_view to);
  // Puts these in front of all others, in this order.
  ArchiveBuilder& First(const std::vector<std::string>& names);
  std::vector<std::string> names() const;
  std::string Tar() const;

 private:
  void AddLegacy(const std::vector<ImageSpec>& images);
  void AddBlobs(ArchiveShape shape, const std::vector<ImageSpec>& images);
  void AddSkopeo(const std::vector<ImageSpec>& images);
  std::vector<TarItem> items_;
};

std::string MachineArchitecture();  // Go's name for this machine
std::string ConfigJson(const ImageSpec& image);
std::string BlobOf(const LayerSpec& layer);

}  // namespace pulga::testing
