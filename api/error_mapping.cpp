#include "api/error_mapping.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "api/json_codec.h"
#include "base/log.h"
#include "base/text.h"

namespace pulga {
namespace {

struct Mapping {
  Code code;
  int status;
  const char* suffix;  // of the stable code
  bool about_object;   // the stable code begins with the object's name
};

constexpr Mapping kMappings[] = {
    {Code::kInvalidArgument, 400, "invalid_argument", false},
    {Code::kNotFound, 404, "_not_found", true},
    {Code::kAlreadyExists, 409, "_conflict", true},
    {Code::kPermission, 403, "forbidden", false},
    {Code::kTooLarge, 413, "too_large", false},
    {Code::kNoSpace, 507, "no_space", false},
    {Code::kUnsupported, 422, "unsupported", false},
    {Code::kUnavailable, 503, "unavailable", false},
    {Code::kTimeout, 504, "timeout", false},
    {Code::kIo, 500, "io_error", false},
    {Code::kInternal, 500, "internal_error", false},
};

// Messages of these speak about the host's own files.
bool MayNameHostPaths(Code code) {
  return code == Code::kIo || code == Code::kInternal || code == Code::kNoSpace ||
         code == Code::kPermission || code == Code::kUnavailable;
}

std::string_view ImportCode(ImportReason reason) {
  switch (reason) {
    case ImportReason::kNone:
      break;
    case ImportReason::kBadRef:
      return "invalid_ref";
    case ImportReason::kDenied:
      return "registry_denied";
    case ImportReason::kNoSuchImage:
      return "image_not_found";
    case ImportReason::kRegistry:
      return "registry_error";
    case ImportReason::kAmbiguous:
      return "ambiguous_archive";
    case ImportReason::kLayerGone:
      return "layer_gone";
    case ImportReason::kTooLarge:
      return "too_large";
    case ImportReason::kNotAnArchive:
      return "not_an_archive";
    case ImportReason::kBadImage:
      return "bad_image";
    case ImportReason::kHelper:
      return "unavailable";
    case ImportReason::kNoSpace:
      return "no_space";
    case ImportReason::kInternal:
      return "internal_error";
  }
  return "internal_error";
}

// The stable code of a failed call: the outcome's name without its argument.
std::string CallCode(const Outcome& outcome) {
  if (outcome.kind == OutcomeKind::kRejected && outcome.detail == kRejectUnknownFunction) {
    return "function_not_found";
  }
  std::string code = OutcomeName(outcome);
  if (outcome.kind != OutcomeKind::kRejected) code.resize(std::min(code.find(':'), code.size()));
  std::replace_if(
      code.begin(), code.end(), [](char c) { return c == ':' || c == '-'; }, '_');
  return code;
}

// Nobody is told to send a call again that may have run.
bool MayHaveRun(const Outcome& outcome) {
  return outcome.kind == OutcomeKind::kSetupFailed &&
         (outcome.detail == kLauncherLost || outcome.detail == kSpawnerLost);
}

// OpenFaaS' clients and queue workers tell by it what no function said.
constexpr const char* kByTheProxy = "X-OpenFaaS-Internal";

HttpReply TextOrJson(const ApiError& error, ErrorForm form) {
  HttpReply reply;
  reply.status = error.status;
  if (form == ErrorForm::kJson) {
    reply.headers.emplace_back("Content-Type", "application/json");
    reply.body = ErrorJson(error);
  } else {
    reply.headers.emplace_back("Content-Type", "text/plain; charset=utf-8");
    reply.body = error.message;
    if (reply.body.empty() || reply.body.back() != '\n') reply.body += '\n';
  }
  reply.headers.emplace_back("X-Content-Type-Options", "nosniff");
  return reply;
}

}  // namespace

std::string WithoutHostPaths(std::string_view message) {
  std::string out;
  for (size_t i = 0; i < message.size(); ++i) {
    const bool at_start =
        i == 0 || message[i - 1] == ' ' || message[i - 1] == '"' || message[i - 1] == '(';
    if (message[i] != '/' || !at_start) {
      out += message[i];
      continue;
    }
    size_t end = std::min(message.find_first_of(" :\",)", i), message.size());
    const std::string_view path = message.substr(i, end - i);
    out += path.substr(path.rfind('/') + 1);
    i = end - 1;
  }
  return out;
}

ApiError ToApiError(const Error& error, std::string_view object) {
  ApiError out;
  for (const Mapping& mapping : kMappings) {
    if (mapping.code != error.code) continue;
    out.status = mapping.status;
    out.code = (mapping.about_object ? std::string(object) : std::string()) + mapping.suffix;
  }
  // A device or a port of the host that another has: no object of ours.
  if (error.code == Code::kAlreadyExists && error.sys_errno == EBUSY) out.code = "in_use";
  out.message = MayNameHostPaths(error.code) ? WithoutHostPaths(error.message) : error.message;
  // The lookup of a program fails for several reasons, each with an error code of its own.
  if (out.status < 500 && error.message.find("cannot run \"") != std::string::npos) {
    out.status = 422;
    out.code = "cannot_run";
    out.message = error.message;  // the paths in it are the image's
  }
  if (out.status >= 500) LogWarning("request failed: " + Printable(error.message, 500));
  return out;
}

ApiError ToApiError(const ImportReport& failed) {
  if (failed.reason == ImportReason::kNone) return ToApiError(failed.status.error(), "image");
  ApiError out;
  out.status = static_cast<int>(failed.reason);
  out.code = std::string(ImportCode(failed.reason));
  out.message = out.status >= 500 ? WithoutHostPaths(failed.status.error().message)
                                  : failed.status.error().message;
  return out;
}

HttpReply ErrorReply(const ApiError& error) {
  HttpReply reply;
  reply.status = error.status;
  reply.headers = {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}};
  if (error.status == 401) {
    reply.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"pulga\"");
  }
  if (error.status == 429 || error.status == 503) reply.headers.emplace_back("Retry-After", "1");
  reply.body = ErrorJson(error);
  return reply;
}

