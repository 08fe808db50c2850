#include "api/openfaas/prometheus_text.h"

#include <cstdio>

namespace pulga {
namespace {

std::string Number(double value) {
  char text[32];
  snprintf(text, sizeof text, "%.9g", value);
  return text;
}

void AppendLine(const std::string& name, const std::string& labels, const std::string& value,
                std::string* out) {
  *out += name + (labels.empty() ? "" : "{" + labels + "}") + " " + value + "\n";
}

}  // namespace

void LatencyHistogram::Note(Duration time) {
  const double seconds = std::chrono::duration<double>(time).count();
  ++count_;
  seconds_ += seconds;
  for (size_t i = 0; i < kBuckets.size(); ++i) within_[i] += seconds <= kBuckets[i];
}

void LatencyHistogram::Append(const std::string& name, const std::string& labels,
                              std::string* out) const {
  for (size_t i = 0; i < kBuckets.size(); ++i) {
    AppendSample(name + "_bucket", labels + ",le=\"" + Number(kBuckets[i]) + "\"", within_[i], out);
  }
  AppendSample(name + "_bucket", labels + ",le=\"+Inf\"", count_, out);
  AppendLine(name + "_sum", labels, Number(seconds_), out);
  AppendSample(name + "_count", labels, count_, out);
}

void AppendFamily(const MetricFamily& family, std::string* out) {
  const std::string name = family.name;
  *out += "# HELP " + name + " " + family.help + "\n# TYPE " + name + " " + family.type + "\n";
}

void AppendSample(const std::string& name, const std::string& labels, uint64_t value,
                  std::string* out) {
  AppendLine(name, labels, std::to_string(value), out);
}

}  // namespace pulga
