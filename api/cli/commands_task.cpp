#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "api/http_message.h"
#include "base/file_io.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

std::string PathOf(const std::string& id) { return "/v1/tasks/" + PercentEncode(id); }

Colour ColourOf(const std::string& state) {
  if (state == "done" || state == "delivered") return Colour::kGreen;
  if (state == "failed" || state == "dead" || state == "given-up") return Colour::kRed;
  return state == "running" ? Colour::kYellow : Colour::kNone;
}

std::string OrDash(std::string text) { return text.empty() ? "-" : text; }

int RunList(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  std::string target = "/v1/tasks?limit=" + PercentEncode(args.Value("limit").value_or("100"));
  for (const char* name : {"function", "state"}) {
    if (const auto value = args.Value(name)) {
      target += "&" + std::string(name) + "=" + PercentEncode(*value);
    }
  }
  const auto reply = client->Get(target);
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  const Json list = ParseReply(reply->body);
  Table table({"ID", "FUNCTION", "STATE", "TRIES", "OUTCOME", "CALLBACK", "CREATED"});
  for (const Json& task : ListIn(list, "tasks")) {
    const std::string state = TextIn(task, "state");
    const std::string callback = TextIn(Field(task, "callback"), "state");
    table.Add({{TextIn(task, "id"), Colour::kBold},
               {TextIn(task, "function")},
               {state, ColourOf(state)},
               {std::to_string(NumberIn(task, "attempts"))},
               {OrDash(TextIn(task, "outcome"))},
               {OrDash(callback), ColourOf(callback)},
               {TextIn(task, "created_at")}});
  }
  PrintOut(table.Render(Style::ForFd(STDOUT_FILENO)));
  PrintOut(std::to_string(NumberIn(list, "queued")) + " queued, " +
           std::to_string(NumberIn(list, "running")) + " running, " +
           std::to_string(NumberIn(list, "callbacks")) + " callbacks owed\n");
  return kExitOk;
}

void AddCallback(const Json& callback, Table* table) {
  const std::string state = TextIn(callback, "state");
  if (state.empty()) return;
  table->Add({{"callback", Colour::kFaint}, {state, ColourOf(state)}});
  table->Add({{"callback tries", Colour::kFaint}, {std::to_string(NumberIn(callback, "tries"))}});
  const std::string error = TextIn(callback, "error");
  if (!error.empty()) table->Add({{"callback error", Colour::kFaint}, {error}});
}

int RunShow(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto reply = client->Get(PathOf(args.words()[0]));
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  const Json task = ParseReply(reply->body);
  Table table({});
  for (const char* name : {"id", "function", "state", "outcome", "created_at", "not_before",
                           "started_at", "ended_at"}) {
    const std::string text = TextIn(task, name);
    if (text.empty()) continue;
    const bool state = std::string_view(name) == "state";
    table.Add({{name, Colour::kFaint}, {text, state ? ColourOf(text) : Colour::kNone}});
  }
  for (const char* name : {"status", "attempts", "size_bytes"}) {
    if (!Field(task, name).is_number()) continue;
    table.Add({{name, Colour::kFaint}, {std::to_string(NumberIn(task, name))}});
  }
  AddCallback(Field(task, "callback"), &table);
  PrintOut(table.Render(Style::ForFd(STDOUT_FILENO)));
  return kExitOk;
}

int RunResult(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto reply = client->Get(PathOf(args.words()[0]) + "/result");
  if (!reply.ok()) return Fail(reply.error());
  const Status written = WriteAll(STDOUT_FILENO, reply->body);
  if (!written.ok()) return Fail(written.error());
  const std::string status = reply->Header("X-Function-Status");
  if (status.empty() || status[0] <= '3') return kExitOk;
  PrintError("the task ended with " + reply->Header("X-Pulga-Outcome") + ", status " + status);
  return kExitFailed;
}

int RunRemove(const Args& args) { return RemoveEach(args, PathOf); }

}  // namespace

std::vector<Command> TaskCommands() {
  return {
      {"tasks ls", "[--function NAME] [--state STATE]", "List asynchronous calls, newest first.",
       "",
       std::vector<Option>{
           {"function", 'f', "NAME", "those of one function"},
           {"state", 's', "STATE", "queued, running, done, failed, dead or cancelled"},
           {"limit", 'n', "N", "at most so many (100)"}} +
           ClientOptions(),
       0, 0, &RunList},
      {"tasks show", "ID", "Show one asynchronous call.", "", ClientOptions(), 1, 1, &RunShow},
      {"tasks result", "ID", "Print what the function answered.",
       "The exit code is 0 if its status was below 400.", ClientOptions(), 1, 1, &RunResult},
      {"tasks rm", "ID...", "Cancel asynchronous calls that have not ended, and forget them.", "",
       ClientOptions(), 1, 100, &RunRemove},
  };
}

}  // namespace pulga::cli
