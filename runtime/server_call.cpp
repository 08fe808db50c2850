#include "runtime/server_call.h"

#include <algorithm>
#include <chrono>

#include "runtime/instance.h"
#include "runtime/pool.h"

namespace pulga {

void ServerCall::Begin(Pool& target) {
  const uint64_t limit = version_->spec.limits.body_bytes;
  if (limit != 0 && request_.content_length.value_or(0) > limit) {
    return Reject(kRejectBodyLimit, 0);
  }
  body_ended_ = !request_.has_body;
  target.Submit(*this);
}

void ServerCall::BeginFunction(const Instance& granted, StartKind start) {
  StartTimeout(AfterCall::kTimedOut);
  function_begun_ = assigned_;
  const auto ms = [](TimePoint from, TimePoint to) {
    return std::chrono::duration<double, std::milli>(to - from).count();
  };
  receipt_.start = start;
  receipt_.queue_ms = ms(submitted, assigned_);
  if (start == StartKind::kFrozen || start == StartKind::kReclaimed) {
    const TimePoint thaw = std::max(submitted, assigned_ - granted.thaw);
    receipt_.queue_ms = ms(submitted, thaw);
    receipt_.sandbox_ms = ms(thaw, assigned_);
  }
  if (start != StartKind::kCold) return;
  const SlotTimes times = pool->Times(granted);
  if (times.exec == TimePoint()) return;
  const TimePoint begun = std::clamp(times.begun, submitted, assigned_);
  const TimePoint exec = std::clamp(times.exec, begun, assigned_);
  receipt_.queue_ms = ms(submitted, begun);
  receipt_.sandbox_ms = ms(begun, exec);
  receipt_.ready_ms = ms(exec, assigned_);
}

std::string_view ServerCall::Announced(std::string_view bytes) const {
  if (!request_.content_length) return bytes;
  const uint64_t left = *request_.content_length - body_bytes_;
  return bytes.substr(0, static_cast<size_t>(std::min<uint64_t>(bytes.size(), left)));
}

bool ServerCall::CheckBodyEnd() {
  if (!request_.content_length || body_bytes_ >= *request_.content_length) return true;
  facts.remark = "the request body ended early";
  Fail({OutcomeKind::kCancelled, 0, ""}, AfterCall::kCancelled);
  return false;
}

bool ServerCall::CountBody(size_t more) {
  body_bytes_ += more;
  const uint64_t limit = version_->spec.limits.body_bytes;
  if (limit == 0 || body_bytes_ <= limit) return true;
  Reject(kRejectBodyLimit, 0);
  return false;
}

bool ServerCall::CountOutput(uint64_t more) {
  output_bytes_ += more;
  const uint64_t limit = version_->spec.limits.output_bytes;
  if (limit == 0 || output_bytes_ <= limit) return true;
  Fail({OutcomeKind::kOutputLimit, 0, ""}, AfterCall::kCancelled);
  return false;
}

void ServerCall::OnBadResponse(const char* why) {
  facts.remark = why;
  Fail({OutcomeKind::kBadResponse, 0, ""}, AfterCall::kCancelled);
}

}  // namespace pulga
