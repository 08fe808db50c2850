#include "api/cli/faasd/faasd_data.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "api/cli/reply_json.h"
#include "api/openfaas/deployment.h"
#include "base/file_io.h"
#include "base/text.h"
#include "images/digest.h"
#include "runtime/openfaas_labels.h"
#include "runtime/tasks/schedule_plan.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;

constexpr const char* kDatabase = "/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db";
constexpr const char* kContent = "/var/lib/containerd/io.containerd.content.v1.content/blobs/";
constexpr const char* kSecrets = "/var/lib/faasd-provider/secrets";
constexpr const char* kFunctionsSpace = "openfaas-fn";
constexpr const char* kCoreSpace = "openfaas";  // faasd's own parts
constexpr std::string_view kAnnotation = "com.openfaas.annotations.";
constexpr std::string_view kSecretMounts = "/var/openfaas/secrets/";
constexpr std::string_view kProcess = "fprocess=";
constexpr size_t kMostDatabase = 256 << 20;
constexpr size_t kMostJson = 4 << 20;
constexpr uint64_t kMebibyte = 1 << 20;

std::string At(const std::string& root, const std::string& path) {
  return (root == "/" ? "" : root) + path;
}

Result<BoltFile> OpenDatabase(const std::string& root) {
  // containerd replaces nothing in it but by whole pages and a new meta page last: what is read
  // while it writes has an older meta page that holds, or its sums say no.
  PULGA_ASSIGN_OR_RETURN(std::string bytes, ReadFile(At(root, kDatabase), kMostDatabase));
  return BoltFile::Parse(std::move(bytes));
}

std::map<std::string, std::string> Texts(const BoltFile& file, const BoltFile::Bucket& in) {
  std::map<std::string, std::string> out;
  (void)file.Walk(in, [&](const BoltFile::Entry& entry) {
    if (!entry.is_bucket) out[std::string(entry.key)] = std::string(entry.value);
    return true;
  });
  return out;
}

std::map<std::string, std::string> LabelsIn(const BoltFile& file, const BoltFile::Bucket& in) {
  const auto labels = file.Open(in, "labels");
  return labels.ok() ? Texts(file, *labels) : std::map<std::string, std::string>();
}

bool IsOpenFaas(const std::string& name, const std::map<std::string, std::string>& labels) {
  if (name == kFunctionsSpace) return true;
  const auto found = labels.find("openfaas");
  return name != kCoreSpace && found != labels.end() &&
         (found->second == "1" || found->second == "true");
}

Result<Json> ReadBlob(const std::string& root, const std::string& digest) {
  PULGA_ASSIGN_OR_RETURN(const std::string text, ReadFile(BlobPath(root, digest), kMostJson));
  Json json = ParseReply(text);
  if (!json.is_object()) return Error{Code::kInvalidArgument, 0, digest + " is no JSON object"};
  return json;
}

