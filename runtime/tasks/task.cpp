#include "runtime/tasks/task.h"

#include "base/text.h"

namespace pulga {

std::string_view TaskStateName(TaskState state) {
  constexpr std::string_view kNames[] = {"queued", "running", "done",
                                         "failed", "dead",    "cancelled"};
  return kNames[static_cast<size_t>(state)];
}

std::string_view CallbackStateName(CallbackState state) {
  constexpr std::string_view kNames[] = {"none", "waiting", "owed", "delivered", "given-up"};
  return kNames[static_cast<size_t>(state)];
}

namespace {

constexpr uint64_t kRowBytes = 512;  // of the task's own row and its keys

uint64_t TextBytes(const HeaderList& headers) {
  uint64_t bytes = 0;
  for (const auto& [name, value] : headers) bytes += name.size() + value.size() + 3;
  return bytes;
}

}  // namespace

uint64_t StoredBytes(const TaskRequest& request) {
  return kRowBytes + request.path.size() + request.query.size() + TextBytes(request.headers) +
         request.body.size();
}

uint64_t StoredBytes(const TaskAnswer& answer) {
  return kRowBytes + TextBytes(answer.headers) + answer.body.size();
}

std::string HeadersText(const HeaderList& headers) {
  std::string text;
  for (const auto& [name, value] : headers) text += name + ": " + value + "\n";
  return text;
}

HeaderList ParseHeadersText(std::string_view text) {
  HeaderList headers;
  for (const std::string_view line : Split(text, '\n')) {
    const size_t colon = line.find(": ");
    if (colon == std::string_view::npos) continue;
    headers.emplace_back(line.substr(0, colon), line.substr(colon + 2));
  }
  return headers;
}

}  // namespace pulga
