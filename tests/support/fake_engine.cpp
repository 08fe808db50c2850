#include "tests/support/fake_engine.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/file_io.h"

namespace pulga::testing {
namespace {

const Error kNoFunction{Code::kNotFound, 0, "there is no function of that name"};
const Error kNoImage{Code::kNotFound, 0, "there is no image of that name"};

class FakeCall final : public Invocation {
 public:
  FakeCall(FakeEngine& engine, std::shared_ptr<CallRecord> record, InvocationObserver& observer)
      : engine_(engine), record_(std::move(record)), observer_(observer) {
    name_ = record_->request.function.name;
    receipt_.start = StartKind::kWarm;
    receipt_.queue_ms = 0.004;
    receipt_.function_ms = 1.5;
    if (name_ == "missing") Fail({OutcomeKind::kRejected, 0, std::string(kRejectUnknownFunction)});
    if (name_ == "full") Fail({OutcomeKind::kRejected, 0, std::string(kRejectQueueFull)});
    if (name_ == "early") Answer("early");
  }
  ~FakeCall() override { record_->cancelled = !ended_; }

  size_t Write(std::string_view bytes) override {
    if (name_ == "deaf") return 0;
    record_->body += bytes;
    return bytes.size();
  }
  void EndBody() override {
    record_->body_ended = true;
    if (name_ == "echo") Answer(record_->body);
    if (name_ == "oom") Fail({OutcomeKind::kOomKilled, 0, ""});
    if (name_ == "exit") Fail({OutcomeKind::kExited, 3, ""});
    if (name_ == "odd") AnswerOddly();
    if (name_ == "sized") {
      pending_ = std::string(200 * 1000, 'x');
      head_.status = 200;
      head_.content_length = pending_.size();
      Soon([this] { observer_.OnHead(); });
    }
    if (name_ == "stream" || name_ == "abort") {
      head_.status = 200;
      Soon([this] { observer_.OnHead(); });
    }
  }
  const ResponseHead& head() const override { return head_; }
  ReadResult Read(char* buffer, size_t capacity) override {
    if (name_ == "sized") return ReadSized(buffer, capacity);
    if (steps_ % 2 == 1) {  // every other time: not yet
      ++steps_;
      Soon([this] { observer_.OnReadable(); });
      return {ReadState::kWait, 0};
    }
    ended_ = steps_ >= (name_ == "abort" ? 2 : 6);
    if (ended_) return {name_ == "abort" ? ReadState::kAborted : ReadState::kEnd, 0};
    ++steps_;
    memcpy(buffer, "piece;", 6);
    return {ReadState::kData, 6};
  }
  std::optional<std::string_view> WholeBody() const override {
    if (!whole_) return std::nullopt;
    return *whole_;
  }
  const Outcome& outcome() const override { return outcome_; }
  const Receipt& receipt() const override { return receipt_; }
  std::string FailureText() const override { return "it failed: " + OutcomeName(outcome_); }

 private:
  template <typename F>
  void Soon(F f) {
    engine_.loop().Post([f, open = std::weak_ptr<char>(open_)] {
      if (!open.expired()) f();
    });
  }
  void Answer(std::string body) {
    whole_ = std::move(body);
    head_.status = 200;
    head_.headers = {{"Content-Type", "text/x-echo"}, {"X-Call-Id", "forged"}};
    head_.content_length = whole_->size();
    head_.final_outcome_known = true;
    ended_ = true;
    Soon([this] { observer_.OnHead(); });
  }
  void AnswerOddly() {
    Answer("odd");
    head_.headers = {{"Bad Name", "x"},
                     {"Good", "tab\there"},
                     {"Evil", "a\r\nX-Injected: 1"},
                     {"Content-Length", "77"},
                     {"Transfer-Encoding", "chunked"},
                     {"Connection", "x"}};
  }
  void Fail(Outcome outcome) {
    outcome_ = std::move(outcome);
    head_.final_outcome_known = true;
    ended_ = true;
    Soon([this] { observer_.OnHead(); });
  }
  ReadResult ReadSized(char* buffer, size_t capacity) {
    const size_t size = std::min(capacity, pending_.size());
    ended_ = pending_.empty();
    if (ended_) return {ReadState::kEnd, 0};
    memcpy(buffer, pending_.data(), size);
    pending_.erase(0, size);
    return {ReadState::kData, size};
  }

  FakeEngine& engine_;
  std::shared_ptr<CallRecord> record_;
  InvocationObserver& observer_;
  std::string name_;
  ResponseHead head_;
  Outcome outcome_;
  Receipt receipt_;
  std::optional<std::string> whole_;
  std::string pending_;
  int steps_ = 0;
  bool ended_ = false;
  std::shared_ptr<char> open_ = std::make_shared<char>();
};

class FakeUpload final : public Engine::Upload {
 public:
  explicit FakeUpload(FakeEngine& engine) : engine_(engine) { engine_.upload_abandoned = true; }
  void Write(std::string bytes, std::function<void(Status)> done) override {
    engine_.uploaded += bytes;
    const bool fits = engine_.uploaded.size() <= engine_.upload_limit;
    engine_.loop().CallAfter(engine_.upload_delay, [fits, done] {
      done(fits ? OkStatus()
                : Status(Error{Code::kTooLarge, 0, "the archive is larger than the limit"}));
    });
  }
  void Finish(std::optional<std::string> ref, AnyPlatform, Done done) override {
    engine_.upload_abandoned = false;
    FakeEngine* engine = &engine_;
    engine_.loop().Post([engine, ref, done] {
      for (const ImageRecord& image : engine->import_report.images)
        engine->images[ref.value_or("hello")] = image;
      done(engine->import_report);
    });
  }

