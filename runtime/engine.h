// Engine: everything the API and the CLI's server side may do, in one interface. Loop thread;
// long work happens on the storage and spool threads and answers through `done` on the loop.
// Implemented by runtime/daemon; faked in api/ tests. Error messages are for people; api/ maps
// codes to HTTP.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "images/fetch/registry_feed.h"
#include "images/image.h"
#include "images/importer.h"
#include "images/layer_difference.h"
#include "runtime/accounts/sign_in.h"
#include "runtime/dispatcher.h"
#include "runtime/function_log.h"
#include "runtime/function_spec.h"
#include "runtime/invocation.h"
#include "runtime/namespaces.h"
#include "runtime/resumable_uploads.h"
#include "runtime/secrets/secret.h"
#include "runtime/sense/board_sense.h"
#include "runtime/tasks/tasks.h"
#include "runtime/volume.h"
#include "sandbox/grants.h"
#include "sandbox/kernel_features.h"

namespace pulga {

struct FunctionStatus {
  FunctionKey key;
  VersionPtr active;                 // the version new calls get
  std::vector<VersionPtr> versions;  // newest first, the active one included
  FunctionActivity activity;
  std::optional<int64_t> next_run_unix_ms;  // by its schedule; one function asked for alone only
  TaskCounts tasks;                         // its asynchronous calls
};

struct PutReport {
  enum class Effect { kCreated, kReplaced } effect = Effect::kCreated;
  FunctionStatus status;
  std::vector<std::string> warnings;
};

struct SystemReport {
  std::string version;
  std::string state;  // "ok", "degraded: the launcher is restarting", ...
  int64_t uptime_ms = 0;
  uint64_t memory_budget_bytes = 0;
  uint64_t memory_used_bytes = 0;
  uint32_t functions = 0, instances = 0, images = 0;
  uint64_t launcher_restarts = 0;
  std::vector<Feature> features;
  std::vector<GrantLine> grants;  // in force
  BoardReport board;
  TaskTotals tasks;
};

struct UploadRequest {
  std::optional<uint64_t> content_length;
  std::optional<std::string> ref;  // the name to give; nothing keeps the archive's own names
  AnyPlatform any_platform = AnyPlatform::kRefuse;
  AbsentLayers absent = AbsentLayers::kRefuse;
  std::function<void()> on_room;
  // Once, never from inside NewUpload: the import is over. A bad archive may be known as one while
  // its bytes still come; what comes after that is thrown away.
  std::function<void(ImportReport)> on_done;
};

enum class TreeView { kTree, kSums };

// What `image verify` found.
struct LayerVerdict {
  std::string diff_id;
  std::vector<LayerDifference> differences;  // none: as it was unpacked
};
struct VerifyReport {
  ImageRecord image;
  std::vector<LayerVerdict> layers;
  bool intact() const {
    return std::all_of(layers.begin(), layers.end(),
                       [](const LayerVerdict& layer) { return layer.differences.empty(); });
  }
};

enum class PruneScope { kUntagged, kUnused };
struct PruneReport {
  std::vector<ImageRecord> images;  // gone
  size_t layers = 0;
  uint64_t freed_bytes = 0;
};

struct PullRequest {
  std::string ref;                     // as the user wrote it
  std::optional<RegistryLogin> login;  // instead of the administrator's
};

// Of HTTP's basic authentication.
struct BasicLogin {
  std::string user;
  std::string password;
};

class Engine {
 public:
  virtual ~Engine() = default;

