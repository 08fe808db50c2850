#include "api/openfaas/replies.h"

#include <utility>

#include "api/error_mapping.h"
#include "base/text.h"

namespace pulga {
namespace {

bool IsBelow(std::string_view path, std::string_view root) {
  return path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/');
}

}  // namespace

bool IsGatewayPath(std::string_view path) {
  return IsBelow(path, "/system") || IsBelow(path, "/ui");
}

HttpReply TextErrorReply(int status, std::string_view text) {
  HttpReply reply;
  reply.status = status;
  reply.headers = {{"Content-Type", "text/plain; charset=utf-8"},
                   {"X-Content-Type-Options", "nosniff"},
                   {"Cache-Control", "no-store"}};
  reply.body = text;
  if (!reply.body.ends_with('\n')) reply.body += '\n';
  return reply;
}

HttpReply TextErrorReply(const Error& error, std::string_view object) {
  const ApiError told = ToApiError(error, object);
  HttpReply reply = TextErrorReply(told.status, told.message);
  if (told.status == 503) reply.headers.emplace_back("Retry-After", "1");
  return reply;
}

HttpReply InvalidCredentialsReply() {
  HttpReply reply = TextErrorReply(401, "");
  reply.headers.emplace_back("WWW-Authenticate", "Basic realm=\"Restricted\"");
  reply.body = "invalid credentials";  // without a line end there, too
  return reply;
}

HttpReply PageNotFoundReply() { return TextErrorReply(404, "404 page not found"); }

HttpReply WrongMethodReply(std::string allow) {
  HttpReply reply = EmptyReply(405);
  reply.headers.emplace_back("Allow", std::move(allow));
  return reply;
}

std::unique_ptr<HttpHandler> WithJsonBody(HttpExchange& exchange, JsonHandler handle,
                                          size_t max_bytes) {
  const auto refuse = [](const Error& error) { return TextErrorReply(error, "body"); };
  return WithBody(
      exchange, max_bytes,
      [handle = std::move(handle), max_bytes](const std::string& text, ReplyDone done) {
        const auto body = JsonObject::Parse(text, max_bytes);
        if (!body.ok()) return done(TextErrorReply(400, body.error().message));
        handle(*body, std::move(done));
      },
      refuse);
}

std::string NamespaceOf(std::string_view query) {
  std::string named = QueryValue(query, "namespace").value_or("");
  return named.empty() ? kDefaultNamespace : named;
}

std::string NamespaceOf(const JsonObject& body, std::string_view query) {
  std::string named = body.Text("namespace");
  return named.empty() ? NamespaceOf(query) : named;
}

}  // namespace pulga
