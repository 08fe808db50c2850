#include "sandbox/build_report.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/sys.h"

namespace pulga {

void SendReport(int report_fd, const BuildReport& report) {
  (void)!write(report_fd, &report, sizeof report);
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
  SendReport(report_fd, report);
}

Error ErrorOf(const BuildReport& report) {
  const uint32_t last = static_cast<uint32_t>(Code::kInternal);
  return Error{static_cast<Code>(std::min(report.code, last)), report.sys_errno, report.text};
}

namespace {

void CloseFrom(unsigned first, unsigned last) {
  if (sys::CloseRange(first, last, 0) == 0) return;
  rlimit limit = {};  // Linux before 5.9; every fd of ours is below the hard limit
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  for (unsigned fd = first; fd <= last && fd < limit.rlim_max; ++fd) close(static_cast<int>(fd));
}

}  // namespace

void CloseAllBut(const std::vector<int>& keep) {
  std::vector<int> kept(keep);
  std::sort(kept.begin(), kept.end());
  unsigned from = 3;
  for (int fd : kept) {
    if (fd < static_cast<int>(from)) continue;
    if (fd > static_cast<int>(from)) CloseFrom(from, static_cast<unsigned>(fd) - 1);
    from = static_cast<unsigned>(fd) + 1;
  }
  CloseFrom(from, ~0U);
}

}  // namespace pulga
