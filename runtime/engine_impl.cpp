#include "runtime/engine_impl.h"

#include <cerrno>
#include <utility>

#include "base/text.h"
#include "runtime/refused_invocation.h"

namespace pulga {
namespace {

Error Stopping() {
  return Error{Code::kUnavailable, 0, "the daemon is stopping: try again once it is back"};
}

}  // namespace

EngineImpl::EngineImpl(EngineParts parts)
    : parts_(std::move(parts)), started_(parts_.clock.Now()) {}

Result<std::unique_ptr<Engine::Upload>> EngineImpl::NewUpload(UploadRequest request) {
  if (stopping_) return Stopping();
  return parts_.images.NewUpload(std::move(request));
}

std::unique_ptr<Engine::Pull> EngineImpl::PullImage(
    PullRequest request, std::function<void(const PullProgress&)> progress,
    std::function<void(ImportReport)> done) {
  return parts_.pulls.Start(std::move(request), std::move(progress), std::move(done));
}

Result<ImageRecord> EngineImpl::Image(const std::string& ref) const {
  return parts_.catalog.Find(ref);
}

void EngineImpl::ImageView(const std::string& ref, TreeView view,
                           std::function<void(Result<UniqueFd>)> done) {
  parts_.images.View(ref, view, std::move(done));
}

Result<std::unique_ptr<Engine::Download>> EngineImpl::ExportImage(const std::string& ref) {
  if (stopping_) return Stopping();
  return parts_.images.Export(ref);
}

void EngineImpl::VerifyImage(const std::string& ref,
                             std::function<void(Result<VerifyReport>)> done) {
  if (stopping_) return done(Stopping());
  parts_.images.Verify(ref, std::move(done));
}

void EngineImpl::PruneImages(PruneScope scope, std::function<void(Result<PruneReport>)> done) {
  if (stopping_) return done(Stopping());
  parts_.images.Prune(scope, std::move(done));
}

void EngineImpl::RemoveImage(const std::string& ref, std::function<void(Status)> done) {
  if (stopping_) return done(Stopping());
  parts_.images.Remove(ref, std::move(done));
}

void EngineImpl::PutFunction(const FunctionKey& key, FunctionSpec spec,
                             std::function<void(Result<PutReport>)> done) {
  if (stopping_) return done(Stopping());
  parts_.functions.Put(key, std::move(spec), AddTasks(std::move(done)));
}

Result<FunctionStatus> EngineImpl::Function(const FunctionKey& key) const {
  PULGA_ASSIGN_OR_RETURN(FunctionStatus status, parts_.functions.Describe(key));
  return WithTasks(std::move(status));
}

std::vector<FunctionStatus> EngineImpl::Functions() const {
  std::vector<FunctionStatus> list = parts_.functions.List();
  for (FunctionStatus& status : list) status = WithTasks(std::move(status));
  return list;
}

FunctionStatus EngineImpl::WithTasks(FunctionStatus status) const {
  status.tasks = parts_.tasks.CountsOf(status.key);
  return status;
}

std::function<void(Result<PutReport>)> EngineImpl::AddTasks(
    std::function<void(Result<PutReport>)> done) const {
  return [this, done = std::move(done)](Result<PutReport> report) {
    if (report.ok()) report->status = WithTasks(std::move(report->status));
    done(std::move(report));
  };
}

void EngineImpl::DeleteFunction(const FunctionKey& key, std::function<void(Status)> done) {
  if (stopping_) return done(Stopping());
  parts_.functions.Delete(key, std::move(done));
}

void EngineImpl::Rollback(const FunctionKey& key, std::optional<uint32_t> version,
                          std::function<void(Result<PutReport>)> done) {
  if (stopping_) return done(Stopping());
  parts_.functions.Rollback(key, version, AddTasks(std::move(done)));
}

void EngineImpl::PutVolume(const FunctionKey& key, const VolumeWish& wish,
                           std::function<void(Result<VolumePut>)> done) {
  if (stopping_) return done(Stopping());
  parts_.volumes.Put(key, wish, std::move(done));
}

void EngineImpl::ResizeVolume(const FunctionKey& key, uint64_t bytes,
                              std::function<void(Result<VolumeView>)> done) {
  if (stopping_) return done(Stopping());
  parts_.volumes.Resize(key, bytes, std::move(done));
}

void EngineImpl::RemoveVolume(const FunctionKey& key, std::function<void(Status)> done) {
  if (stopping_) return done(Stopping());
  parts_.volumes.Remove(key, std::move(done));
}

void EngineImpl::Volumes(std::function<void(Result<VolumeList>)> done) {
  parts_.volumes.List(std::move(done));
}

void EngineImpl::Volume(const FunctionKey& key, std::function<void(Result<VolumeView>)> done) {
  parts_.volumes.Show(key, std::move(done));
}

void EngineImpl::Apart(std::function<void()> work, std::function<void()> done) {
  parts_.storage.Run(
      [work = std::move(work)] {
        work();
        return OkStatus();
      },
      [done = std::move(done)](const Status&) { done(); });
}

std::vector<FunctionKey> EngineImpl::SecretKeys() const {
  std::vector<FunctionKey> keys;
  keys.reserve(parts_.secrets.secrets().size());
  for (const auto& [key, secret] : parts_.secrets.secrets()) keys.push_back(key);
  return keys;
}

void EngineImpl::PutSecret(const FunctionKey& secret, std::string value, SecretWrite write,
                           std::function<void(Result<SecretPut>)> done) {
  if (stopping_) return done(Stopping());
  parts_.secrets.Put(secret, std::move(value), write, std::move(done));
}

void EngineImpl::RemoveSecret(const FunctionKey& secret, SecretRemoval removal,
                              std::function<void(Status)> done) {
  if (stopping_) return done(Stopping());
  parts_.secrets.Remove(secret, removal, std::move(done));
}

void EngineImpl::History(std::function<void(Result<UniqueFd>)> done) {
  FactsByKey facts;
  for (const auto& [key, entry] : parts_.registry.functions()) {
    facts[key] = FactsOf(entry.active->spec, entry.active->mode);
  }
  parts_.habits.History(std::move(facts), std::move(done));
}

Status EngineImpl::Scale(const FunctionKey& key, uint32_t instances) {
  const FunctionEntry* entry = parts_.registry.Find(key);
  if (entry == nullptr) {
    return Error{Code::kNotFound, 0, "function " + Printable(key.name, 80) + " does not exist"};
  }
  if (!entry->trouble.empty()) {
    return Error{Code::kUnavailable, 0, "function " + key.name + ": " + entry->trouble};
  }
  const uint32_t max = entry->active->spec.scale.max;
  if (instances > max) {
    return Error{Code::kInvalidArgument, 0,
                 std::to_string(instances) + " is more than scale.max of " + key.name + ", " +
                     std::to_string(max)};
  }
  return parts_.dispatcher.Scale(key, instances);
}

std::unique_ptr<Invocation> EngineImpl::Invoke(InvocationRequest request,
                                               InvocationObserver& observer) {
  const FunctionEntry* entry = parts_.registry.Find(request.function);
  if (entry != nullptr && !entry->trouble.empty()) {
    // The step tells this from a sandbox that could not be set up.
    return std::make_unique<RefusedInvocation>(
        parts_.loop, observer, Outcome{OutcomeKind::kSetupFailed, ENOENT, "function"},
        "function " + request.function.name + " can not run: " + entry->trouble);
  }
  return parts_.dispatcher.Invoke(std::move(request), observer);
}

SystemReport EngineImpl::System() const {
  SystemReport report;
  report.version = PULGA_VERSION;
  report.state = stopping_ ? "stopping" : health_.state;
  report.uptime_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(parts_.clock.Now() - started_).count();
  report.memory_budget_bytes = parts_.memory_budget_bytes;
  report.functions = static_cast<uint32_t>(parts_.registry.functions().size());
  report.images = static_cast<uint32_t>(parts_.catalog.size());
  report.launcher_restarts = health_.launcher_restarts;
  report.features = parts_.features;
  report.grants = grants_;
  report.board = parts_.sense.Report();
  const DispatcherTotals totals = parts_.dispatcher.Totals();
  report.instances = totals.instances;
  report.memory_used_bytes = totals.memory_used_bytes;
  report.tasks = parts_.tasks.Totals();
  return report;
}

}  // namespace pulga
