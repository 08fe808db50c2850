#include "base/file_io.h"
#include "runtime/policy/trace.h"

namespace pulga {
namespace {

// X + `other` for X + `suffix`; "" when `path` ends otherwise, or there is no such file.
Result<std::string> Beside(const std::string& path, std::string_view suffix,
                           std::string_view other) {
  if (!path.ends_with(suffix)) return std::string();
  const std::string sibling = path.substr(0, path.size() - suffix.size()) + std::string(other);
  auto text = ReadFile(sibling, kTraceFileBytes);
  if (!text.ok() && text.error().code == Code::kNotFound) return std::string();
  return text;
}

}  // namespace

Result<Trace> ReadTrace(const std::string& path) {
  PULGA_ASSIGN_OR_RETURN(const std::string calls, ReadFile(path, kTraceFileBytes));
  if (calls.starts_with(kHistoryHead)) {
    auto trace = ParseHistory(calls);
    if (!trace.ok()) return Prefix(path, std::move(trace).error());
    return trace;
  }
  const bool minutes = calls.starts_with("HashOwner,HashApp,HashFunction,Trigger");
  if (!minutes && !calls.starts_with("func_name,invoke_time_ms")) {
    return Error{Code::kInvalidArgument, 0,
                 path +
                     ": its first line is neither \"HashOwner,HashApp,HashFunction,Trigger,...\" "
                     "nor \"func_name,invoke_time_ms\" nor \"" +
                     std::string(kHistoryHead) + "\""};
  }
  PULGA_ASSIGN_OR_RETURN(const std::string sizes,
                         minutes ? Beside(path, "-invocations.csv", "-memory.csv")
                                 : Beside(path, "-trace.csv", "-metadata-trace.csv"));
  auto trace = minutes ? ParseMinutes(calls, sizes) : ParseMoments(calls, sizes);
  if (!trace.ok()) return Prefix(path, std::move(trace).error());
  return trace;
}

}  // namespace pulga
