#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "api/json_codec.h"
#include "base/clock.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

std::string Text(const Json& object, const char* name) {
  const Json& value = Field(object, name);
  if (value.is_string()) return value.get<std::string>();
  return value.is_null() ? "-" : value.dump();
}

uint64_t Failures(const Json& function) {
  uint64_t sum = 0;
  for (const auto& [name, count] : Field(function, "outcomes").items()) {
    if (name != "ok" && count.is_number_unsigned()) sum += count.get<uint64_t>();
  }
  return sum;
}

uint64_t Memory(const Json& function) {
  uint64_t sum = 0;
  for (const Json& i : Field(function, "instances")) sum += NumberIn(i, "memory_bytes");
  return sum;
}

// "2 warm, 1 parked", or what is wrong.
Cell State(const Json& function) {
  const std::string trouble = Text(function, "trouble");
  if (!trouble.empty() && trouble != "-") return {trouble, Colour::kRed};
  std::map<std::string, int> steps;
  for (const Json& instance : Field(function, "instances")) ++steps[Text(instance, "step")];
  std::string text;
  for (const auto& [step, count] : steps)
    text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + step;
  return text.empty() ? Cell{"idle", Colour::kFaint} : Cell{text, Colour::kGreen};
}

int RunList(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto reply = client->Get("/v1/functions");
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  Table table({"NAME", "IMAGE", "VERSION", "MODE", "CALLS", "FAILED", "MEMORY", "INSTANCES"});
  const Json list = ParseReply(reply->body);
  for (const Json& function : Field(list, "functions")) {
    const uint64_t failed = Failures(function);
    table.Add({{Text(function, "name"), Colour::kBold},
               {Text(function, "image")},
               {Text(function, "version")},
               {Text(function, "mode")},
               {Text(function, "invocations")},
               {std::to_string(failed), failed == 0 ? Colour::kNone : Colour::kYellow},
               {HumanBytes(Memory(function))},
               State(function)});
  }
  if (table.empty()) {
    PrintErr("no functions yet: pulga deploy NAME --image REF|FILE\n");
  } else {
    PrintOut(table.Render(Style::ForFd(STDOUT_FILENO)));
  }
  return kExitOk;
}

std::string Flat(const Json& list) {
  std::string out;
  for (const Json& word : list) {
    if (word.is_string()) out += (out.empty() ? "" : " ") + word.get<std::string>();
  }
  return out.empty() ? "-" : out;
}

std::string Pairs(const Json& object) {
  std::string out;
  for (const auto& [name, value] : object.items()) {
    const bool range = value.is_object() && value.contains("min") && value.contains("max");
    out += (out.empty() ? "" : ", ") + name + " " +
           (range               ? Text(value, "min") + ".." + Text(value, "max")
            : value.is_string() ? value.get<std::string>()
                                : value.dump());
  }
  return out.empty() ? "-" : out;
}

// "frozen 0.3 ms, 12.3 MiB · cold 214 ms": what a call waits for more than on a warm instance, and
// what one holds; those not seen yet in brackets.
std::string Costs(const Json& costs) {
  std::string out;
  for (const char* rung : {"warm", "frozen", "reclaimed", "parked", "cold"}) {
    const Json cost = Field(costs, rung);
    if (!cost.is_object()) continue;
    const Json start = Field(cost, "start_ms");
    std::string one = rung;
    char text[48];
    snprintf(text, sizeof text, " %.3g ms", start.is_number() ? start.get<double>() : 0.0);
    const bool warm = one == "warm", cold = one == "cold";
    if (!warm) one += text;
    if (!cold) one += (warm ? " " : ", ") + HumanBytes(NumberIn(cost, "memory_bytes"));
    const bool seen = NumberIn(cost, "starts") > 0 || warm;
    out += (out.empty() ? "" : " · ") + (seen ? one : "(" + one + ")");
  }
  return out;
}

void PrintFacts(const Json& f, const DaemonClient& client) {
  const Style style = Style::ForFd(STDOUT_FILENO);
  Table facts({});
  const auto add = [&facts](const char* label, const std::string& value) {
    facts.Add({{label, Colour::kFaint}, {value}});
  };
  add("name", Text(f, "name"));
  add("url", client.url().base + Text(f, "url"));
  add("image", Text(f, "image") + "  " + Text(f, "image_digest").substr(0, 19));
  add("version", Text(f, "version"));
  add("mode", Text(f, "mode") + "  (" + Text(f, "mode_reason") + ")");
  add("command", Flat(Field(f, "command")));
  if (Field(f, "port").is_number()) add("port", Text(f, "port"));
  add("limits", Pairs(Field(Field(f, "spec"), "limits")));
  if (Field(f, "limits_now").is_object()) add("now", Pairs(Field(f, "limits_now")));
  add("scale", Pairs(Field(Field(f, "spec"), "scale")));
  add("calls", Text(f, "invocations") + "  (" + Pairs(Field(f, "outcomes")) + ")");
  add("queued", Text(f, "queued"));
  const Json tasks = Field(f, "tasks");
  add("tasks", Text(tasks, "queued") + " queued, " + Text(tasks, "running") + " running");
  if (Field(f, "next_run").is_string()) add("next run", Text(f, "next_run") + "  (its schedule)");
  if (const std::string kept = Text(f, "keep_alive"); !kept.empty()) add("idle", kept);
  if (Field(f, "costs").is_object() && !Field(f, "costs").empty()) {
    add("costs", Costs(Field(f, "costs")));
  }
  add("decision", Text(f, "last_decision"));
  if (const std::string trouble = Text(f, "trouble"); !trouble.empty()) {
    facts.Add({{"trouble", Colour::kFaint}, {trouble, Colour::kRed}});
  }
  const Json refused = Field(f, "refused_calls");
  if (NumberIn(refused, "count") > 0) {
    facts.Add(
        {{"refused", Colour::kFaint},
         {Text(refused, "count") + " system calls  (" + Pairs(Field(refused, "by_name")) + ")",
          Colour::kYellow}});
  }
  for (const Json& layer : ListIn(f, "isolation")) {
    const std::string state = Text(layer, "state");
    if (state == "present") continue;
    facts.Add({{"isolation", Colour::kFaint},
               {Text(layer, "layer") + " " + state + ": " + Text(layer, "why"), Colour::kYellow}});
  }
  for (const Json& warning : Field(f, "warnings")) {
    if (!warning.is_string()) continue;
    facts.Add({{"warning", Colour::kFaint}, {warning.get<std::string>(), Colour::kYellow}});
  }
  PrintOut(facts.Render(style));
}

