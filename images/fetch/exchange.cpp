#include "images/fetch/exchange.h"

#include <algorithm>

#include "base/text.h"
#include "base/units.h"
#include "images/json.h"

namespace pulga {
namespace {

constexpr int kMaxRedirects = 5;
constexpr int kMaxLogins = 2;  // of one exchange, without a byte between them
constexpr size_t kMaxErrorText = 8 * 1024;
constexpr size_t kMaxIgnored = 64 * 1024;  // read and dropped so that the connection can be kept

// The registry's own words, from its JSON of errors.
std::string ErrorText(const std::string& body) {
  const auto document = JsonDocument::Parse("error", body);
  if (!document.ok()) return "";
  const JsonValue errors = document->root().Get("errors");
  const JsonValue first = errors.IsArray() && errors.size() > 0 ? errors.At(0) : JsonValue();
  std::string text = first.Get("message").AsString().value_or("");
  if (text.empty()) text = first.Get("code").AsString().value_or("");
  return text.empty() ? "" : " (" + Printable(text, 200) + ")";
}

// "bytes 100-199/200" says where the part begins and how long the whole is.
bool ContinuesAt(const HttpHead& head, uint64_t offset, uint64_t size) {
  const std::string* range = head.Find("content-range");
  const std::string start = "bytes " + std::to_string(offset) + "-";
  if (range == nullptr || !range->starts_with(start)) return false;
  const std::string whole = range->substr(std::min(range->find('/'), range->size() - 1) + 1);
  return whole == "*" || whole == std::to_string(size);
}

// Retry-After in seconds; a date is taken as "not now".
std::optional<Duration> RetryAfter(const HttpHead& head) {
  const std::string* value = head.Find("retry-after");
  if (value == nullptr) return std::nullopt;
  const auto seconds = ParseUint(*value, 1 << 20);
  return std::chrono::seconds(seconds.value_or(10));
}

std::string Seconds(Duration duration) {
  return std::to_string(std::chrono::ceil<std::chrono::seconds>(duration).count()) + " s";
}

}  // namespace

const std::string* HttpHead::Find(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return &value;
  }
  return nullptr;
}

std::vector<std::string> HttpHead::All(std::string_view name) const {
  std::vector<std::string> out;
  for (const auto& [key, value] : headers) {
    if (key == name) out.push_back(value);
  }
  return out;
}

// --- one exchange

Error Exchange::Told(Code code, const std::string& message) const {
  return {code, 0, order_.what + ": " + message};
}

void Exchange::Finish(Status status) {
  status_ = std::move(status);
  state_ = State::kDone;
}

bool Exchange::OnHead(const HttpHead& head) {
  head_ = head;
  text_.clear();
  body_ = head.status >= 300 ? Body::kIgnore : Body::kTake;
  if (head.status >= 400) body_ = Body::kKeepText;
  return head.status == 200 || head.status == 206 ? OnSuccess(head) : true;
}

bool Exchange::OnSuccess(const HttpHead& head) {
  if (head.status == 206) {
    if (order_.size && ContinuesAt(head, offset_, *order_.size)) return true;
    restart_ = true;
    return false;
  }
  if (offset_ != 0) {  // it knows no ranges
    offset_ = 0;
    sink_.Restart();
  }
  const std::string* length = head.Find("content-length");
  const auto size = length == nullptr ? std::nullopt : ParseUint(*length);
  if (size && order_.size && *size != *order_.size) {
    stop_ = Told(Code::kInvalidArgument, "the registry sends " + std::to_string(*size) +
                                             " bytes, the manifest says " +
                                             std::to_string(*order_.size));
  } else if (size && *size > order_.most_bytes) {
    stop_ = Told(Code::kTooLarge,
                 HumanBytes(*size) + ", " + HumanBytes(order_.most_bytes) + " is the limit");
  }
  return !stop_;
}

bool Exchange::OnBytes(std::string_view bytes) {
  if (body_ != Body::kTake) {
    const size_t room = body_ == Body::kKeepText ? kMaxErrorText : kMaxIgnored;
    text_ += bytes.substr(0, room - std::min(room, text_.size()));
    return text_.size() < room;
  }
  if (bytes.size() > order_.most_bytes - std::min(order_.most_bytes, offset_)) {
    stop_ = order_.size ? Told(Code::kInvalidArgument, "the registry sends more than the " +
                                                           std::to_string(*order_.size) +
                                                           " bytes of the manifest")
                        : Told(Code::kTooLarge,
                               "more than " + HumanBytes(order_.most_bytes) + ", the limit");
    return false;
  }
  const Status taken = sink_.Take(bytes);
  if (!taken.ok()) {
    stop_ = Prefix(order_.what, taken.error());
    return false;
  }
  offset_ += bytes.size();
  gained_ = true;
  logins_ = 0;  // they were good; the next token may expire as well
  return true;
}

