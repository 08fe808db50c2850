#include "images/fetch/curl_transport.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <list>

#include "base/text.h"

namespace pulga {
namespace {

constexpr long kBufferBytes = 64 * 1024;
constexpr size_t kMaxHeaderBytes = 64 * 1024;

long Millis(Duration duration) {
  return static_cast<long>(std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

HttpEnd::Kind KindOf(CURLcode code) {
  switch (code) {
    case CURLE_OK:
      return HttpEnd::Kind::kComplete;
    case CURLE_WRITE_ERROR:
      return HttpEnd::Kind::kStopped;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_INTERFACE_FAILED:
    case CURLE_SSL_CONNECT_ERROR:  // cut in the middle of it, mostly
      return HttpEnd::Kind::kUnreachable;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_UNSUPPORTED_PROTOCOL:
      return HttpEnd::Kind::kUntrusted;
    default:
      return HttpEnd::Kind::kBroken;
  }
}

AddressKind KindOfText(const char* address) {
  sockaddr_in v4 = {};
  v4.sin_family = AF_INET;
  if (address != nullptr && inet_pton(AF_INET, address, &v4.sin_addr) == 1) {
    return KindOfAddress(reinterpret_cast<const sockaddr&>(v4));
  }
  sockaddr_in6 v6 = {};
  v6.sin6_family = AF_INET6;
  if (address != nullptr && inet_pton(AF_INET6, address, &v6.sin6_addr) == 1) {
    return KindOfAddress(reinterpret_cast<const sockaddr&>(v6));
  }
  return AddressKind::kNever;
}

}  // namespace

struct CurlTransport::Transfer {
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  HttpReceiver* receiver = nullptr;
  HttpHead head;
  size_t header_bytes = 0;
  bool head_told = false;
  bool stopped = false;
  bool forbidden = false;  // an address that the name has
  bool connects = false;   // to another
  bool proxied = false;
  Reach reach;
  FileBody body;  // what is left of it
  char error[CURL_ERROR_SIZE] = {};

  ~Transfer() {
    curl_slist_free_all(headers);
    if (easy != nullptr) curl_easy_cleanup(easy);
  }

  bool TellHead() {
    if (head_told) return !stopped;
    head_told = true;
    stopped = !receiver->OnHead(head);
    return !stopped;
  }

  static size_t OnHeader(char* data, size_t, size_t size, void* self);
  static size_t OnBytes(char* data, size_t, size_t size, void* self);
  static size_t ReadBody(char* data, size_t, size_t size, void* self);
  static curl_socket_t OpenSocket(void* self, curlsocktype, curl_sockaddr* address);
};

// Each line of a head, of the last of several heads in the end (100-continue comes first).
size_t CurlTransport::Transfer::OnHeader(char* data, size_t, size_t size, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  transfer.header_bytes += size;
  if (transfer.header_bytes > kMaxHeaderBytes) return 0;
  std::string_view line(data, size);
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  if (line.starts_with("HTTP/")) {
    transfer.head = {};
    const size_t space = line.find(' ');
    const auto status =
        space == std::string_view::npos ? std::nullopt : ParseUint(line.substr(space + 1, 3), 999);
    transfer.head.status = static_cast<int>(status.value_or(0));
    return size;
  }
  // Told before its body: a server may take its time over that, or never send any.
  if (line.empty() && transfer.head.status >= 200) return transfer.TellHead() ? size : 0;
  const size_t colon = line.find(':');
  if (colon != std::string_view::npos) {
    transfer.head.headers.emplace_back(ToLower(line.substr(0, colon)),
                                       std::string(Trim(line.substr(colon + 1))));
  }
  return size;
}

size_t CurlTransport::Transfer::OnBytes(char* data, size_t, size_t size, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  if (!transfer.TellHead()) return 0;
  transfer.stopped = !transfer.receiver->OnBytes(std::string_view(data, size));
  return transfer.stopped ? 0 : size;
}

size_t CurlTransport::Transfer::ReadBody(char* data, size_t, size_t size, void* self) {
  FileBody& body = static_cast<Transfer*>(self)->body;
  const ssize_t n =
      pread(body.fd, data, std::min<uint64_t>(size, body.size), static_cast<off_t>(body.offset));
  if (n < 0 || (n == 0 && body.size > 0)) return CURL_READFUNC_ABORT;
  body.offset += static_cast<uint64_t>(n);
  body.size -= static_cast<uint64_t>(n);
  return static_cast<size_t>(n);
}

// The address that is checked is the one that is connected to: no name is resolved twice.
curl_socket_t CurlTransport::Transfer::OpenSocket(void* self, curlsocktype,
                                                  curl_sockaddr* address) {
  auto& transfer = *static_cast<Transfer*>(self);
  if (!transfer.proxied && !transfer.reach.Covers(address->addr)) {
    transfer.forbidden = true;
    return CURL_SOCKET_BAD;
  }
  transfer.connects = true;
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

class CurlTransport::Impl {
 public:
  Impl(CURLM* multi, CurlOptions options) : multi_(multi), options_(std::move(options)) {}
  ~Impl() {
    for (const auto& transfer : transfers_) curl_multi_remove_handle(multi_, transfer->easy);
    transfers_.clear();
    curl_multi_cleanup(multi_);
  }
  void Start(const HttpOrder& order, HttpReceiver& receiver);
  Status Wait(Duration most);

 private:
  void Configure(Transfer& transfer, const HttpOrder& order);
  void Finish(CURL* easy, CURLcode code);

  CURLM* multi_;
  CurlOptions options_;
  std::list<std::unique_ptr<Transfer>> transfers_;
};

void CurlTransport::Impl::Configure(Transfer& transfer, const HttpOrder& order) {
  CURL* const easy = transfer.easy;
  const std::string proxy = ProxyFor(options_.proxies, order.url);
  transfer.proxied = !proxy.empty();
  transfer.reach = order.reach;
  curl_easy_setopt(easy, CURLOPT_URL, order.url.ToString().c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, order.url.scheme.c_str());
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
  curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "pulga/" PULGA_VERSION);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, kBufferBytes);
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, Millis(options_.connect_timeout));
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME,
                   std::max(1L, Millis(options_.stall_timeout) / 1000));
  curl_easy_setopt(easy, CURLOPT_PROXY, proxy.c_str());  // "": none, whatever the environment says
  curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
  curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
  curl_easy_setopt(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
  curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
  curl_easy_setopt(easy, CURLOPT_CAINFO, options_.ca_file.c_str());
  curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr);
  curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, options_.ca_file.c_str());
  curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, nullptr);
  curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer.error);
  for (const std::string& header : order.headers) {
    transfer.headers = curl_slist_append(transfer.headers, header.c_str());
  }
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer.headers);
  if (order.form_body) curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, order.form_body->c_str());
  if (order.file_body) {
    transfer.body = *order.file_body;
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(order.file_body->size));
    curl_easy_setopt(easy, CURLOPT_READFUNCTION, &Transfer::ReadBody);
    curl_easy_setopt(easy, CURLOPT_READDATA, &transfer);
  }
  curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, Millis(order.time_limit));
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Transfer::OnHeader);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Transfer::OnBytes);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &Transfer::OpenSocket);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, &transfer);
}