 private:
  FakeEngine& engine_;
};

}  // namespace

ImageRecord SampleImage(const std::string& name) {
  ImageRecord image;
  image.refs = {"docker.io/library/" + name};
  image.digest = "sha256:" + std::string(64, 'd');
  image.platform = {"linux", "amd64", ""};
  image.config.cmd = {"/bin/hello"};
  LayerRecord layer;
  layer.diff_id = std::string(64, 'a');
  layer.chain_id = *LayerId::FromHex(std::string(64, 'c'));
  layer.size_bytes = 1234;
  image.layers = {layer};
  image.size_bytes = 1234;
  return image;
}

Result<std::unique_ptr<Engine::Upload>> FakeEngine::NewUpload(
    std::optional<uint64_t> content_length) {
  if (content_length.value_or(0) > upload_limit) {
    return Error{Code::kTooLarge, 0, "the archive is larger than the limit"};
  }
  return std::unique_ptr<Upload>(std::make_unique<FakeUpload>(*this));
}

std::vector<ImageRecord> FakeEngine::Images() const {
  std::vector<ImageRecord> out;
  for (const auto& [name, image] : images) out.push_back(image);
  return out;
}

Result<ImageRecord> FakeEngine::Image(const std::string& ref) const {
  const auto it = images.find(ref);
  if (it == images.end()) return kNoImage;
  return it->second;
}

void FakeEngine::ImageView(const std::string& ref, TreeView view,
                           std::function<void(Result<UniqueFd>)> done) {
  if (!images.contains(ref)) return done(kNoImage);
  auto file = OpenUnnamedFile("/tmp");
  if (file.ok()) {
    (void)WriteAll(file->get(), view == TreeView::kTree ? "bin|d|755|0:0|\n" : "aa  bin/x\n");
    lseek(file->get(), 0, SEEK_SET);
  }
  done(std::move(file));
}

void FakeEngine::RemoveImage(const std::string& ref, std::function<void(Status)> done) {
  if (ref == "busy") return done(Error{Code::kAlreadyExists, 0, "in use by function hello"});
  done(images.erase(ref) != 0 ? OkStatus() : Status(kNoImage));
}

void FakeEngine::PutFunction(const FunctionKey& key, FunctionSpec spec,
                             std::function<void(Result<PutReport>)> done) {
  if (!images.contains(spec.image)) return done(kNoImage);
  PutReport report;
  report.effect =
      functions.contains(key.name) ? PutReport::Effect::kReplaced : PutReport::Effect::kCreated;
  FunctionStatus& status = functions[key.name];
  auto version = std::make_shared<Version>();
  version->key = status.key = key;
  version->number = static_cast<uint32_t>(status.versions.size() + 1);
  version->spec = std::move(spec);
  version->image_ref = "docker.io/library/hello:1";
  version->image_digest = "sha256:" + std::string(64, 'd');
  version->mode_reason = "the image EXPOSEs no port";
  version->argv = {"/bin/hello"};
  status.active = version;
  status.versions.insert(status.versions.begin(), version);
  report.status = status;
  report.warnings = {"swap is not limited on this kernel"};
  loop_.Post([report, done] { done(report); });
}

Result<FunctionStatus> FakeEngine::Function(const FunctionKey& key) const {
  const auto it = functions.find(key.name);
  if (it == functions.end()) return kNoFunction;
  return it->second;
}

std::vector<FunctionStatus> FakeEngine::Functions() const {
  std::vector<FunctionStatus> out;
  for (const auto& [name, status] : functions) out.push_back(status);
  return out;
}

void FakeEngine::DeleteFunction(const FunctionKey& key, std::function<void(Status)> done) {
  done(functions.erase(key.name) != 0 ? OkStatus() : Status(kNoFunction));
}

void FakeEngine::Rollback(const FunctionKey& key, std::optional<uint32_t> version,
                          std::function<void(Result<PutReport>)> done) {
  if (version.value_or(1) != 1) return done(Error{Code::kNotFound, 0, "there is no version 7"});
  done(PutReport{PutReport::Effect::kReplaced, functions[key.name], {}});
}

Status FakeEngine::Scale(const FunctionKey& key, uint32_t instances) {
  if (!functions.contains(key.name)) return kNoFunction;
  functions[key.name].activity.last_decision = "scaled to " + std::to_string(instances);
  return OkStatus();
}

std::unique_ptr<Invocation> FakeEngine::Invoke(InvocationRequest request,
                                               InvocationObserver& observer) {
  auto record = std::make_shared<CallRecord>();
  record->request = std::move(request);
  calls.push_back(record);
  return std::make_unique<FakeCall>(*this, record, observer);
}

SystemReport FakeEngine::System() const {
  SystemReport report;
  report.version = "0";
  report.state = "ok";
  report.features = {{"seccomp", FeatureState::kPresent, "", ""}};
  return report;
}

}  // namespace pulga::testing
