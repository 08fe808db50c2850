#include "api/openfaas/metered_route.h"

#include <optional>
#include <utility>

namespace pulga {
namespace {

// Stands between the server and the route's handler, and sees the reply pass.
class MeteredHandler final : public HttpHandler, private HttpExchange {
 public:
  MeteredHandler(HttpExchange& exchange, EventLoop& loop, const RequestNote& note)
      : exchange_(exchange), loop_(loop), note_(note), begun_(loop.Now()) {}
  ~MeteredHandler() override {
    handler_.reset();
    if (status_) note_(*status_, loop_.Now() - begun_);
  }
  void Open(const RouteHandler& route, const PathParams& params) {
    handler_ = route(*this, params);
  }

  void Start() override { handler_->Start(); }
  size_t OnBody(std::string_view bytes) override { return handler_->OnBody(bytes); }
  void OnBodyEnd() override { handler_->OnBodyEnd(); }
  bool KeepsCutBody() const override { return handler_->KeepsCutBody(); }
  void OnBodyCut(std::string_view bytes) override { handler_->OnBodyCut(bytes); }
  ReadResult Read(char* buffer, size_t size) override { return handler_->Read(buffer, size); }
  void OnStopping() override { handler_->OnStopping(); }
  HeaderList Trailers() override { return handler_->Trailers(); }

 private:
  const HttpRequest& request() const override { return exchange_.request(); }
  HeaderList TakeHeaders() override { return exchange_.TakeHeaders(); }
  void DropHeader(std::string_view name) override { exchange_.DropHeader(name); }
  void Reply(HttpReply reply) override {
    status_ = reply.status;
    exchange_.Reply(std::move(reply));
  }
  void ContinueBody() override { exchange_.ContinueBody(); }
  void ContinueReply() override { exchange_.ContinueReply(); }
  void HoldBody() override { exchange_.HoldBody(); }
  bool ClientHasLeft() const override { return exchange_.ClientHasLeft(); }

  HttpExchange& exchange_;
  EventLoop& loop_;
  RequestNote note_;
  TimePoint begun_;
  std::optional<int> status_;
  std::unique_ptr<HttpHandler> handler_;
};

}  // namespace

RouteHandler Metered(RouteHandler route, EventLoop& loop, RequestNote note) {
  return [route = std::move(route), &loop, note = std::move(note)](
             HttpExchange& exchange, const PathParams& params) -> std::unique_ptr<HttpHandler> {
    auto handler = std::make_unique<MeteredHandler>(exchange, loop, note);
    handler->Open(route, params);
    return handler;
  };
}

}  // namespace pulga
