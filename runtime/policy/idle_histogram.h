// IdleHistogram: how long a function is usually idle between two calls. Minutes, up to four hours;
// 242 bytes per function, whatever it does. It never holds more than 255 observations: when it is
// full all counts are halved, so that old habits fade and each count fits a byte.
// Source: Shahrad et al., "Serverless in the Wild", USENIX ATC 2020, section 4.2.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace pulga {

class IdleHistogram {
 public:
  static constexpr size_t kBins = 240;
  static constexpr Duration kBin = std::chrono::minutes(1);
  static constexpr Duration kRange = kBins * kBin;

  void Add(Duration idle);

  uint32_t observations() const { return inside_ + beyond_; }
  uint32_t inside() const { return inside_; }
  uint32_t beyond() const { return beyond_; }  // idle for longer than the range

  // The bin that holds the given part of what is inside, in percent; 0 when nothing is.
  size_t Percentile(uint32_t percent) const;
  // Are the counts concentrated? Their coefficient of variation over all bins is at least `cv`.
  bool Concentrated(double cv) const;

  // "3;0*12,15*3": beyond the range, then bin*count. For a row, and for people.
  std::string Serialise() const;
  static Result<IdleHistogram> Parse(std::string_view text);

  bool operator==(const IdleHistogram&) const = default;

 private:
  void Halve();

  uint32_t CountAt(size_t bin) const { return bin < counts_.size() ? counts_[bin] : 0; }
  uint8_t& At(size_t bin);

  std::vector<uint8_t> counts_;  // up to the last bin that holds something: most functions hold few
  uint8_t inside_ = 0;
  uint8_t beyond_ = 0;
};

}  // namespace pulga