ErrorForm PreferredForm(const HttpRequest& request) {
  return Accepts(request, "application/json") ? ErrorForm::kJson : ErrorForm::kText;
}

HttpReply FailedCallReply(const FailedCall& call, ErrorForm form) {
  ApiError error;
  error.status = OutcomeStatus(call.outcome);
  if (error.status == 0) error.status = 502;  // it claims success but gave no reply
  error.code = CallCode(call.outcome);
  error.message = call.text;
  if (error.status == 404) {
    const std::string name = call.function.substr(0, call.function.find('.'));
    error.message = "error finding function " + call.function +
                    ": server returned non-200 status code (404) for function, " + name +
                    ", body: ";
  } else if (error.message.empty()) {
    error.message = "the call ended with " + OutcomeName(call.outcome);
  }
  error.details.emplace_back("outcome", OutcomeName(call.outcome));
  HttpReply reply = TextOrJson(error, form);
  uint32_t retry = call.retry_after_s;
  const bool again = error.status == 429 || error.status == 503;
  if (retry == 0 && again && !MayHaveRun(call.outcome)) retry = 1;
  if (retry != 0) reply.headers.emplace_back("Retry-After", std::to_string(retry));
  reply.headers.emplace_back(kByTheProxy, "proxy");
  return reply;
}

HttpReply RefusedCallReply(const ApiError& error, ErrorForm form, std::string call_id) {
  HttpReply reply = TextOrJson(error, form);
  if (error.status == 429 || error.status == 503) reply.headers.emplace_back("Retry-After", "1");
  std::string outcome = "rejected:" + error.code;
  std::replace(outcome.begin(), outcome.end(), '_', '-');
  Receipt receipt;
  receipt.queue_ms = 0;  // it waited for nothing
  reply.headers.emplace_back("X-Call-Id", std::move(call_id));
  reply.headers.emplace_back("X-Pulga-Start", StartKindName(receipt.start));
  reply.headers.emplace_back("X-Pulga-Outcome", std::move(outcome));
  reply.headers.emplace_back("Server-Timing", ServerTiming(receipt));
  reply.headers.emplace_back(kByTheProxy, "proxy");
  return reply;
}

}  // namespace pulga
