// The launcher's reclaims: the pages of frozen instances pushed out, by a child of low priority,
// one at a time, each for a bounded time, and given up as soon as somebody wants the instance back.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "base/sys.h"
#include "sandbox/launcher_state.h"

namespace pulga {
namespace {

constexpr Duration kReclaimTime = std::chrono::seconds(10);
constexpr int kNiceness = 10;

Error Cancelled() { return Error{Code::kUnavailable, ECANCELED, "the reclaim was cancelled"}; }

}  // namespace

void Launcher::Reclaim(uint64_t request, const Message& message) {
  const auto body = DecodeSlot(message.bytes);
  if (!body.ok()) return Reply(request, body.error());
  if (FindSlot(*body) == nullptr) return Reply(request, NoSuchSlot());
  const WaitingReclaim asked{request, body->version_id, static_cast<uint16_t>(body->slot)};
  const auto same = [&asked](const WaitingReclaim& other) {
    return other.version_id == asked.version_id && other.slot == asked.slot;
  };
  // So there are never more than there are slots.
  if ((reclaim_ && same(reclaim_->asked)) ||
      std::any_of(reclaims_.begin(), reclaims_.end(), same)) {
    return Reply(request, Error{Code::kUnavailable, EBUSY, "it is being reclaimed already"});
  }
  reclaims_.push_back(asked);
  NextReclaim();
}

void Launcher::CancelReclaim(uint64_t request, const Message& message) {
  const auto body = DecodeSlot(message.bytes);
  if (!body.ok()) return Reply(request, body.error());
  if (FindSlot(*body) == nullptr) return Reply(request, NoSuchSlot());
  EndReclaims(body->version_id, static_cast<uint16_t>(body->slot));
  Reply(request, OkStatus());
}

void Launcher::NextReclaim() {
  while (!reclaim_ && !reclaims_.empty() && !stopping_) {
    const WaitingReclaim asked = reclaims_.front();
    reclaims_.pop_front();
    const Version& version = *versions_.at(asked.version_id);  // TearDown takes its own out
    reclaim_ = RunningReclaim{.asked = asked, .work = {}};
    const Status started = StartReclaim({asked.version_id, asked.slot, version.limits});
    if (started.ok()) return;
    const SlotReclaim work = std::move(reclaim_->work);
    reclaim_.reset();
    Reply(asked.request, started);
    CloseSlot(asked.version_id, work);
  }
}

// Open to swap it must not be used again, and the spawner starts without asking us: the version
// goes with its cgroups, and the daemon builds it anew.
void Launcher::CloseSlot(uint64_t version_id, const SlotReclaim& work) {
  const Status ended = work.End();
  const auto found = versions_.find(version_id);
  if (ended.ok() || found == versions_.end()) return;
  LogWarning(ended.error().message);
  TearDown(*found->second, ended.error());
}

Status Launcher::StartReclaim(const ReclaimTarget& target) {
  RunningReclaim& running = *reclaim_;
  PULGA_ASSIGN_OR_RETURN(running.work, SlotReclaim::Open(*cgroups_, target));
  PULGA_RETURN_IF_ERROR(running.work.Begin());
  running.before_bytes = running.work.MemoryBytes();
  auto child = Fork([&running] {
    (void)!setpriority(PRIO_PROCESS, 0, kNiceness);
    return running.work.Run();
  });
  if (child.ok()) running.child = child->pid();
  const Status watched =
      child.ok() ? WatchChild(std::move(*child), [this](const ExitInfo& i) { OnReclaimed(i); })
                 : Status(child.error());
  if (!watched.ok()) return Prefix("reclaim", watched.error());
  running.timer = loop_.CallAfter(kReclaimTime, [this] {
    reclaim_->timer = 0;
    KillChild(reclaim_->child);  // what it brought by now is not lost
  });
  return OkStatus();
}

void Launcher::OnReclaimed(const ExitInfo& info) {
  loop_.Cancel(reclaim_->timer);
  const RunningReclaim over = std::move(*reclaim_);
  reclaim_.reset();
  const int failed = WIFEXITED(info.wait_status) ? WEXITSTATUS(info.wait_status) : 0;
  const uint64_t request = over.asked.request;
  CloseSlot(over.asked.version_id, over.work);
  if (over.cancelled || failed == ECANCELED) {
    Reply(request, Cancelled());
  } else if (failed != 0) {
    Reply(request, ErrnoError("reclaim", failed));
  } else {
    Reply(request, OkStatus(), EncodeReclaimed({over.before_bytes, over.work.MemoryBytes(), 0}));
  }
  NextReclaim();
}

void Launcher::EndReclaims(uint64_t version_id, std::optional<uint16_t> slot) {
  const auto meant = [&](const WaitingReclaim& one) {
    return one.version_id == version_id && (!slot || one.slot == *slot);
  };
  for (size_t i = 0; i < reclaims_.size();) {
    if (!meant(reclaims_[i])) {
      ++i;
      continue;
    }
    Reply(reclaims_[i].request, Cancelled());
    reclaims_.erase(reclaims_.begin() + static_cast<ptrdiff_t>(i));
  }
  if (!reclaim_ || reclaim_->cancelled || !meant(reclaim_->asked)) return;
  reclaim_->cancelled = true;
  KillChild(reclaim_->child);
}

}  // namespace pulga
