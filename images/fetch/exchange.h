// One document or blob fetched from a registry, whatever it takes: authentication, redirects,
// back-off, resuming by Range. ExchangeRunner drives several at once over one transport.
// A redirect to another origin gets no credentials, and only the registry's own challenges are
// answered. On failure: the first error; what was received stays with the sink.
// Source: distribution spec; RFC 9110 sections 10.2.3, 14, 15.
#pragma once

#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "images/fetch/auth_challenge.h"
#include "images/fetch/http_transport.h"

namespace pulga {

// Takes the body. Restart: all of it comes again from its first byte.
class BodySink {
 public:
  virtual ~BodySink() = default;
  virtual void Restart() = 0;
  virtual Status Take(std::string_view bytes) = 0;
};

struct ExchangeOrder {
  std::string what;  // "blob sha256:...", for errors
  Url url;
  std::vector<std::string> headers;
  std::string authorization;  // kept instead of the session's when not empty
  std::optional<std::string> form_body;
  bool anonymous = false;  // to somebody else than the registry
  uint64_t most_bytes = 0;
  std::optional<uint64_t> size;  // promised: any other is an error, and it can be resumed
};

struct RetryRules {
  int tries = 6;  // in a row without a new byte
  int tries_unreachable = 3;
  int tries_in_all = 100;
  Duration first_pause = std::chrono::milliseconds(500);
  Duration longest_pause = std::chrono::seconds(8);
  Duration longest_retry_after = std::chrono::seconds(60);
};

// Who we talk to and what it knows about us.
struct RegistrySession {
  Url base;  // https://host/v2/...: its origin alone counts
  std::string repository;
  RegistryLogin login;
  std::set<std::string> plain_http;  // host:port of those that may be talked to without TLS
  std::string authorization;         // "" until asked for
  int generation = 0;                // of `authorization`
  AddressKind reach = AddressKind::kLoopback;  // of the registry itself, once it was reached
};

class Exchange final : public HttpReceiver {
 public:
  Exchange(ExchangeOrder order, BodySink& sink) : order_(std::move(order)), sink_(sink) {}

  const Status& status() const { return status_; }
  bool OnHead(const HttpHead& head) override;
  bool OnBytes(std::string_view bytes) override;
  void OnEnd(const HttpEnd& end) override;

 private:
  friend class ExchangeRunner;
  enum class State { kWaiting, kRunning, kNeedsLogin, kDone };
  enum class Body { kTake, kKeepText, kIgnore };

  bool OnSuccess(const HttpHead& head);
  void OnRedirect(const HttpHead& head);
  void OnRefusal();
  void OnLater();
  void Retry(std::string why, bool unreachable);
  void Finish(Status status);
  Error Told(Code code, const std::string& message) const;

  ExchangeOrder order_;
  BodySink& sink_;
  class ExchangeRunner* runner_ = nullptr;
  State state_ = State::kWaiting;
  Status status_;
  TimePoint not_before_{};
  Url url_;  // of this try
  HttpHead head_;
  Body body_ = Body::kTake;
  std::string text_;           // the start of an error's body
  uint64_t offset_ = 0;        // bytes the sink has
  std::optional<Error> stop_;  // why OnHead or OnBytes said no
  bool restart_ = false;       // what the sink has cannot be continued
  bool gained_ = false;        // this try brought bytes
  int redirects_ = 0;
  int fruitless_ = 0;
  int tries_ = 0;
  int logins_ = 0;
  int generation_ = 0;  // of the credentials this try was sent with
};

class ExchangeRunner {
 public:
  ExchangeRunner(HttpTransport& transport, const Clock& clock, RetryRules rules,
                 RegistrySession& session);
  // All of them, at most `at_once` at a time; stops at the first that fails and says why.
  Status Run(std::span<Exchange* const> exchanges, size_t at_once);

 private:
  friend class Exchange;
  void Begin(Exchange& exchange);
  Status LogIn(Exchange& exchange);
  Result<std::string> FetchToken(const AuthChallenge& challenge);
  Status CheckTransport(const Url& url) const;
  Duration Pause(int fruitless);

  HttpTransport& transport_;
  const Clock& clock_;
  RetryRules rules_;
  RegistrySession& session_;
  std::minstd_rand jitter_;
};

}  // namespace pulga
