#include "images/fetch/fetch_wire.h"

#include <algorithm>

#include "base/unpack_job.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

constexpr std::string_view kMagic = "pulga-fetch-1";
constexpr uint64_t kMaxPlainHosts = 256;
constexpr uint64_t kMaxAtOnce = 16;
constexpr uint64_t kMaxMillis = 24 * 3600 * 1000;

uint64_t Millis(Duration duration) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

Duration FromMillis(uint64_t millis) {
  return std::chrono::milliseconds(std::min(millis, kMaxMillis));
}

void PutLogin(const RegistryLogin& login, FieldWriter& out) {
  out.PutBytes(login.username);
  out.PutBytes(login.password);
  out.PutBytes(login.identity_token);
  out.PutBytes(login.registry_token);
}

RegistryLogin ReadLogin(FieldReader& in) {
  RegistryLogin login;
  login.username = in.Bytes();
  login.password = in.Bytes();
  login.identity_token = in.Bytes();
  login.registry_token = in.Bytes();
  return login;
}

void PutHost(const HostAbility& host, FieldWriter& out) {
  out.PutBytes(host.platform.os);
  out.PutBytes(host.platform.architecture);
  out.PutBytes(host.platform.variant);
  out.PutU64(host.arm32 == Arm32::kRuns ? 1 : 0);
}

HostAbility ReadHost(FieldReader& in) {
  HostAbility host;
  host.platform.os = in.Bytes();
  host.platform.architecture = in.Bytes();
  host.platform.variant = in.Bytes();
  host.arm32 = in.U64() == 1 ? Arm32::kRuns : Arm32::kNot;
  return host;
}

void PutPost(const PostOrder& post, FieldWriter& out) {
  out.PutBytes(post.url);
  out.PutU64(post.head_bytes);
  out.PutU64(post.body_bytes);
  out.PutU64(Millis(post.time_limit));
  out.PutU64(post.networks.size());
  for (const NetworkPrefix& network : post.networks) {
    out.PutBytes({reinterpret_cast<const char*>(network.base.data()), network.base.size()});
    out.PutU64(static_cast<uint64_t>(network.bits));
  }
}

std::optional<PostOrder> ReadPost(FieldReader& in) {
  PostOrder post;
  post.url = in.Bytes();
  post.head_bytes = in.U64();
  post.body_bytes = in.U64();
  post.time_limit = FromMillis(in.U64());
  const uint64_t networks = in.U64();
  if (networks > kMaxNetworks) return std::nullopt;
  for (uint64_t i = 0; i < networks && in.ok(); ++i) {
    NetworkPrefix network;
    const std::string_view base = in.Bytes();
    const uint64_t bits = in.U64();
    if (base.size() != network.base.size() || bits > 128) return std::nullopt;
    std::copy(base.begin(), base.end(), network.base.begin());
    network.bits = static_cast<int>(bits);
    post.networks.push_back(network);
  }
  return post;
}

}  // namespace

std::string FetchOrder::Encode() const {
  FieldWriter out;
  out.PutBytes(kMagic);
  out.PutU64(static_cast<uint64_t>(kind));
  out.PutBytes(ref);
  PutLogin(login, out);
  out.PutU64(plain_http.size());
  for (const std::string& host_port : plain_http) out.PutBytes(host_port);
  out.PutBytes(proxies.https_proxy);
  out.PutBytes(proxies.http_proxy);
  out.PutBytes(proxies.no_proxy);
  out.PutU64(Millis(stall_timeout));
  out.PutU64(Millis(connect_timeout));
  out.PutU64(max_bytes);
  PutHost(host, out);
  out.PutU64(at_once);
  out.PutU64(blobs.size());
  for (const WantedBlob& blob : blobs) {
    out.PutBytes(blob.digest.ToString());
    out.PutU64(blob.size);
    out.PutU64(blob.offset);
  }
  PutPost(post, out);
  return out.bytes();
}

std::optional<FetchOrder> FetchOrder::Decode(std::string_view bytes) {
  FieldReader in(bytes);
  if (in.Bytes() != kMagic) return std::nullopt;
  FetchOrder order;
  const uint64_t kind = in.U64();
  if (kind < 1 || kind > 3) return std::nullopt;
  order.kind = static_cast<FetchKind>(kind);
  order.ref = in.Bytes();
  order.login = ReadLogin(in);
  const uint64_t hosts = in.U64();
  if (hosts > kMaxPlainHosts) return std::nullopt;
  for (uint64_t i = 0; i < hosts && in.ok(); ++i) order.plain_http.emplace_back(in.Bytes());
  order.proxies.https_proxy = in.Bytes();
  order.proxies.http_proxy = in.Bytes();
  order.proxies.no_proxy = in.Bytes();
  order.stall_timeout = FromMillis(in.U64());
  order.connect_timeout = FromMillis(in.U64());
  order.max_bytes = in.U64();
  order.host = ReadHost(in);
  const uint64_t at_once = in.U64();
  if (at_once < 1 || at_once > kMaxAtOnce) return std::nullopt;
  order.at_once = static_cast<uint32_t>(at_once);
  const uint64_t blobs = in.U64();
  if (blobs > kMaxLayers) return std::nullopt;
  for (uint64_t i = 0; i < blobs && in.ok(); ++i) {
    const auto digest = ParseDigest(in.Bytes());
    WantedBlob blob{digest.value_or(Digest{}), in.U64(), 0};
    blob.offset = in.U64();
    if (!digest || blob.offset > order.max_bytes || blob.size > order.max_bytes - blob.offset) {
      return std::nullopt;
    }
    order.blobs.push_back(std::move(blob));
  }
  auto post = ReadPost(in);
  if (!post || !in.AtEnd()) return std::nullopt;
  order.post = std::move(*post);
  return order;
}

std::string TopIndex(const Digest& digest, uint64_t size, TopKind kind) {
  return std::string(
             R"({"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.)") +
         (kind == TopKind::kIndex ? "index" : "manifest") + R"(.v1+json","digest":")" +
         digest.ToString() + R"(","size":)" + std::to_string(size) + "}]}";
}

std::string BlobName(const Digest& digest) {
  const bool sha256 = digest.algorithm == DigestAlgorithm::kSha256;
  return std::string("blobs/") + (sha256 ? "sha256/" : "sha512/") + digest.hex;
}

}  // namespace pulga
