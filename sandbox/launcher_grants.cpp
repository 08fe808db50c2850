// The launcher's grants: read at start and on SIGHUP, and taken back from versions that live on
// them.
#include <sys/mman.h>

#include "base/file_io.h"
#include "base/log.h"
#include "base/sys.h"
#include "sandbox/grants_file.h"
#include "sandbox/launcher_state.h"

namespace pulga {

// Grants are root's: a user's launcher has nothing of the host to give.
Result<GrantsText> Launcher::GrantsOfHost() const {
  if (!options_.ids.on_host) return Error{Code::kNotFound, 0, "no grants for a user"};
  return ReadGrants(options_.grants_file);
}

// Mounts stay as they were made: another owner is another grant.
Status Launcher::CheckVersion(const Version& version) const {
  PULGA_RETURN_IF_ERROR(CheckAgainstGrants(version.wishes, grants_));
  if (FindHostOwners(version.wishes, grants_) == version.host_owners) return OkStatus();
  return Error{Code::kUnsupported, 0, "the owner of a host directory changed in grants.conf"};
}

// Whatever can not be read grants nothing: what was granted before is taken back, too.
void Launcher::ReloadGrants() {
  grants_ = Grants();
  auto read = GrantsOfHost();
  if (!read.ok() && read.error().code != Code::kNotFound) {
    LogWarning("no grants hold: " + read.error().message);
  }
  if (read.ok()) {
    for (const GrantProblem& problem : read->problems) {
      LogWarning(options_.grants_file + ":" + std::to_string(problem.line) +
                 ": this line grants nothing: " + problem.message);
    }
    LogInfo(options_.grants_file + ": " + std::to_string(read->lines.size()) + " grants");
    grants_ = std::move(read->grants);
  }
  // By the loop: before it runs, a daemon that is gone could not stop it.
  loop_.Post(
      [this, lines = read.ok() ? read->lines : std::vector<GrantLine>()] { TellGrants(lines); });
  for (auto& [id, version] : versions_) {
    if (version->tearing_down) continue;
    const Status granted = CheckVersion(*version);
    if (granted.ok()) continue;
    LogWarning("a version of " + version->wishes.function + " ends: " + granted.error().message);
    TearDown(*version, granted.error());
  }
}

void Launcher::TellGrants(const std::vector<GrantLine>& lines) {
  if (lines == told_grants_) return;
  const UniqueFd fd(sys::Faulted() ? -1 : sys::MemfdCreate("grants", MFD_CLOEXEC));
  const Status written =
      fd.valid() ? WriteAll(fd.get(), EncodeGrants(lines)) : Status(LastError("memfd"));
  if (!written.ok()) return LogWarning("the grants cannot be shown: " + written.error().message);
  told_grants_ = lines;
  Reply(kGrantsRequest, OkStatus(), "", {fd.get()});
}

// What lives, and what is not gone yet, holds what it has.
Result<std::vector<GrantedDevice>> Launcher::LeaseDevices(const Wishes& wishes) const {
  PULGA_ASSIGN_OR_RETURN(auto devices, FindDevices(wishes, grants_));
  std::vector<DeviceHolder> holders;
  for (const auto& [id, version] : versions_) {
    holders.push_back({version->wishes.function, version->devices});
  }
  PULGA_RETURN_IF_ERROR(CheckLeases({wishes.function, devices}, holders));
  return devices;
}

}  // namespace pulga
