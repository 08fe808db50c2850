#include "api/http_message.h"

#include <algorithm>
#include <array>

#include "base/ids.h"
#include "base/text.h"

namespace pulga {
namespace {

// Tables, because every byte of every head is looked up.
struct ByteTables {
  std::array<bool, 256> token = {};  // of a name
  std::array<bool, 256> value = {};  // of a value
};

constexpr bool IsControl(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

constexpr ByteTables MakeByteTables() {
  ByteTables tables;
  for (int i = 0; i < 256; ++i) {
    const char c = static_cast<char>(i);
    const bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const bool mark = std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
    tables.token[static_cast<size_t>(i)] = alnum || mark;
    tables.value[static_cast<size_t>(i)] = !IsControl(c) || c == '\t';
  }
  return tables;
}
constexpr ByteTables kBytes = MakeByteTables();

bool IsTokenChar(char c) { return kBytes.token[static_cast<unsigned char>(c)]; }

bool IsGoodValue(std::string_view value) {
  return std::all_of(value.begin(), value.end(),
                     [](char c) { return kBytes.value[static_cast<unsigned char>(c)]; });
}

bool IsOneOf(std::string_view name, const std::vector<std::string_view>& list) {
  return std::any_of(list.begin(), list.end(),
                     [&](std::string_view one) { return EqualsIgnoreCase(name, one); });
}

bool IsHopByHop(std::string_view name) {
  static const std::vector<std::string_view> kNames = {"Connection",
                                                       "Keep-Alive",
                                                       "Proxy-Connection",
                                                       "Proxy-Authenticate",
                                                       "Proxy-Authorization",
                                                       "TE",
                                                       "Trailer",
                                                       "Transfer-Encoding",
                                                       "Upgrade",
                                                       "Content-Length",
                                                       "Expect"};
  // Most names are told apart by their first letter.
  switch (name.empty() ? 0 : name[0] | 0x20) {
    case 'c':
    case 'k':
    case 'p':
    case 't':
    case 'u':
    case 'e':
      return IsOneOf(name, kNames);
    default:
      return false;
  }
}

HeadProblem Bad(std::string text, int status = 400) { return HeadProblem{status, std::move(text)}; }

std::optional<HeadProblem> CheckRequestLine(const HttpRequest& request) {
  if (!IsToken(request.method)) return Bad("malformed method");
  if (request.version != "HTTP/1.1" && request.version != "HTTP/1.0") {
    return Bad("only HTTP/1.0 and HTTP/1.1 are spoken here", 505);
  }
  if (request.target.empty() || request.target[0] != '/') {
    return Bad("the request target must be a path that begins with '/'");
  }
  for (char c : request.target) {
    if (IsControl(c) || c == ' ' || static_cast<unsigned char>(c) >= 0x80) {
      return Bad("the request target holds a byte that must be percent-encoded");
    }
  }
  return std::nullopt;
}

// Counts and checks one framing header; the totals are judged by CheckFraming.
struct Framing {
  int content_lengths = 0;
  int transfer_encodings = 0;
  int hosts = 0;
};

std::optional<HeadProblem> CheckHeader(const std::string& name, const std::string& value,
                                       Framing& framing) {
  if (!IsToken(name)) return Bad("malformed header name \"" + Printable(name, 40) + "\"");
  if (!IsGoodValue(value)) return Bad("header " + name + " holds a control byte");
  if (EqualsIgnoreCase(name, "Content-Length")) {
    ++framing.content_lengths;
    if (!ParseUint(value)) return Bad("Content-Length is not a plain decimal number");
  } else if (EqualsIgnoreCase(name, "Transfer-Encoding")) {
    ++framing.transfer_encodings;
    if (!EqualsIgnoreCase(value, "chunked"))
      return Bad("only Transfer-Encoding: chunked is accepted");
  } else if (EqualsIgnoreCase(name, "Host")) {
    ++framing.hosts;
  }
  return std::nullopt;
}

}  // namespace

bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar);
}

bool IsManagementPath(std::string_view path) {
  return path.starts_with("/v1") && (path.size() == 3 || path[3] == '/');
}

std::string CallIdOf(const HttpRequest& request) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  const std::string* given = request.Header("X-Call-Id");
  const bool keep = given != nullptr && !given->empty() && given->size() <= 64 &&
                    std::all_of(given->begin(), given->end(), fits);
  return keep ? *given : RandomUuid();
}

std::string_view HttpRequest::path() const {
  const std::string_view all(target);
  return all.substr(0, all.find('?'));
}

std::string_view HttpRequest::query() const {
  const std::string_view all(target);
  const size_t mark = all.find('?');
  return mark == std::string_view::npos ? std::string_view() : all.substr(mark + 1);
}

const std::string* HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key.size() == name.size() && EqualsIgnoreCase(key, name)) return &value;
  }
  return nullptr;
}

