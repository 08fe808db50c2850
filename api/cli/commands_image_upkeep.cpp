#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "base/file_io.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

std::string ImagePath(const std::string& ref) { return "/v1/images/" + PercentEncode(ref); }

// Beside the file until it is whole, so that half an archive never has its name.
class OutputFile {
 public:
  ~OutputFile() {
    if (!part_.empty()) unlink(part_.c_str());
  }
  Status Open(const std::string& name) {
    if (name == "-") {
      fd_ = STDOUT_FILENO;
      return OkStatus();
    }
    struct stat st = {};
    const bool special = stat(name.c_str(), &st) == 0 && !S_ISREG(st.st_mode);
    name_ = name;
    if (!special) part_ = name + ".part";
    PULGA_ASSIGN_OR_RETURN(owned_, OpenFile(special ? name : part_,
                                            O_WRONLY | O_CREAT | (special ? 0 : O_TRUNC), 0644));
    fd_ = owned_.get();
    return OkStatus();
  }
  Status Write(std::string_view bytes) { return WriteAll(fd_, bytes); }
  Status Keep() {
    if (part_.empty()) return OkStatus();
    if (rename(part_.c_str(), name_.c_str()) != 0) return LastError("rename " + part_);
    part_.clear();
    return OkStatus();
  }

 private:
  std::string name_;
  std::string part_;
  UniqueFd owned_;
  int fd_ = -1;
};

uint64_t LengthOf(const ClientReply& head) {
  return ParseUint(head.Header("Content-Length")).value_or(0);
}

int RunExport(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto name = args.Value("output");
  if (!name) return UsageError("where to? -o FILE, or -o - for stdout");
  if (*name == "-" && isatty(STDOUT_FILENO) == 1) {
    return UsageError("\"-\" writes the archive to stdout, which is a terminal");
  }
  const std::string& ref = args.words()[0];
  ClientRequest request;
  request.target = ImagePath(ref) + "/export";
  if (!client->key().empty())
    request.headers.emplace_back("Authorization", "Bearer " + client->key());
  OutputFile file;
  std::string refusal;
  uint64_t received = 0;
  std::optional<ProgressBar> bar;
  const auto reply =
      client->Invoke(request, [&](const ClientReply& head, std::string_view bytes) -> Status {
        if (head.status != 200) {
          refusal += bytes.substr(0, 64 * 1024);
          return OkStatus();
        }
        if (received == 0) {
          PULGA_RETURN_IF_ERROR(file.Open(*name));
          bar.emplace("export " + ref, LengthOf(head));
        }
        received += bytes.size();
        bar->Update(received);
        return file.Write(bytes);
      });
  bar.reset();
  if (!reply.ok()) return Fail(reply.error());
  if (reply->status != 200) {
    ClientReply refused = *reply;
    refused.body = refusal;
    return Fail({Code::kInvalidArgument, 0, ErrorTextOf(refused)});
  }
  if (!reply->complete) {
    return Fail({Code::kIo, 0,
                 "the archive broke off: see what 'pulga image verify " + ref +
                     "' says, and the daemon's log"});
  }
  const Status kept = file.Keep();
  if (!kept.ok()) return Fail(kept.error());
  if (*name == "-") return kExitOk;
  PrintOut(args.Has("json")
               ? Json({{"file", *name}, {"bytes", received}}).dump() + "\n"
               : "exported " + ref + " to " + *name + "  " + HumanBytes(received) + "\n");
  return kExitOk;
}

// "usr/bin/x: content"; what is about the layer as a whole has no path.
void PrintDifferences(const Json& layer) {
  const Style style = Style::ForFd(STDOUT_FILENO);
  for (const Json& difference : layer.value("differences", Json::array())) {
    const std::string path = difference.value("path", "");
    PrintOut("  " + style.Paint(Colour::kRed, path.empty() ? "the layer" : path) + "  " +
             difference.value("what", "") + "\n");
  }
}

