#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"
#include "api/native/tus_rules.h"
#include "base/text.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

constexpr char kPatchType[] = "application/offset+octet-stream";

HttpReply WithVersion(HttpReply reply) {
  reply.headers.emplace_back("Tus-Resumable", kTusVersion);
  return reply;
}

HttpReply Refusal(const ApiError& error) {
  HttpReply reply = WithVersion(ErrorReply(error));
  if (error.status == 412) reply.headers.emplace_back("Tus-Version", kTusVersion);
  return reply;
}

HttpReply Refusal(const Error& error) {
  ApiError api = ToApiError(error, "upload");
  if (error.code == Code::kAlreadyExists) api.code = "offset_mismatch";
  if (error.code == Code::kPermission) api = {423, "upload_locked", error.message, {}};
  return Refusal(api);
}

HttpReply Gone() {
  return Refusal(
      ApiError{410, "upload_gone", "the upload expired or was removed: begin a new one", {}});
}

void AddOffset(const UploadView& view, HttpReply* reply) {
  reply->headers.emplace_back("Upload-Offset", std::to_string(view.upload.offset));
  reply->headers.emplace_back("Upload-Expires", HttpDate(view.expires_ms));
}

HttpReply HeadReply(const Result<UploadView>& view) {
  if (!view.ok()) return Refusal(view.error());
  if (view->state == UploadState::kGone) return Gone();
  HttpReply reply = WithVersion(EmptyReply(200));
  AddOffset(*view, &reply);
  reply.headers.emplace_back("Upload-Length", std::to_string(view->upload.length));
  if (!view->upload.metadata.empty()) {
    reply.headers.emplace_back("Upload-Metadata", view->upload.metadata);
  }
  reply.headers.emplace_back("Cache-Control", "no-store");
  return reply;
}

// To the PATCH that brought the last byte: how the import ended.
HttpReply PatchReply(const Result<UploadView>& view) {
  if (!view.ok()) return Refusal(view.error());
  if (view->state == UploadState::kGone) return Gone();
  const ImportReport* report = view->report.get();
  const bool failed = report != nullptr && !report->status.ok();
  HttpReply reply = WithVersion(failed ? ErrorReply(ToApiError(*report)) : EmptyReply(204));
  AddOffset(*view, &reply);
  return reply;
}

// One PATCH: its bytes are kept as they come, also when its connection is cut.
class PatchHandler final : public ReplyingHandler {
 public:
  PatchHandler(HttpExchange& exchange, ResumableUploads& uploads, std::string id)
      : ReplyingHandler(exchange), uploads_(uploads), id_(std::move(id)) {}

  void Start() override {
    const HttpRequest& request = exchange().request();
    const std::string* type = request.Header("Content-Type");
    if (type == nullptr || !EqualsIgnoreCase(Trim(*type), kPatchType)) {
      return exchange().Reply(Refusal(ApiError{
          415, "unsupported_media_type", std::string("Content-Type must be ") + kPatchType, {}}));
    }
    const auto offset = TusNumber(request, "Upload-Offset");
    if (!offset.ok()) return exchange().Reply(Refusal(offset.error()));
    ResumableUploads::PartRequest wanted;
    wanted.id = id_;
    wanted.offset = *offset;
    wanted.size = request.content_length;
    wanted.on_room = WhileOpen([this] { exchange().ContinueBody(); });
    wanted.has_left = [this] { return exchange().ClientHasLeft(); };  // dropped with part_
    wanted.on_done =
        WhileOpen([this](const Result<UploadView>& view) { exchange().Reply(PatchReply(view)); });
    auto part = uploads_.Resume(std::move(wanted));
    if (part.ok()) {
      part_ = std::move(*part);
    } else {
      Refuse(part.error());
    }
  }

  size_t OnBody(std::string_view bytes) override {
    return part_ ? part_->Write(bytes) : bytes.size();
  }
  void OnBodyEnd() override {
    if (part_) part_->Finish();
  }
  bool KeepsCutBody() const override { return part_ != nullptr; }
  void OnBodyCut(std::string_view rest) override { part_->WriteRest(rest); }

 private:
  // Unknown, or gone? Otherwise it says where the upload is, and until when.
  void Refuse(const Error& error) {
    exchange().HoldBody();
    uploads_.Look(id_, WhileOpen([this, error](const Result<UploadView>& view) {
                    if (!view.ok() || view->state == UploadState::kGone) {
                      return exchange().Reply(PatchReply(view));
                    }
                    HttpReply reply = Refusal(error);
                    AddOffset(*view, &reply);
                    exchange().Reply(std::move(reply));
                  }));
  }

  ResumableUploads& uploads_;
  std::string id_;
  std::unique_ptr<ResumableUploads::Part> part_;
};