void Exchange::OnEnd(const HttpEnd& end) {
  if (stop_) return Finish(*stop_);
  if (!order_.anonymous && url_.SameOrigin(runner_->session_.base) &&
      end.peer != AddressKind::kNever) {
    runner_->session_.reach = end.peer;
  }
  const bool answered = end.kind == HttpEnd::Kind::kComplete ||
                        (end.kind == HttpEnd::Kind::kStopped && head_.status >= 300);
  if (restart_) {
    offset_ = 0;
    sink_.Restart();
    restart_ = false;
    return Retry("the registry answered another range than asked for", false);
  }
  if (!answered) {
    const std::string where = url_.HostPort() + ": " + end.text;
    switch (end.kind) {
      case HttpEnd::Kind::kUntrusted:
        return Finish(Told(Code::kUnavailable, where));
      case HttpEnd::Kind::kForbidden:
        return Finish(Told(Code::kPermission, where));
      case HttpEnd::Kind::kUnreachable:
        return Retry(where, true);
      default:
        return Retry(where, false);
    }
  }
  const int status = head_.status;
  if (status == 200 || status == 206) {
    if (!order_.size || offset_ == *order_.size) return Finish(OkStatus());
    return Retry("the connection ended after " + std::to_string(offset_) + " of " +
                     std::to_string(*order_.size) + " bytes",
                 false);
  }
  if (status >= 301 && status <= 308 && status != 304 && status != 305 && status != 306) {
    return OnRedirect(head_);
  }
  if (status == 408 || status == 425 || status == 429 || status >= 500) return OnLater();
  OnRefusal();
}

void Exchange::OnRedirect(const HttpHead& head) {
  const std::string* location = head.Find("location");
  if (location == nullptr) return Finish(Told(Code::kUnavailable, "a redirect to nowhere"));
  if (++redirects_ > kMaxRedirects) {
    return Finish(
        Told(Code::kUnavailable, "more than " + std::to_string(kMaxRedirects) + " redirects"));
  }
  // A form holds a credential: it goes where it was meant to go or nowhere.
  if (order_.form_body) return Finish(Told(Code::kUnavailable, "a redirect of a token request"));
  auto next = ResolveUrl(url_, *location);
  if (!next.ok()) return Finish(Prefix(order_.what, next.error()));
  url_ = std::move(*next);
  state_ = State::kWaiting;
}

void Exchange::OnLater() {
  const std::string why =
      url_.HostPort() + " answers " + std::to_string(head_.status) + ErrorText(text_);
  const auto pause = RetryAfter(head_);
  if (pause && *pause > runner_->rules_.longest_retry_after) {
    return Finish(Told(Code::kUnavailable, why + " and asks to wait " + Seconds(*pause)));
  }
  Retry(why, false);
  if (pause) not_before_ = std::max(not_before_, runner_->clock_.Now() + *pause);
}

void Exchange::OnRefusal() {
  const int status = head_.status;
  const std::string told =
      url_.HostPort() + " answers " + std::to_string(status) + ErrorText(text_);
  const bool own = !order_.anonymous && url_.SameOrigin(runner_->session_.base);
  if (status == 401 && own && order_.authorization.empty()) {
    state_ = State::kNeedsLogin;
    return;
  }
  if (status == 416 && offset_ != 0 && order_.size) {
    offset_ = 0;
    sink_.Restart();
    return Retry(told, false);
  }
  if (status == 401 || status == 403) return Finish(Told(Code::kPermission, told));
  // A signed link may have run out: the registry gives a new one.
  if (!own && !order_.anonymous && (status == 404 || status == 410)) return Retry(told, false);
  if (status == 404) return Finish(Told(Code::kNotFound, told));
  Finish(Told(Code::kUnavailable, told));
}

void Exchange::Retry(std::string why, bool unreachable) {
  const RetryRules& rules = runner_->rules_;
  fruitless_ = gained_ ? 0 : fruitless_ + 1;
  ++tries_;
  const int most = unreachable ? rules.tries_unreachable : rules.tries;
  if (fruitless_ >= most || tries_ >= rules.tries_in_all) {
    return Finish(Told(Code::kUnavailable, why));
  }
  if (!order_.size && offset_ != 0) {
    offset_ = 0;
    sink_.Restart();
  }
  url_ = order_.url;
  redirects_ = 0;
  state_ = State::kWaiting;
  not_before_ = runner_->clock_.Now() + runner_->Pause(fruitless_);
}

// --- all of them

ExchangeRunner::ExchangeRunner(HttpTransport& transport, const Clock& clock, RetryRules rules,
                               RegistrySession& session)
    : transport_(transport),
      clock_(clock),
      rules_(rules),
      session_(session),
      jitter_(static_cast<unsigned>(clock.Now().time_since_epoch().count())) {}

// Doubling, and up to a quarter more, so that many boards do not come back at the same moment.
Duration ExchangeRunner::Pause(int fruitless) {
  Duration pause = rules_.first_pause;
  for (int i = 1; i < fruitless && pause < rules_.longest_pause; ++i) pause *= 2;
  pause = std::min(pause, rules_.longest_pause);
  return pause + pause * (jitter_() % 256) / 1024;
}

Status ExchangeRunner::CheckTransport(const Url& url) const {
  if (url.scheme == "https" || session_.plain_http.contains(url.HostPort())) return OkStatus();
  return Error{Code::kPermission, 0,
               url.HostPort() +
                   " would be talked to without TLS: only what the setting "
                   "plain-http-registries names may be"};
}

