// pulga import --faasd: what a faasd had, deployed here.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>
#include <thread>

#include "api/cli/commands.h"
#include "api/cli/faasd/faasd_data.h"
#include "api/cli/output.h"
#include "api/cli/reply_json.h"
#include "base/file_io.h"
#include "base/text.h"
#include "images/tar_member.h"
#include "sandbox/secret_file.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

constexpr size_t kChunk = 256 << 10;
constexpr const char* kLayout = R"({"imageLayoutVersion":"1.0.0"})";

// One thing after the other, each told in a line; what fails does not keep the rest.
class FaasdImport {
 public:
  FaasdImport(const DaemonClient& client, const Args& args, std::string root)
      : client_(client),
        root_(std::move(root)),
        dry_(args.Has("dry-run")),
        replace_(args.Has("replace")),
        json_(args.Has("json")) {}

  int Run(const FaasdData& data) {
    for (const std::string& problem : data.problems) Tell("data", problem, "failed", "");
    for (const std::string& name : data.name_spaces) AddNamespace(name);
    for (const auto& [name, note] : data.name_space_notes) Tell("namespace", name, "note", note);
    for (const FaasdSecret& secret : data.secrets) AddSecret(secret);
    for (const FaasdFunction& function : data.functions) AddFunction(function);
    if (json_) PrintOut(Json({{"items", items_}}).dump() + "\n");
    return failed_ ? kExitFailed : kExitOk;
  }

 private:
  void Tell(const char* kind, const std::string& name, const std::string& outcome,
            const std::string& why) {
    failed_ = failed_ || outcome == "failed";
    items_.push_back({{"kind", kind}, {"name", name}, {"outcome", outcome}, {"detail", why}});
    if (json_) return;
    const std::string line = std::string(kind) + " " + Printable(name) + ": " + outcome +
                             (why.empty() ? "" : " (" + Printable(why) + ")") + "\n";
    outcome == "failed" ? PrintErr(line) : PrintOut(line);
  }
  void Tell(const char* kind, const std::string& name, const Status& done, const char* outcome) {
    Tell(kind, name, done.ok() ? outcome : "failed", done.ok() ? "" : done.error().message);
  }

  Status Send(const std::string& method, const std::string& target, const std::string& body) {
    const auto reply = client_.SendJson(method, target, body);
    return reply.ok() ? OkStatus() : Status(reply.error());
  }

  bool IsThere(const std::string& target) {
    ClientRequest request;
    request.target = target;
    int status = 0;
    (void)client_.Call(std::move(request), &status);
    return status == 200;
  }

  bool SecretIsThere(const FaasdSecret& secret) {
    const auto reply = client_.Get("/system/secrets?namespace=" + PercentEncode(secret.name_space));
    if (!reply.ok()) return false;
    const Json list = ParseReply(reply->body);
    if (!list.is_array()) return false;
    for (const Json& one : list) {
      if (TextIn(one, "name") == secret.name) return true;
    }
    return false;
  }

  void AddNamespace(const std::string& name) {
    if (IsThere("/system/namespace/" + PercentEncode(name))) return;
    const Status valid = ValidateFunctionName(name);
    if (!valid.ok()) return Tell("namespace", name, valid, "");
    if (dry_) return Tell("namespace", name, "would be made", "");
    const Json body = {{"name", name}, {"labels", {{"openfaas", "1"}}}};
    Tell("namespace", name, Send("POST", "/system/namespace/", body.dump()), "made");
  }

  void AddSecret(const FaasdSecret& secret) {
    const std::string name = secret.name + "." + secret.name_space;
    const bool there = SecretIsThere(secret);
    if (there && !replace_) return Tell("secret", name, "left alone", "there is one already");
    auto value = ReadFile(secret.path, kMaxSecretBytes);
    if (!value.ok()) return Tell("secret", name, Status(value.error()), "");
    if (dry_) return Tell("secret", name, there ? "would be replaced" : "would be kept", "");
    const Json body = {{"name", secret.name},
                       {"namespace", secret.name_space},
                       {"rawValue", Base64Encode(*value)}};
    Tell("secret", name, Send(there ? "PUT" : "POST", "/system/secrets", body.dump()),
         there ? "replaced" : "kept");
  }

  void AddFunction(const FaasdFunction& function) {
    const std::string name = function.name + "." + function.name_space;
    for (const std::string& note : function.notes) Tell("function", name, "note", note);
    const std::string target = "/system/function/" + PercentEncode(function.name) +
                               "?namespace=" + PercentEncode(function.name_space);
    const bool there = IsThere(target);
    if (there && !replace_) return Tell("function", name, "left alone", "there is one already");
    const Status valid = CheckFunction(function);
    if (!valid.ok()) return Tell("function", name, valid, "");
    AddImage(function);
    if (dry_) return Tell("function", name, there ? "would be replaced" : "would be deployed", "");
    Tell("function", name, Send(there ? "PUT" : "POST", "/system/functions", function.deployment),
         there ? "replaced" : "deployed");
  }

