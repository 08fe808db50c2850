#include "images/fetch/callback_errand.h"

#include <ifaddrs.h>
#include <netinet/in.h>

#include <algorithm>

#include "base/file_io.h"
#include "base/text.h"

namespace pulga {
namespace {

constexpr Duration kWait = std::chrono::seconds(1);
constexpr size_t kMostHeadBytes = 256 * 1024;
constexpr int kWidestLink = 16;
// An answer's body means nothing to us; reading a little lets a receiver end in peace.
constexpr size_t kMostIgnored = 64 * 1024;

class StatusReceiver final : public HttpReceiver {
 public:
  bool OnHead(const HttpHead& head) override {
    status = head.status;
    return true;
  }
  bool OnBytes(std::string_view bytes) override {
    ignored_ += bytes.size();
    return ignored_ <= kMostIgnored;
  }
  void OnEnd(const HttpEnd& told) override { end = told; }

  int status = 0;
  std::optional<HttpEnd> end;

 private:
  size_t ignored_ = 0;
};

// As libcurl wants them: "Name;" is one without a value, "Name:" none at all.
std::vector<std::string> HeaderLines(std::string_view text) {
  // Of its own it would add a form's type, and wait for leave to send a large body.
  std::vector<std::string> lines = {"Expect:"};
  bool typed = false;
  for (const std::string_view line : Split(text, '\n')) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0) continue;
    const std::string name(line.substr(0, colon));
    typed = typed || EqualsIgnoreCase(name, "Content-Type");
    lines.push_back(Trim(line.substr(colon + 1)).empty() ? name + ";" : std::string(line));
  }
  if (!typed) lines.emplace_back("Content-Type:");
  return lines;
}

Error Unreached(const HttpEnd& end) {
  const std::string why = end.text.empty() ? "no answer" : end.text;
  switch (end.kind) {
    case HttpEnd::Kind::kForbidden:
      return {Code::kPermission, 0,
              "it leads to an address that is not allowed (callback-networks)"};
    case HttpEnd::Kind::kUntrusted:
      return {Code::kUnavailable, 0, "not trusted: " + why};
    default:
      return {Code::kUnavailable, 0, why};
  }
}

// All that shares its bits under the mask. A tunnel's mask may be of all of IPv6: then itself
// alone.
NetworkPrefix LinkOf(NetworkPrefix own, const sockaddr* mask) {
  if (mask == nullptr || mask->sa_family != AF_INET6) return own;
  const uint8_t* bytes = reinterpret_cast<const sockaddr_in6*>(mask)->sin6_addr.s6_addr;
  int bits = 0;
  while (bits < 128 && (bytes[bits / 8] >> (7 - bits % 8) & 1) != 0) ++bits;
  return bits < kWidestLink ? own : Widened(own, bits);
}

}  // namespace

Result<std::vector<NetworkPrefix>> OwnAddresses() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return LastError("list the board's addresses");
  std::vector<NetworkPrefix> own;
  for (const ifaddrs* at = first; at != nullptr; at = at->ifa_next) {
    const sockaddr* address = at->ifa_addr;
    if (address == nullptr) continue;
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6) continue;
    NetworkPrefix prefix = PrefixOf(*address);
    if (address->sa_family == AF_INET6) prefix = LinkOf(prefix, at->ifa_netmask);
    if (std::find(own.begin(), own.end(), prefix) == own.end()) own.push_back(prefix);
  }
  freeifaddrs(first);
  return own;
}

Status RunCallback(const PostOrder& order, HttpTransport& transport, int input_fd,
                   Result<int>* answer) {
  if (order.head_bytes > kMostHeadBytes) {
    *answer = Error{Code::kInvalidArgument, 0, "the callback's headers are too large"};
    return OkStatus();
  }
  auto url = ParseUrl(order.url);
  if (!url.ok()) {
    *answer = url.error();
    return OkStatus();
  }
  HttpOrder http;
  http.url = std::move(*url);
  PULGA_ASSIGN_OR_RETURN(const std::string head, ReadAt(input_fd, 0, order.head_bytes));
  http.headers = HeaderLines(head);
  http.file_body = FileBody{input_fd, order.head_bytes, order.body_bytes};
  http.time_limit = order.time_limit;
  http.reach.most_private = AddressKind::kPublic;
  http.reach.allowed = order.networks;
  PULGA_ASSIGN_OR_RETURN(http.reach.refused, OwnAddresses());
  StatusReceiver receiver;
  transport.Start(http, receiver);
  while (!receiver.end) PULGA_RETURN_IF_ERROR(transport.Wait(kWait));
  // Once its status is there, how the rest of an answer goes is the receiver's business.
  if (receiver.status >= 100 && receiver.status <= 599) {
    *answer = receiver.status;
  } else {
    *answer = Unreached(*receiver.end);
  }
  return OkStatus();
}

}  // namespace pulga
