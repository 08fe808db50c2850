#include "net/service_name.h"

#include <algorithm>

namespace pulga {
namespace {

constexpr std::string_view kClusterSuffix = ".svc.cluster.local";

// A dot in `name_space` makes it no label.
std::optional<ServiceName> FunctionIn(std::string_view function, std::string_view name_space) {
  if (!IsDnsLabel(function) || !IsDnsLabel(name_space)) return std::nullopt;
  return ServiceName{std::string(function), std::string(name_space)};
}

}  // namespace

bool IsDnsLabel(std::string_view text) {
  if (text.empty() || text.size() > 63 || text.front() == '-' || text.back() == '-') return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

std::optional<ServiceName> ParseServiceName(std::string_view name) {
  const bool long_form = name.ends_with(kClusterSuffix);
  if (long_form) name.remove_suffix(kClusterSuffix.size());
  if (name == "gateway.openfaas") return ServiceName();
  const size_t dot = name.find('.');
  if (long_form && dot == std::string_view::npos) return std::nullopt;
  if (dot == std::string_view::npos) {
    if (name == "gateway" || name == "pulga") return ServiceName();
    if (name == "localhost") return std::nullopt;  // RFC 6761: whoever asks
    return FunctionIn(name, kDefaultNamespace);
  }
  const std::string_view name_space = name.substr(dot + 1);
  if (!long_form && name_space != kDefaultNamespace) return std::nullopt;
  return FunctionIn(name.substr(0, dot), name_space);
}

}  // namespace pulga
