#include "sandbox/apparmor.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/sys.h"
#include "base/unique_fd.h"

namespace pulga {
namespace {

constexpr std::string_view kOptional = "optional: ";

}  // namespace

std::optional<AppArmorUse> ParseAppArmorUse(std::string_view text) {
  if (text == "auto") return AppArmorUse::kAuto;
  if (text == "require") return AppArmorUse::kRequire;
  if (text == "off") return AppArmorUse::kOff;
  return std::nullopt;
}

int AskForAppArmor() {
  const UniqueFd fd(PULGA_SYS(open, "/proc/self/attr/apparmor/exec", O_WRONLY | O_CLOEXEC));
  // No such file: no AppArmor. Any other failure says nothing of the kernel.
  if (!fd.valid()) return errno == ENOENT ? ENODEV : errno;
  const std::string wish = std::string("exec ") + kAppArmorProfile;
  return PULGA_SYS(write, fd.get(), wish.data(), wish.size()) < 0 ? errno : 0;
}

Feature AppArmorLayer(int error) {
  const std::string profile = std::string("profile ") + kAppArmorProfile;
  if (error == 0) return {"apparmor", FeatureState::kPresent, profile, ""};
  if (error == ENOENT) {
    return {"apparmor", FeatureState::kAbsent, profile + " is not loaded",
            "optional: apparmor_parser -r packaging/apparmor/pulga-function"};
  }
  const std::string why = error == ENODEV
                              ? "not enabled in this kernel"
                              : std::string("it could not be asked for: ") + strerror(error);
  return {"apparmor", FeatureState::kAbsent, why, "optional: a kernel with AppArmor"};
}

Feature WithUse(Feature layer, AppArmorUse use) {
  if (use == AppArmorUse::kOff) {
    return {layer.name, FeatureState::kAbsent, "switched off (--apparmor off)", ""};
  }
  if (use == AppArmorUse::kRequire && layer.state != FeatureState::kPresent) {
    layer.detail += ", but required (--apparmor require): no function starts";
    if (layer.advice.starts_with(kOptional)) layer.advice.erase(0, kOptional.size());
  }
  return layer;
}

void ShowUse(AppArmorUse use, std::vector<Feature>& features) {
  for (Feature& feature : features) {
    if (feature.name == "apparmor") feature = WithUse(std::move(feature), use);
  }
}

Status CheckAppArmor(const Feature& layer, AppArmorUse use) {
  if (use != AppArmorUse::kRequire || layer.state == FeatureState::kPresent) return OkStatus();
  return Error{Code::kUnsupported, 0, "apparmor: " + layer.detail + "; needed: " + layer.advice};
}

}  // namespace pulga
