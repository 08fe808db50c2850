#include "runtime/resumable_uploads.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/ids.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

constexpr size_t kMaxWaiting = 128 * 1024;    // for the disk, of one part; as much is written
constexpr uint64_t kSyncBytes = 32ULL << 20;  // most that a power cut costs
constexpr Duration kSilence = std::chrono::seconds(3);
constexpr Duration kRoomPause = std::chrono::milliseconds(500);
constexpr size_t kMostGone = 256;
constexpr size_t kMostOutcomes = 64;

bool IsUnfinished(UploadState state) {
  return state == UploadState::kReceiving || state == UploadState::kImporting;
}

// The archive is not to blame: the same bytes may do another time.
bool IsOurFault(const ImportReport& report) {
  return !report.status.ok() &&
         (report.reason == ImportReason::kHelper || report.reason == ImportReason::kNoSpace ||
          report.reason == ImportReason::kInternal);
}

UploadOutcome OutcomeOf(const ImportReport& report) {
  UploadOutcome outcome;
  outcome.reason = report.reason;
  outcome.warnings = report.warnings;
  if (!report.status.ok()) outcome.failure = report.status.error();
  for (const ImageRecord& image : report.images)
    outcome.images.push_back({image.digest, image.refs});
  return outcome;
}

Error NoSuchUpload() {
  return Error{Code::kNotFound, 0, "there is no such upload: begin a new one"};
}

Error BeyondLength() {
  return Error{Code::kTooLarge, 0, "the request brings more bytes than Upload-Length announced"};
}

}  // namespace

// One part's way to the disk. It outlives its Part until all is written.
struct ResumableUploads::Flow {
  std::string id;
  std::shared_ptr<UniqueFd> file = std::make_shared<UniqueFd>();  // opened by the first write
  std::string waiting;
  uint64_t room = 0;  // bytes the upload still lacks
  uint64_t unsynced = 0;
  bool writing = false;
  bool wants_room = false;
  bool ended = false;
  bool closed = false;
  TimePoint last_byte;
  std::optional<Error> failure;
  std::function<void()> on_room;
  std::function<bool()> has_left;
  Done on_done;
};

class ResumableUploads::PartImpl final : public Part {
 public:
  PartImpl(std::weak_ptr<ResumableUploads*> owner, std::shared_ptr<Flow> flow)
      : owner_(std::move(owner)), flow_(std::move(flow)) {}
  ~PartImpl() override {
    flow_->on_room = nullptr;
    flow_->has_left = nullptr;
    flow_->on_done = nullptr;
    Finish();
  }

  size_t Write(std::string_view bytes) override {
    const size_t free = kMaxWaiting - std::min(flow_->waiting.size(), kMaxWaiting);
    const size_t taken = Take(bytes.substr(0, free));
    flow_->wants_room = taken < bytes.size();
    return flow_->ended ? bytes.size() : taken;
  }
  void WriteRest(std::string_view bytes) override { (void)Take(bytes); }
  void Finish() override {
    flow_->ended = true;
    Pump();
  }

 private:
  size_t Take(std::string_view bytes) {
    const auto owner = owner_.lock();
    if (!owner || flow_->ended) return bytes.size();
    flow_->last_byte = (*owner)->clock_.Now();
    const size_t fit = static_cast<size_t>(std::min<uint64_t>(bytes.size(), flow_->room));
    flow_->waiting += bytes.substr(0, fit);
    flow_->room -= fit;
    if (fit < bytes.size()) {
      (*owner)->Cut(*flow_, BeyondLength());
    }
    Pump();
    return bytes.size();
  }
  void Pump() {
    if (const auto owner = owner_.lock()) (*owner)->Pump(flow_);
  }

  std::weak_ptr<ResumableUploads*> owner_;
  std::shared_ptr<Flow> flow_;
};

ResumableUploads::ResumableUploads(EventLoop& loop, const Clock& clock, std::string dir,
                                   Hooks hooks)
    : loop_(loop),
      clock_(clock),
      hooks_(std::move(hooks)),
      store_(std::make_shared<UploadStore>(std::move(dir), UploadStore::ThisBoot())) {}

ResumableUploads::~ResumableUploads() {
  Stop();
  self_.reset();
  loop_.Cancel(expiry_timer_);
}

Status ResumableUploads::StartDisk() {
  if (disk_ != nullptr) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(disk_, WorkQueue::Start("pulga-uploads", loop_));
  return OkStatus();
}

