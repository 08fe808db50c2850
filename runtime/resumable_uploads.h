// ResumableUploads: image archives that arrive in parts, over connections that may be cut, and are
// imported when their last byte is there. Loop thread; the disk is used on a thread of their own,
// so that no commit waits for their syncs. What a part brought is kept when it is cut off. One part
// at a time; one that has been silent gives way to the next. Unfinished uploads outlive the daemon
// and expire; so do the outcomes of finished ones. An import that failed for a reason of ours
// (no launcher, no space) keeps the bytes: the next part, which may be empty, tries again.
#pragma once

#include <deque>
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
#include "images/importer.h"
#include "runtime/upload_store.h"

namespace pulga {

struct ResumableLimits {
  uint64_t upload_bytes = 8ULL << 30;  // of one
  uint64_t reserve_bytes = 32ULL << 20;
  uint32_t at_most = 16;  // unfinished ones
  Duration expiry = std::chrono::hours(24);
};

// kGone: it expired or was removed, not long ago.
enum class UploadState { kReceiving, kImporting, kDone, kFailed, kGone };

struct UploadView {
  StoredUpload upload;
  UploadState state = UploadState::kReceiving;
  int64_t expires_ms = 0;                      // of the epoch
  bool busy = false;                           // with a part
  std::shared_ptr<const ImportReport> report;  // of the last import; may be none
};

struct NewUploadOrder {
  uint64_t length = 0;
  std::string metadata;
  std::string filename;
  std::string ref;
  AnyPlatform any_platform = AnyPlatform::kRefuse;
};

class ResumableUploads {
 public:
  struct Hooks {
    // May an import begin now? Asked again later if not.
    std::function<Status()> room;
    // What is returned gives the import up.
    std::function<std::function<void()>(UniqueFd archive, const ImportOptions&,
                                        std::function<void(ImportReport)>)>
        import;
    std::function<Result<ImageRecord>(const std::string& digest)> find;
  };
  using Done = std::function<void(Result<UploadView>)>;

  ResumableUploads(EventLoop& loop, const Clock& clock, std::string dir, Hooks hooks);
  ~ResumableUploads();
  ResumableUploads(const ResumableUploads&) = delete;
  ResumableUploads& operator=(const ResumableUploads&) = delete;

  // Finds what is there. Blocks: start-up.
  Status Open();
  void SetLimits(const ResumableLimits& limits) { limits_ = limits; }
  const ResumableLimits& limits() const { return limits_; }
  // Begins the imports that are due: after a start, or once there is a launcher again.
  void ImportComplete();
  // Cuts all parts off and refuses others.
  void Stop();

  // kTooLarge, kNoSpace, kUnavailable (too many). `done` never from inside the call.
  void Create(NewUploadOrder order, Done done);
  // Once what was received is written, or at once while a part is under way.
  void Look(const std::string& id, Done done);
  std::vector<UploadView> List() const;  // oldest first
  void Remove(const std::string& id, std::function<void(Status)> done);

  // Bytes on their way in. Destroying it before Finish keeps what it took.
  class Part {
   public:
    virtual ~Part() = default;
    // Takes what there is room for; on_room is called after it took less than all.
    virtual size_t Write(std::string_view bytes) = 0;
    // All of them, whatever the room: what was received on a connection that has ended.
    virtual void WriteRest(std::string_view bytes) = 0;
    virtual void Finish() = 0;
  };
  struct PartRequest {
    std::string id;
    uint64_t offset = 0;
    std::optional<uint64_t> size;  // as announced
    std::function<void()> on_room;
    std::function<bool()> has_left;  // its client, as far as can be told; may be empty
    // Once: what it brought is on the disk, and after the last byte the import is over; or it
    // failed, maybe while bytes still come.
    Done on_done;
  };
  // kNotFound, kAlreadyExists (another offset), kPermission (another part is under way), kTooLarge
  // (more than was announced), kUnavailable (stopping).
  Result<std::unique_ptr<Part>> Resume(PartRequest request);

 private:
  struct Flow;
  class PartImpl;
  struct Entry {
    StoredUpload stored;
    UploadState state = UploadState::kReceiving;
    TimePoint expires;
    std::shared_ptr<const ImportReport> report;
    std::shared_ptr<Flow> flow;
    std::function<void()> give_up;  // the import; may be empty
    std::vector<Done> on_idle;      // once there is no flow
    std::vector<Done> on_imported;  // those who brought the last byte
  };

  Result<UploadView> Find(const std::string& id) const;
  UploadView ViewOf(const Entry& entry) const;
  Entry* EntryOf(const std::string& id);
  void Touch(Entry& entry);
  void CutIfSilent(Entry& entry);
  void Cut(Flow& flow, const Error& why);
  void Pump(const std::shared_ptr<Flow>& flow);
  void OnWritten(const std::shared_ptr<Flow>& flow, size_t written, Status status);
  void Close(const std::shared_ptr<Flow>& flow);
  void StartImport(const std::string& id);
  void OnImported(const std::string& id, ImportReport report);
  void TellImported(const std::string& id);
  void Admit(StoredUpload upload, Done done);
  void Expire();
  void ArmExpiry();
  void DropOldOutcomes();
  void Forget(const std::string& id);
  std::shared_ptr<const ImportReport> ReportOf(const UploadOutcome& outcome) const;
  int64_t WallMillis() const;
  // The first of all; whatever follows it has a thread.
  Status StartDisk();
  WorkQueue& disk() { return *disk_; }

  EventLoop& loop_;
  const Clock& clock_;
  Hooks hooks_;
  ResumableLimits limits_;
  std::shared_ptr<UploadStore> store_;  // used on disk_, but by Open
  std::map<std::string, Entry> entries_;
  size_t being_made_ = 0;
  uint64_t bytes_being_made_ = 0;
  std::deque<std::string> gone_;
  EventLoop::TimerId expiry_timer_ = 0;
  bool stopping_ = false;
  std::shared_ptr<ResumableUploads*> self_ = std::make_shared<ResumableUploads*>(this);
  std::unique_ptr<WorkQueue> disk_;  // from the first upload on
};

}  // namespace pulga