Result<NewUploadOrder> ReadOrder(const HttpRequest& request) {
  NewUploadOrder order;
  if (request.Header("Upload-Defer-Length") != nullptr) {
    return Error{Code::kInvalidArgument, 0, "Upload-Length must be known from the beginning"};
  }
  PULGA_ASSIGN_OR_RETURN(order.length, TusNumber(request, "Upload-Length"));
  if (const std::string* metadata = request.Header("Upload-Metadata")) order.metadata = *metadata;
  PULGA_ASSIGN_OR_RETURN(const auto fields, ParseUploadMetadata(order.metadata));
  for (const auto& [key, value] : fields) {
    if (key == "ref") order.ref = value;
    if (key == "filename") order.filename = Printable(value);
    if (key != "any_platform") continue;
    if (value != "0" && value != "1") {
      return Error{
          Code::kInvalidArgument, 0,
          "Upload-Metadata: any_platform must be 0 or 1, not \"" + Printable(value, 40) + "\""};
    }
    if (value == "1") order.any_platform = AnyPlatform::kStore;
  }
  return order;
}

std::unique_ptr<HttpHandler> Create(HttpExchange& exchange, Engine& engine) {
  auto order = ReadOrder(exchange.request());
  if (!order.ok()) return Immediately(exchange, Refusal(order.error()));
  if (!order->ref.empty()) {
    const auto ref = ParseImageRef(order->ref);
    if (!ref.ok()) {
      ApiError error = ToApiError(ref.error(), "image");
      error.code = "invalid_ref";
      return Immediately(exchange, Refusal(error));
    }
  }
  return WithBody(exchange, 0, [&engine, order = *order](const std::string&, ReplyDone done) {
    engine.uploads().Create(order, [done](const Result<UploadView>& view) {
      if (!view.ok()) return done(Refusal(view.error()));
      HttpReply reply = WithVersion(EmptyReply(201));
      reply.headers.emplace_back("Location", "/v1/uploads/" + view->upload.id);
      reply.headers.emplace_back("Upload-Expires", HttpDate(view->expires_ms));
      done(std::move(reply));
    });
  });
}

// HEAD is the protocol's; GET is ours and tells the import's result, too.
std::unique_ptr<HttpHandler> Show(HttpExchange& exchange, Engine& engine, const std::string& id) {
  const bool head = TusMethod(exchange.request()) == "HEAD";
  if (head) {
    if (const auto problem = CheckTusHead(exchange.request())) {
      return Immediately(exchange, Refusal(*problem));
    }
  }
  return WithBody(exchange, 0, [&engine, id, head](const std::string&, ReplyDone done) {
    engine.uploads().Look(id, [head, done](const Result<UploadView>& view) {
      if (head) return done(HeadReply(view));
      if (!view.ok()) return done(Refusal(view.error()));
      if (view->state == UploadState::kGone) return done(Gone());
      done(WithVersion(JsonReply(200, UploadJson(*view))));
    });
  });
}

std::unique_ptr<HttpHandler> Remove(HttpExchange& exchange, Engine& engine, const std::string& id) {
  return WithBody(exchange, 0, [&engine, id](const std::string&, ReplyDone done) {
    engine.uploads().Look(id, [&engine, id, done](const Result<UploadView>& view) {
      if (!view.ok()) return done(Refusal(view.error()));
      if (view->state == UploadState::kGone) return done(Gone());
      engine.uploads().Remove(id, [done](const Status& removed) {
        done(removed.ok() ? WithVersion(EmptyReply(204)) : Refusal(removed.error()));
      });
    });
  });
}

// What all requests of the protocol but OPTIONS must have.
template <typename F>
RouteHandler Checked(F make) {
  return [make](HttpExchange& exchange, const PathParams& params) -> std::unique_ptr<HttpHandler> {
    if (const auto problem = CheckTusHead(exchange.request())) {
      return Immediately(exchange, Refusal(*problem));
    }
    return make(exchange, params.name);
  };
}

}  // namespace

void AddUploadRoutes(Router& router, Engine& engine) {
  const auto options = [&engine](HttpExchange& exchange, const PathParams&) {
    HttpReply reply = EmptyReply(204);
    const uint64_t most = engine.uploads().limits().upload_bytes;
    reply.headers = {{"Tus-Version", kTusVersion},
                     {"Tus-Extension", kTusExtensions},
                     {"Tus-Max-Size", std::to_string(most)}};
    return Immediately(exchange, WithVersion(std::move(reply)));
  };
  router.Add("OPTIONS", "/v1/uploads", options);
  router.Add("POST", "/v1/uploads", Checked([&engine](HttpExchange& exchange, const std::string&) {
               return Create(exchange, engine);
             }));
  router.Add("GET", "/v1/uploads", [&engine](HttpExchange& exchange, const PathParams&) {
    return Immediately(exchange,
                       WithVersion(JsonReply(200, UploadListJson(engine.uploads().List()))));
  });
  router.Add("OPTIONS", "/v1/uploads/{name}", options);
  router.Add("GET", "/v1/uploads/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return Show(exchange, engine, params.name);
             });
  router.Add("PATCH", "/v1/uploads/{name}",
             Checked([&engine](HttpExchange& exchange, const std::string& id) {
               return std::make_unique<PatchHandler>(exchange, engine.uploads(), id);
             }));
  router.Add("DELETE", "/v1/uploads/{name}",
             Checked([&engine](HttpExchange& exchange, const std::string& id) {
               return Remove(exchange, engine, id);
             }));
}

}  // namespace pulga
