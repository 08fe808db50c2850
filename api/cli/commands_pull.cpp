#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "base/file_io.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

// The daemon's lines as they come: progress to the bar, the last one kept.
class PullListener {
 public:
  explicit PullListener(std::string label) : label_(std::move(label)) {}

  void Take(std::string_view bytes) {
    waiting_ += bytes;
    for (size_t end = waiting_.find('\n'); end != std::string::npos; end = waiting_.find('\n')) {
      TakeLine(ParseReply(std::string_view(waiting_).substr(0, end)));
      waiting_.erase(0, end + 1);
    }
  }
  // The "result", or the "error" as the daemon's reply would have been.
  Result<Json> Finish() {
    bar_.reset();
    if (last_.contains("result")) return last_["result"];
    if (!last_.contains("error")) return Error{Code::kIo, 0, "the daemon's reply broke off"};
    ClientReply refused;
    refused.body = last_.dump();
    return Error{Code::kInvalidArgument, 0, ErrorTextOf(refused)};
  }

 private:
  void TakeLine(const Json& line) {
    if (!line.is_object()) return;
    if (!line.contains("progress") || !line["progress"].is_object()) {
      last_ = line;
      return;
    }
    const Json& progress = line["progress"];
    if (!bar_) bar_.emplace(label_, progress.value("total_size", uint64_t{0}));
    layers_[progress.value("layer", uint64_t{0})] = progress.value("bytes", uint64_t{0});
    uint64_t sum = 0;
    for (const auto& [layer, bytes] : layers_) sum += bytes;
    bar_->Update(sum);
  }

  std::string label_;
  std::string waiting_;
  std::optional<ProgressBar> bar_;
  std::map<uint64_t, uint64_t> layers_;
  Json last_ = Json::object();
};

Result<Json> LoginOf(const Args& args) {
  const auto user = args.Value("user");
  if (!user) return Json();
  if (!args.Has("password-stdin")) {
    return Error{Code::kInvalidArgument, 0, "--user needs --password-stdin"};
  }
  PULGA_ASSIGN_OR_RETURN(std::string password, ReadFd(STDIN_FILENO, 16 * 1024));
  while (password.ends_with('\n') || password.ends_with('\r')) password.pop_back();
  return Json({{"username", *user}, {"password", password}});
}

int RunPull(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto login = LoginOf(args);
  if (!login.ok()) return UsageError(login.error().message);
  const auto result = PullImage(*client, args.words()[0], login->is_null() ? "" : login->dump());
  if (!result.ok()) return Fail(result.error());
  if (args.Has("json")) {
    PrintOut(*result + "\n");
  } else {
    PrintImages(*result, "pulled");
  }
  return kExitOk;
}

}  // namespace

Result<std::string> PullImage(const DaemonClient& client, const std::string& ref,
                              const std::string& auth_json) {
  Json body = {{"ref", ref}};
  if (!auth_json.empty()) body["auth"] = ParseReply(auth_json);
  ClientRequest request;
  request.method = "POST";
  request.target = "/v1/images/pull";
  request.headers = {{"Content-Type", "application/json"}, {"Accept", "application/x-ndjson"}};
  if (!client.key().empty())
    request.headers.emplace_back("Authorization", "Bearer " + client.key());
  request.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  PullListener listener("pull " + ref);
  std::string refusal;
  const auto reply = client.Invoke(request, [&](const ClientReply& head, std::string_view bytes) {
    if (head.status == 200) {
      listener.Take(bytes);
    } else {
      refusal += bytes.substr(0, 64 * 1024);
    }
    return OkStatus();
  });
  if (!reply.ok()) return reply.error();
  if (reply->status != 200) {
    ClientReply refused = *reply;
    refused.body = refusal;
    return Error{Code::kInvalidArgument, 0, ErrorTextOf(refused)};
  }
  PULGA_ASSIGN_OR_RETURN(const Json result, listener.Finish());
  return result.dump();
}

std::vector<Command> PullCommands() {
  const auto options =
      std::vector<Option>{{"user", 0, "NAME", "who we are at the registry, for this pull"},
                          {"password-stdin", 0, "", "read the password from stdin"}} +
      ClientOptions();
  const char* summary = "Pull an image from its registry.";
  const char* details =
      "Layers that are here already are not fetched again. Credentials: --user, or the daemon's\n"
      "own registry-auth.json.";
  return {{"pull", "IMAGE", summary, details, options, 1, 1, &RunPull},
          {"image pull", "IMAGE", summary, details, options, 1, 1, &RunPull}};
}

}  // namespace pulga::cli
