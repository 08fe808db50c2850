// An image in a registry: its documents for one platform, its layers. Distribution API v2 over an
// ExchangeRunner. What it hands out is checked against the digests that lead to it; its user
// checks again. Blocks. On failure: what was written so far stays in the output, told by nobody.
// Source: distribution spec; images/README.md.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "images/fetch/exchange.h"
#include "images/fetch/fetch_wire.h"
#include "images/image_ref.h"
#include "images/manifest.h"

namespace pulga {

// Where bytes and news go.
class FetchSink {
 public:
  virtual ~FetchSink() = default;
  // `bytes` become the member `name` of the layout being put together.
  virtual Status Document(const std::string& name, const std::string& bytes) = 0;
  virtual Status WriteBlob(uint64_t offset, std::string_view bytes) = 0;
  // The whole blob is at its place, and hashes to what it should.
  virtual Status BlobDone(const WantedBlob& blob) = 0;
  // So many bytes of the order's `blob`-th are here.
  virtual Status Progress(size_t blob, uint64_t bytes) = 0;
};

// https://HOST, http only where `plain_http` names it; HOST is where the name's registry is served.
Result<Url> RegistryUrl(const ImageRef& ref, const std::vector<std::string>& plain_http);

class RegistryClient {
 public:
  RegistryClient(const FetchOrder& order, HttpTransport& transport, const Clock& clock,
                 RetryRules rules, FetchSink& sink);
  Status Run();

 private:
  Status Resolve();
  Status FetchBlobs();
  // The manifest of the best platform below `descriptor`'s index.
  Result<Descriptor> Choose(const std::vector<Descriptor>& manifests) const;
  Result<std::string> FetchManifest(const std::string& reference, const Digest* expected,
                                    std::optional<uint64_t> size);
  Result<std::string> FetchDocument(ExchangeOrder order, const Digest* expected);
  Status StoreDocument(const Digest& digest, const std::string& bytes);

  const FetchOrder& order_;
  HttpTransport& transport_;
  const Clock& clock_;
  RetryRules rules_;
  FetchSink& sink_;
  RegistrySession session_;
};

}  // namespace pulga
