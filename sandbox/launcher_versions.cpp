// The launcher's versions: built by a set-up child, ended with their spawner, removed by a janitor.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "base/text.h"
#include "base/units.h"
#include "sandbox/isolation.h"
#include "sandbox/launcher_state.h"
#include "sandbox/spawn_protocol.h"
#include "sandbox/version_builder.h"
#include "sandbox/volumes/version_volumes.h"
#include "sandbox/volumes/volume_host.h"

namespace pulga {
namespace {

constexpr size_t kMaxAllSlots = 4096;
// A damaged file system is repaired before it is mounted.
constexpr Duration kVolumeCheckTime = std::chrono::minutes(5);

uint64_t BoardBytes(const struct sysinfo& info) {
  return static_cast<uint64_t>(info.totalram) * info.mem_unit;
}

bool HoldsAllItMay(size_t versions, size_t slots) {
  struct sysinfo info = {};
  const uint64_t board = sysinfo(&info) == 0 ? BoardBytes(info) : 0;
  return versions >= VersionsThatFit(board) || slots > kMaxAllSlots;
}

// What only this board can say about a request.
Status CheckAgainstBoard(const VersionSpec& spec) {
  struct sysinfo info = {};
  if (sysinfo(&info) != 0) return LastError("sysinfo");
  const uint64_t board = BoardBytes(info);
  const uint64_t swap = static_cast<uint64_t>(info.totalswap) * info.mem_unit;
  if (MostOf(spec).memory_bytes <= board && spec.limits.swap_bytes <= swap) return OkStatus();
  return Error{Code::kInvalidArgument, 0,
               "limits.memory and limits.swap ask for more than this board has: " +
                   HumanBytes(board) + " memory, " + HumanBytes(swap) + " swap"};
}

// Sealed so that no writer can shrink it under the daemon's map.
Result<UniqueFd> MakeRecords(uint16_t slots) {
  UniqueFd fd(sys::Faulted() ? -1 : sys::MemfdCreate("slots", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return LastError("slot-records: memfd");
  if (PULGA_SYS(ftruncate, fd.get(), static_cast<off_t>(RecordsBytes(slots))) != 0 ||
      PULGA_SYS(fcntl, fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return LastError("slot-records");
  }
  return fd;
}

// Removing cgroups waits for the kernel to let go; a process of its own may.
int RemoveCgroups(CgroupTree& cgroups, uint64_t version_id) {
  constexpr int kTries = 200;
  for (int i = 0; i < kTries; ++i) {
    const Status removed = cgroups.RemoveVersion(version_id);
    if (removed.ok()) return 0;
    if (i == kTries - 1) LogWarning("remove cgroups: " + removed.error().message);
    usleep(i < 20 ? 2000 : 50000);
  }
  return 1;
}

}  // namespace

void Launcher::BuildVersion(uint64_t request, Message message) {
  auto spec = DecodeBuildVersion(message.bytes);
  if (!spec.ok()) return Reply(request, spec.error());
  const Status fits = CheckAgainstBoard(*spec);
  if (!fits.ok()) return Reply(request, fits);
  const Status granted = CheckAgainstGrants({spec->function, spec->access}, grants_);
  if (!granted.ok()) return Reply(request, granted);
  auto rules = EgressRules(spec->access.network.allow);
  if (!rules.ok()) return Reply(request, rules.error());
  if (spec->access.network.mode == NetworkMode::kEgress && !network_->is_open()) {
    return Reply(request, Error{Code::kUnavailable, 0, "network.mode: egress: it is not open"});
  }
  if (const auto found = versions_.find(spec->version_id); found != versions_.end()) {
    Version& there = *found->second;
    if (!there.tearing_down || there.next) {
      return Reply(request, Error{Code::kAlreadyExists, 0, "that version exists"});
    }
    there.next.emplace(request, std::move(message));
    return;
  }
  size_t all_slots = spec->slots;
  for (const auto& [id, version] : versions_) all_slots += version->slots;
  if (HoldsAllItMay(versions_.size(), all_slots)) return Reply(request, LauncherFull());
  const Status there = CheckPresent(*spec);
  if (!there.ok()) return Reply(request, there);
  auto devices = LeaseDevices({spec->function, spec->access});
  if (!devices.ok()) return Reply(request, devices.error());
  auto owned = std::make_unique<Version>();
  Version& version = *owned;
  version.devices = std::move(*devices);
  version.id = spec->version_id;
  version.build_request = request;
  version.slots = spec->slots;
  version.limits = spec->limits;
  version.most = MostOf(*spec);
  version.wishes = {spec->function, spec->access};
  version.build = next_build_++;
  version.egress = spec->access.network.mode == NetworkMode::kEgress;
  version.egress_rules = std::move(*rules);
  versions_[version.id] = std::move(owned);
  const Status started = StartBuild(version, std::move(*spec));
  if (!started.ok()) TearDown(version, started.error());
}

Status Launcher::CheckPresent(const VersionSpec& spec) const {
  std::vector<LayerId> layers = spec.layers;
  PULGA_RETURN_IF_ERROR(CheckResolved(spec.access.volumes));
  for (const VolumeMount& volume : spec.access.volumes) {
    layers.insert(layers.end(), volume.layers.begin(), volume.layers.end());
    if (volume.kind != VolumeKind::kVolume) continue;
    if (volumes_ && volumes_->StorageOf(VolumeIdOf(volume.source))) continue;
    return Error{Code::kNotFound, ENOENT, "volume at " + volume.path + ": its file is missing"};
  }
  for (const LayerId& id : layers) {
    if (layers_.Has(id)) continue;
    return Error{Code::kNotFound, ENOENT, "layer " + id.Hex() + " is missing"};
  }
  return OkStatus();
}

Status Launcher::StartBuild(Version& version, VersionSpec spec) {
  PULGA_ASSIGN_OR_RETURN(version.records, MakeRecords(spec.slots));
  PULGA_ASSIGN_OR_RETURN(auto sockets, MessageSocket::Pair());
  version.socket = sockets.first.TakeFd();
  const UniqueFd spawner_end = sockets.second.TakeFd();
  int lifeline[2];
  if (PULGA_SYS(pipe2, lifeline, O_CLOEXEC) != 0) return LastError("lifeline");
  const UniqueFd lifeline_read(lifeline[0]);
  version.lifeline.Reset(lifeline[1]);
  PULGA_ASSIGN_OR_RETURN(
      const UniqueFd report,
      WatchReports([this, &version] { OnBuildReport(version); }, version.report));
  VersionBuild build;
  const Duration patience =
      options_.build_timeout + (spec.access.volumes.empty() ? Duration{0} : kVolumeCheckTime);
  build.spec = std::move(spec);
  build.devices = version.devices;
  build.host_owners = version.host_owners = FindHostOwners(version.wishes, grants_);
  build.cgroups = cgroups_.get();
  build.ids = options_.ids;
  build.apparmor = options_.apparmor;
  build.disk = DiskOf(layers_.fd());
  build.volumes = volumes_ ? &*volumes_ : nullptr;
  build.layers_fd = layers_.fd();
  build.socket_fd = spawner_end.get();
  build.records_fd = version.records.get();
  build.report_fd = report.get();
  build.lifeline_fd = lifeline_read.get();
  MessageSocket attach_end;
  if (version.egress) {
    build.router = network_->router();
    if (build.spec.mode == SandboxMode::kHttp) {
      PULGA_ASSIGN_OR_RETURN(auto pair, MessageSocket::Pair());
      version.attach = std::move(pair.first);
      attach_end = std::move(pair.second);
      build.attach_fd = attach_end.fd();
    }
  }
  PULGA_ASSIGN_OR_RETURN(PidFd child,
                         Fork([&build]() -> int { BuildVersionAndExit(std::move(build)); }));
  const pid_t pid = child.pid();
  PULGA_RETURN_IF_ERROR(WatchChild(std::move(child), [this, &version](const ExitInfo&) {
    version.setup = -1;
    Continue(version);
  }));
  version.setup = pid;
  version.timer = loop_.CallAfter(patience, [this, &version] {
    version.timer = 0;
    TearDown(version, Error{Code::kTimeout, ETIMEDOUT, "building the version took too long"});
  });
  return OkStatus();
}

void Launcher::OnBuildReport(Version& version) {
  BuildReport report;
  const ssize_t n = PULGA_SYS(read, version.report.get(), &report, sizeof report);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n != sizeof report) {
    return TearDown(version, Error{Code::kInternal, 0, "the set-up ended without a word"});
  }
  report.text[sizeof report.text - 1] = '\0';
  // Before kStarted only the set-up child, which is root like us, can have written; afterwards the
  // spawner can, and is not believed about pids.
  if (report.kind == ReportKind::kStarted && !version.started) {
    version.started = true;
    version.warnings = report.text;
    auto child = PidFd::OfChild(report.pid);
    if (!child.ok()) return TearDown(version, Prefix("spawner", child.error()));
    version.spawner = report.pid;
    const Status watched = WatchChild(std::move(*child), [this, &version](const ExitInfo& info) {
      version.spawner = -1;
      // Exit code 0: the daemon let go of it. Its drop, or its own end, may be heard of later.
      if (!version.tearing_down && info.wait_status != 0) {
        LogWarning("spawner of version " + std::to_string(version.id) + " ended, wait status " +
                   std::to_string(info.wait_status));
      }
      TearDown(version, Error{Code::kUnavailable, 0, "the spawner died"});
    });
    if (!watched.ok()) {
      version.spawner = -1;
      return TearDown(version, watched.error());
    }
    const Status networked = StartNetwork(version);
    if (!networked.ok()) TearDown(version, Prefix("network", networked.error()));
    return;
  }
  if (report.kind == ReportKind::kReady && version.started) {
    version.ready = true;
    version.warnings = WithLayers(version.warnings, report.text);
    loop_.Unwatch(version.report.get());
    version.report.Reset();
    return FinishBuild(version);
  }
  if (report.kind == ReportKind::kFailed) return TearDown(version, ErrorOf(report));
  TearDown(version, Error{Code::kInternal, 0, "the set-up spoke out of turn"});
}

// Called when the spawner is ready and as its namespaces are attached; acts once all of it is so.
void Launcher::FinishBuild(Version& version) {
  if (!version.ready || version.build_request == 0) return;
  if (version.egress && version.ports.empty()) return;
  loop_.Cancel(version.timer);
  version.timer = 0;
  const uint64_t request = std::exchange(version.build_request, 0);
  Reply(request, OkStatus(), version.warnings, {version.socket.get(), version.records.get()});
  version.socket.Reset();
  version.records.Reset();
}

void Launcher::DropVersion(uint64_t request, Message message) {
  const auto body = DecodeSlot(message.bytes);
  if (!body.ok()) return Reply(request, body.error());
  const auto found = versions_.find(body->version_id);
  if (found == versions_.end()) {
    return Reply(request, Error{Code::kNotFound, 0, "no such version"});
  }
  Version& version = *found->second;
  const Error dropped{Code::kUnavailable, 0, "the version was dropped"};
  if (version.next) Reply(version.next->first, dropped);
  version.next.reset();
  version.drop_requests.push_back(request);
  TearDown(version, dropped);
}

void Launcher::TearDown(Version& version, const Error& why) {
  if (version.build_request != 0) Reply(std::exchange(version.build_request, 0), why);
  if (!version.tearing_down) {
    version.tearing_down = true;
    loop_.Cancel(version.timer);
    version.timer = 0;
    if (version.report.valid()) loop_.Unwatch(version.report.get());
    version.report.Reset();
    version.lifeline.Reset();
    EndNetwork(version);
    EndReclaims(version.id);
    version.socket.Reset();
    version.records.Reset();
    for (auto& [fd, child] : children_) {
      if (child.pid() == version.setup || child.pid() == version.spawner ||
          child.pid() == version.resizer) {
        (void)child.Signal(SIGKILL);
      }
    }
    cgroups_->ThawVersion(version.id);
  }
  Continue(version);
}

void Launcher::Continue(Version& version) {
  if (!version.tearing_down || version.setup >= 0 || version.spawner >= 0 || version.resizer >= 0 ||
      version.janitor_running) {
    return;
  }
  version.janitor_running = true;
  const uint64_t id = version.id;
  const auto removed = [this, id] {
    const auto found = versions_.find(id);
    if (found == versions_.end()) return;
    const std::unique_ptr<Version> gone = std::move(found->second);
    versions_.erase(found);
    for (uint64_t request : gone->drop_requests) Reply(request, OkStatus());
    if (gone->next && !stopping_) BuildVersion(gone->next->first, std::move(gone->next->second));
  };
  const auto remove = [this, id] { return RemoveCgroups(*cgroups_, id); };
  RunJanitor({remove, remove}, removed);
}

}  // namespace pulga
