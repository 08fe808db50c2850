#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "api/cli/commands.h"
#include "api/cli/deploy_spec.h"
#include "api/cli/output.h"
#include "api/cli/private_daemon.h"
#include "base/file_io.h"
#include "base/text.h"
#include "sandbox/apparmor.h"
#include "sandbox/cgroup.h"
#include "sandbox/cgroup_layout.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kName = "run";
// Of a deploy: what a single call of a local archive in exec mode has no use for.
constexpr std::string_view kNoOptions[] = {"image",
                                           "file",
                                           "mode",
                                           "pull",
                                           "port",
                                           "min",
                                           "max",
                                           "concurrency",
                                           "queue",
                                           "queue-wait",
                                           "parked",
                                           "idle",
                                           "freeze-after",
                                           "start-timeout",
                                           "label",
                                           "annotation",
                                           "cpu-target",
                                           "latency-target",
                                           "latency-percentile"};

Status Deploy(const DaemonClient& client, const Args& args, const std::string& image) {
  PULGA_ASSIGN_OR_RETURN(const DeploySpec flags, BuildDeploySpec(args, ""));
  Json spec = Json::parse(flags.json, nullptr, /*allow_exceptions=*/false);
  spec["image"] = image;
  spec["mode"] = "exec";
  spec["pull"] = "never";  // it was imported a moment ago
  spec["scale"]["max"] = 1;
  spec["scale"]["parked"] = 0;
  // One run may take and say as much as it likes, unless told otherwise.
  Json& limits = spec["limits"];
  for (const auto& [name, value] :
       {std::pair("timeout", "24h"), std::pair("body", "1Gi"), std::pair("output", "1Gi")}) {
    if (!limits.contains(name)) limits[name] = value;
  }
  const std::vector<std::string> given(args.words().begin() + 1, args.words().end());
  if (!given.empty()) spec["args"] = given;
  ClientRequest request;
  request.method = "PUT";
  request.target = std::string("/v1/functions/") + kName;
  request.body = spec.dump();
  return Status(client.Call(std::move(request)));
}

// Servers run until their time is up, without a word: whoever meant to call one is told.
void TellAboutPorts(const DaemonClient& client, const std::string& image) {
  const auto reply = client.Get("/v1/images/" + PercentEncode(image));
  if (!reply.ok()) return;
  const Json json = Json::parse(reply->body, nullptr, /*allow_exceptions=*/false);
  const Json::json_pointer where("/config/exposed_ports");
  if (!json.is_object() || !json.contains(where) || json[where].empty()) return;
  std::vector<std::string> ports;
  for (const Json& port : json[where])
    ports.push_back(port.is_string() ? port.get<std::string>() : port.dump());
  PrintErr("pulga: note: the image EXPOSEs " + Join(ports, ", ") +
           ", but its program runs with stdin and stdout only: nothing can reach a port of it. To "
           "call a server, `pulga deploy` it\n");
}

// The exit code a shell would report for the program.
int ExitCodeOf(const std::string& outcome) {
  if (outcome == "ok") return 0;
  const size_t colon = outcome.find(':');
  const std::string kind = outcome.substr(0, colon);
  const std::string detail = colon == std::string::npos ? "" : outcome.substr(colon + 1);
  if (kind == "exited") return static_cast<int>(ParseUint(detail, 255).value_or(1));
  for (int signo = 1; kind == "signaled" && signo < 65; ++signo) {
    const char* name = sigabbrev_np(signo);
    if (name != nullptr && detail == std::string("SIG") + name) return 128 + signo;
  }
  if (kind == "oom-killed") return 128 + SIGKILL;
  return kind == "timed-out" ? 124 : kExitFailed;
}

struct CallLog {
  std::string stderr_text;
  std::string outcome;  // as our own remark on the call says
};

// A reply that broke off carries no outcome; the function's log does.
CallLog ReadLog(const DaemonClient& client) {
  CallLog out;
  const auto reply = client.Get(std::string("/v1/functions/") + kName + "/logs?tail=10000");
  if (!reply.ok()) return out;
  for (std::string_view line : Split(reply->body, '\n')) {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    const std::string text = json.value("text", "");
    if (json.value("stream", "") == "stderr") out.stderr_text += text + "\n";
    if (json.value("stream", "") != "pulga") continue;
    for (std::string_view word : Split(text, ' ')) {
      while (!word.empty() && (word.back() == ',' || word.back() == '.')) word.remove_suffix(1);
      for (const char* kind :
           {"exited:", "signaled:", "oom-killed", "timed-out", "syscall-denied", "output-limit"}) {
        if (word.substr(0, strlen(kind)) == kind) out.outcome = word;
      }
    }
  }
  return out;
}

