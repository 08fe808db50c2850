// One call of a function, as the HTTP front sees it: bytes in, a head and bytes out, an outcome and
// a receipt. Loop thread; nothing blocks; both directions are buffered by at most 64 KiB each and
// push back. Implemented by the exec and http invocations; faked in api/ tests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "runtime/function_spec.h"
#include "sandbox/outcome.h"

namespace pulga {

using HeaderList = std::vector<std::pair<std::string, std::string>>;  // in order, names as sent

struct InvocationRequest {
  FunctionKey function;
  std::string call_id;
  std::string method;      // "GET", ...
  std::string path = "/";  // what follows /function/NAME, raw (still percent-encoded)
  std::string query;       // raw, without '?'
  HeaderList headers;      // end-to-end ones only: hop-by-hop and framing already removed
  std::optional<uint64_t> content_length;  // nothing: chunked, or no body at all
  bool has_body = false;
  // The protocol the client would speak on this connection from now on, if the function agrees (by
  // 101); empty: none. Such a request has no body.
  std::string upgrade;
  bool wants_stream = false;  // Accept: text/event-stream or ?stream=1: skip the hold
  std::string client;         // "ip:port"
};

// Outcome::detail of kRejected, beside what a cold start may say.
inline constexpr std::string_view kRejectUnknownFunction = "unknown-function";  // 404
inline constexpr std::string_view kRejectBodyLimit = "body-limit";              // 413
inline constexpr std::string_view kRejectBadArgument = "bad-argument";          // 400: NUL in it
inline constexpr std::string_view kRejectUpgrade = "upgrade";                   // 501: not http
inline constexpr std::string_view kRejectQueueFull = "queue-full";              // 429
inline constexpr std::string_view kRejectQueueTimeout = "queue-timeout";        // 429
inline constexpr std::string_view kRejectMemory = "memory";                     // 503
inline constexpr std::string_view kRejectPressure = "pressure";                 // 503: of the board
inline constexpr std::string_view kRejectUnavailable = "unavailable";     // 503: sandbox restarting
inline constexpr std::string_view kRejectShuttingDown = "shutting-down";  // 503

// What an outcome is in HTTP; 0: the function's own status applies (Ok). docs/api.md, "Outcomes".
int OutcomeStatus(const Outcome& outcome);

enum class StartKind : uint8_t { kNone, kCold, kParked, kWarm, kFrozen, kReclaimed };
std::string_view StartKindName(StartKind kind);  // "cold", "parked", ...; kNone = "none"

// Milliseconds per step; negative = the step did not happen. queue, sandbox, ready and function
// follow on each other and add up to the whole call; exec is the first part of function.
struct Receipt {
  StartKind start = StartKind::kNone;
  // To the grant of an instance (http, cold: to when the start it waited for began, if that was
  // later than the call), or to the end without one.
  double queue_ms = -1;
  // From there to just before execve (or to the end without one): building or waking the sandbox.
  // Frozen, reclaimed: the thaw. Warm: none.
  double sandbox_ms = -1;
  double exec_ms = -1;   // exec only: from there to the first output seen, or the exit if none
  double ready_ms = -1;  // http, cold only: from there to when the server took a connection
  // From when the function was there for the call (exec: the execve; http: the grant of a server
  // that listens) to the end when that is known, else to the first byte.
  double function_ms = -1;
};
// "queue;dur=0.004, sandbox;dur=0.210, ..." (Server-Timing).
std::string ServerTiming(const Receipt& receipt);

struct ResponseHead {
  // What the function itself said (http) or 200 (exec); 0 = the function produced no response, the
  // front makes one from the outcome.
  int status = 0;
  HeaderList headers;  // end-to-end ones, already sanitised
  // 101: the protocol asked for is spoken from here on, and Write and Read carry its bytes; EndBody
  // is the client's end of stream.
  std::string upgrade;
  std::optional<uint64_t> content_length;  // nothing: chunked
  bool final_outcome_known = false;        // then outcome() and receipt() are complete
  uint32_t retry_after_s = 0;              // Retry-After for a rejected call; 0 = none
};

enum class ReadState : uint8_t { kData, kWait, kEnd, kAborted };
struct ReadResult {
  ReadState state = ReadState::kWait;
  size_t size = 0;  // kData
};

// Told on the loop thread, never from inside a call of the front into the Invocation.
class InvocationObserver {
 public:
  virtual ~InvocationObserver() = default;
  virtual void OnHead() = 0;  // head() may be read; once, also when the call failed or was rejected
  virtual void OnReadable() = 0;  // Read() has something new: data, the end, or an abort
  virtual void OnWritable() = 0;  // Write() takes bytes again
};

// Destroying it before the end cancels: the client is gone.
class Invocation {
 public:
  virtual ~Invocation() = default;
  // Takes a prefix of `bytes`; 0 = full, wait for OnWritable. After the function stopped reading,
  // or after an outcome, everything is taken and dropped.
  virtual size_t Write(std::string_view bytes) = 0;
  virtual void EndBody() = 0;
  virtual const ResponseHead& head() const = 0;
  // kAborted: the reply broke off after the head; close the connection without the final chunk.
  virtual ReadResult Read(char* buffer, size_t capacity) = 0;
  // All of the body, when it is complete and small enough to be held (then Read() need not be
  // called; the bytes stay valid as long as the invocation). For HEAD it is empty although
  // content_length may not be 0. Nothing: stream it by Read().
  virtual std::optional<std::string_view> WholeBody() const { return std::nullopt; }
  virtual const Outcome& outcome() const = 0;  // final once Read() said kEnd or kAborted
  virtual const Receipt& receipt() const = 0;
  // For the plain-text body of a failed call: last 4 KiB of stderr, peak and limit, what to do.
  virtual std::string FailureText() const = 0;
};

}  // namespace pulga