void CurlTransport::Impl::Start(const HttpOrder& order, HttpReceiver& receiver) {
  auto transfer = std::make_unique<Transfer>();
  transfer->receiver = &receiver;
  transfer->easy = curl_easy_init();
  if (transfer->easy == nullptr) {
    return receiver.OnEnd({HttpEnd::Kind::kBroken, "out of memory", AddressKind::kNever});
  }
  Configure(*transfer, order);
  curl_multi_add_handle(multi_, transfer->easy);
  transfers_.push_back(std::move(transfer));
}

Status CurlTransport::Impl::Wait(Duration most) {
  int running = 0;
  CURLMcode code = curl_multi_perform(multi_, &running);
  int queued = 0;
  bool ended = false;
  const auto collect = [&] {
    while (const CURLMsg* message = curl_multi_info_read(multi_, &queued)) {
      if (message->msg != CURLMSG_DONE) continue;
      ended = true;
      Finish(message->easy_handle, message->data.result);
    }
  };
  if (code == CURLM_OK) collect();
  if (code == CURLM_OK && !ended) {
    curl_waitfd channel = {options_.channel_fd, 0, 0};
    const unsigned channels = options_.channel_fd >= 0 ? 1 : 0;
    code = curl_multi_poll(multi_, &channel, channels, static_cast<int>(Millis(most)), nullptr);
    if (code == CURLM_OK) code = curl_multi_perform(multi_, &running);
    if (code == CURLM_OK) collect();
  }
  if (code != CURLM_OK) {
    return Error{Code::kInternal, 0, std::string("libcurl: ") + curl_multi_strerror(code)};
  }
  if (options_.channel_fd < 0) return OkStatus();
  pollfd gone = {options_.channel_fd, 0, 0};
  if (poll(&gone, 1, 0) == 1 && (gone.revents & (POLLERR | POLLNVAL)) != 0) {
    return Error{Code::kUnavailable, 0, "cancelled"};
  }
  return OkStatus();
}

