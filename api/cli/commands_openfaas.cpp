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

Result<StackExport> ExportStack(const DaemonClient& client, const Args& args) {
  const std::string name_space = args.Value("namespace").value_or(kDefaultNamespace);
  PULGA_ASSIGN_OR_RETURN(const ClientReply gateway,
                         client.Get("/system/functions?namespace=" + PercentEncode(name_space)));
  PULGA_ASSIGN_OR_RETURN(const ClientReply native, client.Get("/v1/functions"));
  const Json shown = ParseReply(gateway.body);
  const Json list = ParseReply(native.body);
  if (!shown.is_array() || !list.is_object()) {
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
      {"namespace", 'n', "NAME", "the functions of this one (openfaas-fn)"},
      {"gateway", 'g', "URL", "where they will be deployed (http://127.0.0.1:8080)"}};
  return {{"export", "--openfaas [options]", "Write down a namespace for OpenFaaS elsewhere.",
           "faas-cli deploy -f takes it, with OpenFaaS on Kubernetes too. Images must be in a "
           "registry that\n"
           "cluster reaches, secrets must be there already. What OpenFaaS can not run is left out, "
           "told on\n"
           "stderr, and makes the exit status 1.",
           options + ClientOptions(), 0, 0, &RunExport}};
}

}  // namespace pulga::cli
