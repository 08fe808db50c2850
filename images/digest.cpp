#include "images/digest.h"

// These and not EVP: behind EVP stand all of OpenSSL's algorithms, 1.5 MB of the daemon's memory,
// where the two we need are 20 KB. OpenSSL 3 deprecates them without an end in sight; the day they
// go, only this file changes.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include <utility>

#include "base/check.h"
#include "base/owner.h"
#include "base/text.h"

namespace pulga {
namespace {

bool IsLowerHex(std::string_view text) {
  for (const char c : text) {
    if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) return false;
  }
  return true;
}

SHA256_CTX* Sha256(void* context) { return static_cast<SHA256_CTX*>(context); }
SHA512_CTX* Sha512(void* context) { return static_cast<SHA512_CTX*>(context); }

constexpr std::string_view kSha256Prefix = "sha256:";
constexpr std::string_view kSha512Prefix = "sha512:";

}  // namespace

std::string Digest::ToString() const {
  return std::string(algorithm == DigestAlgorithm::kSha256 ? kSha256Prefix : kSha512Prefix) + hex;
}

bool IsSha256Hex(std::string_view text) { return text.size() == 64 && IsLowerHex(text); }

std::optional<Digest> ParseDigest(std::string_view text) {
  if (text.starts_with(kSha256Prefix)) {
    const std::string_view hex = text.substr(kSha256Prefix.size());
    if (IsSha256Hex(hex)) return Digest{DigestAlgorithm::kSha256, std::string(hex)};
  } else if (text.starts_with(kSha512Prefix)) {
    const std::string_view hex = text.substr(kSha512Prefix.size());
    if (hex.size() == 128 && IsLowerHex(hex)) {
      return Digest{DigestAlgorithm::kSha512, std::string(hex)};
    }
  }
  return std::nullopt;
}

Hasher::Hasher(DigestAlgorithm algorithm) : algorithm_(algorithm), context_(nullptr) {
  if (algorithm_ == DigestAlgorithm::kSha256) {
    context_ = new SHA256_CTX;
    PULGA_CHECK(SHA256_Init(Sha256(context_)) == 1);
  } else {
    context_ = new SHA512_CTX;
    PULGA_CHECK(SHA512_Init(Sha512(context_)) == 1);
  }
}

Hasher::Hasher(Hasher&& other) noexcept
    : algorithm_(other.algorithm_), context_(std::exchange(other.context_, nullptr)) {}

Hasher::~Hasher() {
  if (algorithm_ == DigestAlgorithm::kSha256) {
    delete Sha256(context_);
  } else {
    delete Sha512(context_);
  }
}

void Hasher::Update(std::string_view bytes) {
  const int done = algorithm_ == DigestAlgorithm::kSha256
                       ? SHA256_Update(Sha256(context_), bytes.data(), bytes.size())
                       : SHA512_Update(Sha512(context_), bytes.data(), bytes.size());
  PULGA_CHECK(done == 1);
}

Digest Hasher::Finish() {
  unsigned char raw[SHA512_DIGEST_LENGTH];
  size_t size = SHA256_DIGEST_LENGTH;
  if (algorithm_ == DigestAlgorithm::kSha256) {
    PULGA_CHECK(SHA256_Final(raw, Sha256(context_)) == 1);
  } else {
    size = SHA512_DIGEST_LENGTH;
    PULGA_CHECK(SHA512_Final(raw, Sha512(context_)) == 1);
  }
  return {algorithm_, HexEncode(std::string_view(reinterpret_cast<const char*>(raw), size))};
}

std::string Sha256Hex(std::string_view bytes) {
  Hasher hasher(DigestAlgorithm::kSha256);
  hasher.Update(bytes);
  return hasher.Finish().hex;
}

std::optional<LayerId> ChainRootOf(std::string_view owner) {
  if (owner == kDefaultOwner) return std::nullopt;
  return LayerId::FromHex(Sha256Hex("pulga owner " + std::string(owner)));
}

LayerId NextChainId(const std::optional<LayerId>& parent, std::string_view diff_id) {
  std::string hex(diff_id);
  if (parent) {
    hex = Sha256Hex(std::string(kSha256Prefix) + parent->Hex() + " " + std::string(kSha256Prefix) +
                    hex);
  }
  const auto id = LayerId::FromHex(hex);
  PULGA_CHECK(id.has_value());
  return *id;
}

}  // namespace pulga
