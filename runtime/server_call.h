// ServerCall: what calls share whose function is a server (http, frames): their way into the pool,
// the receipt of a server's start, and the bounds of the request's body and of the reply's. Loop
// thread.
// Source: runtime/README.md.
#pragma once

#include <string_view>

#include "runtime/call.h"

namespace pulga {

class ServerCall : public Call {
 public:
  using Call::Call;
  void Begin(Pool& target);

 protected:
  // After OnInstance: the timeout runs, and the receipt says what the call waited for, how long.
  void BeginFunction(const Instance& granted, StartKind start);
  // What of `bytes` belongs to the request: more than announced never reaches the function.
  std::string_view Announced(std::string_view bytes) const;
  // All of the request's body was taken.
  bool BodyComplete() const { return body_ended_ || request_.content_length == body_bytes_; }
  // False: less than announced came before the end, and the call has failed.
  bool CheckBodyEnd();
  // False: over the version's limit, and the call has ended.
  bool CountBody(size_t more);
  bool CountOutput(uint64_t more);
  void OnBadResponse(const char* why);

  uint64_t body_bytes_ = 0;
  uint64_t output_bytes_ = 0;
  bool body_ended_ = false;
  bool write_refused_ = false;  // the front waits for kWritable
};

}  // namespace pulga
