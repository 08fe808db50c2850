#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "api/cli/archive_skim.h"
#include "api/cli/commands.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "api/cli/resumable_import.h"
#include "api/http_message.h"
#include "base/file_io.h"
#include "base/units.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

// Below this a lost connection costs less than asking first.
constexpr off_t kSmall = 1 << 20;

std::string ShortDigest(const std::string& digest) { return digest.substr(0, 7 + 12); }

std::string LayerSummary(const Json& image) {
  size_t reused = 0;
  const Json layers = ListIn(image, "layers");
  for (const Json& layer : layers) reused += layer.value("reused", false) ? 1 : 0;
  std::string out = std::to_string(layers.size()) + (layers.size() == 1 ? " layer" : " layers");
  if (reused != 0) out += " (" + std::to_string(reused) + " already here)";
  return out;
}

}  // namespace

void PrintImages(const std::string& reply, const std::string& verb) {
  const Style style = Style::ForFd(STDOUT_FILENO);
  for (const Json& image : ListIn(ParseReply(reply), "images")) {
    PrintOut(verb + " " + style.Paint(Colour::kBold, TextIn(image, "ref")) + "  " +
             TextIn(image, "platform") + "  " + HumanBytes(NumberIn(image, "size_bytes")) + "  " +
             LayerSummary(image) + "\n");
    PrintWarnings(image);
  }
}

namespace {

int RunImport(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  using Parts = ImportRequest::Parts;
  const ImportRequest request{args.words()[0], args.Value("ref").value_or(""),
                              args.Has("any-platform"),
                              args.Has("resumable") ? Parts::kAlways : Parts::kAuto};
  const auto reply = ImportArchive(*client, request);
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
  } else {
    PrintImages(reply->body, "imported");
  }
  return kExitOk;
}

int RunList(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  const auto reply = client->Get("/v1/images");
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
    return kExitOk;
  }
  Table table({"IMAGE", "ID", "PLATFORM", "LAYERS", "ON DISK", "SHARED"});
  for (const Json& image : ListIn(ParseReply(reply->body), "images")) {
    Json refs = ListIn(image, "refs");
    if (refs.empty()) refs.push_back("<none>");
    for (const Json& ref : refs) {
      table.Add({{ref.get<std::string>()},
                 {ShortDigest(TextIn(image, "digest")), Colour::kFaint},
                 {TextIn(image, "platform")},
                 {std::to_string(ListIn(image, "layers").size())},
                 {HumanBytes(NumberIn(image, "disk_bytes"))},
                 {HumanBytes(NumberIn(image, "shared_bytes"))}});
    }
  }
  if (table.empty()) {
    PrintErr("no images yet: pulga image import FILE\n");
  } else {
    PrintOut(table.Render(Style::ForFd(STDOUT_FILENO)));
  }
  return kExitOk;
}

std::string Words(const Json& list) {
  std::string out;
  for (const Json& word : list)
    out += (out.empty() ? "" : " ") + (word.is_string() ? word.get<std::string>() : word.dump());
  return out.empty() ? "-" : out;
}

void PrintImage(const Json& image) {
  const Json config = image.value("config", Json::object());
  Table facts({});
  const auto add = [&facts](const char* label, const std::string& value) {
    facts.Add({{label, Colour::kFaint}, {value}});
  };
  add("names", Words(ListIn(image, "refs")));
  add("digest", TextIn(image, "digest"));
  add("platform", TextIn(image, "platform"));
  add("owner", TextIn(image, "owner"));
  add("files", HumanBytes(NumberIn(image, "size_bytes")));
  add("on disk", HumanBytes(NumberIn(image, "disk_bytes")) + ", " +
                     HumanBytes(NumberIn(image, "shared_bytes")) +
                     " of it shared with other images, " +
                     HumanBytes(NumberIn(image, "unique_bytes")) + " its own");
  add("last used", TextIn(image, "last_used_at"));
  add("entrypoint", Words(ListIn(config, "entrypoint")));
  add("cmd", Words(ListIn(config, "cmd")));
  add("user", TextIn(config, "user").empty() ? "root" : TextIn(config, "user"));
  add("working dir", TextIn(config, "working_dir").empty() ? "/" : TextIn(config, "working_dir"));
  add("ports", Words(ListIn(config, "exposed_ports")));
  PrintOut(facts.Render(Style::ForFd(STDOUT_FILENO)));
  Table layers({"LAYER", "FILES", "ON DISK"});
  for (const Json& layer : ListIn(image, "layers")) {
    layers.Add({{TextIn(layer, "diff_id")},
                {HumanBytes(NumberIn(layer, "size_bytes"))},
                {HumanBytes(NumberIn(layer, "disk_bytes"))}});
  }
  PrintOut("\n" + layers.Render(Style::ForFd(STDOUT_FILENO)));
}