bool Exists(const std::string& path) {
  struct stat st = {};
  return stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

// The target of an image's name: a manifest, or an index.
Result<std::string> TargetOf(const BoltFile& file, const std::string& name_space,
                             const std::string& image) {
  BoltFile::Bucket at = file.root();
  for (const std::string& key :
       {std::string("v1"), name_space, std::string("images"), image, std::string("target")}) {
    PULGA_ASSIGN_OR_RETURN(at, file.Open(at, key));
  }
  PULGA_ASSIGN_OR_RETURN(const std::string_view digest, file.Value(at, "digest"));
  return std::string(digest);
}

struct Manifest {
  std::string digest;
  std::string type;
  uint64_t size = 0;
  Json json;
};

// Of an index the one whose files are there: containerd fetches its own platform only.
Result<Manifest> ManifestOf(const std::string& root, const std::string& target) {
  PULGA_ASSIGN_OR_RETURN(Json json, ReadBlob(root, target));
  if (json.contains("config")) {
    const std::string type = TextIn(json, "mediaType");
    struct stat st = {};
    if (stat(BlobPath(root, target).c_str(), &st) != 0) return LastError("stat " + target);
    return Manifest{target, type.empty() ? "application/vnd.oci.image.manifest.v1+json" : type,
                    static_cast<uint64_t>(st.st_size), std::move(json)};
  }
  for (const Json& one : ListIn(json, "manifests")) {
    const std::string digest = TextIn(one, "digest");
    auto manifest = ReadBlob(root, digest);
    if (!manifest.ok() || !manifest->contains("config")) continue;
    if (!Exists(BlobPath(root, TextIn(Field(*manifest, "config"), "digest")))) continue;
    return Manifest{digest, TextIn(one, "mediaType"), NumberIn(one, "size"), std::move(*manifest)};
  }
  return Error{Code::kNotFound, 0, "containerd has no platform of it"};
}

std::vector<std::string> EnvOf(const std::string& root, const BoltFile& file,
                               const std::string& name_space, const std::string& image) {
  std::vector<std::string> out;
  const auto target = TargetOf(file, name_space, image);
  const auto manifest = target.ok() ? ManifestOf(root, *target) : Result<Manifest>(target.error());
  if (!manifest.ok()) return out;
  const auto config = ReadBlob(root, TextIn(Field(manifest->json, "config"), "digest"));
  if (!config.ok()) return out;
  for (const Json& pair : ListIn(Field(*config, "config"), "Env")) {
    if (pair.is_string()) out.push_back(pair.get<std::string>());
  }
  return out;
}

void ReadContainers(const std::string& root, const BoltFile& file, const std::string& name_space,
                    const BoltFile::Bucket& in, FaasdData* out) {
  const Status walked = file.Walk(in, [&](const BoltFile::Entry& entry) {
    const std::string name(entry.key);
    const auto bad = [&](const std::string& why) {
      out->problems.push_back(name + "." + name_space + ": " + why);
      return true;
    };
    const auto bucket = BoltFile::BucketOf(entry);
    if (!bucket.ok()) return bad(bucket.error().message);
    const auto image = file.Value(*bucket, "image");
    const auto any = file.Value(*bucket, "spec");
    if (!image.ok() || !any.ok()) return bad("its container has no image, or no spec");
    const auto spec = AnyValue(*any);
    if (!spec.ok()) return bad(spec.error().message);
    ContainerFacts facts;
    facts.name = name;
    facts.name_space = name_space;
    facts.image = *image;
    facts.spec = *spec;
    facts.labels = LabelsIn(file, *bucket);
    facts.image_env = EnvOf(root, file, name_space, facts.image);
    auto function = FunctionOf(facts);
    if (!function.ok()) return bad(function.error().message);
    out->functions.push_back(std::move(*function));
    return true;
  });
  if (!walked.ok()) out->problems.push_back(name_space + ": " + walked.error().message);
}

Status ReadFunctions(const std::string& root, FaasdData* out) {
  PULGA_ASSIGN_OR_RETURN(const BoltFile file, OpenDatabase(root));
  PULGA_ASSIGN_OR_RETURN(const BoltFile::Bucket v1, file.Open(file.root(), "v1"));
  return file.Walk(v1, [&](const BoltFile::Entry& entry) {
    const std::string name(entry.key);
    const auto bucket = entry.is_bucket ? BoltFile::BucketOf(entry)
                                        : Result<BoltFile::Bucket>(Error{Code::kNotFound, 0, ""});
    if (!bucket.ok()) return true;
    const auto labels = LabelsIn(file, *bucket);
    if (!IsOpenFaas(name, labels)) return true;
    out->name_spaces.push_back(name);
    const std::string note = NamespaceNote(labels);
    if (!note.empty()) out->name_space_notes.emplace(name, note);
    const auto containers = file.Open(*bucket, "containers");
    if (containers.ok()) ReadContainers(root, file, name, *containers, out);
    return true;
  });
}

std::vector<std::pair<std::string, bool>> NamesIn(
    const std::string& path) {  // with "is a directory"
  std::vector<std::pair<std::string, bool>> out;
  const auto dir = OpenFile(path, O_RDONLY | O_DIRECTORY);
  const auto names =
      dir.ok() ? ListNames(dir->get()) : Result<std::vector<std::string>>(dir.error());
  if (!names.ok()) return out;
  for (const std::string& name : *names) {
    struct stat st = {};
    if (name.starts_with('.') || fstatat(dir->get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
      continue;
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) out.emplace_back(name, S_ISDIR(st.st_mode));
  }
  std::sort(out.begin(), out.end());
  return out;
}

// secrets/NAMESPACE/NAME; of faasd before 0.14 secrets/NAME.
void ReadSecrets(const std::string& root, FaasdData* out) {
  const std::string path = At(root, kSecrets);
  std::set<std::pair<std::string, std::string>> seen;
  for (const auto& [name, is_directory] : NamesIn(path)) {
    if (!is_directory) continue;
    for (const auto& [inner, is_inner_directory] : NamesIn(path + "/" + name)) {
      if (is_inner_directory || !seen.emplace(name, inner).second) continue;
      out->secrets.push_back({inner, name, path + "/" + name + "/" + inner});
    }
  }
  for (const auto& [name, is_directory] : NamesIn(path)) {
    if (is_directory || !seen.emplace(kFunctionsSpace, name).second) continue;
    out->secrets.push_back({name, kFunctionsSpace, path + "/" + name});
  }
  for (const FaasdSecret& secret : out->secrets) out->name_spaces.push_back(secret.name_space);
}

std::string Quantity(uint64_t bytes) {
  return bytes % kMebibyte == 0 ? std::to_string(bytes / kMebibyte) + "Mi" : std::to_string(bytes);
}

}  // namespace

std::string BlobPath(const std::string& root, const std::string& digest) {
  if (!ParseDigest(digest)) return "";
  std::string name = digest;
  name[name.find(':')] = '/';
  return At(root, kContent) + name;
}

Result<std::string> AnyValue(std::string_view bytes) {
  const auto varint = [&bytes]() -> std::optional<uint64_t> {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes.front());
      bytes.remove_prefix(1);
      value |= uint64_t{byte & 0x7fU} << shift;
      if ((byte & 0x80) == 0) return value;
    }
    return std::nullopt;
  };
  constexpr uint64_t kTypeUrl = 1 << 3 | 2;
  constexpr uint64_t kValue = 2 << 3 | 2;
  std::string out;
  while (!bytes.empty()) {
    const auto tag = varint();
    const auto size = tag ? varint() : std::nullopt;
    if (!size || (*tag != kTypeUrl && *tag != kValue) || *size > bytes.size()) {
      return Error{Code::kInvalidArgument, 0, "the spec of its container is written unlike any"};
    }
    if (*tag == kValue) out = std::string(bytes.substr(0, *size));
    bytes.remove_prefix(*size);
  }
  return out;
}

