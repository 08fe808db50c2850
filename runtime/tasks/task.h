// Task: a stored call, taken with 202 and run later; what it asks for and how it ended. Plain
// values; times in Unix milliseconds. The small part (Task) is in memory for every task there is,
// the rest only in its row. Source: docs/async.md; OpenFaaS, "Async".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/function_spec.h"
#include "runtime/invocation.h"

namespace pulga {

enum class TaskState : uint8_t {
  kQueued,     // waits for its turn, or for a time
  kRunning,    // at most once at any time
  kDone,       // the function answered with a status below 400
  kFailed,     // it answered otherwise, or not at all
  kDead,       // likewise, after all the tries it was given
  kCancelled,  // by somebody, before it ended
};
// "queued", "running", "done", "failed", "dead", "cancelled"
std::string_view TaskStateName(TaskState state);
constexpr bool HasEnded(TaskState state) { return state >= TaskState::kDone; }

// Of a task whose caller gave an X-Callback-Url.
enum class CallbackState : uint8_t {
  kNone,       // it did not
  kWaiting,    // for the task's end
  kOwed,       // it has ended, and its answer is on its way, or waits for the next try
  kDelivered,  // the receiver answered with 2xx
  kGivenUp,    // after all tries, or because no other would do better
};
// "none", "waiting", "owed", "delivered", "given-up"
std::string_view CallbackStateName(CallbackState state);

struct TaskCallback {
  CallbackState state = CallbackState::kNone;
  uint32_t tries = 0;         // that ended
  int64_t not_before_ms = 0;  // kOwed: of the next; 0: at once
  std::string error;          // of the last; empty: none failed
  std::string receiver;       // ReceiverOf its URL (callback_rules.h)
};

struct Task {
  uint64_t seq = 0;  // in order of arrival, from 1
  std::string id;    // the call id
  FunctionKey function;
  TaskState state = TaskState::kQueued;
  uint32_t attempts = 0;    // begun
  uint32_t interrupts = 0;  // of those, cut short by no fault of the function
  int64_t created_ms = 0;
  int64_t not_before_ms = 0;  // 0: at once
  int64_t begun_ms = 0;       // the last attempt; 0: none
  int64_t ended_ms = 0;
  uint64_t bytes = 0;   // on disk: request or answer
  int status = 0;       // of the answer, or what the outcome means in HTTP; 0: not ended
  std::string outcome;  // OutcomeName of the last attempt
  double function_seconds = 0;
  TaskCallback callback;
};
// Nothing is left to be done for it: it may be forgotten.
inline bool IsSettled(const Task& task) {
  return HasEnded(task.state) && task.callback.state != CallbackState::kOwed;
}

// What the function will be sent, by POST.
struct TaskRequest {
  std::string path = "/";
  std::string query;
  HeaderList headers;
  std::string body;
};

struct TaskAnswer {
  HeaderList headers;
  std::string body;
};

// As stored: where the answer is sent, and under which name its function was called.
struct CallbackOrder {
  std::string url;
  std::string invoked_as;  // "echo", "echo.openfaas-fn"
};

// What either takes on disk, with its rows, about.
uint64_t StoredBytes(const TaskRequest& request);
uint64_t StoredBytes(const TaskAnswer& answer);

// Headers as lines "name: value". Neither part ever holds a line feed.
std::string HeadersText(const HeaderList& headers);
HeaderList ParseHeadersText(std::string_view text);

}  // namespace pulga
