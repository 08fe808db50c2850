// Where an import's members come from: an upload while it arrives (UploadFeed), or a registry. The
// importer takes them in any order and plans as soon as the documents are there.
// Blocks; used by one thread, the importer's.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "images/archive_index.h"
#include "images/archive_plan.h"

namespace pulga {

class MemberFeed {
 public:
  virtual ~MemberFeed() = default;
  // The next complete member; nullopt once there are no more. A member's `sha256` is filled only if
  // the confined unpacker hashed the bytes itself: it is believed. An error ends the import.
  virtual Result<std::optional<NamedMember>> Next() = 0;
  // The layers a plan needs and the store lacks, told once, as soon as the importer knows; a
  // registry fetches them, and members follow. Archives bring what they bring.
  virtual Status Want(const std::vector<PlannedLayer>& layers) = 0;
  // Are absent layers worth planning for, because Want() can bring them?
  virtual bool BringsWhatIsWanted() const = 0;
  // After the last member: was that all of it? Blocks until the sender has said so.
  virtual Status Finish() = 0;
  // The plain file that the members' offsets mean; it grows until Next() gives nullopt.
  virtual int plain_fd() const = 0;
  // The plain file is not needed any more and must not be written out.
  virtual void Drop() = 0;
};

}  // namespace pulga
