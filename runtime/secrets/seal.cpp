#include "runtime/secrets/seal.h"

// Nettle and not OpenSSL: it is the plain functions alone, some 30 KiB, and an interface that is
// meant to be used so (docs/linking.md).
#include <nettle/gcm.h>
#include <nettle/memops.h>

#include <cstring>

#include "base/check.h"
#include "base/ids.h"
#include "base/text.h"
#include "images/digest.h"

namespace pulga {
namespace {

static_assert(kSealKeyBytes == AES256_KEY_SIZE && kSealNonceBytes == GCM_IV_SIZE &&
              kSealTagBytes == GCM_DIGEST_SIZE);

const uint8_t* Bytes(std::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}
uint8_t* Bytes(std::string& text) { return reinterpret_cast<uint8_t*>(text.data()); }

gcm_aes256_ctx Begin(const uint8_t* key, std::string_view nonce, std::string_view belongs_to) {
  gcm_aes256_ctx context;
  gcm_aes256_set_key(&context, key);
  gcm_aes256_set_iv(&context, nonce.size(), Bytes(nonce));
  gcm_aes256_update(&context, belongs_to.size(), Bytes(belongs_to));
  return context;
}

}  // namespace

std::optional<SealKey> SealKey::FromHex(std::string_view hex) {
  const auto raw = HexDecode(hex);
  if (!raw || raw->size() != kSealKeyBytes) return std::nullopt;
  SealKey key;
  memcpy(key.key_.data(), raw->data(), kSealKeyBytes);
  key.id_ = Sha256Hex("pulga seal key " + *raw).substr(0, 16);
  return key;
}

SealedText SealKey::Seal(std::string_view value, std::string_view belongs_to) const {
  std::string nonce(kSealNonceBytes, '\0');
  FillRandom(nonce.data(), nonce.size());
  return SealWith(nonce, value, belongs_to);
}

SealedText SealKey::SealWith(std::string_view nonce, std::string_view value,
                             std::string_view belongs_to) const {
  PULGA_CHECK(nonce.size() == kSealNonceBytes);
  SealedText sealed{std::string(nonce), std::string(value.size() + kSealTagBytes, '\0')};
  gcm_aes256_ctx context = Begin(key_.data(), nonce, belongs_to);
  gcm_aes256_encrypt(&context, value.size(), Bytes(sealed.text), Bytes(value));
  gcm_aes256_digest(&context, kSealTagBytes, Bytes(sealed.text) + value.size());
  return sealed;
}

std::optional<std::string> SealKey::Open(const SealedText& sealed,
                                         std::string_view belongs_to) const {
  if (sealed.nonce.size() != kSealNonceBytes || sealed.text.size() < kSealTagBytes) {
    return std::nullopt;
  }
  const size_t size = sealed.text.size() - kSealTagBytes;
  std::string value(size, '\0');
  uint8_t tag[kSealTagBytes];
  gcm_aes256_ctx context = Begin(key_.data(), sealed.nonce, belongs_to);
  gcm_aes256_decrypt(&context, size, Bytes(value), Bytes(sealed.text));
  gcm_aes256_digest(&context, sizeof tag, tag);
  if (memeql_sec(tag, sealed.text.data() + size, sizeof tag) != 1) return std::nullopt;
  return value;
}

}  // namespace pulga
