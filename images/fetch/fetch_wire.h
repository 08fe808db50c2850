// What the daemon asks of pulga-fetcher, through the request file of a kFetch job
// (base/unpack_job.h). Its answers are events on the job's channel (images/job_events.h).
// Both sides read the other's bytes as if they were hostile.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "images/digest.h"
#include "images/fetch/net_address.h"
#include "images/fetch/proxy_choice.h"
#include "images/fetch/registry_login.h"
#include "images/platform_choice.h"

namespace pulga {

// What kind of errand. The confinement and the HTTP part are the same for all.
enum class FetchKind : uint64_t {
  kResolve = 1,  // a name -> its documents, as an OCI layout without the layers
  kBlobs = 2,    // layers, each to its place in the output
  kPost = 3,     // the input is POSTed to a URL, whose status is told
};

struct WantedBlob {
  Digest digest;
  uint64_t size = 0;
  uint64_t offset = 0;  // in the output
};

// The job's input: header lines ("Name: value\n"), and behind them the body.
struct PostOrder {
  std::string url;
  uint64_t head_bytes = 0;
  uint64_t body_bytes = 0;
  std::vector<NetworkPrefix> networks;  // that it may lead to beside public addresses
  Duration time_limit = std::chrono::seconds(30);
};

struct FetchOrder {
  FetchKind kind = FetchKind::kResolve;
  std::string ref;                      // normalised name of the image
  RegistryLogin login;                  // for the registry of `ref` alone
  std::vector<std::string> plain_http;  // host[:port] that may be talked to without TLS
  ProxySettings proxies;
  Duration stall_timeout = std::chrono::seconds(30);
  Duration connect_timeout = std::chrono::seconds(10);
  uint64_t max_bytes = 0;         // of output
  HostAbility host;               // kResolve: which platform's image to take
  uint32_t at_once = 3;           // kBlobs
  std::vector<WantedBlob> blobs;  // kBlobs
  PostOrder post;                 // kPost

  std::string Encode() const;
  static std::optional<FetchOrder> Decode(std::string_view bytes);
};

// The index.json of a layout that holds one image, or one image's index: what kResolve tells last.
enum class TopKind { kIndex, kManifest };
std::string TopIndex(const Digest& digest, uint64_t size, TopKind kind);
// "blobs/sha256/<hex>"
std::string BlobName(const Digest& digest);

}  // namespace pulga
