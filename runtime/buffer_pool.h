// BufferPool: the 16 KiB blocks http answers are read into, kept between requests. Freeing one of
// that size to the allocator makes it consolidate its heap each time. Loop thread.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

namespace pulga {

class BufferPool {
 public:
  static constexpr size_t kBytes = 16 * 1024;
  using Buffer = std::unique_ptr<char[]>;

  Buffer Take() {
    if (free_.empty()) return Buffer(new char[kBytes]);
    Buffer buffer = std::move(free_.back());
    free_.pop_back();
    return buffer;
  }
  void Give(Buffer buffer) {
    if (free_.size() < kMostKept) free_.push_back(std::move(buffer));
  }

 private:
  static constexpr size_t kMostKept = 64;
  std::vector<Buffer> free_;
};

}  // namespace pulga
