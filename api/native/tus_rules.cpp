#include "api/native/tus_rules.h"

#include <algorithm>
#include <ctime>

#include "base/text.h"

namespace pulga {
namespace {

constexpr size_t kMaxMetadata = 4096;
constexpr const char* kTusHeaders[] = {
    "Tus-Resumable",       "Upload-Length",          "Upload-Offset", "Upload-Metadata",
    "Upload-Defer-Length", "X-HTTP-Method-Override", "Content-Type"};

Error Bad(std::string why) { return Error{Code::kInvalidArgument, 0, std::move(why)}; }

}  // namespace

bool IsUploadPath(std::string_view path) {
  return path == "/v1/uploads" || path.starts_with("/v1/uploads/");
}

void AddTusVersion(std::string_view path, HttpReply* reply) {
  constexpr char kName[] = "Tus-Resumable";
  const auto is_it = [&](const auto& header) { return header.first == kName; };
  if (!IsUploadPath(path) || std::any_of(reply->headers.begin(), reply->headers.end(), is_it)) {
    return;
  }
  reply->headers.emplace_back(kName, kTusVersion);
}

std::string_view TusMethod(const HttpRequest& request) {
  const std::string* method = request.Header("X-HTTP-Method-Override");
  return method != nullptr ? std::string_view(*method) : std::string_view(request.method);
}

std::optional<ApiError> CheckTusHead(const HttpRequest& request) {
  for (const char* name : kTusHeaders) {
    const auto times =
        std::count_if(request.headers.begin(), request.headers.end(),
                      [name](const auto& header) { return EqualsIgnoreCase(header.first, name); });
    if (times > 1) {
      return ApiError{400, "invalid_argument", std::string(name) + " is there twice", {}};
    }
  }
  const std::string* version = request.Header("Tus-Resumable");
  if (version != nullptr && *version == kTusVersion) return std::nullopt;
  return ApiError{412,
                  "tus_version",
                  std::string("this wants the header \"Tus-Resumable: ") + kTusVersion + "\"",
                  {}};
}

Result<uint64_t> TusNumber(const HttpRequest& request, const char* header) {
  const std::string* text = request.Header(header);
  if (text == nullptr) return Bad(std::string(header) + " is missing");
  const auto number = ParseUint(*text, INT64_MAX);
  if (!number) return Bad(std::string(header) + " must be a number of bytes");
  return *number;
}

Result<std::map<std::string, std::string>> ParseUploadMetadata(std::string_view header) {
  std::map<std::string, std::string> out;
  if (header.size() > kMaxMetadata) {
    return Bad("Upload-Metadata is longer than " + std::to_string(kMaxMetadata) + " bytes");
  }
  if (Trim(header).empty()) return out;
  for (const std::string_view part : Split(header, ',')) {
    const std::string_view pair = Trim(part);
    const size_t space = std::min(pair.find(' '), pair.size());
    const std::string key(pair.substr(0, space));
    const auto odd = [](char c) { return c <= 0x20 || c >= 0x7f; };
    if (key.empty() || std::any_of(key.begin(), key.end(), odd)) {
      return Bad("Upload-Metadata: a key must be ASCII without spaces, and not empty");
    }
    const std::string_view coded = Trim(pair.substr(space));
    auto value = Base64Decode(coded);
    if (!value) return Bad("Upload-Metadata: the value of " + key + " is not Base64");
    if (!out.emplace(key, std::move(*value)).second) {
      return Bad("Upload-Metadata: " + key + " is there twice");
    }
  }
  return out;
}

std::string HttpDate(int64_t unix_ms) {
  const time_t seconds = static_cast<time_t>(unix_ms / 1000);
  tm parts = {};
  gmtime_r(&seconds, &parts);
  char text[64];
  // The daemon sets no locale.
  const size_t size = strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return std::string(text, size);
}

}  // namespace pulga