Result<FaasdFunction> FunctionOf(const ContainerFacts& facts) {
  const Json spec = ParseReply(facts.spec);
  if (!spec.is_object()) {
    return Error{Code::kInvalidArgument, 0, "the spec of its container is no JSON"};
  }
  FaasdFunction out;
  out.name = facts.name;
  out.name_space = facts.name_space;
  out.image = facts.image;
  Json body = {{"service", facts.name}, {"namespace", facts.name_space}, {"image", facts.image}};
  Json env = Json::object();
  for (const Json& one : ListIn(Field(spec, "process"), "env")) {
    const std::string pair = one.is_string() ? one.get<std::string>() : "";
    const size_t equals = pair.find('=');
    if (equals == 0 || equals == std::string::npos) continue;
    if (pair.starts_with(kProcess)) {  // the image's own, too, as faasd tells it
      body["envProcess"] = pair.substr(kProcess.size());
      continue;
    }
    const auto& image = facts.image_env;
    if (std::find(image.begin(), image.end(), pair) != image.end()) continue;
    const std::string name = pair.substr(0, equals);
    if (name != "PATH" && name != "HOSTNAME") {  // containerd's own
      env[name] = pair.substr(equals + 1);
    }
  }
  body["envVars"] = env;
  Json labels = Json::object();
  Json annotations = Json::object();
  for (const auto& [name, value] : facts.labels) {
    if (name.starts_with(kAnnotation)) {
      annotations[name.substr(kAnnotation.size())] = value;
    } else if (!name.starts_with("containerd.io/") && !name.starts_with("io.containerd.")) {
      labels[name] = value;
    }
  }
  body["labels"] = labels;
  body["annotations"] = annotations;
  for (const Json& mount : ListIn(spec, "mounts")) {
    const std::string destination = TextIn(mount, "destination");
    if (!destination.starts_with(kSecretMounts)) continue;
    out.secrets.push_back(destination.substr(kSecretMounts.size()));
  }
  if (!out.secrets.empty()) body["secrets"] = out.secrets;
  const Json& resources = Field(Field(spec, "linux"), "resources");
  const uint64_t memory = NumberIn(Field(resources, "memory"), "limit");
  if (memory != 0) {
    body["limits"] = {{"memory", Quantity(memory)}};
  } else {
    out.notes.emplace_back("it had no memory limit and gets 128 MiB: set limits.memory for more");
  }
  if (NumberIn(Field(resources, "cpu"), "quota") != 0) {
    out.notes.emplace_back("its CPU quota is not taken along: set limits.cpu");
  }
  const Json& readonly = Field(Field(spec, "root"), "readonly");
  if (readonly.is_boolean() && readonly.get<bool>()) body["readOnlyRootFilesystem"] = true;
  out.deployment = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  return out;
}