// One image's verdict in words; whether all is well.
bool PrintVerdict(const std::string& ref, const Json& report) {
  const Style style = Style::ForFd(STDOUT_FILENO);
  const Json layers = report.value("layers", Json::array());
  const bool intact = report.value("intact", false);
  PrintOut(
      (intact ? style.Paint(Colour::kGreen, "intact ") : style.Paint(Colour::kRed, "DAMAGED")) +
      " " + ref + "  " + std::to_string(layers.size()) +
      (layers.size() == 1 ? " layer\n" : " layers\n"));
  for (const Json& layer : layers) PrintDifferences(layer);
  if (!intact) PrintOut("  remove it and import it again\n");
  return intact;
}

Result<std::vector<std::string>> AllDigests(const DaemonClient& client) {
  PULGA_ASSIGN_OR_RETURN(const ClientReply reply, client.Get("/v1/images"));
  const Json list = Json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> names;
  if (!list.is_object()) return Error{Code::kIo, 0, "the daemon's reply is no JSON"};
  for (const Json& image : list.value("images", Json::array())) {
    const Json refs = image.value("refs", Json::array());
    names.push_back(refs.empty() ? image.value("digest", "") : refs[0].get<std::string>());
  }
  return names;
}

int RunVerify(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  std::vector<std::string> names = args.words();
  if (names.empty()) {
    auto all = AllDigests(*client);
    if (!all.ok()) return Fail(all.error());
    names = std::move(*all);
  }
  bool intact = true;
  Json reports = Json::array();
  for (const std::string& name : names) {
    ClientRequest request;
    request.method = "POST";
    request.target = ImagePath(name) + "/verify";
    const auto reply = client->Call(std::move(request));
    if (!reply.ok()) return Fail(reply.error());
    const Json report = Json::parse(reply->body, nullptr, /*allow_exceptions=*/false);
    if (!report.is_object()) return Fail({Code::kIo, 0, "the daemon's reply is no JSON"});
    intact = report.value("intact", false) && intact;
    reports.push_back(report);
    if (!args.Has("json")) PrintVerdict(name, report);
  }
  if (args.Has("json")) PrintOut(Json({{"intact", intact}, {"images", reports}}).dump() + "\n");
  return intact ? kExitOk : kExitFailed;
}

int RunPrune(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const Json body = {{"all", args.Has("all")}};
  const auto reply = client->SendJson("POST", "/v1/images/prune", body.dump());
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  const Json report = Json::parse(reply->body, nullptr, /*allow_exceptions=*/false);
  if (!report.is_object()) return Fail({Code::kIo, 0, "the daemon's reply is no JSON"});
  const Json images = report.value("images", Json::array());
  for (const Json& image : images) {
    const Json refs = image.value("refs", Json::array());
    PrintOut("removed " + (refs.empty() ? image.value("digest", "") : refs[0].get<std::string>()) +
             "\n");
  }
  if (images.empty()) {
    PrintOut(args.Has("all") ? "every image is in use\n"
                             : "no unused image is without a name (--all: those with one too)\n");
  } else {
    PrintOut(HumanBytes(report.value("freed_bytes", uint64_t{0})) + " freed\n");
  }
  return kExitOk;
}

}  // namespace

std::vector<Command> ImageUpkeepCommands() {
  return {
      {"image export", "IMAGE -o FILE|-", "Write an image as an archive.",
       "docker load, podman load and skopeo take it, and 'pulga image import'. Asked for by name "
       "it\n"
       "carries that name. The same image gives the same bytes.",
       std::vector<Option>{{"output", 'o', "FILE", "where to; - is stdout"}} + ClientOptions(), 1,
       1, &RunExport},
      {"image verify", "[IMAGE...]", "Compare layers on disk with what was imported.",
       "All images if none is named. Exit status 1 when something differs.", ClientOptions(), 0,
       100, &RunVerify},
      {"image prune", "[--all]", "Remove images that no function uses.",
       "Those without a name; with --all, also those with one.",
       std::vector<Option>{{"all", 'a', "", "also images with a name"}} + ClientOptions(), 0, 0,
       &RunPrune},
  };
}

}  // namespace pulga::cli
