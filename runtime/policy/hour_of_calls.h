// HourOfCalls: how many calls a function had in each minute of one hour. As text, runs of equal
// counts: 6 bytes for what is called once a minute, at most 480.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

class HourOfCalls {
 public:
  static constexpr uint32_t kMinutes = 60;
  static constexpr uint32_t kMost = 9999;  // a minute with more counts as one with so many

  void Add(uint32_t minute, uint32_t calls);
  uint32_t at(uint32_t minute) const { return calls_[minute]; }

  // "0-14*1 20*3": once in each of the first fifteen minutes, three times in the 21st.
  std::string Serialise() const;
  static Result<HourOfCalls> Parse(std::string_view text);

  bool operator==(const HourOfCalls&) const = default;

 private:
  std::array<uint16_t, kMinutes> calls_{};
};

}  // namespace pulga
