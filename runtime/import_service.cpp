#include "runtime/import_service.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

constexpr int kPipeBytes = 256 * 1024;  // asked for; the kernel may give less

Error TooLargeUpload(uint64_t limit) {
  return Error{Code::kTooLarge, 0,
               "the archive is larger than " + HumanBytes(limit) + " (setting upload-bytes)"};
}

}  // namespace

// The importer's questions, from its thread to the loop and back.
class ImportService::Claims final : public LayerClaims {
 public:
  Claims(EventLoop& loop, LayerTable& table, LayerTable::Holder holder)
      : loop_(loop), table_(table), holder_(holder) {}

  std::optional<LayerRecord> Find(const LayerId& id) override {
    const auto answer = std::make_shared<Handoff<std::optional<LayerRecord>>>();
    loop_.Post([this, id, answer] { answer->Set(table_.Find(holder_, id)); });
    return answer->Wait();
  }
  std::optional<LayerRecord> FindOrMake(const LayerId& id) override {
    const auto answer = std::make_shared<Handoff<std::optional<LayerRecord>>>();
    loop_.Post([this, id, answer] {
      table_.FindOrMake(holder_, id,
                        [answer](std::optional<LayerRecord> layer) { answer->Set(layer); });
    });
    return answer->Wait();
  }
  void Made(const LayerId& id, const LayerRecord* layer) override {
    const auto made = layer != nullptr ? std::optional(*layer) : std::nullopt;
    loop_.Post([&table = table_, holder = holder_, id, made] { table.Made(holder, id, made); });
  }

 private:
  EventLoop& loop_;
  LayerTable& table_;
  LayerTable::Holder holder_;
};

// The way of an upload's bytes, shared by the client's side and the import.
struct ImportService::Stream {
  explicit Stream(EventLoop& event_loop) : loop(event_loop) {}
  ~Stream() { End(Error{Code::kUnavailable, 0, "the upload was interrupted"}); }

  // No more bytes; `status`: were these all?
  void End(Status status) {
    StopWatching();
    pipe.Reset();
    if (std::exchange(ended, true)) return;
    why = status;
    complete->Set(std::move(status));
  }
  void StopWatching() {
    if (std::exchange(watched, false)) loop.Unwatch(pipe.get());
  }
  // An archive that was cut off looks truncated to the unpacker.
  void Amend(ImportReport& report) const {
    if (why.ok()) return;
    const bool too_large = why.error().code == Code::kTooLarge;
    report.status = why;
    report.reason = too_large ? ImportReason::kTooLarge : ImportReason::kHelper;
  }

  EventLoop& loop;
  UniqueFd pipe;  // write end, non-blocking; not valid once nobody reads any more
  uint64_t max_bytes = 0;
  uint64_t bytes = 0;
  bool watched = false;
  bool ended = false;
  Status why;  // it ended
  std::shared_ptr<Handoff<Status>> complete = std::make_shared<Handoff<Status>>();
  std::function<void()> on_room;
  std::function<void()> cancel;  // the import
};

class ImportService::UploadImpl final : public Engine::Upload {
 public:
  UploadImpl(std::shared_ptr<Stream> stream, std::shared_ptr<ReportDone> done)
      : stream_(std::move(stream)), done_(std::move(done)) {}
  ~UploadImpl() override {
    *done_ = nullptr;
    stream_->on_room = nullptr;
    stream_->End(Error{Code::kUnavailable, 0, "the upload was interrupted"});
    // Nobody waits for it any more, so nobody else shall have to wait for its place.
    stream_->cancel();
  }

  size_t Write(std::string_view bytes) override {
    Stream& stream = *stream_;
    if (!stream.pipe.valid()) return bytes.size();  // it has failed; the report is on its way
    if (bytes.size() > stream.max_bytes - stream.bytes) {
      stream.End(TooLargeUpload(stream.max_bytes));
      return bytes.size();
    }
    size_t taken = 0;
    while (taken < bytes.size()) {
      const ssize_t n = write(stream.pipe.get(), bytes.data() + taken, bytes.size() - taken);
      if (n >= 0) {
        taken += static_cast<size_t>(n);
      } else if (errno == EAGAIN) {
        WatchForRoom();
        break;
      } else if (errno != EINTR) {  // EPIPE: the unpacker has seen enough
        stream.StopWatching();
        stream.pipe.Reset();
        return bytes.size();
      }
    }
    stream.bytes += taken;
    return taken;
  }
  void Finish() override { stream_->End(OkStatus()); }

 private:
  void WatchForRoom() {
    Stream& stream = *stream_;
    if (stream.watched) return;
    const auto on_room = [weak = std::weak_ptr(stream_)](uint32_t) {
      const auto alive = weak.lock();
      if (!alive) return;
      alive->StopWatching();
      if (const auto call = alive->on_room) call();
    };
    stream.watched = stream.loop.Watch(stream.pipe.get(), EPOLLOUT, on_room).ok();
    if (!stream.watched) stream.End(Error{Code::kInternal, 0, "watch the upload's pipe"});
  }

  std::shared_ptr<Stream> stream_;
  std::shared_ptr<ReportDone> done_;
};

ImportService::ImportService(EventLoop& loop, LayerTable& table, Hooks hooks)
    : loop_(loop), table_(table), hooks_(std::move(hooks)) {
  signal(SIGPIPE, SIG_IGN);  // an import may end before its upload does
}

ImportService::~ImportService() = default;

