// The launcher's versions with outbound network: their namespaces are attached to the router before
// any instance may use them. An exec version's instances share one, its spawner's; an http
// version's spawner asks for each one it has made (sandbox/attach_protocol.h).
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "sandbox/attach_protocol.h"
#include "sandbox/launcher_state.h"

namespace pulga {
namespace {

constexpr long kNamespaceFileSystem = 0x6e736673;  // NSFS_MAGIC
constexpr size_t kMaxPendingAttaches = 16;

Result<UniqueFd> NamespaceOf(pid_t pid, const char* kind) {
  return OpenFile("/proc/" + std::to_string(pid) + "/ns/" + kind, O_RDONLY);
}

// A network namespace made by the spawner itself: whatever else it sends gets no interface.
Status CheckNetns(int netns, pid_t spawner) {
  const Error foreign{Code::kInvalidArgument, 0, "that is no network namespace of the version's"};
  struct statfs kind = {};
  if (fstatfs(netns, &kind) != 0 || kind.f_type != kNamespaceFileSystem ||
      ioctl(netns, NS_GET_NSTYPE) != CLONE_NEWNET) {
    return foreign;
  }
  const UniqueFd owner(PULGA_SYS(ioctl, netns, NS_GET_USERNS));
  if (!owner.valid()) return foreign;
  PULGA_ASSIGN_OR_RETURN(const UniqueFd expected, NamespaceOf(spawner, "user"));
  struct stat a = {};
  struct stat b = {};
  if (fstat(owner.get(), &a) != 0 || fstat(expected.get(), &b) != 0 || a.st_ino != b.st_ino ||
      a.st_dev != b.st_dev) {
    return foreign;
  }
  return OkStatus();
}

}  // namespace

EgressNetwork::Parts Launcher::NetworkParts() {
  EgressNetwork::Parts parts;
  parts.admin_fd = options_.netadmin.get();
  parts.router_fd = options_.router.get();
  parts.cgroup = [this](NetHelper helper) { return CgroupOf(helper); };
  parts.fork = [this](const std::function<int()>& body, int cgroup_fd) {
    return Fork(body, cgroup_fd);
  };
  parts.watch_child = [this](PidFd child, ExitCallback done) {
    return WatchChild(std::move(child), std::move(done));
  };
  parts.kill_child = [this](int pid) { KillChild(pid); };
  return parts;
}

// What functions make the helpers do is bounded apart from the launcher, and goes with its tree.
Result<const CgroupJoin*> Launcher::CgroupOf(NetHelper helper) {
  const auto found = net_cgroups_.find(helper);
  if (found != net_cgroups_.end()) return &found->second.join;
  PULGA_ASSIGN_OR_RETURN(JobCgroup made,
                         cgroups_->CreateJob(CgroupNameOf(helper), LimitsOf(helper)));
  return &net_cgroups_.emplace(helper, std::move(made)).first->second.join;
}

void Launcher::OpenNetwork(uint64_t request, const Message& message) {
  const auto plan = DecodeOpenNetwork(message.bytes);
  if (!plan.ok()) return Reply(request, plan.error());
  if (!options_.ids.on_host) {
    const char* text = "outbound network (network.mode: egress) needs a daemon started by root";
    return Reply(request, Error{Code::kUnsupported, 0, text});
  }
  network_->Open(*plan, [this, request](Result<UniqueFd> gateway) {
    if (!gateway.ok()) return Reply(request, gateway.error());
    Reply(request, OkStatus(), "", {gateway->get()});
  });
}

Launcher::Version* Launcher::FindBuilt(uint64_t id, uint64_t build) {
  const auto found = versions_.find(id);
  if (found == versions_.end() || found->second->build != build || found->second->tearing_down) {
    return nullptr;
  }
  return found->second.get();
}

void Launcher::AttachNetns(Version& version, UniqueFd netns, uint32_t number) {
  network_->Attach({std::move(netns), version.id, version.egress_rules},
                   [this, id = version.id, build = version.build, number](Result<uint32_t> port) {
                     Version* there = FindBuilt(id, build);
                     if (there == nullptr) {
                       if (port.ok()) network_->Detach(*port);
                       return;
                     }
                     OnAttached(*there, number, port);
                   });
}

void Launcher::OnAttached(Version& version, uint32_t number, const Result<uint32_t>& port) {
  if (!port.ok() && version.build_request != 0) return TearDown(version, port.error());
  if (port.ok()) version.ports[number] = *port;
  if (version.attach.valid()) {
    const int why = port.ok() ? 0 : port.error().sys_errno;
    const AttachAnswer answer{number, port.ok() || why != 0 ? why : EIO};
    const Status sent = version.attach.SendPod(answer);
    if (!sent.ok()) return TearDown(version, Prefix("attach", sent.error()));
  }
  if (!port.ok())
    LogWarning("attach version " + std::to_string(version.id) + ": " + port.error().message);
  FinishBuild(version);
}

// The spawner is known now; what it does next may need its network.
Status Launcher::StartNetwork(Version& version) {
  if (!version.egress) return OkStatus();
  if (version.attach.valid()) {
    PULGA_RETURN_IF_ERROR(SetNonBlocking(version.attach.fd()));
    return loop_.Watch(version.attach.fd(), EPOLLIN,
                       [this, &version](uint32_t) { OnAttachRequest(version); });
  }
  PULGA_ASSIGN_OR_RETURN(UniqueFd netns, NamespaceOf(version.spawner, "net"));
  PULGA_RETURN_IF_ERROR(CheckNetns(netns.get(), version.spawner));
  AttachNetns(version, std::move(netns), 0);
  return OkStatus();
}

void Launcher::OnAttachRequest(Version& version) {
  const Error nonsense{Code::kInvalidArgument, 0, "the spawner asked for no network it may have"};
  auto message = version.attach.Receive(sizeof(AttachRequest));
  if (!message.ok() && message.error().sys_errno == EAGAIN) return;
  AttachRequest request;
  if (!message.ok() || message->bytes.size() != sizeof request) {
    return loop_.Unwatch(version.attach.fd());  // it has ended, or its end is near
  }
  memcpy(&request, message->bytes.data(), sizeof request);
  if (request.kind == AttachKind::kRelease && message->fds.empty()) {
    const auto port = version.ports.extract(request.number);
    if (!port.empty()) network_->Detach(port.mapped());
    return;
  }
  const size_t most = version.slots + kMaxPendingAttaches;
  if (request.kind != AttachKind::kAttach || message->fds.size() != 1 ||
      version.ports.count(request.number) != 0 || version.ports.size() >= most ||
      !CheckNetns(message->fds[0].get(), version.spawner).ok()) {
    return TearDown(version, nonsense);
  }
  AttachNetns(version, std::move(message->fds[0]), request.number);
}

void Launcher::EndNetwork(Version& version) {
  if (version.attach.valid()) loop_.Unwatch(version.attach.fd());
  version.attach = MessageSocket();
  for (const auto& [number, port] : std::exchange(version.ports, {})) network_->Detach(port);
}

}  // namespace pulga
