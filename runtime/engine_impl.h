// EngineImpl: the Engine interface over the services the daemon built. Loop thread. Holds no state
// of its own but what the system report adds up.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/engine.h"
#include "runtime/function_registry.h"
#include "runtime/function_service.h"
#include "runtime/habit_keeper.h"
#include "runtime/image_catalog.h"
#include "runtime/image_pulls.h"
#include "runtime/image_service.h"
#include "runtime/secrets/secret_service.h"
#include "runtime/sense/board_sense.h"
#include "runtime/volume_service.h"

namespace pulga {

struct EngineParts {
  EventLoop& loop;
  const Clock& clock;
  ImageCatalog& catalog;
  ImageService& images;
  ImagePulls& pulls;
  ResumableUploads& uploads;
  FunctionRegistry& registry;
  VolumeService& volumes;
  FunctionService& functions;
  Dispatcher& dispatcher;
  FunctionLogs& logs;
  std::string admin_key;
  BasicLogin gateway_login;
  uint64_t memory_budget_bytes = 0;
  std::vector<Feature> features;
  const BoardSense& sense;
  HabitKeeper& habits;
  Namespaces& namespaces;
  Tasks& tasks;
  SecretService& secrets;
  AccountService& accounts;
  SignIn& sign_in;
  WorkQueue& storage;
};

// What changes while the daemon runs and nobody else knows.
struct Health {
  std::string state = "ok";
  uint64_t launcher_restarts = 0;
};

class EngineImpl final : public Engine {
 public:
  explicit EngineImpl(EngineParts parts);

  void SetHealth(Health health) { health_ = std::move(health); }
  void SetGrants(std::vector<GrantLine> grants) { grants_ = std::move(grants); }
  // Before the drain: uploads and changes are refused from now on.
  void BeginStopping() { stopping_ = true; }

  Result<std::unique_ptr<Upload>> NewUpload(UploadRequest request) override;
  ResumableUploads& uploads() override { return parts_.uploads; }
  std::unique_ptr<Pull> PullImage(PullRequest request,
                                  std::function<void(const PullProgress&)> progress,
                                  std::function<void(ImportReport)> done) override;
  std::vector<ImageRecord> Images() const override { return parts_.catalog.List(); }
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
  std::vector<SecretView> Secrets() const override { return parts_.secrets.List(); }
  std::vector<FunctionKey> SecretKeys() const override;

  void History(std::function<void(Result<UniqueFd>)> done) override;

  Status Scale(const FunctionKey& key, uint32_t instances) override;
  AccountService& accounts() override { return parts_.accounts; }
  SignIn& sign_in() override { return parts_.sign_in; }
  FunctionLogs& logs() override { return parts_.logs; }

  std::unique_ptr<Invocation> Invoke(InvocationRequest request,
                                     InvocationObserver& observer) override;
  Tasks& tasks() override { return parts_.tasks; }
  void Apart(std::function<void()> work, std::function<void()> done) override;
  SystemReport System() const override;
  Namespaces& namespaces() override { return parts_.namespaces; }
  const std::string& admin_key() const override { return parts_.admin_key; }
  const BasicLogin& gateway_login() const override { return parts_.gateway_login; }

 private:
  FunctionStatus WithTasks(FunctionStatus status) const;
  // Tells `done` of a changed function, with its tasks.
  std::function<void(Result<PutReport>)> AddTasks(
      std::function<void(Result<PutReport>)> done) const;

  EngineParts parts_;
  TimePoint started_;
  Health health_;
  std::vector<GrantLine> grants_;
  bool stopping_ = false;
};

}  // namespace pulga
