#include "runtime/image_export.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"
#include "base/text.h"
#include "images/job_events.h"
#include "images/unpack_wire.h"

namespace pulga {
namespace {

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Result<Pipe> MakePipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return LastError("make a pipe");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// What an ended job said last; its end of the channel is closed, so nothing blocks.
std::string LastWords(int channel_fd) {
  JobEventReader events(channel_fd);
  std::string words;
  while (true) {
    const auto event = events.Next();
    if (!event.ok() || !event->has_value()) return words;
    if ((*event)->kind != JobEventKind::kFailure) continue;
    if (const auto told = DecodeFailure((*event)->payload)) words = told->message;
  }
}

}  // namespace

ImageExport::~ImageExport() { StopWatching(); }

ReadResult ImageExport::Read(char* buffer, size_t capacity) {
  if (failed_) return {ReadState::kAborted, 0};
  if (part_ == plan_.parts.size()) return {ReadState::kEnd, 0};
  ExportPart& part = plan_.parts[part_];
  if (text_sent_ < part.text.size()) {
    const size_t size = std::min(capacity, part.text.size() - text_sent_);
    memcpy(buffer, part.text.data() + text_sent_, size);
    text_sent_ += size;
    return {ReadState::kData, size};
  }
  if (part.config_bytes != 0) {  // becomes text once it is here
    LoadConfig(part.config_bytes);
    return {ReadState::kWait, 0};
  }
  if (!part.diff_id.empty() && !LayerDone()) return ReadLayer(buffer, capacity);
  ++part_;
  text_sent_ = 0;
  layer_sent_ = 0;
  layer_ = Layer::kNotBegun;
  drained_ = job_done_ = false;
  return Read(buffer, capacity);
}

ReadResult ImageExport::ReadLayer(char* buffer, size_t capacity) {
  if (layer_ == Layer::kNotBegun) OpenLayer();
  if (layer_ != Layer::kRunning || drained_) return {ReadState::kWait, 0};
  const uint64_t left = plan_.parts[part_].layer_bytes - layer_sent_;
  // At the end one byte more is asked for, which must not come.
  const size_t want =
      static_cast<size_t>(std::min<uint64_t>(capacity, std::max<uint64_t>(left, 1)));
  const ssize_t n = read(pipe_.get(), buffer, want);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    WaitForBytes();
    return {failed_ ? ReadState::kAborted : ReadState::kWait, 0};
  }
  if (n > 0 && left > 0) {
    layer_sent_ += static_cast<uint64_t>(n);
    return {ReadState::kData, static_cast<size_t>(n)};
  }
  pipe_.Reset();
  drained_ = true;
  if (n != 0 || left != 0) {
    // A job that failed tells why; this is for one that says it is well.
    if (n != 0 || job_done_) Fail({Code::kIo, 0, "a layer is not as long as it was"});
    return {failed_ ? ReadState::kAborted : ReadState::kWait, 0};
  }
  return LayerDone() ? Read(buffer, capacity) : ReadResult{ReadState::kWait, 0};
}

void ImageExport::LoadConfig(uint64_t expected) {
  if (std::exchange(loading_, true)) return;
  const auto loaded = [this, expected,
                       alive = std::weak_ptr<int>(alive_)](Result<std::string> config) {
    if (alive.expired()) return;
    if (!config.ok()) return Fail(Prefix("read its configuration", config.error()));
    if (config->size() != expected) {
      return Fail({Code::kIo, 0, "its configuration is not as long as it was"});
    }
    ExportPart& part = plan_.parts[part_];
    part.text = std::move(*config);
    part.config_bytes = 0;
    text_sent_ = 0;
    Wake();
  };
  parts_.storage.Run(parts_.config, loaded);
}

void ImageExport::OpenLayer() {
  layer_ = Layer::kOpening;
  auto open = [records = parts_.records, layer = plan_.parts[part_].layer] {
    return std::make_shared<Result<UniqueFd>>(records.Open(layer));
  };
  parts_.storage.Run(std::move(open), [this, alive = std::weak_ptr<int>(alive_)](
                                          std::shared_ptr<Result<UniqueFd>> record) {
    if (alive.expired()) return;
    if (!record->ok()) return Fail(record->error());
    RunJob(std::move(*record).value());
  });
}

void ImageExport::RunJob(UniqueFd record) {
  auto bytes = MakePipe();
  auto channel = MakePipe();
  if (!bytes.ok() || !channel.ok()) return Fail((bytes.ok() ? channel : bytes).error());
  const Status quick = SetNonBlocking(bytes->read_end.get());
  if (!quick.ok()) return Fail(quick.error());
  const ExportPart& part = plan_.parts[part_];
  UnpackOrder order;
  order.kind = UnpackKind::kExportLayer;
  order.diff_id = part.diff_id;
  order.max_stream = part.layer_bytes;
  UnpackJob job;
  job.kind = order.kind;
  job.parents = {part.layer};
  job.request = order.Encode();
  job.input = std::move(record);
  job.output = std::move(bytes->write_end);
  job.channel = std::move(channel->write_end);
  pipe_ = std::move(bytes->read_end);
  channel_ = std::move(channel->read_end);
  layer_ = Layer::kRunning;
  (void)parts_.sandbox.RunUnpack(std::move(job),
                                 [this, alive = std::weak_ptr<int>(alive_)](const Status& status) {
                                   if (!alive.expired()) OnJobEnded(status);
                                 });
  Wake();
}

// The bytes may still be in the pipe then, but no more will come.
void ImageExport::OnJobEnded(const Status& status) {
  if (!status.ok()) {
    const std::string why = LastWords(channel_.get());
    return Fail(why.empty() ? status.error() : Error{Code::kIo, 0, why});
  }
  channel_.Reset();
  job_done_ = true;
  if (drained_ && layer_sent_ != plan_.parts[part_].layer_bytes) {
    return Fail({Code::kIo, 0, "a layer is not as long as it was"});
  }
  Wake();
}

void ImageExport::WaitForBytes() {
  if (watching_) return;
  const Status watched = parts_.loop.Watch(pipe_.get(), EPOLLIN, [this](uint32_t) {
    StopWatching();
    Wake();
  });
  watching_ = watched.ok();
  if (!watched.ok()) Fail(watched.error());
}

void ImageExport::StopWatching() {
  if (std::exchange(watching_, false)) parts_.loop.Unwatch(pipe_.get());
}

// The reader learns it as a stream that breaks off: its length was promised.
void ImageExport::Fail(const Error& error) {
  LogWarning("export of " + *pin_ + " broke off: " + Printable(error.message, 500));
  StopWatching();
  pipe_.Reset();
  failed_ = true;
  Wake();
}

void ImageExport::Wake() {
  if (!ready_) return;
  // Posted: we may be inside the reader's own Read().
  parts_.loop.Post([this, alive = std::weak_ptr<int>(alive_)] {
    if (!alive.expired() && ready_) ready_();
  });
}

}  // namespace pulga
