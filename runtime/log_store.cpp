#include "runtime/log_store.h"

#include <utility>

#include "base/log.h"

namespace pulga {

LogStore::LogStore(EventLoop& loop, WorkQueue& storage, LogFiles files)
    : loop_(loop), storage_(storage), files_(std::make_shared<LogFiles>(std::move(files))) {}

LogStore::~LogStore() { Flush(); }

void LogStore::Append(const FunctionKey& key, const LogLine& line) {
  std::string text = FormatLogLine(line);
  if (unwritten_ + text.size() > kMaxUnwritten) {
    if (lost_++ == 0) LogWarning("the disk is slower than the functions' logs: lines are dropped");
    return;
  }
  unwritten_ += text.size();
  std::string& waiting = waiting_[key];
  waiting += text;
  if (waiting.size() >= kFlushBytes) {
    FlushOne(key, std::move(waiting_.extract(key).mapped()));
  } else if (timer_ == 0) {
    timer_ = loop_.CallAfter(kFlushDelay, [this] {
      timer_ = 0;
      Flush();
    });
  }
}

void LogStore::Flush() {
  loop_.Cancel(std::exchange(timer_, 0));
  for (auto& [key, lines] : std::exchange(waiting_, {})) FlushOne(key, std::move(lines));
}

void LogStore::FlushOne(const FunctionKey& key, std::string lines) {
  const size_t bytes = lines.size();
  storage_.Run(
      [files = files_, key, lines = std::move(lines)] { return files->Append(key, lines); },
      [this, alive = std::weak_ptr(alive_), bytes](const Status& written) {
        if (!alive.expired()) OnWritten(bytes, written);
      });
}

void LogStore::OnWritten(size_t bytes, const Status& written) {
  unwritten_ -= bytes;
  if (!written.ok()) LogWarning("write a function's log: " + written.error().message);
  if (lost_ == 0 || unwritten_ > kMaxUnwritten / 2) return;
  LogWarning(std::to_string(std::exchange(lost_, 0)) + " lines of functions' logs were dropped");
}

void LogStore::Read(const FunctionKey& key, const LogQuery& query,
                    std::function<void(std::deque<LogLine>)> done) {
  auto waiting = waiting_.extract(key);
  if (!waiting.empty()) FlushOne(key, std::move(waiting.mapped()));
  storage_.Run([files = files_, key, query] { return files->Read(key, query); }, std::move(done));
}

void LogStore::Forget(const FunctionKey& key) {
  auto waiting = waiting_.extract(key);
  if (!waiting.empty()) unwritten_ -= waiting.mapped().size();
  storage_.Run([files = files_, key] { files->Remove(key); });
}

void LogStore::Sweep(std::set<FunctionKey> keep) {
  storage_.Run([files = files_, keep = std::move(keep)] { files->Sweep(keep); });
}

}  // namespace pulga
