#include "runtime/image_pulls.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <utility>

#include "base/text.h"
#include "images/image_ref.h"

namespace pulga {
namespace {

constexpr Duration kProgressInterval = std::chrono::milliseconds(100);

ImportReport Failed(ImportReason reason, Error error) {
  ImportReport report;
  report.status = std::move(error);
  report.reason = reason;
  return report;
}

}  // namespace

struct ImagePulls::Task {
  std::string ref;  // normalised
  std::optional<RegistryLogin> login;
  UniqueFd cancel;  // an eventfd, read by the importer's thread alone
  std::function<void(const PullProgress&)> progress;
  std::function<void(ImportReport)> done;
  bool wanted = true;             // loop thread
  std::function<void()> give_up;  // the import; loop thread
};

// What a pull needs while it runs, as it was when it began.
struct ImagePulls::Source {
  EventLoop& loop;
  UnpackRunner& runner;
  std::string scratch_dir;
  UploadLimits limits;
  RegistryAccess access;
};

class ImagePulls::Handle final : public Engine::Pull {
 public:
  explicit Handle(std::shared_ptr<Task> task) : task_(std::move(task)) {}
  ~Handle() override {
    task_->wanted = false;
    Cancel(*task_);
  }

 private:
  std::shared_ptr<Task> task_;
};

ImagePulls::ImagePulls(EventLoop& loop, UnpackRunner& runner, ImportService& imports,
                       std::string scratch_dir)
    : loop_(loop), runner_(runner), imports_(imports), scratch_dir_(std::move(scratch_dir)) {}

ImagePulls::~ImagePulls() { Stop(); }

void ImagePulls::SetLimits(UploadLimits limits, RegistryAccess access) {
  limits_ = limits;
  access_ = std::move(access);
}

void ImagePulls::Cancel(Task& task) {
  const uint64_t one = 1;
  (void)!write(task.cancel.get(), &one, sizeof one);
  if (task.give_up) task.give_up();
}

void ImagePulls::Stop() {
  stopped_ = true;
  for (const auto& task : tasks_) Cancel(*task);
}

// On the import's thread.
ImportReport ImagePulls::Fetch(const std::shared_ptr<Task>& task, const Source& source,
                               const ImportOptions& options) {
  auto prepared = PrepareRegistry(source.access, task->ref, task->login);
  if (!prepared.ok()) return Failed(ImportReason::kInternal, prepared.error());
  prepared->scratch_dir = source.scratch_dir;
  prepared->cancel_fd = task->cancel.get();
  prepared->most_bytes = source.limits.upload_bytes;
  prepared->progress = [task, &loop = source.loop,
                        last = TimePoint{}](const PullProgress& now) mutable {
    const TimePoint time = std::chrono::steady_clock::now();
    if (now.bytes != now.size && time - last < kProgressInterval) return;
    last = time;
    loop.Post([task, now] {
      if (task->wanted && task->done) task->progress(now);
    });
  };
  auto feed = RegistryFeed::Start(source.runner, std::move(*prepared));
  if (!feed.ok()) {
    const bool full = feed.error().code == Code::kNoSpace;
    return Failed(full ? ImportReason::kNoSpace : ImportReason::kInternal, feed.error());
  }
  Importer importer(source.runner, source.limits.import, source.scratch_dir);
  ImportReport report = importer.Import(**feed, options);
  if (report.status.ok()) return report;
  if (const auto blame = (*feed)->blame()) report.reason = *blame;
  report.status = Prefix("pull " + FamiliarName(task->ref), report.status.error());
  return report;
}

std::unique_ptr<Engine::Pull> ImagePulls::Start(PullRequest request,
                                                std::function<void(const PullProgress&)> progress,
                                                std::function<void(ImportReport)> done) {
  auto task = std::make_shared<Task>();
  task->login = std::move(request.login);
  task->progress = std::move(progress);
  task->done = std::move(done);
  task->cancel.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const auto finish = [weak = std::weak_ptr<ImagePulls*>(self_), task](ImportReport report) {
    if (const auto self = weak.lock()) (*self)->tasks_.erase(task);
    if (task->wanted) std::exchange(task->done, {})(std::move(report));
  };
  auto ref = NormalizeImageRef(request.ref);
  const Status room =
      stopped_ ? Status(Error{Code::kUnavailable, 0, "the daemon is stopping: try again later"})
               : imports_.CheckRoom(limits_.at_once);
  if (!ref.ok() || !room.ok()) {
    ImportReport report = ref.ok() ? Failed(ImportReason::kHelper, room.error())
                                   : Failed(ImportReason::kBadRef, ref.error());
    loop_.Post([finish, report] { finish(report); });
    return std::make_unique<Handle>(task);
  }
  task->ref = std::move(*ref);
  tasks_.insert(task);
  const Source source{loop_, runner_, scratch_dir_, limits_, access_};
  ImportOptions options;
  options.ref = task->ref;
  const auto work = [task, source](const ImportOptions& order) {
    return Fetch(task, source, order);
  };
  task->give_up = imports_.Run(std::move(options), work, finish);
  return std::make_unique<Handle>(task);
}

}  // namespace pulga
