#include "runtime/call_history.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/file_io.h"
#include "base/temp_dir.h"
#include "runtime/policy/cron_schedule.h"
#include "runtime/policy/trace.h"
#include "runtime/spec_json.h"
#include "runtime/version_resolver.h"

namespace pulga {
namespace {

constexpr size_t kChunk = 64 << 10;

// A server's start and memory are as measured, where they were.
std::string LineOf(const CallHour& hour, const HistoryFacts& facts) {
  using std::chrono::milliseconds;
  uint64_t bytes = facts.bytes;
  Duration init = TraceFunction().init;
  const auto costs = CostBook::Parse(facts.server ? hour.costs : "");
  if (costs.ok() && costs->at(Rung::kFrozen).sights > 0) bytes = costs->at(Rung::kFrozen).bytes;
  if (costs.ok() && costs->at(Rung::kCold).starts > 0) init = costs->at(Rung::kCold).start;
  return hour.key.name_space + "/" + hour.key.name + (facts.timer ? ",timer," : ",caller,") +
         std::to_string(bytes) + "," +
         std::to_string(std::chrono::duration_cast<milliseconds>(init).count()) + "," +
         std::to_string(hour.hour) + "," + hour.minutes + "\n";
}

// What cannot be resolved any more, having lost its image, counts as a program.
SandboxMode ModeOf(const FunctionSpec& spec, const StoredVersion& version, const StoredState& state,
                   const std::string& owner) {
  const auto image = std::find_if(state.images.begin(), state.images.end(), [&](const auto& each) {
    return each.owner == owner && each.digest == version.image_digest;
  });
  if (image == state.images.end()) return SandboxMode::kExec;
  const auto mode = ResolveMode(spec, *image);
  return mode.ok() ? *mode : SandboxMode::kExec;
}

FactsByKey FactsOf(const StoredState& state) {
  FactsByKey facts;
  for (const StoredFunction& function : state.functions) {
    for (const StoredVersion& version : function.versions) {
      if (version.state != StoredVersion::State::kActive) continue;
      const auto spec = SpecFromJson(version.spec_json);
      if (!spec.ok()) continue;
      const SandboxMode mode = ModeOf(*spec, version, state, function.key.owner);
      facts[function.key] = FactsOf(*spec, mode);
    }
  }
  return facts;
}

// Its keeper's, for as long as a daemon runs. A directory nobody ever served from, a backup, has
// none.
Result<UniqueFd> LockShared(int dir, const std::string& name) {
  auto lock = OpenFileAt(dir, "lock", O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!lock.ok() && lock.error().code == Code::kNotFound) return UniqueFd();
  if (!lock.ok()) return Prefix(name, std::move(lock).error());
  if (flock(lock->get(), LOCK_SH | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) return LastError("lock " + name);
  return Error{Code::kAlreadyExists, errno,
               "a pulga daemon is using " + name + ": ask it, by --history without --data"};
}

Status CopyFile(int from_dir, const std::string& name, const std::string& to_dir) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd from,
                         OpenFileAt(from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  PULGA_ASSIGN_OR_RETURN(const UniqueFd to,
                         OpenFile(to_dir + "/" + name, O_WRONLY | O_CREAT | O_EXCL, 0600));
  std::vector<char> chunk(kChunk);
  while (true) {
    const ssize_t got = read(from.get(), chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return LastError("read " + name);
    if (got == 0) return OkStatus();
    PULGA_RETURN_IF_ERROR(WriteAll(to.get(), {chunk.data(), static_cast<size_t>(got)}));
  }
}

Status CopyDatabase(int dir, const std::string& name, const std::string& to_dir) {
  const Status rows = CopyFile(dir, "pulga.db", to_dir);
  if (!rows.ok()) return Prefix(name, rows.error());
  const Status log = CopyFile(dir, "pulga.db-wal", to_dir);  // after a crash there is one
  if (log.ok() || log.error().code == Code::kNotFound) return OkStatus();
  return Prefix(name, log.error());
}

}  // namespace

HistoryFacts FactsOf(const FunctionSpec& spec, SandboxMode mode) {
  return {spec.sandbox.memory_bytes, IsServer(mode), !SchedulesOf(spec.annotations).empty()};
}

Result<UniqueFd> WriteHistory(StateStore& store, const FactsByKey& facts, const std::string& dir) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd file, OpenUnnamedFile(dir));
  std::string lines = std::string(kHistoryHead) + "\n";
  // A clock that was far ahead once left hours that no replay could reach.
  const auto now = SystemClock().WallTime().time_since_epoch();
  const int64_t latest = now / std::chrono::hours(1) + 1;
  PULGA_RETURN_IF_ERROR(store.ForEachHour([&](const CallHour& hour) -> Status {
    if (hour.hour > latest) return OkStatus();
    const auto known = facts.find(hour.key);
    if (known != facts.end()) lines += LineOf(hour, known->second);
    if (lines.size() < kChunk) return OkStatus();
    return WriteAll(file.get(), std::exchange(lines, ""));
  }));
  PULGA_RETURN_IF_ERROR(WriteAll(file.get(), lines));
  if (lseek(file.get(), 0, SEEK_SET) != 0) return LastError("rewind the history");
  return file;
}

Result<UniqueFd> HistoryOfStopped(const std::string& data_dir, const std::string& scratch_dir) {
  PULGA_ASSIGN_OR_RETURN(const UniqueFd dir, OpenFile(data_dir, O_RDONLY | O_DIRECTORY));
  PULGA_ASSIGN_OR_RETURN(const UniqueFd lock, LockShared(dir.get(), data_dir));
  PULGA_ASSIGN_OR_RETURN(const TempDir copy, TempDir::Create(scratch_dir + "/pulga-history-"));
  PULGA_RETURN_IF_ERROR(CopyDatabase(dir.get(), data_dir, copy.path()));
  auto store = StateStore::OpenCopy(copy.path());
  if (!store.ok()) return Prefix(data_dir, std::move(store).error());
  PULGA_ASSIGN_OR_RETURN(const StoredState state, (*store)->Load());
  return WriteHistory(**store, FactsOf(state), copy.path());
}

}  // namespace pulga
