// The launcher's part in freezing where the kernel has no cgroup freezer: SIGSTOP and SIGCONT to
// each process of a slot. What was just making a child is met again a moment later.
#include "base/log.h"
#include "sandbox/launcher_state.h"
#include "sandbox/slot_processes.h"

namespace pulga {
namespace {

constexpr Duration kPassInterval = std::chrono::milliseconds(5);
constexpr int kMostPasses = 200;

// Any hierarchy knows a slot's processes; that of memory is there where functions have limits.
std::string DirectoryOf(const CgroupTree& cgroups, const SlotBody& body) {
  return cgroups.SlotDirectory(CgroupController::kMemory, body.version_id,
                               static_cast<uint16_t>(body.slot));
}

}  // namespace

void Launcher::StopSlot(uint64_t request, const Message& message) {
  const auto body = DecodeSlot(message.bytes);
  if (!body.ok()) return Reply(request, body.error());
  if (FindSlot(*body) == nullptr) return Reply(request, NoSuchSlot());
  stopping_slots_[{body->version_id, static_cast<uint16_t>(body->slot)}] = 0;
  StopPass();
  Reply(request, OkStatus());
}

void Launcher::ContinueSlot(uint64_t request, const Message& message) {
  const auto body = DecodeSlot(message.bytes);
  if (!body.ok()) return Reply(request, body.error());
  if (FindSlot(*body) == nullptr) return Reply(request, NoSuchSlot());
  const auto slot = static_cast<uint16_t>(body->slot);
  stopping_slots_.erase({body->version_id, slot});
  ContinueProcesses(DirectoryOf(*cgroups_, *body), cgroups_->mark());
  Reply(request, OkStatus());
}

void Launcher::StopPass() {
  for (auto it = stopping_slots_.begin(); it != stopping_slots_.end();) {
    const SlotBody body{it->first.first, it->first.second, 0};
    const bool there = FindSlot(body) != nullptr;
    const bool done = !there || StopProcesses(DirectoryOf(*cgroups_, body), cgroups_->mark());
    const bool given_up = !done && ++it->second > kMostPasses;
    if (given_up) {
      LogWarning("version " + std::to_string(body.version_id) + ": an instance does not stop");
    }
    it = done || given_up ? stopping_slots_.erase(it) : std::next(it);
  }
  if (stopping_slots_.empty() || stop_timer_ != 0) return;
  stop_timer_ = loop_.CallAfter(kPassInterval, [this] {
    stop_timer_ = 0;
    StopPass();
  });
}

}  // namespace pulga
