// Instance: one live sandbox as the pool keeps it. A plain record; runtime/pool moves it along, the
// invocation that has it reads and writes its calls' side. Loop thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/event_loop.h"
#include "runtime/frames_channel.h"
#include "runtime/log_pipe.h"
#include "runtime/memory_budget.h"
#include "runtime/pool_policy.h"
#include "runtime/ready_check.h"
#include "runtime/upstream.h"

namespace pulga {

class Call;

struct Instance {
  uint16_t slot = 0;
  InstanceStep step = InstanceStep::kParking;
  TimePoint created;
  TimePoint ready;  // parked, or listening
  TimePoint idle_since;
  TimePoint frozen_since;
  TimePoint launched;                   // exec: when its program was asked for
  Duration thaw{0};                     // how long the last one took
  std::vector<Call*> calls;             // those it has now; exec: at most one
  std::unique_ptr<LogPipe> stdout_log;  // server
  std::unique_ptr<LogPipe> stderr_log;
  std::unique_ptr<Upstream> upstream;       // http
  std::unique_ptr<ReadyCheck> ready_check;  // http: until it says yes, where it is asked
  std::unique_ptr<FramesChannel> channel;   // frames
  MemoryBudget::Lease memory;
  EventLoop::TimerId kill_timer = 0;   // SIGKILL after the grace
  EventLoop::TimerId start_timer = 0;  // server: NotReady
  std::optional<InstanceCpu> cpu;      // when it was last looked at
  uint32_t timeouts_in_a_row = 0;      // server
  uint32_t children = 0;               // server: processes beside PID 1 when it was last frozen
  bool stopped_by_us = false;
  bool killed = false;         // by us
  bool reclaim_asked = false;  // since it was frozen
  bool closed = false;         // takes no new calls, and ends with those it has
  bool used = false;           // server: a call has ended on it, or left it again
  bool answered = false;       // http: by more than a watchdog whose server is not there yet
  bool cut_off = false;        // frames: it closed its channel while it lived

  void Forget(Call* call) { std::erase(calls, call); }
};

}  // namespace pulga