std::optional<HeadProblem> CheckHead(const HttpRequest& request) {
  if (auto problem = CheckRequestLine(request)) return problem;
  Framing framing;
  for (const auto& [name, value] : request.headers) {
    if (auto problem = CheckHeader(name, value, framing)) return problem;
  }
  if (framing.content_lengths > 1) return Bad("more than one Content-Length");
  if (framing.transfer_encodings > 1) return Bad("more than one Transfer-Encoding");
  if (framing.content_lengths + framing.transfer_encodings > 1) {
    return Bad("Content-Length and Transfer-Encoding exclude each other");
  }
  if (framing.transfer_encodings == 1 && request.version == "HTTP/1.0") {
    return Bad("HTTP/1.0 has no Transfer-Encoding");
  }
  if (framing.hosts > 1) return Bad("more than one Host header");
  if (framing.hosts == 0 && request.version == "HTTP/1.1") return Bad("Host header is missing");
  return std::nullopt;
}

HeaderList EndToEndHeaders(HeaderList headers) {
  std::vector<std::string> named;
  for (const auto& [name, value] : headers) {
    if (!EqualsIgnoreCase(name, "Connection")) continue;
    for (std::string_view token : Split(value, ',')) named.emplace_back(Trim(token));
  }
  const auto ends_here = [&named](const auto& header) {
    const auto is_it = [&](const std::string& name) {
      return EqualsIgnoreCase(header.first, name);
    };
    return IsHopByHop(header.first) || std::any_of(named.begin(), named.end(), is_it);
  };
  headers.erase(std::remove_if(headers.begin(), headers.end(), ends_here), headers.end());
  return headers;
}

std::optional<std::string> RequestedUpgrade(const HttpRequest& request) {
  if (request.version != "HTTP/1.1" || request.has_body() || request.method == "HEAD") {
    return std::nullopt;
  }
  const std::string* protocol = nullptr;
  bool nominated = false;
  for (const auto& [name, value] : request.headers) {
    if (EqualsIgnoreCase(name, "Upgrade")) {
      if (protocol != nullptr) return std::nullopt;
      protocol = &value;
    } else if (EqualsIgnoreCase(name, "Connection")) {
      for (std::string_view token : Split(value, ',')) {
        nominated = nominated || EqualsIgnoreCase(Trim(token), "upgrade");
      }
    }
  }
  if (protocol == nullptr || !nominated) return std::nullopt;
  const size_t slash = std::min(protocol->find('/'), protocol->size());
  const std::string_view name = std::string_view(*protocol).substr(0, slash);
  const std::string_view version = std::string_view(*protocol).substr(slash);
  const bool fit = IsToken(name) && (version.empty() || IsToken(version.substr(1)));
  if (!fit || EqualsIgnoreCase(name, "http") || ToLower(name).starts_with("h2")) {
    return std::nullopt;
  }
  return *protocol;
}

bool IsFitReplyHeader(std::string_view name, std::string_view value) {
  return IsToken(name) && IsGoodValue(value) && !IsHopByHop(name);
}

namespace {

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The length of the well-formed UTF-8 sequence at the front of `text`; 0 if there is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and what lies beyond U+10FFFF.
  if (first == 0xe0 && byte(1) < 0xa0) return 0;
  if (first == 0xed && byte(1) > 0x9f) return 0;
  if (first == 0xf0 && byte(1) < 0x90) return 0;
  if (first == 0xf4 && byte(1) > 0x8f) return 0;
  return size;
}

// Source: IANA's registry of HTTP status codes; sorted.
struct Reason {
  int status;
  std::string_view phrase;
};
constexpr Reason kReasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {102, "Processing"},
    {103, "Early Hints"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {207, "Multi-Status"},
    {208, "Already Reported"},
    {226, "IM Used"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {305, "Use Proxy"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {423, "Locked"},
    {424, "Failed Dependency"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {506, "Variant Also Negotiates"},
    {507, "Insufficient Storage"},
    {508, "Loop Detected"},
    {510, "Not Extended"},
    {511, "Network Authentication Required"},
};

}  // namespace

std::optional<std::string> PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = HexValue(text[i + 1]);
      const int low = HexValue(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (IsControl(c)) return std::nullopt;
    out.push_back(c);
  }
  for (std::string_view rest(out); !rest.empty();) {
    const size_t size = Utf8Length(rest);
    if (size == 0) return std::nullopt;
    rest.remove_prefix(size);
  }
  return out;
}

std::optional<std::string> QueryValue(std::string_view query, std::string_view name) {
  std::optional<std::string> found;
  if (query.empty()) return found;
  for (std::string_view part : Split(query, '&')) {
    const size_t equals = part.find('=');
    if (part.substr(0, equals) != name) continue;
    std::string value(equals == std::string_view::npos ? "" : part.substr(equals + 1));
    std::replace(value.begin(), value.end(), '+', ' ');
    found = PercentDecode(value).value_or(value);  // what cannot be decoded is no good as it is
  }
  return found;
}

bool Accepts(const HttpRequest& request, std::string_view media_type) {
  for (const auto& [name, value] : request.headers) {
    if (!EqualsIgnoreCase(name, "Accept")) continue;
    for (std::string_view part : Split(value, ',')) {
      if (EqualsIgnoreCase(Trim(part.substr(0, part.find(';'))), media_type)) return true;
    }
  }
  return false;
}

std::string_view ReasonPhrase(int status) {
  const auto* found =
      std::lower_bound(std::begin(kReasons), std::end(kReasons), status,
                       [](const Reason& r, int wanted) { return r.status < wanted; });
  return found != std::end(kReasons) && found->status == status ? found->phrase : "Unknown";
}

}  // namespace pulga