int Call(const DaemonClient& client, const Args& args) {
  ClientRequest request;
  request.method = "POST";
  request.target = std::string("/function/") + kName + "?stream=1";
  if (isatty(STDIN_FILENO) != 1 && fcntl(STDIN_FILENO, F_GETFD) >= 0)
    request.body_fd = STDIN_FILENO;
  const auto reply = client.Invoke(request, [](const ClientReply& head, std::string_view bytes) {
    return head.status == 200 ? WriteAll(STDOUT_FILENO, bytes) : OkStatus();
  });
  if (!reply.ok()) return Fail(reply.error());
  const CallLog log = ReadLog(client);
  PrintErr(log.stderr_text);
  std::string outcome = reply->Header("X-Pulga-Outcome");
  if (outcome.empty()) outcome = log.outcome;
  if (args.Has("verbose")) PrintErr(ReceiptTable(*reply));
  if (args.Has("json"))
    PrintErr(Json({{"outcome", outcome}, {"status", reply->status}}).dump() + "\n");
  const int code = ExitCodeOf(outcome);
  if (outcome != "ok")
    PrintError("the program ended with " + (outcome.empty() ? "an unknown outcome" : outcome));
  return code;
}

int RunWith(const Args& args, const Programs& programs, const EndingSignals& signals) {
  const std::string& archive = args.words()[0];
  const auto readable = OpenFile(archive, O_RDONLY);
  if (!readable.ok()) return Fail(readable.error());
  auto daemon = PrivateDaemon::Start(programs, signals, args.Value("apparmor").value_or("auto"));
  if (!daemon.ok()) return Fail(daemon.error());
  const auto client = (*daemon)->Client();
  if (!client.ok()) return Fail(client.error());
  const auto imported = ImportArchive(*client, {archive, "", false});
  if (!imported.ok()) return Fail(imported.error());
  const std::vector<std::string> refs = ImportedRefs(imported->body);
  if (refs.size() != 1)
    return Fail(
        {Code::kInvalidArgument, 0, archive + " holds several images: " + Join(refs, ", ")});
  const Status deployed = Deploy(*client, args, refs[0]);
  if (!deployed.ok()) return Fail(deployed.error());
  TellAboutPorts(*client, refs[0]);
  return Call(*client, args);
}

// A cgroup that is given to us may have controllers below only once nobody is in it.
Status LeaveOwnCgroup() {
  PULGA_ASSIGN_OR_RETURN(const CgroupSnapshot snapshot, ReadCgroupSnapshot());
  return EnterCgroupLeaf(FindControllers(snapshot));
}

int RunRun(const Args& args) {
  if (!ParseAppArmorUse(args.Value("apparmor").value_or("auto"))) {
    return UsageError(std::string("--apparmor: must be ") + kAppArmorUses);
  }
  const auto programs = FindPrograms();
  if (!programs.ok()) return Fail(programs.error());
  const bool of_user = geteuid() != 0;
  const Status root = BecomeRoot("pulga run");
  if (!root.ok()) return Fail(root.error());
  const Status moved = of_user ? LeaveOwnCgroup() : OkStatus();
  if (!moved.ok()) return Fail(moved.error());
  const auto signals = EndingSignals::Take();
  if (!signals.ok()) return Fail(signals.error());
  const int code = RunWith(args, *programs, *signals);  // the daemon is gone when this returns
  const std::optional<int> signo = signals->Received();
  return signo ? 128 + *signo : code;
}

}  // namespace

std::vector<Command> RunCommands() {
  Command run{
      "run",
      "[options] IMAGE.tar [ARGUMENT...]",
      "Run an image's program once, in a sandbox, and leave nothing.",
      "stdin and stdout are the program's, its exit code becomes this command's. What\n"
      "follows IMAGE.tar replaces the image's own arguments. Unless told otherwise, it may\n"
      "take 24h and 1Gi each of input and output. Nothing can reach a port of it.",
      DeploySpecOptions() +
          std::vector<Option>{{"verbose", 'v', "", "print the receipt on stderr"},
                              {"apparmor", 0, "auto|require|off", "as of pulga serve"}} +
          CommonOptions(),
      1,
      1000,
      &RunRun};
  std::erase_if(run.options, [](const Option& o) {
    return std::find(std::begin(kNoOptions), std::end(kNoOptions), o.name) != std::end(kNoOptions);
  });
  run.words = Command::Words::kEndOptions;
  return {run};
}

}  // namespace pulga::cli
