// UploadStore: resumable uploads on disk. DIR/ID.data holds the bytes that have come, DIR/ID.info
// what was announced, how many bytes are certain to be on the disk, and in the end what became of
// them. An info is made last and removed first: what lies there without one is swept by Open.
// After a crash of the daemon all bytes written count; after one of the machine, those before the
// last Sync: the offset told after it is never more than what is on the disk.
// Blocks: start-up and the uploads' own thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "images/importer.h"

namespace pulga {

// What is left of an ImportReport once its images are in the catalog.
struct UploadOutcome {
  struct Image {
    std::string digest;
    std::vector<std::string> refs;
  };
  std::optional<Error> failure;
  ImportReason reason = ImportReason::kNone;
  std::vector<Image> images;
  std::vector<std::string> warnings;
};

struct StoredUpload {
  std::string id;
  uint64_t length = 0;
  uint64_t offset = 0;   // bytes in the data file
  std::string metadata;  // as the client wrote it
  std::string filename;
  std::string ref;  // the name to give; empty keeps the archive's own names
  AnyPlatform any_platform = AnyPlatform::kRefuse;
  int64_t created_ms = 0;                // of the epoch
  int64_t touched_ms = 0;                // the last byte or, once it is there, the outcome
  std::optional<UploadOutcome> outcome;  // the import is over; the data is gone
};

class UploadStore {
 public:
  // `boot` names this run of the machine (ThisBoot).
  UploadStore(std::string dir, std::string boot) : dir_(std::move(dir)), boot_(std::move(boot)) {}
  static std::string ThisBoot();

  // Makes the directory, sweeps it and tells what is there. What is damaged goes.
  Result<std::vector<StoredUpload>> Open();
  // kNoSpace unless so many bytes fit and leave the reserve free.
  struct Demand {
    uint64_t bytes = 0;
    uint64_t reserve = 0;
  };
  Status CheckSpace(const Demand& demand) const;
  Status Create(const StoredUpload& upload);
  Result<UniqueFd> OpenData(const std::string& id) const;
  struct Piece {
    uint64_t offset = 0;
    std::string_view bytes;
    uint64_t reserve = 0;  // of the disk, to be left free
  };
  // Also when it fails: `*written` of the bytes are in the file.
  Status Append(int data_fd, const Piece& piece, size_t* written) const;
  // The bytes before `offset` are certain when it returns.
  Status Sync(const std::string& id, int data_fd, uint64_t offset) const;
  // Durably; then the data goes.
  Status WriteOutcome(const StoredUpload& upload) const;
  void Remove(const std::string& id) const;

 private:
  Result<StoredUpload> Load(const std::string& id) const;
  Status WriteInfo(const StoredUpload& upload) const;
  std::string InfoPath(const std::string& id) const { return dir_ + "/" + id + ".info"; }
  std::string DataPath(const std::string& id) const { return dir_ + "/" + id + ".data"; }

  std::string dir_;
  std::string boot_;
};

}  // namespace pulga