// The listing is large: straight to stdout.
int PrintView(const DaemonClient& client, const std::string& target) {
  ClientRequest request;
  request.target = target;
  if (!client.key().empty())
    request.headers.emplace_back("Authorization", "Bearer " + client.key());
  std::string refusal;
  const auto reply =
      client.Invoke(request, [&refusal](const ClientReply& head, std::string_view bytes) {
        if (head.status == 200) return WriteAll(STDOUT_FILENO, bytes);
        refusal += bytes.substr(0, 64 * 1024);
        return OkStatus();
      });
  if (!reply.ok()) return Fail(reply.error());
  if (reply->status != 200) {
    ClientReply refused = *reply;
    refused.body = refusal;
    return Fail({Code::kInvalidArgument, 0, ErrorTextOf(refused)});
  }
  return reply->complete ? kExitOk : Fail({Code::kIo, 0, "the daemon's reply broke off"});
}

int RunInspect(const Args& args) {
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  if (args.Has("tree") && args.Has("sums"))
    return UsageError("--tree and --sums exclude each other");
  const std::string target = "/v1/images/" + PercentEncode(args.words()[0]);
  if (args.Has("tree")) return PrintView(*client, target + "?view=tree");
  if (args.Has("sums")) return PrintView(*client, target + "?view=sums");
  const auto reply = client->Get(target);
  if (!reply.ok()) return Fail(reply.error());
  if (args.Has("json")) {
    PrintOut(reply->body);
  } else {
    PrintImage(ParseReply(reply->body));
  }
  return kExitOk;
}

int RunRemove(const Args& args) {
  return RemoveEach(args, [](const std::string& r) { return "/v1/images/" + PercentEncode(r); });
}

// The layers of all images the daemon has, 64 hex digits each. One of them may be gone, or lie on
// other parents, when its turn comes: the daemon then says so.
std::set<std::string> LayersThere(const DaemonClient& client) {
  std::set<std::string> there;
  const auto reply = client.Get("/v1/images");
  if (!reply.ok()) return there;
  constexpr std::string_view kSha256 = "sha256:";
  for (const Json& image : ListIn(ParseReply(reply->body), "images")) {
    for (const Json& layer : ListIn(image, "layers")) {
      const std::string diff_id = TextIn(layer, "diff_id");
      if (diff_id.starts_with(kSha256)) there.insert(diff_id.substr(kSha256.size()));
    }
  }
  return there;
}

struct Sending {
  std::vector<FileRange> ranges;  // none: the file as it is
  bool leaves_out = false;
};

Sending WhatToSend(const DaemonClient& client, int fd, uint64_t size) {
  auto outline = SkimArchive(fd, size);
  if (!outline || outline->blobs.empty()) return {};
  SortAsNamed(fd, &*outline);
  const std::set<std::string> there = LayersThere(client);
  Sending sending;
  sending.ranges = RangesToSend(*outline, there, size);
  sending.leaves_out =
      std::any_of(outline->blobs.begin(), outline->blobs.end(),
                  [&there](const NamedBlob& blob) { return there.contains(blob.digest); });
  return sending;
}

constexpr int kLayerGone = 412;

// Of the connection: reset by the kernel of a daemon that was killed, or closed before the reply or
// in the middle of it. Not what a daemon says (`status`), nor an interrupt, which has no errno.
bool IsLoss(const Error& error, int status) {
  const bool reset = error.code == Code::kUnavailable && error.sys_errno != 0;
  return error.code == Code::kIo || (status == 0 && reset);
}

}  // namespace