void CurlTransport::Impl::Finish(CURL* easy, CURLcode code) {
  const auto it = std::find_if(transfers_.begin(), transfers_.end(),
                               [easy](const auto& transfer) { return transfer->easy == easy; });
  if (it == transfers_.end()) return;
  const std::unique_ptr<Transfer> transfer = std::move(*it);
  transfers_.erase(it);
  curl_multi_remove_handle(multi_, easy);
  HttpEnd end;
  end.kind = KindOf(code);
  // Of several addresses one that is allowed was tried, and how that went is what there is to say.
  const bool forbidden = transfer->forbidden && !transfer->connects;
  if (forbidden) end.kind = HttpEnd::Kind::kForbidden;
  long tunnel = 0;  // how a proxy answered to CONNECT
  curl_easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &tunnel);
  if (code != CURLE_OK && tunnel >= 300) end.kind = HttpEnd::Kind::kUnreachable;
  curl_off_t connected = 0;
  curl_easy_getinfo(easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
  if (code == CURLE_OPERATION_TIMEDOUT && connected == 0) end.kind = HttpEnd::Kind::kUnreachable;
  const char* address = nullptr;
  curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &address);
  if (!transfer->proxied) end.peer = KindOfText(address);
  if (end.kind == HttpEnd::Kind::kComplete) {
    if (!transfer->TellHead()) end.kind = HttpEnd::Kind::kStopped;
  } else if (end.kind == HttpEnd::Kind::kStopped && !transfer->stopped) {
    end.kind = HttpEnd::Kind::kBroken;  // the head was too large
  }
  end.text = transfer->error[0] != '\0' ? transfer->error : curl_easy_strerror(code);
  if (code == CURLE_SSL_CONNECT_ERROR && end.text.find("wrong version") != std::string::npos) {
    end.kind = HttpEnd::Kind::kUntrusted;
    end.text = "does not speak TLS; a registry without it must be named in plain-http-registries";
  }
  if (code == CURLE_OPERATION_TIMEDOUT && connected != 0) {
    end.text = "no byte came for " + std::to_string(Millis(options_.stall_timeout) / 1000) + " s";
  }
  if (forbidden) {
    end.text = "leads to an address more private than the registry's own: not followed";
  }
  transfer->receiver->OnEnd(end);
}

CurlTransport::CurlTransport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CurlTransport::~CurlTransport() = default;

Result<std::unique_ptr<CurlTransport>> CurlTransport::Create(CurlOptions options) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (ready != CURLE_OK) {
    return Error{Code::kInternal, 0, std::string("libcurl: ") + curl_easy_strerror(ready)};
  }
  CURLM* const multi = curl_multi_init();
  if (multi == nullptr) return Error{Code::kNoSpace, 0, "libcurl: out of memory"};
  return std::unique_ptr<CurlTransport>(
      new CurlTransport(std::make_unique<Impl>(multi, std::move(options))));
}

void CurlTransport::Start(const HttpOrder& order, HttpReceiver& receiver) {
  impl_->Start(order, receiver);
}

Status CurlTransport::Wait(Duration most) { return impl_->Wait(most); }

}  // namespace pulga
