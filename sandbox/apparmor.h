// AppArmor around functions: one more fence, by a profile that the board's administrator loads
// (packaging/). What the launcher was started with says whether it is asked for, and whether a
// function may start without it; the daemon has no say. Blocks on one small file. Source:
// proc_pid_attr(5), packaging/README.md.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sandbox/kernel_features.h"

namespace pulga {

inline constexpr const char* kAppArmorProfile = "pulga-function";

enum class AppArmorUse {
  kAuto,     // where the kernel has it and the profile is loaded
  kRequire,  // no function starts without
  kOff,      // never asked for: the functions' processes stay as Pulga itself is
};
inline constexpr const char* kAppArmorUses = "auto, require or off";  // as ParseAppArmorUse reads
std::optional<AppArmorUse> ParseAppArmorUse(std::string_view text);

// For the calling process's next execve, and that of its forks. 0, ENODEV: no AppArmor in this
// kernel; ENOENT: the profile is not loaded; any other: asking failed.
int AskForAppArmor();

// What came of asking, for the isolation report; and what the launcher's setting makes of it.
Feature AppArmorLayer(int error);
Feature WithUse(Feature layer, AppArmorUse use);
void ShowUse(AppArmorUse use, std::vector<Feature>& features);
// kUnsupported: it is required and not there.
Status CheckAppArmor(const Feature& layer, AppArmorUse use);

}  // namespace pulga
