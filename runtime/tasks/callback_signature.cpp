#include "runtime/tasks/callback_signature.h"

#include <nettle/hmac.h>

#include "base/file_io.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr std::string_view kPrefix = "whsec_";
constexpr size_t kLeastBytes = 24;
constexpr size_t kMostBytes = 64;
constexpr size_t kMostFile = 4096;

void Update(hmac_sha256_ctx* context, std::string_view bytes) {
  hmac_sha256_update(context, bytes.size(), reinterpret_cast<const uint8_t*>(bytes.data()));
}

}  // namespace

Result<std::string> ParseSigningKey(std::string_view text) {
  while (text.ends_with('\n') || text.ends_with('\r')) text.remove_suffix(1);
  if (text.starts_with(kPrefix)) {
    const auto key = Base64Decode(text.substr(kPrefix.size()));
    if (key && key->size() >= kLeastBytes && key->size() <= kMostBytes) return *key;
  }
  return Error{Code::kInvalidArgument, 0,
               "holds no key like whsec_BASE64, of 24 to 64 bytes in base64"};
}

Result<std::string> ReadSigningKey(const std::string& path) {
  if (path.empty()) return std::string();
  auto text = ReadFile(path, kMostFile);
  if (!text.ok()) return Prefix("callback-key", text.error());
  auto key = ParseSigningKey(*text);
  if (!key.ok()) return Prefix("callback-key: " + path, key.error());
  return key;
}

HeaderList SignatureHeaders(const std::string& key, const std::string& id, int64_t unix_seconds,
                            std::string_view body) {
  const std::string time = std::to_string(unix_seconds);
  hmac_sha256_ctx context;
  hmac_sha256_set_key(&context, key.size(), reinterpret_cast<const uint8_t*>(key.data()));
  Update(&context, id + "." + time + ".");
  Update(&context, body);
  std::string digest(SHA256_DIGEST_SIZE, '\0');
  hmac_sha256_digest(&context, digest.size(), reinterpret_cast<uint8_t*>(digest.data()));
  return {{"webhook-id", id},
          {"webhook-timestamp", time},
          {"webhook-signature", "v1," + Base64Encode(digest)}};
}

}  // namespace pulga