int64_t ResumableUploads::WallMillis() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(clock_.WallTime().time_since_epoch())
      .count();
}

Status ResumableUploads::Open() {
  PULGA_ASSIGN_OR_RETURN(std::vector<StoredUpload> found, store_->Open());
  for (StoredUpload& upload : found) {
    Entry entry;
    // A clock that was wrong before, or is now, costs an upload at most its time.
    const Duration age =
        std::clamp<Duration>(std::chrono::milliseconds(WallMillis() - upload.touched_ms),
                             Duration::zero(), limits_.expiry);
    entry.expires = clock_.Now() + limits_.expiry - age;
    if (upload.outcome) {
      entry.state = upload.outcome->failure ? UploadState::kFailed : UploadState::kDone;
      entry.report = ReportOf(*upload.outcome);
    }
    entry.stored = std::move(upload);
    const std::string id = entry.stored.id;
    entries_[id] = std::move(entry);
  }
  if (!entries_.empty()) PULGA_RETURN_IF_ERROR(StartDisk());
  if (!entries_.empty()) LogInfo(std::to_string(entries_.size()) + " resumable uploads are there");
  ArmExpiry();
  return OkStatus();
}

std::shared_ptr<const ImportReport> ResumableUploads::ReportOf(const UploadOutcome& outcome) const {
  auto report = std::make_shared<ImportReport>();
  if (outcome.failure) report->status = *outcome.failure;
  report->reason = outcome.reason;
  report->warnings = outcome.warnings;
  for (const auto& [digest, refs] : outcome.images) {
    auto image = hooks_.find(digest);
    if (!image.ok()) continue;  // removed meanwhile
    image->refs = refs;
    report->images.push_back(std::move(*image));
  }
  return report;
}

ResumableUploads::Entry* ResumableUploads::EntryOf(const std::string& id) {
  const auto it = entries_.find(id);
  return it != entries_.end() ? &it->second : nullptr;
}

UploadView ResumableUploads::ViewOf(const Entry& entry) const {
  UploadView view{entry.stored, entry.state, 0, entry.flow != nullptr, entry.report};
  view.expires_ms =
      WallMillis() +
      std::chrono::duration_cast<std::chrono::milliseconds>(entry.expires - clock_.Now()).count();
  return view;
}

Result<UploadView> ResumableUploads::Find(const std::string& id) const {
  const auto it = entries_.find(id);
  if (it != entries_.end()) return ViewOf(it->second);
  if (std::find(gone_.begin(), gone_.end(), id) == gone_.end()) return NoSuchUpload();
  UploadView view;
  view.upload.id = id;
  view.state = UploadState::kGone;
  return view;
}

std::vector<UploadView> ResumableUploads::List() const {
  std::vector<UploadView> list;
  for (const auto& [id, entry] : entries_) list.push_back(ViewOf(entry));
  std::stable_sort(list.begin(), list.end(), [](const UploadView& a, const UploadView& b) {
    return a.upload.created_ms < b.upload.created_ms;
  });
  return list;
}

// --- making and removing

void ResumableUploads::Create(NewUploadOrder order, Done done) {
  const auto refuse = [&](Code code, std::string why) {
    loop_.Post([done, error = Error{code, 0, std::move(why)}] { done(error); });
  };
  if (stopping_) return refuse(Code::kUnavailable, "the daemon is stopping: try again later");
  if (order.length == 0) return refuse(Code::kInvalidArgument, "an archive is not empty");
  if (order.length > limits_.upload_bytes) {
    return refuse(Code::kTooLarge, "the archive is larger than " +
                                       HumanBytes(limits_.upload_bytes) +
                                       " (setting upload-bytes)");
  }
  size_t unfinished = being_made_;
  for (const auto& [id, entry] : entries_) unfinished += IsUnfinished(entry.state) ? 1 : 0;
  if (unfinished >= limits_.at_most) {
    return refuse(Code::kUnavailable,
                  std::to_string(unfinished) +
                      " uploads are unfinished: remove one, or wait until it expires (setting "
                      "max-unfinished-uploads)");
  }
  StoredUpload upload;
  upload.id = RandomHex(16);
  upload.length = order.length;
  upload.metadata = std::move(order.metadata);
  upload.filename = std::move(order.filename);
  upload.ref = std::move(order.ref);
  upload.any_platform = order.any_platform;
  upload.created_ms = upload.touched_ms = WallMillis();
  Admit(std::move(upload), std::move(done));
}

