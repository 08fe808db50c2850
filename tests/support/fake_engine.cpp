#include "tests/support/fake_engine.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/file_io.h"
#include "runtime/http_response_parser.h"

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
    if (name_ == "talkative") AnswerAtLength();
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
  // With as large a head as a function may have.
  void AnswerAtLength() {
    Answer("talkative");
    head_.headers = {{"X-Long", std::string(kMaxResponseHeadBytes / 4, 'x')}};
  }
  void AnswerOddly() {
    Answer("odd");
    head_.headers = {{"Bad Name", "x"},
                     {"Good", "tab\there"},
                     {"Evil", "a\r\nX-Injected: 1"},
                     {"Evil", "a\1\1X-Injected: 1"},
                     {"Set-Cookie", "a=1"},
                     {"Date", "Thu, 01 Jan 1970 00:00:00 GMT"},
                     {"Set-Cookie", "b=2"},
                     {"Empty", ""},
                     {"Content-Length", "77"},
                     {"Transfer-Encoding", "chunked"},
                     {"Connection", "x"}};
  }
  void Fail(Outcome outcome) {
    outcome_ = std::move(outcome);
    if (outcome_.kind == OutcomeKind::kRejected) receipt_ = {.queue_ms = 0.002};
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

// Has room for so many bytes, and again a little later.
class FakeUpload final : public Engine::Upload {
 public:
  FakeUpload(FakeEngine& engine, UploadRequest request)
      : engine_(engine), request_(std::make_shared<UploadRequest>(std::move(request))) {
    engine_.upload_abandoned = true;
  }
  ~FakeUpload() override { request_->on_room = nullptr, request_->on_done = nullptr; }
  size_t Write(std::string_view bytes) override {
    const size_t taken = std::min(bytes.size(), engine_.upload_room);
    engine_.uploaded += bytes.substr(0, taken);
    if (engine_.uploaded.size() > engine_.upload_limit && !std::exchange(failed_, true)) {
      ImportReport report;
      report.status = Error{Code::kTooLarge, 0, "the archive is larger than the limit"};
      report.reason = ImportReason::kTooLarge;
      End(std::move(report));
    }
    if (taken < bytes.size()) {
      engine_.loop().CallAfter(engine_.upload_delay, [request = request_] {
        if (request->on_room) request->on_room();
      });
    }
    return taken;
  }
  void Finish() override {
    engine_.upload_abandoned = false;
    if (failed_) return;
    for (const ImageRecord& image : engine_.import_report.images) {
      engine_.images[request_->ref.value_or("hello")] = image;
    }
    End(engine_.import_report);
  }

 private:
  void End(ImportReport report) {
    engine_.loop().Post([request = request_, report = std::move(report)] {
      if (request->on_done) request->on_done(report);
    });
  }

  FakeEngine& engine_;
  std::shared_ptr<UploadRequest> request_;
  bool failed_ = false;
};

}  // namespace

class FakePull final : public Engine::Pull {
 public:
  explicit FakePull(FakeEngine& engine) : engine_(engine) {}
  ~FakePull() override { engine_.pulls_cancelled += done ? 0 : 1; }
  bool done = false;

 private:
  FakeEngine& engine_;
};

// Its first byte comes after a turn of the loop.
class FakeDownload final : public Engine::Download {
 public:
  explicit FakeDownload(FakeEngine& engine) : engine_(engine), rest_(engine.archive) {}
  uint64_t size() const override { return engine_.archive.size(); }
  void OnReady(std::function<void()> ready) override { ready_ = std::move(ready); }
  ReadResult Read(char* buffer, size_t capacity) override {
    if (!std::exchange(waited_, true)) {
      engine_.loop().Post(ready_);
      return {ReadState::kWait, 0};
    }
    if (engine_.archive_breaks && rest_.size() <= engine_.archive.size() / 2) {
      return {ReadState::kAborted, 0};
    }
    if (rest_.empty()) return {ReadState::kEnd, 0};
    const size_t size = std::min<size_t>(capacity, std::max<size_t>(rest_.size() / 2, 1));
    rest_.copy(buffer, size);
    rest_.erase(0, size);
    return {ReadState::kData, size};
  }

