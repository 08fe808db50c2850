// ImageService and FunctionService over a real store and real threads, with the sandbox, the
// dispatcher and the importer replaced by small ones in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/database.h"
#include "runtime/function_service.h"
#include "runtime/image_service.h"
#include "runtime/spec_json.h"
#include "tests/support/fake_volume_host.h"
#include "tests/support/layers.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Layer;
using ::testing::Not;
using ::testing::SizeIs;

class FakeSandbox final : public Sandbox {
 public:
  bool available() const override { return true; }
  void BuildVersion(const VersionSpec&, SpawnerEvents&, BuildDone) override {}
  uint64_t RunUnpack(UnpackJob, std::function<void(Status)>) override { return 1; }
  void CancelUnpack(uint64_t) override {}
  void ListLayers(std::function<void(Result<std::vector<LayerId>>)> done) override { done(disk); }

  std::vector<LayerId> disk;
};

// Jobs that end when they are cancelled, and not before.
class StuckRunner final : public UnpackRunner {
 public:
  std::unique_ptr<RunningJob> Start(UnpackJob) override {
    ++started;
    return std::make_unique<Job>();
  }
  std::atomic<int> started = 0;

 private:
  class Job final : public RunningJob {
   public:
    Status Wait() override { return end_.Wait(); }
    void Cancel() override { end_.Set(Error{Code::kUnavailable, 0, "the job was cancelled"}); }

   private:
    Handoff<Status> end_;
  };
};

// An archive is one line: "REF DIGEST-LETTER LAYER..." (layers are numbers), or "bad LAYER...".
class FakeWorker final : public ImageWorker {
 public:
  explicit FakeWorker(std::vector<LayerId>& disk) : disk_(disk) {}
  ImportReport Import(UniqueFd input, const ImportOptions& options, const ImportLimits&,
                      std::function<Status()> confirm) override {
    ImportReport report;
    const auto fail = [&report](ImportReason reason, Status why) {
      report.status = std::move(why);
      report.reason = reason;
      return report;
    };
    if (text_at_most == 0) input.Reset();
    const auto read = input.valid() ? ReadFd(input.get(), text_at_most) : std::string();
    if (!read.ok()) return fail(ImportReason::kBadImage, read.error());
    const std::string& text = *read;
    if (text.empty()) {
      return fail(ImportReason::kNotAnArchive, Error{Code::kUnsupported, 0, "empty"});
    }
    const auto words = Split(text, ' ');
    if (words.size() < 2) {
      return fail(ImportReason::kBadImage, Error{Code::kInvalidArgument, 0, "no archive"});
    }
    if (words[0] == "full") {
      return fail(ImportReason::kNoSpace, Error{Code::kNoSpace, 0, "no room"});
    }
    if (words[0] == "making") options.claims->FindOrMake(Layer(words[1][0] - '0'));
    if (words[0] == "stuck" || words[0] == "making") {  // in a layer's job
      StoppableRunner runner(stuck, options.stop);
      const Status ended = runner.Start(UnpackJob())->Wait();
      return fail(ImportReason::kHelper, ended);
    }
    const bool bad = words[0] == "bad";
    ImageRecord image;
    image.platform = HostPlatform();
    image.config.entrypoint = {"/app"};
    for (const auto word : std::vector(words.begin() + (bad ? 1 : 2), words.end())) {
      const LayerId id = Layer(static_cast<uint8_t>(ParseUint(word).value()));
      auto layer = options.claims->FindOrMake(id);
      const bool reused = layer.has_value();
      if (!reused) {
        layer = LayerRecord{"", id, 1, false};
        report.layers_created.push_back(id);
        AddToDisk(id);
        options.claims->Made(id, &*layer);
      }
      layer->reused = reused;
      image.layers.push_back(*layer);
    }
    const Status complete = confirm();
    if (!complete.ok()) return fail(ImportReason::kHelper, complete);
    if (bad) return fail(ImportReason::kBadImage, Error{Code::kInvalidArgument, 0, "damaged"});
    image.digest = "sha256:" + std::string(64, words[1][0]);
    image.refs = {"docker.io/library/" + std::string(words[0]) + ":latest"};
    report.images = {image};
    return report;
  }
  Result<UniqueFd> List(const std::vector<LayerId>&, TreeView) override {
    return OpenUnnamedFile("/tmp");
  }
  Result<VerifyReport> Verify(const ImageRecord& image) override { return VerifyReport{image, {}}; }
  Result<std::vector<LayerId>> ListRecords() override { return records; }
  Status RemoveRecords(const std::vector<LayerId>& layers) override {
    for (const LayerId& layer : layers) std::erase(records, layer);
    return OkStatus();
  }
  Status Remove(const LayerId& layer) override {
    const std::lock_guard lock(mutex_);
    if (stuck_removals-- > 0) return Error{Code::kUnavailable, 0, "stuck"};
    std::erase(disk_, layer);
    return OkStatus();
  }