// What others announced and have not sent yet is spoken for.
void ResumableUploads::Admit(StoredUpload upload, Done done) {
  const Status disk_started = StartDisk();
  if (!disk_started.ok()) return done(Prefix("begin an upload", disk_started.error()));
  UploadStore::Demand demand{upload.length + bytes_being_made_, limits_.reserve_bytes};
  for (const auto& [id, entry] : entries_) {
    if (IsUnfinished(entry.state)) demand.bytes += entry.stored.length - entry.stored.offset;
  }
  ++being_made_;
  bytes_being_made_ += upload.length;
  auto make = [store = store_, upload, demand]() -> Status {
    PULGA_RETURN_IF_ERROR(store->CheckSpace(demand));
    return store->Create(upload);
  };
  disk().Run(std::move(make), [this, weak = std::weak_ptr(self_), upload, done](Status made) {
    if (weak.expired()) return;
    --being_made_;
    bytes_being_made_ -= upload.length;
    if (!made.ok()) return done(Prefix("begin an upload", made.error()));
    Entry& entry = entries_[upload.id];
    entry.stored = upload;
    Touch(entry);
    done(ViewOf(entry));
  });
}

void ResumableUploads::Look(const std::string& id, Done done) {
  Entry* entry = EntryOf(id);
  if (entry == nullptr || !entry->flow) return done(Find(id));
  CutIfSilent(*entry);
  entry = EntryOf(id);
  if (entry == nullptr || !entry->flow || !entry->flow->ended) return done(Find(id));
  entry->on_idle.push_back(std::move(done));
}

void ResumableUploads::Remove(const std::string& id, std::function<void(Status)> done) {
  Entry* entry = EntryOf(id);
  if (entry == nullptr) return done(NoSuchUpload());
  if (entry->flow) Cut(*entry->flow, {Code::kNotFound, 0, "the upload was removed"});
  for (Done& waiting : std::exchange(entry->on_imported, {})) {
    waiting(Error{Code::kNotFound, 0, "the upload was removed"});
  }
  if (entry->give_up) entry->give_up();
  Forget(id);
  disk().Run([store = store_, id] { return store->Remove(id), true; },
             [done = std::move(done)](bool) { done(OkStatus()); });
}

void ResumableUploads::Forget(const std::string& id) {
  auto node = entries_.extract(id);
  gone_.push_back(id);
  if (gone_.size() > kMostGone) gone_.pop_front();
  if (node.empty()) return;
  for (Done& waiting : node.mapped().on_idle) waiting(Find(id));
  ArmExpiry();
}

// --- receiving

Result<std::unique_ptr<ResumableUploads::Part>> ResumableUploads::Resume(PartRequest request) {
  if (stopping_) return Error{Code::kUnavailable, 0, "the daemon is stopping: try again later"};
  Entry* entry = EntryOf(request.id);
  if (entry == nullptr) return NoSuchUpload();
  if (entry->flow) CutIfSilent(*entry);
  if (entry->flow) {
    return Error{Code::kPermission, 0, "another request is sending bytes of this upload"};
  }
  if (request.offset != entry->stored.offset) {
    return Error{Code::kAlreadyExists, 0,
                 "the upload is at " + std::to_string(entry->stored.offset) + ", not at " +
                     std::to_string(request.offset)};
  }
  if (request.size.value_or(0) > entry->stored.length - entry->stored.offset) {
    return BeyondLength();
  }
  auto flow = std::make_shared<Flow>();
  flow->id = request.id;
  flow->room = entry->stored.length - entry->stored.offset;
  flow->last_byte = clock_.Now();
  flow->on_room = std::move(request.on_room);
  flow->has_left = std::move(request.has_left);
  flow->on_done = std::move(request.on_done);
  entry->flow = flow;
  return std::unique_ptr<Part>(std::make_unique<PartImpl>(self_, std::move(flow)));
}

void ResumableUploads::Touch(Entry& entry) {
  entry.expires = clock_.Now() + limits_.expiry;
  entry.stored.touched_ms = WallMillis();
  if (expiry_timer_ == 0) ArmExpiry();
}

