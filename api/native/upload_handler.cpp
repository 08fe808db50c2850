#include <set>

#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"
#include "base/text.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

constexpr size_t kBlock = 256 * 1024;     // handed to the spool at once
constexpr size_t kBuffered = 2 * kBlock;  // held while the spool is busy

using RefSet = std::set<std::pair<std::string, std::string>>;

RefSet RefsOf(const std::vector<ImageRecord>& images) {
  RefSet out;
  for (const ImageRecord& image : images) {
    out.emplace(image.digest, "");
    for (const std::string& ref : image.refs) out.emplace(image.digest, ref);
  }
  return out;
}

class UploadHandler final : public ReplyingHandler {
 public:
  UploadHandler(HttpExchange& exchange, Engine& engine)
      : ReplyingHandler(exchange), engine_(engine) {}

  void Start() override {
    const HttpRequest& request = exchange().request();
    if (!ReadQuery(request)) return;
    const std::string* type = request.Header("Content-Type");
    if (type != nullptr && EqualsIgnoreCase(std::string_view(*type).substr(0, 10), "multipart/")) {
      return Refuse({415,
                     "unsupported_media_type",
                     "send the archive itself as the request body, not a form: "
                     "curl --data-binary @image.tar, or -T image.tar -X POST",
                     {}});
    }
    auto upload = engine_.NewUpload(request.content_length);
    if (!upload.ok()) return Refuse(ToApiError(upload.error(), "image"));
    upload_ = std::move(*upload);
  }

  size_t OnBody(std::string_view bytes) override {
    if (!upload_) return bytes.size();
    const size_t taken = std::min(bytes.size(), kBuffered - buffer_.size());
    buffer_.append(bytes.substr(0, taken));
    stalled_ = taken < bytes.size();
    if (buffer_.size() >= kBlock) Flush();
    return taken;
  }

  void OnBodyEnd() override {
    ended_ = true;
    if (upload_) Flush();
  }

 private:
  bool ReadQuery(const HttpRequest& request) {
    ref_ = QueryValue(request.query(), "ref");
    if (ref_ && ref_->empty()) ref_.reset();
    any_platform_ = QueryValue(request.query(), "any_platform") == "1" ? AnyPlatform::kStore
                                                                       : AnyPlatform::kRefuse;
    if (!ref_) return true;
    const auto parsed = ParseImageRef(*ref_);
    if (parsed.ok()) return true;
    ApiError error = ToApiError(parsed.error(), "image");
    error.code = "invalid_ref";
    Refuse(error);
    return false;
  }

  void Refuse(const ApiError& error) {
    upload_.reset();
    exchange().Reply(ErrorReply(error));
  }

  void Flush() {
    if (writing_ || !upload_) return;
    if (buffer_.empty()) {
      if (ended_) Finish();
      return;
    }
    writing_ = true;
    upload_->Write(std::exchange(buffer_, {}),
                   WhileOpen([this](Status stored) { OnStored(stored); }));
  }

  void OnStored(const Status& stored) {
    writing_ = false;
    if (!stored.ok()) return Refuse(ToApiError(stored.error(), "image"));
    if (ended_ || buffer_.size() >= kBlock) Flush();
    if (std::exchange(stalled_, false)) exchange().ContinueBody();
  }

  void Finish() {
    before_ = RefsOf(engine_.Images());
    upload_->Finish(ref_, any_platform_,
                    WhileOpen([this](const ImportReport& report) { OnImported(report); }));
  }

  void OnImported(const ImportReport& report) {
    if (!report.status.ok()) return exchange().Reply(ErrorReply(ToApiError(report)));
    bool all_known = report.layers_created.empty();
    for (const auto& key : RefsOf(report.images)) all_known = all_known && before_.contains(key);
    exchange().Reply(JsonReply(all_known ? 200 : 201, ImportReportJson(report)));
  }

  Engine& engine_;
  std::unique_ptr<Engine::Upload> upload_;
  std::optional<std::string> ref_;
  AnyPlatform any_platform_ = AnyPlatform::kRefuse;
  std::string buffer_;
  RefSet before_;
  bool writing_ = false;
  bool stalled_ = false;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<HttpHandler> MakeUploadHandler(HttpExchange& exchange, Engine& engine) {
  return std::make_unique<UploadHandler>(exchange, engine);
}

}  // namespace pulga
