#include "sandbox/default_signal.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>

namespace pulga {
namespace {

constexpr std::string_view kProc = "/proc/";
constexpr std::string_view kStatus = "/status";
constexpr size_t kMostBytes = 4096;  // the masks stand within the first two thousand

std::optional<uint64_t> MaskNamed(std::string_view status, std::string_view name) {
  const size_t at = status.find(name);
  if (at == std::string_view::npos) return std::nullopt;
  std::string_view digits = status.substr(at + name.size());
  digits = digits.substr(0, digits.find('\n'));
  uint64_t mask = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), mask, 16);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return mask;
}

}  // namespace

bool LeavesToDefault(std::string_view status, int signo) {
  if (signo < 1 || signo > 64) return false;
  const uint64_t bit = uint64_t{1} << (signo - 1);
  for (const std::string_view name : {"\nSigBlk:\t", "\nSigIgn:\t", "\nSigCgt:\t"}) {
    const auto mask = MaskNamed(status, name);
    if (!mask || (*mask & bit) != 0) return false;
  }
  return true;
}

int AsOrdinarySignal(pid_t pid, int signo) {
  if (signo != SIGTERM) return signo;
  char path[64];
  memcpy(path, kProc.data(), kProc.size());
  char* end = std::to_chars(path + kProc.size(), path + sizeof path - kStatus.size() - 1, pid).ptr;
  memcpy(end, kStatus.data(), kStatus.size());
  end[kStatus.size()] = '\0';
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return signo;
  char text[kMostBytes];
  const ssize_t n = read(fd, text, sizeof text);
  close(fd);
  if (n <= 0) return signo;
  return LeavesToDefault({text, static_cast<size_t>(n)}, signo) ? SIGKILL : signo;
}

}  // namespace pulga
