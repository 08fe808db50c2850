// Which of several platforms' images this board runs best. Pure but for the two that ask the
// kernel.
#pragma once

#include <optional>

#include "base/result.h"
#include "images/image.h"

namespace pulga {

enum class Arm32 { kNot, kRuns };  // 32-bit ARM programs on a 64-bit kernel

struct HostAbility {
  Platform platform;
  Arm32 arm32 = Arm32::kNot;
};
HostAbility DetectHostAbility();
bool HostRunsArm32();

// Smaller is better: the exact variant, then lower ones, then none given; nullopt: can not run.
std::optional<int> PlatformRank(const HostAbility& host, const Platform& image);
Error WrongPlatform(const Platform& image, const HostAbility& host);

}  // namespace pulga
