// FakeEngine: an Engine in memory for tests of api/. Images and functions are what a test puts in;
// calls behave by the function's name (see FakeCall). Loop thread, like the real one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "runtime/engine.h"
#include "runtime/tasks/task_service.h"

namespace pulga::testing {

// echo: the body comes back, whole. stream: its size in three chunks. sized: 200 kB with a length.
// abort: breaks off after a chunk. never: no answer. full: rejected, queue full. oom, exit: fail.
// deaf: takes no body byte until told. early: answers 200 before the body has ended.
struct CallRecord {
  InvocationRequest request;
  std::string body;
  bool body_ended = false;
  bool cancelled = false;
};

class FakeNamespaces final : public Namespaces {
 public:
  std::vector<NamespaceRecord> List() const override;
  Result<NamespaceRecord> Find(const std::string& name) const override;
  void Put(NamespaceRecord record, Write write, std::function<void(Status)> done) override;
  void Remove(const std::string& name, std::function<void(Status)> done) override;

 private:
  std::map<std::string, NamespaceRecord> records_ = {
      {kDefaultNamespace, {kDefaultOwner, kDefaultNamespace, {}, {}}}};
};

class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(EventLoop& loop) : loop_(loop) {}

  ~FakeEngine() override;
  Result<std::unique_ptr<Upload>> NewUpload(UploadRequest request) override;
  // The real ones, in a temporary directory; what they import counts as `uploaded`.
  ResumableUploads& uploads() override;
  std::unique_ptr<Pull> PullImage(PullRequest request,
                                  std::function<void(const PullProgress&)> progress,
                                  std::function<void(ImportReport)> done) override;
  std::vector<ImageRecord> Images() const override;
  Result<ImageRecord> Image(const std::string& ref) const override;
  void ImageView(const std::string& ref, TreeView view,
                 std::function<void(Result<UniqueFd>)> done) override;
  Result<std::unique_ptr<Download>> ExportImage(const std::string& ref) override;
  void VerifyImage(const std::string& ref, std::function<void(Result<VerifyReport>)> done) override;
  void PruneImages(PruneScope scope, std::function<void(Result<PruneReport>)> done) override;
  void RemoveImage(const std::string& ref, std::function<void(Status)> done) override;
  void PutFunction(const FunctionKey& key, FunctionSpec spec,
                   std::function<void(Result<PutReport>)> done) override;
  Result<FunctionStatus> Function(const FunctionKey& key) const override;
  std::vector<FunctionStatus> Functions() const override;
  void DeleteFunction(const FunctionKey& key, std::function<void(Status)> done) override;
  void Rollback(const FunctionKey& key, std::optional<uint32_t> version,
                std::function<void(Result<PutReport>)> done) override;
  void PutVolume(const FunctionKey& key, const VolumeWish& wish,
                 std::function<void(Result<VolumePut>)> done) override;
  void ResizeVolume(const FunctionKey& key, uint64_t bytes,
                    std::function<void(Result<VolumeView>)> done) override;
  void RemoveVolume(const FunctionKey& key, std::function<void(Status)> done) override;
  void Volumes(std::function<void(Result<VolumeList>)> done) override;
  void Volume(const FunctionKey& key, std::function<void(Result<VolumeView>)> done) override;
  void PutSecret(const FunctionKey& secret, std::string value, SecretWrite write,
                 std::function<void(Result<SecretPut>)> done) override;
  void RemoveSecret(const FunctionKey& secret, SecretRemoval removal,
                    std::function<void(Status)> done) override;
  std::vector<SecretView> Secrets() const override;
  std::vector<FunctionKey> SecretKeys() const override;
  void History(std::function<void(Result<UniqueFd>)> done) override;
  Status Scale(const FunctionKey& key, uint32_t instances) override;
  Namespaces& namespaces() override { return namespaces_; }
  // The real one, over a database in the same directory.
  AccountService& accounts() override;
  SignIn& sign_in() override;
  FunctionLogs& logs() override { return logs_; }
  std::unique_ptr<Invocation> Invoke(InvocationRequest request,
                                     InvocationObserver& observer) override;
  // The real ones, in the same directory.
  Tasks& tasks() override;
  void Apart(std::function<void()> work, std::function<void()> done) override {
    ++works_apart;
    work();
    loop_.Post(std::move(done));
  }
  size_t works_apart = 0;
  SystemReport System() const override;
  const std::string& admin_key() const override { return key_; }
  const BasicLogin& gateway_login() const override { return login_; }

  EventLoop& loop() { return loop_; }

  // For tests.
  std::string history = "function,trigger,bytes,init_ms,hour,minutes\n";
  std::map<std::string, ImageRecord> images;
  std::map<std::string, FunctionStatus> functions;
  std::map<std::string, VolumeView> volumes;  // "busy" is in use by "hello"
  std::map<FunctionKey, std::string> secrets;
  std::vector<std::shared_ptr<CallRecord>> calls;
  std::string uploaded;
  ImportOptions upload_options;  // of resumable ones
  uint64_t upload_limit = UINT64_MAX;
  size_t upload_room = 100'000;  // at a time
  Duration upload_delay{0};      // until there is room again
  bool upload_abandoned = false;
  std::string archive = "an archive";  // what ExportImage gives, after a wait
  bool archive_breaks = false;         // in its middle
  std::vector<LayerDifference> differences;
  TaskLimits task_limits;
  ImportReport import_report;  // of pulls, too; one of "slow" never comes
  std::vector<PullRequest> pulls;
  int pulls_cancelled = 0;

 private:
  void MakeDirectory();

  EventLoop& loop_;
  std::string key_ = "sesame";
  BasicLogin login_{"admin", "open"};
  SystemClock clock_;
  std::string uploads_dir_;  // of uploads and tasks
  std::unique_ptr<ResumableUploads> uploads_;
  std::unique_ptr<TaskService> tasks_;
  std::unique_ptr<StateStore> store_;
  std::unique_ptr<AccountService> accounts_;
  std::unique_ptr<SignIn> sign_in_;
  std::unique_ptr<WorkQueue> storage_;  // ends first
  FunctionLogs logs_;
  FakeNamespaces namespaces_;
};

ImageRecord SampleImage(const std::string& name);

}  // namespace pulga::testing
