#include "images/job_events.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file_io.h"

namespace pulga {
namespace {

struct Head {
  uint32_t kind;
  uint32_t payload_bytes;
};
static_assert(sizeof(Head) + kMaxEventPayload == kMaxEventBytes);

}  // namespace

Status SendEvent(int channel_fd, JobEventKind kind, std::string_view payload) {
  if (payload.size() > kMaxEventPayload)
    return Error{Code::kTooLarge, 0, "a job's event too large"};
  const Head head = {static_cast<uint32_t>(kind), static_cast<uint32_t>(payload.size())};
  std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
  bytes += payload;
  return WriteAll(channel_fd, bytes);
}

Result<std::optional<JobEvent>> JobEventReader::Next() {
  const Error damaged = {Code::kIo, 0, "a job's channel carries no events"};
  while (true) {
    if (buffer_.size() >= sizeof(Head)) {
      Head head;
      memcpy(&head, buffer_.data(), sizeof head);
      if (head.kind < static_cast<uint32_t>(JobEventKind::kMember) ||
          head.kind > static_cast<uint32_t>(JobEventKind::kStatus) ||
          head.payload_bytes > kMaxEventPayload) {
        return damaged;
      }
      const size_t size = sizeof head + head.payload_bytes;
      if (buffer_.size() >= size) {
        JobEvent event = {static_cast<JobEventKind>(head.kind),
                          buffer_.substr(sizeof head, head.payload_bytes)};
        buffer_.erase(0, size);
        return std::optional<JobEvent>(std::move(event));
      }
    }
    char piece[kMaxEventBytes];
    const ssize_t n = read(fd_, piece, sizeof piece);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LastError("read a job's channel");
    if (n == 0 && buffer_.empty()) return std::optional<JobEvent>();
    if (n == 0) return damaged;
    buffer_.append(piece, static_cast<size_t>(n));
  }
}

}  // namespace pulga
