// What a set-up child tells the launcher through its report pipe: one struct per write, smaller
// than PIPE_BUF, so never torn. End of file without kReady or kFailed means that it died.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string_view>

#include "base/result.h"

namespace pulga {

enum class ReportKind : uint32_t {
  kStarted = 1,  // `pid`: the launcher's new child; text: warnings, one a line
  kReady = 2,
  kFailed = 3,  // step, sys_errno, code, text; `pid` when there is one to reap
};

struct BuildReport {
  ReportKind kind;
  int32_t pid;
  int32_t sys_errno;
  uint32_t code;
  char text[4000];
};
static_assert(sizeof(BuildReport) < 4096);

// Fails when the launcher is gone.
Status SendReport(int report_fd, const BuildReport& report);
// Best effort.
void ReportFailure(int report_fd, const Error& error, pid_t pid = -1);
BuildReport MakeReport(ReportKind kind, pid_t pid, std::string_view text);
Error ErrorOf(const BuildReport& report);

}  // namespace pulga
