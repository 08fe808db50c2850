#include "api/router.h"

#include <algorithm>
#include <optional>
#include <set>

#include "base/text.h"

namespace pulga {
namespace {

constexpr std::string_view kCallMethods[] = {"GET",   "HEAD",   "POST",   "PUT",
                                             "PATCH", "DELETE", "OPTIONS"};
constexpr size_t kMaxParamBytes = 1024;
constexpr std::string_view kRefParam = "{ref...}";

enum class Fit { kNo, kYes, kBad };

bool TakeParam(std::string_view raw, std::string* out) {
  auto decoded = PercentDecode(raw);
  if (!decoded || decoded->empty() || decoded->size() > kMaxParamBytes) return false;
  *out = std::move(*decoded);
  return true;
}

// Takes the text up to the next '/' off `path`.
std::string_view TakeSegment(std::string_view* path) {
  const size_t end = std::min(path->find('/'), path->size());
  const std::string_view segment = path->substr(0, end);
  path->remove_prefix(end);
  return segment;
}

Fit FitPath(std::string_view pattern, std::string_view path, PathParams* params) {
  Fit fit = Fit::kYes;
  while (!pattern.empty() && !path.empty()) {
    if (pattern[0] != '/' || path[0] != '/') return Fit::kNo;
    pattern.remove_prefix(1);
    if (pattern == "...") {
      params->rest = path;
      return fit;
    }
    path.remove_prefix(1);
    if (pattern.starts_with(kRefParam)) {
      const std::string_view behind = pattern.substr(kRefParam.size());
      if (path.size() <= behind.size() || !path.ends_with(behind)) return Fit::kNo;
      path.remove_suffix(behind.size());
      return TakeParam(path, &params->name) ? fit : Fit::kBad;
    }
    const std::string_view wanted = TakeSegment(&pattern);
    const std::string_view segment = TakeSegment(&path);
    if (wanted == "{name}") {
      if (segment.empty()) return Fit::kNo;
      // Judged only once the whole path fits.
      if (!TakeParam(segment, &params->name)) fit = Fit::kBad;
    } else if (wanted != segment) {
      return Fit::kNo;
    }
  }
  if (pattern == "/...") pattern = {};
  return pattern.empty() && path.empty() ? fit : Fit::kNo;
}

bool FitMethod(const Route& route, std::string_view method) {
  if (route.method == "*") return IsCallMethod(method);
  return route.method == method || (route.method == "GET" && method == "HEAD");
}

void AppendAllowed(const Route& route, std::string* allow) {
  const auto append = [allow](std::string_view method) {
    if (!allow->empty()) *allow += ", ";
    *allow += method;
  };
  if (route.method == "*") {
    for (std::string_view method : kCallMethods) append(method);
    return;
  }
  append(route.method);
  if (route.method == "GET") append("HEAD");
}

}  // namespace

bool IsCallMethod(std::string_view method) {
  return std::find(std::begin(kCallMethods), std::end(kCallMethods), method) !=
         std::end(kCallMethods);
}

void Router::Add(std::string method, std::string pattern, RouteHandler handler,
                 std::vector<QueryParam> query) {
  routes_.push_back(
      Route{std::move(method), std::move(pattern), std::move(handler), std::move(query)});
}

std::optional<std::string> QueryProblem(const Route& route, std::string_view query) {
  std::set<std::string_view> seen;
  for (const std::string_view part : Split(query, '&')) {
    if (part.empty()) continue;
    const std::string_view name = part.substr(0, part.find('='));
    const std::string_view value = part.substr(std::min(name.size() + 1, part.size()));
    const std::string shown = "the query parameter \"" + Printable(name, 40) + "\"";
    const auto known = std::find_if(route.query.begin(), route.query.end(),
                                    [name](const QueryParam& param) { return param.name == name; });
    if (known == route.query.end()) {
      std::string names;
      for (const QueryParam& param : route.query) names += " " + std::string(param.name);
      return shown + " is not known here" + (names.empty() ? "" : ", only" + names);
    }
    if (!seen.insert(name).second) return shown + " is there twice";
    if (!PercentDecode(value)) return shown + " is badly percent-encoded, or no text";
    if (known->kind == QueryParam::Kind::kFlag && value != "0" && value != "1") {
      return shown + " must be 0 or 1, not \"" + Printable(value, 40) + "\"";
    }
  }
  return std::nullopt;
}

RouteMatch Router::Match(std::string_view method, std::string_view path) const {
  RouteMatch match;
  for (const Route& route : routes_) {
    PathParams params;
    const Fit fit = FitPath(route.pattern, path, &params);
    if (fit == Fit::kNo) continue;
    if (fit == Fit::kBad) {
      match.kind = RouteMatch::Kind::kBadPath;
      return match;
    }
    if (!FitMethod(route, method)) {
      match.kind = RouteMatch::Kind::kWrongMethod;
      AppendAllowed(route, &match.allow);
      continue;
    }
    match.kind = RouteMatch::Kind::kFound;
    match.route = &route;
    match.params = std::move(params);
    return match;
  }
  return match;
}

}  // namespace pulga
