#include "api/handlers.h"
#include "api/json_codec.h"
#include "api/native/routes.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

// Nothing: the name is no image name, and the reply says so.
std::optional<HttpReply> CheckRef(const std::string& ref) {
  if (IsSha256Digest(ref)) return std::nullopt;
  const auto parsed = ParseImageRef(ref);
  if (parsed.ok()) return std::nullopt;
  ApiError error = ToApiError(parsed.error(), "image");
  error.code = "invalid_ref";
  return ErrorReply(error);
}

std::unique_ptr<HttpHandler> ShowImage(HttpExchange& exchange, Engine& engine,
                                       const std::string& ref) {
  if (auto refusal = CheckRef(ref)) return Immediately(exchange, std::move(*refusal));
  const auto view = QueryValue(exchange.request().query(), "view");
  if (!view) {
    auto image = engine.Image(ref);
    if (!image.ok()) return Immediately(exchange, ErrorReply(ToApiError(image.error(), "image")));
    return Immediately(exchange, JsonReply(200, ImageJson(*image)));
  }
  if (*view != "tree" && *view != "sums") {
    const Error error{Code::kInvalidArgument, 0, "view must be tree or sums"};
    return Immediately(exchange, ErrorReply(ToApiError(error, "image")));
  }
  const TreeView kind = *view == "tree" ? TreeView::kTree : TreeView::kSums;
  return WithBody(exchange, 0, [&engine, ref, kind](std::string, ReplyDone done) {
    engine.ImageView(ref, kind, [done](Result<UniqueFd> file) {
      done(file.ok() ? FileReply(std::move(*file), "text/plain; charset=utf-8")
                     : ErrorReply(ToApiError(file.error(), "image")));
    });
  });
}

std::unique_ptr<HttpHandler> RemoveImage(HttpExchange& exchange, Engine& engine,
                                         const std::string& ref) {
  if (auto refusal = CheckRef(ref)) return Immediately(exchange, std::move(*refusal));
  return WithBody(exchange, 0, [&engine, ref](std::string, ReplyDone done) {
    engine.RemoveImage(ref, [&engine, ref, done](Status removed) {
      if (removed.ok()) return done(EmptyReply(204));
      ApiError error = ToApiError(removed.error(), "image");
      const auto found = engine.Image(ref);  // or is it one short digest of several?
      const bool ambiguous = !found.ok() && found.error().code == Code::kAlreadyExists;
      if (error.status == 409 && !ambiguous) error.code = "image_in_use";
      done(ErrorReply(error));
    });
  });
}

}  // namespace

void AddImageRoutes(Router& router, Engine& engine) {
  using Kind = QueryParam::Kind;
  const auto import = [&engine](HttpExchange& exchange, const PathParams&) {
    return MakeUploadHandler(exchange, engine);
  };
  router.Add("POST", "/v1/images", import,
             {{"ref"}, {"any_platform", Kind::kFlag}, {"skipped", Kind::kFlag}});
  router.Add("POST", "/v1/images/pull", [&engine](HttpExchange& exchange, const PathParams&) {
    return MakePullHandler(exchange, engine);
  });
  router.Add("GET", "/v1/images", [&engine](HttpExchange& exchange, const PathParams&) {
    return Immediately(exchange, JsonReply(200, ImageListJson(engine.Images())));
  });
  const auto show = [&engine](HttpExchange& exchange, const PathParams& params) {
    return ShowImage(exchange, engine, params.name);
  };
  router.Add("GET", "/v1/images/{ref...}", show, {{"view"}});
  router.Add("DELETE", "/v1/images/{ref...}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return RemoveImage(exchange, engine, params.name);
             });
}

}  // namespace pulga
