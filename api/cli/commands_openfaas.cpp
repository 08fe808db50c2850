// pulga export: what the daemon has, for OpenFaaS elsewhere.
#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "api/cli/stack_export.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

constexpr const char* kGatewayElsewhere = "http://127.0.0.1:8080";

// The one that is asked for, or all there are.
Result<std::vector<std::string>> NamespacesFor(const DaemonClient& client, const Args& args) {
  if (const auto asked = args.Value("namespace")) return std::vector<std::string>{*asked};
  PULGA_ASSIGN_OR_RETURN(const ClientReply reply, client.Get("/system/namespaces"));
  const Json list = ParseReply(reply.body);
  std::vector<std::string> names;
  for (const Json& name : list) {
    if (name.is_string()) names.push_back(name.get<std::string>());
  }
  return names;
}

Result<StackExport> ExportStack(const DaemonClient& client, const Args& args) {
  PULGA_ASSIGN_OR_RETURN(const auto namespaces, NamespacesFor(client, args));
  Json shown = Json::array();
  for (const std::string& name : namespaces) {
    PULGA_ASSIGN_OR_RETURN(const ClientReply gateway,
                           client.Get("/system/functions?namespace=" + PercentEncode(name)));
    for (Json& function : ParseReply(gateway.body)) shown.push_back(std::move(function));
  }
  PULGA_ASSIGN_OR_RETURN(const ClientReply native, client.Get("/v1/functions"));
  const Json list = ParseReply(native.body);
  if (!list.is_object()) {
    return Error{Code::kInternal, 0, "the daemon's answer is no list of functions"};
  }
  return MakeStack({shown, Field(list, "functions")},
                   args.Value("gateway").value_or(kGatewayElsewhere));
}

int RunExport(const Args& args) {
  if (!args.Has("openfaas")) return UsageError("what for? pulga export --openfaas");
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto stack = ExportStack(*client, args);
  if (!stack.ok()) return Fail(stack.error());
  if (args.Has("json")) {
    PrintOut(Json({{"stack", stack->yaml}, {"left_out", stack->left_out}}).dump() + "\n");
  } else {
    PrintOut(stack->yaml);
  }
  for (const std::string& line : stack->left_out) PrintErr("left out: " + line + "\n");
  return stack->left_out.empty() ? kExitOk : kExitFailed;
}

}  // namespace

std::vector<Command> OpenFaasCommands() {
  const std::vector<Option> options = {
      {"openfaas", 0, "", "as a stack.yml for faas-cli"},
      {"namespace", 'n', "NAME", "the functions of this one alone"},
      {"gateway", 'g', "URL", "where they will be deployed (http://127.0.0.1:8080)"}};
  return {{"export", "--openfaas [options]", "Write functions down for OpenFaaS elsewhere.",
           "faas-cli deploy -f takes it, with OpenFaaS on Kubernetes too. Images must be in a "
           "registry that\n"
           "cluster reaches, secrets must be there already. What OpenFaaS can not run is left out, "
           "told on\n"
           "stderr, and makes the exit status 1.",
           options + ClientOptions(), 0, 0, &RunExport}};
}

}  // namespace pulga::cli
