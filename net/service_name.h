// The names by which a function with outbound network knows the gateway and other functions. What
// a name means follows from the name alone: the resolver says the router's address for each, and
// the gateway which function is meant, if there is one. Pure.
// Source: OpenFaaS (the names of faasd and Kubernetes), docs/network.md.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace pulga {

// Of functions that name none.
inline constexpr const char* kDefaultNamespace = "openfaas-fn";

// What functions, namespaces and the parts of a host's name are: [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?
bool IsDnsLabel(std::string_view text);

struct ServiceName {
  std::string function;  // empty: the gateway itself
  std::string name_space = kDefaultNamespace;
  bool is_gateway() const { return function.empty(); }
};

// `name`: lower case, without a port and a final dot. The gateway is "gateway", "gateway.openfaas"
// or "pulga", a function "NAME" or "NAME.openfaas-fn". Another namespace may be called as a domain
// out there is, so it has the long form alone, which all may have: "NAME.NS.svc.cluster.local".
// Nothing: somebody else's.
std::optional<ServiceName> ParseServiceName(std::string_view name);

}  // namespace pulga
