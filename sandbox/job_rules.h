// What each kind of helper job (base/unpack_job.h) may have. The launcher reads this table and
// nothing else to decide about a job; the daemon's word chooses only the row. Pure.
#pragma once

#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "base/result.h"
#include "base/unpack_job.h"

namespace pulga {

enum class HelperProgram { kUnpacker, kFetcher };
// kHost: and one id of its own, which owns nothing, instead of the owner's range.
enum class HelperNetwork { kNone, kHost };
// kKeep: staging is thrown away. kPublish: its upper becomes the target.
// kTakeTarget: the target is moved into it first.
enum class StagingUse { kKeep, kPublish, kTakeTarget };

// Which open files may stand where; kNone: the descriptor must be absent. Others may be absent too.
enum class FdRule : uint8_t { kNone = 0, kFile = 1, kPipe = 2, kFileOrPipe = 3 };

struct JobRules {
  FdRule input = FdRule::kNone;
  FdRule output = FdRule::kNone;
  HelperProgram program = HelperProgram::kUnpacker;
  HelperNetwork network = HelperNetwork::kNone;
  StagingUse staging = StagingUse::kKeep;
  Duration timeout = std::chrono::minutes(15);
  // Its own memory stays under 16 MiB. The page cache it fills is reclaimed within this, but the
  // inodes and names of the files it makes count too until the disk has them.
  uint64_t memory_bytes = 96ULL << 20;
  uint64_t pids = 4;  // threads included
};

// nullopt for what is no kind.
std::optional<JobRules> RulesOf(UnpackKind kind);
// The job's descriptors are what `rules` say: regular files or unnamed pipes, and a channel is a
// pipe. Nothing a helper reads or writes may be a device, a socket or a terminal.
Status CheckJobFds(const JobRules& rules, const UnpackJob& job);

}  // namespace pulga
