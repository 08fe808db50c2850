// PressureLevel: how much the board asks of us, each level also what those before it ask. Known to
// the dispatcher, which acts on it.
#pragma once

#include <cstdint>
#include <string_view>

namespace pulga {

enum class PressureLevel : uint8_t {
  kCalm,
  kShrink,  // idle instances are given up
  kDelay,   // and what nobody waits for is put off
  kShed,    // and calls that need a new instance are refused
};

// "calm", "shrink", "delay", "shed"
constexpr std::string_view PressureLevelName(PressureLevel level) {
  constexpr std::string_view kNames[] = {"calm", "shrink", "delay", "shed"};
  return kNames[static_cast<size_t>(level)];
}

}  // namespace pulga
