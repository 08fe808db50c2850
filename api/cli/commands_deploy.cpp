#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/deploy_spec.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "base/file_io.h"
#include "base/text.h"
#include "images/image_ref.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

std::string FunctionPath(const std::string& name) { return "/v1/functions/" + PercentEncode(name); }

void PrintDeployed(const DaemonClient& client, const Json& reply, const char* verb) {
  const Style style = Style::ForFd(STDOUT_FILENO);
  const std::string version = reply.contains("version") ? reply["version"].dump() : "?";
  PrintOut(style.Paint(Colour::kGreen, verb) + " " +
           style.Paint(Colour::kBold, TextIn(reply, "name")) + ", version " + version + " of " +
           TextIn(reply, "image") + "\n");
  std::string mode = "mode  " + TextIn(reply, "mode");
  if (const std::string why = TextIn(reply, "mode_reason"); !why.empty()) mode += "  (" + why + ")";
  PrintOut(mode + "\nurl   " + client.url().base + TextIn(reply, "url") + "\n");
  PrintWarnings(reply);
}

// Imports the archive and gives the name to deploy.
Result<std::string> ImportForDeploy(const DaemonClient& client, const std::string& file,
                                    bool any_platform) {
  PULGA_ASSIGN_OR_RETURN(const ClientReply reply, ImportArchive(client, {file, "", any_platform}));
  const std::vector<std::string> refs = ImportedRefs(reply.body);
  if (refs.size() == 1) return refs[0];
  return Error{Code::kInvalidArgument, 0,
               file + " holds several images; deploy one of them by name: " + Join(refs, ", ")};
}

// The daemon would do it too, but without showing how far it is.
Status PullForDeploy(const DaemonClient& client, const std::string& image) {
  const auto here = client.Get("/v1/images/" + PercentEncode(image));
  if (here.ok() || here.error().code != Code::kNotFound) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(const ImageRef ref, ParseImageRef(image));
  const auto pulled = PullImage(client, ref.Familiar(), "");
  if (pulled.ok()) {
    PrintImages(*pulled, "pulled");
    return OkStatus();
  }
  return Prefix("image " + image + " is not here, and pulling it failed", pulled.error());
}

int RunDeploy(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  std::string text;
  if (const auto file = args.Value("file")) {
    auto content = *file == "-" ? ReadFd(STDIN_FILENO, 1 << 20) : ReadFile(*file);
    if (!content.ok()) return Fail(content.error());
    text = *content;
  }
  auto spec = BuildDeploySpec(args, text);
  if (!spec.ok()) return UsageError(spec.error().message);
  const std::string name = args.words().empty() ? spec->name : args.words()[0];
  if (name.empty()) return UsageError("which name? pulga deploy NAME --image REF|FILE");
  if (spec->image.empty()) return UsageError("which image? pulga deploy NAME --image REF|FILE");
  if (LooksLikeArchive(spec->image)) {
    const auto ref = ImportForDeploy(*client, spec->image, false);
    if (!ref.ok()) return Fail(ref.error());
    spec->json = WithImage(spec->json, *ref);
  }
  if (spec->pulls && !LooksLikeArchive(spec->image)) {
    const Status there = PullForDeploy(*client, spec->image);
    if (!there.ok()) return Fail(there.error());
  }
  const auto reply = client->SendJson("PUT", FunctionPath(name), spec->json);
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
  } else {
    PrintDeployed(*client, ParseReply(reply->body), reply->status == 201 ? "deployed" : "replaced");
  }
  return kExitOk;
}

int RunRollback(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  Json body = Json::object();
  if (args.words().size() > 1) {
    const auto version = ParseUint(args.words()[1], UINT32_MAX);
    if (!version) return UsageError("VERSION must be a number; pulga describe lists them");
    body["version"] = *version;
  }
  const std::string path = FunctionPath(args.words()[0]) + "/rollback";
  const auto reply = client->SendJson("POST", path, body.dump());
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
  } else {
    PrintDeployed(*client, ParseReply(reply->body), "rolled back");
  }
  return kExitOk;
}

int RunScale(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto wanted = ParseUint(args.words()[1], 100000);
  if (!wanted) return UsageError("how many instances? pulga scale NAME N");
  const Json body = {{"instances", *wanted}};
  const std::string path = FunctionPath(args.words()[0]) + "/scale";
  const auto reply = client->SendJson("POST", path, body.dump());
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
  } else {
    PrintOut("scaled " + args.words()[0] + " to " + args.words()[1] + "\n");
  }
  return kExitOk;
}

int RunRemove(const Args& args) { return RemoveEach(args, FunctionPath); }

}  // namespace

std::vector<Command> DeployCommands() {
  return {
      {"deploy", "NAME --image REF|FILE [options]",
       "Create a function, or replace it without downtime.",
       "Everything not given has the default that `pulga describe NAME --json` shows. An archive "
       "is\n"
       "imported first.",
       DeploySpecOptions() + ClientOptions(), 0, 1, &RunDeploy},
      {"scale", "NAME N", "Keep N instances until told otherwise.", "", ClientOptions(), 2, 2,
       &RunScale},
      {"rollback", "NAME [VERSION]", "Go back to the version before, or to the one given.", "",
       ClientOptions(), 1, 2, &RunRollback},
      {"rm", "NAME...", "Remove functions.", "", ClientOptions(), 1, 100, &RunRemove},
  };
}

}  // namespace pulga::cli
