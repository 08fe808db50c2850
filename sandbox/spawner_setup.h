// What a spawner does once, before it says ready: its ids, its own proc, the program and user of
// the image, everything instances share (spawner.h). On failure the spawner ends and with it
// everything.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/child_setup.h"
#include "sandbox/exec_arguments.h"
#include "sandbox/netns_pool.h"
#include "sandbox/same_cpu.h"
#include "sandbox/spare_namespaces.h"
#include "sandbox/spawner.h"

namespace pulga {

// Everything a spawner works with. Never destroyed: the process ends instead.
struct SpawnerState {
  VersionSpec spec;
  std::vector<gid_t> groups;
  ChildPlan plan;
  std::unique_ptr<ExecArguments> arguments;
  NetnsPool netns;
  SpareNamespaces spares;
  SameCpu same_cpu;
  SlotRecord* records = nullptr;
  int socket_fd = -1;
  int lifeline_fd = -1;
  int signal_fd = -1;  // SIGCHLD
};

Result<std::unique_ptr<SpawnerState>> SetUpSpawner(SpawnerInput& input);

}  // namespace pulga
