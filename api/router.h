// Router: which handler answers a method and a raw path. Literal segments must match byte for byte
// (no case folding, no dot segments, no doubled slashes); parameters are percent-decoded once.
// Pure but for what the routes' own factories capture.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/http_handler.h"

namespace pulga {

struct PathParams {
  std::string name;       // {name} or {ref...}, decoded
  std::string_view rest;  // {name}/... of a /function path: raw, begins with '/' or is empty
};

using RouteHandler = std::function<std::unique_ptr<HttpHandler>(HttpExchange&, const PathParams&)>;

struct QueryParam {
  enum class Kind { kText, kFlag };  // kFlag: 0 or 1
  std::string_view name;
  Kind kind = Kind::kText;
};

struct Route {
  std::string method;  // "*": those a function may be called with
  std::string
      pattern;  // "/v1/functions/{name}/logs", "/v1/images/{ref...}/export", "/function/{name}/..."
  RouteHandler handler;
  std::vector<QueryParam> query;  // all it takes; of a call everything is the function's
};

struct RouteMatch {
  enum class Kind { kFound, kNotFound, kWrongMethod, kBadPath } kind = Kind::kNotFound;
  const Route* route = nullptr;  // kFound
  PathParams params;
  std::string allow;  // kWrongMethod: "GET, HEAD, PUT"
};

class Router {
 public:
  void Add(std::string method, std::string pattern, RouteHandler handler,
           std::vector<QueryParam> query = {});
  // `path` must outlive the match: `rest` points into it. HEAD is answered by GET routes.
  RouteMatch Match(std::string_view method, std::string_view path) const;
  const std::vector<Route>& routes() const { return routes_; }

 private:
  std::vector<Route> routes_;
};

// What is wrong with the raw query of a management request: a name that the route does not know or
// that is there twice, a flag that is neither 0 nor 1, a broken escape. Names the parameter.
std::optional<std::string> QueryProblem(const Route& route, std::string_view query);

// The methods a function may be called with.
bool IsCallMethod(std::string_view method);

}  // namespace pulga
