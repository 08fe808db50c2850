#include "sandbox/build_report.h"

#include <unistd.h>

#include <algorithm>

#include "base/sys.h"

namespace pulga {

Status SendReport(int report_fd, const BuildReport& report) {
  if (PULGA_SYS(write, report_fd, &report, sizeof report) == sizeof report) return OkStatus();
  return LastError("report");
}

BuildReport MakeReport(ReportKind kind, pid_t pid, std::string_view text) {
  BuildReport report = {};
  report.kind = kind;
  report.pid = pid;
  text.copy(report.text, sizeof report.text - 1);
  return report;
}

void ReportFailure(int report_fd, const Error& error, pid_t pid) {
  BuildReport report = MakeReport(ReportKind::kFailed, pid, error.message);
  report.sys_errno = error.sys_errno;
  report.code = static_cast<uint32_t>(error.code);
  (void)SendReport(report_fd, report).ok();  // whoever reads sees the end of the pipe
}

Error ErrorOf(const BuildReport& report) {
  const uint32_t last = static_cast<uint32_t>(Code::kInternal);
  return Error{static_cast<Code>(std::min(report.code, last)), report.sys_errno, report.text};
}

}  // namespace pulga
