// A dispatcher over FakeSandbox, and clients that call through it as the HTTP front does.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/dispatcher.h"
#include "tests/support/fake_sandbox.h"

namespace pulga::testing {

// One caller: sends a body with backpressure, reads the answer to its end.
class Client final : public InvocationObserver {
 public:
  enum class Reading { kAll, kPaused };
  Client() = default;
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void Start(Dispatcher& dispatcher, InvocationRequest request, std::string upload = "");
  void Send(std::string_view more) {
    body_ += more;
    Pump();
  }
  void EndBody() {
    end_body_ = true;
    Pump();
  }
  void Leave() { call.reset(); }
  void Resume() {
    reading = Reading::kAll;
    ReadMore();
  }

  bool done() const { return end_ != ReadState::kWait; }
  bool aborted() const { return end_ == ReadState::kAborted; }
  int status() const { return head_seen ? call->head().status : -1; }
  std::string outcome() const { return OutcomeName(call->outcome()); }
  std::string header(std::string_view name) const;

  std::unique_ptr<Invocation> call;
  Reading reading = Reading::kAll;
  bool head_seen = false;
  bool whole = false;  // WholeBody() had it
  std::string body;    // of the answer
  size_t sent = 0;
  bool inside_front_call = false;  // an observer call now would break the contract
  bool contract_broken = false;
  std::function<void()> on_head;

 private:
  void OnHead() override;
  void OnReadable() override;
  void OnWritable() override;
  void Pump();
  void ReadMore();

  std::string body_;
  bool end_body_ = false;
  bool ended_body_ = false;
  ReadState end_ = ReadState::kWait;
};

class CallTest : public ::testing::Test {
 protected:
  CallTest();
  ~CallTest() override;

  // A version of function "f" to change before Activate.
  std::shared_ptr<Version> MakeVersion(SandboxMode mode);
  // Activates, as a deploy does, and waits for it.
  Status Activate(std::shared_ptr<Version> version);
  // The same as a start of the daemon does it.
  void Restore(std::shared_ptr<Version> version);
  InvocationRequest Request(std::string method = "GET") const;
  InvocationRequest Post(std::optional<uint64_t> content_length) const;
  // Turns the loop until `done` or 5 s; false: it took longer.
  bool RunUntil(const std::function<bool()>& done);
  void RunFor(Duration time);
  // Call, read to the end.
  std::unique_ptr<Client> Call(InvocationRequest request, std::string body = "");
  std::unique_ptr<Client> Begin(InvocationRequest request, std::string body = "");
  std::string LogText() const;
  uint64_t Count(const std::string& outcome) const;
  size_t Instances() const { return dispatcher->Activity(key).instances.size(); }

  FunctionKey key{kDefaultOwner, kDefaultNamespace, "f"};
  SystemClock clock;
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<FakeSandbox> sandbox;
  FunctionLogs logs;
  DispatcherConfig config;
  std::unique_ptr<Dispatcher> dispatcher;
  void Restart();  // a new dispatcher with what `config` says now
  uint64_t next_id = 1;
};

}  // namespace pulga::testing
