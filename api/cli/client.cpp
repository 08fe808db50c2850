#include "api/cli/client.h"

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "api/cli/output.h"
#include "base/file_io.h"
#include "base/text.h"
#include "runtime/daemon/config.h"

namespace pulga::cli {
namespace {

std::string Environment(const char* name) {
  const char* value = getenv(name);
  return value != nullptr ? value : "";
}

// A key that can not be read is no error yet: some daemons and some calls need none.
std::string FindKey(const Args& args) {
  if (const auto key = args.Value("key")) return *key;
  if (std::string key = Environment("PULGA_KEY"); !key.empty()) return key;
  std::string data = args.Value("data").value_or(Environment("PULGA_DATA"));
  if (data.empty()) data = DefaultDataDir();
  const auto content = ReadFile(data + "/admin.key", 4096);
  if (!content.ok()) return "";
  return std::string(Trim(content->substr(0, content->find('\n'))));
}

// What --json tells of the failure that ends the command.
struct Failing {
  bool in_json = false;
  std::string code;  // the daemon's own, of its last refusal
};
Failing failing;

int PrintFailure(const std::string& code, const std::string& message, int exit_code) {
  if (failing.in_json && !HasPrintedOut()) {
    const nlohmann::ordered_json error = {
        {"code", code}, {"message", message}, {"details", nlohmann::ordered_json::object()}};
    const auto replace = nlohmann::json::error_handler_t::replace;
    PrintOut(nlohmann::ordered_json({{"error", error}}).dump(-1, ' ', false, replace) + "\n");
  }
  PrintError(message);
  return exit_code;
}

Code CodeOf(int status) {
  switch (status) {
    case 401:
    case 403:
      return Code::kPermission;
    case 404:
      return Code::kNotFound;
    case 409:
      return Code::kAlreadyExists;
    case 413:
      return Code::kTooLarge;
    case 503:
      return Code::kUnavailable;
    case 507:
      return Code::kNoSpace;
    default:
      return status < 500 ? Code::kInvalidArgument : Code::kInternal;
  }
}

}  // namespace

std::vector<Option> operator+(std::vector<Option> a, const std::vector<Option>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<Option> CommonOptions() {
  return {{"json", 0, "", "print JSON instead of text"}, {"help", 'h', "", "show this help"}};
}

std::vector<Option> ClientOptions() {
  return std::vector<Option>{
             {"url", 0, "URL", "the daemon: http://HOST:PORT or unix:/PATH (PULGA_URL)"},
             {"key", 0, "KEY", "the admin key (PULGA_KEY)"},
             {"data", 0, "DIR", "or the daemon's directory, for its admin.key (PULGA_DATA)"}} +
         CommonOptions();
}

Result<DaemonClient> DaemonClient::FromArgs(const Args& args) {
  std::string text = args.Value("url").value_or(Environment("PULGA_URL"));
  if (text.empty()) text = "http://127.0.0.1:8080";
  PULGA_ASSIGN_OR_RETURN(DaemonUrl url, ParseDaemonUrl(text));
  return DaemonClient(std::move(url), FindKey(args));
}

Result<ClientReply> DaemonClient::Call(ClientRequest request, int* status) const {
  failing.code.clear();
  if (!key_.empty()) request.headers.emplace_back("Authorization", "Bearer " + key_);
  PULGA_ASSIGN_OR_RETURN(ClientReply reply, Exchange(url_, request));
  if (status != nullptr) *status = reply.status;
  if (reply.status >= 400) return Error{CodeOf(reply.status), 0, ErrorTextOf(reply)};
  if (!reply.complete) return Error{Code::kIo, 0, "the daemon's reply broke off"};
  return reply;
}

Result<ClientReply> DaemonClient::SendJson(const std::string& method, const std::string& target,
                                           std::string json) const {
  ClientRequest request;
  request.method = method;
  request.target = target;
  request.headers = {{"Content-Type", "application/json"}};
  request.body = std::move(json);
  return Call(std::move(request));
}

Result<ClientReply> DaemonClient::Get(const std::string& target) const {
  ClientRequest request;
  request.target = target;
  return Call(std::move(request));
}

Result<ClientReply> DaemonClient::Invoke(const ClientRequest& request, const BodySink& sink) const {
  failing.code.clear();
  return Exchange(url_, request, sink);
}

int RemoveEach(const Args& args, const std::function<std::string(const std::string&)>& path) {
  const auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  for (const std::string& name : args.words()) {
    ClientRequest request;
    request.method = "DELETE";
    request.target = path(name);
    const auto reply = client->Call(std::move(request));
    if (!reply.ok()) return Fail(reply.error());
    const bool json = args.Has("json");
    PrintOut(json ? nlohmann::json({{"removed", name}}).dump() + "\n" : "removed " + name + "\n");
  }
  return kExitOk;
}

std::string PercentEncode(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-._~/:@").find(c) != std::string_view::npos;
    if (plain) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

std::string ErrorTextOf(const ClientReply& reply) {
  const auto json = nlohmann::json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && json.contains("error") && json["error"].is_object()) {
    const auto& error = json["error"];
    if (error.contains("code") && error["code"].is_string()) failing.code = error["code"];
    if (error.contains("message") && error["message"].is_string()) return error["message"];
  }
  std::string text(Trim(reply.body.substr(0, 4096)));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  if (text.empty()) text = "no explanation";
  return "the daemon answered " + std::to_string(reply.status) + ": " + text;
}

void TellFailuresInJson() { failing.in_json = true; }

int Fail(const Error& error) {
  const std::string code = failing.code.empty() ? std::string(CodeName(error.code)) : failing.code;
  return PrintFailure(code, error.message, kExitFailed);
}

int UsageError(const std::string& message) { return PrintFailure("usage", message, kExitUsage); }

}  // namespace pulga::cli
