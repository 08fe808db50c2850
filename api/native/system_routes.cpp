#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"

namespace pulga {

void AddSystemRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/v1/system", [&engine](HttpExchange& exchange, const PathParams&) {
    return Immediately(exchange, JsonReply(200, SystemJson(engine.System())));
  });
  router.Add("GET", "/v1/history", [&engine](HttpExchange& exchange, const PathParams&) {
    return WithBody(exchange, 0, [&engine](const std::string&, const ReplyDone& done) {
      engine.History([done](Result<UniqueFd> file) {
        done(file.ok() ? FileReply(std::move(*file), "text/csv; charset=utf-8")
                       : ErrorReply(ToApiError(file.error(), "history")));
      });
    });
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
