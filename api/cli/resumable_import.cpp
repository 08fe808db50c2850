#include "api/cli/resumable_import.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/cli/output.h"
#include "base/text.h"
#include "base/units.h"

namespace pulga::cli {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::minutes(2);
constexpr milliseconds kFirstPause{200};
constexpr milliseconds kLongestPause{5000};
constexpr int kStallSeconds = 30;

// What went wrong, and whether another try may do.
struct Trouble {
  Error error;
  bool passing = false;
};

std::string Inode(const struct stat& st) {
  return std::to_string(st.st_size) + ":" + std::to_string(st.st_mtim.tv_sec) + "." +
         std::to_string(st.st_mtim.tv_nsec) + ":" + std::to_string(st.st_dev) + ":" +
         std::to_string(st.st_ino);
}

// Where the daemon is with an upload.
struct Whereabouts {
  uint64_t offset = 0;
  bool busy = false;  // with a part
  bool over = false;
};

class ResumableImport {
 public:
  ResumableImport(const DaemonClient& client, const ImportRequest& wanted, const ArchiveFile& file,
                  Contact contact)
      : client_(client), wanted_(wanted), file_(file), met_(contact == Contact::kLost) {}

  Result<ClientReply> Run() {
    struct stat st = {};
    if (fstat(file_.fd, &st) != 0) return LastError("stat " + file_.name);
    identity_ = Inode(st);
    size_ = static_cast<uint64_t>(st.st_size);
    metadata_ = "filename " + Base64Encode(file_.name) + ",fingerprint " + Base64Encode(identity_);
    if (!wanted_.ref.empty()) metadata_ += ",ref " + Base64Encode(wanted_.ref);
    if (wanted_.any_platform) metadata_ += ",any_platform " + Base64Encode("1");
    ProgressBar bar("import " + file_.name, size_);
    bar_ = &bar;
    last_progress_ = Clock::now();
    milliseconds pause = kFirstPause;
    while (true) {
      const uint64_t before = best_offset_;
      const auto trouble = Try();
      if (!trouble) return result_;
      if (best_offset_ > before) {
        last_progress_ = Clock::now();
        pause = kFirstPause;
      }
      if (!trouble->passing || !met_) return trouble->error;
      if (Clock::now() - last_progress_ > kPatience) {
        return Prefix(
            "given up after two minutes without progress; what arrived is kept, the same "
            "command goes on",
            trouble->error);
      }
      bar.Clear();
      PrintErr("at " + HumanBytes(best_offset_) + " of " + HumanBytes(size_) + ": " +
               trouble->error.message + "; trying again\n");
      // Who cancels a daemon's calls is its owner, and no other one takes its place.
      pollfd cancel = {client_.url().cancel_fd, POLLIN, 0};
      if (poll(&cancel, 1, static_cast<int>(pause.count())) > 0) return trouble->error;
      pause = std::min(pause * 2, kLongestPause);
    }
  }

 private:
  using Step = std::optional<Trouble>;  // nothing: it went well

  Step Try() {
    if (Step lost = Locate()) return lost;
    Whereabouts now;
    if (Step lost = Look(&now)) return lost;
    if (now.over) return std::nullopt;
    if (!told_ && now.offset > 0 && best_offset_ == 0) {
      PrintErr("going on at " + HumanBytes(now.offset) + " of " + HumanBytes(size_) + "\n");
    }
    told_ = true;
    best_offset_ = std::max(best_offset_, now.offset);
    // Asked first: what a refused part brings is sent in vain.
    if (now.busy) return Trouble{{Code::kIo, 0, "the last connection's bytes still arrive"}, true};
    if (Step lost = Send(now.offset)) return lost;
    if (Step lost = Look(&now)) return lost;
    if (now.over) return std::nullopt;
    return Trouble{{Code::kIo, 0, "the upload is not done yet"}, true};
  }

  // Our own unfinished upload, or a new one.
  Step Locate() {
    if (!path_.empty()) return std::nullopt;
    ClientReply list;
    if (Step lost = Ask("GET", "/v1/uploads", {}, &list)) return lost;
    if (list.status != 200) return RefusedFor(list);
    const Json json = Json::parse(list.body, nullptr, /*allow_exceptions=*/false);
    const Json uploads = json.is_object() ? json.value("uploads", Json::array()) : Json::array();
    for (const Json& upload : uploads) {
      const std::string state = upload.value("state", "");
      if (upload.value("metadata", "") != metadata_ || upload.value("length", size_t{0}) != size_ ||
          (state != "receiving" && state != "importing")) {
        continue;
      }
      path_ = "/v1/uploads/" + upload.value("id", "");
      return std::nullopt;
    }
    ClientReply made;
    const HeaderList headers = {{"Upload-Length", std::to_string(size_)},
                                {"Upload-Metadata", metadata_}};
    if (Step lost = Ask("POST", "/v1/uploads", headers, &made)) return lost;
    if (made.status != 201) return RefusedFor(made);
    path_ = made.Header("Location");
    const size_t host = path_.find("/v1/uploads/");  // it may be absolute
    if (host == std::string::npos) return RefusedFor(made);
    path_.erase(0, host);
    return std::nullopt;
  }

