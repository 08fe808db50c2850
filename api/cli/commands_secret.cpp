#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "base/file_io.h"
#include "base/units.h"
#include "sandbox/secret_file.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

std::string PathOf(const std::string& name) { return "/v1/secrets/" + PercentEncode(name); }

// A file byte for byte; of what is typed or piped in, without the newline at its end. Never an
// argument: those everybody on the machine can read.
Result<std::string> ReadValue(const Args& args) {
  const auto file = args.Value("from-file");
  if (file) return ReadFile(*file, kMaxSecretBytes);
  if (isatty(STDIN_FILENO) == 1) PrintErr("the value, and then Ctrl-D:\n");
  PULGA_ASSIGN_OR_RETURN(std::string value, ReadFd(STDIN_FILENO, kMaxSecretBytes));
  if (value.ends_with('\n')) {
    value.pop_back();
    if (value.ends_with('\r')) value.pop_back();
  }
  return value;
}

int Put(const Args& args, const std::string& only, const char* done) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  auto value = ReadValue(args);
  if (!value.ok()) return Fail(Prefix("read the value", value.error()));
  ClientRequest request;
  request.method = "PUT";
  request.target = PathOf(args.words()[0]) + "?only=" + only;
  request.headers.emplace_back("Content-Type", "application/octet-stream");
  request.body = std::move(*value);
  const auto reply = client->Call(std::move(request));
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  const Json secret = ParseReply(reply->body);
  PrintOut(std::string(done) + " secret " + TextIn(secret, "name") + "  " +
           HumanBytes(NumberIn(secret, "size_bytes")) + "\n");
  return kExitOk;
}

int RunCreate(const Args& args) { return Put(args, "new", "created"); }
int RunUpdate(const Args& args) { return Put(args, "existing", "updated"); }

int RunList(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto reply = client->Get("/v1/secrets");
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  Table table({"NAME", "SIZE", "CHANGED", "FUNCTIONS"});
  for (const Json& secret : ListIn(ParseReply(reply->body), "secrets")) {
    table.Add({{TextIn(secret, "name"), Colour::kBold},
               {HumanBytes(NumberIn(secret, "size_bytes"))},
               {TextIn(secret, "changed_at")},
               {UsedBy(secret)}});
  }
  if (table.empty()) {
    PrintErr("no secrets yet: pulga secret create NAME < FILE\n");
  } else {
    PrintOut(table.Render(Style::ForFd(STDOUT_FILENO)));
  }
  return kExitOk;
}

int RunRemove(const Args& args) {
  const std::string query = args.Has("force") ? "?force=1" : "";
  return RemoveEach(args, [&](const std::string& name) { return PathOf(name) + query; });
}

std::vector<Option> ValueOptions() {
  return std::vector<Option>{
             {"from-file", 'f', "FILE", "its bytes as they are, instead of stdin"}} +
         ClientOptions();
}

}  // namespace

std::vector<Command> SecretCommands() {
  return {
      {"secret ls", "", "List secrets; their values are never shown.", "", ClientOptions(), 0, 0,
       &RunList},
      {"secret create", "SECRET [--from-file FILE]", "Keep a secret.",
       "Its value is read from stdin (without a newline at its end) or from a file, 1 MiB at "
       "most,\n"
       "and kept sealed.",
       ValueOptions(), 1, 1, &RunCreate},
      {"secret update", "SECRET [--from-file FILE]", "Give a secret another value.", "",
       ValueOptions(), 1, 1, &RunUpdate},
      {"secret rm", "SECRET...", "Remove secrets.",
       "Not while a deployed function has them. Forced, its instances keep what they see, and no "
       "new\none can start.",
       std::vector<Option>{{"force", 0, "", "also what is in use"}} + ClientOptions(), 1, 100,
       &RunRemove},
  };
}

}  // namespace pulga::cli
