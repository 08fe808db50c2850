#include "runtime/tasks/task_run.h"

#include <algorithm>
#include <utility>

namespace pulga {
namespace {

constexpr size_t kReadBytes = 16 * 1024;
constexpr int kGivenUpStatus = 499;  // as nginx has it: the client is gone

}  // namespace

void TaskRun::Start(const Invoke& invoke, InvocationRequest request, std::string body) {
  begun_ = clock_.Now();
  body_ = std::move(body);
  request.has_body = !body_.empty();
  request.content_length = body_.size();
  FunctionKey function = request.function;
  invocation_ = invoke(std::move(request), *this);
  const Outcome& outcome = invocation_->outcome();
  if (outcome.kind != OutcomeKind::kRejected || outcome.detail != kRejectUnknownFunction) {
    if (watch_.began) watch_.began(function);
    watched_ = std::move(function);
  }
  Send();
}

TaskRun::~TaskRun() { TellEnd(kGivenUpStatus); }

void TaskRun::TellEnd(int status) {
  const auto function = std::exchange(watched_, std::nullopt);
  if (function && watch_.ended) watch_.ended(*function, status, clock_.Now() - begun_);
}

void TaskRun::Send() {
  while (sent_ < body_.size()) {
    const size_t taken = invocation_->Write(std::string_view(body_).substr(sent_));
    if (taken == 0) return;
    sent_ += taken;
  }
  if (std::exchange(body_ended_, true)) return;
  body_ = {};
  sent_ = 0;
  invocation_->EndBody();
}

void TaskRun::OnHead() {
  head_seen_ = true;
  const int status = invocation_->head().status;
  if (status < 200 || status > 599) return Finish();
  if (const auto whole = invocation_->WholeBody()) {
    Take(*whole);
    return Finish();
  }
  OnReadable();
}

void TaskRun::OnReadable() {
  if (!head_seen_) return;
  char buffer[kReadBytes];
  while (true) {
    const ReadResult read = invocation_->Read(buffer, sizeof buffer);
    if (read.state == ReadState::kWait) return;
    if (read.state != ReadState::kData) return Finish();
    Take({buffer, read.size});
  }
}

void TaskRun::Take(std::string_view bytes) {
  if (!most_bytes_) return;
  too_large_ = too_large_ || answer_.size() + bytes.size() > *most_bytes_;
  if (too_large_) {
    answer_ = {};
  } else {
    answer_ += bytes;
  }
}

void TaskRun::Finish() {
  TaskRunEnd end;
  end.end.outcome = invocation_->outcome();
  end.end.begun = invocation_->receipt().start != StartKind::kNone;
  const ResponseHead& head = invocation_->head();
  end.end.retry_after = std::chrono::seconds(head.retry_after_s);
  if (too_large_ && end.end.outcome.kind == OutcomeKind::kOk) {
    end.end.outcome = {OutcomeKind::kOutputLimit, 0, {}};
    end.answer.body = "the answer is larger than what is kept of a task (task-message-bytes)\n";
  }
  end.end.status = OutcomeStatus(end.end.outcome);
  if (end.end.status == 0) {
    end.end.status = head.status >= 200 && head.status <= 599 ? head.status : 502;
    end.answer.headers = head.headers;
    end.answer.body = std::move(answer_);
  } else {
    end.answer.headers = {{"Content-Type", "text/plain; charset=utf-8"}};
    if (end.answer.body.empty()) end.answer.body = invocation_->FailureText();
  }
  TellEnd(end.end.status);
  end.seconds = std::chrono::duration<double>(clock_.Now() - begun_).count();
  const auto done = std::move(done_);
  done(std::move(end));
}

}  // namespace pulga
