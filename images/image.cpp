#include "images/image.h"

#include <sys/utsname.h>

#include <array>
#include <atomic>
#include <string_view>

#include "base/arm32.h"
#include "base/text.h"
#include "images/platform_choice.h"

namespace pulga {
namespace {

struct Machine {
  std::string_view uname;
  std::string_view architecture;
  std::string_view variant;
};

// What uname says; for 32-bit ARM it tells the instruction set truly (a Pi Zero says armv6l).
constexpr Machine kMachines[] = {
    {"x86_64", "amd64", ""}, {"aarch64", "arm64", ""},       {"armv8l", "arm", "v8"},
    {"armv7l", "arm", "v7"}, {"armv6l", "arm", "v6"},        {"armv5tel", "arm", "v5"},
    {"i686", "386", ""},     {"riscv64", "riscv64", ""},     {"ppc64le", "ppc64le", ""},
    {"s390x", "s390x", ""},  {"loongarch64", "loong64", ""},
};

// Newest first: what a 32-bit ARM core runs is its own variant and the older ones.
constexpr std::array<std::string_view, 4> kArmVariants = {"v8", "v7", "v6", "v5"};

std::optional<int> ArmRank(std::string_view host, std::string_view image) {
  int first = 0;
  for (size_t i = 0; i < kArmVariants.size(); ++i) {
    if (kArmVariants[i] == host) first = static_cast<int>(i);
  }
  if (image.empty()) return static_cast<int>(kArmVariants.size());
  for (size_t i = static_cast<size_t>(first); i < kArmVariants.size(); ++i) {
    if (kArmVariants[i] == image) return static_cast<int>(i) - first;
  }
  return std::nullopt;
}

}  // namespace

std::string PlatformName(const Platform& platform) {
  const auto part = [](const std::string& text) {
    return text.empty() ? std::string("unknown") : Printable(text, 32);
  };
  std::string name = part(platform.os) + "/" + part(platform.architecture);
  if (!platform.variant.empty()) name += "/" + Printable(platform.variant, 32);
  return name;
}

Platform HostPlatform() {
  utsname name = {};
  uname(&name);
  for (const Machine& machine : kMachines) {
    if (machine.uname == name.machine) {
      return {"linux", std::string(machine.architecture), std::string(machine.variant)};
    }
  }
  return {"linux", name.machine, ""};
}

bool HostRunsArm32() {
  if (HostPlatform().architecture != "arm64") return false;
  static std::atomic<int> known{-1};  // what cannot be tried now may be the next time
  if (known < 0) {
    const Status tried = RunArm32Program();
    if (!tried.ok() && tried.error().code != Code::kUnsupported) return false;
    known = tried.ok() ? 1 : 0;
  }
  return known == 1;
}

std::optional<int> PlatformRank(const HostAbility& host, const Platform& image) {
  const Platform& here = host.platform;
  if (image.os != here.os) return std::nullopt;
  if (image.architecture == here.architecture) {
    if (here.architecture == "arm") return ArmRank(here.variant, image.variant);
    if (here.architecture == "arm64") {
      return image.variant.empty() || image.variant == "v8" ? std::optional<int>(0) : std::nullopt;
    }
    return image.variant == here.variant ? 0 : 1;
  }
  if (here.architecture == "arm64" && image.architecture == "arm" && host.arm32 == Arm32::kRuns) {
    const auto rank = ArmRank("v8", image.variant);
    return rank ? std::optional<int>(10 + *rank) : std::nullopt;
  }
  return std::nullopt;
}

HostAbility DetectHostAbility() {
  return {HostPlatform(), HostRunsArm32() ? Arm32::kRuns : Arm32::kNot};
}

Error WrongPlatform(const Platform& image, const HostAbility& host) {
  const Platform& here = host.platform;
  std::string why;
  if (here.architecture == "arm64" && image.architecture == "arm" && host.arm32 == Arm32::kNot) {
    why =
        ", which runs no such 32-bit programs: its processor has no 32-bit mode, or its kernel no "
        "CONFIG_COMPAT";
  }
  if (here.architecture == "amd64" && image.architecture == "386") {
    why = ": 32-bit x86 programs are not run";
  }
  return {Code::kUnsupported, 0,
          "this image is " + PlatformName(image) + ", this board is " + PlatformName(here) + why};
}

Status CanRunHere(const Platform& image) {
  const HostAbility host = DetectHostAbility();
  if (PlatformRank(host, image)) return OkStatus();
  return WrongPlatform(image, host);
}

}  // namespace pulga
