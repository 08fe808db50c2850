// UploadFeed: the members of an archive that arrives through a pipe (or lies in a file), as the
// confined unpacker reports them while it spools the plain bytes. Blocks; the importer's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "images/job_call.h"
#include "images/member_feed.h"

namespace pulga {

struct UploadOptions {
  std::string scratch_dir;     // the unnamed spool file is made there
  uint64_t archive_bytes = 0;  // at most, once decompressed
  uint64_t archive_members = 0;
  uint64_t reserve_bytes = 0;  // of the disk, to be left free
  // Called once after the last byte was read, blocks: ok when the sender said that this was all.
  // Empty: it was.
  std::function<Status()> confirm;
};

class UploadFeed final : public MemberFeed {
 public:
  // `input` is read to its end.
  static Result<std::unique_ptr<UploadFeed>> Start(UnpackRunner& runner, UniqueFd input,
                                                   UploadOptions options);

  Result<std::optional<NamedMember>> Next() override;
  Status Want(const std::vector<PlannedLayer>&) override { return OkStatus(); }
  bool BringsWhatIsWanted() const override { return false; }
  Status Finish() override;
  int plain_fd() const override { return spool_.get(); }
  void Drop() override { spool_.Reset(); }

 private:
  UploadFeed(UniqueFd spool, UploadOptions options)
      : spool_(std::move(spool)), options_(std::move(options)) {}

  UniqueFd spool_;
  UploadOptions options_;
  std::unique_ptr<JobCall> ingest_;
};

}  // namespace pulga
