// The JSON that goes out under /v1, and the two small bodies that come in besides function specs
// (runtime/spec_json.h has those). Field names and shapes are the API's contract: tests hold
// goldens. Strings from outside are made valid UTF-8. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/error_mapping.h"
#include "runtime/engine.h"

namespace pulga {

std::string ErrorJson(const ApiError& error);
std::string ImportReportJson(const ImportReport& report);
// With what became of it: "images" as an import gives them, or "error".
std::string UploadJson(const UploadView& view);
std::string UploadListJson(const std::vector<UploadView>& uploads);
std::string ImageJson(const ImageRecord& image);
std::string ImageListJson(const std::vector<ImageRecord>& images);
std::string VerifyReportJson(const VerifyReport& report);
std::string PruneReportJson(const PruneReport& report);
std::string FunctionJson(const FunctionStatus& status, const std::vector<std::string>& warnings);
std::string FunctionListJson(const std::vector<FunctionStatus>& list);
std::string SystemJson(const SystemReport& report);
std::string FeaturesJson(const std::vector<Feature>& features);
std::string LogLineJson(const LogLine& line);  // with a newline

std::string PullProgressJson(const PullProgress& progress);  // with a newline, as all of these

// {"ref": "hello:1", "auth": "base64 of user:password" or an entry of Docker's "auths"}
Result<PullRequest> ParsePullBody(std::string_view text);
// {"all": true}, {} or nothing at all
Result<PruneScope> ParsePruneBody(std::string_view text);
// {"instances": 3}
Result<uint32_t> ParseScaleBody(std::string_view text);
// {"version": 2}, {} or nothing at all
Result<std::optional<uint32_t>> ParseRollbackBody(std::string_view text);

std::string Rfc3339(int64_t unix_ms);  // "2026-01-02T03:04:05.678Z"

}  // namespace pulga
