// What a frames function says on its channel: in whatever pieces it comes, the same frames and the
// same judgement, nothing beyond the protocol's bounds passes, and no reply's head is forged.
#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "runtime/frames_wire.h"
#include "runtime/http_response_parser.h"
#include "tests/fuzz/fuzz_target.h"

using namespace pulga;  // NOLINT: the target's functions must be global

namespace {

// What was told, with bodies joined: their pieces are the stream's, not the function's.
class Notes final : public FrameSink {
 public:
  const char* OnHello(const FramesHello& hello) override {
    PULGA_CHECK(hello.version == kFramesVersion);
    PULGA_CHECK(hello.window > 0 && hello.window <= kMaxFramesWindow);
    PULGA_CHECK(text.empty());
    text += "hello;";
    return nullptr;
  }
  const char* OnHead(uint32_t id, std::string_view payload, FrameEnd end) override {
    PULGA_CHECK(payload.size() <= kMaxFramePayload);
    ReplyHead head;
    const char* problem = ParseReplyHead(payload, &head);
    if (problem == nullptr) CheckHead(head);
    Add("head", id, problem == nullptr ? std::to_string(head.status) : problem, end);
    return nullptr;
  }
  const char* OnBody(uint32_t id, std::string_view bytes, FrameEnd end) override {
    if (body_id_ != id || text.back() != '+') text += "body " + std::to_string(id) + " ";
    if (text.back() == '+') text.pop_back();
    text.append(bytes);
    body_id_ = id;
    text += end == FrameEnd::kEnd ? " end;" : "+";
    return nullptr;
  }
  const char* OnCredit(uint32_t id, uint32_t bytes) override {
    Add("credit", id, std::to_string(bytes), FrameEnd::kMore);
    return nullptr;
  }
  const char* OnCancel(uint32_t id) override {
    Add("cancel", id, "", FrameEnd::kMore);
    return nullptr;
  }
  std::string text;

 private:
  void Add(const char* what, uint32_t id, const std::string& more, FrameEnd end) {
    PULGA_CHECK(!text.empty());  // the hello was first
    text += std::string(what) + std::to_string(id) + more + (end == FrameEnd::kEnd ? " end;" : ";");
  }
  static void CheckHead(const ReplyHead& head) {
    PULGA_CHECK(head.status >= 200 && head.status <= 599);
    PULGA_CHECK(head.headers.size() <= kMaxResponseHeaders);
    for (const auto& [name, value] : head.headers) {
      PULGA_CHECK(IsHeaderName(name) && IsHeaderValue(value) && !IsHopByHop(name));
      const std::string lower = ToLower(name);
      PULGA_CHECK(!lower.starts_with("x-pulga-") && lower != "x-call-id");
    }
  }
  uint32_t body_id_ = 0;
};

struct Judgement {
  std::string told;
  std::string problem;
};

Judgement Read(std::string_view bytes, size_t piece) {
  FrameReader reader;
  Notes notes;
  const char* problem = nullptr;
  while (!bytes.empty() && problem == nullptr) {
    const std::vector<char> exact(
        bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(std::min(piece, bytes.size())));
    problem = reader.Take({exact.data(), exact.size()}, notes);
    bytes.remove_prefix(exact.size());
  }
  return {notes.text, problem == nullptr ? "" : problem};
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  std::string hello;
  AppendHello({kFramesVersion, 65536, 0}, &hello);
  std::string head("\xc8\0", 2);
  for (const char* text : {"Content-Type", "text/plain", "Content-Length", "5", "X-Call-Id", "1"}) {
    (void)AppendFrameString(text, &head);
  }
  std::string call = hello;
  AppendFrame(FrameType::kHead, 0x10000, FrameEnd::kMore, head, &call);
  AppendFrame(FrameType::kBody, 0x10000, FrameEnd::kMore, "hel", &call);
  AppendFrame(FrameType::kBody, 0x10000, FrameEnd::kEnd, "lo", &call);
  std::string more = hello;
  AppendCredit(0x10001, 4096, &more);
  AppendFrame(FrameType::kCancel, 0x10002, FrameEnd::kMore, "", &more);
  AppendFrame(FrameType::kHead, 0x10003, FrameEnd::kEnd, head.substr(0, 2), &more);
  AppendFrame(FrameType::kBody, 0x10004, FrameEnd::kEnd, "", &more);
  return {hello, call, more, more + hello, call.substr(0, call.size() - 5), head};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<char> exact(data, data + size);
  const std::string_view bytes(exact.data(), size);
  // Where it is cut depends on the input alone, so that a failure repeats.
  size_t mix = size;
  for (const char c : bytes.substr(0, 64)) mix = mix * 31 + static_cast<unsigned char>(c);
  const Judgement whole = Read(bytes, std::max<size_t>(size, 1));
  for (const size_t piece : {size_t{1}, 1 + mix % 13, 1 + mix % 97}) {
    const Judgement parts = Read(bytes, piece);
    PULGA_CHECK(parts.told == whole.told && parts.problem == whole.problem);
  }
  return 0;
}
