// DaemonClient: what commands use to talk to the daemon: its address and key found, requests made,
// refusals turned into one readable Error. Blocks.
#pragma once

#include <functional>
#include <string>

#include "api/cli/args.h"
#include "api/cli/http_client.h"

namespace pulga::cli {

// --help, --json, and for commands that talk to a daemon --url and --key.
std::vector<Option> CommonOptions();
std::vector<Option> ClientOptions();
std::vector<Option> operator+(std::vector<Option> a, const std::vector<Option>& b);

class DaemonClient {
 public:
  // From --url, PULGA_URL, http://127.0.0.1:8080; from --key, PULGA_KEY, admin.key in PULGA_DATA.
  static Result<DaemonClient> FromArgs(const Args& args);
  DaemonClient(DaemonUrl url, std::string key) : url_(std::move(url)), key_(std::move(key)) {}

  // A status of 400 and more is an Error carrying the daemon's own message.
  // `status`, when given: of the reply, 0 without one.
  Result<ClientReply> Call(ClientRequest request, int* status = nullptr) const;
  Result<ClientReply> Get(const std::string& target) const;
  Result<ClientReply> SendJson(const std::string& method, const std::string& target,
                               std::string json) const;
  // The reply as it is, whatever its status; `sink` may be empty. No key is sent.
  Result<ClientReply> Invoke(const ClientRequest& request, const BodySink& sink) const;
  const DaemonUrl& url() const { return url_; }
  const std::string& key() const { return key_; }

 private:
  DaemonUrl url_;
  std::string key_;
};

// DELETEs the path of each of the command's words, and says so, up to the first that fails; an exit
// code.
int RemoveEach(const Args& args, const std::function<std::string(const std::string&)>& path);

// For a path segment or an image name in a path ('/' stays).
std::string PercentEncode(std::string_view text);
// From now on a failure is told as the API's error document as well, on stdout, unless a document
// was printed there before. One command runs in a process.
void TellFailuresInJson();
// Prints "pulga: message" and gives kExitFailed.
int Fail(const Error& error);
int UsageError(const std::string& message);
// "message (code)" out of {"error":{...}}; the text itself when it is no JSON.
std::string ErrorTextOf(const ClientReply& reply);

}  // namespace pulga::cli
