#include "runtime/sense/board_sense.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/file_io.h"
#include "base/log.h"
#include "base/units.h"

namespace pulga {
namespace {

constexpr int kIdlePace = 5;
constexpr int kWindowUs = 2'000'000;

int64_t MillisBetween(TimePoint from, TimePoint to) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(to - from).count();
}

std::string WhatIsDone(PressureLevel level) {
  switch (level) {
    case PressureLevel::kCalm:
      return "everything goes on as usual";
    case PressureLevel::kShrink:
      return "idle instances are given up";
    case PressureLevel::kDelay:
      return "idle instances are given up, what nobody waits for is put off";
    case PressureLevel::kShed:
      return "idle instances are given up, calls that need a new one are refused";
  }
  return "";
}

}  // namespace

Result<UniqueFd> OpenPressureTrigger(const std::string& file, const std::string& kind,
                                     double percent) {
  PULGA_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(file, O_RDWR | O_NONBLOCK));
  const int stall = std::clamp(static_cast<int>(percent / 100 * kWindowUs), 1, kWindowUs);
  const std::string order = kind + " " + std::to_string(stall) + " " + std::to_string(kWindowUs);
  // With its NUL, as the kernel's own example does it.
  if (write(fd.get(), order.c_str(), order.size() + 1) < 0) return LastError("write " + file);
  return fd;
}

BoardSense::BoardSense(EventLoop& loop, const Clock& clock, BoardReader reader,
                       SenseOptions options, Hooks hooks)
    : loop_(loop),
      clock_(clock),
      reader_(std::move(reader)),
      options_(std::move(options)),
      hooks_(std::move(hooks)),
      policy_(reader_.facts(), ThresholdsFor(reader_.facts(), options_.wishes), options_.hold),
      level_since_(clock.Now()),
      read_at_(clock.Now()) {}

BoardSense::~BoardSense() {
  loop_.Cancel(timer_);
  DropTriggers();
}

void BoardSense::Start() {
  if (options_.acts) ArmTriggers();
  Look();
}

void BoardSense::SetOptions(SenseOptions options) {
  options_ = std::move(options);
  policy_ = PressurePolicy(reader_.facts(), ThresholdsFor(reader_.facts(), options_.wishes),
                           options_.hold);
  DropTriggers();
  Start();
}

void BoardSense::Look() {
  readings_ = reader_.Read();
  read_at_ = clock_.Now();
  const PressureVerdict& verdict = policy_.Look(readings_, read_at_);
  Tell(options_.acts ? verdict : PressureVerdict());
  Schedule();
}

void BoardSense::Tell(const PressureVerdict& verdict) {
  if (verdict.level == level_) {
    // Who gave up too little at the last look gives up more.
    if (level_ != PressureLevel::kCalm) hooks_.tell(verdict);
    return;
  }
  const std::string name(PressureLevelName(verdict.level));
  const std::string before(PressureLevelName(level_));
  const std::string text = "pressure: " + before + " -> " + name + ", " +
                           WhatIsDone(verdict.level) +
                           (verdict.why.empty() ? "" : ": " + verdict.why);
  if (verdict.level > level_) {
    LogWarning(text);
  } else {
    LogInfo(text);
  }
  level_ = verdict.level;
  level_since_ = read_at_;
  ++changes_;
  hooks_.tell(verdict);
}

void BoardSense::Schedule() {
  loop_.Cancel(timer_);
  const bool often = level_ != PressureLevel::kCalm || (triggers_.empty() && hooks_.busy());
  timer_ = loop_.CallAfter(often ? options_.interval : kIdlePace * options_.interval, [this] {
    timer_ = 0;
    Look();
  });
}

BoardReport BoardSense::Report() const {
  BoardReport report;
  report.facts = reader_.facts();
  report.readings = readings_;
  report.verdict = policy_.verdict();
  report.thresholds = policy_.thresholds();
  report.write_ms = policy_.write_ms();
  const TimePoint now = clock_.Now();
  report.level_ms = MillisBetween(level_since_, now);
  report.read_ms = MillisBetween(read_at_, now);
  report.level_changes = changes_;
  report.woken = !triggers_.empty();
  report.acts = options_.acts;
  return report;
}

BoardReport ReportOnce(const BoardReader& reader, const PressureWishes& wishes) {
  BoardReport report;
  report.facts = reader.facts();
  report.readings = reader.Read();
  PressurePolicy policy(report.facts, ThresholdsFor(report.facts, wishes), Duration::zero());
  report.verdict = policy.Look(report.readings, TimePoint());
  report.thresholds = policy.thresholds();
  return report;
}

// --- the kernel's own word

void BoardSense::ArmTriggers() {
  if (!reader_.root().empty()) return;  // files that are faked can not be asked to tell
  const PressureThresholds& thresholds = policy_.thresholds();
  const auto first = [](const PressureSteps& steps) {
    return std::min({steps.shrink, steps.delay, steps.shed});
  };
  AddTrigger("/proc/pressure/memory", "some", first(thresholds.memory));
  AddTrigger("/proc/pressure/io", "full", first(thresholds.io));
}

void BoardSense::AddTrigger(const char* file, const char* kind, double percent) {
  if (percent == kNoStep) return;
  auto trigger = OpenPressureTrigger(file, kind, percent);
  if (!trigger.ok()) {
    return LogDebug("no pressure trigger, looking by time alone: " + trigger.error().message);
  }
  const int fd = trigger->get();
  const Status watched = loop_.Watch(fd, EPOLLPRI, [this, fd](uint32_t events) {
    if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
      loop_.Unwatch(fd);
      std::erase_if(triggers_, [fd](const UniqueFd& held) { return held.get() == fd; });
      return;
    }
    Look();
    // What the kernel saw in 2 s is in its averages a moment later.
    loop_.Cancel(timer_);
    timer_ = loop_.CallAfter(options_.interval, [this] {
      timer_ = 0;
      Look();
    });
  });
  if (watched.ok()) triggers_.push_back(std::move(trigger).value());
}

void BoardSense::DropTriggers() {
  for (const UniqueFd& trigger : triggers_) loop_.Unwatch(trigger.get());
  triggers_.clear();
}

}  // namespace pulga