  StuckRunner stuck;
  int stuck_removals = 0;
  std::vector<LayerId> records;
  size_t text_at_most = 4096;  // an archive that is longer is bad; 0: not even read

 private:
  void AddToDisk(const LayerId& id) {
    const std::lock_guard lock(mutex_);
    disk_.push_back(id);
  }
  std::mutex mutex_;            // guards disk_: each import has a thread
  std::vector<LayerId>& disk_;  // read by the test only when no work is queued
};

class FakeDispatcher final : public Dispatcher {
 public:
  void Activate(VersionPtr version, std::function<void(Status)> done) override {
    calls.push_back("activate " + version->key.name + " " + std::to_string(version->number));
    if (hold) {
      held.push_back([done, s = answer] { done(s); });
      return;
    }
    done(answer);
  }
  void Restore(VersionPtr version, std::function<void()> done) override {
    Note("restore " + version->key.name + " " + std::to_string(version->number), std::move(done));
  }
  void Deactivate(const FunctionKey& key, std::function<void()> done) override {
    Note("deactivate " + key.name, std::move(done));
  }
  Status Scale(const FunctionKey&, uint32_t) override { return OkStatus(); }
  std::unique_ptr<Invocation> Invoke(InvocationRequest, InvocationObserver&) override {
    return nullptr;
  }
  LearnedByKey TakeLearned() override { return {}; }
  void Recall(const FunctionKey&, Learned) override {}
  FunctionActivity Activity(const FunctionKey&) const override { return {}; }
  FunctionActivity Glance(const FunctionKey&) const override { return {}; }
  DispatcherTotals Totals() const override { return {}; }
  void Drain(TimePoint, std::function<void()>) override {}
  void OnSandboxAvailable() override {}
  void SetPressure(PressureLevel, const std::string&) override {}

  std::vector<std::string> calls;
  Status answer;
  bool hold = false;
  std::vector<std::function<void()>> held;

 private:
  void Note(std::string call, std::function<void()> done) {
    calls.push_back(std::move(call));
    if (hold) {
      held.emplace_back(std::move(done));
    } else {
      done();
    }
  }
};

class ServicesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::make_unique<TempDir>(TempDir::Create("/tmp/pulga-services-").value());
    loop_ = EventLoop::Create().value();
    Restart();
  }
  void TearDown() override { Stop(); }

  void Stop() {
    if (!storage_) return;
    Settle();
    images_.reset();
    functions_.reset();
    volumes_.reset();
    secrets_.reset();
    storage_.reset();
    spool_.reset();
    store_.reset();
  }

  void Restart() {
    Stop();
    registry_ = {};
    catalog_ = {};
    dispatcher_ = FakeDispatcher();
    dispatcher_.hold = hold_at_start_;
    store_ = StateStore::Open(dir_->path()).value();
    StoredState state = store_->Load().value();
    for (const ImageRecord& image : state.images) catalog_.Add(image);
    storage_ = std::make_unique<WorkQueue>("storage", *loop_);
    spool_ = std::make_unique<WorkQueue>("spool", *loop_);
    images_ = std::make_unique<ImageService>(
        ImageParts{*loop_, clock_, *storage_, *spool_, *store_, catalog_, sandbox_, worker_,
                   dir_->path()},
        limits_,
        ImageService::Hooks{[this](const std::string& digest) { return registry_.UserOf(digest); },
                            [this] { functions_->Recheck(); }});
    Board board{.cores = 4, .memory_bytes = 8ULL << 30, .budget_bytes = 4ULL << 30};
    volumes_ = std::make_unique<VolumeService>(
        VolumeParts{*loop_, clock_, *storage_, *store_, catalog_, host_, dir_->path(),
                    [this](const FunctionKey& key) { return registry_.UsersOfVolume(key); }},
        0);
    volumes_->Load(state.volumes);
    secrets_ = std::make_unique<SecretService>(
        SecretParts{*loop_, clock_, *storage_, *store_, dir_->path(),
                    [this](const FunctionKey& key) { return registry_.UsersOfSecret(key); }});
    secrets_->Load(state.secrets);
    functions_ = std::make_unique<FunctionService>(FunctionParts{*loop_,
                                                                 clock_,
                                                                 *storage_,
                                                                 *store_,
                                                                 catalog_,
                                                                 registry_,
                                                                 dispatcher_,
                                                                 logs_,
                                                                 board,
                                                                 {},
                                                                 *volumes_,
                                                                 *secrets_,
                                                                 {}},
                                                   FunctionLimits{});
    functions_->Load(state.functions);
  }

  // Until both threads have nothing left to do and all answers have been given.
  void Settle() {
    for (int quiet = 0; quiet < 3; ++quiet) {
      int open = 2;
      for (WorkQueue* queue : {storage_.get(), spool_.get()}) {
        queue->Run([] { return true; }, [&open](bool) { --open; });
      }
      while (open > 0) loop_->RunOnce(std::chrono::seconds(1));
      loop_->RunOnce(Duration::zero());
    }
  }
  void WaitFor(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) loop_->RunOnce(std::chrono::milliseconds(20));
    ASSERT_TRUE(condition());
  }

  // An upload whose report lands in `report`.
  Result<std::unique_ptr<Engine::Upload>> NewUpload(std::optional<ImportReport>* report = nullptr) {
    UploadRequest request;
    request.on_room = [this] { room_ = true; };
    request.on_done = [report](ImportReport r) {
      if (report != nullptr) *report = std::move(r);
    };
    return images_->NewUpload(std::move(request));
  }
  Result<ImportReport> Import(const std::string& archive) {
    std::optional<ImportReport> report;
    auto upload = NewUpload(&report);
    if (!upload.ok()) return upload.error();
    for (std::string_view rest = archive; !rest.empty();) {
      room_ = false;
      rest.remove_prefix((*upload)->Write(rest));
      if (!rest.empty()) WaitFor([&] { return room_; });
    }
    (*upload)->Finish();
    WaitFor([&] { return report.has_value(); });
    return *report;
  }
  Status RemoveImage(const std::string& name) {
    std::optional<Status> done;
    images_->Remove(name, [&](Status s) { done = std::move(s); });
    WaitFor([&] { return done.has_value(); });
    return *done;
  }
  Result<PutReport> Put(const std::string& name, FunctionSpec spec) {
    std::optional<Result<PutReport>> report;
    functions_->Put(Key(name), std::move(spec), [&](Result<PutReport> r) { report = r; });
    WaitFor([&] { return report.has_value(); });
    return *report;
  }
  Result<PutReport> Rollback(const std::string& name, std::optional<uint32_t> number) {
    std::optional<Result<PutReport>> report;
    functions_->Rollback(Key(name), number, [&](Result<PutReport> r) { report = r; });
    WaitFor([&] { return report.has_value(); });
    return *report;
  }
  Status PutSecret(const std::string& name) {
    std::optional<Status> done;
    secrets_->Put(Key(name), "x", SecretWrite::kEither,
                  [&](const Result<SecretPut>& put) { done = Status(put); });
    WaitFor([&] { return done.has_value(); });
    return *done;
  }
  Status Delete(const std::string& name) {
    std::optional<Status> done;
    functions_->Delete(Key(name), [&](Status s) { done = std::move(s); });
    WaitFor([&] { return done.has_value(); });
    return *done;
  }
  static FunctionKey Key(const std::string& name) { return {"admin", "openfaas-fn", name}; }
  static FunctionSpec Spec(const std::string& arg = "") {
    FunctionSpec spec;
    spec.image = "hello";
    if (!arg.empty()) spec.args = {arg};
    return spec;
  }

  std::unique_ptr<TempDir> dir_;
  SystemClock clock_;
  std::unique_ptr<EventLoop> loop_;
  ImageLimits limits_{1 << 20, 1 << 20, 0, 2, {}};
  FakeSandbox sandbox_;
  FakeWorker worker_{sandbox_.disk};
  FakeDispatcher dispatcher_;
  bool hold_at_start_ = false;
  bool room_ = false;
  FunctionLogs logs_;
  ImageCatalog catalog_;
  FunctionRegistry registry_;
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<WorkQueue> storage_, spool_;
  std::unique_ptr<ImageService> images_;
  std::unique_ptr<VolumeService> volumes_;
  std::unique_ptr<SecretService> secrets_;
  std::unique_ptr<FunctionService> functions_;
  testing::FakeVolumeHost host_;
};

