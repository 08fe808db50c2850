#include "base/ids.h"

#include <sys/random.h>

#include <array>
#include <cerrno>

#include "base/check.h"
#include "base/text.h"

namespace pulga {
namespace {
constexpr char kHex[] = "0123456789abcdef";
}

void FillRandom(void* out, size_t size) {
  auto* at = static_cast<unsigned char*>(out);
  while (size > 0) {
    const ssize_t n = getrandom(at, size, 0);
    if (n < 0 && errno == EINTR) continue;
    PULGA_CHECK(n > 0);
    at += n;
    size -= static_cast<size_t>(n);
  }
}

std::string RandomHex(size_t bytes) {
  std::string raw(bytes, '\0');
  FillRandom(raw.data(), raw.size());
  return HexEncode(raw);
}

// A call id is made for every request: one getrandom serves 64 of them.
std::string RandomUuid() {
  thread_local std::array<char, 1024> pool;
  thread_local size_t used = pool.size();
  if (used == pool.size()) {
    FillRandom(pool.data(), pool.size());
    used = 0;
  }
  auto* raw = reinterpret_cast<unsigned char*>(pool.data() + used);
  used += 16;
  raw[6] = static_cast<unsigned char>((raw[6] & 0x0f) | 0x40);
  raw[8] = static_cast<unsigned char>((raw[8] & 0x3f) | 0x80);
  std::string uuid(36, '-');
  size_t at = 0;
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) ++at;
    uuid[at++] = kHex[raw[i] >> 4];
    uuid[at++] = kHex[raw[i] & 15];
  }
  return uuid;
}

}  // namespace pulga
