#include "runtime/http_response_parser.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/text.h"

namespace pulga {
namespace {

constexpr std::array<bool, 256> MakeTokenTable() {
  std::array<bool, 256> table = {};
  for (int c = '0'; c <= '9'; ++c) table[static_cast<size_t>(c)] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[static_cast<size_t>(c)] = true;
  for (int c = 'A'; c <= 'Z'; ++c) table[static_cast<size_t>(c)] = true;
  for (char c : std::string_view("!#$%&'*+-.^_`|~")) table[static_cast<unsigned char>(c)] = true;
  return table;
}
constexpr std::array<bool, 256> kToken = MakeTokenTable();

bool StartsWithIgnoreCase(std::string_view text, std::string_view prefix) {
  return text.size() >= prefix.size() && EqualsIgnoreCase(text.substr(0, prefix.size()), prefix);
}

// What the fields about framing said, before they are judged together.
struct Framing {
  std::optional<uint64_t> length;
  bool chunked = false;
  bool close = false;
  bool keep_alive = false;
  std::string upgrade;
  std::string connection_tokens;  // ",a,b," in lower case
};

const char* NoteConnection(std::string_view value, Framing* framing) {
  for (std::string_view part : Split(value, ',')) {
    const std::string token = ToLower(Trim(part));
    if (token == "close") framing->close = true;
    if (token == "keep-alive") framing->keep_alive = true;
    if (!token.empty()) framing->connection_tokens += "," + token + ",";
  }
  return nullptr;
}

// A problem, or null. Fields that are about the connection end here.
const char* NoteField(std::string_view name, std::string_view value, Framing* framing) {
  if (EqualsIgnoreCase(name, "content-length")) return NoteContentLength(value, &framing->length);
  if (EqualsIgnoreCase(name, "transfer-encoding")) {
    if (framing->chunked) return "Transfer-Encoding twice";
    if (!EqualsIgnoreCase(value, "chunked")) return "a Transfer-Encoding other than chunked";
    framing->chunked = true;
  } else if (EqualsIgnoreCase(name, "connection")) {
    return NoteConnection(value, framing);
  } else if (EqualsIgnoreCase(name, "upgrade")) {
    framing->upgrade = value;
  }
  return nullptr;
}

struct StatusLine {
  int status = 0;
  bool http_1_0 = false;
};

const char* ParseStatusLine(std::string_view line, StatusLine* out) {
  if (line.size() < 12 || line.substr(0, 7) != "HTTP/1." || (line[7] != '0' && line[7] != '1') ||
      line[8] != ' ') {
    return "the status line is not HTTP/1.x";
  }
  out->http_1_0 = line[7] == '0';
  const std::optional<uint64_t> status = ParseUint(line.substr(9, 3));
  if (!status || (line.size() > 12 && line[12] != ' ')) return "the status is not three digits";
  if (*status < 100 || *status > 599) return "the status is outside 100 to 599";
  if (line.size() > 13 && !IsHeaderValue(line.substr(13))) return "controls in the reason phrase";
  out->status = static_cast<int>(*status);
  return nullptr;
}

const char* ParseField(std::string_view line, Framing* framing, HeaderList* headers) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return "a header line without a colon";
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = Trim(line.substr(colon + 1));
  if (!IsHeaderName(name)) return "a malformed header name";
  if (!IsHeaderValue(value)) return "controls in a header value";
  if (const char* problem = NoteField(name, value, framing)) return problem;
  if (!IsHopByHop(name) && !IsOurs(name)) headers->emplace_back(name, value);
  return nullptr;
}

// What follows is no message of HTTP, so nothing else that the head says of one counts.
const char* JudgeSwitch(const StatusLine& line, const Framing& framing, RequestMethod method,
                        UpstreamHead* head) {
  if (method != RequestMethod::kUpgrade) return "it switches protocols, which nobody asked for";
  const bool told = framing.connection_tokens.find(",upgrade,") != std::string::npos;
  if (line.http_1_0 || !told || framing.upgrade.empty()) {
    return "it switches protocols without saying so in HTTP/1.1, Connection and Upgrade";
  }
  head->status = line.status;
  head->upgrade = framing.upgrade;
  head->framing = BodyFraming::kUntilClose;
  head->after = AfterResponse::kClose;
  return nullptr;
}

const char* Judge(const StatusLine& line, const Framing& framing, RequestMethod method,
                  UpstreamHead* head) {
  if (line.status == 101) return JudgeSwitch(line, framing, method, head);
  if (framing.length && framing.chunked) return "both Content-Length and Transfer-Encoding";
  if (framing.chunked && line.http_1_0) return "Transfer-Encoding in HTTP/1.0";
  head->status = line.status;
  head->content_length = framing.length;
  const bool keep = line.http_1_0 ? framing.keep_alive && !framing.close : !framing.close;
  head->after = keep ? AfterResponse::kKeepAlive : AfterResponse::kClose;
  if (method == RequestMethod::kHead || line.status < 200 || line.status == 204 ||
      line.status == 304) {
    head->framing = BodyFraming::kNone;
  } else if (framing.chunked) {
    head->framing = BodyFraming::kChunked;
  } else if (framing.length) {
    head->framing = *framing.length == 0 ? BodyFraming::kNone : BodyFraming::kLength;
  } else {
    head->framing = BodyFraming::kUntilClose;
    head->after = AfterResponse::kClose;
  }
  return nullptr;
}

void DropConnectionNominated(const Framing& framing, HeaderList* headers) {
  if (framing.connection_tokens.empty()) return;
  std::erase_if(*headers, [&](const auto& header) {
    return framing.connection_tokens.find("," + ToLower(header.first) + ",") != std::string::npos;
  });
}

const char* ParseLines(std::string_view text, RequestMethod method, UpstreamHead* head) {
  StatusLine status;
  Framing framing;
  size_t count = 0;
  bool first = true;
  head->headers.reserve(8);
  while (!text.empty()) {
    const size_t end = text.find("\r\n");  // the caller's text ends with one
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end + 2);
    const char* problem = nullptr;
    if (first) {
      problem = ParseStatusLine(line, &status);
    } else if (++count > kMaxResponseHeaders) {
      problem = "more than 200 headers";
    } else {
      problem = ParseField(line, &framing, &head->headers);
    }
    if (problem != nullptr) return problem;
    first = false;
  }
  DropConnectionNominated(framing, &head->headers);
  return Judge(status, framing, method, head);
}

}  // namespace

