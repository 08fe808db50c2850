#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/http_message.h"
#include "base/file_io.h"
#include "base/text.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Body {
  UniqueFd file;  // keeps ClientRequest::body_fd open
};

// -d DATA, -d @FILE, else stdin unless that is a terminal.
Status TakeBody(const Args& args, ClientRequest* request, Body* body) {
  const auto data = args.Value("body");
  if (data && (data->empty() || (*data)[0] != '@')) {
    request->body = *data;
    return OkStatus();
  }
  if (data && *data != "@-") {
    PULGA_ASSIGN_OR_RETURN(body->file, OpenFile(data->substr(1), O_RDONLY));
    request->body_fd = body->file.get();
  } else if (data || isatty(STDIN_FILENO) != 1) {
    request->body_fd = STDIN_FILENO;
  } else {
    return OkStatus();
  }
  struct stat st = {};
  if (fstat(request->body_fd, &st) != 0) {
    request->body_fd = -1;  // stdin is closed: no body
    return OkStatus();
  }
  if (S_ISREG(st.st_mode)) {
    const off_t at = lseek(request->body_fd, 0, SEEK_CUR);
    request->body_size = static_cast<uint64_t>(std::max<off_t>(0, st.st_size - at));
  } else if (S_ISCHR(st.st_mode)) {
    // /dev/null and its like: no body, rather than an empty chunked one.
    char byte;
    const ssize_t n = read(request->body_fd, &byte, 1);
    if (n <= 0) request->body_fd = -1;
    if (n == 1) request->body = std::string(1, byte);
  }
  return OkStatus();
}

Status TakeHeaders(const Args& args, ClientRequest* request) {
  for (const std::string& header : args.Values("header")) {
    const size_t colon = header.find(':');
    const std::string name(Trim(std::string_view(header).substr(0, colon)));
    if (colon == std::string::npos || !IsToken(name)) {
      return Error{Code::kInvalidArgument, 0,
                   "-H wants \"Name: value\", not \"" + Printable(header, 60) + "\""};
    }
    std::string value(Trim(std::string_view(header).substr(colon + 1)));
    if (!IsFitReplyHeader("X", value))
      return Error{Code::kInvalidArgument, 0, "-H " + name + ": control bytes"};
    request->headers.emplace_back(name, std::move(value));
  }
  return OkStatus();
}

Json TimingJson(const std::string& server_timing) {
  Json out = Json::object();
  for (std::string_view part : Split(server_timing, ',')) {
    const size_t mark = part.find(";dur=");
    if (mark == std::string_view::npos) continue;
    out[std::string(Trim(part.substr(0, mark)))] =
        strtod(std::string(part.substr(mark + 5)).c_str(), nullptr);
  }
  return out;
}

