#include "runtime/tasks/task_rules.h"

#include <signal.h>

#include <algorithm>

#include "base/text.h"
#include "base/units.h"
#include "runtime/tasks/schedule_plan.h"

namespace pulga {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kMostAttempts = 1000;
constexpr Duration kLongestWait = std::chrono::hours(24);
// Where nothing can begin, and what was cut short, is tried again after this, doubling.
constexpr Duration kShortWait = seconds(1);

Duration Doubled(Duration first, uint32_t times, Duration most) {
  Duration wait = first;
  for (uint32_t i = 0; i < times && wait < most; ++i) wait *= 2;
  return std::min(wait, most);
}

// Says nothing about the task: its function was not asked.
std::string Annotation(std::string_view name) {
  return "annotations.com.openfaas.retry." + std::string(name);
}

Status ReadWait(const std::map<std::string, std::string>& annotations, const char* name,
                Duration* wait) {
  const auto it = annotations.find("com.openfaas.retry." + std::string(name));
  if (it == annotations.end()) return OkStatus();
  const auto parsed = ParseDuration(it->second);
  if (!parsed.ok()) return Prefix(Annotation(name), parsed.error());
  if (*parsed <= Duration::zero() || *parsed > kLongestWait) {
    return Error{Code::kInvalidArgument, 0, Annotation(name) + ": more than 0 and up to 24h"};
  }
  *wait = *parsed;
  return OkStatus();
}

}  // namespace

Result<RetryRules> ParseRetryRules(const std::map<std::string, std::string>& annotations) {
  RetryRules rules;
  if (const auto it = annotations.find("com.openfaas.retry.attempts"); it != annotations.end()) {
    const auto attempts = ParseUint(Trim(it->second), kMostAttempts);
    if (!attempts) {
      return Error{Code::kInvalidArgument, 0,
                   Annotation("attempts") + ": a whole number from 0 to 1000"};
    }
    rules.attempts = std::max(1U, static_cast<uint32_t>(*attempts));
  }
  if (const auto it = annotations.find("com.openfaas.retry.codes"); it != annotations.end()) {
    rules.codes.clear();
    for (const std::string_view text : Split(it->second, ',')) {
      const auto code = ParseUint(Trim(text), 599);
      if (!code || *code < 100) {
        return Error{Code::kInvalidArgument, 0,
                     Annotation("codes") + ": HTTP statuses, separated by commas"};
      }
      rules.codes.insert(static_cast<int>(*code));
    }
  }
  PULGA_RETURN_IF_ERROR(ReadWait(annotations, "min_wait", &rules.min_wait));
  PULGA_RETURN_IF_ERROR(ReadWait(annotations, "max_wait", &rules.max_wait));
  rules.max_wait = std::max(rules.max_wait, rules.min_wait);
  return rules;
}

bool NeverBegan(const AttemptEnd& end) {
  constexpr std::string_view kFinal[] = {kRejectUnknownFunction, kRejectBodyLimit,
                                         kRejectBadArgument};
  const Outcome& outcome = end.outcome;
  if (outcome.kind != OutcomeKind::kRejected) return !end.begun;
  return std::find(std::begin(kFinal), std::end(kFinal), outcome.detail) == std::end(kFinal);
}

bool WasCutShort(const AttemptEnd& end) {
  const Outcome& outcome = end.outcome;
  return outcome.kind == OutcomeKind::kSetupFailed &&
         (outcome.detail == kLauncherLost || outcome.detail == kSpawnerLost);
}

bool CutByStop(const AttemptEnd& end) {
  const Outcome& outcome = end.outcome;
  return NeverBegan(end) || WasCutShort(end) || outcome.kind == OutcomeKind::kCancelled ||
         (outcome.kind == OutcomeKind::kSignaled && outcome.code == SIGKILL);
}