bool IsHeaderName(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(),
                                      [](char c) { return kToken[static_cast<unsigned char>(c)]; });
}

bool IsHeaderValue(std::string_view value) {
  return std::all_of(value.begin(), value.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

const char* NoteContentLength(std::string_view value, std::optional<uint64_t>* length) {
  const std::optional<uint64_t> number = ParseUint(value, uint64_t{1} << 62);
  if (!number) return "Content-Length is not a number";
  if (*length && **length != *number) return "two different Content-Lengths";
  *length = number;
  return nullptr;
}

bool IsHopByHop(std::string_view name) {
  // By first letter, so that most names cost one comparison of a byte.
  switch (name.empty() ? 0 : name[0] | 0x20) {
    case 'c':
      return EqualsIgnoreCase(name, "connection") || EqualsIgnoreCase(name, "content-length");
    case 'k':
      return EqualsIgnoreCase(name, "keep-alive");
    case 'p':
      return StartsWithIgnoreCase(name, "proxy-");
    case 't':
      return EqualsIgnoreCase(name, "te") || EqualsIgnoreCase(name, "trailer") ||
             EqualsIgnoreCase(name, "transfer-encoding");
    case 'u':
      return EqualsIgnoreCase(name, "upgrade");
    default:
      return false;
  }
}

bool IsOurs(std::string_view name) {
  return StartsWithIgnoreCase(name, "x-pulga-") || EqualsIgnoreCase(name, "x-call-id");
}

HeadParse ParseResponseHead(std::string_view bytes, size_t seen, RequestMethod method,
                            UpstreamHead* head) {
  HeadParse parse;
  const size_t from = seen < 3 ? 0 : seen - 3;  // the mark may straddle two reads
  const size_t mark = bytes.find("\r\n\r\n", from);
  // Not HTTP at all: said at once, not after 64 KiB or a time-out.
  const std::string_view start = "HTTP/1.";
  const size_t common = std::min(bytes.size(), start.size());
  if (bytes.substr(0, common) != start.substr(0, common)) {
    return {ParseState::kBad, 0, "the status line is not HTTP/1.x"};
  }
  if ((mark == std::string_view::npos ? bytes.size() : mark + 4) > kMaxResponseHeadBytes) {
    return {ParseState::kBad, 0, "the headers are over 64 KiB"};
  }
  if (mark == std::string_view::npos) return parse;
  *head = UpstreamHead();
  parse.size = mark + 4;
  if (const char* problem = ParseLines(bytes.substr(0, mark + 2), method, head)) {
    return {ParseState::kBad, 0, problem};
  }
  parse.state = ParseState::kComplete;
  return parse;
}

bool ChunkedDecoder::TakeSizeDigit(char c) {
  uint64_t digit;
  if (c >= '0' && c <= '9') {
    digit = static_cast<uint64_t>(c - '0');
  } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
    digit = static_cast<uint64_t>((c | 0x20) - 'a' + 10);
  } else {
    return false;
  }
  if (++digits_ > 15) return false;  // 2^60 is enough for everybody, and cannot overflow
  left_ = left_ * 16 + digit;
  return true;
}

bool ChunkedDecoder::Take(char c) {
  switch (at_) {
    case At::kSize:
      if (digits_ > 0 && c == '\r') {
        at_ = At::kSizeLf;
        return true;
      }
      if (digits_ > 0 && (c == ';' || c == ' ' || c == '\t')) {
        at_ = At::kExtension;
        line_bytes_ = 0;
        return true;
      }
      return TakeSizeDigit(c);
    case At::kExtension:
      if (c == '\r') {
        at_ = At::kSizeLf;
        return true;
      }
      return c != '\n' && c != '\0' && ++line_bytes_ <= kMaxChunkLineBytes;
    case At::kSizeLf:
      at_ = left_ == 0 ? At::kTrailerStart : At::kData;
      return c == '\n';
    case At::kDataCr:
      at_ = At::kDataLf;
      return c == '\r';
    case At::kDataLf:
      at_ = At::kSize;
      digits_ = 0;
      return c == '\n';
    case At::kTrailerStart:
      at_ = c == '\r' ? At::kEndLf : At::kTrailer;
      return c != '\n' && c != '\0' && ++trailer_bytes_ <= kMaxTrailerBytes;
    case At::kTrailer:
      if (c == '\r') at_ = At::kTrailerLf;
      return c != '\n' && c != '\0' && ++trailer_bytes_ <= kMaxTrailerBytes;
    case At::kTrailerLf:
      at_ = At::kTrailerStart;
      return c == '\n';
    case At::kEndLf:
      done_ = c == '\n';
      return done_;
    case At::kData:
      break;
  }
  return false;
}

ChunkedDecoder::Step ChunkedDecoder::Decode(char* data, size_t size) {
  Step step;
  while (step.consumed < size && !done_) {
    if (at_ == At::kData) {
      const size_t n = static_cast<size_t>(std::min<uint64_t>(left_, size - step.consumed));
      if (step.produced != step.consumed) {
        memmove(data + step.produced, data + step.consumed, n);
      }
      step.produced += n;
      step.consumed += n;
      left_ -= n;
      if (left_ == 0) at_ = At::kDataCr;
    } else if (!Take(data[step.consumed++])) {
      step.state = ParseState::kBad;
      return step;
    }
  }
  if (done_) step.state = ParseState::kComplete;
  return step;
}

}  // namespace pulga