 private:
  FakeEngine& engine_;
  std::string rest_;
  std::function<void()> ready_;
  bool waited_ = false;
};

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

std::unique_ptr<Engine::Pull> FakeEngine::PullImage(
    PullRequest request, std::function<void(const PullProgress&)> progress,
    std::function<void(ImportReport)> done) {
  auto pull = std::make_unique<FakePull>(*this);
  const bool slow = request.ref == "slow";
  pulls.push_back(std::move(request));
  pull->done = !slow;
  loop_.Post([this, slow, progress = std::move(progress), done = std::move(done)] {
    progress({0, 2, "sha256:aa", 5, 10, 30});
    if (!slow) done(import_report);
  });
  return pull;
}

Result<std::unique_ptr<Engine::Upload>> FakeEngine::NewUpload(UploadRequest request) {
  if (request.content_length.value_or(0) > upload_limit) {
    return Error{Code::kTooLarge, 0, "the archive is larger than the limit"};
  }
  return std::unique_ptr<Upload>(std::make_unique<FakeUpload>(*this, std::move(request)));
}

void FakeEngine::PutVolume(const FunctionKey& key, const VolumeWish& wish,
                           std::function<void(Result<VolumePut>)> done) {
  VolumePut put;
  put.effect =
      volumes.contains(key.name) ? VolumePut::Effect::kUnchanged : VolumePut::Effect::kCreated;
  VolumeView& view = volumes[key.name];
  view.row.key = key;
  view.row.bytes = wish.bytes;
  view.row.image_digest = wish.image;
  if (!wish.image.empty() && !images.contains(wish.image)) {
    volumes.erase(key.name);
    return done(Error{Code::kNotFound, 0, "image " + wish.image + " is not here"});
  }
  put.volume = view;
  loop_.Post([put, done = std::move(done)] { done(put); });
}

void FakeEngine::ResizeVolume(const FunctionKey& key, uint64_t bytes,
                              std::function<void(Result<VolumeView>)> done) {
  if (volumes.contains(key.name)) volumes[key.name].row.bytes = bytes;
  Volume(key, std::move(done));
}

void FakeEngine::RemoveVolume(const FunctionKey& key, std::function<void(Status)> done) {
  if (key.name == "busy") {
    return done(Error{Code::kAlreadyExists, 0, "volume busy is in use by function hello"});
  }
  if (volumes.erase(key.name) != 0) return done(OkStatus());
  done(Error{Code::kNotFound, 0, "volume " + key.name + " does not exist"});
}

void FakeEngine::PutSecret(const FunctionKey& secret, std::string value, SecretWrite write,
                           std::function<void(Result<SecretPut>)> done) {
  const Status named = CheckSecretName(secret.name);
  if (!named.ok()) return done(named.error());
  const bool there = secrets.contains(secret);
  if (there && write == SecretWrite::kCreate) {
    return done(Error{Code::kAlreadyExists, 0, "secret " + secret.name + " exists"});
  }
  if (!there && write == SecretWrite::kReplace) {
    return done(Error{Code::kNotFound, 0, "unable to find secret: " + secret.name});
  }
  const uint64_t bytes = value.size();
  secrets[secret] = std::move(value);
  done(SecretPut{there ? SecretPut::Effect::kReplaced : SecretPut::Effect::kCreated,
                 {secret, bytes, 1000, 2000, {}}});
}

void FakeEngine::RemoveSecret(const FunctionKey& secret, SecretRemoval removal,
                              std::function<void(Status)> done) {
  if (secret.name == "busy" && removal == SecretRemoval::kUnused) {
    return done(Error{Code::kAlreadyExists, 0, "secret busy is in use by function hello"});
  }
  if (secrets.erase(secret) != 0) return done(OkStatus());
  done(Error{Code::kNotFound, 0, "unable to find secret: " + secret.name});
}