std::string ReplyJson(const ClientReply& reply) {
  const Json json = {{"status", reply.status},
                     {"outcome", reply.Header("X-Pulga-Outcome")},
                     {"call_id", reply.Header("X-Call-Id")},
                     {"start", reply.Header("X-Pulga-Start")},
                     {"timing_ms", TimingJson(reply.Header("Server-Timing"))},
                     {"content_type", reply.Header("Content-Type")},
                     {"complete", reply.complete},
                     {"body", reply.body}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

// What cannot stand in a request line; escapes that are there stay as they are.
std::string EncodePath(std::string_view path) {
  std::string out;
  for (const char c : path) {
    const bool fits = c > 0x20 && c < 0x7f && c != '#';
    out += fits ? std::string(1, c) : PercentEncode(std::string_view(&c, 1));
  }
  return out;
}

// As a task: prints its id.
int Submit(const DaemonClient& client, const ClientRequest& request, bool json) {
  const auto reply = client.Invoke(request, nullptr);
  if (!reply.ok()) return Fail(reply.error());
  const std::string id = reply->Header("X-Call-Id");
  if (reply->status != 202) {
    return Fail({Code::kUnavailable, 0, ErrorTextOf(*reply)});
  }
  PrintOut(json ? Json{{"status", reply->status}, {"call_id", id}}.dump() + "\n" : id + "\n");
  return kExitOk;
}

int RunInvoke(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  ClientRequest request;
  Body body;
  request.method = args.Value("method").value_or("POST");
  if (!IsToken(request.method)) return UsageError("--method wants a method like GET");
  std::string path = args.Value("path").value_or("");
  if (!path.empty() && path[0] != '/' && path[0] != '?') path = "/" + path;
  const bool async = args.Has("async");
  request.target = (async ? "/async-function/" : "/function/") + PercentEncode(args.words()[0]) +
                   EncodePath(path);
  Status taken = TakeHeaders(args, &request);
  if (!taken.ok()) return UsageError(taken.error().message);
  taken = TakeBody(args, &request, &body);
  if (!taken.ok()) return Fail(taken.error());
  if (async && request.method != "POST") return UsageError("--async is a POST, always");
  const bool json = args.Has("json");
  if (args.Has("send-key")) {
    request.headers.emplace_back("Authorization", "Bearer " + client->key());
  }
  if (async) return Submit(*client, request, json);
  BodySink sink;
  if (!json) {
    sink = [](const ClientReply& head, std::string_view bytes) {
      return WriteAll(head.status < 400 ? STDOUT_FILENO : STDERR_FILENO, bytes);
    };
  }
  const auto reply = client->Invoke(request, sink);
  if (!reply.ok()) return Fail(reply.error());
  if (json) PrintOut(ReplyJson(*reply));
  if (args.Has("verbose")) PrintErr(ReceiptTable(*reply));
  if (!reply->complete) {
    return Fail({Code::kIo, 0,
                 "the function ended before its reply did; pulga logs " + args.words()[0] +
                     " says why (call " + reply->Header("X-Call-Id") + ")"});
  }
  const std::string outcome = reply->Header("X-Pulga-Outcome");
  // What is refused says why in its body, printed above.
  const bool told = !json && outcome.rfind("rejected:", 0) == 0;
  if (reply->status >= 400 && !outcome.empty() && outcome != "ok" && !told) {
    PrintError("the call ended with " + outcome + ", status " + std::to_string(reply->status));
  }
  return reply->status / 100 == 2 ? kExitOk : kExitFailed;
}

}  // namespace

std::string ReceiptTable(const ClientReply& reply) {
  Table table({});
  const auto add = [&table](const std::string& label, const std::string& value,
                            Colour colour = Colour::kNone) {
    if (!value.empty()) table.Add({{label, Colour::kFaint}, {value, colour}});
  };
  const std::string outcome = reply.Header("X-Pulga-Outcome");
  add("status", std::to_string(reply.status));
  add("outcome", reply.complete ? outcome : "broken off",
      outcome == "ok" ? Colour::kGreen : Colour::kRed);
  add("call id", reply.Header("X-Call-Id"));
  add("start", reply.Header("X-Pulga-Start"));
  const Json timing = TimingJson(reply.Header("Server-Timing"));
  for (const auto& [step, ms] : timing.items()) {
    char text[48];
    snprintf(text, sizeof text, "%10.3f ms", ms.get<double>());
    add(step, text);
  }
  return table.Render(Style::ForFd(STDERR_FILENO));
}

std::vector<Command> InvokeCommands() {
  return {{"invoke", "NAME [-d DATA|@FILE] [-H 'Name: value'] [--async] [-v]", "Call a function.",
           "The request body is stdin unless -d is given or stdin is a terminal. The exit code is "
           "0 for a\n"
           "2xx reply. NAME may be NAME.NAMESPACE.",
           std::vector<Option>{
               {"body", 'd', "DATA", "the body; @FILE reads it from a file, @- from stdin"},
               {"header", 'H', "HEADER", "\"Name: value\"; may be repeated"},
               {"method", 'X', "METHOD", "instead of POST"},
               {"path", 'p', "PATH", "what follows the name: /rest?query"},
               {"async", 0, "", "run it later: print its id at once, for pulga tasks"},
               {"send-key", 0, "", "your key along, for a board whose calls need one"},
               {"verbose", 'v', "", "print the receipt on stderr"}} +
               ClientOptions(),
           1, 1, &RunInvoke}};
}

}  // namespace pulga::cli