void PrintFunction(const Json& f, const DaemonClient& client) {
  const Style style = Style::ForFd(STDOUT_FILENO);
  PrintFacts(f, client);
  Table versions({"VERSION", "IMAGE", "MODE", "CREATED", ""});
  for (const Json& v : Field(f, "versions")) {
    const bool active = Field(v, "active").is_boolean() && Field(v, "active").get<bool>();
    versions.Add({{Text(v, "version")},
                  {Text(v, "image")},
                  {Text(v, "mode")},
                  {Text(v, "created_at")},
                  {active ? "active" : "", Colour::kGreen}});
  }
  PrintOut("\n" + versions.Render(style));
  Table instances({"SLOT", "STEP", "CALLS", "MEMORY", "OWN", "SWAPPED", "CHILDREN", "AGE"});
  for (const Json& i : Field(f, "instances")) {
    const Json& memory = Field(i, "memory");
    instances.Add({{Text(i, "slot")},
                   {Text(i, "step")},
                   {Text(i, "open_calls")},
                   {HumanBytes(NumberIn(i, "memory_bytes"))},
                   {HumanBytes(NumberIn(memory, "anon_bytes") + NumberIn(memory, "kernel_bytes"))},
                   {HumanBytes(NumberIn(memory, "swapped_bytes"))},
                   {Text(i, "children")},
                   {HumanAge(static_cast<int64_t>(NumberIn(i, "age_ms")))}});
  }
  if (!instances.empty()) PrintOut("\n" + instances.Render(style));
}

int RunDescribe(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto reply = client->Get("/v1/functions/" + PercentEncode(args.words()[0]));
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
  } else {
    PrintFunction(ParseReply(reply->body), *client);
  }
  return kExitOk;
}

void PrintLogLine(const std::string& line, const Style& style) {
  const Json json = ParseReply(line);
  if (!json.is_object()) return;
  const std::string stream = Text(json, "stream");
  const Colour colour = stream == "stderr"  ? Colour::kYellow
                        : stream == "pulga" ? Colour::kFaint
                                            : Colour::kNone;
  std::string text = Text(json, "text");
  for (char& c : text) {
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) c = '?';
  }
  PrintOut(style.Paint(Colour::kFaint, Text(json, "time")) + " " + style.Paint(colour, text) +
           "\n");
}

// "10m" ago, or a time as the daemon takes it.
std::string SinceOf(const std::string& text) {
  const auto ago = ParseDuration(text);
  if (!ago.ok()) return text;
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(*ago).count();
  return Rfc3339(UnixMillis(SystemClock()) - ms);
}

int RunLogs(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const std::string tail = args.Value("tail").value_or("100");
  if (!ParseUint(tail, 10000)) return UsageError("--tail wants a number up to 10000");
  ClientRequest request;
  request.target = "/v1/functions/" + PercentEncode(args.words()[0]) + "/logs?tail=" + tail +
                   (args.Has("follow") ? "&follow=1" : "");
  if (const auto since = args.Value("since")) {
    request.target += "&since=" + PercentEncode(SinceOf(*since));
  }
  if (!client->key().empty())
    request.headers.emplace_back("Authorization", "Bearer " + client->key());
  const Style style = Style::ForFd(STDOUT_FILENO);
  const bool raw = args.Has("json");
  std::string pending;
  std::string refusal;
  const auto reply = client->Invoke(request, [&](const ClientReply& head, std::string_view bytes) {
    if (head.status != 200) refusal += bytes.substr(0, 64 * 1024);
    if (head.status != 200) return OkStatus();
    pending += bytes;
    for (size_t end; (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1)) {
      if (raw) {
        PrintOut(pending.substr(0, end + 1));
      } else {
        PrintLogLine(pending.substr(0, end), style);
      }
    }
    return OkStatus();
  });
  if (!reply.ok()) return Fail(reply.error());
  if (reply->status != 200) {
    ClientReply refused = *reply;
    refused.body = refusal;
    return Fail({Code::kNotFound, 0, ErrorTextOf(refused)});
  }
  return kExitOk;
}

}  // namespace

std::vector<Command> FunctionCommands() {
  return {
      {"ls", "", "List functions.", "", ClientOptions(), 0, 0, &RunList},
      {"describe", "NAME", "Show one function: its versions, instances and limits.", "",
       ClientOptions(), 1, 1, &RunDescribe},
      {"logs", "NAME [-f]", "Show what a function wrote to stderr.", "",
       std::vector<Option>{{"follow", 'f', "", "go on as new lines come"},
                           {"since", 0, "TIME", "not what is older: 10m, 2026-01-31T12:00:00Z"},
                           {"tail", 'n', "N", "the last N lines first (100)"}} +
           ClientOptions(),
       1, 1, &RunLogs},
  };
}

}  // namespace pulga::cli
