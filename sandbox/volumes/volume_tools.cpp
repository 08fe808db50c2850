#include "sandbox/volumes/volume_tools.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "base/file_io.h"
#include "base/log.h"
#include "base/process.h"
#include "base/sys.h"
#include "base/text.h"
#include "sandbox/id_ranges.h"
#include "sandbox/privileges.h"

namespace pulga {
namespace {

constexpr int kImageFd = 3;
constexpr const char* kImagePath = "/proc/self/fd/3";
constexpr uint64_t kLargeBlocksFrom = 16ULL << 20;
constexpr size_t kLabelBytes = 16;
constexpr size_t kMostOutput = 64 * 1024;
constexpr int kSetupFailedExit = 126;

// In the child: all that the tool must not have goes. It says on stderr what it could not do.
[[noreturn]] void BecomeTool(const std::vector<std::string>& words, int image_fd, int output_fd,
                             pid_t parent) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
  char locale[] = "LC_ALL=C";
  char* envp[] = {path, locale, nullptr};
  const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  const char* step = "descriptors";
  if (null_fd >= 0 && dup2(null_fd, 0) == 0 && dup2(output_fd, 1) == 1 && dup2(output_fd, 2) == 2 &&
      dup2(image_fd, kImageFd) == kImageFd) {
    CloseAllBut({kImageFd});
    fcntl(kImageFd, F_SETFD, 0);
    step = "namespaces";
    const rlimit none = {0, 0};
    if (unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) == 0 &&
        setrlimit(RLIMIT_CORE, &none) == 0 && chdir("/") == 0) {
      StepResult done = DropBounding();
      if (done.ok()) done = LockSecurebits();
      if (done.ok()) done = SetIds({kVolumeToolsHostId, kVolumeToolsHostId, {}});
      if (done.ok()) done = NoNewPrivs();
      if (done.ok()) done = ClearAllCapabilities();
      step = done.ok() ? "exec" : done.step;
      // After the last change of ids, which clears it.
      if (done.ok() && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent) {
        execve(argv[0], argv.data(), envp);
      }
    }
  }
  dprintf(2, "%s: errno %d\n", step, errno);
  _exit(kSetupFailedExit);
}

std::string FirstLine(const std::string& text) {
  for (const std::string_view line : Split(text, '\n')) {
    if (!Trim(line).empty()) return Printable(Trim(line), 200);
  }
  return "no word from it";
}

struct ToolResult {
  int exit_code = -1;
  std::string said;
};

Result<ToolResult> RunTool(const std::vector<std::string>& words, int image_fd) {
  int pipe_fds[2];
  if (PULGA_SYS(pipe2, pipe_fds, O_CLOEXEC) != 0) return LastError("pipe2");
  const UniqueFd read_end(pipe_fds[0]);
  UniqueFd write_end(pipe_fds[1]);
  const pid_t parent = getpid();
  const pid_t pid = sys::Faulted() ? -1 : fork();
  if (pid < 0) return LastError("fork");
  if (pid == 0) BecomeTool(words, image_fd, write_end.get(), parent);
  write_end.Reset();
  ToolResult result;
  char buffer[4096];
  ssize_t n;
  while ((n = read(read_end.get(), buffer, sizeof buffer)) > 0 || (n < 0 && errno == EINTR)) {
    if (n > 0 && result.said.size() < kMostOutput)
      result.said.append(buffer, static_cast<size_t>(n));
  }
  int status = 0;
  while (waitpid(pid, &status, 0) != pid) {
    if (errno != EINTR) return LastError("wait");
  }
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  return result;
}

// The tool opens the file anew, as its owner, and by its own descriptor.
Result<ToolResult> RunOnImage(std::vector<std::string> words, int image_fd) {
  const std::string name = words[0];
  words[0] = FindVolumeTool(name);
  if (words[0].empty()) {
    return Error{Code::kUnsupported, ENOENT, name + " is missing on this host: install e2fsprogs"};
  }
  if (PULGA_SYS(fchown, image_fd, kVolumeToolsHostId, kVolumeToolsHostId) != 0) {
    return LastError(name + ": own the file");
  }
  auto done = RunTool(words, image_fd);
  if (PULGA_SYS(fchown, image_fd, 0, 0) != 0) return LastError(name + ": take the file back");
  if (!done.ok()) return Prefix(name, done.error());
  return done;
}

}  // namespace

std::string FindVolumeTool(const std::string& name) {
  for (const char* dir : {"/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"}) {
    if (access((dir + name).c_str(), X_OK) == 0) return dir + name;
  }
  return "";
}

Status FormatExt4(int image_fd, const FormatOptions& options) {
  const std::string owner = std::to_string(kOwnerIdBase);
  // The file is empty: neither tables nor journal need zeros, and a discard would give the space
  // back that was set aside. A small file system has small blocks, or no room for a journal.
  const std::vector<std::string> words = {
      "mke2fs",
      "-q",
      "-F",
      "-t",
      "ext4",
      "-m",
      "0",
      "-i",
      "8192",
      "-b",
      options.bytes < kLargeBlocksFrom ? "1024" : "4096",
      "-L",
      options.label.substr(0, kLabelBytes),
      "-E",
      "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=" + owner + ":" + owner,
      kImagePath};
  PULGA_ASSIGN_OR_RETURN(const ToolResult done, RunOnImage(words, image_fd));
  if (done.exit_code == 0) return OkStatus();
  return Error{Code::kIo, 0, "mke2fs: " + FirstLine(done.said)};
}

Status RepairExt4(int image_fd) {
  PULGA_ASSIGN_OR_RETURN(const ToolResult done, RunOnImage({"e2fsck", "-p", kImagePath}, image_fd));
  constexpr int kCorrected = 1 | 2;  // 2: what a root file system would be rebooted for
  if (done.exit_code >= 0 && (done.exit_code & ~kCorrected) == 0) return OkStatus();
  return Error{Code::kIo, 0, "e2fsck: " + FirstLine(done.said)};
}

}  // namespace pulga
