#include "runtime/function_service.h"

#include <utility>

#include "base/log.h"
#include "base/text.h"
#include "base/units.h"
#include "images/image_ref.h"
#include "runtime/openfaas_labels.h"
#include "runtime/openfaas_timeouts.h"
#include "runtime/request_head.h"
#include "runtime/spec_json.h"
#include "runtime/tasks/schedule_plan.h"
#include "runtime/tasks/task_rules.h"
#include "runtime/version_resolver.h"

namespace pulga {
namespace {

// Deleting answers when everything is gone, or after this long if calls are still running.
constexpr Duration kDeletePatience = std::chrono::seconds(3);

std::string Title(const Version& version) {
  return version.key.name + " version " + std::to_string(version.number);
}

// A version that can be listed but not run: its spec or its image can not be read any more.
Version BareVersion(const FunctionKey& key, const StoredVersion& stored) {
  Version version;
  version.key = key;
  version.id = stored.id;
  version.number = stored.number;
  version.image_digest = stored.image_digest;
  version.created_unix_ms = stored.created_unix_ms;
  auto spec = SpecFromJson(stored.spec_json);
  if (spec.ok()) {
    version.spec = std::move(spec).value();
    // Written before there was a default: it keeps running without a quota.
    if (version.spec.sandbox.cpu_millis == kCpuNotGiven) version.spec.sandbox.cpu_millis = 0;
    version.image_ref = version.spec.image;
  }
  return version;
}

FunctionStatus StatusOf(const FunctionKey& key, const FunctionEntry& entry,
                        FunctionActivity activity) {
  FunctionStatus status;
  status.key = key;
  status.active = entry.active;
  status.versions = entry.versions;
  status.activity = std::move(activity);
  if (!entry.trouble.empty()) status.activity.trouble = entry.trouble;
  return status;
}

std::optional<int64_t> NextRun(const Version& version, int64_t now_ms) {
  constexpr int64_t kMinuteMs = 60'000;
  const auto schedule = ParseFunctionSchedule(version.spec.annotations);
  if (!schedule.ok() || !schedule->has_value()) return std::nullopt;
  const auto next = NextMinute(**schedule, now_ms / kMinuteMs);
  if (!next) return std::nullopt;
  return *next * kMinuteMs;
}

// As the API tells a failed pull.
Code CodeOfPull(ImportReason reason, Code code) {
  switch (reason) {
    case ImportReason::kDenied:
      return Code::kPermission;
    case ImportReason::kNoSuchImage:
      return Code::kNotFound;
    case ImportReason::kRegistry:
    case ImportReason::kHelper:
      return Code::kUnavailable;
    case ImportReason::kBadImage:
      return Code::kUnsupported;
    default:
      return code;
  }
}

}  // namespace

struct FunctionService::Deployment {
  Version version;      // id and number are filled in by the store
  uint32_t number = 0;  // a rollback: the number it comes back under
  VersionPtr ready;     // the same once numbered
  VersionPtr old;       // active before
  std::vector<std::string> warnings;
  PutDone done;
  OpQueue::Done next;
};

FunctionService::FunctionService(FunctionParts parts, FunctionLimits limits)
    : parts_(std::move(parts)), limits_(limits) {}

size_t FunctionService::busy() const {
  size_t count = 0;
  for (const auto& [key, queue] : queues_) count += queue->size();
  return count;
}

void FunctionService::Enqueue(const FunctionKey& key, OpQueue::Op op) {
  // Idle ones go here, or each function would have one: no operation of theirs is on the stack.
  std::erase_if(queues_,
                [&](const auto& entry) { return entry.second->size() == 0 && entry.first != key; });
  std::unique_ptr<OpQueue>& queue = queues_[key];
  if (queue == nullptr) queue = std::make_unique<OpQueue>(parts_.loop);
  queue->Add(std::move(op));
}

// --- start-up and repair

void FunctionService::Load(const std::vector<StoredFunction>& functions) {
  for (const StoredFunction& function : functions) {
    FunctionEntry entry;
    for (const StoredVersion& stored : function.versions) {
      const auto bare = std::make_shared<const Version>(BareVersion(function.key, stored));
      const auto resolved = ResolveStored(*bare);
      entry.versions.push_back(resolved.ok() ? *resolved : bare);
      if (stored.state == StoredVersion::State::kActive) entry.active = entry.versions.back();
    }
    // Until Reactivate says otherwise.
    entry.trouble = "is being recovered";
    parts_.registry.Load(function.key, std::move(entry));
    Reactivate(function.key);
  }
}

Result<VersionPtr> FunctionService::ResolveStored(const Version& stored) const {
  if (stored.spec.image.empty()) {
    return Error{Code::kUnsupported, 0, "its stored description can not be read by this release"};
  }
  PULGA_ASSIGN_OR_RETURN(const ImageRecord image, parts_.catalog.ByDigest(stored.image_digest));
  if (!image.trouble.empty()) {
    return Error{Code::kUnavailable, 0, "image " + stored.spec.image + ": " + image.trouble};
  }
  PULGA_ASSIGN_OR_RETURN(Version version, ResolveVersion(stored.spec, image));
  PULGA_ASSIGN_OR_RETURN(version.volumes,
                         parts_.volumes.Resolve(stored.key, stored.spec.access.volumes));
  version.key = stored.key;
  version.id = stored.id;
  version.number = stored.number;
  version.created_unix_ms = stored.created_unix_ms;
  return std::make_shared<const Version>(std::move(version));
}

void FunctionService::Recheck() {
  for (const auto& [key, entry] : parts_.registry.functions()) {
    // Behind whatever is under way, which may yet clear the trouble or bring it about.
    if (!entry.trouble.empty() || !ResolveStored(*entry.active).ok()) Reactivate(key);
  }
}

void FunctionService::Reactivate(const FunctionKey& key) {
  Enqueue(key, [this, key](OpQueue::Done next) { ReactivateNow(key, std::move(next)); });
}

void FunctionService::ReactivateNow(const FunctionKey& key, OpQueue::Done next) {
  const FunctionEntry* entry = parts_.registry.Find(key);
  if (entry == nullptr) return next();  // deleted meanwhile
  const auto version = ResolveStored(*entry->active);
  const bool was_live = entry->trouble.empty();
  if (!version.ok()) {
    const std::string trouble = Printable(version.error().message, 300);
    if (trouble != entry->trouble) {
      LogWarning("function " + key.name + " can not run: " + trouble);
    }
    parts_.registry.SetTrouble(key, trouble);
    if (was_live) return parts_.dispatcher.Deactivate(key, next);
    return next();
  }
  if (was_live) return next();
  parts_.dispatcher.Restore(*version, [this, version = *version, next] {
    parts_.registry.Activate(version, {});
    next();
  });
}

// --- deploy and roll back

Result<FunctionSpec> FunctionService::CheckSpec(const FunctionKey& key,
                                                const FunctionSpec& wanted) const {
  const FunctionEntry* entry = parts_.registry.Find(key);
  if (entry == nullptr && parts_.registry.functions().size() >= limits_.max_functions) {
    return Error{Code::kNoSpace, 0,
                 "there are " + std::to_string(limits_.max_functions) +
                     " functions already (setting max-functions)"};
  }
  FunctionSpec spec = wanted;
  if (spec.sandbox.cpu_millis == kCpuNotGiven) {
    spec.sandbox.cpu_millis = DefaultCpuMillis(parts_.board, parts_.features);
  }
  PULGA_RETURN_IF_ERROR(Validate(spec));
  PULGA_RETURN_IF_ERROR(CheckTimeZones(spec.annotations));
  PULGA_RETURN_IF_ERROR(CheckAgainstBoard(spec, parts_.board));
  PULGA_RETURN_IF_ERROR(CheckEnforceable(spec, parts_.features));
  return spec;
}

Result<FunctionService::DeploymentPtr> FunctionService::PlanPut(const FunctionKey& key,
                                                                const FunctionSpec& wanted) const {
  const FunctionEntry* entry = parts_.registry.Find(key);
  PULGA_ASSIGN_OR_RETURN(FunctionSpec spec, CheckSpec(key, wanted));
  auto deployment = std::make_shared<Deployment>();
  PULGA_ASSIGN_OR_RETURN(const ImageRecord image, parts_.catalog.Find(spec.image));
  if (!image.trouble.empty()) {
    return Error{Code::kUnavailable, 0, "image " + spec.image + ": " + image.trouble};
  }
  PULGA_ASSIGN_OR_RETURN(deployment->version, ResolveVersion(spec, image));
  if (HasScaleLabels(spec)) {
    PULGA_ASSIGN_OR_RETURN(auto labelled, ApplyScaleLabels(spec, deployment->version.mode));
    spec = std::move(labelled.spec);
    deployment->warnings = std::move(labelled.warnings);
    PULGA_RETURN_IF_ERROR(Validate(spec));
    PULGA_ASSIGN_OR_RETURN(deployment->version, ResolveVersion(spec, image));
  }
  if (spec.openfaas) {
    spec.limits.timeout = WatchdogTimeout(deployment->version.env, spec.limits.timeout);
    deployment->version.spec.limits.timeout = spec.limits.timeout;
  }
  PULGA_ASSIGN_OR_RETURN(deployment->version.volumes,
                         parts_.volumes.Resolve(key, spec.access.volumes));
  deployment->version.key = key;
  if (entry != nullptr) deployment->old = entry->active;
  for (const auto& [name, value] : spec.env) {
    if (deployment->version.mode != SandboxMode::kExec || !IsRequestVariable(name + "=")) continue;
    deployment->warnings.push_back("env: " + Printable(name, 80) +
                                   " is left out: in exec mode each request sets such names");
  }
  const uint64_t resident = spec.scale.min * spec.sandbox.memory_bytes;
  if (parts_.board.budget_bytes != 0 && resident > parts_.board.budget_bytes) {
    deployment->warnings.push_back("scale.min instances together may use " + HumanBytes(resident) +
                                   ", more than the memory budget of " +
                                   HumanBytes(parts_.board.budget_bytes));
  }
  for (std::string& warning : TaskWarnings(spec.annotations)) {
    deployment->warnings.push_back(std::move(warning));
  }
  return deployment;
}

Result<FunctionService::DeploymentPtr> FunctionService::PlanRollback(
    const FunctionKey& key, std::optional<uint32_t> number) const {
  PULGA_ASSIGN_OR_RETURN(const VersionPtr target, parts_.registry.RollbackTarget(key, number));
  PULGA_ASSIGN_OR_RETURN(const VersionPtr resolved, ResolveStored(*target));
  auto deployment = std::make_shared<Deployment>();
  deployment->version = *resolved;
  deployment->number = target->number;
  deployment->old = parts_.registry.Find(key)->active;
  return deployment;
}

bool FunctionService::IsUnchanged(const Deployment& deployment) const {
  const FunctionEntry* entry = parts_.registry.Find(deployment.version.key);
  return entry != nullptr && entry->trouble.empty() && deployment.number == 0 &&
         entry->active->image_digest == deployment.version.image_digest &&
         SpecToJson(entry->active->spec) == SpecToJson(deployment.version.spec);
}

void FunctionService::Put(const FunctionKey& key, FunctionSpec spec, PutDone done) {
  const Status name = ValidateFunctionName(key.name);
  if (!name.ok()) return done(name.error());
  Enqueue(key, [this, key, spec = std::move(spec), done = std::move(done)](OpQueue::Done next) {
    const auto checked = CheckSpec(key, spec);
    if (!checked.ok()) {
      done(checked.error());
      return next();
    }
    const auto secrets = parts_.secrets.HoldFor(key, spec.secrets);
    if (!secrets.ok()) {
      done(secrets.error());
      return next();
    }
    Provide(key, spec,
            [this, key, spec, done, next,
             secrets = *secrets](const Result<VolumeService::Hold>& there) {
              // What was provided stays for as long as the deploy takes.
              if (there.ok())
                return PutNow(key, spec, done, [hold = *there, secrets, next] { next(); });
              done(there.error());
              next();
            });
  });
}

void FunctionService::Provide(const FunctionKey& key, const FunctionSpec& spec,
                              std::function<void(Result<VolumeService::Hold>)> done) {
  EnsureImage(spec, [this, key, volumes = spec.access.volumes,
                     done = std::move(done)](const Status& there) {
    if (!there.ok()) return done(there.error());
    parts_.volumes.Ensure(key, volumes, done);
  });
}

void FunctionService::EnsureImage(const FunctionSpec& spec, std::function<void(Status)> done) {
  const auto here = parts_.catalog.Find(spec.image);
  const bool absent = !here.ok() && here.error().code == Code::kNotFound;
  // An image's id names no registry.
  const bool has_registry = ParseImageRef(spec.image).ok() && !spec.image.starts_with("sha256:");
  if (absent && spec.pull == PullPolicy::kNever) {
    return done(Prefix("with the pull policy \"never\"", here.error()));
  }
  const bool wanted =
      spec.pull == PullPolicy::kAlways || (spec.pull == PullPolicy::kIfNotPresent && absent);
  if (!wanted || !has_registry || !parts_.pull) return done(OkStatus());
  const std::string why =
      absent ? "image " + Printable(spec.image, 120) + " is not here, and pulling it failed"
             : "the pull policy is \"always\", and that failed";
  parts_.pull(spec.image, [why, done = std::move(done)](const ImportReport& report) {
    if (report.status.ok()) return done(OkStatus());
    Error error = Prefix(why, report.status.error());
    error.code = CodeOfPull(report.reason, error.code);
    done(error);
  });
}

void FunctionService::PutNow(const FunctionKey& key, const FunctionSpec& spec, PutDone done,
                             OpQueue::Done next) {
  auto planned = PlanPut(key, spec);
  if (!planned.ok()) {
    done(planned.error());
    return next();
  }
  const DeploymentPtr& deployment = *planned;
  deployment->done = std::move(done);
  deployment->next = std::move(next);
  if (!IsUnchanged(*deployment)) return Deploy(deployment);
  PutReport report;
  report.effect = PutReport::Effect::kReplaced;
  report.warnings = deployment->warnings;
  report.warnings.push_back("nothing changed: version " + std::to_string(deployment->old->number) +
                            " stays active");
  auto status = Describe(key);
  if (status.ok()) report.status = std::move(status).value();
  deployment->done(std::move(report));
  deployment->next();
}

void FunctionService::Rollback(const FunctionKey& key, std::optional<uint32_t> number,
                               PutDone done) {
  Enqueue(key, [this, key, number, done = std::move(done)](OpQueue::Done next) {
    const auto refuse = [done, next](const Error& why) {
      done(why);
      next();
    };
    const auto target = parts_.registry.RollbackTarget(key, number);
    if (!target.ok()) return refuse(target.error());
    const auto secrets = parts_.secrets.HoldFor(key, (*target)->spec.secrets);
    if (!secrets.ok()) return refuse(secrets.error());
    parts_.volumes.Ensure(key, (*target)->spec.access.volumes,
                          [this, key, number, done, next, refuse,
                           secrets = *secrets](const Result<VolumeService::Hold>& there) {
                            if (!there.ok()) return refuse(there.error());
                            auto planned = PlanRollback(key, number);
                            if (!planned.ok()) return refuse(planned.error());
                            (*planned)->done = done;
                            (*planned)->next = [hold = *there, secrets, next] { next(); };
                            Deploy(*planned);
                          });
  });
}

void FunctionService::Deploy(DeploymentPtr deployment) {
  const Version& version = deployment->version;
  parts_.registry.Reserve(version.image_digest);
  StoredVersion row;
  row.number = deployment->number;
  row.spec_json = SpecToJson(version.spec);
  row.image_digest = version.image_digest;
  row.created_unix_ms =
      deployment->number != 0 ? version.created_unix_ms : UnixMillis(parts_.clock);
  parts_.storage.Run(
      [&store = parts_.store, key = version.key, row] { return store.AddPending(key, row); },
      [this, deployment](Result<StoredVersion> stored) {
        OnPending(deployment, std::move(stored));
      });
}

void FunctionService::OnPending(const DeploymentPtr& deployment, Result<StoredVersion> stored) {
  if (!stored.ok()) return Finish(deployment, Prefix("store the function", stored.error()));
  deployment->version.id = stored->id;
  deployment->version.number = stored->number;
  deployment->version.created_unix_ms = stored->created_unix_ms;
  deployment->ready = std::make_shared<const Version>(deployment->version);
  parts_.dispatcher.Activate(deployment->ready, [this, deployment](Status activated) {
    OnActivated(deployment, activated);
  });
}

void FunctionService::OnActivated(const DeploymentPtr& deployment, const Status& activated) {
  const uint64_t id = deployment->version.id;
  if (activated.ok()) {
    parts_.storage.Run([&store = parts_.store, id,
                        keep = limits_.keep_versions] { return store.Activate(id, keep); },
                       [this, deployment](Result<std::vector<uint64_t>> forgotten) {
                         OnCommitted(deployment, std::move(forgotten));
                       });
    return;
  }
  parts_.storage.Run([&store = parts_.store, id] { return store.DropPending(id); },
                     [this, deployment, why = activated.error()](Status dropped) {
                       // The next start drops it as well.
                       if (!dropped.ok()) LogWarning(dropped.error().message);
                       const FunctionKey& key = deployment->version.key;
                       if (parts_.registry.Find(key) == nullptr) parts_.logs.Forget(key);
                       Finish(deployment, why);
                     });
}

void FunctionService::OnCommitted(const DeploymentPtr& deployment,
                                  Result<std::vector<uint64_t>> forgotten) {
  if (!forgotten.ok()) return GoBack(deployment, Prefix("store the function", forgotten.error()));
  TouchImagesOf(deployment->version.key);  // also of what is forgotten now
  parts_.registry.Activate(deployment->ready, *forgotten);
  parts_.catalog.Touch(deployment->ready->image_digest, UnixMillis(parts_.clock));
  LogInfo("deployed " + Title(*deployment->ready));
  PutReport report;
  report.effect =
      deployment->old == nullptr ? PutReport::Effect::kCreated : PutReport::Effect::kReplaced;
  report.warnings = deployment->warnings;
  auto status = Describe(deployment->version.key);
  if (status.ok()) report.status = std::move(status).value();
  Finish(deployment, std::move(report));
}

// The traffic moved but the row did not: the row is the truth.
void FunctionService::GoBack(const DeploymentPtr& deployment, const Error& why) {
  LogError("deploy of " + Title(deployment->version) + " is undone: " + why.message);
  const FunctionKey& key = deployment->version.key;
  const FunctionEntry* entry = parts_.registry.Find(key);
  if (entry == nullptr) {
    return parts_.dispatcher.Deactivate(key, [this, deployment, why] { Finish(deployment, why); });
  }
  if (!entry->trouble.empty()) {
    parts_.dispatcher.Deactivate(key, [] {});
    return Finish(deployment, why);
  }
  parts_.dispatcher.Restore(entry->active, [this, deployment, why] { Finish(deployment, why); });
}

void FunctionService::Finish(const DeploymentPtr& deployment, Result<PutReport> report) {
  parts_.registry.Release(deployment->version.image_digest);
  deployment->done(std::move(report));
  deployment->next();
}

// --- delete, describe

void FunctionService::Delete(const FunctionKey& key, std::function<void(Status)> done) {
  Enqueue(key, [this, key, done = std::move(done)](OpQueue::Done next) {
    DeleteNow(key, [done, next](Status status) {
      done(std::move(status));
      next();
    });
  });
}

void FunctionService::DeleteNow(const FunctionKey& key, std::function<void(Status)> done) {
  const FunctionEntry* entry = parts_.registry.Find(key);
  if (entry == nullptr) {
    return done(
        Error{Code::kNotFound, 0, "function " + Printable(key.name, 80) + " does not exist"});
  }
  parts_.storage.Run([&store = parts_.store, key] { return store.DeleteFunction(key); },
                     [this, key, done](Status deleted) {
                       const FunctionEntry* gone = parts_.registry.Find(key);
                       if (!deleted.ok() || gone == nullptr) return done(std::move(deleted));
                       const FunctionEntry copy = *gone;
                       TouchImagesOf(key);
                       parts_.registry.Erase(key);
                       AfterDelete(key, copy, done);
                     });
}

// As the store does it in its own transaction.
void FunctionService::TouchImagesOf(const FunctionKey& key) {
  const FunctionEntry* entry = parts_.registry.Find(key);
  if (entry == nullptr) return;
  for (const VersionPtr& version : entry->versions) {
    parts_.catalog.Touch(version->image_digest, UnixMillis(parts_.clock));
  }
}

void FunctionService::AfterDelete(const FunctionKey& key, const FunctionEntry& entry,
                                  std::function<void(Status)> done) {
  LogInfo("deleted function " + key.name);
  auto answer = std::make_shared<std::function<void(Status)>>(std::move(done));
  const auto answer_once = [answer] {
    if (!*answer) return;
    const auto tell = std::exchange(*answer, nullptr);
    tell(OkStatus());
  };
  // Its instances still run on the image until the last of them is gone.
  const std::string digest = entry.active->image_digest;
  parts_.registry.Reserve(digest);
  const EventLoop::TimerId timer = parts_.loop.CallAfter(kDeletePatience, answer_once);
  parts_.dispatcher.Deactivate(key, [this, key, digest, timer, answer_once] {
    parts_.loop.Cancel(timer);
    parts_.registry.Release(digest);
    if (parts_.registry.Find(key) == nullptr) parts_.logs.Forget(key);
    answer_once();
  });
}

Result<FunctionStatus> FunctionService::Describe(const FunctionKey& key) const {
  const FunctionEntry* entry = parts_.registry.Find(key);
  if (entry == nullptr) {
    return Error{Code::kNotFound, 0, "function " + Printable(key.name, 80) + " does not exist"};
  }
  FunctionStatus status = StatusOf(key, *entry, parts_.dispatcher.Activity(key));
  if (status.active) status.next_run_unix_ms = NextRun(*status.active, UnixMillis(parts_.clock));
  return status;
}

std::vector<FunctionStatus> FunctionService::List() const {
  std::vector<FunctionStatus> all;
  all.reserve(parts_.registry.functions().size());
  for (const auto& [key, entry] : parts_.registry.functions()) {
    all.push_back(StatusOf(key, entry, parts_.dispatcher.Glance(key)));
  }
  return all;
}

}  // namespace pulga
