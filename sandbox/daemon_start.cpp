#include "sandbox/daemon_start.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"
#include "base/process.h"
#include "base/sys.h"
#include "base/unique_fd.h"
#include "sandbox/privileges.h"

namespace pulga {
namespace {

std::string ParentOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

bool StrangersMayNotPass(const std::string& dir) {
  struct stat st = {};
  return stat(dir.c_str(), &st) == 0 && (st.st_mode & S_IXOTH) == 0;
}

// The data directory, and files that are named to the daemon.
std::vector<std::string> PathsToShow(const DaemonStart& start) {
  std::vector<std::string> paths = {start.data_dir};
  for (size_t i = 1; i < start.args.size(); ++i) {
    const std::string& arg = start.args[i];
    struct stat st = {};
    const bool file = arg[0] == '/' && stat(arg.c_str(), &st) == 0 && S_ISREG(st.st_mode);
    if (file && std::find(paths.begin(), paths.end(), arg) == paths.end()) paths.push_back(arg);
  }
  return paths;
}

struct Shown {
  UniqueFd fd;
  std::string path;
  bool directory = false;
};

Status Show(const Shown& shown) {
  const std::string place = shown.directory ? shown.path : ParentOf(shown.path);
  PULGA_RETURN_IF_ERROR(MakeDirs(place, 0755));
  if (!shown.directory) {
    PULGA_RETURN_IF_ERROR(Status(OpenFile(shown.path, O_WRONLY | O_CREAT | O_EXCL, 0444)));
  }
  const std::string from = "/proc/self/fd/" + std::to_string(shown.fd.get());
  if (PULGA_SYS(mount, from.c_str(), shown.path.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
    return LastError("show the daemon " + shown.path);
  }
  return OkStatus();
}

Status EnterView(const DaemonStart& start) {
  if (PULGA_SYS(unshare, CLONE_NEWNS) != 0) return LastError("unshare-mounts");
  if (PULGA_SYS(mount, nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return LastError("private-mounts");
  }
  const DaemonView view = PlanDaemonView(PathsToShow(start), StrangersMayNotPass);
  std::vector<Shown> all;
  for (const std::string& path : view.shown) {
    Shown shown{UniqueFd(PULGA_SYS(open, path.c_str(), O_PATH | O_CLOEXEC)), path, false};
    struct stat st = {};
    if (!shown.fd.valid() || fstat(shown.fd.get(), &st) != 0) return LastError("open " + path);
    shown.directory = S_ISDIR(st.st_mode);
    all.push_back(std::move(shown));
  }
  umask(022);
  for (const std::string& dir : view.covered) {
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (PULGA_SYS(mount, "tmpfs", dir.c_str(), "tmpfs", flags, "mode=755,size=64k") != 0) {
      return LastError("cover " + dir);
    }
  }
  for (const Shown& shown : all) PULGA_RETURN_IF_ERROR(Show(shown));
  if (PULGA_SYS(chdir, "/") != 0) return LastError("chdir /");
  return OkStatus();
}

Status WriteText(const char* path, const char* text) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_WRONLY));
  return WriteAll(fd.get(), text);
}

// The owner of a user namespace has every capability over it from the one above: where daemon and
// launcher are the same id, the daemon must not stay in the launcher's, above the functions'.
Status LeaveUserNamespace() {
  if (PULGA_SYS(unshare, CLONE_NEWUSER) != 0) return LastError("unshare-user");
  PULGA_RETURN_IF_ERROR(WriteText("/proc/self/uid_map", "0 0 1"));
  return WriteText("/proc/self/gid_map", "0 0 1");
}

Status DropEverything(const DaemonIds& ids) {
  const Ids own = {ids.uid, ids.gid, {}, ids.uid == 0};
  for (const StepResult& done :
       {DropBounding(), LockSecurebits(), SetIds(own), NoNewPrivs(), ClearAllCapabilities()}) {
    if (!done.ok()) return ErrnoError(done.step, done.sys_errno);
  }
  return OkStatus();
}

// Rootless by descriptor: the program may lie in the home, too.
Status Prepare(const DaemonStart& start, UniqueFd& program) {
  if (!start.ids.on_host) {
    PULGA_ASSIGN_OR_RETURN(program, OpenFile(start.args[0], O_RDONLY));
    PULGA_RETURN_IF_ERROR(EnterView(start));
  }
  if (start.ids.uid == 0) PULGA_RETURN_IF_ERROR(LeaveUserNamespace());
  return DropEverything(start.ids);
}

}  // namespace

DaemonView PlanDaemonView(const std::vector<std::string>& paths,
                          const std::function<bool(const std::string&)>& is_closed) {
  DaemonView view;
  for (const std::string& path : paths) {
    for (size_t slash = path.find('/', 1); slash != std::string::npos;
         slash = path.find('/', slash + 1)) {
      const std::string above = path.substr(0, slash);
      if (!is_closed(above)) continue;
      auto& covered = view.covered;
      if (std::find(covered.begin(), covered.end(), above) == covered.end()) {
        covered.push_back(above);
      }
      view.shown.push_back(path);
      break;
    }
  }
  return view;
}

void BecomeDaemon(const DaemonStart& start) {
  std::vector<char*> argv;
  argv.reserve(start.args.size() + 1);
  for (const std::string& arg : start.args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  CloseAllBut(start.kept_fds);
  for (const int fd : start.kept_fds) fcntl(fd, F_SETFD, 0);
  UniqueFd program;
  const Status prepared = Prepare(start, program);
  if (prepared.ok()) {
    // Dozens of calls at once hold more blocks of one size than its cache keeps by default: 5 % of
    // the calls per second. What the user has set is kept.
    setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=100", 0);
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) == 0) {
      if (start.ids.on_host) execv(argv[0], argv.data());
      if (!start.ids.on_host)
        syscall(SYS_execveat, program.get(), "", argv.data(), environ, AT_EMPTY_PATH);
    }
  }
  const Error failed = prepared.ok() ? LastError("exec") : prepared.error();
  LogError("start the daemon: " + failed.message + ": " + start.args[0]);
  _exit(127);
}

}  // namespace pulga
