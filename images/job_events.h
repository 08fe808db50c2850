// What a helper process tells over its job's channel (base/unpack_job.h): events of at most one
// atomic pipe write, so that several threads may tell. The reader trusts nothing of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace pulga {

enum class JobEventKind : uint32_t {
  kMember = 1,       // EncodeMember(): a member of an archive, complete
  kProgress = 2,     // one u64: bytes of input read so far; kFetch: layer, bytes of it
  kLayerResult = 3,  // LayerResult::Encode()
  kFailure = 4,      // EncodeFailure(): why the exit status will not be 0; the last event
  kStatus = 5,       // one u64: the HTTP status that the receiver of a callback answered with
  kUnreached = 6,    // EncodeFailure(): why it answered nothing
};

struct JobEvent {
  JobEventKind kind = JobEventKind::kProgress;
  std::string payload;
};

inline constexpr size_t kMaxEventBytes = 4096;  // PIPE_BUF, head included
inline constexpr size_t kMaxEventPayload = kMaxEventBytes - 8;

// kTooLarge for a payload over kMaxEventPayload. Blocks while the pipe is full.
Status SendEvent(int channel_fd, JobEventKind kind, std::string_view payload);

// Reads the other end, which stays the caller's.
class JobEventReader {
 public:
  explicit JobEventReader(int fd) : fd_(fd) {}
  // Blocks. nullopt: the helper is gone and everything it told was read. kIo for what is no event.
  Result<std::optional<JobEvent>> Next();
  // Something is here already: Next() will not wait for the helper.
  bool buffered() const { return !buffer_.empty(); }

 private:
  int fd_;
  std::string buffer_;
};

}  // namespace pulga