// --- images

TEST_F(ServicesTest, AnImportedImageSurvivesARestart) {
  const auto report = Import("hello a 1 2");
  ASSERT_TRUE(report.ok() && report->status.ok());
  EXPECT_TRUE(report->anything_new);
  Restart();
  EXPECT_THAT(catalog_.Find("hello")->layers, SizeIs(2));
}

TEST_F(ServicesTest, TheSameImageTwiceBringsNothingNew) {
  ASSERT_TRUE(Import("hello a 1 2").ok());
  const auto again = Import("hello a 1 2");
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->anything_new);
  EXPECT_THAT(again->layers_created, IsEmpty());
}

TEST_F(ServicesTest, AFailedImportLeavesOnlyLayersOthersNeed) {
  ASSERT_TRUE(Import("hello a 1").ok());
  const auto report = Import("bad 1 2 3");
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->reason, ImportReason::kBadImage);
  Settle();
  EXPECT_THAT(sandbox_.disk, ElementsAre(Layer(1)));
  EXPECT_EQ(catalog_.size(), 1U);
}

TEST_F(ServicesTest, AnImportWhoseClientLeavesGivesItsPlaceBackAtOnce) {
  const std::string archive = "stuck 1";
  std::vector<std::unique_ptr<Engine::Upload>> stuck;
  for (int i = 0; i < 2; ++i) {  // as many as there may be
    stuck.push_back(NewUpload().value());
    stuck.back()->Write(archive);
    stuck.back()->Finish();
  }
  WaitFor([&] { return worker_.stuck.started == 2; });
  EXPECT_EQ(NewUpload().error().code, Code::kUnavailable);
  stuck.clear();
  WaitFor([&] { return !images_->importing(); });
  EXPECT_TRUE(Import("hello a 1")->status.ok());
}

TEST_F(ServicesTest, StoppingEndsImportsThatAreStuck) {
  auto upload = NewUpload().value();
  upload->Write("stuck 1");
  upload->Finish();
  WaitFor([&] { return worker_.stuck.started == 1; });
  images_->StopImports();
  WaitFor([&] { return !images_->importing(); });
}

TEST_F(ServicesTest, AnImportWithoutRoomHasUnusedImagesRemovedForTheNextTry) {
  ASSERT_TRUE(Import("hello a 1 2").ok());
  auto report = Import("full 1");
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->reason, ImportReason::kNoSpace);
  EXPECT_THAT(report->status.error().message, Not(HasSubstr("try again")));
  EXPECT_EQ(catalog_.size(), 1u) << "it was imported just now";
  catalog_.Touch("sha256:" + std::string(64, 'a'), 0);
  report = Import("full 1");
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->reason, ImportReason::kNoSpace);
  EXPECT_THAT(report->status.error().message, HasSubstr("try again"));
  EXPECT_EQ(catalog_.size(), 0u);
  Settle();
  EXPECT_THAT(sandbox_.disk, IsEmpty());
}

TEST_F(ServicesTest, RemovingAnImageKeepsSharedLayers) {
  ASSERT_TRUE(Import("hello a 1 2").ok());
  ASSERT_TRUE(Import("other b 1 3").ok());
  EXPECT_TRUE(RemoveImage("hello").ok());
  EXPECT_THAT(sandbox_.disk, ElementsAre(Layer(1), Layer(3)));
  EXPECT_EQ(RemoveImage("hello").error().code, Code::kNotFound);
}

