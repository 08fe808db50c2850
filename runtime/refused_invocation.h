// RefusedInvocation: a call that ended before it began, with an outcome and a text for the client.
// Loop thread. The observer hears of it on the loop's next turn, as the interface promises.
#pragma once

#include <memory>
#include <string>

#include "base/event_loop.h"
#include "runtime/invocation.h"

namespace pulga {

class RefusedInvocation final : public Invocation {
 public:
  RefusedInvocation(EventLoop& loop, InvocationObserver& observer, Outcome outcome,
                    std::string text);

  size_t Write(std::string_view bytes) override { return bytes.size(); }
  void EndBody() override {}
  const ResponseHead& head() const override { return head_; }
  ReadResult Read(char* buffer, size_t capacity) override;
  const Outcome& outcome() const override { return outcome_; }
  const Receipt& receipt() const override { return receipt_; }
  std::string FailureText() const override { return text_; }

 private:
  ResponseHead head_;
  Outcome outcome_;
  Receipt receipt_;
  std::string text_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace pulga
