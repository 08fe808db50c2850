// BenchSteps: the functions `pulga bench` deploys, one measurement of each step, and their end.
// Blocks. Deploys under names of its own (bench-PID-...), removed with this object; so are its
// images. Each measurement leaves the board idle before it begins.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/cli/bench_table.h"
#include "api/cli/client.h"
#include "base/temp_dir.h"

namespace pulga::cli {

class BenchSteps {
 public:
  BenchSteps(const DaemonClient& client, TempDir dir, std::chrono::milliseconds gap);
  ~BenchSteps();
  BenchSteps(const BenchSteps&) = delete;
  BenchSteps& operator=(const BenchSteps&) = delete;

  Status Prepare();
  // One run of every step, in turn. An error ends the benchmark.
  Status RunOnce();
  BenchReceipt receipt;  // its steps

 private:
  struct Sample {
    std::string start;                                     // X-Pulga-Start
    double queue_ms = 0, first_byte_ms = 0, total_ms = 0;  // by the receipt
    double client_ms = 0;
  };
  Status Import(const std::string& ref, const std::string& extra);
  Status Deploy(const std::string& name, const std::string& json);
  Result<Sample> Call(const std::string& name);
  Status AwaitStatus(const std::string& name,
                     const std::function<bool(const std::string& json)>& reached);
  Status Bare();
  // Waits until /v1/functions/NAME shows an instance on that step of the ladder.
  Status AwaitStep(const std::string& name, const std::string& step);
  // One call of `function` as a sample of `step`; none when it found another start than was meant.
  Result<std::optional<Sample>> Measure(size_t step, const char* function, std::string_view start,
                                        double Sample::*daemon_ms);
  Status MeasureStarts();
  Status ImportAgain();
  void Rest() const;
  std::string Name(const char* step) const { return prefix_ + step; }

  const DaemonClient& client_;
  TempDir dir_;
  std::chrono::milliseconds gap_;
  std::string prefix_;
  std::string image_;
  UniqueFd connection_;  // kept alive
  std::vector<std::string> functions_;
  std::vector<std::string> images_;
  unsigned imports_ = 0;
};

// Does a function's status say that what its pool did last was to drop the spawner? That it once
// did says nothing: "decisions" has the earlier ones.
bool SpawnerIsGone(const std::string& status);

// A plain tar of executable files, "NAME" -> bytes; names under 100 bytes.
std::string MakeTar(const std::vector<std::pair<std::string, std::string_view>>& files);

}  // namespace pulga::cli
