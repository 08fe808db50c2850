#include "images/importer.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/file_io.h"
#include "images/import_run.h"
#include "images/job_call.h"
#include "images/record_store.h"
#include "images/unpack_wire.h"
#include "images/upload_feed.h"

namespace pulga {
namespace {

Result<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) return LastError("duplicate a descriptor");
  return copy;
}

}  // namespace

Importer::Importer(UnpackRunner& runner, ImportLimits limits, std::string scratch_dir)
    : runner_(runner), limits_(limits), scratch_dir_(std::move(scratch_dir)) {}

ImportReport Importer::Import(UniqueFd input, const ImportOptions& options,
                              std::function<Status()> confirm) {
  StoppableRunner runner(runner_, options.stop);
  ImportRun run(runner, limits_, scratch_dir_, options);
  const Status nameable = run.CheckRef();
  if (!nameable.ok()) return run.TakeReport(nameable);
  auto feed = UploadFeed::Start(runner, std::move(input),
                                {scratch_dir_, limits_.archive_bytes, limits_.archive_members,
                                 limits_.reserve_bytes, std::move(confirm)});
  return run.TakeReport(feed.ok() ? run.Run(**feed) : Status(feed.error()));
}

ImportReport Importer::Import(MemberFeed& feed, const ImportOptions& options) {
  StoppableRunner runner(runner_, options.stop);
  ImportRun run(runner, limits_, scratch_dir_, options);
  // What was asked for by digest is called so, and the feed has seen to it that it is that.
  const Status nameable = feed.BringsWhatIsWanted() ? OkStatus() : run.CheckRef();
  return run.TakeReport(nameable.ok() ? run.Run(feed) : nameable);
}

Result<UniqueFd> Importer::RunListing(UnpackKind kind, const std::vector<LayerId>& layers) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd output, OpenUnnamedFile(scratch_dir_));
  UnpackOrder request;
  request.kind = kind;
  UnpackJob job;
  job.kind = kind;
  job.parents = layers;
  job.request = request.Encode();
  PULGA_ASSIGN_OR_RETURN(job.output, Duplicate(output.get()));
  PULGA_RETURN_IF_ERROR(RunJob(runner_, std::move(job)));
  if (lseek(output.get(), 0, SEEK_SET) != 0) return LastError("rewind the listing");
  return output;
}

Result<UniqueFd> Importer::Tree(const std::vector<LayerId>& layers) {
  return RunListing(UnpackKind::kList, layers);
}

Result<UniqueFd> Importer::Sums(const std::vector<LayerId>& layers) {
  return RunListing(UnpackKind::kSums, layers);
}

Status Importer::Remove(const LayerId& layer) {
  UnpackOrder request;
  request.kind = UnpackKind::kRemove;
  UnpackJob job;
  job.kind = request.kind;
  job.target = layer;
  job.request = request.Encode();
  PULGA_RETURN_IF_ERROR(RunJob(runner_, std::move(job)));
  return RecordStore(scratch_dir_).Remove(layer);
}

}  // namespace pulga
