#include "images/fetch/registry_client.h"

#include <algorithm>
#include <memory>

#include "base/text.h"
#include "base/units.h"
#include "images/image_config.h"

namespace pulga {
namespace {

// Where Docker's own names are served; every Docker client knows these two.
constexpr std::string_view kHubDomain = "docker.io";
constexpr std::string_view kHubHost = "registry-1.docker.io";
constexpr int kMaxIndexDepth = 4;
constexpr uint64_t kProgressStep = 128 * 1024;

constexpr const char* kAcceptManifests =
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json";

Digest DigestOf(DigestAlgorithm algorithm, std::string_view bytes) {
  Hasher hasher(algorithm);
  hasher.Update(bytes);
  return hasher.Finish();
}

Error WrongDigest(const std::string& what, const Digest& found, const Digest& expected) {
  return {Code::kInvalidArgument, 0,
          what + ": what the registry sends is " + found.ToString() + ", expected " +
              expected.ToString()};
}

class DocumentSink final : public BodySink {
 public:
  void Restart() override { bytes.clear(); }
  Status Take(std::string_view more) override {
    bytes += more;
    return OkStatus();
  }
  std::string bytes;
};

// One layer on its way to its place: written and hashed as it comes.
class BlobSink final : public BodySink {
 public:
  BlobSink(const WantedBlob& blob, size_t index, FetchSink& sink)
      : blob_(blob), index_(index), sink_(sink), hasher_(std::in_place, blob.digest.algorithm) {}

  void Restart() override {
    at_ = told_ = 0;
    hasher_.emplace(blob_.digest.algorithm);
  }

  Status Take(std::string_view bytes) override {
    PULGA_RETURN_IF_ERROR(sink_.WriteBlob(blob_.offset + at_, bytes));
    hasher_->Update(bytes);
    at_ += bytes.size();
    if (at_ == blob_.size) return Complete();
    if (at_ - told_ < kProgressStep) return OkStatus();
    told_ = at_;
    return sink_.Progress(index_, at_);
  }

  Status Complete() {
    const Digest found = hasher_->Finish();
    if (found != blob_.digest) return WrongDigest("its content", found, blob_.digest);
    PULGA_RETURN_IF_ERROR(sink_.Progress(index_, at_));
    return sink_.BlobDone(blob_);
  }