  // --- images. An upload is imported while it arrives.
  class Upload {
   public:
    // Without Finish: everything is dropped. After Finish: the import goes on, nobody hears of it.
    virtual ~Upload() = default;
    // Takes what there is room for at once; on_room is called after it took less than all.
    virtual size_t Write(std::string_view bytes) = 0;
    // These were all.
    virtual void Finish() = 0;
  };
  virtual Result<std::unique_ptr<Upload>> NewUpload(UploadRequest request) = 0;
  // Archives that arrive in parts (the tus protocol).
  virtual ResumableUploads& uploads() = 0;
  // From the registry that `request.ref` names. Neither callback comes from inside this call.
  // Destroying the Pull cancels it unless it is done.
  class Pull {
   public:
    virtual ~Pull() = default;
  };
  virtual std::unique_ptr<Pull> PullImage(PullRequest request,
                                          std::function<void(const PullProgress&)> progress,
                                          std::function<void(ImportReport)> done) = 0;
  virtual std::vector<ImageRecord> Images() const = 0;
  virtual Result<ImageRecord> Image(const std::string& ref) const = 0;
  // The lines of `image inspect --tree|--sums` as an unnamed file, positioned at 0.
  virtual void ImageView(const std::string& ref, TreeView view,
                         std::function<void(Result<UniqueFd>)> done) = 0;
  // The image as an archive (images/archive_export.h). Loop thread; destroying it ends it.
  class Download {
   public:
    virtual ~Download() = default;
    virtual uint64_t size() const = 0;
    // Called when Read has more to give, or an end, after it said kWait.
    virtual void OnReady(std::function<void()> ready) = 0;
    virtual ReadResult Read(char* buffer, size_t capacity) = 0;  // as HttpHandler::Read
  };
  virtual Result<std::unique_ptr<Download>> ExportImage(const std::string& ref) = 0;
  virtual void VerifyImage(const std::string& ref,
                           std::function<void(Result<VerifyReport>)> done) = 0;
  // Images no function uses: those without a name, or all.
  virtual void PruneImages(PruneScope scope, std::function<void(Result<PruneReport>)> done) = 0;
  // kAlreadyExists ("in use by ...") while a function's active or kept version needs it.
  virtual void RemoveImage(const std::string& ref, std::function<void(Status)> done) = 0;

  // --- functions
  virtual void PutFunction(const FunctionKey& key, FunctionSpec spec,
                           std::function<void(Result<PutReport>)> done) = 0;
  virtual Result<FunctionStatus> Function(const FunctionKey& key) const = 0;
  virtual std::vector<FunctionStatus> Functions() const = 0;
  virtual void DeleteFunction(const FunctionKey& key, std::function<void(Status)> done) = 0;
  // Nothing = the version before the active one.
  virtual void Rollback(const FunctionKey& key, std::optional<uint32_t> version,
                        std::function<void(Result<PutReport>)> done) = 0;
  // --- volumes and data sets
  virtual void PutVolume(const FunctionKey& key, const VolumeWish& wish,
                         std::function<void(Result<VolumePut>)> done) = 0;
  virtual void ResizeVolume(const FunctionKey& key, uint64_t bytes,
                            std::function<void(Result<VolumeView>)> done) = 0;
  virtual void RemoveVolume(const FunctionKey& key, std::function<void(Status)> done) = 0;
  virtual void Volumes(std::function<void(Result<VolumeList>)> done) = 0;
  virtual void Volume(const FunctionKey& key, std::function<void(Result<VolumeView>)> done) = 0;

  // --- secrets: their values come in and never out
  virtual void PutSecret(const FunctionKey& secret, std::string value, SecretWrite write,
                         std::function<void(Result<SecretPut>)> done) = 0;
  virtual void RemoveSecret(const FunctionKey& secret, SecretRemoval removal,
                            std::function<void(Status)> done) = 0;
  virtual std::vector<SecretView> Secrets() const = 0;
  // Their names alone, in the same order, without looking for who uses them.
  virtual std::vector<FunctionKey> SecretKeys() const = 0;

  // When functions were called lately, as policy/trace.h has it, in an unnamed file at 0.
  virtual void History(std::function<void(Result<UniqueFd>)> done) = 0;

  virtual Status Scale(const FunctionKey& key, uint32_t instances) = 0;
  virtual Namespaces& namespaces() = 0;
  virtual AccountService& accounts() = 0;
  virtual SignIn& sign_in() = 0;
  virtual FunctionLogs& logs() = 0;

  // --- calls
  virtual std::unique_ptr<Invocation> Invoke(InvocationRequest request,
                                             InvocationObserver& observer) = 0;
  // Those that nobody waits for.
  virtual Tasks& tasks() = 0;

  // What takes long and needs nothing of the engine: `work` on the storage thread, then `done` on
  // the loop.
  virtual void Apart(std::function<void()> work, std::function<void()> done) = 0;

  virtual SystemReport System() const = 0;
  virtual const std::string& admin_key() const = 0;
  virtual const BasicLogin& gateway_login() const = 0;  // the administrator's, as OpenFaaS has it
};

}  // namespace pulga
