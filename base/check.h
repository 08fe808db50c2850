// PULGA_CHECK: for our own bugs only. Bad input, a kernel refusal or a dying function is never one.
#pragma once

namespace pulga {
// Logs the failed condition to stderr and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}  // namespace pulga

#define PULGA_CHECK(condition) \
  (static_cast<bool>(condition) ? void() : ::pulga::CheckFailed(__FILE__, __LINE__, #condition))