std::vector<SecretView> FakeEngine::Secrets() const {
  std::vector<SecretView> out;
  for (const auto& [key, value] : secrets) out.push_back({key, value.size(), 1000, 2000, {}});
  return out;
}

std::vector<FunctionKey> FakeEngine::SecretKeys() const {
  std::vector<FunctionKey> out;
  for (const auto& [key, value] : secrets) out.push_back(key);
  return out;
}

void FakeEngine::Volumes(std::function<void(Result<VolumeList>)> done) {
  VolumeList list;
  for (const auto& [name, view] : volumes) list.volumes.push_back(view);
  list.unclaimed.push_back({0xff, 4096, 0, 0, false, false});
  done(std::move(list));
}

void FakeEngine::Volume(const FunctionKey& key, std::function<void(Result<VolumeView>)> done) {
  const auto found = volumes.find(key.name);
  if (found != volumes.end()) return done(found->second);
  done(Error{Code::kNotFound, 0, "volume " + key.name + " does not exist"});
}

FakeEngine::~FakeEngine() {
  uploads_.reset();
  tasks_.reset();
  storage_.reset();
  sign_in_.reset();
  accounts_.reset();
  store_.reset();
  if (uploads_dir_.empty()) return;
  (void)RemoveTree(AT_FDCWD, uploads_dir_);
}

void FakeEngine::MakeDirectory() {
  if (!uploads_dir_.empty()) return;
  char path[] = "/tmp/pulga-uploads-XXXXXX";
  uploads_dir_ = mkdtemp(path);
}

AccountService& FakeEngine::accounts() {
  if (accounts_ != nullptr) return *accounts_;
  MakeDirectory();
  store_ = StateStore::Open(uploads_dir_).value();
  storage_ = std::make_unique<WorkQueue>("storage", loop_);
  accounts_ = std::make_unique<AccountService>(AccountParts{loop_, clock_, *storage_, *store_});
  StoredState stored = store_->Load().value();
  accounts_->Load(std::move(stored.users), std::move(stored.keys));
  return *accounts_;
}

SignIn& FakeEngine::sign_in() {
  if (sign_in_ == nullptr) sign_in_ = std::make_unique<SignIn>(loop_, clock_, accounts());
  return *sign_in_;
}

Tasks& FakeEngine::tasks() {
  if (tasks_ != nullptr) return *tasks_;
  MakeDirectory();
  TaskParts parts{loop_, clock_, uploads_dir_, {}, {}, {}, {}, {}, {}, {}, {}};
  parts.reserve_bytes = [] { return 0; };
  parts.version = [](const FunctionKey& key) -> VersionPtr {
    if (key.name == "absent") return nullptr;
    auto version = std::make_shared<Version>();
    version->key = key;
    return version;
  };
  parts.invoke = [this](InvocationRequest request, InvocationObserver& observer) {
    return Invoke(std::move(request), observer);
  };
  parts.room = [] { return BoardRoom{4, PressureLevel::kCalm, 0, false}; };
  parts.networks = [] { return std::vector<NetworkPrefix>(); };
  parts.waiting_calls = [](const FunctionKey&) { return 0; };
  parts.callback_key = [] { return std::string(); };
  tasks_ = std::make_unique<TaskService>(std::move(parts), task_limits);
  tasks_->Resume();
  return *tasks_;
}

ResumableUploads& FakeEngine::uploads() {
  if (uploads_ != nullptr) return *uploads_;
  MakeDirectory();
  ResumableUploads::Hooks hooks;
  hooks.room = [] { return OkStatus(); };
  hooks.find = [this](const std::string& digest) { return Image(digest); };
  hooks.import = [this](UniqueFd file, const ImportOptions& options, auto done) {
    uploaded = ReadFd(file.get(), 64 << 20).value();
    upload_options = options;
    loop_.Post([this, done] { done(import_report); });
    return [] {};
  };
  uploads_ = std::make_unique<ResumableUploads>(loop_, clock_, uploads_dir_, std::move(hooks));
  (void)uploads_->Open();
  return *uploads_;
}