TEST_F(ServicesTest, AnUntaggedImageStaysUntilItIsRemovedByDigest) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Import("hello b 2").ok());
  EXPECT_EQ(catalog_.size(), 2U);
  EXPECT_TRUE(RemoveImage(std::string(12, 'a')).ok());
  EXPECT_EQ(catalog_.size(), 1U);
  EXPECT_THAT(sandbox_.disk, ElementsAre(Layer(2)));
}

TEST_F(ServicesTest, AnImageInUseIsNotRemoved) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  const Status removed = RemoveImage("hello");
  EXPECT_EQ(removed.error().code, Code::kAlreadyExists);
  EXPECT_THAT(removed.error().message, HasSubstr("in use by function f (version 1)"));
  ASSERT_TRUE(Delete("f").ok());
  EXPECT_TRUE(RemoveImage("hello").ok());
}

TEST_F(ServicesTest, AnUploadOverTheLimitIsRefusedAtOnceOrWhenItGetsThere) {
  UploadRequest announced;
  announced.content_length = 2 << 20;
  EXPECT_EQ(images_->NewUpload(announced).error().code, Code::kTooLarge);
  worker_.text_at_most = 4 << 20;
  const auto report = Import(std::string(2 << 20, 'x'));
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->status.error().code, Code::kTooLarge) << report->status.error().message;
  EXPECT_EQ(report->reason, ImportReason::kTooLarge);
}

TEST_F(ServicesTest, OnlySoManyUploadsAtOnceAndADroppedOneMakesRoom) {
  auto one = NewUpload();
  auto two = NewUpload();
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(NewUpload().error().code, Code::kUnavailable);
  two->reset();
  bool room = false;
  WaitFor([&] { return room = room || NewUpload().ok(); });
}

TEST_F(ServicesTest, AnEmptyUploadIsNoArchive) {
  std::optional<ImportReport> report;
  auto upload = NewUpload(&report);
  (*upload)->Finish();
  WaitFor([&] { return report.has_value(); });
  EXPECT_EQ(report->reason, ImportReason::kNotAnArchive);
}

TEST_F(ServicesTest, AnUploadThatIsDroppedLeavesNothing) {
  std::optional<ImportReport> report;
  auto upload = NewUpload(&report);
  (*upload)->Write("hello a 1");  // as it looks, a whole archive
  upload->reset();
  WaitFor([&] { return !images_->importing(); });
  EXPECT_EQ(catalog_.size(), 0U);
  EXPECT_THAT(sandbox_.disk, IsEmpty());
  EXPECT_FALSE(report.has_value());
}

TEST_F(ServicesTest, ABadArchiveIsToldWhileItStillComes) {
  worker_.text_at_most = 100;
  std::optional<ImportReport> report;
  auto upload = NewUpload(&report);
  (*upload)->Write(std::string(200, 'x'));
  WaitFor([&] { return report.has_value(); });
  EXPECT_EQ(report->reason, ImportReason::kBadImage);
  // Nobody reads any more: what still comes is thrown away, and the client never stalls.
  EXPECT_EQ((*upload)->Write(std::string(2 << 20, 'x')), size_t{2 << 20});
  (*upload)->Finish();
}

TEST_F(ServicesTest, AnImportThatIsSlowStallsItsClientAlone) {
  worker_.text_at_most = 1 << 20;  // before its thread reads it
  auto slow = NewUpload();
  const std::string bytes(1 << 19, 'x');
  // More than the pipe holds, faster than anybody can read it.
  size_t taken = (*slow)->Write(bytes);
  ASSERT_LE(taken, bytes.size());
  std::optional<ImportReport> report;
  auto quick = NewUpload(&report);
  (*quick)->Write("hello a 1");
  (*quick)->Finish();
  WaitFor([&] { return report.has_value(); });
  EXPECT_TRUE(report->status.ok());
}

TEST_F(ServicesTest, TwoImportsOfOneLayerMakeItOnce) {
  std::optional<ImportReport> one;
  std::optional<ImportReport> two;
  auto first = NewUpload(&one);
  auto second = NewUpload(&two);
  for (auto* upload : {&first, &second}) (**upload)->Write("hello a 1 2");
  (*first)->Finish();
  (*second)->Finish();
  WaitFor([&] { return one && two; });
  ASSERT_TRUE(one->status.ok() && two->status.ok());
  EXPECT_EQ(one->layers_created.size() + two->layers_created.size(), 2U);
  EXPECT_THAT(sandbox_.disk, SizeIs(2));
}