 private:
  const WantedBlob& blob_;
  size_t index_;
  FetchSink& sink_;
  std::optional<Hasher> hasher_;
  uint64_t at_ = 0;
  uint64_t told_ = 0;
};

std::string PlatformNames(const std::vector<Descriptor>& manifests) {
  constexpr size_t kMost = 12;
  std::string out;
  size_t named = 0;
  for (const Descriptor& one : manifests) {
    if (!one.platform) continue;
    if (++named > kMost) return out + ", ...";
    out += (out.empty() ? "" : ", ") + PlatformName(*one.platform);
  }
  return out.empty() ? "no platform that it names" : out;
}

}  // namespace

Result<Url> RegistryUrl(const ImageRef& ref, const std::vector<std::string>& plain_http) {
  const std::string host = ref.domain == kHubDomain ? std::string(kHubHost) : ToLower(ref.domain);
  const bool plain = std::find(plain_http.begin(), plain_http.end(), host) != plain_http.end();
  return ParseUrl((plain ? "http://" : "https://") + host + "/v2/" + ref.repository + "/");
}

RegistryClient::RegistryClient(const FetchOrder& order, HttpTransport& transport,
                               const Clock& clock, RetryRules rules, FetchSink& sink)
    : order_(order), transport_(transport), clock_(clock), rules_(rules), sink_(sink) {}

Status RegistryClient::Run() {
  PULGA_ASSIGN_OR_RETURN(const ImageRef ref, ParseImageRef(order_.ref));
  PULGA_ASSIGN_OR_RETURN(session_.base, RegistryUrl(ref, order_.plain_http));
  session_.repository = ref.repository;
  session_.login = order_.login;
  for (const std::string& host : order_.plain_http) {
    // As Url::HostPort() writes it.
    const auto url = ParseUrl("http://" + host);
    if (url.ok()) session_.plain_http.insert(url->HostPort());
  }
  return order_.kind == FetchKind::kResolve ? Resolve() : FetchBlobs();
}

Result<std::string> RegistryClient::FetchDocument(ExchangeOrder order, const Digest* expected) {
  DocumentSink sink;
  const std::string what = order.what;
  Exchange exchange(std::move(order), sink);
  Exchange* const one[] = {&exchange};
  ExchangeRunner runner(transport_, clock_, rules_, session_);
  PULGA_RETURN_IF_ERROR(runner.Run(one, 1));
  if (expected != nullptr) {
    const Digest found = DigestOf(expected->algorithm, sink.bytes);
    if (found != *expected) return WrongDigest(what, found, *expected);
  }
  return std::move(sink.bytes);
}

Result<std::string> RegistryClient::FetchManifest(const std::string& reference,
                                                  const Digest* expected,
                                                  std::optional<uint64_t> size) {
  ExchangeOrder order;
  order.what = "manifest " + reference;
  order.url = session_.base;
  order.url.target += "manifests/" + reference;
  order.headers.push_back(kAcceptManifests);
  order.most_bytes = kMaxManifestBytes;
  if (size && *size > kMaxManifestBytes) {
    return Error{Code::kTooLarge, 0,
                 order.what + ": " + HumanBytes(*size) + ", " + HumanBytes(kMaxManifestBytes) +
                     " is the limit"};
  }
  order.size = size;
  return FetchDocument(std::move(order), expected);
}

Status RegistryClient::StoreDocument(const Digest& digest, const std::string& bytes) {
  return sink_.Document(BlobName(digest), bytes);
}

Result<Descriptor> RegistryClient::Choose(const std::vector<Descriptor>& manifests) const {
  const Descriptor* best = nullptr;
  int best_rank = 0;
  for (const Descriptor& one : manifests) {
    constexpr int kUnnamed = 1000;  // its configuration will tell
    const auto rank =
        one.platform ? PlatformRank(order_.host, *one.platform) : std::optional(kUnnamed);
    if (!rank || (best != nullptr && *rank >= best_rank)) continue;
    best = &one;
    best_rank = *rank;
  }
  if (best != nullptr) return *best;
  if (manifests.empty()) {
    return Error{Code::kInvalidArgument, 0, "the registry's index names no image"};
  }
  return Error{Code::kUnsupported, 0,
               "this image is there for " + PlatformNames(manifests) + ", this board is " +
                   PlatformName(order_.host.platform)};
}

Status RegistryClient::Resolve() {
  PULGA_ASSIGN_OR_RETURN(const ImageRef ref, ParseImageRef(order_.ref));
  std::optional<Digest> wanted = ParseDigest(ref.digest);
  PULGA_ASSIGN_OR_RETURN(std::string bytes, FetchManifest(wanted ? wanted->ToString() : ref.tag,
                                                          wanted ? &*wanted : nullptr, {}));
  Digest digest = wanted ? *wanted : DigestOf(DigestAlgorithm::kSha256, bytes);
  std::string top;
  for (int depth = 0;; ++depth) {
    PULGA_ASSIGN_OR_RETURN(const OciDocument document, ParseOciDocument(bytes));
    if (top.empty()) {
      top =
          TopIndex(digest, bytes.size(), document.is_index ? TopKind::kIndex : TopKind::kManifest);
    }
    PULGA_RETURN_IF_ERROR(StoreDocument(digest, bytes));
    if (document.is_index) {
      if (depth >= kMaxIndexDepth) {
        return Error{Code::kInvalidArgument, 0, "indexes are nested too deep"};
      }
      PULGA_ASSIGN_OR_RETURN(const Descriptor next, Choose(document.manifests));
      PULGA_ASSIGN_OR_RETURN(bytes, FetchManifest(next.digest.ToString(), &next.digest, next.size));
      digest = next.digest;
      continue;
    }
    const Descriptor& config = document.config;
    ExchangeOrder order;
    order.what = "configuration " + config.digest.ToString();
    order.url = session_.base;
    order.url.target += "blobs/" + config.digest.ToString();
    order.most_bytes = kMaxConfigBytes;
    order.size = config.size;
    if (config.size > kMaxConfigBytes) {
      return Error{Code::kTooLarge, 0,
                   order.what + ": " + HumanBytes(config.size) + ", " +
                       HumanBytes(kMaxConfigBytes) + " is the limit"};
    }
    PULGA_ASSIGN_OR_RETURN(const std::string json, FetchDocument(std::move(order), &config.digest));
    PULGA_RETURN_IF_ERROR(StoreDocument(config.digest, json));
    PULGA_RETURN_IF_ERROR(sink_.Document("oci-layout", R"({"imageLayoutVersion":"1.0.0"})"));
    return sink_.Document("index.json", top);
  }
}

Status RegistryClient::FetchBlobs() {
  std::vector<std::unique_ptr<BlobSink>> sinks;
  std::vector<std::unique_ptr<Exchange>> exchanges;
  std::vector<Exchange*> all;
  for (size_t i = 0; i < order_.blobs.size(); ++i) {
    const WantedBlob& blob = order_.blobs[i];
    sinks.push_back(std::make_unique<BlobSink>(blob, i, sink_));
    ExchangeOrder order;
    order.what = "layer " + blob.digest.ToString();
    order.url = session_.base;
    order.url.target += "blobs/" + blob.digest.ToString();
    order.most_bytes = blob.size;
    order.size = blob.size;
    if (blob.size == 0) {  // nothing to ask for
      PULGA_RETURN_IF_ERROR(sinks.back()->Complete());
      continue;
    }
    exchanges.push_back(std::make_unique<Exchange>(std::move(order), *sinks.back()));
    all.push_back(exchanges.back().get());
  }
  ExchangeRunner runner(transport_, clock_, rules_, session_);
  return runner.Run(all, order_.at_once);
}

}  // namespace pulga
