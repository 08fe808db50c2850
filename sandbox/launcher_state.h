// What the launcher knows of each version and job; private to launcher*.cpp.
#pragma once

#include <optional>
#include <set>
#include <utility>

#include "sandbox/job_rules.h"
#include "sandbox/launcher.h"

namespace pulga {

struct Launcher::Version {
  uint64_t id = 0;
  uint64_t build_request = 0;  // 0 once answered
  std::vector<uint64_t> drop_requests;
  std::optional<std::pair<uint64_t, Message>> next;  // a build that waits until this one is gone
  uint16_t slots = 0;
  pid_t setup = -1;  // -1 once reaped
  pid_t spawner = -1;
  bool started = false;  // the one kStarted was taken
  bool tearing_down = false;
  bool janitor_running = false;
  std::set<uint16_t> frozen;  // slots; on v1 what is frozen cannot even be killed
  UniqueFd report;            // watched while valid
  UniqueFd lifeline;          // closing it ends the spawner
  UniqueFd socket;            // the daemon's end, until it is handed over
  UniqueFd records;
  std::string warnings;
  EventLoop::TimerId timer = 0;
};

struct Launcher::Job {
  uint64_t number = 0;
  uint64_t request = 0;
  StagingUse staging_use = StagingUse::kKeep;
  LayerId target;
  std::string staging;
  std::string trash;  // not empty: to be removed afterwards
  std::string cgroup;
  SlotCounters counters;
  pid_t setup = -1;
  pid_t unpacker = -1;
  bool started = false;
  bool timed_out = false;
  bool cancelled = false;
  bool finished = false;  // answered; only its files and its cgroup are left
  Status failed;          // what the set-up reported
  UniqueFd report;
  EventLoop::TimerId timer = 0;
};

}  // namespace pulga
