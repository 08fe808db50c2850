// What a spawner does once, before it says ready: its ids, its own proc, the program and user of
// the image, everything instances share (spawner.h). On failure the spawner ends and with it
// everything.
#pragma once

#include <sys/resource.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "sandbox/child_setup.h"
#include "sandbox/exec_arguments.h"
#include "sandbox/isolation.h"
#include "sandbox/netns_pool.h"
#include "sandbox/refusals.h"
#include "sandbox/same_cpu.h"
#include "sandbox/secrets_mount.h"
#include "sandbox/spare_namespaces.h"
#include "sandbox/spawner.h"

namespace pulga {

// Everything a spawner works with. Never destroyed: the process ends instead.
struct SpawnerState {
  VersionSpec spec;
  std::vector<CgroupView> views;
  size_t refused_views = 0;
  Feature fence;
  Feature apparmor;
  ProgramAbi abi = ProgramAbi::kBoard;  // of its program
  long keyring = 0;                     // of its own, when positive
  std::string writable;                 // directories of an instance, for the isolation report
  std::vector<Feature> layers;          // of the isolation report
  std::vector<gid_t> groups;
  ChildPlan plan;
  std::unique_ptr<ExecArguments> arguments;
  NetnsPool netns;
  SpareNamespaces spares;
  SameCpu same_cpu;
  RefusalListener refusals;
  SecretsMount secrets;
  SlotRecord* records = nullptr;
  RefusalRecord* refusal_record = nullptr;
  int socket_fd = -1;
  int lifeline_fd = -1;
  int signal_fd = -1;  // SIGCHLD
};

// What every process of a version is held to, where it had more.
std::span<const ResourceLimit> VersionRlimits();

Result<std::unique_ptr<SpawnerState>> SetUpSpawner(SpawnerInput& input);

}  // namespace pulga
