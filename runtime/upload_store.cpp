#include "runtime/upload_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/file_io.h"
#include "base/log.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga {
namespace {

using Json = nlohmann::json;

constexpr size_t kIdDigits = 32;
constexpr size_t kMaxInfo = 4 << 20;
constexpr off_t kMaxJournal = 64 << 10;  // written anew beyond: parts may be tiny and many
constexpr size_t kCertainDigits = 20;    // a line of the journal, whose last one counts

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json OutcomeToJson(const UploadOutcome& outcome) {
  Json out = {{"reason", static_cast<int>(outcome.reason)}, {"warnings", outcome.warnings}};
  if (outcome.failure) {
    out["code"] = static_cast<int>(outcome.failure->code);
    out["message"] = outcome.failure->message;
  }
  out["images"] = Json::array();
  for (const auto& image : outcome.images) {
    out["images"].push_back({{"digest", image.digest}, {"refs", image.refs}});
  }
  return out;
}

// Typed reads: what is missing or of another type is the default.
std::string Text(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}
int64_t Number(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
}
std::vector<std::string> Texts(const Json& object, const char* name) {
  std::vector<std::string> out;
  const auto it = object.find(name);
  if (it == object.end() || !it->is_array()) return out;
  for (const Json& one : *it) {
    if (one.is_string()) out.push_back(one.get<std::string>());
  }
  return out;
}

UploadOutcome OutcomeFromJson(const Json& json) {
  UploadOutcome outcome;
  outcome.reason = static_cast<ImportReason>(Number(json, "reason"));
  outcome.warnings = Texts(json, "warnings");
  if (json.contains("code")) {
    const int64_t code =
        std::clamp<int64_t>(Number(json, "code"), 0, static_cast<int64_t>(Code::kInternal));
    outcome.failure = Error{static_cast<Code>(code), 0, Text(json, "message")};
  }
  if (!json.contains("images") || !json["images"].is_array()) return outcome;
  for (const Json& image : json["images"]) {
    if (image.is_object()) outcome.images.push_back({Text(image, "digest"), Texts(image, "refs")});
  }
  return outcome;
}

std::string CertainLine(uint64_t offset) {
  char line[kCertainDigits + 2];
  snprintf(line, sizeof line, "%020llu\n", static_cast<unsigned long long>(offset));
  return line;
}

// A line that was cut by a crash, or is not there but for its length, does not count.
uint64_t LastCertain(std::string_view journal) {
  uint64_t certain = 0;
  for (const std::string_view line : Split(journal, '\n')) {
    if (line.size() != kCertainDigits) continue;
    if (const auto offset = ParseUint(line)) certain = *offset;
  }
  return certain;
}

bool IsId(std::string_view text) {
  return text.size() == kIdDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Status Truncate(const std::string& path, uint64_t size) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd file, OpenFile(path, O_WRONLY | O_NOFOLLOW));
  if (ftruncate(file.get(), static_cast<off_t>(size)) != 0 || fsync(file.get()) != 0) {
    return LastError("truncate " + path);
  }
  return OkStatus();
}

Result<std::vector<std::string>> NamesIn(const std::string& path) {
  DIR* dir = opendir(path.c_str());
  if (dir == nullptr) return LastError("open " + path);
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(dir);
  return names;
}

}  // namespace

std::string UploadStore::ThisBoot() {
  const auto text = ReadFile("/proc/sys/kernel/random/boot_id", 64);
  return text.ok() ? text->substr(0, text->find('\n')) : "";
}

Result<std::vector<StoredUpload>> UploadStore::Open() {
  PULGA_RETURN_IF_ERROR(MakeDirs(dir_, 0700));
  PULGA_ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(dir_));
  std::vector<StoredUpload> uploads;
  for (const std::string& name : names) {
    if (name.size() != kIdDigits + 5 || !name.ends_with(".info")) continue;
    const std::string id = name.substr(0, kIdDigits);
    if (!IsId(id)) continue;
    auto upload = Load(id);
    if (upload.ok()) {
      uploads.push_back(std::move(*upload));
    } else {
      LogWarning("upload " + id + " is lost: " + Printable(upload.error().message));
    }
  }
  for (const std::string& name : names) {
    const auto known = [&](const StoredUpload& upload) {
      return name == upload.id + ".info" || (!upload.outcome && name == upload.id + ".data");
    };
    if (std::any_of(uploads.begin(), uploads.end(), known)) continue;
    if (unlink((dir_ + "/" + name).c_str()) == 0) LogInfo("removed leftover " + Printable(name));
  }
  return uploads;
}

