// What a route implements (HttpHandler) and what it answers through (HttpExchange). One of each per
// request, loop thread, nothing blocks. The server destroys the handler when the exchange is over
// or the client is gone, never from inside one of its own calls.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "api/http_message.h"

namespace pulga {

class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual const HttpRequest& request() const = 0;
  // Moves the headers out; request() has none afterwards.
  virtual HeaderList TakeHeaders() = 0;
  // For us alone: whoever takes the headers does not get it. All of that name.
  virtual void DropHeader(std::string_view name) = 0;
  // Once. A reply given before the body has ended is sent at once where that is safe for the
  // client, and the connection then closes; a small rest of a body is read and dropped instead.
  virtual void Reply(HttpReply reply) = 0;
  // OnBody took less than it was offered: offer the rest now.
  virtual void ContinueBody() = 0;
  // Read said kWait: ask again now.
  virtual void ContinueReply() = 0;
  // From Start only: the body stays unread until ContinueBody, so that a refusal can still come
  // before its first byte (and before 100-continue).
  virtual void HoldBody() = 0;
  // Nothing more will come: all that its client sent has been read, and its end, too.
  virtual bool ClientHasLeft() const = 0;
};

class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  virtual void Start() = 0;
  // Takes a prefix; what is not taken is offered again after ContinueBody.
  virtual size_t OnBody(std::string_view bytes) { return bytes.size(); }
  virtual void OnBodyEnd() {}
  // The client is gone in the middle of its body: true to get what was offered and not taken yet,
  // and what its socket still holds if it left meanwhile. Not of chunked bodies.
  virtual bool KeepsCutBody() const { return false; }
  virtual void OnBodyCut(std::string_view) {}
  // Streamed replies only. kAborted closes the connection without the final chunk.
  virtual ReadResult Read(char*, size_t) { return ReadResult{ReadState::kEnd, 0}; }
  // The server stops: end what would never end by itself.
  virtual void OnStopping() {}
  // Asked after Read said kEnd in a chunked reply.
  virtual HeaderList Trailers() { return {}; }
};

using HandlerFactory = std::function<std::unique_ptr<HttpHandler>(HttpExchange&)>;

}  // namespace pulga
