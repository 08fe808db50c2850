// Images as archives again, whether they are intact, and which ones go.
#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

constexpr size_t kMaxPruneBody = 1024;

// "docker.io/library/hello:1" or a digest, as a file's name.
std::string FileName(const std::string& ref) {
  std::string name;
  for (const char c : ref.substr(0, 100)) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '-' || c == '_';
    name += plain ? c : '-';
  }
  return name + ".tar";
}

class ExportHandler final : public ReplyingHandler {
 public:
  ExportHandler(HttpExchange& exchange, Engine& engine, std::string ref)
      : ReplyingHandler(exchange), engine_(engine), ref_(std::move(ref)) {}

  void Start() override {
    auto download = engine_.ExportImage(ref_);
    if (!download.ok()) {
      return exchange().Reply(ErrorReply(ToApiError(download.error(), "image")));
    }
    download_ = std::move(*download);
    download_->OnReady(WhileOpen([this] { exchange().ContinueReply(); }));
    HttpReply reply;
    reply.headers = {{"Content-Type", "application/x-tar"},
                     {"Content-Disposition", "attachment; filename=\"" + FileName(ref_) + "\""},
                     {"Cache-Control", "no-store"}};
    reply.streamed = true;
    // A length: who gets less knows that it broke off.
    reply.stream_size = download_->size();
    exchange().Reply(std::move(reply));
  }

  ReadResult Read(char* buffer, size_t capacity) override {
    return download_ ? download_->Read(buffer, capacity) : ReadResult{ReadState::kAborted, 0};
  }

  void OnStopping() override {
    if (!std::exchange(download_, nullptr)) return;
    exchange().ContinueReply();
  }

 private:
  Engine& engine_;
  std::string ref_;
  std::unique_ptr<Engine::Download> download_;
};

std::unique_ptr<HttpHandler> VerifyImage(HttpExchange& exchange, Engine& engine,
                                         const std::string& ref) {
  return WithBody(exchange, 0, [&engine, ref](const std::string&, ReplyDone done) {
    engine.VerifyImage(ref, [done](const Result<VerifyReport>& report) {
      done(report.ok() ? JsonReply(200, VerifyReportJson(*report))
                       : ErrorReply(ToApiError(report.error(), "image")));
    });
  });
}

std::unique_ptr<HttpHandler> PruneImages(HttpExchange& exchange, Engine& engine) {
  return WithBody(exchange, kMaxPruneBody, [&engine](const std::string& body, ReplyDone done) {
    const auto scope = ParsePruneBody(body);
    if (!scope.ok()) return done(ErrorReply(ToApiError(scope.error(), "image")));
    engine.PruneImages(*scope, [done](const Result<PruneReport>& report) {
      done(report.ok() ? JsonReply(200, PruneReportJson(*report))
                       : ErrorReply(ToApiError(report.error(), "image")));
    });
  });
}

}  // namespace

void AddUpkeepRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/v1/images/{ref...}/export",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return std::make_unique<ExportHandler>(exchange, engine, params.name);
             });
  router.Add("POST", "/v1/images/{ref...}/verify",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return VerifyImage(exchange, engine, params.name);
             });
  router.Add("POST", "/v1/images/prune", [&engine](HttpExchange& exchange, const PathParams&) {
    return PruneImages(exchange, engine);
  });
}

}  // namespace pulga
