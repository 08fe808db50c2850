// ApiFront: the daemon's HTTP face: server, routes, the admin key. Made by the factory `pulga
// serve-daemon` gives to RunDaemon. Loop thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/http_server.h"
#include "api/openfaas/routes.h"
#include "api/router.h"
#include "runtime/daemon/daemon.h"

namespace pulga {

// Every route there is, as api/openapi.yaml lists them.
void AddAllRoutes(Router& router, Engine& engine, EventLoop& loop, const OpenFaasOptions& options);

struct ServiceName;

class ApiFront final : public Front {
 public:
  static Result<std::unique_ptr<Front>> Create(EventLoop& loop, Engine& engine,
                                               const DaemonConfig& config);

  void StopAccepting() override;
  Status ServeGateway(UniqueFd socket) override { return server_->ServeGateway(std::move(socket)); }
  size_t open_requests() const override { return server_->open_requests(); }
  void Reload(const DaemonConfig& config) override;
  const std::vector<std::string>& bound() const override { return server_->bound(); }

 private:
  explicit ApiFront(Engine& engine) : engine_(engine) {}
  std::unique_ptr<HttpHandler> Handle(HttpExchange& exchange) const;
  std::unique_ptr<HttpHandler> CallByHost(HttpExchange& exchange, const ServiceName& service) const;
  // A call from outside, where those need a key; and why this one is refused, if it is.
  bool CallNeedsKey(const HttpRequest& request) const;
  std::optional<HttpReply> RefuseCall(const HttpRequest& request) const;
  // What is refused whatever the route would say.
  std::optional<HttpReply> RefuseStranger(const HttpRequest& request) const;

  Engine& engine_;
  Router router_;
  CallAccess call_access_ = CallAccess::kOpen;
  bool stopping_ = false;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace pulga
