// What an import leaves behind: plain records of images, their layers and their configuration.
// Everything textual in them came from outside: data to show or to store, never an instruction to
// the host (labels, volumes and annotations steer nothing). Source: OCI image spec, config.md.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/layer_id.h"
#include "base/owner.h"
#include "base/result.h"

namespace pulga {

// Go's names: "linux", "arm64", "v8".
struct Platform {
  std::string os;
  std::string architecture;
  std::string variant;  // may be empty

  bool operator==(const Platform&) const = default;
};

std::string PlatformName(const Platform& platform);  // "linux/arm/v7"
// What this board is: uname, and for 32-bit ARM the CPU's variant.
Platform HostPlatform();
// kUnsupported with "this image is linux/arm64, this board is linux/amd64" when it can not.
Status CanRunHere(const Platform& image);

// The `config` object of an image configuration, null and absent told apart from nothing.
struct ImageConfig {
  std::vector<std::string> entrypoint;  // argv = entrypoint ++ cmd
  std::vector<std::string> cmd;
  std::vector<std::string> env;         // "K=V", one per key, the last one given wins
  std::string working_dir;              // as written; "" means "/"
  std::string user;                     // as written
  std::vector<uint16_t> exposed_ports;  // tcp, ascending
  std::string stop_signal;              // as written
  std::map<std::string, std::string> labels;
};

struct LayerRecord {
  std::string diff_id;      // 64 hex digits: sha256 of the uncompressed tar
  LayerId chain_id;         // the key under which the unpacked layer is stored
  uint64_t size_bytes = 0;  // of the regular files this layer brought
  bool reused = false;      // it was there before this import
  // Nothing is known of layers that came before there were records (images/layer_record.h).
  uint64_t stream_bytes = 0;  // of the uncompressed tar
  uint64_t disk_bytes = 0;    // blocks its directory takes
  uint64_t record_bytes = 0;  // of its record; 0 without one
};

struct ImageRecord {
  std::vector<std::string> refs;  // normalised (image_ref.h); empty when untagged
  std::string digest;             // "sha256:..." of the configuration's bytes: the ImageID
  Platform platform;
  ImageConfig config;
  std::vector<LayerRecord> layers;  // base first
  uint64_t size_bytes = 0;          // sum over `layers`
  std::string config_json;          // as in the archive, byte for byte; once stored: empty, since
  uint64_t config_bytes = 0;        // nobody but an export needs it
  std::string owner = kDefaultOwner;
  int64_t last_used_unix_ms = 0;  // imported, deployed or no longer deployed
  uint64_t disk_bytes = 0;        // set by runtime/: what its layers and their records take
  uint64_t shared_bytes = 0;      // set by runtime/: of these, in layers other images use too
  std::string trouble;            // set by runtime/: why it cannot be used; empty normally
};

}  // namespace pulga