void ExchangeRunner::Begin(Exchange& exchange) {
  exchange.runner_ = this;
  if (exchange.url_.host.empty()) exchange.url_ = exchange.order_.url;
  const Url& url = exchange.url_;
  const Status allowed = CheckTransport(url);
  if (!allowed.ok()) return exchange.Finish(Prefix(exchange.order_.what, allowed.error()));
  exchange.state_ = Exchange::State::kRunning;
  exchange.stop_.reset();
  exchange.gained_ = false;
  exchange.head_ = {};
  exchange.generation_ = session_.generation;
  HttpOrder order;
  order.url = url;
  order.headers = exchange.order_.headers;
  order.form_body = exchange.order_.form_body;
  const bool own = !exchange.order_.anonymous && url.SameOrigin(session_.base);
  std::string authorization = own ? session_.authorization : "";
  if (url.SameOrigin(exchange.order_.url) && !exchange.order_.authorization.empty()) {
    authorization = exchange.order_.authorization;
  }
  if (!authorization.empty()) order.headers.push_back("Authorization: " + authorization);
  // The administrator chose the registry; where it sends us must not be more private than it is.
  order.reach.most_private = url.SameOrigin(session_.base) ? AddressKind::kNever : session_.reach;
  if (exchange.order_.size && exchange.offset_ != 0) {
    order.headers.push_back("Range: bytes=" + std::to_string(exchange.offset_) + "-");
  }
  transport_.Start(order, exchange);
}

Status ExchangeRunner::Run(std::span<Exchange* const> exchanges, size_t at_once) {
  while (true) {
    size_t open = 0;
    size_t running = 0;
    for (Exchange* const exchange : exchanges) {
      if (exchange->state_ == Exchange::State::kNeedsLogin) {
        PULGA_RETURN_IF_ERROR(LogIn(*exchange));
      }
      if (exchange->state_ == Exchange::State::kRunning) ++running;
      if (exchange->state_ != Exchange::State::kDone) ++open;
      if (!exchange->status_.ok()) return exchange->status_;
    }
    if (open == 0) return OkStatus();
    Duration wait = std::chrono::seconds(60);
    for (Exchange* const exchange : exchanges) {
      if (exchange->state_ != Exchange::State::kWaiting || running >= at_once) continue;
      const Duration left = exchange->not_before_ - clock_.Now();
      ++running;  // one that waits for its turn again keeps its place
      if (left > Duration::zero()) {
        wait = std::min(wait, left);
        continue;
      }
      Begin(*exchange);
      if (exchange->state_ != Exchange::State::kRunning) wait = Duration::zero();
    }
    PULGA_RETURN_IF_ERROR(transport_.Wait(wait));
  }
}

Status ExchangeRunner::LogIn(Exchange& exchange) {
  exchange.state_ = Exchange::State::kWaiting;
  exchange.url_ = exchange.order_.url;
  if (exchange.generation_ != session_.generation) return OkStatus();  // somebody did meanwhile
  const std::string& host = session_.base.HostPort();
  const auto challenge = ChooseChallenge(exchange.head_.All("www-authenticate"));
  if (++exchange.logins_ > kMaxLogins || !challenge) {
    return exchange.Told(Code::kPermission,
                         host +
                             (session_.login.empty() ? " wants credentials, and there are none"
                                                     : " refuses the credentials") +
                             ErrorText(exchange.text_));
  }
  if (!session_.login.registry_token.empty()) {
    session_.authorization = "Bearer " + session_.login.registry_token;
  } else if (challenge->scheme == AuthChallenge::Scheme::kBasic) {
    if (session_.login.username.empty()) {
      return exchange.Told(Code::kPermission,
                           host + " wants credentials: a user name and a password");
    }
    session_.authorization = BasicAuthorization(session_.login);
  } else {
    auto token = FetchToken(*challenge);
    if (!token.ok()) return Prefix(exchange.order_.what, token.error());
    session_.authorization = "Bearer " + *token;
  }
  ++session_.generation;
  return OkStatus();
}

class TextSink final : public BodySink {
 public:
  void Restart() override { text.clear(); }
  Status Take(std::string_view bytes) override {
    text += bytes;
    return OkStatus();
  }
  std::string text;
};

Result<std::string> ExchangeRunner::FetchToken(const AuthChallenge& challenge) {
  constexpr uint64_t kMaxReply = 128 * 1024;
  PULGA_ASSIGN_OR_RETURN(TokenRequest request,
                         MakeTokenRequest(challenge, session_.login, session_.repository));
  ExchangeOrder order;
  order.what = "a token";
  order.url = std::move(request.url);
  order.authorization = std::move(request.authorization);
  order.form_body = std::move(request.form_body);
  order.anonymous = true;
  order.most_bytes = kMaxReply;
  TextSink sink;
  Exchange exchange(std::move(order), sink);
  Exchange* const one[] = {&exchange};
  PULGA_RETURN_IF_ERROR(Run(one, 1));
  return ParseTokenReply(sink.text);
}

}  // namespace pulga
