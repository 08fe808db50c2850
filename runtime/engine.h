// Engine: everything the API and the CLI's server side may do, in one interface. Loop thread;
// long work happens on the storage and spool threads and answers through `done` on the loop.
// Implemented by runtime/daemon; faked in api/ tests. Error messages are for people; api/ maps
// codes to HTTP.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "images/image.h"
#include "images/importer.h"
#include "runtime/dispatcher.h"
#include "runtime/function_log.h"
#include "runtime/function_spec.h"
#include "runtime/invocation.h"
#include "sandbox/kernel_features.h"

namespace pulga {

struct FunctionStatus {
  FunctionKey key;
  VersionPtr active;                 // the version new calls get
  std::vector<VersionPtr> versions;  // newest first, the active one included
  FunctionActivity activity;
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
};

enum class TreeView { kTree, kSums };

class Engine {
 public:
  virtual ~Engine() = default;

  // --- images. An upload is written to the spool by the engine's storage thread in order.
  class Upload {
   public:
    // Without Finish: everything is dropped. After Finish: the import goes on, `done` is forgotten.
    virtual ~Upload() = default;
    // `done` once these bytes are stored; at most one call outstanding. kTooLarge and kNoSpace end
    // it.
    virtual void Write(std::string bytes, std::function<void(Status)> done) = 0;
    using Done = std::function<void(ImportReport)>;
    virtual void Finish(std::optional<std::string> ref, AnyPlatform any_platform, Done done) = 0;
  };
  virtual Result<std::unique_ptr<Upload>> NewUpload(std::optional<uint64_t> content_length) = 0;
  virtual std::vector<ImageRecord> Images() const = 0;
  virtual Result<ImageRecord> Image(const std::string& ref) const = 0;
  // The lines of `image inspect --tree|--sums` as an unnamed file, positioned at 0.
  virtual void ImageView(const std::string& ref, TreeView view,
                         std::function<void(Result<UniqueFd>)> done) = 0;
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
  virtual Status Scale(const FunctionKey& key, uint32_t instances) = 0;
  virtual FunctionLogs& logs() = 0;

  // --- calls
  virtual std::unique_ptr<Invocation> Invoke(InvocationRequest request,
                                             InvocationObserver& observer) = 0;

  virtual SystemReport System() const = 0;
  virtual const std::string& admin_key() const = 0;
};

}  // namespace pulga
