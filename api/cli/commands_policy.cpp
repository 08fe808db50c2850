#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "api/cli/client.h"
#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "base/file_io.h"
#include "base/text.h"
#include "base/units.h"
#include "runtime/call_history.h"
#include "runtime/policy/replay.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array kRows = {Rung::kCold, Rung::kParked, Rung::kReclaimed, Rung::kFrozen,
                              Rung::kWarm};

struct Request {
  Trace trace;
  RungModel model;
  std::vector<uint64_t> budgets = {0};
  std::vector<Duration> ttls;
};

// The daemon's answer, or what it left in its data directory.
Result<std::string> History(const Args& args) {
  if (const auto dir = args.Value("data")) {
    const char* const scratch = getenv("TMPDIR");
    PULGA_ASSIGN_OR_RETURN(const UniqueFd file,
                           HistoryOfStopped(*dir, scratch == nullptr ? "/tmp" : scratch));
    return ReadFd(file.get(), kTraceFileBytes);
  }
  PULGA_ASSIGN_OR_RETURN(const DaemonClient client, DaemonClient::FromArgs(args));
  PULGA_ASSIGN_OR_RETURN(ClientReply reply, client.Get("/v1/history"));
  return std::move(reply.body);
}

// What this board's daemon recorded.
Result<Trace> RecordedTrace(const Args& args) {
  PULGA_ASSIGN_OR_RETURN(const std::string history, History(args));
  auto trace = ParseHistory(history);
  if (!trace.ok()) return Prefix("the daemon's history", std::move(trace).error());
  if (trace->calls.empty()) {
    return Error{Code::kNotFound, 0, "no call was recorded yet: what to replay is missing"};
  }
  return trace;
}

Result<Trace> TraceOf(const Args& args) {
  const auto file = args.Value("trace");
  const auto seed = args.Value("generate");
  if (file.has_value() + seed.has_value() + args.Has("history") != 1) {
    return Error{Code::kInvalidArgument, 0, "one of --trace FILE, --history and --generate SEED"};
  }
  if (args.Has("data") && !args.Has("history")) {
    return Error{Code::kInvalidArgument, 0, "--data belongs to --history"};
  }
  if (args.Has("history")) return RecordedTrace(args);
  if (file) return ReadTrace(*file);
  const auto number = ParseUint(*seed, UINT32_MAX);
  if (!number) {
    return Error{Code::kInvalidArgument, 0, "--generate: a number from 0 to 4294967295"};
  }
  return MakeTrace(static_cast<uint32_t>(*number), 100);
}

Result<Request> RequestOf(const Args& args) {
  Request request;
  PULGA_ASSIGN_OR_RETURN(request.trace, TraceOf(args));
  for (const std::string& text : args.Values("budget")) {
    const auto bytes = ParseBytes(text);
    if (!bytes.ok() || *bytes == 0) {
      return Error{Code::kInvalidArgument, 0, "--budget: \"" + text + "\" is no size like 512Mi"};
    }
    request.budgets.push_back(*bytes);
  }
  for (const std::string& text : args.Values("ttl")) {
    const auto ttl = ParseDuration(text);
    if (!ttl.ok()) return Prefix("--ttl", ttl.error());
    request.ttls.push_back(*ttl);
  }
  if (request.ttls.empty()) {
    request.ttls = {std::chrono::minutes(1), std::chrono::minutes(10), std::chrono::minutes(60)};
  }
  if (const auto init = args.Value("init")) {
    const auto value = ParseDuration(*init);
    if (!value.ok()) return Prefix("--init", value.error());
    for (TraceFunction& function : request.trace.functions) function.init = *value;
  }
  return request;
}

std::string Gibibytes(double bytes) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.2f GiB", bytes / (1ULL << 30));
  return text.data();
}

std::string Seconds(Duration duration) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f s",
                std::chrono::duration<double>(duration).count());
  return text.data();
}

std::vector<Cell> RowOf(const std::string& name, uint64_t budget, const ReplayCost& cost) {
  std::vector<Cell> row = {{name, Colour::kBold}, {budget == 0 ? "-" : FormatBytes(budget)}};
  for (const Rung rung : kRows) row.push_back({std::to_string(cost.at(rung))});
  row.push_back({std::to_string(cost.program_starts())});
  row.push_back({std::to_string(cost.prewarmed)});
  row.push_back({Seconds(cost.waited)});
  row.push_back({Gibibytes(cost.idle_bytes)});
  return row;
}

Json JsonOf(const std::string& name, uint64_t budget, const ReplayCost& cost) {
  Json out = {{"policy", name}, {"budget_bytes", budget == 0 ? Json() : Json(budget)}};
  for (const Rung rung : kRows) out["starts"][std::string(RungName(rung))] = cost.at(rung);
  out["program_starts"] = cost.program_starts();
  out["prewarmed"] = cost.prewarmed;
  out["waited_ms"] = std::chrono::duration_cast<std::chrono::milliseconds>(cost.waited).count();
  out["idle_bytes"] = static_cast<uint64_t>(cost.idle_bytes);
  out["peak_bytes"] = cost.peak_bytes;
  return out;
}

int RunReplay(const Args& args) {
  const auto request = RequestOf(args);
  if (!request.ok()) {
    const Error& error = request.error();
    return error.code == Code::kInvalidArgument ? UsageError(error.message) : Fail(error);
  }
  Table table({"POLICY", "BUDGET", "COLD", "PARKED", "RECLAIMED", "FROZEN", "WARM",
               "PROGRAM STARTS", "PREWARMED", "WAITED", "IDLE MEMORY"});
  Json rows = Json::array();
  for (const uint64_t budget : request->budgets) {
    for (const ReplayPolicy& policy : StandardPolicies(budget, request->ttls)) {
      const ReplayCost cost = Replay(request->trace, policy, request->model);
      table.Add(RowOf(policy.name, budget, cost));
      rows.push_back(JsonOf(policy.name, budget, cost));
    }
  }
  if (args.Has("json")) {
    PrintOut(Json({{"functions", request->trace.functions.size()},
                   {"ticks", request->trace.ticks},
                   {"policies", rows}})
                 .dump() +
             "\n");
    return kExitOk;
  }
  PrintOut(std::to_string(request->trace.functions.size()) + " functions, " +
           FormatDuration(request->trace.ticks * request->trace.tick) + "\n" +
           table.Render(Style::ForFd(STDOUT_FILENO)));
  return kExitOk;
}

}  // namespace

std::vector<Command> PolicyCommands() {
  const std::vector<Option> options = {
      {"trace", 0, "FILE", "calls per minute (Azure Functions 2019), or func_name,invoke_time_ms"},
      {"history", 0, "", "the calls that the daemon recorded, of the last two weeks"},
      {"data", 0, "DIR", "with --history: from the data directory of a daemon that is stopped"},
      {"generate", 0, "SEED", "a day of 100 made-up functions instead"},
      {"budget", 0, "SIZE", "also within so much memory; may be repeated"},
      {"ttl", 0, "TIME", "the fixed times to compare with (1m, 10m, 60m); may be repeated"},
      {"init", 0, "TIME", "how long programs take to begin (250ms where the trace does not tell)"}};
  return {
      {"policy replay", "--trace FILE|--history [--data DIR]|--generate SEED [options]",
       "What keep-alive policies would have cost.",
       "By the code that decides in the daemon, which only --history without --data asks. Starts "
       "are counted by\n"
       "what the first call of a minute found; WAITED is for all of them together. docs/policy.md "
       "explains.",
       options + ClientOptions(), 0, 0, &RunReplay}};
}

}  // namespace pulga::cli
