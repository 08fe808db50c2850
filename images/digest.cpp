#include "images/digest.h"

#include <openssl/evp.h>

#include <utility>

#include "base/check.h"
#include "base/text.h"

namespace pulga {
namespace {

bool IsLowerHex(std::string_view text) {
  for (const char c : text) {
    if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) return false;
  }
  return true;
}

EVP_MD_CTX* Context(void* context) { return static_cast<EVP_MD_CTX*>(context); }

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

Hasher::Hasher(DigestAlgorithm algorithm) : algorithm_(algorithm), context_(EVP_MD_CTX_new()) {
  PULGA_CHECK(context_ != nullptr);
  const EVP_MD* md = algorithm == DigestAlgorithm::kSha256 ? EVP_sha256() : EVP_sha512();
  PULGA_CHECK(EVP_DigestInit_ex(Context(context_), md, nullptr) == 1);
}

Hasher::Hasher(Hasher&& other) noexcept
    : algorithm_(other.algorithm_), context_(std::exchange(other.context_, nullptr)) {}

Hasher::~Hasher() { EVP_MD_CTX_free(Context(context_)); }

void Hasher::Update(std::string_view bytes) {
  PULGA_CHECK(EVP_DigestUpdate(Context(context_), bytes.data(), bytes.size()) == 1);
}

Digest Hasher::Finish() {
  unsigned char raw[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  PULGA_CHECK(EVP_DigestFinal_ex(Context(context_), raw, &size) == 1);
  return {algorithm_, HexEncode(std::string_view(reinterpret_cast<const char*>(raw), size))};
}

std::string Sha256Hex(std::string_view bytes) {
  Hasher hasher(DigestAlgorithm::kSha256);
  hasher.Update(bytes);
  return hasher.Finish().hex;
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
