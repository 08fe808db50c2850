// Sealing of secrets: AES-256-GCM with a random nonce of 96 bits for each sealing and a tag of 128.
// What a value belongs to is sealed with it, so that no row can be put in another's place. Pure but
// for the nonce. Any thread. Source: NIST SP 800-38D.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

inline constexpr size_t kSealKeyBytes = 32;
inline constexpr size_t kSealNonceBytes = 12;
inline constexpr size_t kSealTagBytes = 16;

// What goes in and comes out beside the key: `text` is the ciphertext with its tag behind it.
struct SealedText {
  std::string nonce;
  std::string text;
};

class SealKey {
 public:
  // 64 hex digits, lower case.
  static std::optional<SealKey> FromHex(std::string_view hex);

  // Names the key and tells nothing of it: 16 hex digits.
  const std::string& id() const { return id_; }
  SealedText Seal(std::string_view value, std::string_view belongs_to) const;
  // The same with a nonce of the caller's, which must never have been used with this key.
  SealedText SealWith(std::string_view nonce, std::string_view value,
                      std::string_view belongs_to) const;
  // Nothing when it was sealed with another key or for somebody else, or was changed since.
  std::optional<std::string> Open(const SealedText& sealed, std::string_view belongs_to) const;

 private:
  SealKey() = default;
  std::array<uint8_t, kSealKeyBytes> key_ = {};
  std::string id_;
};

}  // namespace pulga
