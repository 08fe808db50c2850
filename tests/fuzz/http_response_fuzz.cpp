// What a function's own server answers, head and body: whatever it says, in whatever pieces it
// comes, the same judgement, and nothing forged, unframed or out of bounds passes.
#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "runtime/http_response_parser.h"
#include "tests/fuzz/fuzz_target.h"

using namespace pulga;  // NOLINT: the target's functions must be global

namespace {

// The heap's own bounds around exactly these bytes, for the sanitizers.
std::vector<char> Copy(std::string_view bytes) { return {bytes.begin(), bytes.end()}; }

void CheckHead(const UpstreamHead& head, RequestMethod method) {
  const bool switches = head.status == 101;
  PULGA_CHECK(head.status >= 100 && head.status <= 599);
  PULGA_CHECK(!switches || method == RequestMethod::kUpgrade);
  PULGA_CHECK(switches == !head.upgrade.empty());
  PULGA_CHECK(head.headers.size() <= kMaxResponseHeaders);
  for (const auto& [name, value] : head.headers) {
    PULGA_CHECK(IsHeaderName(name) && IsHeaderValue(value) && !IsHopByHop(name));
    const std::string lower = ToLower(name);
    PULGA_CHECK(!lower.starts_with("x-pulga-") && lower != "x-call-id");
  }
  const bool bodiless = method == RequestMethod::kHead || (head.status < 200 && !switches) ||
                        head.status == 204 || head.status == 304;
  if (bodiless) PULGA_CHECK(head.framing == BodyFraming::kNone);
  if (head.framing == BodyFraming::kLength) PULGA_CHECK(head.content_length.has_value());
  if (head.framing == BodyFraming::kChunked) PULGA_CHECK(!head.content_length.has_value());
  if (head.framing == BodyFraming::kUntilClose) PULGA_CHECK(head.after == AfterResponse::kClose);
}

// Every byte that came later changes nothing: a head is found where it ends, whatever `seen` was.
void CheckSplits(std::string_view bytes, const HeadParse& whole, RequestMethod method, size_t at) {
  const std::vector<char> part = Copy(bytes.substr(0, at));
  UpstreamHead head;
  const HeadParse first = ParseResponseHead({part.data(), part.size()}, 0, method, &head);
  if (first.state == ParseState::kBad) return PULGA_CHECK(whole.state == ParseState::kBad);
  if (first.state == ParseState::kComplete) {
    return PULGA_CHECK(whole.state == ParseState::kComplete && whole.size == first.size);
  }
  PULGA_CHECK(whole.state != ParseState::kComplete || whole.size > at);
  const HeadParse again = ParseResponseHead(bytes, at, method, &head);
  PULGA_CHECK(again.state == whole.state && again.size == whole.size);
}

struct Decoded {
  ParseState state = ParseState::kIncomplete;
  size_t consumed = 0;
  std::string body;
};

Decoded Decode(std::string_view bytes, size_t piece) {
  Decoded all;
  ChunkedDecoder decoder;
  while (!bytes.empty() && all.state == ParseState::kIncomplete) {
    std::vector<char> data = Copy(bytes.substr(0, piece));
    const ChunkedDecoder::Step step = decoder.Decode(data.data(), data.size());
    PULGA_CHECK(step.consumed <= data.size() && step.produced <= step.consumed);
    PULGA_CHECK(step.state != ParseState::kIncomplete || step.consumed == data.size());
    all.body.append(data.data(), step.produced);
    all.consumed += step.consumed;
    all.state = step.state;
    bytes.remove_prefix(step.consumed);
  }
  return all;
}

void CheckChunks(std::string_view bytes, size_t piece) {
  const Decoded whole = Decode(bytes, bytes.size());
  const Decoded parts = Decode(bytes, piece);
  PULGA_CHECK(whole.state == parts.state && whole.consumed == parts.consumed);
  PULGA_CHECK(whole.body == parts.body);
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  std::vector<std::string> seeds = {
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
      "HTTP/1.0 404 Not Found\r\nConnection: keep-alive, x-drop\r\nX-Drop: 1\r\n\r\n",
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 \r\nETag: \"a\"\r\n\r\n",
      "HTTP/1.1 304\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\n\r\n",
      "HTTP/1.1 200 OK\r\nX-Pulga-Outcome: ok\r\nX-Call-Id: forged\r\nTE: trailers\r\n\r\nuntil "
      "the end",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\nSet-Cookie: a\r\nSet-Cookie: "
      "b\r\n\r\n1",
      chunked + "5\r\nhello\r\n00A;name=value\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
      chunked + "0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
      "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
      chunked + "fffffffffffffff\r\nendless",
  };
  std::string many = "HTTP/1.1 200 OK\r\n";
  for (size_t i = 0; i < kMaxResponseHeaders; ++i) many += "h" + std::to_string(i) + ":\t v \r\n";
  seeds.push_back(many + "\r\n");
  return seeds;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<char> exact(data, data + size);
  const std::string_view bytes(exact.data(), size);
  // Where it is cut depends on the input alone, so that a failure repeats.
  size_t mix = size;
  for (const char c : bytes.substr(0, 64)) mix = mix * 31 + static_cast<unsigned char>(c);
  const size_t at = size == 0 ? 0 : mix % size;
  for (const RequestMethod method :
       {RequestMethod::kOther, RequestMethod::kHead, RequestMethod::kUpgrade}) {
    UpstreamHead head;
    const HeadParse whole = ParseResponseHead(bytes, 0, method, &head);
    if (whole.state == ParseState::kBad) PULGA_CHECK(*whole.problem != '\0');
    if (whole.state == ParseState::kComplete) {
      PULGA_CHECK(whole.size >= 4 && whole.size <= size);
      CheckHead(head, method);
      CheckChunks(bytes.substr(whole.size), 1 + mix % 7);
    }
    CheckSplits(bytes, whole, method, at);
  }
  CheckChunks(bytes, 1 + mix % 97);
  return 0;
}
