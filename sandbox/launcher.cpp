#include "sandbox/launcher.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "sandbox/launcher_state.h"
#include "sandbox/privileges.h"

namespace pulga {
namespace {

// Straight into a v2 cgroup, if one is named: joining it later would wait for RCU.
pid_t ForkInto(int cgroup_fd) {
  if (cgroup_fd < 0) return fork();
  constexpr uint64_t kIntoCgroup = 0x200000000ULL;  // CLONE_INTO_CGROUP, absent from older headers
  clone_args args = {};
  args.flags = kIntoCgroup;
  args.exit_signal = SIGCHLD;
  args.cgroup = static_cast<uint64_t>(cgroup_fd);
  return static_cast<pid_t>(sys::Clone3(args));
}

// It waits for its children and for cgroups to empty.
constexpr Duration kPatienceWithPredecessor = std::chrono::seconds(20);
// Beyond what its socket holds. Each may have a descriptor.
constexpr size_t kMaxUnreadReplies = 512;

}  // namespace

Launcher::Launcher(EventLoop& loop, LauncherOptions options, LayersDir layers)
    : loop_(loop),
      options_(std::move(options)),
      socket_(std::move(options_.socket)),
      outgoing_(loop_, socket_),
      layers_(std::move(layers)) {}

Launcher::~Launcher() { Shutdown(); }

Result<std::unique_ptr<Launcher>> Launcher::Create(EventLoop& loop, LauncherOptions options) {
  PULGA_ASSIGN_OR_RETURN(LayersDir layers,
                         LayersDir::Open(std::move(options.layers), options.ids.OwnerRoot()));
  std::unique_ptr<Launcher> launcher(new Launcher(loop, std::move(options), std::move(layers)));
  const Status started = launcher->Start();
  if (!started.ok()) return started.error();
  return launcher;
}

Status Launcher::Start() {
  PULGA_ASSIGN_OR_RETURN(alone_, layers_.LockAlone(kPatienceWithPredecessor));
  PULGA_ASSIGN_OR_RETURN(const CgroupSnapshot snapshot, ReadCgroupSnapshot());
  PULGA_ASSIGN_OR_RETURN(CgroupLayout layout, PlanCgroupLayout(snapshot));
  PULGA_ASSIGN_OR_RETURN(cgroups_, CgroupTree::Open(options_.tree_name, std::move(layout)));
  PULGA_RETURN_IF_ERROR(cgroups_->Sweep());
  const Status swept = layers_.RemoveLeftovers();
  if (!swept.ok()) LogWarning("sweep: " + swept.error().message);
  ReloadGrants();
  OpenVolumes();
  network_ = std::make_unique<EgressNetwork>(loop_, NetworkParts());
  PULGA_RETURN_IF_ERROR(SetNonBlocking(socket_.fd()));
  return loop_.Watch(socket_.fd(), EPOLLIN, [this](uint32_t) { ServeSocket(); });
}

void Launcher::Stop(const char* why) {
  if (stopping_) return;
  stopping_ = true;
  LogInfo(why);
  loop_.Stop();
}

void Launcher::ServeSocket() {
  auto message = socket_.Receive(kMaxLaunchMessage);
  if (!message.ok()) {
    if (message.error().sys_errno == EAGAIN) return;
    // A peer that closes with replies unread is reported so.
    if (message.error().sys_errno == ECONNRESET) return Stop("the daemon is gone");
    broken_ = true;
    return Stop(("the daemon's message: " + message.error().message).c_str());
  }
  if (message->bytes.empty()) return Stop("the daemon is gone");
  const auto header = DecodeHeader(message->bytes);
  if (!header.ok()) {
    broken_ = true;
    return Stop("the daemon sent no message of ours");
  }
  ServeMessage(*header, std::move(*message));
}

void Launcher::ServeMessage(const LaunchHeader& header, Message message) {
  if (message.fds_lost) return Reply(header.request, NoDescriptorFree("receive from the daemon"));
  if (header.kind != LaunchKind::kUnpack && !message.fds.empty()) {
    const Error error{Code::kInvalidArgument, 0, "unexpected descriptors"};
    return Reply(header.request, error);
  }
  switch (header.kind) {
    case LaunchKind::kBuildVersion:
      return BuildVersion(header.request, std::move(message));
    case LaunchKind::kDropVersion:
      return DropVersion(header.request, std::move(message));
    case LaunchKind::kKill:
      return KillSlot(header.request, message);
    case LaunchKind::kReclaim:
      return Reclaim(header.request, message);
    case LaunchKind::kCancelReclaim:
      return CancelReclaim(header.request, message);
    case LaunchKind::kStopSlot:
      return StopSlot(header.request, message);
    case LaunchKind::kContinueSlot:
      return ContinueSlot(header.request, message);
    case LaunchKind::kResizeVersion:
      return ResizeVersion(header.request, message);
    case LaunchKind::kUnpack:
      return Unpack(header.request, std::move(message));
    case LaunchKind::kCancelUnpack:
      return CancelUnpack(header.request, message);
    case LaunchKind::kListLayers:
      return ListLayers(header.request, message);
    case LaunchKind::kOpenNetwork:
      return OpenNetwork(header.request, message);
    case LaunchKind::kCreateVolume:
    case LaunchKind::kResizeVolume:
    case LaunchKind::kRemoveVolume:
    case LaunchKind::kListVolumes:
      return ServeVolume(header, message);
    case LaunchKind::kReply:
      break;
  }
  Reply(header.request, Error{Code::kInvalidArgument, 0, "unknown kind of message"});
}

void Launcher::Reply(uint64_t request, const Status& status, const std::string& text,
                     std::vector<int> fds) {
  if (stopping_) return;
  LaunchReply reply;
  reply.request = request;
  reply.status = status;
  reply.text = text;
  const Status sent = outgoing_.Send(EncodeReply(reply).bytes(), fds);
  if (sent.ok() && outgoing_.kept() <= kMaxUnreadReplies) return;
  if (sent.ok()) {
    broken_ = true;
    return Stop("the daemon does not read its replies");
  }
  // A daemon that is gone is no fault.
  const int why = sent.error().sys_errno;
  broken_ = why != EPIPE && why != ECONNRESET;
  Stop(("reply to the daemon: " + sent.error().message).c_str());
}

Launcher::Version* Launcher::FindSlot(const SlotBody& body) {
  const auto found = versions_.find(body.version_id);
  if (found == versions_.end() || found->second->tearing_down) return nullptr;
  return body.slot < found->second->slots ? found->second.get() : nullptr;
}

void Launcher::KillSlot(uint64_t request, const Message& message) {
  const auto body = DecodeSlot(message.bytes);
  if (!body.ok()) return Reply(request, body.error());
  if (FindSlot(*body) == nullptr) return Reply(request, NoSuchSlot());
  const auto slot = static_cast<uint16_t>(body->slot);
  EndReclaims(body->version_id, slot);
  cgroups_->KillSlot(body->version_id, slot);
  Reply(request, OkStatus());
}

void Launcher::ListLayers(uint64_t request, const Message& message) {
  const Status decoded = DecodeListLayers(message.bytes);
  if (!decoded.ok()) return Reply(request, decoded);
  const auto ids = layers_.List();
  if (!ids.ok()) return Reply(request, ids.error());
  const UniqueFd fd(sys::MemfdCreate("layers", MFD_CLOEXEC));
  if (!fd.valid()) return Reply(request, LastError("list-layers: memfd"));
  for (const LayerId& id : *ids) {
    const auto* raw = reinterpret_cast<const char*>(id.bytes.data());
    const Status written = WriteAll(fd.get(), std::string_view(raw, id.bytes.size()));
    if (!written.ok()) return Reply(request, written);
  }
  Reply(request, OkStatus(), "", {fd.get()});
}

Result<PidFd> Launcher::Fork(const std::function<int()>& body, int cgroup_fd) {
  const pid_t launcher = getpid();
  const pid_t pid = sys::Faulted() ? -1 : ForkInto(cgroup_fd);
  if (pid < 0) return LastError("fork");
  if (pid == 0) {
    // A successor sweeps: nothing of ours may still be at work then.
    if (PULGA_SYS(prctl, PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != launcher) _exit(1);
    // What is for one function is not spared as we are when memory is short.
    const Status scored = SetOomScore(0);
    if (!scored.ok()) {
      LogError(scored.error().message);
      _exit(1);
    }
    // Ends whose closing means something must not live on in a child.
    close(socket_.fd());
    for (auto& [id, version] : versions_) {
      if (version->lifeline.valid()) close(version->lifeline.get());
    }
    _exit(body());
  }
  auto child = PidFd::OfChild(pid);
  if (!child.ok()) {
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  return child;
}

Status Launcher::WatchChild(PidFd child, ExitCallback done) {
  const int fd = child.fd();
  children_[fd] = std::move(child);
  const auto on_exit = [this, fd, done = std::move(done)](uint32_t) {
    PidFd ended = std::move(children_[fd]);
    children_.erase(fd);
    loop_.Unwatch(fd);
    const auto info = ended.Reap();
    done(info.ok() ? *info : ExitInfo{});
    ReapStrays();
  };
  const Status watched = loop_.Watch(fd, EPOLLIN, on_exit);
  if (watched.ok()) return watched;
  (void)children_[fd].Signal(SIGKILL);
  (void)children_[fd].Reap();
  children_.erase(fd);
  return watched;
}

void Launcher::KillChild(pid_t pid) {
  for (auto& [fd, child] : children_) {
    if (child.pid() == pid) (void)child.Signal(SIGKILL);
  }
}

Result<UniqueFd> Launcher::WatchReports(std::function<void()> on_readable, UniqueFd& read_end) {
  int fds[2];
  if (PULGA_SYS(pipe2, fds, O_CLOEXEC | O_NONBLOCK) != 0) return LastError("pipe2");
  read_end.Reset(fds[0]);
  UniqueFd write_end(fds[1]);
  const auto callback = [call = std::move(on_readable)](uint32_t) { call(); };
  const Status watched = loop_.Watch(read_end.get(), EPOLLIN, callback);
  if (!watched.ok()) return watched.error();
  return write_end;
}

// One that is killed has done half of it: another begins anew.
void Launcher::RunJanitor(Cleaning cleaning, std::function<void()> done, int tries) {
  auto child = Fork(cleaning.all);
  if (child.ok()) {
    const auto on_exit = [this, cleaning, done, tries](const ExitInfo& info) {
      if (info.wait_status == 0 || tries <= 1 || stopping_) return done();
      LogWarning("a janitor ended, wait status " + std::to_string(info.wait_status) +
                 ": starting another");
      RunJanitor(cleaning, done, tries - 1);
    };
    if (WatchChild(std::move(*child), on_exit).ok()) return;
  }
  (void)cleaning.least();  // better slow than left behind
  loop_.Post(std::move(done));
}

// A set-up child killed between its clone and its report leaves a child nobody knows. Only when no
// set-up is under way, and no report unread, can every unknown pid be such a one.
void Launcher::ReapStrays() {
  const auto may_tell = [](const auto& one) {
    return one->setup >= 0 || (one->report.valid() && !one->started);
  };
  for (const auto& [id, version] : versions_) {
    if (may_tell(version)) return;
  }
  for (const auto& [number, job] : jobs_) {
    if (may_tell(job)) return;
  }
  siginfo_t info = {};
  while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0) {
    for (const auto& [fd, child] : children_) {
      if (child.pid() == info.si_pid) return;  // its own callback comes
    }
    waitpid(info.si_pid, nullptr, 0);
    info = {};
  }
}

void Launcher::Shutdown() {
  if (cgroups_ == nullptr) return;
  stopping_ = true;
  loop_.Unwatch(socket_.fd());
  for (auto& [fd, child] : children_) {
    loop_.Unwatch(fd);
    (void)child.Signal(SIGKILL);
  }
  for (auto& [id, version] : versions_) cgroups_->ThawVersion(id);
  for (auto& [fd, child] : children_) (void)child.Reap();
  children_.clear();
  for (auto& [id, version] : versions_) {
    loop_.Cancel(version->timer);
    if (version->report.valid()) loop_.Unwatch(version->report.get());
    if (version->attach.valid()) loop_.Unwatch(version->attach.fd());
  }
  if (reclaim_) loop_.Cancel(reclaim_->timer);
  network_.reset();  // the namespace goes with its last descriptor
  for (auto& [number, job] : jobs_) {
    loop_.Cancel(job->timer);
    if (job->report.valid()) loop_.Unwatch(job->report.get());
  }
  versions_.clear();  // the lifelines end what was never reported
  jobs_.clear();
  const Status removed = cgroups_->Remove();
  if (!removed.ok()) LogWarning("remove cgroups: " + removed.error().message);
  const Status swept = layers_.RemoveLeftovers();
  if (!swept.ok()) LogWarning("remove leftovers: " + swept.error().message);
  while (waitpid(-1, nullptr, WNOHANG) > 0) {
  }
  cgroups_.reset();
}

}  // namespace pulga
