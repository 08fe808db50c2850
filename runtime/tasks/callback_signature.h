// CallbackSignature: headers by which a receiver knows that a callback comes from this board and is
// as it was sent: HMAC-SHA256 of its id, its time and its body under a key that both have.
// Pure but for ReadSigningKey, which blocks. Source: Standard Webhooks 1.0, symmetric signatures.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "runtime/invocation.h"

namespace pulga {

// The bytes of a key written as "whsec_" and base64, of 24 to 64 bytes. kInvalidArgument.
Result<std::string> ParseSigningKey(std::string_view text);
// Of a file; "": no key, and nothing is signed. Errors name the setting callback-key.
Result<std::string> ReadSigningKey(const std::string& path);

// Of one try: webhook-id, webhook-timestamp, webhook-signature.
HeaderList SignatureHeaders(const std::string& key, const std::string& id, int64_t unix_seconds,
                            std::string_view body);

}  // namespace pulga
