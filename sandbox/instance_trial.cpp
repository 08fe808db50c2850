#include "sandbox/instance_trial.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/sys.h"
#include "base/unique_fd.h"
#include "sandbox/clone_child.h"

namespace pulga {
namespace {

constexpr size_t kCount = std::size(kNamespacesSeen);
static_assert(kCount == std::size(NamespaceIds{}.ids));
constexpr size_t kMostViews = 32;

struct Seen {
  int sys_errno;  // of the first that could not be asked
  InstanceSight sight;
  uint32_t refused_views;
};

struct Trial {
  const std::vector<CgroupView>* views;
  int answer_fd;
};

int AskNamespaces(NamespaceIds& found) {
  for (size_t i = 0; i < kCount; ++i) {
    char file[32] = "/proc/self/ns/";
    strcat(file, kNamespacesSeen[i]);
    struct stat st = {};
    if (PULGA_SYS(stat, file, &st) != 0) return errno;
    found.ids[i] = st.st_ino;
  }
  return 0;
}

// In the child: plain system calls, then the end.
void LookAround(void* raw) {
  const auto& trial = *static_cast<const Trial*>(raw);
  Seen seen = {};
  seen.sys_errno = AskNamespaces(seen.sight.own);
  struct statvfs root = {};
  if (PULGA_SYS(statvfs, "/", &root) != 0) seen.sys_errno = errno;
  seen.sight.root_flags = root.f_flag;
  for (size_t i = 0; i < trial.views->size() && i < kMostViews; ++i) {
    const CgroupView& view = (*trial.views)[i];
    const bool shown =
        view.of_version || PULGA_SYS(mount, view.fstype.c_str(), ("/" + view.target).c_str(),
                                     view.fstype.c_str(), MS_RDONLY, view.options.c_str()) == 0;
    if (!shown) seen.refused_views |= 1U << i;
  }
  _exit(PULGA_SYS(write, trial.answer_fd, &seen, sizeof seen) == sizeof seen ? 0 : 1);
}

Result<Seen> RunTrial(const std::vector<CgroupView>& views) {
  int pipe_fds[2];
  if (PULGA_SYS(pipe2, pipe_fds, O_CLOEXEC) != 0) return LastError("try-instance: pipe");
  const UniqueFd read_end(pipe_fds[0]);
  UniqueFd write_end(pipe_fds[1]);
  Trial trial{&views, write_end.get()};
  CloneOptions options;
  options.flags = kInstanceNamespaces | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWCGROUP;
  const pid_t pid = CloneChild(options, LookAround, &trial);
  if (pid < 0) return LastError("try-instance");
  write_end.Reset();
  Seen seen = {};
  const ssize_t n = PULGA_SYS(read, read_end.get(), &seen, sizeof seen);
  const int read_errno = n < 0 ? errno : 0;
  int status = 0;
  if (waitpid(pid, &status, 0) != pid || n != sizeof seen) {
    return Error{Code::kInternal, read_errno, "try-instance: died"};
  }
  if (seen.sys_errno != 0) return ErrnoError("try-instance: look around", seen.sys_errno);
  return seen;
}

}  // namespace

Result<std::vector<Feature>> JudgeInstance(const InstanceSight& seen,
                                           const NamespaceIds& spawners) {
  std::vector<Feature> layers;
  for (size_t i = 0; i < kCount; ++i) {
    const std::string kind = kNamespacesSeen[i];
    const std::string layer = "namespace." + (kind == "mnt" ? "mount" : kind);
    if (seen.own.ids[i] == spawners.ids[i]) {
      return Error{Code::kPermission, 0, "try-instance: " + layer + " is the spawner's"};
    }
    layers.push_back({layer, FeatureState::kPresent, "one for each instance", ""});
  }
  constexpr uint64_t kWanted = ST_RDONLY | ST_NOSUID | ST_NODEV;
  if ((seen.root_flags & kWanted) == kWanted) return layers;
  return Error{Code::kPermission, 0, "try-instance: the root is not read-only,nosuid,nodev"};
}

Result<InstanceTrial> TryInstance(const std::vector<CgroupView>& views) {
  NamespaceIds own;
  const int asked = AskNamespaces(own);
  if (asked != 0) return ErrnoError("try-instance: own namespaces", asked);
  PULGA_ASSIGN_OR_RETURN(const Seen seen, RunTrial(views));
  InstanceTrial out;
  PULGA_ASSIGN_OR_RETURN(out.layers, JudgeInstance(seen.sight, own));
  for (size_t i = 0; i < views.size() && i < kMostViews; ++i) {
    if ((seen.refused_views >> i & 1) == 0) out.views.push_back(views[i]);
  }
  out.refused_views = views.size() - out.views.size();
  return out;
}

}  // namespace pulga
