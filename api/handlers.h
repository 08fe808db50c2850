// The shapes most routes have: answer at once; collect a small body, then answer; answer when an
// asynchronous call of the engine is done. Loop thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "api/error_mapping.h"
#include "api/http_handler.h"

namespace pulga {

// Replies when told to; a callback made with WhileOpen does nothing once the exchange is over.
class ReplyingHandler : public HttpHandler {
 protected:
  explicit ReplyingHandler(HttpExchange& exchange) : exchange_(exchange) {}
  template <typename F>
  auto WhileOpen(F f) {
    return [open = std::weak_ptr<char>(open_), f = std::move(f)](auto&&... args) mutable {
      if (!open.expired()) f(std::forward<decltype(args)>(args)...);
    };
  }
  HttpExchange& exchange() { return exchange_; }

 private:
  HttpExchange& exchange_;
  std::shared_ptr<char> open_ = std::make_shared<char>();
};

HttpReply JsonReply(int status, std::string body);
HttpReply EmptyReply(int status);                            // 204
HttpReply FileReply(UniqueFd fd, std::string content_type);  // all of it, from where it stands

// Answers with `reply` whatever the body is.
std::unique_ptr<HttpHandler> Immediately(HttpExchange& exchange, HttpReply reply);

// `done` may be called at any time, later too, and after the exchange is over.
using ReplyDone = std::function<void(HttpReply)>;
using BodyFunction = std::function<void(std::string body, ReplyDone done)>;
using RefusalFunction = HttpReply (*)(const Error& error);
// Collects a body of at most `limit` bytes, then calls. Beyond it answers 413, by `refuse` if there
// is one.
std::unique_ptr<HttpHandler> WithBody(HttpExchange& exchange, size_t limit, BodyFunction function,
                                      RefusalFunction refuse = nullptr);

}  // namespace pulga
