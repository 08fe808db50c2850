// ReadyCheck: asks a server that listens for a path, again and again, until its answer is what the
// probe wants. The first time on the connection that found it listening: a server that serves one
// at a time waits for what comes on that. Then on new ones; each is given up after a second without
// an answer. Ends by itself only with `ready`, which may destroy it. Loop thread; `upstream` must
// outlive it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/openfaas_readiness.h"
#include "runtime/upstream.h"

namespace pulga {

class ReadyCheck final : public UpstreamUser {
 public:
  ReadyCheck(EventLoop& loop, Notifier& notifier, Upstream& upstream, ReadyProbe probe,
             std::function<void()> ready);
  ~ReadyCheck() override;
  ReadyCheck(const ReadyCheck&) = delete;
  ReadyCheck& operator=(const ReadyCheck&) = delete;

 private:
  // UpstreamUser
  void OnConnection(std::unique_ptr<UpstreamConnection> connection) override;
  void OnUpstream(uint32_t events) override;

  void Ask();
  void Exchange();
  void OnTimer(Duration delay, void (ReadyCheck::*what)());
  void AskAgain();
  void OnNoAnswer();
  void OnStatus();
  void IsReady();

  EventLoop& loop_;
  Notifier& notifier_;
  Upstream& upstream_;
  ReadyProbe probe_;
  std::function<void()> ready_;
  std::unique_ptr<UpstreamConnection> connection_;
  std::string unsent_;
  std::string answer_;  // as far as its status needs
  TimePoint begun_;
  EventLoop::TimerId timer_ = 0;
};

}  // namespace pulga
