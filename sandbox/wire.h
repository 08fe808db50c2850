// Writing and reading messages made of fixed structs and bounded blobs, between our own processes.
// The reader never trusts a length: whatever does not fit makes it fail for good (ok() == false).
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace pulga {

class WireWriter {
 public:
  template <typename Pod>
  void Put(const Pod& pod) {
    static_assert(std::is_trivially_copyable_v<Pod>);
    out_.append(reinterpret_cast<const char*>(&pod), sizeof pod);
  }
  void PutBytes(std::string_view bytes) { out_.append(bytes); }
  // Each string with its terminating NUL.
  void PutStrings(const std::vector<std::string>& strings) {
    for (const std::string& s : strings) out_.append(s.c_str(), s.size() + 1);
  }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(out_)); }

 private:
  std::string out_;
};

inline size_t WireSizeOf(const std::vector<std::string>& strings) {
  size_t size = 0;
  for (const std::string& s : strings) size += s.size() + 1;
  return size;
}

class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : rest_(bytes) {}

  template <typename Pod>
  Pod Take() {
    static_assert(std::is_trivially_copyable_v<Pod>);
    Pod pod = {};
    const std::string_view raw = TakeBytes(sizeof pod);
    if (ok_) memcpy(&pod, raw.data(), sizeof pod);
    return pod;
  }
  std::string_view TakeBytes(size_t size) {
    if (!ok_ || size > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return out;
  }
  // Exactly `count` NUL-terminated strings in exactly `size` bytes.
  std::vector<std::string> TakeStrings(size_t count, size_t size) {
    std::vector<std::string> out;
    std::string_view raw = TakeBytes(size);
    while (ok_ && !raw.empty()) {
      const size_t end = raw.find('\0');
      if (end == std::string_view::npos || out.size() == count) {
        ok_ = false;
        break;
      }
      out.emplace_back(raw.substr(0, end));
      raw.remove_prefix(end + 1);
    }
    if (out.size() != count) ok_ = false;
    return out;
  }
  bool ok() const { return ok_; }
  bool finished() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace pulga