  void AddImage(const FaasdFunction& function) {
    const std::string& image = function.image;
    if (IsThere("/v1/images/" + PercentEncode(image))) return;
    const auto stored = FindImage(root_, function.name_space, image);
    if (!stored.ok()) {
      return Tell("image", image, dry_ ? "would be pulled" : "to be pulled",
                  stored.error().message);
    }
    if (dry_) return Tell("image", image, "would be imported", "");
    Tell("image", image, Upload(*stored), "imported");
  }

  // What we can not read ends the archive early, and the daemon then says so.
  static void Write(const StoredImage& image, const std::string& root, UniqueFd out) {
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);
    const auto whole = [&out](const char* name, const std::string& text) {
      return WriteAll(out.get(),
                      TarHeader({name, '0', text.size()}) + text + TarPadding(text.size()));
    };
    if (!whole("oci-layout", kLayout).ok() || !whole("index.json", image.index).ok()) return;
    for (const std::string& digest : image.blobs) {
      if (!WriteBlob(digest, BlobPath(root, digest), out.get()).ok()) return;
    }
    (void)WriteAll(out.get(), std::string(2 * kTarBlock, '\0'));
  }

  static Status WriteBlob(const std::string& digest, const std::string& path, int out) {
    PULGA_ASSIGN_OR_RETURN(const UniqueFd blob, OpenFile(path, O_RDONLY));
    struct stat st = {};
    if (fstat(blob.get(), &st) != 0) return LastError("stat " + path);
    const auto size = static_cast<uint64_t>(st.st_size);
    std::string name = "blobs/" + digest;
    name[name.find(':')] = '/';
    PULGA_RETURN_IF_ERROR(WriteAll(out, TarHeader({name, '0', size})));
    std::string buffer(kChunk, '\0');
    for (uint64_t done = 0; done < size;) {
      const ssize_t n = read(blob.get(), buffer.data(), std::min<uint64_t>(kChunk, size - done));
      if (n <= 0) return Error{Code::kIo, 0, path + " ended early"};
      PULGA_RETURN_IF_ERROR(WriteAll(out, {buffer.data(), static_cast<size_t>(n)}));
      done += static_cast<uint64_t>(n);
    }
    return WriteAll(out, TarPadding(size));
  }

  Status Upload(const StoredImage& image) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) return LastError("pipe2");
    UniqueFd read_end(fds[0]);
    std::thread writer([&image, this, out = fds[1]] { Write(image, root_, UniqueFd(out)); });
    ClientRequest request;
    request.method = "POST";
    request.target = "/v1/images";
    request.headers.emplace_back("Content-Type", "application/x-tar");
    request.body_fd = read_end.get();
    const auto reply = client_.Call(std::move(request));
    read_end.Reset();
    writer.join();
    return reply.ok() ? OkStatus() : Status(reply.error());
  }

  const DaemonClient& client_;
  const std::string root_;
  const bool dry_;
  const bool replace_;
  const bool json_;
  Json items_ = Json::array();
  bool failed_ = false;
};

int RunImport(const Args& args) {
  if (!args.Has("faasd")) {
    return UsageError("what from? pulga import --faasd [DIR]; an archive: pulga image import FILE");
  }
  auto client = DaemonClient::FromArgs(args);
  if (!client.ok()) return UsageError(client.error().message);
  std::string root = args.words().empty() ? "/" : args.words()[0];
  while (root.size() > 1 && root.ends_with('/')) root.pop_back();
  const auto data = ReadFaasd(root);
  if (!data.ok()) return Fail(data.error());
  const Status reachable = CheckReachable(client->url());
  if (!reachable.ok()) return Fail(reachable.error());
  return FaasdImport(*client, args, root).Run(*data);
}

}  // namespace

std::vector<Command> FaasdCommands() {
  const std::vector<Option> options = {
      {"faasd", 0, "", "from a faasd's data"},
      {"dry-run", 0, "", "say what would be done, and do nothing"},
      {"replace", 0, "", "also what is there under the same name"}};
  return {
      {"import", "--faasd [DIR] [options]", "Take over a faasd's functions and secrets.",
       "DIR is where its /var/lib is below: / (the default), or the mount point of its card.\n"
       "Nothing of faasd need run, and nothing of it is changed. Images come out of containerd's "
       "store;\n"
       "those no longer there are pulled.",
       options + ClientOptions(), 0, 1, &RunImport}};
}

}  // namespace pulga::cli
