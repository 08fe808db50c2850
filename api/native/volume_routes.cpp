#include "api/handlers.h"
#include "api/native/routes.h"
#include "api/volume_codec.h"
#include "sandbox/access_spec.h"

namespace pulga {
namespace {

constexpr size_t kSmallBody = 64 * 1024;

HttpReply Refusal(const Error& error) {
  ApiError refused = ToApiError(error, "volume");
  // Nothing else of ours is ever missing here but the image a data set is to be.
  if (error.code == Code::kNotFound && error.message.starts_with("image")) {
    refused.code = "image_not_found";
  }
  return ErrorReply(refused);
}

// Calls `then` with the volume's key, or replies 400 naming the rule for names.
template <typename Then>
std::unique_ptr<HttpHandler> WithKey(HttpExchange& exchange, const PathParams& params, Then then) {
  if (!IsPlainName(params.name)) {
    ApiError error = ToApiError(
        Error{Code::kInvalidArgument, 0,
              "name: 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"},
        "volume");
    error.code = "invalid_name";
    return Immediately(exchange, ErrorReply(error));
  }
  FunctionKey key;
  key.name = params.name;
  return WithBody(exchange, kSmallBody, [key, then](std::string body, ReplyDone done) {
    then(key, std::move(body), std::move(done));
  });
}

void Put(Engine& engine, const FunctionKey& key, const std::string& body, const ReplyDone& done) {
  const auto wish = ParseVolumeBody(body);
  if (!wish.ok()) return done(Refusal(wish.error()));
  engine.PutVolume(key, *wish, [done](const Result<VolumePut>& put) {
    if (!put.ok()) return done(Refusal(put.error()));
    const int status = put->effect == VolumePut::Effect::kCreated ? 201 : 200;
    done(JsonReply(status, VolumeJson(put->volume)));
  });
}

void Show(Engine& engine, const FunctionKey& key, const ReplyDone& done) {
  engine.Volume(key, [done](const Result<VolumeView>& volume) {
    done(volume.ok() ? JsonReply(200, VolumeJson(*volume)) : Refusal(volume.error()));
  });
}

void Resize(Engine& engine, const FunctionKey& key, const std::string& body,
            const ReplyDone& done) {
  const auto bytes = ParseResizeBody(body);
  if (!bytes.ok()) return done(Refusal(bytes.error()));
  engine.ResizeVolume(key, *bytes, [done](const Result<VolumeView>& volume) {
    done(volume.ok() ? JsonReply(200, VolumeJson(*volume)) : Refusal(volume.error()));
  });
}

void Remove(Engine& engine, const FunctionKey& key, const ReplyDone& done) {
  engine.RemoveVolume(key, [done](const Status& removed) {
    if (removed.ok()) return done(EmptyReply(204));
    ApiError error = ToApiError(removed.error(), "volume");
    if (error.status == 409) error.code = "volume_in_use";
    done(ErrorReply(error));
  });
}

}  // namespace

void AddVolumeRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/v1/volumes", [&engine](HttpExchange& exchange, const PathParams&) {
    return WithBody(exchange, 0, [&engine](const std::string&, const ReplyDone& done) {
      engine.Volumes([done](const Result<VolumeList>& list) {
        done(list.ok() ? JsonReply(200, VolumeListJson(*list)) : Refusal(list.error()));
      });
    });
  });
  const auto add = [&](const char* method, auto serve) {
    router.Add(method, "/v1/volumes/{name}",
               [serve](HttpExchange& exchange, const PathParams& params) {
                 return WithKey(exchange, params, serve);
               });
  };
  add("PUT", [&engine](const FunctionKey& key, const std::string& body, const ReplyDone& done) {
    Put(engine, key, body, done);
  });
  add("PATCH", [&engine](const FunctionKey& key, const std::string& body, const ReplyDone& done) {
    Resize(engine, key, body, done);
  });
  add("GET", [&engine](const FunctionKey& key, const std::string&, const ReplyDone& done) {
    Show(engine, key, done);
  });
  add("DELETE", [&engine](const FunctionKey& key, const std::string&, const ReplyDone& done) {
    Remove(engine, key, done);
  });
}

}  // namespace pulga
