#include "images/upload_feed.h"

#include <fcntl.h>

#include "base/file_io.h"
#include "images/unpack_wire.h"

namespace pulga {

Result<std::unique_ptr<UploadFeed>> UploadFeed::Start(UnpackRunner& runner, UniqueFd input,
                                                      UploadOptions options) {
  auto spool = OpenUnnamedFile(options.scratch_dir);
  // Without the path: it is the host's business, not the client's.
  if (!spool.ok()) return ErrnoError("create a spool file", spool.error().sys_errno);
  UnpackOrder order;
  order.kind = UnpackKind::kIngest;
  order.max_entries = options.archive_members;
  order.max_bytes = options.archive_bytes;
  order.reserve_bytes = options.reserve_bytes;
  UnpackJob job;
  job.kind = order.kind;
  job.request = order.Encode();
  job.input = std::move(input);
  job.output.Reset(fcntl(spool->get(), F_DUPFD_CLOEXEC, 3));
  if (!job.output.valid()) return LastError("duplicate the spool's descriptor");
  std::unique_ptr<UploadFeed> feed(new UploadFeed(std::move(*spool), std::move(options)));
  PULGA_ASSIGN_OR_RETURN(feed->ingest_, JobCall::Start(runner, std::move(job)));
  return feed;
}

Result<std::optional<NamedMember>> UploadFeed::Next() {
  while (true) {
    const auto event = ingest_->Next();
    if (!event.ok()) {
      // No event, to wake us: the launcher keeps silent.
      const Status ended = ingest_->Finish();
      return !ended.ok() && ended.error().code == Code::kTimeout ? ended.error() : event.error();
    }
    if (!event->has_value()) break;
    if ((*event)->kind != JobEventKind::kMember) continue;
    auto member = DecodeMember((*event)->payload);
    if (!member) return Error{Code::kInternal, 0, "the unpacker told of a damaged member"};
    return std::optional(std::move(*member));
  }
  PULGA_RETURN_IF_ERROR(ingest_->Finish());
  return std::optional<NamedMember>();
}

Status UploadFeed::Finish() { return options_.confirm ? options_.confirm() : OkStatus(); }

}  // namespace pulga
