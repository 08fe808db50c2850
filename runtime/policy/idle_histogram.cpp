#include "runtime/policy/idle_histogram.h"

#include <algorithm>
#include <vector>

#include "base/text.h"

namespace pulga {
namespace {

constexpr uint32_t kMost = 255;

Error BadText(std::string_view text) {
  return {Code::kInvalidArgument, 0, "not an idle histogram: \"" + Printable(text, 40) + "\""};
}

}  // namespace

void IdleHistogram::Add(Duration idle) {
  if (observations() >= kMost) Halve();
  if (idle >= kRange) {
    ++beyond_;
    return;
  }
  ++At(static_cast<size_t>(std::max(idle, Duration::zero()) / kBin));
  ++inside_;
}

uint8_t& IdleHistogram::At(size_t bin) {
  if (bin >= counts_.size()) counts_.resize(bin + 1);
  return counts_[bin];
}

void IdleHistogram::Halve() {
  inside_ = 0;
  for (uint8_t& count : counts_) {
    count /= 2;
    inside_ = static_cast<uint8_t>(inside_ + count);
  }
  while (!counts_.empty() && counts_.back() == 0) counts_.pop_back();
  beyond_ /= 2;
}

size_t IdleHistogram::Percentile(uint32_t percent) const {
  const uint32_t wanted = std::max<uint32_t>(1, (inside_ * percent + 99) / 100);
  uint32_t seen = 0;
  for (size_t bin = 0; bin < counts_.size(); ++bin) {
    seen += counts_[bin];
    if (seen >= wanted) return bin;
  }
  return 0;
}

bool IdleHistogram::Concentrated(double cv) const {
  if (inside_ == 0) return false;
  uint64_t squares = 0;
  for (const uint8_t count : counts_) squares += uint64_t{count} * count;
  // The variance over the mean's square, without either.
  const double variation =
      static_cast<double>(kBins * squares) / static_cast<double>(inside_ * inside_) - 1;
  return variation >= cv * cv;
}

std::string IdleHistogram::Serialise() const {
  std::string text = std::to_string(beyond_) + ";";
  for (size_t bin = 0; bin < counts_.size(); ++bin) {
    if (counts_[bin] == 0) continue;
    if (text.back() != ';') text += ',';
    text += std::to_string(bin) + "*" + std::to_string(counts_[bin]);
  }
  return text;
}

Result<IdleHistogram> IdleHistogram::Parse(std::string_view text) {
  const std::vector<std::string_view> halves = Split(text, ';');
  if (halves.size() != 2) return BadText(text);
  const auto beyond = ParseUint(halves[0], kMost);
  if (!beyond) return BadText(text);
  IdleHistogram out;
  out.beyond_ = static_cast<uint8_t>(*beyond);
  if (halves[1].empty()) return out;
  for (const std::string_view entry : Split(halves[1], ',')) {
    const std::vector<std::string_view> parts = Split(entry, '*');
    if (parts.size() != 2) return BadText(text);
    const auto bin = ParseUint(parts[0], kBins - 1);
    const auto count = ParseUint(parts[1], kMost);
    if (!bin || !count || *count == 0 || out.CountAt(*bin) != 0) return BadText(text);
    if (out.observations() + *count > kMost) return BadText(text);
    out.At(*bin) = static_cast<uint8_t>(*count);
    out.inside_ = static_cast<uint8_t>(out.inside_ + *count);
  }
  return out;
}

}  // namespace pulga
