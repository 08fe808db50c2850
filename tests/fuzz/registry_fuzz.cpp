// A registry whose every answer is the fuzzer's: statuses, headers, bodies, in the order they are
// asked for. Whatever it says, the errand ends, credentials stay with its origin, and no document
// is handed on that is not what its name says.
#include "base/check.h"
#include "base/text.h"
#include "images/fetch/registry_client.h"
#include "tests/fuzz/fuzz_target.h"

using namespace pulga;  // NOLINT: the target's functions must be global

namespace {

constexpr std::string_view kBetween =
    "\n--\n";  // of two answers; each: STATUS LF HEADERS LF LF BODY

constexpr std::string_view kPassword = "secret";

class Script final : public HttpTransport {
 public:
  Script(std::string_view answers, FakeClock& clock) : rest_(answers), clock_(clock) {}

  void Start(const HttpOrder& order, HttpReceiver& receiver) override {
    const bool own = order.url.host == "r.example" && order.url.port == 443;
    for (const std::string& header : order.headers) {
      if (header.starts_with("Authorization: Basic ")) PULGA_CHECK(own || asked_for_login_);
    }
    PULGA_CHECK(order.url.scheme == "https");
    waiting_.emplace_back(own, &receiver);
  }

  Status Wait(Duration most) override {
    if (waiting_.empty()) clock_.Advance(std::max<Duration>(most, std::chrono::milliseconds(1)));
    auto all = std::exchange(waiting_, {});
    for (const auto& [own, receiver] : all) Answer(own, *receiver);
    return OkStatus();
  }

 private:
  void Answer(bool own, HttpReceiver& receiver) {
    const size_t end = rest_.find(kBetween);
    std::string_view answer = rest_.substr(0, end);
    rest_ = end == std::string_view::npos ? "" : rest_.substr(end + kBetween.size());
    HttpHead head;
    const size_t head_end = std::min(answer.find("\n\n"), answer.size());
    for (const std::string_view line : Split(answer.substr(0, head_end), '\n')) {
      const size_t colon = line.find(':');
      if (colon == std::string_view::npos) {
        head.status = static_cast<int>(ParseUint(line, 999).value_or(0));
      } else {
        head.headers.emplace_back(ToLower(line.substr(0, colon)), Trim(line.substr(colon + 1)));
      }
    }
    if (own && head.status == 401) asked_for_login_ = true;  // a token server may get them now
    HttpEnd what;
    what.peer = AddressKind::kPublic;
    if (head.status == 0) what.kind = HttpEnd::Kind::kBroken;
    bool on = head.status == 0 || receiver.OnHead(head);
    const std::string_view body = answer.substr(std::min(head_end + 2, answer.size()));
    for (size_t at = 0; on && head.status != 0 && at < body.size(); at += 50) {
      on = receiver.OnBytes(body.substr(at, 50));
    }
    if (!on) what.kind = HttpEnd::Kind::kStopped;
    receiver.OnEnd(what);
  }

  std::string_view rest_;
  FakeClock& clock_;
  std::vector<std::pair<bool, HttpReceiver*>> waiting_;
  bool asked_for_login_ = false;
};

class Checker final : public FetchSink {
 public:
  Status Document(const std::string& name, const std::string& bytes) override {
    if (name.starts_with("blobs/sha256/")) {
      Hasher hasher(DigestAlgorithm::kSha256);
      hasher.Update(bytes);
      PULGA_CHECK(name.substr(13) == hasher.Finish().hex);
    }
    return OkStatus();
  }
  Status WriteBlob(uint64_t offset, std::string_view bytes) override {
    PULGA_CHECK(offset <= 4 && bytes.size() <= 4 - offset);
    return OkStatus();
  }
  Status BlobDone(const WantedBlob& blob) override {
    PULGA_CHECK(blob.size == 4);
    return OkStatus();
  }
  Status Progress(size_t, uint64_t) override { return OkStatus(); }
};

void RunErrand(FetchKind kind, std::string_view answers) {
  FetchOrder order;
  order.kind = kind;
  order.ref = "r.example/app:1";
  order.login = {"me", std::string(kPassword), "", ""};
  order.host = {{"linux", "amd64", ""}, Arm32::kNot};
  order.max_bytes = 4;
  if (kind == FetchKind::kBlobs) {
    order.blobs = {{{DigestAlgorithm::kSha256, Sha256Hex("blob")}, 4, 0}};
  }
  FakeClock clock;
  Script script(answers, clock);
  Checker checker;
  RegistryClient client(order, script, clock, RetryRules{}, checker);
  const Status done = client.Run();
  if (done.ok() || answers.find(kPassword) != std::string_view::npos) return;  // it was guessed
  PULGA_CHECK(done.error().message.find(kPassword) == std::string::npos);
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::string config = R"({"os":"linux","architecture":"amd64"})";
  const std::string manifest = R"({"schemaVersion":2,"config":{"digest":"sha256:)" +
                               Sha256Hex(config) + R"(","size":37},"layers":[]})";
  const std::string index = R"({"manifests":[{"digest":"sha256:)" + Sha256Hex(manifest) +
                            R"(","size":)" + std::to_string(manifest.size()) +
                            R"(,"platform":{"os":"linux","architecture":"amd64"}}]})";
  const std::string between(kBetween);
  return {"200\n\n" + index + between + "200\n\n" + manifest + between + "200\n\n" + config,
          "401\nwww-authenticate: Bearer realm=\"https://auth.example/t\",service=\"s\"\n\n" +
              between + "200\n\n{\"token\":\"abc\"}" + between + "200\ncontent-length: 4\n\nblob",
          "307\nlocation: https://cdn.example/x\n\n" + between + "200\n\nbl" + between +
              "206\ncontent-range: bytes 2-3/4\n\nob",
          "429\nretry-after: 3\n\n" + between + "503\n\n" + between + "416\n\n" + between +
              "200\n\nblobb",
          "401\nwww-authenticate: Basic realm=\"x\"\n\n" + between + "404\n\n" +
              R"({"errors":[{"code":"A","message":"b"}]})"};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  RunErrand(FetchKind::kResolve, text);
  RunErrand(FetchKind::kBlobs, text);
  if (const auto url = ParseUrl(text); url.ok()) {
    PULGA_CHECK(ParseUrl(url->ToString())->ToString() == url->ToString());
  }
  (void)RegistryLogins::Parse(text);
  (void)FetchOrder::Decode(text);
  return 0;
}
