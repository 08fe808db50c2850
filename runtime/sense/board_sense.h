// BoardSense: looks at the board now and then, and tells when the level of pressure is another, and
// again at each look while it is not calm. Loop thread. A look costs some 20 small reads; it is
// taken each `interval` while something runs or the board is not calm, else at a fifth of that
// pace, and at once when the kernel says that tasks wait (PSI triggers, where they are permitted
// and the root is the real one).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/unique_fd.h"
#include "runtime/sense/board_reader.h"
#include "runtime/sense/pressure_policy.h"

namespace pulga {

struct BoardReport {
  BoardFacts facts;
  BoardReadings readings;
  PressureVerdict verdict;
  PressureThresholds thresholds;
  std::optional<double> write_ms;
  int64_t level_ms = 0;  // for how long it has been this level
  int64_t read_ms = 0;   // how long ago the readings were taken
  uint64_t level_changes = 0;
  bool woken = false;  // by the kernel too, not by the time alone
  bool acts = true;    // false: pressure is off, the level is what it would be
};

struct SenseOptions {
  bool acts = true;
  PressureWishes wishes;
  Duration interval = std::chrono::seconds(2);
  Duration hold = std::chrono::seconds(10);
  bool operator==(const SenseOptions&) const = default;
};

class BoardSense {
 public:
  // `tell` is called with the level and why, whenever there is one, and once when it is calm again;
  // `busy`: does anything run that could make the board suffer?
  struct Hooks {
    std::function<void(const PressureVerdict&)> tell;
    std::function<bool()> busy;
  };
  BoardSense(EventLoop& loop, const Clock& clock, BoardReader reader, SenseOptions options,
             Hooks hooks);
  ~BoardSense();
  BoardSense(const BoardSense&) = delete;
  BoardSense& operator=(const BoardSense&) = delete;

  void Start();
  void SetOptions(SenseOptions options);  // begins anew, calm
  void Look();
  const SenseOptions& options() const { return options_; }
  PressureLevel level() const { return level_; }
  BoardReport Report() const;

 private:
  void ArmTriggers();
  void AddTrigger(const char* file, const char* kind, double percent);
  void DropTriggers();
  void Schedule();
  void Tell(const PressureVerdict& verdict);

  EventLoop& loop_;
  const Clock& clock_;
  BoardReader reader_;
  SenseOptions options_;
  Hooks hooks_;
  PressurePolicy policy_;
  BoardReadings readings_;
  PressureLevel level_ = PressureLevel::kCalm;  // as told
  TimePoint level_since_;
  TimePoint read_at_;
  uint64_t changes_ = 0;
  EventLoop::TimerId timer_ = 0;
  std::vector<UniqueFd> triggers_;
};

// The board as it is now, without anybody who acts. For the command line.
BoardReport ReportOnce(const BoardReader& reader, const PressureWishes& wishes);

// A PSI trigger; kPermission or kUnsupported where this kernel lets us have none.
// Source: Documentation/accounting/psi.rst; since Linux 6.6 without privileges in windows of 2 s.
Result<UniqueFd> OpenPressureTrigger(const std::string& file, const std::string& kind,
                                     double percent);

}  // namespace pulga
