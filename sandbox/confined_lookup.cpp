#include "sandbox/confined_lookup.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/process.h"
#include "base/seccomp.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "sandbox/clone_child.h"
#include "sandbox/id_ranges.h"
#include "sandbox/privileges.h"
#include "sandbox/seccomp_profile.h"
#include "sandbox/user_lookup.h"

namespace pulga {
namespace {

struct Question {
  int root_fd = -1;
  int answer_fd = -1;
  const std::string* user = nullptr;
  uid_t id = 0;
  const CgroupJoin* join = nullptr;
};

struct Answer {
  uint32_t known = 0;
  UserIds ids;
  char why[240] = "";
};

StepResult Confine(const Question& question) {
  const uid_t id = question.id;
  if (PULGA_SYS(fchdir, question.root_fd) != 0 || PULGA_SYS(chroot, ".") != 0) {
    return {"chroot", errno};
  }
  for (const auto& step :
       {DropBounding(), SetIds({id, id, {}}), NoNewPrivs(), ClearAllCapabilities()}) {
    if (!step.ok()) return step;
  }
  if (PULGA_SYS(prctl, PR_SET_PDEATHSIG, SIGKILL) != 0) return {"pdeathsig", errno};
  const int failed = LoadSeccomp(FunctionFilter());
  return failed == 0 ? StepResult{} : StepResult{"seccomp", failed};
}

void AnswerAndExit(void* argument) {
  const Question& question = *static_cast<const Question*>(argument);
  const Status joined = JoinV1Cgroups(*question.join, "join-cgroup");
  CloseAllBut({question.root_fd, question.answer_fd});
  Answer answer;
  const StepResult confined =
      joined.ok() ? Confine(question) : StepResult{"join-cgroup", joined.error().sys_errno};
  std::string why;
  if (confined.ok()) {
    const auto user = ResolveUser(*question.user, ReadUserDatabase(question.root_fd));
    answer.known = user.ok() ? 1 : 0;
    if (user.ok()) answer.ids = {user->uid, user->gid};
    if (!user.ok()) why = user.error().message;
  } else {
    why = std::string(confined.step) + ": " + strerror(confined.sys_errno);
  }
  memcpy(answer.why, why.data(), std::min(why.size(), sizeof answer.why - 1));
  const bool told = PULGA_SYS(write, question.answer_fd, &answer, sizeof answer) == sizeof answer;
  _exit(told ? 0 : 1);
}

}  // namespace

Result<UserIds> LookUpUser(int root_fd, const std::string& user, uid_t image_root_id,
                           const CgroupJoin& join) {
  int ends[2];
  if (PULGA_SYS(pipe2, ends, O_CLOEXEC) != 0) return LastError("user: pipe");
  const UniqueFd from(ends[0]);
  UniqueFd to(ends[1]);
  Question question{root_fd, to.get(), &user, image_root_id, &join};
  CloneOptions options;
  options.flags = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC;  // nobody to talk to, nobody to kill
  options.cgroup_fd = join.v2_dir.get();
  const pid_t pid = CloneChild(options, AnswerAndExit, &question);
  if (pid < 0) return LastError("user: clone");
  to.Reset();
  Answer answer;
  ssize_t n = 0;
  do {
    n = read(from.get(), &answer, sizeof answer);
  } while (n < 0 && errno == EINTR);
  while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (n != sizeof answer) return Error{Code::kInternal, 0, "user: the look-up died"};
  answer.why[sizeof answer.why - 1] = '\0';
  if (answer.known == 0) {
    return Error{Code::kInvalidArgument, 0, "user: " + Printable(answer.why, sizeof answer.why)};
  }
  if (answer.ids.uid < kMappedIds && answer.ids.gid < kMappedIds) return answer.ids;
  return Error{Code::kInternal, 0, "user: the look-up found no id of an image"};
}

}  // namespace pulga
