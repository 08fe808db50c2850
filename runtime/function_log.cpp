#include "runtime/function_log.h"

#include <utility>
#include <vector>

#include "runtime/log_store.h"

namespace pulga {
namespace {

constexpr size_t kMaxLineBytes = 4096;
constexpr size_t kLineOverhead = sizeof(LogLine);

size_t CostOf(const LogLine& line) {
  return kLineOverhead + line.call_id.size() + line.stream.size() + line.text.size();
}

}  // namespace

void FunctionLogs::Append(const FunctionKey& key, LogLine line) {
  if (line.text.size() > kMaxLineBytes) line.text.resize(kMaxLineBytes);
  // A follower may unfollow itself, or another, while it is told.
  std::vector<FollowId> listening;
  for (const auto& [id, follower] : followers_) {
    if (follower.first == key) listening.push_back(id);
  }
  for (const FollowId id : listening) {
    const auto it = followers_.find(id);
    if (it == followers_.end()) continue;
    const auto on_line = it->second.second;
    on_line(line);
  }
  if (store_ != nullptr) return store_->Append(key, line);
  Ring& ring = rings_[key];
  ring.bytes += CostOf(line);
  ring.lines.push_back(std::move(line));
  while (ring.bytes > max_bytes_ && ring.lines.size() > 1) {
    ring.bytes -= CostOf(ring.lines.front());
    ring.lines.pop_front();
    ++ring.dropped;
  }
}

void FunctionLogs::Read(const FunctionKey& key, const LogQuery& query,
                        std::function<void(std::deque<LogLine>)> done) const {
  if (store_ != nullptr) return store_->Read(key, query, std::move(done));
  done(SelectLines(Tail(key, SIZE_MAX), query));
}

std::deque<LogLine> FunctionLogs::Tail(const FunctionKey& key, size_t max_lines) const {
  const auto it = rings_.find(key);
  if (it == rings_.end()) return {};
  const std::deque<LogLine>& lines = it->second.lines;
  const size_t skip = lines.size() > max_lines ? lines.size() - max_lines : 0;
  return {lines.begin() + static_cast<std::ptrdiff_t>(skip), lines.end()};
}

uint64_t FunctionLogs::dropped(const FunctionKey& key) const {
  const auto it = rings_.find(key);
  return it == rings_.end() ? 0 : it->second.dropped;
}

FunctionLogs::FollowId FunctionLogs::Follow(const FunctionKey& key,
                                            std::function<void(const LogLine&)> on_line) {
  const FollowId id = next_id_++;
  followers_.emplace(id, std::pair(key, std::move(on_line)));
  return id;
}

void FunctionLogs::Unfollow(FollowId id) { followers_.erase(id); }

void FunctionLogs::Forget(const FunctionKey& key) {
  rings_.erase(key);
  if (store_ != nullptr) store_->Forget(key);
}

}  // namespace pulga
