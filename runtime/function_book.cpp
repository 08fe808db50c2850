#include "runtime/function_book.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace pulga {
namespace {

constexpr Duration kHalfLife = std::chrono::hours(1);
constexpr Duration kCountStep = std::chrono::minutes(1);

double Fading(Duration time) {
  return std::exp2(-std::chrono::duration<double>(time) / std::chrono::duration<double>(kHalfLife));
}

// Never negative: the wall's clock may have been set back.
Duration Since(Learned::WallTime then, const Clock& clock) {
  return std::max<Duration>(clock.WallTime() - then, Duration::zero());
}

}  // namespace

void FunctionBook::OnCallBegun(TimePoint now) {
  if (idle_since_ && now - *idle_since_ >= kLeastIdle) {
    habit_.Add(now - *idle_since_);
    warmth_.reset();
  }
  idle_since_.reset();
  if (now - counted_ >= kCountStep) Forget(now);
  recent_ += 1;
  load_.Set(now, load_.level() + 1);
  Count(now);
}

void FunctionBook::OnCallEnded(TimePoint now) {
  load_.Set(now, load_.level() - std::min(load_.level(), 1U));
  if (load_.level() == 0) idle_since_ = now;
  changed_ = true;
}

Warmth FunctionBook::Habit(Duration fixed) {
  if (!warmth_ || planned_for_ != fixed) {
    KeepAliveRules rules;
    rules.fixed = planned_for_ = fixed;
    // Who gives up after seconds is not to wait for minutes, and a habit has no finer grain.
    if (fixed < IdleHistogram::kBin) rules.learning = KeepAliveRules::Learning::kOff;
    warmth_ = PlanWarmth(habit_, rules);
  }
  return *warmth_;
}

double FunctionBook::Frequency(TimePoint now) {
  Forget(now);
  return recent_;
}

void FunctionBook::Forget(TimePoint now) {
  if (now <= counted_) return;
  recent_ *= Fading(now - counted_);
  counted_ = now;
}

void FunctionBook::Count(TimePoint now) {
  changed_ = true;
  const auto number = static_cast<uint32_t>(now.time_since_epoch() / std::chrono::minutes(1));
  if (minutes_.empty() || minutes_.back().number != number) {
    if (minutes_.size() == kMinutes) minutes_.erase(minutes_.begin());
    minutes_.push_back({number, 0});
  }
  ++minutes_.back().calls;
}

Learned FunctionBook::Take(const Clock& clock) {
  using std::chrono::duration_cast;
  using std::chrono::minutes;
  using std::chrono::system_clock;
  const TimePoint now = clock.Now();
  Learned out;
  out.habit = habit_;
  out.costs = costs_;
  out.calls_lately = Frequency(now);
  out.size = size_;
  out.at = clock.WallTime();
  if (idle_since_)
    out.idle_since = out.at - duration_cast<system_clock::duration>(now - *idle_since_);
  for (const Minute& counted : minutes_) {
    const TimePoint begun(minutes(counted.number));
    const auto wall = out.at - duration_cast<system_clock::duration>(now - begun);
    const int64_t minute = wall.time_since_epoch() / minutes(1);
    out.minutes.push_back({std::max<int64_t>(minute, 0), counted.calls});
  }
  minutes_ = {};
  load_.Rest(now);
  changed_ = false;
  return out;
}

void FunctionBook::Recall(const Learned& learned, const Clock& clock) {
  habit_ = learned.habit;
  costs_ = learned.costs;
  size_ = learned.size;
  warmth_.reset();
  recent_ = learned.calls_lately * Fading(Since(learned.at, clock));
  counted_ = clock.Now();
  if (!learned.idle_since || *learned.idle_since > clock.WallTime()) return;
  const Duration idle = Since(*learned.idle_since, clock);
  if (idle < IdleHistogram::kRange) idle_since_ = clock.Now() - idle;
}

void FunctionBook::Decided(int64_t unix_ms, std::string text) {
  if (!decisions_.empty() && decisions_.back().text == text) {
    decisions_.back().unix_ms = unix_ms;
    return;
  }
  if (decisions_.size() == kDecisions) decisions_.erase(decisions_.begin());
  decisions_.push_back({unix_ms, std::move(text)});
}

}  // namespace pulga