TEST_F(ServicesTest, AFailedImportLeavesTheLayersAnotherOneUses) {
  std::optional<ImportReport> bad;
  std::optional<ImportReport> good;
  auto first = NewUpload(&bad);
  (*first)->Write("bad 1");
  auto second = NewUpload(&good);
  (*second)->Write("hello a 1");
  (*first)->Finish();
  (*second)->Finish();
  WaitFor([&] { return bad && good; });
  Settle();
  EXPECT_FALSE(bad->status.ok());
  ASSERT_TRUE(good->status.ok());
  EXPECT_THAT(sandbox_.disk, ElementsAre(Layer(1)));
}

TEST_F(ServicesTest, AClientThatLeavesDuringTheImportIsForgottenButTheImageComes) {
  std::optional<ImportReport> report;
  auto upload = NewUpload(&report);
  (*upload)->Write("hello a 1");
  (*upload)->Finish();
  upload->reset();
  WaitFor([&] { return catalog_.size() == 1; });
  EXPECT_FALSE(report.has_value());
}

TEST_F(ServicesTest, ASweepRemovesStrangersAndMarksTheMissing) {
  ASSERT_TRUE(Import("hello a 1 2").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  sandbox_.disk = {Layer(1), Layer(9)};
  Restart();
  bool swept = false;
  images_->Sweep([&](const Status& s) { swept = s.ok(); });
  WaitFor([&] { return swept; });
  EXPECT_THAT(sandbox_.disk, ElementsAre(Layer(1)));
  EXPECT_THAT(catalog_.Find("hello")->trouble, HasSubstr("import the image again"));
  EXPECT_THAT(functions_->Describe(Key("f"))->activity.trouble, HasSubstr("layers are missing"));
  EXPECT_THAT(dispatcher_.calls, ElementsAre("restore f 1", "deactivate f"));
  EXPECT_EQ(Put("g", Spec()).error().code, Code::kUnavailable);
  // Importing it again repairs both.
  ASSERT_TRUE(Import("hello a 1 2")->anything_new);
  Settle();
  EXPECT_EQ(functions_->Describe(Key("f"))->activity.trouble, "");
  EXPECT_EQ(dispatcher_.calls.back(), "restore f 1");
}

TEST_F(ServicesTest, ASweepLeavesTheRecordsOfImagesAndOfImportsUnderWay) {
  ASSERT_TRUE(Import("hello a 1").ok());
  auto upload = NewUpload().value();
  upload->Write("making 2");
  upload->Finish();
  WaitFor([&] { return worker_.stuck.started == 1; });
  worker_.records = {Layer(1), Layer(2), Layer(9)};
  bool swept = false;
  images_->Sweep([&](const Status& s) { swept = s.ok(); });
  WaitFor([&] { return swept; });
  EXPECT_THAT(worker_.records, ElementsAre(Layer(1), Layer(2)));
  upload.reset();
  WaitFor([&] { return !images_->importing(); });
}

TEST_F(ServicesTest, ALayerThatCouldNotBeRemovedIsSweptAMomentLater) {
  ASSERT_TRUE(Import("hello a 1 2").ok());
  worker_.stuck_removals = 1;
  EXPECT_TRUE(RemoveImage("hello").ok());
  Settle();
  EXPECT_EQ(sandbox_.disk.size(), 1u);
  WaitFor([&] {
    Settle();
    return sandbox_.disk.empty();
  });
}

TEST_F(ServicesTest, ALayerFoundMissingWhileItsFunctionIsRecoveredIsToldAllTheSame) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  sandbox_.disk.clear();
  hold_at_start_ = true;
  Restart();
  bool swept = false;
  images_->Sweep([&](const Status& s) { swept = s.ok(); });
  WaitFor([&] { return swept; });
  dispatcher_.hold = false;
  dispatcher_.held.front()();
  WaitFor([&] { return functions_->busy() == 0; });
  EXPECT_THAT(functions_->Describe(Key("f"))->activity.trouble, HasSubstr("layers are missing"));
  EXPECT_EQ(dispatcher_.calls.back(), "deactivate f");
}

// --- functions

