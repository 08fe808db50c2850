#include <sys/utsname.h>

#include <nlohmann/json.hpp>

#include "api/handlers.h"
#include "api/openfaas/routes.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

std::string InfoJson(const std::string& release, const std::string& provider_name) {
  utsname machine = {};
  uname(&machine);
  // Clients want both; there is no commit of OpenFaaS that this would be.
  const Json version = {{"sha", release}, {"release", release}};
  const Json provider = {
      {"provider", provider_name}, {"version", version}, {"orchestration", "pulga"}};
  return Json({{"provider", provider}, {"version", version}, {"arch", machine.machine}}).dump() +
         "\n";
}

}  // namespace

void AddOpenFaasRoutes(Router& router, Engine& engine, const OpenFaasOptions& options) {
  router.Add("GET", "/system/info", [&engine, options](HttpExchange& exchange, const PathParams&) {
    return Immediately(exchange,
                       JsonReply(200, InfoJson(engine.System().version, options.provider_name)));
  });
}

}  // namespace pulga
