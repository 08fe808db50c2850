#include "runtime/openfaas_readiness.h"

#include <algorithm>

#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

using Texts = std::map<std::string, std::string>;
const std::string kPrefix = "com.openfaas.ready.http.";
constexpr size_t kMostPath = 1024;
constexpr uint64_t kMostSeconds = 3000;  // of the hour that a start may take at most

Error Bad(const std::string& name, const std::string& value, const char* wanted) {
  return Error{
      Code::kInvalidArgument, 0,
      "annotations." + kPrefix + name + ": \"" + Printable(value, 40) + "\" is no " + wanted};
}

bool IsPath(const std::string& text) {
  const auto fits = [](unsigned char c) { return c > ' ' && c < 0x7f && c != '#'; };
  return text.starts_with('/') && text.size() <= kMostPath &&
         std::all_of(text.begin(), text.end(), fits);
}

Status ReadSeconds(const Texts& annotations, const std::string& name, Duration* out) {
  const auto it = annotations.find(kPrefix + name);
  if (it == annotations.end()) return OkStatus();
  const auto number = ParseUint(it->second, kMostSeconds);
  const auto time = number ? Result<Duration>(std::chrono::seconds(*number))
                           : ParseDuration(it->second);  // "1s", as in older examples
  if (!time.ok() || *time > std::chrono::seconds(kMostSeconds)) {
    return Bad(name, it->second, "number of seconds, at most 3000");
  }
  *out = *time;
  return OkStatus();
}

}  // namespace

Result<std::optional<ReadyProbe>> ReadyProbeOf(const Texts& annotations) {
  const auto path = annotations.find(kPrefix + "path");
  if (path == annotations.end() || path->second.empty()) return std::optional<ReadyProbe>();
  if (!IsPath(path->second)) return Bad("path", path->second, "path like \"/ready\"");
  ReadyProbe probe;
  probe.path = path->second;
  // The older spelling first.
  PULGA_RETURN_IF_ERROR(ReadSeconds(annotations, "initialDelay", &probe.initial_delay));
  PULGA_RETURN_IF_ERROR(ReadSeconds(annotations, "initialDelaySeconds", &probe.initial_delay));
  Duration period{0};
  PULGA_RETURN_IF_ERROR(ReadSeconds(annotations, "periodSeconds", &period));
  if (period > Duration::zero()) probe.period = period;
  return std::optional<ReadyProbe>(std::move(probe));
}

ReadyProbe HealthProbe(Duration start_timeout) {
  ReadyProbe probe;
  probe.path = "/_/health";
  probe.period = std::chrono::milliseconds(20);  // a watchdog is there in a moment
  probe.rule = ReadyProbe::Rule::kUnlessBusy;
  probe.believed = start_timeout / 2;
  return probe;
}

}  // namespace pulga
