// pulga-unpacker: one job (base/unpack_job.h), then the end. Everything that came from outside is
// parsed here and nowhere else: in its own namespaces, locked in (confine.h), with memory that does
// not grow with the input. Exit status 0, or 1 with the reason as the channel's last event.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <vector>

#include "base/file_io.h"
#include "images/confine.h"
#include "images/ingest.h"
#include "images/job_events.h"
#include "images/record_jobs.h"
#include "images/tree_list.h"
#include "images/tree_remove.h"
#include "images/unpack_jobs.h"
#include "images/unpack_wire.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace pulga {
namespace {

std::vector<int> ParentFds() {
  std::vector<int> fds;
  for (size_t i = 0; i < kMaxLayers; ++i) {
    const int fd = kUnpackFirstParentFd + static_cast<int>(i);
    if (fcntl(fd, F_GETFD) < 0) break;
    fds.push_back(fd);
  }
  return fds;
}

void CloseParents(const std::vector<int>& parents) {
  for (const int fd : parents) close(fd);
}

// Gone from the directory at once.
Result<UniqueFd> StagingFile(const char* name) {
  auto file = OpenFileAt(kUnpackStagingFd, name, O_RDWR | O_CREAT | O_EXCL, 0600);
  unlinkat(kUnpackStagingFd, name, 0);
  return file;
}

Status UnpackLayer(const UnpackOrder& request) {
  const std::vector<int> parents = ParentFds();
  // The second fence; the record and the list of times, which are files too, hold what the stream
  // says besides.
  const uint64_t largest = std::max({request.max_bytes, request.max_stream, uint64_t{1} << 20});
  PULGA_RETURN_IF_ERROR(LimitFiles(largest));
  LayerTarget target;
  PULGA_ASSIGN_OR_RETURN(target.times_file, StagingFile("times"));
  PULGA_ASSIGN_OR_RETURN(target.spare_file, StagingFile("spare"));
  target.record_fd = kUnpackOutputFd;
  // Both maps are the same (sandbox/id_maps.h). Of a rootless daemon: fewer than 65536.
  PULGA_ASSIGN_OR_RETURN(const std::string id_map, ReadFile("/proc/self/uid_map"));
  target.ids = ParseIdMap(id_map);
  PULGA_ASSIGN_OR_RETURN(const MergedView view, MountForWriting(parents, kUnpackStagingFd));
  CloseParents(parents);
  close(kUnpackStagingFd);
  PULGA_RETURN_IF_ERROR(LockIn(view.root.get(), Keep::kFileOwnership));
  target.root_fd = view.root.get();
  target.upper_fd = view.upper.get();
  return RunUnpackLayer(request, kUnpackInputFd, kUnpackChannelFd, std::move(target));
}

Status PrintTree(UnpackKind kind) {
  const std::vector<int> parents = ParentFds();
  PULGA_RETURN_IF_ERROR(LimitFiles(uint64_t{1} << 32));
  PULGA_ASSIGN_OR_RETURN(const MergedView view, MountForReading(parents, kUnpackStagingFd));
  CloseParents(parents);
  close(kUnpackStagingFd);
  PULGA_RETURN_IF_ERROR(LockIn(view.root.get(), Keep::kFileOwnership));
  return kind == UnpackKind::kList ? ListTree(view.root.get(), kUnpackOutputFd)
                                   : ListSums(view.root.get(), kUnpackOutputFd);
}

Status Ingest(const UnpackOrder& request) {
  PULGA_RETURN_IF_ERROR(LimitFiles(request.max_bytes));
  PULGA_RETURN_IF_ERROR(LockIn(kUnpackStagingFd, Keep::kNothing));
  return RunIngest(request, kUnpackInputFd, kUnpackOutputFd, kUnpackChannelFd);
}

// The one layer in `parents`, alone: what it hides or takes from others does not matter.
Status ReadRecorded(const UnpackOrder& request) {
  const std::vector<int> parents = ParentFds();
  PULGA_RETURN_IF_ERROR(LimitFiles(request.max_stream));
  if (parents.size() != 1) return Error{Code::kInternal, 0, "one layer is expected"};
  PULGA_ASSIGN_OR_RETURN(const MergedView view, MountForReading(parents, kUnpackStagingFd));
  CloseParents(parents);
  close(kUnpackStagingFd);
  PULGA_RETURN_IF_ERROR(LockIn(view.root.get(), Keep::kFileOwnership));
  const RecordedLayer layer{kUnpackInputFd, view.root.get(), kUnpackOutputFd};
  return request.kind == UnpackKind::kVerify ? RunVerify(request, layer)
                                             : RunExportLayer(request, layer);
}

Status RunJob() {
  PULGA_ASSIGN_OR_RETURN(const std::string bytes, ReadFd(kUnpackRequestFd, kMaxUnpackRequestBytes));
  const auto request = UnpackOrder::Decode(bytes);
  if (!request) return Error{Code::kInternal, 0, "the unpacker got a damaged request"};
  switch (request->kind) {
    case UnpackKind::kIngest:
      return Ingest(*request);
    case UnpackKind::kUnpackLayer:
      return UnpackLayer(*request);
    case UnpackKind::kList:
    case UnpackKind::kSums:
      return PrintTree(request->kind);
    case UnpackKind::kRemove:
      PULGA_RETURN_IF_ERROR(LockIn(kUnpackStagingFd, Keep::kFileOwnership));
      return RemoveAll(kUnpackStagingFd, "victim");
    case UnpackKind::kVerify:
    case UnpackKind::kExportLayer:
      return ReadRecorded(*request);
    case UnpackKind::kFetch:
      break;
  }
  return Error{Code::kInternal, 0, "unknown job"};
}

int Main() {
  umask(0);
  // Names in tar headers are UTF-8 or bytes: no conversion tables, which would be read from the
  // image's own /usr/lib once this process is inside.
  setlocale(LC_CTYPE, "C.UTF-8");
  signal(SIGPIPE, SIG_IGN);
  const Status status = RunJob();
  if (status.ok()) return 0;
  (void)SendEvent(kUnpackChannelFd, JobEventKind::kFailure, EncodeFailure(status.error()));
  return 1;
}

}  // namespace
}  // namespace pulga

int main() { return pulga::Main(); }
