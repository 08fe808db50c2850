// A stack.yml for faas-cli out of what the daemon shows of its functions. Pure.
// Source: docs.openfaas.com, "OpenFaaS YAML reference". Texts are read again as the same
// texts, after faas-cli's own substitutions in the file.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace pulga::cli {

struct StackExport {
  std::string yaml;
  std::vector<std::string> left_out;  // "NAME: why it can not be a function of OpenFaaS'"
};

// What the two APIs show. Of several functions of one name the first is taken, and the others are
// left out: a file has no place for them.
struct ShownFunctions {
  const nlohmann::json& gateway;  // GET /system/functions: as they would be deployed
  const nlohmann::json& native;   // the list of GET /v1/functions, of all namespaces
};
StackExport MakeStack(const ShownFunctions& functions, const std::string& gateway_url);

}  // namespace pulga::cli
