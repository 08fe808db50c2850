// The rules of the tus protocol that can be told from a request's head. Pure.
// Source: tus resumable upload protocol 1.0.0 (core, creation, termination, expiration).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "api/error_mapping.h"
#include "api/http_message.h"
#include "base/result.h"

namespace pulga {

inline constexpr char kTusVersion[] = "1.0.0";
inline constexpr char kTusExtensions[] = "creation,termination,expiration";

// Is this a path under /v1/uploads?
bool IsUploadPath(std::string_view path);
// Every reply there names the version. Adds it once.
void AddTusVersion(std::string_view path, HttpReply* reply);
// What X-HTTP-Method-Override says counts instead of the request line.
std::string_view TusMethod(const HttpRequest& request);
// 412 for another version than ours; 400 for a header of the protocol that is there twice.
std::optional<ApiError> CheckTusHead(const HttpRequest& request);
// Upload-Length, Upload-Offset: decimal digits and nothing else.
Result<uint64_t> TusNumber(const HttpRequest& request, const char* header);
// "key base64,key base64": keys once each, values decoded. kInvalidArgument.
Result<std::map<std::string, std::string>> ParseUploadMetadata(std::string_view header);
// "Wed, 25 Jun 2014 16:00:00 GMT"
std::string HttpDate(int64_t unix_ms);

}  // namespace pulga