// A connection that is dead but not known to be must not keep its client's next one out.
void ResumableUploads::CutIfSilent(Entry& entry) {
  const std::shared_ptr<Flow> flow = entry.flow;
  if (flow->ended) return;
  const bool left = flow->has_left && flow->has_left();
  if (!left && clock_.Now() - flow->last_byte < kSilence) return;
  Cut(*flow, {Code::kUnavailable, 0, "another request goes on with this upload"});
  Pump(flow);
}

// What is waiting is still written.
void ResumableUploads::Cut(Flow& flow, const Error& why) {
  flow.ended = true;
  flow.on_room = nullptr;
  flow.has_left = nullptr;
  if (Done done = std::exchange(flow.on_done, nullptr)) {
    loop_.Post([done = std::move(done), why] { done(why); });
  }
}

void ResumableUploads::Pump(const std::shared_ptr<Flow>& flow) {
  if (flow->writing || flow->closed) return;
  const size_t size = flow->waiting.size();
  const bool sync = flow->ended || flow->unsynced + size >= kSyncBytes;
  if (size == 0 && !(sync && flow->unsynced > 0)) {
    if (flow->ended) Close(flow);
    return;
  }
  const Entry* entry = EntryOf(flow->id);
  if (entry == nullptr || entry->flow != flow) return;  // removed
  struct Outcome {
    size_t written = 0;
    Status status;
  };
  auto write = [store = store_, id = flow->id, file = flow->file, sync,
                bytes = std::exchange(flow->waiting, {}), offset = entry->stored.offset,
                reserve = limits_.reserve_bytes]() -> Outcome {
    Outcome out;
    if (!file->valid()) {
      auto opened = store->OpenData(id);
      if (!opened.ok()) return {0, opened.error()};
      *file = std::move(*opened);
    }
    out.status = store->Append(file->get(), {offset, bytes, reserve}, &out.written);
    if (!sync && out.status.ok()) return out;
    const Status synced = store->Sync(id, file->get(), offset + out.written);
    if (out.status.ok()) out.status = synced;
    return out;
  };
  flow->writing = true;
  flow->unsynced = sync ? 0 : flow->unsynced + size;
  disk().Run(std::move(write), [this, weak = std::weak_ptr(self_), flow](Outcome out) {
    if (!weak.expired()) OnWritten(flow, out.written, std::move(out.status));
  });
}

void ResumableUploads::OnWritten(const std::shared_ptr<Flow>& flow, size_t written, Status status) {
  flow->writing = false;
  Entry* entry = EntryOf(flow->id);
  if (entry == nullptr || entry->flow != flow) return;  // removed
  entry->stored.offset += written;
  Touch(*entry);
  if (!status.ok()) {
    LogWarning("upload " + flow->id + ": " + Printable(status.error().message));
    flow->waiting.clear();
    flow->unsynced = 0;
    Cut(*flow, status.error());
  }
  if (std::exchange(flow->wants_room, false) && flow->on_room) flow->on_room();
  Pump(flow);
}

void ResumableUploads::Close(const std::shared_ptr<Flow>& flow) {
  flow->closed = true;
  Entry* entry = EntryOf(flow->id);
  if (entry == nullptr || entry->flow != flow) return;
  entry->flow.reset();
  const bool complete = entry->stored.offset == entry->stored.length;
  Done done = std::exchange(flow->on_done, nullptr);
  if (complete && done && !entry->stored.outcome) {
    entry->on_imported.push_back(std::move(done));
    done = nullptr;
  }
  const auto idle = std::exchange(entry->on_idle, {});
  if (complete) StartImport(flow->id);
  for (const Done& waiting : idle) waiting(Find(flow->id));
  if (done) done(Find(flow->id));
}

void ResumableUploads::Stop() {
  stopping_ = true;
  for (auto& [id, entry] : entries_) {
    if (!entry.flow) continue;
    const std::shared_ptr<Flow> flow = entry.flow;
    Cut(*flow, {Code::kUnavailable, 0, "the daemon is stopping: go on when it is back"});
    loop_.Post([this, weak = std::weak_ptr(self_), flow] {
      if (!weak.expired()) Pump(flow);
    });
  }
}

// --- importing

void ResumableUploads::ImportComplete() {
  std::vector<std::string> due;
  for (const auto& [id, entry] : entries_) {
    if (!entry.flow && entry.stored.offset == entry.stored.length) due.push_back(id);
  }
  for (const std::string& id : due) StartImport(id);
}