TEST_F(ServicesTest, ADeployIsOnDiskWhenItIsAnswered) {
  ASSERT_TRUE(Import("hello a 1").ok());
  const auto report = Put("f", Spec());
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(report->effect, PutReport::Effect::kCreated);
  EXPECT_EQ(report->status.active->number, 1U);
  Restart();
  const auto status = functions_->Describe(Key("f"));
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->active->argv, std::vector<std::string>{"/app"});
  EXPECT_THAT(dispatcher_.calls, ElementsAre("restore f 1"));
}

TEST_F(ServicesTest, AChangeMakesAVersionAndTheSameAgainDoesNot) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  const auto second = Put("f", Spec("x"));
  EXPECT_EQ(second->effect, PutReport::Effect::kReplaced);
  EXPECT_EQ(second->status.active->number, 2U);
  const auto same = Put("f", Spec("x"));
  EXPECT_EQ(same->status.active->number, 2U);
  EXPECT_THAT(same->warnings, ElementsAre(HasSubstr("nothing changed")));
  EXPECT_THAT(same->status.versions, SizeIs(2));
}

TEST_F(ServicesTest, AMovedImageNameIsAChange) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  ASSERT_TRUE(Import("hello b 2").ok());
  EXPECT_EQ(Put("f", Spec())->status.active->number, 2U);
}

TEST_F(ServicesTest, AVersionThatIsNotReadyLeavesTheOldOne) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  dispatcher_.answer = Error{Code::kTimeout, 0, "never listened"};
  const auto report = Put("f", Spec("x"));
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().message, "never listened");
  EXPECT_EQ(functions_->Describe(Key("f"))->active->number, 1U);
  Restart();
  EXPECT_THAT(functions_->Describe(Key("f"))->versions, SizeIs(1));
}

TEST_F(ServicesTest, AStopBetweenReadyAndStoredLeavesTheOldVersion) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  dispatcher_.hold = true;
  functions_->Put(Key("f"), Spec("x"), [](const Result<PutReport>&) {});
  WaitFor([&] { return dispatcher_.held.size() == 1; });
  Restart();
  EXPECT_EQ(functions_->Describe(Key("f"))->active->number, 1U);
  EXPECT_THAT(functions_->Describe(Key("f"))->versions, SizeIs(1));
}

TEST_F(ServicesTest, ADeployWantsItsSecretsAndUsesThemWhileActive) {
  ASSERT_TRUE(Import("hello a 1").ok());
  FunctionSpec spec = Spec();
  spec.secrets = {"token"};
  EXPECT_EQ(Put("f", spec).error().message, "unable to find secret: token");
  ASSERT_TRUE(PutSecret("token").ok());
  ASSERT_TRUE(Put("f", spec).ok());
  EXPECT_THAT(secrets_->List()[0].used_by, ElementsAre("f"));
  ASSERT_TRUE(Put("f", Spec("without")).ok());
  EXPECT_THAT(secrets_->List()[0].used_by, IsEmpty());
  EXPECT_TRUE(Rollback("f", std::nullopt).ok());
  EXPECT_THAT(secrets_->List()[0].used_by, ElementsAre("f"));
}

TEST_F(ServicesTest, AFirstDeployThatFailsLeavesNothing) {
  ASSERT_TRUE(Import("hello a 1").ok());
  dispatcher_.answer = Error{Code::kIo, 0, "mount overlay: no"};
  logs_.Append(Key("f"), {0, 1, "", "pulga", "starts fail"});
  ASSERT_FALSE(Put("f", Spec()).ok());
  EXPECT_FALSE(functions_->Describe(Key("f")).ok());
  EXPECT_THAT(logs_.Tail(Key("f"), 10), IsEmpty());
  EXPECT_TRUE(RemoveImage("hello").ok());
}

TEST_F(ServicesTest, ChangesOfOneFunctionWaitForEachOtherAndOthersDoNot) {
  ASSERT_TRUE(Import("hello a 1").ok());
  dispatcher_.hold = true;
  std::vector<std::string> done;
  for (const char* name : {"f", "f", "g"}) {
    functions_->Put(Key(name), Spec(std::to_string(done.size())),
                    [&, name](const Result<PutReport>&) { done.emplace_back(name); });
  }
  WaitFor([&] { return dispatcher_.held.size() == 2; });
  EXPECT_THAT(dispatcher_.calls, ElementsAre("activate f 1", "activate g 1"));
  dispatcher_.hold = false;
  for (auto& held : dispatcher_.held) held();
  WaitFor([&] { return done.size() == 3; });
  WaitFor([&] { return functions_->busy() == 0; });
}

