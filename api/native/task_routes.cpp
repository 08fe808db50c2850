#include <algorithm>
#include <cstdio>

#include "api/handlers.h"
#include "api/native/routes.h"
#include "api/task_codec.h"
#include "base/text.h"
#include "runtime/call_name.h"

namespace pulga {
namespace {

constexpr size_t kListed = 100;
constexpr size_t kMostListed = 1000;

HttpReply Refusal(const Error& error) { return ErrorReply(ToApiError(error, "task")); }

Result<TaskFilter> ParseFilter(std::string_view query) {
  TaskFilter filter;
  filter.most = kListed;
  if (const auto name = QueryValue(query, "function")) {
    filter.function = ParseCallName(*name);
    PULGA_RETURN_IF_ERROR(ValidateCallName(*filter.function));
  }
  if (const auto name = QueryValue(query, "state")) {
    for (int i = 0; i <= static_cast<int>(TaskState::kCancelled); ++i) {
      const auto state = static_cast<TaskState>(i);
      if (TaskStateName(state) == *name) filter.state = state;
    }
    if (!filter.state) {
      return Error{Code::kInvalidArgument, 0,
                   "state must be queued, running, done, failed, dead or cancelled"};
    }
  }
  if (const auto text = QueryValue(query, "limit")) {
    const auto most = ParseUint(*text, kMostListed);
    if (!most || *most == 0) {
      return Error{Code::kInvalidArgument, 0, "limit must be a whole number from 1 to 1000"};
    }
    filter.most = static_cast<size_t>(*most);
  }
  return filter;
}

HttpReply ListReply(Engine& engine, const HttpRequest& request) {
  const auto filter = ParseFilter(request.query());
  if (!filter.ok()) return Refusal(filter.error());
  return JsonReply(200, TaskListJson(engine.tasks().List(*filter), engine.tasks().Totals()));
}

HttpReply ShowReply(Engine& engine, const std::string& id) {
  const auto task = engine.tasks().Find(id);
  return task.ok() ? JsonReply(200, TaskJson(*task)) : Refusal(task.error());
}

// What the function answered. Of its headers only the type: this is not the functions' origin.
HttpReply AnswerReply(const Task& task, const Result<TaskAnswer>& answer) {
  if (!answer.ok()) {
    ApiError error = ToApiError(answer.error(), "answer");
    return ErrorReply(error);
  }
  char seconds[32];
  snprintf(seconds, sizeof seconds, "%.6f", task.function_seconds);
  std::string type = "application/octet-stream";
  for (const auto& [name, value] : answer->headers) {
    if (EqualsIgnoreCase(name, "Content-Type")) type = value;
  }
  HttpReply reply;
  reply.headers = {{"Content-Type", type},
                   {"Content-Disposition", "attachment"},
                   {"X-Content-Type-Options", "nosniff"},
                   {"Cache-Control", "no-store"},
                   {"X-Function-Name", task.function.name},
                   {"X-Function-Status", std::to_string(task.status)},
                   {"X-Duration-Seconds", seconds},
                   {"X-Pulga-Outcome", task.outcome}};
  reply.body = answer->body;
  return reply;
}

void TellAnswer(Engine& engine, const std::string& id, const ReplyDone& done) {
  const auto task = engine.tasks().Find(id);
  if (!task.ok()) return done(Refusal(task.error()));
  if (!HasEnded(task->state)) {
    return done(ErrorReply(
        {409,
         "task_not_ended",
         "task " + id + " has no answer yet: it is " + std::string(TaskStateName(task->state)),
         {}}));
  }
  engine.tasks().AnswerOf(id, [done, task = *task](const Result<TaskAnswer>& answer) {
    done(AnswerReply(task, answer));
  });
}

void Remove(Engine& engine, const std::string& id, const ReplyDone& done) {
  engine.tasks().Remove(id, [done](const Status& removed) {
    done(removed.ok() ? EmptyReply(204) : Refusal(removed.error()));
  });
}

}  // namespace

void AddTaskRoutes(Router& router, Engine& engine) {
  router.Add("GET", "/v1/tasks",
             [&engine](HttpExchange& exchange, const PathParams&) {
               return Immediately(exchange, ListReply(engine, exchange.request()));
             },
             {{"function"}, {"state"}, {"limit"}});
  router.Add("GET", "/v1/tasks/{name}",
             [&engine](HttpExchange& exchange, const PathParams& params) {
               return Immediately(exchange, ShowReply(engine, params.name));
             });
  const auto add = [&](const char* method, const char* pattern, auto serve) {
    router.Add(method, pattern, [&engine, serve](HttpExchange& exchange, const PathParams& params) {
      return WithBody(exchange, 0,
                      [&engine, serve, id = params.name](const std::string&, ReplyDone done) {
                        serve(engine, id, done);
                      });
    });
  };
  add("GET", "/v1/tasks/{name}/result", TellAnswer);
  add("DELETE", "/v1/tasks/{name}", Remove);
}

}  // namespace pulga
