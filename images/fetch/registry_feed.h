// RegistryFeed: the members of an image that is being pulled. First the documents, then the layers
// that Want() names, each as one errand of pulga-fetcher. Whatever that says is a claim: the
// importer checks digests of documents, the unpacker those of layers.
// Blocks; the importer's thread, but for what `cancel_fd` stands for.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "images/fetch/fetch_wire.h"
#include "images/importer.h"
#include "images/job_call.h"
#include "images/member_feed.h"

namespace pulga {

struct PullProgress {
  size_t layer = 0;  // of those that are fetched
  size_t layers = 0;
  std::string digest;  // of that layer's blob
  uint64_t bytes = 0;
  uint64_t size = 0;
  uint64_t total_size = 0;  // of all that are fetched
};

struct RegistryOptions {
  FetchOrder order;            // kind, host, blobs and max_bytes are filled in here
  std::string scratch_dir;     // the unnamed file is made there
  std::string extra_ca;        // PEM
  uint64_t most_bytes = 0;     // of all blobs together
  uint64_t reserve_bytes = 0;  // of the disk, to be left free
  int cancel_fd = -1;          // readable: nobody wants the image any more
  std::function<void(const PullProgress&)> progress;  // may be empty; the importer's thread
};

class RegistryFeed final : public MemberFeed {
 public:
  static Result<std::unique_ptr<RegistryFeed>> Start(UnpackRunner& runner, RegistryOptions options);

  Result<std::optional<NamedMember>> Next() override;
  Status Want(const std::vector<PlannedLayer>& layers) override;
  bool BringsWhatIsWanted() const override { return true; }
  Status Finish() override { return OkStatus(); }
  int plain_fd() const override { return output_.get(); }

  // What an import that failed because of this feed answers; nothing: the feed is not to blame.
  std::optional<ImportReason> blame() const { return blame_; }
  void Drop() override { output_.Reset(); }

 private:
  RegistryFeed(UnpackRunner& runner, UniqueFd output, RegistryOptions options)
      : runner_(runner), output_(std::move(output)), options_(std::move(options)) {}
  Status StartErrand();
  Status WaitForNews();
  Status Reserve(uint64_t bytes) const;
  void Tell(const std::string& payload);
  Status CheckAsked(const NamedMember& named);
  Status CheckTop(const ArchiveMember& index) const;
  Result<std::optional<NamedMember>> NextOf(const JobEvent& event);
  Error Blame(ImportReason reason, Error error) {
    blame_ = reason;
    return error;
  }

  UnpackRunner& runner_;
  UniqueFd output_;
  RegistryOptions options_;
  std::unique_ptr<JobCall> errand_;
  uint64_t end_ = 0;  // of the documents
  std::string top_;   // the first document's name: all others hang on it
  uint64_t top_size_ = 0;
  std::optional<ImportReason> blame_;
};

}  // namespace pulga
