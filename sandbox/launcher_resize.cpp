// The launcher's resizes: the memory and cpu limits of all slots of a version changed while they
// live, never above what its build allowed. A child does it: where less memory is left the kernel
// first makes room, which takes its time.
#include <sys/wait.h>

#include <cerrno>
#include <utility>

#include "base/log.h"
#include "sandbox/launcher_state.h"

namespace pulga {
namespace {

constexpr int kBetween = 255;  // exit code: some have the new limits, some the old ones

Error Refused(const char* why) { return Error{Code::kInvalidArgument, 0, why}; }

}  // namespace

Status Launcher::CheckSize(const Version& version, const InstanceSize& size) {
  if (size.memory_bytes > version.most.memory_bytes) {
    return Refused("resize: more memory than the version was built for");
  }
  if (size.cpu_millis > version.most.cpu_millis) {
    return Refused("resize: more cpu than the version was built for");
  }
  // None is no limit.
  if ((size.cpu_millis == 0) != (version.limits.cpu_millis == 0)) {
    return Refused("resize: a cpu limit can be changed, neither made nor taken away");
  }
  return OkStatus();
}

void Launcher::ResizeVersion(uint64_t request, const Message& message) {
  const auto body = DecodeResize(message.bytes);
  if (!body.ok()) return Reply(request, body.error());
  Version* version = FindSlot({body->version_id, 0, 0});
  if (version == nullptr || !version->ready) return Reply(request, NoSuchSlot());
  const InstanceSize size{body->memory_bytes, body->cpu_millis};
  const Status checked = CheckSize(*version, size);
  if (!checked.ok()) return Reply(request, checked);
  if (version->resizer >= 0) {
    return Reply(request, Error{Code::kUnavailable, EBUSY, "it is being resized already"});
  }
  SandboxLimits to = version->limits;
  to.memory_bytes = size.memory_bytes;
  to.cpu_millis = size.cpu_millis;
  const Status started =
      StartResize(*version, {request, version->id, version->build, version->limits, to, false});
  if (!started.ok()) Reply(request, Prefix("resize", started.error()));
}

Status Launcher::StartResize(Version& version, const Resizing& resizing) {
  const SlotResize resize{version.id, version.slots, resizing.from, resizing.to};
  auto child = Fork([this, &resize]() -> int {
    switch (const CgroupTree::Resized resized = cgroups_->ResizeSlots(resize); resized.end) {
      case CgroupTree::Resized::End::kDone:
        return 0;
      case CgroupTree::Resized::End::kAsBefore:
        return resized.error != 0 ? resized.error : EIO;
      case CgroupTree::Resized::End::kBetween:
        break;
    }
    return kBetween;
  });
  if (!child.ok()) return child.error();
  const pid_t pid = child->pid();
  PULGA_RETURN_IF_ERROR(WatchChild(
      std::move(*child), [this, resizing](const ExitInfo& info) { OnResized(resizing, info); }));
  version.resizer = pid;
  return OkStatus();
}

// The version is still there: it does not go before this child is gone, which would else write to
// the cgroups of the next one of that id.
void Launcher::OnResized(const Resizing& resizing, const ExitInfo& info) {
  Version& version = *versions_.at(resizing.version_id);
  version.resizer = -1;
  if (version.tearing_down) {
    Reply(resizing.request, NoSuchSlot());
    return Continue(version);
  }
  const int failed = WIFEXITED(info.wait_status) ? WEXITSTATUS(info.wait_status) : kBetween;
  if (failed == 0 && !resizing.undoes) {
    version.limits = resizing.to;
    return Reply(resizing.request, OkStatus());
  }
  const Error error = ErrnoError("resize", failed == kBetween || resizing.undoes ? EIO : failed);
  if (failed == kBetween && !resizing.undoes) {  // it was killed, say
    Resizing back = resizing;
    std::swap(back.from, back.to);
    back.undoes = true;
    if (StartResize(version, back).ok()) return;
  }
  Reply(resizing.request, error);
  if (failed != kBetween && !(resizing.undoes && failed != 0)) return;
  // Nobody knows what is in force: the version goes, and the daemon builds it anew.
  LogWarning("resize: the limits of version " + std::to_string(version.id) +
             " could not be put back");
  TearDown(version, error);
}

}  // namespace pulga
