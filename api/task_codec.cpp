#include "api/task_codec.h"

#include <nlohmann/json.hpp>

#include "api/json_codec.h"

namespace pulga {
namespace {

using Json = nlohmann::ordered_json;

std::string DumpLine(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json TimeOrNull(int64_t unix_ms) { return unix_ms == 0 ? Json() : Json(Rfc3339(unix_ms)); }

Json ToJson(const TaskCallback& callback) {
  if (callback.state == CallbackState::kNone) return Json();
  return {{"state", CallbackStateName(callback.state)},
          {"tries", callback.tries},
          {"not_before", TimeOrNull(callback.not_before_ms)},
          {"error", callback.error.empty() ? Json() : Json(callback.error)}};
}

Json ToJson(const Task& task) {
  const bool ended = HasEnded(task.state);
  Json out = {{"id", task.id},
              {"function", task.function.name},
              {"namespace", task.function.name_space},
              {"state", TaskStateName(task.state)},
              {"attempts", task.attempts},
              {"created_at", Rfc3339(task.created_ms)},
              {"not_before", ended ? Json() : TimeOrNull(task.not_before_ms)},
              {"started_at", TimeOrNull(task.begun_ms)},
              {"ended_at", TimeOrNull(task.ended_ms)}};
  out["outcome"] = task.outcome.empty() ? Json() : Json(task.outcome);
  out["status"] = task.status == 0 ? Json() : Json(task.status);
  out["duration_s"] = ended && task.begun_ms != 0 ? Json(task.function_seconds) : Json();
  out["size_bytes"] = task.bytes;
  out["callback"] = ToJson(task.callback);
  return out;
}

}  // namespace

std::string TaskJson(const Task& task) { return DumpLine(ToJson(task)); }

std::string TaskListJson(const std::vector<Task>& tasks, const TaskTotals& totals) {
  Json list = Json::array();
  for (const Task& task : tasks) list.push_back(ToJson(task));
  return DumpLine({{"tasks", list},
                   {"queued", totals.counts.queued},
                   {"running", totals.counts.running},
                   {"ended", totals.ended},
                   {"callbacks", totals.callbacks},
                   {"size_bytes", totals.bytes}});
}

}  // namespace pulga
