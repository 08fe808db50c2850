#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "api/cli/bench_steps.h"
#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/private_daemon.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::ordered_json;
using std::chrono::steady_clock;

struct BenchPlan {
  uint64_t runs = 50;
  uint64_t seconds = 60;
  std::chrono::milliseconds gap{20};
};

Result<uint64_t> NumberOf(const Args& args, const std::string& name, uint64_t otherwise,
                          uint64_t most) {
  const auto text = args.Value(name);
  if (!text) return otherwise;
  const auto value = ParseUint(*text, most);
  if (value && *value > 0) return *value;
  return Error{Code::kInvalidArgument, 0,
               "--" + name + ": a number from 1 to " + std::to_string(most)};
}

Result<BenchPlan> PlanOf(const Args& args) {
  BenchPlan plan;
  PULGA_ASSIGN_OR_RETURN(plan.runs, NumberOf(args, "runs", plan.runs, 100000));
  PULGA_ASSIGN_OR_RETURN(plan.seconds, NumberOf(args, "seconds", plan.seconds, 86400));
  if (const auto text = args.Value("gap")) {
    const auto gap = ParseDuration(*text);
    if (!gap.ok() || *gap > std::chrono::seconds(10)) {
      return Error{Code::kInvalidArgument, 0, "--gap: a time up to 10s, as 20ms"};
    }
    plan.gap = std::chrono::duration_cast<std::chrono::milliseconds>(*gap);
  }
  return plan;
}

std::string TextAt(const Json& json, const char* pointer) {
  const Json::json_pointer where(pointer);
  if (!json.is_object() || !json.contains(where) || json[where].is_null()) return "not told";
  const Json& value = json[where];
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  return text.empty() ? "not told" : text;
}

std::string BytesAt(const Json& json, const char* pointer) {
  const auto bytes = ParseUint(TextAt(json, pointer));
  return bytes ? HumanBytes(*bytes) : "not told";
}

std::string CgroupsOf(const Json& system) {
  std::vector<std::string> worlds;
  for (const Json& feature : system.value("features", Json::array())) {
    const std::string name = feature.value("name", "");
    const std::string detail = feature.value("detail", "");
    const bool asked = name == "cgroup.memory" || name == "cgroup.cpu" || name == "cgroup.pids";
    const std::string world = detail.substr(0, detail.find(','));
    if (!asked || world.empty()) continue;
    if (std::find(worlds.begin(), worlds.end(), world) == worlds.end()) worlds.push_back(world);
  }
  return worlds.empty() ? "none" : Join(worlds, " and ");
}

std::string CoresOf(const Json& system) {
  std::vector<std::string> types;
  const Json::json_pointer where("/board/facts/core_types");
  if (system.contains(where)) {
    for (const Json& type : system[where]) {
      types.push_back(std::to_string(type.value("cores", 0)) + " x " + type.value("name", "?"));
    }
  }
  return types.empty() ? "not told" : Join(types, ", ");
}

Result<Json> SystemOf(const DaemonClient& client) {
  PULGA_ASSIGN_OR_RETURN(const ClientReply reply, client.Get("/v1/system"));
  Json json = Json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Error{Code::kIo, 0, "GET /v1/system: no JSON object"};
  return json;
}

std::vector<std::pair<std::string, std::string>> BoardRows(const Json& before, const Json& after) {
  const auto heat = [](const Json& json) { return TextAt(json, "/board/readings/celsius"); };
  return {{"pulga", TextAt(before, "/version") + ", " + TextAt(before, "/platform")},
          {"model", TextAt(before, "/board/facts/model")},
          {"processors", CoresOf(before)},
          {"kernel", TextAt(before, "/board/facts/kernel")},
          {"governor", TextAt(before, "/board/facts/governor")},
          {"page size", BytesAt(before, "/board/facts/page_bytes")},
          {"memory", BytesAt(before, "/board/facts/memory_bytes")},
          {"cgroups", CgroupsOf(before)},
          {"temperature before, after", heat(before) + ", " + heat(after)},
          {"pressure after", TextAt(after, "/board/level")}};
}

Status Measure(const DaemonClient& client, const BenchPlan& plan, BenchReceipt* receipt) {
  const char* tmp = getenv("TMPDIR");
  PULGA_ASSIGN_OR_RETURN(
      TempDir dir, TempDir::Create(std::string(tmp != nullptr ? tmp : "/tmp") + "/pulga-bench-"));
  PULGA_ASSIGN_OR_RETURN(const Json before, SystemOf(client));
  BenchSteps steps(client, std::move(dir), plan.gap);
  PULGA_RETURN_IF_ERROR(steps.Prepare());
  ProgressBar bar("bench", plan.runs);
  const auto end = steady_clock::now() + std::chrono::seconds(plan.seconds);
  for (uint64_t run = 0; run < plan.runs && (run == 0 || steady_clock::now() < end); ++run) {
    PULGA_RETURN_IF_ERROR(steps.RunOnce());
    bar.Update(run + 1);
  }
  bar.Clear();
  PULGA_ASSIGN_OR_RETURN(const Json after, SystemOf(client));
  *receipt = std::move(steps.receipt);
  receipt->board = BoardRows(before, after);
  receipt->board.emplace_back("paced", std::to_string(plan.gap.count()) +
                                           " ms of idleness before "
                                           "each measurement, steps in turn");
  return OkStatus();
}

int Show(const DaemonClient& client, const BenchPlan& plan, const Args& args) {
  BenchReceipt receipt;
  const Status measured = Measure(client, plan, &receipt);
  if (!measured.ok()) return Fail(measured.error());
  PrintOut(args.Has("json") ? BenchJson(receipt) : BenchMarkdown(receipt));
  return kExitOk;
}

int RunBench(const Args& args) {
  const auto plan = PlanOf(args);
  if (!plan.ok()) return UsageError(plan.error().message);
  if (args.Has("url") || getenv("PULGA_URL") != nullptr) {
    const auto client = DaemonClient::FromArgs(args);
    return client.ok() ? Show(*client, *plan, args) : UsageError(client.error().message);
  }
  const auto programs = FindPrograms();
  if (!programs.ok()) return Fail(programs.error());
  const Status root = BecomeRoot("pulga bench");
  if (!root.ok()) return Fail(root.error());
  const auto signals = EndingSignals::Take();
  if (!signals.ok()) return Fail(signals.error());
  const auto daemon = PrivateDaemon::Start(*programs, *signals);
  if (!daemon.ok()) return Fail(daemon.error());
  const auto client = (*daemon)->Client();
  return client.ok() ? Show(*client, *plan, args) : Fail(client.error());
}

}  // namespace

std::vector<Command> BenchCommands() {
  const std::vector<Option> options = {
      {"runs", 0, "N", "of every step (50)"},
      {"seconds", 0, "N", "after which no run begins (60)"},
      {"gap", 0, "TIME", "of idleness before each measurement (20ms)"}};
  return {{"bench", "[--runs N] [--seconds N] [options]",
           "Measure each kind of start on this board, beside a bare vfork and exec.",
           "Prints a table to paste into an issue. With --url or PULGA_URL on that daemon, which "
           "must be on\nthis board, else on a private one. What it deploys and imports it removes.",
           options + ClientOptions(), 0, 0, &RunBench}};
}

}  // namespace pulga::cli
