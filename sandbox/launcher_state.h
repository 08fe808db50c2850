// What the launcher knows of each version and job; private to launcher*.cpp.
#pragma once

#include <optional>
#include <utility>

#include "sandbox/granted_device.h"
#include "sandbox/job_rules.h"
#include "sandbox/launcher.h"

namespace pulga {

struct Launcher::Version {
  uint64_t id = 0;
  uint64_t build_request = 0;  // 0 once answered
  std::vector<uint64_t> drop_requests;
  std::optional<std::pair<uint64_t, Message>> next;  // a build that waits until this one is gone
  uint16_t slots = 0;
  SandboxLimits limits;                               // of each slot, as they are in force
  InstanceSize most;                                  // what they may become
  pid_t resizer = -1;                                 // the child that changes them
  std::vector<GrantedDevice> devices;                 // leased as long as this is here
  Wishes wishes;                                      // judged anew when the grants change
  std::vector<std::optional<HostOwner>> host_owners;  // as its mounts were made
  pid_t setup = -1;                                   // -1 once reaped
  pid_t spawner = -1;
  bool started = false;  // the one kStarted was taken
  bool ready = false;    // kReady was
  bool tearing_down = false;
  bool janitor_running = false;
  UniqueFd report;    // watched while valid
  UniqueFd lifeline;  // closing it ends the spawner
  UniqueFd socket;    // the daemon's end, until it is handed over
  UniqueFd records;
  std::string warnings;
  uint64_t build = 0;  // tells two versions of one id apart
  bool egress = false;
  std::vector<AllowEntry> egress_rules;
  MessageSocket attach;                // http: the spawner asks on it
  std::map<uint32_t, uint32_t> ports;  // of the network, by the spawner's numbers
  EventLoop::TimerId timer = 0;
};

inline Error NoSuchSlot() { return Error{Code::kNotFound, 0, "no such version or slot"}; }

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
