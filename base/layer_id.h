// LayerId: the ChainID of an unpacked layer, the key under which it is stored.
// ChainID(1) = diffID(1); ChainID(n) = sha256("ChainID(n-1) diffID(n)") (OCI image spec, config).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "base/text.h"

namespace pulga {

struct LayerId {
  std::array<uint8_t, 32> bytes = {};

  auto operator<=>(const LayerId&) const = default;
  // 64 lower-case hex digits, the directory's name.
  std::string Hex() const {
    return HexEncode(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  static std::optional<LayerId> FromHex(std::string_view hex) {
    const auto raw = HexDecode(hex);
    if (!raw || raw->size() != 32) return std::nullopt;
    LayerId id;
    memcpy(id.bytes.data(), raw->data(), 32);
    return id;
  }
};

}  // namespace pulga
