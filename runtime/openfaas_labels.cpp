#include "runtime/openfaas_labels.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

constexpr std::string_view kPrefix = "com.openfaas.scale.";
constexpr NumberRange kFactorRange{0, 100};
constexpr NumberRange kTargetRange{1, 1000000};
constexpr uint64_t kDefaultTarget = 50;
constexpr uint32_t kCommunityRps = 5;
constexpr double kDefaultProportion = 0.9;
constexpr Duration kDefaultZeroDuration = std::chrono::minutes(15);

class Labels {
 public:
  explicit Labels(const std::map<std::string, std::string>& labels) : labels_(labels) {}

  const std::string* Find(std::string_view name) const {
    const auto it = labels_.find(Key(name));
    return it == labels_.end() ? nullptr : &it->second;
  }
  static std::string Key(std::string_view name) { return std::string(kPrefix) + std::string(name); }
  Error Bad(std::string_view name, const std::string& why) const {
    return Error{Code::kInvalidArgument, 0, "labels." + Key(name) + ": " + why};
  }
  std::string Shown(std::string_view name) const {
    return "\"" + Printable(*Find(name), 40) + "\"";
  }

  Result<std::optional<uint64_t>> Number(std::string_view name, NumberRange range) const {
    const std::string* text = Find(name);
    if (text == nullptr) return std::optional<uint64_t>();
    const auto number = ParseUint(*text);
    if (number && CheckNumber("", *number, range).ok()) return std::optional<uint64_t>(*number);
    return Bad(name, Shown(name) + " is no whole number between " + std::to_string(range.least) +
                         " and " + std::to_string(range.most));
  }
  Result<std::optional<bool>> Flag(std::string_view name) const {
    const std::string* text = Find(name);
    if (text == nullptr) return std::optional<bool>();
    if (*text == "true") return std::optional<bool>(true);
    if (*text == "false") return std::optional<bool>(false);
    return Bad(name, Shown(name) + " is neither \"true\" nor \"false\"");
  }
  Result<double> Proportion() const {
    const std::string* text = Find("target-proportion");
    if (text == nullptr) return kDefaultProportion;
    char* end = nullptr;
    const double value = std::strtod(text->c_str(), &end);
    if (!text->empty() && *end == '\0' && value > 0 && value <= 1) return value;
    return Bad("target-proportion",
               Shown("target-proportion") + " is no number above 0, and at most 1");
  }
  Result<Duration> ZeroDuration() const {
    const std::string* text = Find("zero-duration");
    if (text == nullptr) return kDefaultZeroDuration;
    const auto parsed = ParseDuration(*text);
    if (parsed.ok() && *parsed > Duration::zero()) return *parsed;
    return Bad("zero-duration", Shown("zero-duration") + " is no duration like \"15m\"");
  }

 private:
  const std::map<std::string, std::string>& labels_;
};

class Mapper {
 public:
  Mapper(FunctionSpec spec, SandboxMode mode)
      : out_{std::move(spec), {}},
        min_is_free_(out_.spec.scale.min == kDefaults.min),
        max_is_free_(out_.spec.scale.max == kDefaults.max),
        labels_(out_.spec.labels),
        mode_(mode) {}

  Result<LabelledSpec> Map() {
    WarnOfAnnotations();
    PULGA_RETURN_IF_ERROR(MapLimits());
    PULGA_RETURN_IF_ERROR(MapZero());
    PULGA_RETURN_IF_ERROR(MapTarget());
    return std::move(out_);
  }

 private:
  void Warn(std::string_view name, const std::string& why) {
    out_.warnings.push_back("labels." + Labels::Key(name) + ": " + why);
  }
  // A mistake that is often made.
  void WarnOfAnnotations() {
    for (const auto& [key, value] : out_.spec.annotations) {
      if (key.rfind(kPrefix, 0) != 0) continue;
      out_.warnings.push_back("annotations." + Printable(key, 60) +
                              ": has no effect there; it is a label");
    }
  }

  Status MapLimits() {
    ScaleSpec& scale = out_.spec.scale;
    PULGA_ASSIGN_OR_RETURN(const auto min, labels_.Number("min", kMinRange));
    PULGA_ASSIGN_OR_RETURN(const auto max, labels_.Number("max", kMaxRange));
    PULGA_ASSIGN_OR_RETURN(const auto factor, labels_.Number("factor", kFactorRange));
    if (min && min_is_free_) scale.min = static_cast<uint32_t>(*min);
    if (max && max_is_free_) scale.max = static_cast<uint32_t>(*max);
    // More than our default, and nobody said that it is too many.
    if (!max && max_is_free_) scale.max = std::max(scale.max, scale.min);
    if (factor && *factor == 0) {
      if (min_is_free_) scale.min = std::max(scale.min, 1U);
      if (max_is_free_) scale.max = scale.min;
    }
    if (scale.min <= scale.max || !(min || max)) return OkStatus();
    return labels_.Bad(min ? "min" : "max", "the minimum, " + std::to_string(scale.min) +
                                                ", is more than the maximum, " +
                                                std::to_string(scale.max));
  }

