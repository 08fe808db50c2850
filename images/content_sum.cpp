#include "images/content_sum.h"

#include <endian.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>

namespace pulga {
namespace {

constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15;  // odd, bits well mixed

uint64_t Step(uint64_t lane, uint64_t word) { return std::rotl((lane ^ word) * kMultiplier, 29); }

}  // namespace

// Four independent lanes: one multiplication after the other would be all that costs time.
void ContentSum::Mix(const char* block) {
  for (size_t i = 0; i < lanes_.size(); ++i) {
    uint64_t word;
    memcpy(&word, block + 8 * i, sizeof word);
    lanes_[i] = Step(lanes_[i], le64toh(word));
  }
}

void ContentSum::Update(std::string_view bytes) {
  const size_t held = size_ % held_.size();
  size_ += bytes.size();
  if (held != 0) {
    const size_t taken = std::min(held_.size() - held, bytes.size());
    memcpy(held_.data() + held, bytes.data(), taken);
    bytes.remove_prefix(taken);
    if (held + taken < held_.size()) return;
    Mix(held_.data());
  }
  for (; bytes.size() >= held_.size(); bytes.remove_prefix(held_.size())) Mix(bytes.data());
  if (!bytes.empty()) memcpy(held_.data(), bytes.data(), bytes.size());
}

uint64_t ContentSum::Finish() const {
  ContentSum last = *this;
  const size_t held = size_ % held_.size();
  std::fill(last.held_.begin() + static_cast<ptrdiff_t>(held), last.held_.end(), '\0');
  last.Mix(last.held_.data());
  uint64_t sum = size_;
  for (const uint64_t lane : last.lanes_) sum = Step(sum, lane ^ lane >> 32);
  return sum ^ sum >> 31;
}

}  // namespace pulga
