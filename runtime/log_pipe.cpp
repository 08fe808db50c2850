#include "runtime/log_pipe.h"

#include <algorithm>
#include <utility>

#include "runtime/pipe_io.h"

namespace pulga {
namespace {
constexpr size_t kReadBytes = 16 * 1024;
constexpr size_t kPipeBytes = 64 * 1024;  // what a pipe may still hold when its writer is dead
constexpr Duration kPause = std::chrono::milliseconds(20);
}  // namespace

LogPipe::LogPipe(EventLoop& loop, const Clock& clock, FunctionLogs& logs, LogSource source,
                 LogRate rate)
    : loop_(loop),
      clock_(clock),
      logs_(logs),
      source_(std::move(source)),
      rate_(rate),
      refilled_(loop.Now()),
      bytes_left_(rate.bytes),
      lines_left_(rate.lines) {}

LogPipe::~LogPipe() { Close(); }

Status LogPipe::Open(UniqueFd read_end) {
  fd_ = std::move(read_end);
  return loop_.Watch(fd_.get(), EPOLLIN, [this](uint32_t) { OnReadable(); });
}

void LogPipe::Close() {
  if (fd_.valid()) loop_.Unwatch(fd_.get());
  fd_.Reset();
  loop_.Cancel(std::exchange(pause_, 0));
}

void LogPipe::Refill() {
  if (loop_.Now() - refilled_ < std::chrono::seconds(1)) return;
  refilled_ = loop_.Now();
  bytes_left_ = rate_.bytes;
  lines_left_ = rate_.lines;
  ReportDropped();
}

void LogPipe::OnReadable() {
  Refill();
  if (bytes_left_ == 0) {  // not read: the pipe fills up and the function waits
    loop_.Unwatch(fd_.get());
    pause_ = loop_.CallAfter(kPause, [this] {
      pause_ = 0;
      if (!loop_.Watch(fd_.get(), EPOLLIN, [this](uint32_t) { OnReadable(); }).ok()) Close();
    });
    return;
  }
  char buffer[kReadBytes];
  const IoResult got = ReadSome(fd_.get(), buffer, std::min(sizeof buffer, bytes_left_));
  if (got.state == IoState::kClosed) return Finish();
  bytes_left_ -= got.size;
  Take(std::string_view(buffer, got.size));
}

void LogPipe::Finish() {
  if (!fd_.valid()) return;
  char buffer[kReadBytes];
  for (size_t total = 0; total < kPipeBytes;) {
    const IoResult got = ReadSome(fd_.get(), buffer, sizeof buffer);
    if (got.state != IoState::kSome) break;
    total += got.size;
    Take(std::string_view(buffer, got.size));
  }
  if (line_started_) EmitLine();
  ReportDropped();
  Close();
}

void LogPipe::Take(std::string_view bytes) {
  if (bytes.size() >= kLogTailBytes) {
    tail_.assign(bytes.substr(bytes.size() - kLogTailBytes));
  } else {
    if (tail_.size() + bytes.size() > kLogTailBytes) {
      tail_.erase(0, tail_.size() + bytes.size() - kLogTailBytes);
    }
    tail_ += bytes;
  }
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    line_ += part.substr(0, kMaxLogLineBytes - std::min(kMaxLogLineBytes, line_.size()));
    line_started_ = true;
    if (end == std::string_view::npos) return;
    EmitLine();
    bytes.remove_prefix(end + 1);
  }
}

void LogPipe::EmitLine() {
  line_started_ = false;
  if (lines_left_ == 0) {
    ++dropped_;
    line_.clear();
    return;
  }
  --lines_left_;
  Append(source_.stream, std::exchange(line_, std::string()));
}

void LogPipe::Append(const std::string& stream, std::string text) {
  logs_.Append(source_.key, {UnixMillis(clock_), source_.version, source_.call_id, stream,
                             std::move(text), source_.instance});
}

void LogPipe::ReportDropped() {
  if (dropped_ == 0) return;
  const std::string text = std::to_string(std::exchange(dropped_, 0)) + " lines of " +
                           source_.stream + " dropped: more than " + std::to_string(rate_.lines) +
                           " in a second";
  Append("pulga", text);
}

}  // namespace pulga
