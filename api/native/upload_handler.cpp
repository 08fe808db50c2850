#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"
#include "base/text.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

class UploadHandler final : public ReplyingHandler {
 public:
  UploadHandler(HttpExchange& exchange, Engine& engine)
      : ReplyingHandler(exchange), engine_(engine) {}

  void Start() override {
    const HttpRequest& request = exchange().request();
    UploadRequest wanted;
    if (!ReadQuery(request, &wanted)) return;
    const std::string* type = request.Header("Content-Type");
    if (type != nullptr && EqualsIgnoreCase(std::string_view(*type).substr(0, 10), "multipart/")) {
      return Refuse({415,
                     "unsupported_media_type",
                     "send the archive itself as the request body, not a form: "
                     "curl --data-binary @image.tar, or -T image.tar -X POST",
                     {}});
    }
    wanted.content_length = request.content_length;
    wanted.on_room = WhileOpen([this] { exchange().ContinueBody(); });
    wanted.on_done = WhileOpen([this](const ImportReport& report) { OnImported(report); });
    auto upload = engine_.NewUpload(std::move(wanted));
    if (!upload.ok()) return Refuse(ToApiError(upload.error(), "image"));
    upload_ = std::move(*upload);
  }

  size_t OnBody(std::string_view bytes) override {
    return upload_ ? upload_->Write(bytes) : bytes.size();
  }

  void OnBodyEnd() override {
    if (upload_) upload_->Finish();
  }

 private:
  bool ReadQuery(const HttpRequest& request, UploadRequest* wanted) {
    wanted->ref = QueryValue(request.query(), "ref");
    if (QueryValue(request.query(), "any_platform") == "1") {
      wanted->any_platform = AnyPlatform::kStore;
    }
    if (QueryValue(request.query(), "skipped") == "1") wanted->absent = AbsentLayers::kIfStored;
    if (!wanted->ref) return true;
    const auto parsed = ParseImageRef(*wanted->ref);
    if (parsed.ok()) return true;
    ApiError error = ToApiError(parsed.error(), "image");
    error.code = "invalid_ref";
    Refuse(error);
    return false;
  }

  void Refuse(const ApiError& error) { exchange().Reply(ErrorReply(error)); }

  // At the end, or early: a bad archive is known as one while its bytes still come.
  void OnImported(const ImportReport& report) {
    if (!report.status.ok()) return exchange().Reply(ErrorReply(ToApiError(report)));
    exchange().Reply(JsonReply(report.anything_new ? 201 : 200, ImportReportJson(report)));
  }

  Engine& engine_;
  std::unique_ptr<Engine::Upload> upload_;
};

}  // namespace

std::unique_ptr<HttpHandler> MakeUploadHandler(HttpExchange& exchange, Engine& engine) {
  return std::make_unique<UploadHandler>(exchange, engine);
}

}  // namespace pulga
