// SHA-256 and SHA-512 over a stream, and the grammar of digests ("sha256:<64 hex>").
// The only place that touches OpenSSL's digests in images/.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/layer_id.h"

namespace pulga {

enum class DigestAlgorithm { kSha256, kSha512 };

struct Digest {
  DigestAlgorithm algorithm = DigestAlgorithm::kSha256;
  std::string hex;  // lower case

  bool operator==(const Digest&) const = default;
  std::string ToString() const;  // "sha256:..."
};

// Lower-case hex of the right length only; other algorithms are nullopt.
std::optional<Digest> ParseDigest(std::string_view text);
bool IsSha256Hex(std::string_view text);

class Hasher {
 public:
  explicit Hasher(DigestAlgorithm algorithm);
  Hasher(Hasher&& other) noexcept;
  Hasher& operator=(Hasher&&) = delete;
  ~Hasher();
  void Update(std::string_view bytes);
  // Once.
  Digest Finish();

 private:
  DigestAlgorithm algorithm_;
  void* context_;  // SHA256_CTX or SHA512_CTX
};

std::string Sha256Hex(std::string_view bytes);
// ChainID(1) = diff_id; ChainID(n) = sha256("ChainID(n-1) diff_id"). `diff_id` is 64 hex digits.
LayerId NextChainId(const std::optional<LayerId>& parent, std::string_view diff_id);
// What an owner's first layers stand on, so that owners never share a directory, and page-cache
// inodes with it; nothing for the default owner, whose ids are the image's own ChainIDs.
std::optional<LayerId> ChainRootOf(std::string_view owner);

}  // namespace pulga