  Step Send(uint64_t offset) {
    struct stat st = {};
    if (fstat(file_.fd, &st) != 0 || Inode(st) != identity_) {
      return Trouble{{Code::kIo, 0, file_.name + " changed while it was sent"}, false};
    }
    if (lseek(file_.fd, static_cast<off_t>(offset), SEEK_SET) < 0) {
      return Trouble{LastError("seek in " + file_.name), false};
    }
    ClientRequest request;
    request.method = "PATCH";
    request.target = path_;
    request.headers = {{"Content-Type", "application/offset+octet-stream"},
                       {"Upload-Offset", std::to_string(offset)}};
    request.body_fd = file_.fd;
    request.body_size = size_ - offset;
    request.on_progress = [this, offset](uint64_t sent) { bar_->Update(offset + sent); };
    ClientReply reply;
    if (Step lost = Exchanged(std::move(request), &reply)) return lost;
    if (reply.status != 204) return RefusedFor(reply);
    best_offset_ = size_;
    return std::nullopt;
  }

  // Where the daemon is. Once the import is over, well or not, result_ says which.
  Step Look(Whereabouts* now) {
    ClientReply reply;
    if (Step lost = Ask("GET", path_, {}, &reply)) return lost;
    if (reply.status == 404 || reply.status == 410) {
      path_.clear();  // begin again
      return Trouble{RefusalOf(reply), true};
    }
    if (reply.status != 200) return RefusedFor(reply);
    const Json json = Json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || json.value("offset", size_ + 1) > size_) {
      return Trouble{{Code::kIo, 0, "the daemon does not tell where it is"}, false};
    }
    now->offset = json.value("offset", uint64_t{0});
    now->busy = json.value("busy", false);
    const std::string state = json.value("state", "");
    now->over = state == "imported" || state == "failed";
    if (state == "failed") {
      reply.body = Json({{"error", json.value("error", Json::object())}}).dump();
      result_ = Error{Code::kInvalidArgument, 0, ErrorTextOf(reply)};
    } else if (now->over) {
      reply.body = Json({{"images", json.value("images", Json::array())}}).dump() + "\n";
      result_ = std::move(reply);
    }
    return std::nullopt;
  }

  Step Ask(const std::string& method, const std::string& target, HeaderList headers,
           ClientReply* reply) {
    ClientRequest request;
    request.method = method;
    request.target = target;
    request.headers = std::move(headers);
    return Exchanged(std::move(request), reply);
  }

  Step Exchanged(ClientRequest request, ClientReply* reply) {
    request.headers.emplace_back("Tus-Resumable", "1.0.0");
    request.stall_seconds = kStallSeconds;
    if (!client_.key().empty()) {
      request.headers.emplace_back("Authorization", "Bearer " + client_.key());
    }
    auto got = client_.Invoke(request, {});
    if (!got.ok()) return Trouble{got.error(), true};
    met_ = true;
    if (!got->complete) return Trouble{{Code::kIo, 0, "the daemon's reply broke off"}, true};
    *reply = std::move(*got);
    return std::nullopt;
  }

  static Error RefusalOf(const ClientReply& reply) {
    return {reply.status == 507 ? Code::kNoSpace : Code::kInvalidArgument, 0, ErrorTextOf(reply)};
  }
  static Step RefusedFor(const ClientReply& reply) {
    const int status = reply.status;
    const bool passing = status == 409 || status == 423 || status == 429 || status == 502 ||
                         status == 503 || status == 504;
    return Trouble{RefusalOf(reply), passing};
  }

  const DaemonClient& client_;
  const ImportRequest& wanted_;
  const ArchiveFile& file_;
  std::string identity_;
  std::string metadata_;
  std::string path_;  // of the upload; empty: not known yet
  uint64_t size_ = 0;
  uint64_t best_offset_ = 0;
  Clock::time_point last_progress_;
  ProgressBar* bar_ = nullptr;
  bool met_;           // the daemon has answered once
  bool told_ = false;  // that an earlier upload goes on
  Result<ClientReply> result_ = Error{};
};

}  // namespace

Result<ClientReply> ImportResumably(const DaemonClient& client, const ImportRequest& wanted,
                                    const ArchiveFile& file, Contact contact) {
  return ResumableImport(client, wanted, file, contact).Run();
}

bool IsLocalUrl(const DaemonUrl& url) {
  return !url.unix_path.empty() || url.host == "localhost" || url.host == "::1" ||
         url.host.starts_with("127.");
}

}  // namespace pulga::cli