Status ImportService::CheckRoom(uint32_t at_once) const {
  if (imports_.size() < at_once) return OkStatus();
  return Error{Code::kUnavailable, 0,
               std::to_string(imports_.size()) +
                   " images are being imported already: try again when one is done"};
}

Result<std::unique_ptr<Engine::Upload>> ImportService::NewUpload(UploadRequest request,
                                                                 const UploadLimits& limits) {
  if (request.content_length && *request.content_length > limits.upload_bytes) {
    return TooLargeUpload(limits.upload_bytes);
  }
  PULGA_RETURN_IF_ERROR(CheckRoom(limits.at_once));
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return LastError("make an upload's pipe");
  const auto input = std::make_shared<UniqueFd>(fds[0]);
  const auto stream = std::make_shared<Stream>(loop_);
  stream->pipe.Reset(fds[1]);
  stream->max_bytes = limits.upload_bytes;
  stream->on_room = std::move(request.on_room);
  PULGA_RETURN_IF_ERROR(SetNonBlocking(stream->pipe.get()));
  (void)fcntl(stream->pipe.get(), F_SETPIPE_SZ, kPipeBytes);
  std::erase_if(streams_, [](const auto& known) { return known.expired(); });
  streams_.push_back(stream);
  ImportOptions options;
  options.ref = request.ref.value_or("");
  options.any_platform = request.any_platform;
  options.absent = request.absent;
  auto work = [upload = hooks_.upload, input, limit = limits.import,
               complete = stream->complete](const ImportOptions& order) {
    return upload(std::move(*input), order, limit, [complete] { return complete->Wait(); });
  };
  const auto done = std::make_shared<ReportDone>(std::move(request.on_done));
  const auto told = [done](ImportReport report) {
    if (const auto call = *done) call(std::move(report));
  };
  PULGA_ASSIGN_OR_RETURN(Import* const running, Begin(std::move(options), std::move(work), told));
  stream->cancel = CancelOf(*running);
  running->amend = [stream](ImportReport& report) { stream->Amend(report); };
  return std::unique_ptr<Engine::Upload>(new UploadImpl(stream, done));
}

std::function<void()> ImportService::Run(ImportOptions options, Work work, ReportDone done) {
  const auto running = Begin(std::move(options), std::move(work), done);
  if (running.ok()) return CancelOf(**running);
  ImportReport report;
  report.status = running.error();
  report.reason = ImportReason::kHelper;
  loop_.Post([done = std::move(done), report = std::move(report)] { done(report); });
  return [] {};
}

std::function<void()> ImportService::CancelOf(const Import& running) const {
  return [weak = std::weak_ptr(self_), holder = running.holder] {
    const auto self = weak.lock();
    if (!self) return;
    const auto it = (*self)->imports_.find(holder);
    if (it == (*self)->imports_.end() || it->second.thread == nullptr) return;
    it->second.stop->Stop();
    (*self)->table_.Abandon(holder);
  };
}

Result<ImportService::Import*> ImportService::Begin(ImportOptions options, Work work,
                                                    ReportDone done) {
  PULGA_ASSIGN_OR_RETURN(auto thread, WorkQueue::Start("pulga-import", loop_));
  const LayerTable::Holder holder = table_.NewHolder();
  Import& running = imports_[holder];
  running.holder = holder;
  running.done = std::move(done);
  running.thread = std::move(thread);
  const auto claims = std::make_shared<Claims>(loop_, table_, holder);
  options.claims = claims.get();
  options.stop = running.stop;
  options.wanted = [stop = running.stop] { return !stop->stopped(); };
  const auto run = [claims, options = std::move(options), work = std::move(work)] {
    return work(options);
  };
  running.thread->Run(run, [weak = std::weak_ptr(self_), holder](ImportReport report) {
    if (const auto self = weak.lock()) (*self)->OnReported(holder, std::move(report));
  });
  return &running;
}

void ImportService::OnReported(LayerTable::Holder holder, ImportReport report) {
  Import& running = imports_.at(holder);
  running.thread.reset();  // it has nothing left to do
  if (!report.status.ok()) {
    if (running.amend) running.amend(report);
    LogInfo("import failed: " + Printable(report.status.error().message, 500));
    const auto finish = [weak = std::weak_ptr(self_), holder](ImportReport failed) {
      if (const auto self = weak.lock()) (*self)->Finish(holder, std::move(failed));
    };
    if (report.reason != ImportReason::kNoSpace) return finish(std::move(report));
    return hooks_.make_room(std::move(report), finish);
  }
  hooks_.store(std::move(report), [weak = std::weak_ptr(self_), holder](ImportReport stored) {
    if (const auto self = weak.lock()) (*self)->Finish(holder, std::move(stored));
  });
}

void ImportService::Finish(LayerTable::Holder holder, ImportReport report) {
  hooks_.discard(table_.Release(holder),
                 [weak = std::weak_ptr(self_), holder, report = std::move(report)] {
                   const auto self = weak.lock();
                   if (!self) return;
                   auto ended = (*self)->imports_.extract(holder);
                   ended.mapped().done(report);
                 });
}

void ImportService::Stop() {
  for (const auto& weak : std::exchange(streams_, {})) {
    if (const auto stream = weak.lock()) {
      stream->End(Error{Code::kUnavailable, 0, "the daemon is stopping"});
    }
  }
  for (const auto& [holder, running] : imports_) CancelOf(running)();
}

}  // namespace pulga
