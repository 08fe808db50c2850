#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"

namespace pulga {

void AddSystemRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/v1/system", [&engine](HttpExchange& exchange, const PathParams&) {
    return Immediately(exchange, JsonReply(200, SystemJson(engine.System())));
  });
  // Open to everybody, so without any detail.
  router.Add("GET", "/healthz", [](HttpExchange& exchange, const PathParams&) {
    HttpReply reply;
    reply.headers = {{"Content-Type", "text/plain; charset=utf-8"}, {"Cache-Control", "no-store"}};
    reply.body = "OK\n";
    return Immediately(exchange, std::move(reply));
  });
}

}  // namespace pulga
