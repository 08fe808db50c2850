#include "runtime/notifier.h"

#include <algorithm>

namespace pulga {

void Notifier::Notify(Target& target, Kind kind) {
  if (target.pending_notices == 0) queue_.push_back(&target);
  target.pending_notices |= kind;
  if (turns_ == 0 && front_calls_ == 0) FlushLater();
}

void Notifier::Forget(Target& target) {
  if (current_ == &target) current_ = nullptr;
  if (!queue_.empty()) std::erase(queue_, &target);
  target.pending_notices = 0;
}

void Notifier::EndTurn() {
  if (queue_.empty() || flushing_) return;
  if (front_calls_ == 0) {
    Flush();
  } else {
    FlushLater();
  }
}

void Notifier::FlushLater() {
  if (queue_.empty() || flushing_ || turns_ > 0 || timer_ != 0) return;
  timer_ = loop_.CallAt(loop_.Now(), [this] {
    timer_ = 0;
    Flush();
  });
}

void Notifier::Flush() {
  flushing_ = true;
  while (!queue_.empty()) {
    current_ = queue_.front();
    queue_.pop_front();
    while (current_ != nullptr && current_->pending_notices != 0) {
      const uint8_t notices = current_->pending_notices;
      const auto kind = static_cast<Kind>(notices & -notices);
      current_->pending_notices = static_cast<uint8_t>(notices & ~kind);
      current_->Deliver(kind);
    }
    current_ = nullptr;
  }
  flushing_ = false;
}

}  // namespace pulga
