// What all routes of the OpenFaaS dialect share: replies as its gateway words them (text, never
// JSON errors), small JSON bodies, and which namespace a request is about. Loop thread.
// Source: faas-provider and the gateway, as docs/openfaas.md tells it.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "api/handlers.h"
#include "api/openfaas/json_object.h"
#include "base/result.h"

namespace pulga {

// A path below /system or /ui: it wants a login, and errors are text.
bool IsGatewayPath(std::string_view path);

// text/plain with nosniff; the text gets its line end.
HttpReply TextErrorReply(int status, std::string_view text);
// By the error's code, without paths of the host. `object` as for ToApiError.
HttpReply TextErrorReply(const Error& error, std::string_view object);
HttpReply InvalidCredentialsReply();  // 401
HttpReply PageNotFoundReply();        // 404 of an unknown path
// 405 without a body. `allow`: "GET, HEAD".
HttpReply WrongMethodReply(std::string allow);

// The request's body, a JSON object of at most `max_bytes`, however it is framed; 400 with the
// parser's words for anything else, 413 beyond.
using JsonHandler = std::function<void(const JsonObject& body, ReplyDone done)>;
std::unique_ptr<HttpHandler> WithJsonBody(HttpExchange& exchange, JsonHandler handle,
                                          size_t max_bytes = kMaxSpecBytes);

// What the body names, else the query's last "namespace=", else the default one.
std::string NamespaceOf(const JsonObject& body, std::string_view query);
std::string NamespaceOf(std::string_view query);

}  // namespace pulga
