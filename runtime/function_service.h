// FunctionService: deploy, roll back, delete and recover functions. Loop thread; rows are written
// by the storage thread. Changes of one function run one after the other. A deploy is: pending row
// -> the dispatcher proves the version ready and moves the traffic -> active row -> answer; a crash
// anywhere leaves the old version or the new one, and what was answered is on disk.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "base/work_queue.h"
#include "runtime/board.h"
#include "runtime/dispatcher.h"
#include "runtime/engine.h"
#include "runtime/function_registry.h"
#include "runtime/image_catalog.h"
#include "runtime/op_queue.h"
#include "runtime/secrets/secret_service.h"
#include "runtime/state_store.h"
#include "runtime/volume_service.h"

namespace pulga {

struct FunctionLimits {
  uint32_t keep_versions = 10;
  uint32_t max_functions = 1000;
};

struct FunctionParts {
  EventLoop& loop;
  const Clock& clock;
  WorkQueue& storage;
  StateStore& store;  // used on `storage` only
  ImageCatalog& catalog;
  FunctionRegistry& registry;
  Dispatcher& dispatcher;
  FunctionLogs& logs;
  Board board;
  std::vector<Feature> features;  // what this kernel offers
  VolumeService& volumes;
  SecretService& secrets;
  // An image from its registry; `done` is called later, with an import's report.
  std::function<void(const std::string& ref, std::function<void(ImportReport)> done)> pull;
};

class FunctionService {
 public:
  using PutDone = std::function<void(Result<PutReport>)>;

  FunctionService(FunctionParts parts, FunctionLimits limits);

  void SetLimits(FunctionLimits limits) { limits_ = limits; }
  // Start-up: fills the registry and restores everything that can run; builds nothing.
  void Load(const std::vector<StoredFunction>& functions);
  // Images changed: functions may be broken now, or whole again.
  void Recheck();

  void Put(const FunctionKey& key, FunctionSpec spec, PutDone done);
  void Rollback(const FunctionKey& key, std::optional<uint32_t> number, PutDone done);
  void Delete(const FunctionKey& key, std::function<void(Status)> done);
  Result<FunctionStatus> Describe(const FunctionKey& key) const;
  std::vector<FunctionStatus> List() const;  // without what takes long to find out
  size_t busy() const;                       // changes under way

 private:
  struct Deployment;
  using DeploymentPtr = std::shared_ptr<Deployment>;

  void Enqueue(const FunctionKey& key, OpQueue::Op op);
  // What can be said against a spec before its image is looked at; fills in defaults.
  Result<FunctionSpec> CheckSpec(const FunctionKey& key, const FunctionSpec& spec) const;
  // Pulls the image where the spec's policy says so.
  void EnsureImage(const FunctionSpec& spec, std::function<void(Status)> done);
  // Pulled and made: what a deploy needs besides the spec.
  void Provide(const FunctionKey& key, const FunctionSpec& spec,
               std::function<void(Result<VolumeService::Hold>)> done);
  void PutNow(const FunctionKey& key, const FunctionSpec& spec, PutDone done, OpQueue::Done next);
  Result<DeploymentPtr> PlanPut(const FunctionKey& key, const FunctionSpec& spec) const;
  Result<DeploymentPtr> PlanRollback(const FunctionKey& key, std::optional<uint32_t> number) const;
  bool IsUnchanged(const Deployment& deployment) const;
  void Deploy(DeploymentPtr deployment);
  void OnPending(const DeploymentPtr& deployment, Result<StoredVersion> stored);
  void OnActivated(const DeploymentPtr& deployment, const Status& activated);
  void OnCommitted(const DeploymentPtr& deployment, Result<std::vector<uint64_t>> forgotten);
  void GoBack(const DeploymentPtr& deployment, const Error& why);
  void Finish(const DeploymentPtr& deployment, Result<PutReport> report);
  void DeleteNow(const FunctionKey& key, std::function<void(Status)> done);
  void TouchImagesOf(const FunctionKey& key);
  void AfterDelete(const FunctionKey& key, const FunctionEntry& entry,
                   std::function<void(Status)> done);
  void Reactivate(const FunctionKey& key);
  void ReactivateNow(const FunctionKey& key, OpQueue::Done next);
  Result<VersionPtr> ResolveStored(const Version& stored) const;

  FunctionParts parts_;
  FunctionLimits limits_;
  std::map<FunctionKey, std::unique_ptr<OpQueue>> queues_;
};

}  // namespace pulga
