// Trace: which functions were called when, at the resolution of a tick, with their sizes. What a
// replay is fed with. Reading is the only thing in this folder that touches files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace pulga {

struct TraceFunction {
  std::string name;
  uint64_t bytes = 64 << 20;
  Duration init = std::chrono::milliseconds(250);  // of the program, before its first answer
  enum class Trigger : uint8_t { kCaller, kTimer } trigger = Trigger::kCaller;
};

struct TraceCall {
  uint32_t tick = 0;
  uint32_t function = 0;
  uint32_t calls = 1;  // within the tick
};

struct Trace {
  Duration tick = std::chrono::minutes(1);
  uint32_t ticks = 0;
  std::vector<TraceFunction> functions;
  std::vector<TraceCall> calls;  // by tick; one entry per function and tick
};

inline constexpr uint64_t kTraceFileBytes = 64 << 20;
inline constexpr size_t kTraceFunctions = 10000;

// Calls per minute: HashOwner,HashApp,HashFunction,Trigger, then a column per minute. Memory, where
// given: HashFunction,HashOwner,HashApp,SampleCount,AverageAllocatedMb,...
Result<Trace> ParseMinutes(std::string_view calls_csv, std::string_view memory_csv);
// func_name,invoke_time_ms; beside it func_name,cold_dur_ms,warm_dur_ms,mem_mb,... Ticks of 1 s.
Result<Trace> ParseMoments(std::string_view calls_csv, std::string_view functions_csv);

// What the daemon tells of calls it recorded: function,trigger,bytes,init_ms,hour,minutes with a
// line for each function and hour with a call; minutes as HourOfCalls writes them.
inline constexpr std::string_view kHistoryHead = "function,trigger,bytes,init_ms,hour,minutes";
Result<Trace> ParseHistory(std::string_view csv);

// Whichever of the three FILE is. What tells of sizes is looked for beside it: X-memory.csv for
// X-invocations.csv, X-metadata-trace.csv for X-trace.csv; functions it does not name have 64 MiB.
Result<Trace> ReadTrace(const std::string& path);

// Timers, steady callers, bursts, office hours and functions called once: a day that every board
// has.
Trace MakeTrace(uint32_t seed, uint32_t functions);

}  // namespace pulga