  Status MapZero() {
    ScaleSpec& scale = out_.spec.scale;
    PULGA_ASSIGN_OR_RETURN(const auto zero, labels_.Flag("zero"));
    PULGA_ASSIGN_OR_RETURN(const Duration idle, labels_.ZeroDuration());
    if (!zero.value_or(false)) {
      if (zero && min_is_free_) scale.min = std::max(scale.min, 1U);
      if (labels_.Find("zero-duration")) Warn("zero-duration", "has no effect without zero = true");
      return OkStatus();
    }
    if (min_is_free_) scale.min = 0;
    if (scale.idle == kDefaults.idle) scale.idle = idle;
    return OkStatus();
  }

  Status MapTarget() {
    ScaleSpec& scale = out_.spec.scale;
    PULGA_ASSIGN_OR_RETURN(const auto given, labels_.Number("target", kTargetRange));
    PULGA_ASSIGN_OR_RETURN(const double proportion, labels_.Proportion());
    const std::string* type = labels_.Find("type");
    const double target = static_cast<double>(given.value_or(kDefaultTarget)) * proportion;
    if (type == nullptr && !given) {
      MapCommunityEdition();
      return OkStatus();
    }
    if (mode_ == SandboxMode::kExec) {
      Warn(type != nullptr ? "type" : "target",
           "has no effect: an exec function has as many instances as calls");
    } else if (type != nullptr && *type == "capacity") {
      if (scale.target != 0) return OkStatus();
      scale.target = static_cast<uint32_t>(
          std::clamp<int64_t>(std::llround(target), 1, kConcurrencyRange.most));
      // As many go to one, where nobody said how many may.
      if (scale.concurrency == 0 && scale.target > kUsualConcurrency) {
        scale.concurrency = scale.target;
      }
      if (scale.concurrency != 0) scale.target = std::min(scale.target, scale.concurrency);
    } else if (type != nullptr && *type == "cpu") {
      MapCpu(target);
    } else if (type != nullptr && *type == "queue") {
      Warn("type", "queue needs no target here: calls that wait always count");
    } else if (type == nullptr || *type == "rps") {
      if (scale.rps_target == 0) {
        scale.rps_target = static_cast<uint32_t>(std::max<int64_t>(std::llround(target), 1));
      }
    } else {
      Warn("type", labels_.Shown("type") + " is not known here: rps, capacity and cpu are");
    }
    return OkStatus();
  }
  // OpenFaaS CE knows no targets: five calls per second are when its alert sets in. Who deploys by
  // its API and names a maximum expects to be scaled by that.
  void MapCommunityEdition() {
    ScaleSpec& scale = out_.spec.scale;
    const bool asked = out_.spec.openfaas.has_value() && labels_.Find("max") != nullptr;
    const bool has_target = scale.target != 0 || scale.rps_target != 0 || scale.cpu_target != 0 ||
                            scale.latency_target != Duration::zero();
    if (!asked || has_target || !IsServer(mode_) || scale.min >= scale.max) return;
    scale.rps_target = kCommunityRps;
  }
  // Thousandths of a core per replica there, a part of the limit here.
  void MapCpu(double millis) {
    const uint32_t limit = out_.spec.sandbox.cpu_millis;
    if (limit == 0) return Warn("type", "cpu has no effect without limits.cpu");
    if (out_.spec.scale.cpu_target != 0) return;
    out_.spec.scale.cpu_target = static_cast<uint32_t>(
        std::clamp<int64_t>(std::llround(100 * millis / limit), 1, kCpuTargetRange.most));
  }

  static constexpr uint32_t kUsualConcurrency = 100;
  const ScaleSpec kDefaults;
  LabelledSpec out_;
  const bool min_is_free_, max_is_free_;  // the spec says nothing of its own
  Labels labels_;
  SandboxMode mode_;
};

}  // namespace

bool HasScaleLabels(const FunctionSpec& spec) {
  const auto any = [](const std::map<std::string, std::string>& texts) {
    const auto it = texts.lower_bound(std::string(kPrefix));
    return it != texts.end() && it->first.rfind(kPrefix, 0) == 0;
  };
  return any(spec.labels) || any(spec.annotations);
}

Result<LabelledSpec> ApplyScaleLabels(FunctionSpec spec, SandboxMode mode) {
  return Mapper(std::move(spec), mode).Map();
}

}  // namespace pulga
