#include "sandbox/landlock.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "base/sys.h"

namespace pulga {
namespace {

// The same on every machine; Debian 12's libc has neither the numbers nor all of the structs.
constexpr long kCreateRuleset = 444;
constexpr long kAddRule = 445;
constexpr long kRestrictSelf = 446;
constexpr unsigned kVersionFlag = 1;
constexpr int kPathBeneath = 1;

struct RulesetAttributes {
  uint64_t files;
  uint64_t tcp;
  uint64_t scoped;
};

struct [[gnu::packed]] PathBeneath {
  uint64_t allowed;
  int32_t parent_fd;
};

constexpr uint64_t kExecute = 1U << 0;
constexpr uint64_t kWriteFile = 1U << 1;
constexpr uint64_t kReadFile = 1U << 2;
constexpr uint64_t kReadDir = 1U << 3;
constexpr uint64_t kMakeChar = 1U << 6;
constexpr uint64_t kMakeBlock = 1U << 11;
constexpr uint64_t kRefer = 1U << 13;     // version 2
constexpr uint64_t kTruncate = 1U << 14;  // version 3
constexpr uint64_t kAbstractSockets = 1U << 0;

constexpr uint64_t kRead = kExecute | kReadFile | kReadDir;

uint64_t FilesKnownTo(int version) { return ((kRefer << 1) - 1) | (version >= 3 ? kTruncate : 0); }

int Allow(int ruleset, const char* path, uint64_t what) {
  const UniqueFd fd(PULGA_SYS(open, path, O_PATH | O_CLOEXEC));
  if (!fd.valid()) return -1;
  const PathBeneath rule = {what, fd.get()};
  return static_cast<int>(PULGA_SYS(syscall, kAddRule, ruleset, kPathBeneath, &rule, 0));
}

}  // namespace

int LandlockVersion() {
  const long version = syscall(kCreateRuleset, nullptr, 0, kVersionFlag);
  return version < 0 ? 0 : static_cast<int>(version);
}

void Landlock::Init(int version, std::vector<std::string> writable) {
  version_ = version;
  writable_ = std::move(writable);
}

UniqueFd Landlock::MakeRuleset() const {
  const uint64_t known = FilesKnownTo(version_);
  RulesetAttributes attributes = {known, 0, version_ >= 6 ? kAbstractSockets : 0};
  // An older kernel takes what it does not know only while it is not there.
  const size_t size = version_ >= 6 ? sizeof attributes : sizeof attributes.files;
  UniqueFd ruleset(static_cast<int>(PULGA_SYS(syscall, kCreateRuleset, &attributes, size, 0)));
  if (!ruleset.valid()) return ruleset;
  bool made = Allow(ruleset.get(), "/", kRead) == 0;
  made = made && Allow(ruleset.get(), "/dev", known & (kWriteFile | kTruncate)) == 0;
  for (const std::string& path : writable_) {
    const uint64_t all = known & ~(kMakeChar | kMakeBlock);
    made = made && (Allow(ruleset.get(), path.c_str(), all) == 0 || errno == ENOENT);
  }
  if (made) return ruleset;
  const int failed = errno;
  ruleset.Reset();
  errno = failed;
  return ruleset;
}

StepResult RestrictSelf(int ruleset) {
  if (PULGA_SYS(syscall, kRestrictSelf, ruleset, 0) != 0) return {"landlock", errno};
  return {};
}

}  // namespace pulga
