#include "runtime/tasks/callback_rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstdio>

#include "base/text.h"
#include "net/service_name.h"
#include "runtime/call_name.h"
#include "runtime/http_response_parser.h"

namespace pulga {
namespace {

constexpr uint16_t kGatewayPort = 8080;
constexpr Duration kFirstWait = std::chrono::seconds(1);
constexpr int kWaitFactor = 4;
constexpr size_t kMostErrorBytes = 200;
constexpr std::string_view kCallPath = "/function/";
constexpr std::string_view kQueuePath = "/async-function/";

Error Bad(std::string why) {
  return {Code::kInvalidArgument, 0, "X-Callback-Url: " + std::move(why)};
}

// Of a host that is an address already.
std::optional<sockaddr_storage> AddressOf(std::string host) {
  sockaddr_storage address = {};
  if (host == "localhost" || host.ends_with(".localhost")) host = "127.0.0.1";
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    return address;
  }
  if (!host.starts_with('[')) return std::nullopt;
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address);
  if (inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6->sin6_addr) != 1) {
    return std::nullopt;
  }
  v6->sin6_family = AF_INET6;
  return address;
}

// "2130706433", "0x7f.1", "127.1": addresses to some, names to others, and never meant well.
bool LooksLikeAddress(std::string_view host) {
  while (host.ends_with('.')) host.remove_suffix(1);
  const std::string_view last = host.substr(host.rfind('.') + 1);
  return host.starts_with('[') || last.starts_with("0x") ||
         last.find_first_not_of("0123456789") == std::string_view::npos;
}

Result<CallbackTarget> AtGateway(const Url& url) {
  if (url.scheme != "http" || url.port != kGatewayPort) {
    return Bad("functions of this board are called at http://gateway:8080/function/NAME");
  }
  GatewayCall call;
  const size_t question = url.target.find('?');
  std::string path = url.target.substr(0, question);
  if (question != std::string::npos) call.query = url.target.substr(question + 1);
  call.queued = path.starts_with(kQueuePath);
  if (!call.queued && !path.starts_with(kCallPath)) {
    return Bad("the gateway is asked for /function/NAME or /async-function/NAME alone");
  }
  path.erase(0, (call.queued ? kQueuePath : kCallPath).size());
  const size_t slash = path.find('/');
  if (slash != std::string::npos) call.path = path.substr(slash);
  call.function = ParseCallName(path.substr(0, slash));
  const Status valid = ValidateCallName(call.function);
  if (!valid.ok()) return Bad(valid.error().message);
  return CallbackTarget(std::move(call));
}

// What the receiver reads of us, and what its own server decides by.
bool IsReplaced(std::string_view name) {
  constexpr std::string_view kReplaced[] = {
      "X-Call-Id",  "X-Duration-Seconds", "X-Function-Name",  "X-Function-Status",
      "Host",       "Content-Length",     "Expect",           "X-Callback-Url",
      "webhook-id", "webhook-timestamp",  "webhook-signature"};
  return std::any_of(std::begin(kReplaced), std::end(kReplaced),
                     [&](std::string_view ours) { return EqualsIgnoreCase(name, ours); });
}

bool MayPass(int status) {
  constexpr int kLater[] = {408, 425, 429};
  return status >= 500 ||
         std::find(std::begin(kLater), std::end(kLater), status) != std::end(kLater);
}

}  // namespace

Result<CallbackTarget> ParseCallbackUrl(std::string_view text,
                                        const std::vector<NetworkPrefix>& networks) {
  if (text.size() > kMaxCallbackUrlBytes) return Bad("at most 2048 bytes");
  auto url = ParseUrl(text);
  if (!url.ok()) return Bad(url.error().message);
  const auto service = ParseServiceName(url->host);
  if (service && service->is_gateway()) return AtGateway(*url);
  const auto address = AddressOf(url->host);
  if (!address) {
    if (LooksLikeAddress(url->host)) return Bad("its host is no address as addresses are written");
    return CallbackTarget(std::move(*url));
  }
  const Reach reach{AddressKind::kPublic, {}, networks};
  if (reach.Covers(reinterpret_cast<const sockaddr&>(*address))) {
    return CallbackTarget(std::move(*url));
  }
  return Bad(url->host + " is no public address (setting callback-networks allows others)");
}

std::string ReceiverOf(std::string_view url) {
  const auto parsed = ParseUrl(url);
  if (!parsed.ok()) return "none";
  const auto service = ParseServiceName(parsed->host);
  if (service && service->is_gateway()) {
    const auto call = AtGateway(*parsed);
    if (!call.ok()) return "none";
    const auto& [key, queued, rest, query] = std::get<GatewayCall>(*call);
    return std::string(queued ? kQueuePath : kCallPath) + key.name + "." + key.name_space;
  }
  return parsed->scheme + "://" + parsed->HostPort();
}

HeaderList CallbackHeaders(const Task& task, const std::string& invoked_as,
                           const HeaderList& answer) {
  HeaderList headers;
  for (const auto& [name, value] : answer) {
    const bool fit = IsHeaderName(name) && IsHeaderValue(value) && !IsHopByHop(name);
    if (fit && !IsReplaced(name)) headers.emplace_back(name, value);
  }
  char seconds[32];
  snprintf(seconds, sizeof seconds, "%.6f", task.function_seconds);
  headers.emplace_back("X-Call-Id", task.id);
  headers.emplace_back("X-Duration-Seconds", seconds);
  headers.emplace_back("X-Function-Name", invoked_as);
  headers.emplace_back("X-Function-Status", std::to_string(task.status));
  return headers;
}

CallbackVerdict JudgeCallback(uint32_t tries, const Result<int>& status) {
  if (status.ok() && *status >= 200 && *status <= 299) return {};
  CallbackVerdict verdict;
  bool again = false;
  if (status.ok()) {
    verdict.error = "the receiver answered " + std::to_string(*status);
    if (*status >= 300 && *status <= 399) verdict.error += ": redirects are not followed";
    again = MayPass(*status);
  } else {
    const Code code = status.error().code;
    verdict.error = Printable(status.error().message, kMostErrorBytes);
    again = code != Code::kPermission && code != Code::kInvalidArgument;
  }
  verdict.state = again && tries < kCallbackTries ? CallbackState::kOwed : CallbackState::kGivenUp;
  verdict.wait = kFirstWait;
  for (uint32_t i = 1; i < std::min(tries, kCallbackTries); ++i) verdict.wait *= kWaitFactor;
  return verdict;
}

}  // namespace pulga
