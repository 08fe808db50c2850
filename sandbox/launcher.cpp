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

namespace pulga {

Launcher::Launcher(EventLoop& loop, LauncherOptions options, LayersDir layers)
    : loop_(loop),
      options_(std::move(options)),
      socket_(std::move(options_.socket)),
      layers_(std::move(layers)) {}

Launcher::~Launcher() { Shutdown(); }

Result<std::unique_ptr<Launcher>> Launcher::Create(EventLoop& loop, LauncherOptions options) {
  PULGA_ASSIGN_OR_RETURN(LayersDir layers, LayersDir::Open(std::move(options.layers)));
  std::unique_ptr<Launcher> launcher(new Launcher(loop, std::move(options), std::move(layers)));
  const Status started = launcher->Start();
  if (!started.ok()) return started.error();
  return launcher;
}

Status Launcher::Start() {
  PULGA_ASSIGN_OR_RETURN(const CgroupSnapshot snapshot, ReadCgroupSnapshot());
  PULGA_ASSIGN_OR_RETURN(CgroupLayout layout, PlanCgroupLayout(snapshot));
  PULGA_ASSIGN_OR_RETURN(cgroups_, CgroupTree::Open(options_.tree_name, std::move(layout)));
  PULGA_RETURN_IF_ERROR(cgroups_->Sweep());
  const Status swept = layers_.RemoveLeftovers();
  if (!swept.ok()) LogWarning("sweep: " + swept.error().message);
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
    case LaunchKind::kFreeze:
    case LaunchKind::kThaw:
    case LaunchKind::kKill:
      return ServeSlot(header, std::move(message));
    case LaunchKind::kUnpack:
      return Unpack(header.request, std::move(message));
    case LaunchKind::kCancelUnpack:
      return CancelUnpack(header.request, message);
    case LaunchKind::kListLayers:
      return ListLayers(header.request, message);
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
  const Status sent = socket_.Send(EncodeReply(reply).bytes(), fds);
  if (sent.ok()) return;
  // A daemon that is gone is no fault; one that does not read is not worth serving.
  const int why = sent.error().sys_errno;
  broken_ = why != EPIPE && why != ECONNRESET;
  Stop(("reply to the daemon: " + sent.error().message).c_str());
}

void Launcher::ServeSlot(const LaunchHeader& header, Message message) {
  const auto body = DecodeSlot(message.bytes);
  if (!body.ok()) return Reply(header.request, body.error());
  const auto found = versions_.find(body->version_id);
  if (found == versions_.end() || found->second->tearing_down ||
      body->slot >= found->second->slots) {
    return Reply(header.request, Error{Code::kNotFound, 0, "no such version or slot"});
  }
  const uint16_t slot = static_cast<uint16_t>(body->slot);
  std::set<uint16_t>& frozen = found->second->frozen;
  if (header.kind == LaunchKind::kFreeze) frozen.insert(slot);
  if (header.kind != LaunchKind::kFreeze) frozen.erase(slot);
  Status done;
  if (header.kind == LaunchKind::kFreeze) done = cgroups_->Freeze(body->version_id, slot);
  if (header.kind == LaunchKind::kThaw) done = cgroups_->Thaw(body->version_id, slot);
  if (header.kind == LaunchKind::kKill) cgroups_->KillSlot(body->version_id, slot);
  Reply(header.request, done);
}

void Launcher::ThawAll(Version& version) {
  for (const uint16_t slot : std::exchange(version.frozen, {})) {
    const Status thawed = cgroups_->Thaw(version.id, slot);
    if (!thawed.ok()) LogWarning("thaw: " + thawed.error().message);
  }
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

Result<PidFd> Launcher::Fork(const std::function<int()>& body) {
  const pid_t launcher = getpid();
  const pid_t pid = sys::Faulted() ? -1 : fork();
  if (pid < 0) return LastError("fork");
  if (pid == 0) {
    // A successor sweeps: nothing of ours may still be at work then.
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != launcher) _exit(1);
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

// A set-up child killed between its clone and its report leaves a child nobody knows. Only when no
// set-up is under way can every unknown pid be such a one.
void Launcher::ReapStrays() {
  for (const auto& [id, version] : versions_) {
    if (version->setup >= 0) return;
  }
  for (const auto& [number, job] : jobs_) {
    if (job->setup >= 0) return;
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
  for (auto& [id, version] : versions_) ThawAll(*version);
  for (auto& [fd, child] : children_) (void)child.Reap();
  children_.clear();
  for (auto& [id, version] : versions_) {
    loop_.Cancel(version->timer);
    if (version->report.valid()) loop_.Unwatch(version->report.get());
  }
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