TaskVerdict Judge(const Task& task, const AttemptEnd& end, const RetryRules& rules) {
  using Counts = TaskVerdict::Counts;
  if (NeverBegan(end)) return {TaskState::kQueued, {}, Counts::kNot};
  if (WasCutShort(end)) {
    const uint32_t so_far = task.interrupts + 1;
    if (so_far >= kMostInterrupts) return {TaskState::kDead, {}, Counts::kAsInterrupt};
    return {TaskState::kQueued, Doubled(kShortWait, so_far - 1, kLongestHold),
            Counts::kAsInterrupt};
  }
  if (end.outcome.kind == OutcomeKind::kOk && end.status < 400) return {};
  const uint32_t tries = task.attempts - std::min(task.attempts, task.interrupts);
  const bool unknown = end.outcome.kind == OutcomeKind::kRejected;
  if (rules.attempts <= 1 || unknown || rules.codes.count(end.status) == 0) {
    return {TaskState::kFailed, {}, Counts::kAsTry};
  }
  if (tries >= rules.attempts) return {TaskState::kDead, {}, Counts::kAsTry};
  const uint32_t before = tries == 0 ? 0 : tries - 1;
  return {TaskState::kQueued, Doubled(rules.min_wait, before, rules.max_wait), Counts::kAsTry};
}

Duration WaitAfterLoad(const Task& task, int64_t now_ms, const RetryRules& rules) {
  return WaitLeft(task.not_before_ms, now_ms, std::max(rules.max_wait, kLongestHold));
}

Duration WaitLeft(int64_t not_before_ms, int64_t now_ms, Duration most) {
  if (not_before_ms <= now_ms) return Duration::zero();
  const milliseconds most_ms = std::chrono::duration_cast<milliseconds>(most);
  // Not the difference: a damaged row may hold any number.
  if (not_before_ms - most_ms.count() > now_ms) return most;
  return milliseconds(not_before_ms - now_ms);
}

Duration AgeAfterLoad(const Task& task, int64_t now_ms) {
  constexpr milliseconds kMost = std::chrono::hours(24 * 30);
  if (task.ended_ms >= now_ms) return Duration::zero();
  if (task.ended_ms < now_ms - kMost.count()) return kMost;
  return milliseconds(now_ms - task.ended_ms);
}

Duration HoldAfter(uint32_t refused, Duration at_least) {
  const Duration wait = Doubled(kShortWait, refused == 0 ? 0 : refused - 1, kLongestHold);
  return std::clamp(at_least, wait, kLongestHold);
}

uint32_t TasksAtOnce(const BoardRoom& room) {
  if (room.pressure >= PressureLevel::kShed || room.calls_need_room) return 0;
  if (room.pressure == PressureLevel::kDelay) return 1;
  const uint32_t most =
      room.pressure == PressureLevel::kShrink ? (room.at_once + 1) / 2 : room.at_once;
  const auto taken = static_cast<uint32_t>(std::min<uint64_t>(room.open_calls, most));
  return std::max(1U, most - taken);
}

uint32_t TasksAtOnceOf(const Version& version) {
  const uint64_t places = uint64_t{version.spec.scale.max} * std::max(1U, version.concurrency);
  const auto& annotations = version.spec.annotations;
  if (const auto it = annotations.find(kParallelAnnotation); it != annotations.end()) {
    const auto given = ParseUint(Trim(it->second), kConcurrencyRange.most);
    if (given && *given > 0) return static_cast<uint32_t>(std::min(*given, places));
  }
  return static_cast<uint32_t>(std::max<uint64_t>(1, places / 2));
}

std::vector<std::string> TaskWarnings(const std::map<std::string, std::string>& annotations) {
  std::vector<std::string> warnings;
  const auto rules = ParseRetryRules(annotations);
  if (!rules.ok()) warnings.push_back(rules.error().message + "; failed tasks are not tried again");
  if (const auto it = annotations.find(kParallelAnnotation); it != annotations.end()) {
    const auto given = ParseUint(Trim(it->second), kConcurrencyRange.most);
    if (!given || *given == 0) {
      warnings.push_back("annotations." + std::string(kParallelAnnotation) +
                         ": a whole number from 1 to 10000; it has no effect");
    }
  }
  const auto schedule = ParseFunctionSchedule(annotations);
  if (!schedule.ok()) warnings.push_back(schedule.error().message + "; it is never called by it");
  return warnings;
}

}  // namespace pulga
