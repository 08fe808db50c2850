// Who was called when, of all functions, as a trace that policy/trace.h reads (docs/policy.md):
// told by the daemon, or read from the data directory of one that is stopped. Blocks on the disk:
// storage thread and CLI. On failure: the directory is in use (kAlreadyExists), not readable
// (kPermission), or its database is damaged (kIo), foreign or newer (kUnsupported), not there or
// empty (kNotFound); nothing changed.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "runtime/function_spec.h"
#include "runtime/state_store.h"

namespace pulga {

// What a replay has to know of a function besides its calls and what was measured of it.
struct HistoryFacts {
  uint64_t bytes = 0;   // its limit: what an idle instance holds until that was seen
  bool server = false;  // else a program, of which no start was measured that a server would have
  bool timer = false;   // its schedule is known
};
using FactsByKey = std::map<FunctionKey, HistoryFacts>;

HistoryFacts FactsOf(const FunctionSpec& spec, SandboxMode mode);

// Up to now, of the functions in `facts`: an unnamed file in `dir`, at its start.
Result<UniqueFd> WriteHistory(StateStore& store, const FactsByKey& facts, const std::string& dir);

// The same of a daemon that does not run. It can not start meanwhile. What is read is a copy in
// `scratch_dir`, so that neither the database nor a log left by a crash is touched.
Result<UniqueFd> HistoryOfStopped(const std::string& data_dir, const std::string& scratch_dir);

}  // namespace pulga