Status CheckFunction(const FaasdFunction& function) {
  PULGA_RETURN_IF_ERROR(ValidateFunctionName(function.name_space));
  const Status name = ValidateFunctionName(function.name);
  if (!name.ok()) {
    return Error{name.error().code, 0,
                 name.error().message + "; deploy it from its stack file, under such a name"};
  }
  PULGA_ASSIGN_OR_RETURN(const JsonObject body, JsonObject::Parse(function.deployment));
  PULGA_ASSIGN_OR_RETURN(const Deployment wanted, ParseDeployment(body, "", {}));
  PULGA_RETURN_IF_ERROR(CheckTimeZones(wanted.spec.annotations));
  if (!HasScaleLabels(wanted.spec)) return OkStatus();
  PULGA_ASSIGN_OR_RETURN(const auto scaled, ApplyScaleLabels(wanted.spec, SandboxMode::kHttp));
  return Validate(scaled.spec);
}

std::string NamespaceNote(const std::map<std::string, std::string>& labels) {
  std::string lost;
  for (const auto& [name, value] : labels) {
    if (name == "openfaas") continue;
    lost += (lost.empty() ? "" : ", ") + name + "=" + value;
  }
  return lost.empty() ? "" : "its labels and annotations are not taken along: " + lost;
}

Result<FaasdData> ReadFaasd(const std::string& root) {
  FaasdData out;
  ReadSecrets(root, &out);
  const Status read = ReadFunctions(root, &out);
  if (!read.ok()) {
    if (out.secrets.empty()) {
      return Error{read.error().code, read.error().sys_errno,
                   "no faasd below " + root + ": " + read.error().message};
    }
    out.problems.push_back("functions: " + read.error().message);
  }
  std::sort(out.name_spaces.begin(), out.name_spaces.end());
  out.name_spaces.erase(std::unique(out.name_spaces.begin(), out.name_spaces.end()),
                        out.name_spaces.end());
  return out;
}

Result<StoredImage> FindImage(const std::string& root, const std::string& name_space,
                              const std::string& image) {
  PULGA_ASSIGN_OR_RETURN(const BoltFile file, OpenDatabase(root));
  PULGA_ASSIGN_OR_RETURN(const std::string target, TargetOf(file, name_space, image));
  PULGA_ASSIGN_OR_RETURN(const Manifest manifest, ManifestOf(root, target));
  StoredImage out;
  out.blobs = {manifest.digest, TextIn(Field(manifest.json, "config"), "digest")};
  for (const Json& layer : ListIn(manifest.json, "layers")) {
    const std::string digest = TextIn(layer, "digest");
    if (std::find(out.blobs.begin(), out.blobs.end(), digest) == out.blobs.end())
      out.blobs.push_back(digest);
  }
  for (const std::string& digest : out.blobs) {
    if (!Exists(BlobPath(root, digest)))
      return Error{Code::kNotFound, 0, "containerd has no longer " + Printable(digest, 80)};
  }
  out.index = Json({{"schemaVersion", 2},
                    {"manifests",
                     {{{"mediaType", manifest.type},
                       {"digest", manifest.digest},
                       {"size", manifest.size},
                       {"annotations", {{"io.containerd.image.name", image}}}}}}})
                  .dump();
  return out;
}

}  // namespace pulga::cli
