// The launcher's volumes: each request is a forked child (volume_jobs.h).
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>

#include "base/log.h"
#include "base/sys.h"
#include "sandbox/launcher_state.h"
#include "sandbox/volumes/quota_volume.h"
#include "sandbox/volumes/volume_jobs.h"

namespace pulga {
namespace {

constexpr size_t kMaxVolumeJobs = 8;

Status RunVolumeJob(const LaunchHeader& header, const VolumeRequestBody& body,
                    const VolumesDir& dir, int list_fd) {
  switch (header.kind) {
    case LaunchKind::kCreateVolume:
      return CreateVolume(dir, {body.id, body.bytes,
                                std::string(body.label, strnlen(body.label, sizeof body.label))});
    case LaunchKind::kResizeVolume:
      return ResizeVolume(dir, body.id, body.bytes);
    case LaunchKind::kRemoveVolume:
      return RemoveVolume(dir, body.id);
    default:
      return MeasureVolumes(dir, list_fd);
  }
}

}  // namespace

// Without them everything else works.
void Launcher::OpenVolumes() {
  if (!options_.volumes.valid()) return;
  auto dir = VolumesDir::Open(std::move(options_.volumes));
  if (!dir.ok()) return LogWarning("no volumes: " + dir.error().message);
  volumes_.emplace(std::move(*dir));
  const auto folders = volumes_->RemoveLeftovers();
  if (!folders.ok()) return LogWarning("sweep volumes: " + folders.error().message);
  if (!folders->empty()) SweepFolders(*folders);
}

// Functions filled them: that takes as long as it takes, beside everything else.
void Launcher::SweepFolders(const std::vector<std::string>& names) {
  auto child = Fork([this, &names]() -> int {
    SetLogTag("volume");
    for (const std::string& name : names) {
      const Status swept = SweepQuotaVolume(*volumes_, name);
      if (!swept.ok()) LogWarning("sweep volumes: " + name + ": " + swept.error().message);
    }
    return 0;
  });
  const Status watched =
      child.ok() ? WatchChild(std::move(*child), [](const ExitInfo&) {}) : Status(child.error());
  if (!watched.ok()) LogWarning("sweep volumes: " + watched.error().message);
}

void Launcher::ServeVolume(const LaunchHeader& header, const Message& message) {
  const auto body = DecodeVolume(message.bytes);
  if (!body.ok()) return Reply(header.request, body.error());
  const Status started = StartVolumeJob(header, *body);
  if (!started.ok()) Reply(header.request, started);
}

Status Launcher::StartVolumeJob(const LaunchHeader& header, const VolumeRequestBody& body) {
  if (!volumes_) return Error{Code::kUnsupported, 0, "this launcher has no volumes directory"};
  if (volume_jobs_ >= kMaxVolumeJobs) {
    return Error{Code::kUnavailable, 0, "too many changes of volumes at once: try again"};
  }
  if (header.kind == LaunchKind::kCreateVolume) {
    PULGA_ASSIGN_OR_RETURN(const std::vector<uint64_t> there, volumes_->List());
    if (there.size() >= kMaxVolumeFiles) {
      return Error{Code::kNoSpace, 0, "there are 1024 volumes already"};
    }
    if (volumes_->StorageOf(body.id)) return Error{Code::kAlreadyExists, 0, "that volume exists"};
  }
  int report[2];
  if (PULGA_SYS(pipe2, report, O_CLOEXEC | O_NONBLOCK) != 0) return LastError("pipe2");
  const auto report_end = std::make_shared<UniqueFd>(report[0]);
  const UniqueFd job_end(report[1]);
  const auto list = std::make_shared<UniqueFd>();
  if (header.kind == LaunchKind::kListVolumes) {
    list->Reset(sys::Faulted() ? -1 : sys::MemfdCreate("volumes", MFD_CLOEXEC));
    if (!list->valid()) return LastError("list-volumes: memfd");
  }
  PULGA_ASSIGN_OR_RETURN(PidFd child, Fork([&]() -> int {
                           SetLogTag("volume");
                           const Status done = RunVolumeJob(header, body, *volumes_, list->get());
                           if (!done.ok()) ReportFailure(job_end.get(), done.error());
                           return done.ok() ? 0 : 1;
                         }));
  ++volume_jobs_;
  const Status watched = WatchChild(
      std::move(child), [this, request = header.request, report_end, list](const ExitInfo& info) {
        --volume_jobs_;
        FinishVolumeJob(request, info, report_end->get(), list->get());
      });
  if (!watched.ok()) --volume_jobs_;
  return watched;
}

void Launcher::FinishVolumeJob(uint64_t request, const ExitInfo& info, int report_fd, int list_fd) {
  BuildReport report = {};
  if (info.wait_status != 0) {
    if (read(report_fd, &report, sizeof report) != sizeof report) {
      return Reply(request, Error{Code::kInternal, 0, "the volume's job ended without a word"});
    }
    report.text[sizeof report.text - 1] = '\0';
    return Reply(request, ErrorOf(report));
  }
  if (list_fd < 0) return Reply(request, OkStatus());
  Reply(request, OkStatus(), "", {list_fd});
}

}  // namespace pulga