Result<StoredUpload> UploadStore::Load(const std::string& id) const {
  PULGA_ASSIGN_OR_RETURN(const std::string text, ReadFile(InfoPath(id), kMaxInfo));
  const size_t line = std::min(text.find('\n'), text.size());
  const Json json = Json::parse(text.substr(0, line), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || Number(json, "length") < 0) {
    return Error{Code::kIo, 0, "its record is damaged"};
  }
  StoredUpload upload;
  upload.id = id;
  upload.length = static_cast<uint64_t>(Number(json, "length"));
  upload.metadata = Text(json, "metadata");
  upload.filename = Text(json, "filename");
  upload.ref = Text(json, "ref");
  upload.any_platform =
      Number(json, "any_platform") != 0 ? AnyPlatform::kStore : AnyPlatform::kRefuse;
  upload.created_ms = Number(json, "created_ms");
  upload.touched_ms = Number(json, "touched_ms");
  if (json.contains("outcome") && json["outcome"].is_object()) {
    upload.outcome = OutcomeFromJson(json["outcome"]);
    upload.offset = upload.length;
    return upload;
  }
  struct stat st = {};
  if (lstat(DataPath(id).c_str(), &st) != 0) return LastError("stat its bytes");
  if (!S_ISREG(st.st_mode)) return Error{Code::kIo, 0, "its bytes are no file"};
  const uint64_t size = static_cast<uint64_t>(st.st_size);
  upload.touched_ms = static_cast<int64_t>(st.st_mtim.tv_sec) * 1000;
  const uint64_t certain = LastCertain(std::string_view(text).substr(line));
  const bool same_boot = !boot_.empty() && Text(json, "boot") == boot_;
  upload.offset = std::min({size, upload.length, same_boot ? UINT64_MAX : certain});
  if (size != upload.offset) PULGA_RETURN_IF_ERROR(Truncate(DataPath(id), upload.offset));
  if (!same_boot) PULGA_RETURN_IF_ERROR(WriteInfo(upload));
  return upload;
}

Status UploadStore::CheckSpace(const Demand& demand) const {
  struct statfs disk = {};
  if (statfs(dir_.c_str(), &disk) != 0) return LastError("look at the disk");
  const uint64_t free = static_cast<uint64_t>(disk.f_bavail) * static_cast<uint64_t>(disk.f_bsize);
  if (free >= demand.reserve && demand.bytes <= free - demand.reserve) return OkStatus();
  return Error{Code::kNoSpace, 0,
               "the disk is full: " + HumanBytes(free) + " are free, " +
                   HumanBytes(demand.reserve) + " of them reserved (setting reserve-bytes)"};
}

Status UploadStore::WriteInfo(const StoredUpload& upload) const {
  Json json = {{"length", upload.length},
               {"metadata", upload.metadata},
               {"filename", upload.filename},
               {"ref", upload.ref},
               {"any_platform", upload.any_platform == AnyPlatform::kStore ? 1 : 0},
               {"created_ms", upload.created_ms},
               {"touched_ms", upload.touched_ms},
               {"boot", boot_}};
  if (upload.outcome) json["outcome"] = OutcomeToJson(*upload.outcome);
  return WriteFileDurably(InfoPath(upload.id), Dump(json) + "\n" + CertainLine(upload.offset),
                          0600);
}

Status UploadStore::Create(const StoredUpload& upload) {
  PULGA_ASSIGN_OR_RETURN(
      const UniqueFd data,
      OpenFile(DataPath(upload.id), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  const Status written = WriteInfo(upload);
  if (!written.ok()) Remove(upload.id);
  return written;
}

Result<UniqueFd> UploadStore::OpenData(const std::string& id) const {
  return OpenFile(DataPath(id), O_RDWR | O_NOFOLLOW);
}

Status UploadStore::Append(int data_fd, const Piece& piece, size_t* written) const {
  *written = 0;
  PULGA_RETURN_IF_ERROR(CheckSpace({piece.bytes.size(), piece.reserve}));
  while (*written < piece.bytes.size()) {
    const ssize_t n = pwrite(data_fd, piece.bytes.data() + *written, piece.bytes.size() - *written,
                             static_cast<off_t>(piece.offset + *written));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LastError("write the upload");
    *written += static_cast<size_t>(n);
  }
  return OkStatus();
}

Status UploadStore::Sync(const std::string& id, int data_fd, uint64_t offset) const {
  if (fdatasync(data_fd) != 0) return LastError("sync the upload");
  PULGA_ASSIGN_OR_RETURN(const UniqueFd info,
                         OpenFile(InfoPath(id), O_WRONLY | O_APPEND | O_NOFOLLOW));
  struct stat st = {};
  if (fstat(info.get(), &st) == 0 && st.st_size > kMaxJournal) {
    PULGA_ASSIGN_OR_RETURN(const std::string text, ReadFile(InfoPath(id), kMaxInfo));
    return WriteFileDurably(InfoPath(id), text.substr(0, text.find('\n') + 1) + CertainLine(offset),
                            0600);
  }
  PULGA_RETURN_IF_ERROR(WriteAll(info.get(), CertainLine(offset)));
  if (fdatasync(info.get()) != 0) return LastError("sync the upload's record");
  return OkStatus();
}

Status UploadStore::WriteOutcome(const StoredUpload& upload) const {
  PULGA_RETURN_IF_ERROR(WriteInfo(upload));
  (void)unlink(DataPath(upload.id).c_str());
  return OkStatus();
}

void UploadStore::Remove(const std::string& id) const {
  for (const std::string& path : {InfoPath(id), DataPath(id)}) {
    if (unlink(path.c_str()) != 0 && errno != ENOENT)
      LogWarning(LastError("remove " + path).message);
  }
}

}  // namespace pulga