Result<ClientReply> ImportArchive(const DaemonClient& client, const ImportRequest& wanted) {
  UniqueFd file;
  ClientRequest request;
  request.method = "POST";
  request.body_fd = STDIN_FILENO;
  if (wanted.file != "-") {
    PULGA_ASSIGN_OR_RETURN(file, OpenFile(wanted.file, O_RDONLY));
    request.body_fd = file.get();
  } else if (isatty(STDIN_FILENO) == 1) {
    return Error{Code::kInvalidArgument, 0,
                 "\"-\" reads the archive from stdin, which is a terminal"};
  }
  struct stat st = {};
  if (fstat(request.body_fd, &st) != 0) return LastError("stat " + wanted.file);
  if (S_ISDIR(st.st_mode)) return Error{Code::kInvalidArgument, 0, wanted.file + " is a directory"};
  const off_t position = S_ISREG(st.st_mode) ? lseek(request.body_fd, 0, SEEK_CUR) : 0;
  if (S_ISREG(st.st_mode)) request.body_size = static_cast<uint64_t>(st.st_size - position);
  const size_t slash = wanted.file.rfind('/');
  const std::string name =
      wanted.file == "-" ? "stdin" : wanted.file.substr(slash == std::string::npos ? 0 : slash + 1);
  const bool whole_file = S_ISREG(st.st_mode) && wanted.file != "-" && st.st_size > 0;
  const bool in_parts = wanted.parts == ImportRequest::Parts::kAlways ||
                        (!IsLocalUrl(client.url()) && st.st_size >= kSmall);
  const ArchiveFile archive{request.body_fd, name};
  if (whole_file && in_parts) return ImportResumably(client, wanted, archive, Contact::kNone);
  uint64_t confirmed = 0;
  request.headers.emplace_back("Content-Type", "application/x-tar");
  request.target = "/v1/images?any_platform=" + std::string(wanted.any_platform ? "1" : "0");
  if (!wanted.ref.empty()) request.target += "&ref=" + PercentEncode(wanted.ref);
  const auto send = [&](ClientRequest sending, int* status) {
    ProgressBar bar("import " + name, sending.body_size.value_or(0));
    sending.on_progress = [&](uint64_t sent) { bar.Update(confirmed = sent); };
    return client.Call(std::move(sending), status);
  };
  const Sending best =
      whole_file ? WhatToSend(client, request.body_fd, *request.body_size) : Sending{};
  ClientRequest first = request;
  first.body_ranges = best.ranges;
  if (best.leaves_out) {
    first.target += "&skipped=1";
    first.body_size = 0;
    for (const FileRange& range : best.ranges) *first.body_size += range.size;
  }
  int status = 0;
  auto reply = send(std::move(first), &status);
  if (!reply.ok() && best.leaves_out) {
    // Whatever is wrong with an archive is told of the whole one.
    if (status >= 400 && status != kLayerGone && status != 422) return reply;
    if (status == kLayerGone) PrintErr("a layer is not here any more: sending all of it\n");
    confirmed = 0;
    reply = send(std::move(request), &status);
  }
  if (reply.ok() || !IsLoss(reply.error(), status) || confirmed == 0 || !whole_file) return reply;
  PrintErr("the connection was lost (" + reply.error().message + "): sending it in parts\n");
  return ImportResumably(client, wanted, archive, Contact::kLost);
}

std::vector<std::string> ImportedRefs(const std::string& text) {
  std::vector<std::string> refs;
  for (const Json& image : ListIn(ParseReply(text), "images")) refs.push_back(TextIn(image, "ref"));
  return refs;
}

std::vector<Command> ImageCommands() {
  return {
      {"image import", "FILE|- [--ref NAME]",
       "Import an archive of docker save, or an OCI archive.",
       "Plain, gzip or zstd. Layers that are here already are not stored again. A file goes to "
       "another machine so that a lost connection, or the same command later, goes on where it "
       "was.",
       std::vector<Option>{{"ref", 0, "NAME", "the name to give, instead of the archive's own"},
                           {"any-platform", 0, "", "also images this board can not run"},
                           {"resumable", 0, "", "so to this machine, too, as through a tunnel"}} +
           ClientOptions(),
       1, 1, &RunImport},
      {"image ls", "", "List images.", "", ClientOptions(), 0, 0, &RunList},
      {"image inspect", "IMAGE [--tree|--sums]", "Show one image.", "",
       std::vector<Option>{{"tree", 0, "", "the flattened tree: path|type|mode|uid:gid|target"},
                           {"sums", 0, "", "sha256 of every file, as sha256sum prints them"}} +
           ClientOptions(),
       1, 1, &RunInspect},
      {"image rm", "IMAGE...", "Remove images that no function uses.", "", ClientOptions(), 1, 100,
       &RunRemove},
  };
}

}  // namespace pulga::cli