std::vector<ImageRecord> FakeEngine::Images() const {
  std::vector<ImageRecord> out;
  for (const auto& [name, image] : images) out.push_back(image);
  return out;
}

Result<ImageRecord> FakeEngine::Image(const std::string& ref) const {
  if (ref == "dddd") return Error{Code::kAlreadyExists, 0, "several images begin so"};
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

Result<std::unique_ptr<Engine::Download>> FakeEngine::ExportImage(const std::string& ref) {
  if (!images.contains(ref)) return kNoImage;
  return std::unique_ptr<Download>(std::make_unique<FakeDownload>(*this));
}

void FakeEngine::VerifyImage(const std::string& ref,
                             std::function<void(Result<VerifyReport>)> done) {
  if (!images.contains(ref)) return done(kNoImage);
  VerifyReport report;
  report.image = images[ref];
  report.layers = {{std::string(64, 'd'), differences}};
  done(report);
}

void FakeEngine::PruneImages(PruneScope scope, std::function<void(Result<PruneReport>)> done) {
  PruneReport report;
  for (const auto& [name, image] : images) {
    if (scope == PruneScope::kUnused || image.refs.empty()) report.images.push_back(image);
  }
  report.layers = report.images.size();
  report.freed_bytes = 1000 * report.layers;
  for (const ImageRecord& image : report.images) {
    std::erase_if(images, [&](const auto& entry) { return entry.second.digest == image.digest; });
  }
  done(report);
}

void FakeEngine::RemoveImage(const std::string& ref, std::function<void(Status)> done) {
  if (ref == "dddd") return done(Image(ref).error());
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

std::vector<NamespaceRecord> FakeNamespaces::List() const {
  std::vector<NamespaceRecord> list;
  for (const auto& [name, record] : records_) list.push_back(record);
  return list;
}

Result<NamespaceRecord> FakeNamespaces::Find(const std::string& name) const {
  const auto it = records_.find(name);
  if (it == records_.end()) return Error{Code::kNotFound, 0, "namespace " + name + " not found"};
  return it->second;
}

void FakeNamespaces::Put(NamespaceRecord record, Write write, std::function<void(Status)> done) {
  const bool there = records_.contains(record.name);
  if (write == Write::kCreate && there) {
    return done(Error{Code::kAlreadyExists, 0, "namespace " + record.name + " already exists"});
  }
  if (write == Write::kReplace && !there) return done(Find(record.name).error());
  records_[record.name] = std::move(record);
  done(OkStatus());
}

void FakeNamespaces::Remove(const std::string& name, std::function<void(Status)> done) {
  const auto found = Find(name);
  if (found.ok()) records_.erase(name);
  done(Status(found));
}

Status FakeEngine::Scale(const FunctionKey& key, uint32_t instances) {
  if (!functions.contains(key.name)) return kNoFunction;
  functions[key.name].activity.scaled = instances;
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

void FakeEngine::History(std::function<void(Result<UniqueFd>)> done) {
  loop_.Post([this, done = std::move(done)] {
    UniqueFd file = OpenUnnamedFile("/tmp").value();
    PULGA_CHECK(WriteAll(file.get(), history).ok() && lseek(file.get(), 0, SEEK_SET) == 0);
    done(std::move(file));
  });
}

SystemReport FakeEngine::System() const {
  SystemReport report;
  report.version = "0";
  report.state = "ok";
  report.features = {{"seccomp", FeatureState::kPresent, "", ""}};
  report.grants = {{3, "capability KILL functions=a"}};
  return report;
}

}  // namespace pulga::testing