TEST_F(ServicesTest, RollsBackAndForthAndRemembersIt) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  ASSERT_TRUE(Put("f", Spec("x")).ok());
  const auto back = Rollback("f", std::nullopt);
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(back->status.active->number, 1U);
  EXPECT_EQ(back->status.active->id, 3U);
  Restart();
  EXPECT_EQ(functions_->Describe(Key("f"))->active->number, 1U);
  EXPECT_EQ(Rollback("f", 2)->status.active->number, 2U);
  EXPECT_EQ(Rollback("f", 7).error().code, Code::kNotFound);
  EXPECT_EQ(Rollback("nobody", std::nullopt).error().code, Code::kNotFound);
}

TEST_F(ServicesTest, ADeletedFunctionIsGoneAfterARestart) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  ASSERT_TRUE(Delete("f").ok());
  EXPECT_EQ(Delete("f").error().code, Code::kNotFound);
  EXPECT_EQ(dispatcher_.calls.back(), "deactivate f");
  Restart();
  EXPECT_THAT(registry_.functions(), IsEmpty());
}

TEST_F(ServicesTest, AnImageStaysWhileADeletedFunctionStillRunsOnIt) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  dispatcher_.hold = true;
  functions_->Delete(Key("f"), [](const Status&) {});
  WaitFor([&] { return dispatcher_.held.size() == 1; });
  EXPECT_THAT(RemoveImage("hello").error().message, HasSubstr("being deployed or removed"));
  dispatcher_.held.front()();
  EXPECT_TRUE(RemoveImage("hello").ok());
}

TEST_F(ServicesTest, ADeployWithoutCpuGetsHalfACoreAndMaySayNone) {
  ASSERT_TRUE(Import("hello a 1").ok());
  FunctionSpec spec = Spec();
  spec.sandbox.cpu_millis = kCpuNotGiven;
  ASSERT_TRUE(Put("f", spec).ok());
  EXPECT_EQ(functions_->Describe(Key("f"))->active->spec.sandbox.cpu_millis, 500U);
  ASSERT_TRUE(Put("f", spec).ok());
  EXPECT_EQ(functions_->Describe(Key("f"))->active->number, 1U) << "the same is no new version";
  spec.sandbox.cpu_millis = 0;
  ASSERT_TRUE(Put("f", spec).ok());
  Restart();
  EXPECT_EQ(functions_->Describe(Key("f"))->active->spec.sandbox.cpu_millis, 0U);
}

TEST_F(ServicesTest, AStoredVersionWithoutCpuKeepsRunningWithoutAQuota) {
  ASSERT_TRUE(Import("hello a 1").ok());
  ASSERT_TRUE(Put("f", Spec()).ok());
  Stop();
  auto database = Database::Open(dir_->path() + "/pulga.db");
  ASSERT_TRUE(database.ok());
  ASSERT_TRUE(
      (*database)->Execute("UPDATE versions SET spec = json_remove(spec, '$.limits.cpu')").ok());
  database->reset();
  Restart();
  EXPECT_EQ(functions_->Describe(Key("f"))->active->spec.sandbox.cpu_millis, 0U);
}

TEST_F(ServicesTest, BadDeploysSayWhatToDo) {
  ASSERT_TRUE(Import("hello a 1").ok());
  EXPECT_EQ(Put("Not-A-Name", Spec()).error().code, Code::kInvalidArgument);
  FunctionSpec spec = Spec();
  spec.image = "unknown";
  EXPECT_EQ(Put("f", spec).error().code, Code::kNotFound);
  spec = Spec();
  spec.sandbox.memory_bytes = 16ULL << 30;
  EXPECT_THAT(Put("f", spec).error().message, HasSubstr("more than this board has"));
  spec = Spec();
  spec.scale.min = 4;
  spec.sandbox.memory_bytes = 2ULL << 30;
  EXPECT_THAT(Put("f", spec)->warnings, ElementsAre(HasSubstr("more than the memory budget")));
}

}  // namespace
}  // namespace pulga