void ResumableUploads::StartImport(const std::string& id) {
  Entry* entry = EntryOf(id);
  if (entry == nullptr || entry->state != UploadState::kReceiving) return;
  entry->state = UploadState::kImporting;
  entry->report.reset();
  const auto fail = [this, id](const Error& error) {
    ImportReport report;
    report.status = error;
    report.reason = ImportReason::kHelper;
    OnImported(id, std::move(report));
  };
  if (stopping_) return fail({Code::kUnavailable, 0, "the daemon is stopping"});
  if (!hooks_.room().ok()) {
    entry->state = UploadState::kReceiving;
    loop_.CallAfter(kRoomPause, [this, weak = std::weak_ptr(self_), id] {
      if (!weak.expired()) StartImport(id);
    });
    return;
  }
  disk().Run(
      [store = store_, id] { return std::make_shared<Result<UniqueFd>>(store->OpenData(id)); },
      [this, weak = std::weak_ptr(self_), id, fail](std::shared_ptr<Result<UniqueFd>> file) {
        const Entry* due = weak.expired() ? nullptr : EntryOf(id);
        if (due == nullptr) return;
        if (!file->ok()) return fail(file->error());
        ImportOptions options;
        options.ref = due->stored.ref;
        options.any_platform = due->stored.any_platform;
        auto give_up =
            hooks_.import(std::move(**file), options, [this, weak, id](ImportReport report) {
              if (!weak.expired()) OnImported(id, std::move(report));
            });
        if (Entry* begun = EntryOf(id)) begun->give_up = std::move(give_up);
      });
}

void ResumableUploads::OnImported(const std::string& id, ImportReport report) {
  Entry* entry = EntryOf(id);
  if (entry == nullptr) return;  // removed meanwhile
  Touch(*entry);
  if (IsOurFault(report)) {
    entry->state = UploadState::kReceiving;
    entry->report = std::make_shared<ImportReport>(std::move(report));
    return TellImported(id);
  }
  entry->state = report.status.ok() ? UploadState::kDone : UploadState::kFailed;
  entry->stored.outcome = OutcomeOf(report);
  entry->report = std::make_shared<ImportReport>(std::move(report));
  DropOldOutcomes();
  disk().Run([store = store_, stored = entry->stored] { return store->WriteOutcome(stored); },
             [this, weak = std::weak_ptr(self_), id](const Status& written) {
               if (!written.ok()) LogWarning("upload " + id + ": " + written.error().message);
               if (!weak.expired()) TellImported(id);
             });
}

void ResumableUploads::TellImported(const std::string& id) {
  Entry* entry = EntryOf(id);
  if (entry == nullptr) return;
  const auto waiting = std::exchange(entry->on_imported, {});
  const auto view = Find(id);
  for (const Done& done : waiting) done(view);
}

// --- expiring

void ResumableUploads::DropOldOutcomes() {
  std::vector<const Entry*> over;
  for (const auto& [id, entry] : entries_) {
    if (entry.stored.outcome && entry.on_imported.empty()) over.push_back(&entry);
  }
  if (over.size() <= kMostOutcomes) return;
  const auto oldest = std::min_element(over.begin(), over.end(),
                                       [](auto* a, auto* b) { return a->expires < b->expires; });
  const std::string id = (*oldest)->stored.id;
  Forget(id);
  disk().Run([store = store_, id] { store->Remove(id); });
}

void ResumableUploads::ArmExpiry() {
  loop_.Cancel(std::exchange(expiry_timer_, 0));
  if (entries_.empty()) return;
  TimePoint first = TimePoint::max();
  for (const auto& [id, entry] : entries_) first = std::min(first, entry.expires);
  expiry_timer_ = loop_.CallAt(first, [this] {
    expiry_timer_ = 0;
    Expire();
  });
}

void ResumableUploads::Expire() {
  std::vector<std::string> over;
  for (auto& [id, entry] : entries_) {
    if (entry.expires > clock_.Now()) continue;
    if (entry.flow || entry.state == UploadState::kImporting) {
      entry.expires = clock_.Now() + limits_.expiry;
    } else {
      over.push_back(id);
    }
  }
  for (const std::string& id : over) {
    if (!EntryOf(id)->stored.outcome) LogInfo("upload " + id + " expired unfinished");
    Forget(id);
    disk().Run([store = store_, id] { store->Remove(id); });
  }
  ArmExpiry();
}

}  // namespace pulga
