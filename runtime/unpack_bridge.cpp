#include "runtime/unpack_bridge.h"

#include <utility>

namespace pulga {
namespace {

Error Stopping() { return Error{Code::kUnavailable, 0, "the daemon is stopping"}; }

}  // namespace

Status UnpackBridge::Run(UnpackJob job) {
  auto answer = std::make_shared<Answer>();
  auto shared_job = std::make_shared<UnpackJob>(std::move(job));  // std::function copies
  loop_.Post([this, answer, shared_job] {
    if (stopped_) {
      answer->Set(Stopping());
      return;
    }
    current_ = answer;
    sandbox_.RunUnpack(std::move(*shared_job), [answer](Status done) { answer->Set(done); });
  });
  return answer->Wait();
}

void UnpackBridge::Stop() {
  stopped_ = true;
  if (const auto answer = current_.lock()) answer->Set(Stopping());
}

}  // namespace pulga
