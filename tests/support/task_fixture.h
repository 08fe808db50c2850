// The task queue at work, over a real database, a dispatcher of scripted calls and receivers that
// answer when the test says so.
#pragma once

#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/temp_dir.h"
#include "runtime/database.h"
#include "runtime/tasks/task_service.h"

namespace pulga::testing {

// Answers when the test says so.
class ScriptedCall final : public Invocation {
 public:
  ScriptedCall(InvocationRequest sent, InvocationObserver& observer, std::set<void*>& open)
      : request(std::move(sent)), observer_(observer), open_(open) {
    open_.insert(this);
    receipt_.start = StartKind::kWarm;
  }
  ~ScriptedCall() override { open_.erase(this); }
  size_t Write(std::string_view bytes) override {
    const size_t taken = std::min<size_t>(bytes.size(), 3);
    body += bytes.substr(0, taken);
    return taken;
  }
  void EndBody() override { body_ended = true; }
  const ResponseHead& head() const override { return head_; }
  ReadResult Read(char*, size_t) override { return {ReadState::kEnd, 0}; }
  std::optional<std::string_view> WholeBody() const override { return answer_; }
  const Outcome& outcome() const override { return outcome_; }
  const Receipt& receipt() const override { return receipt_; }
  std::string FailureText() const override { return "it failed\n"; }

  void Answer(int status, std::string text) {
    head_.status = status;
    head_.headers = {{"Content-Type", "text/x"}};
    answer_ = std::move(text);
    observer_.OnHead();  // may destroy this
  }
  void Fail(Outcome outcome) {
    outcome_ = std::move(outcome);
    observer_.OnHead();
  }
  // As a pool does that has no instance for it.
  void Refuse(Outcome outcome, uint32_t retry_after_s) {
    receipt_.start = StartKind::kNone;
    head_.retry_after_s = retry_after_s;
    Fail(std::move(outcome));
  }

  InvocationRequest request;
  std::string body;
  bool body_ended = false;

 private:
  InvocationObserver& observer_;
  std::set<void*>& open_;
  ResponseHead head_;
  std::string answer_;
  Outcome outcome_;
  Receipt receipt_;
};

// Whose wall clock may be set, as on a board that has none of its own.
class SettableClock final : public Clock {
 public:
  TimePoint Now() const override { return real_.Now(); }
  std::chrono::system_clock::time_point WallTime() const override {
    return real_.WallTime() + offset;
  }
  std::chrono::hours offset{0};

 private:
  SystemClock real_;
};

class TaskServiceTest : public ::testing::Test {
 protected:
  TaskServiceTest() {
    loop = std::move(EventLoop::Create()).value();
    Restart();
  }
  ~TaskServiceTest() override { service.reset(); }

  void Restart() {
    service.reset();
    calls.clear();
    posts.clear();
    TaskParts parts{*loop, clock, dir.path(), {}, {}, {}, {}, {}, {}, {}, {}};
    parts.callback_key = [this] { return callback_key; };
    parts.reserve_bytes = [this] { return reserve; };
    parts.version = [this](const FunctionKey& key) -> VersionPtr {
      return functions.count(key.name) != 0 ? functions[key.name] : nullptr;
    };
    parts.invoke = [this](InvocationRequest request, InvocationObserver& observer) {
      auto call = std::make_unique<ScriptedCall>(std::move(request), observer, open);
      calls.push_back(call.get());
      return call;
    };
    parts.room = [this] {
      BoardRoom now = room;
      if (counts_open_calls) now.open_calls += open.size();
      return now;
    };
    parts.waiting_calls = [this](const FunctionKey&) { return waiting_calls; };
    parts.networks = [this] { return networks; };
    parts.post = [this](const Url& url, const CallbackMessage& message, auto done) {
      posts.push_back({url.ToString(), message, std::move(done)});
      return std::make_unique<PendingPost>();
    };
    service = std::make_unique<TaskService>(std::move(parts), limits);
    service->Watch({[this](const FunctionKey& key) { watched.push_back(key.name); },
                    [this](const FunctionKey& key, int status, Duration) {
                      watched.push_back(key.name + " " + std::to_string(status));
                    }});
    ASSERT_TRUE(service->Load().ok());
    service->Resume();
  }
  static VersionPtr MakeVersion(std::map<std::string, std::string> annotations = {}) {
    auto version = std::make_shared<Version>();
    version->spec.limits.body_bytes = 1000;
    version->spec.annotations = std::move(annotations);
    return version;
  }
  template <typename F>
  bool Eventually(F f, int turns = 3000) {
    for (int i = 0; i < turns && !f(); ++i) loop->RunOnce(std::chrono::milliseconds(10));
    return f();
  }
  static TaskOrder MakeOrder(const std::string& id) {
    TaskOrder order;
    order.function.name = "f";
    order.id = id;
    order.request.path = "/rest";
    order.request.query = "a=1";
    order.request.headers = {{"X-Thing", "seven"}};
    return order;
  }
  Result<std::string> Submit(const std::string& id, const std::string& body = "body") {
    return Submit(MakeOrder(id), body);
  }
  Result<std::string> Submit(TaskOrder order, const std::string& body) {
    auto draft = service->NewTask(std::move(order));
    if (!draft.ok()) return draft.error();
    PULGA_RETURN_IF_ERROR((*draft)->Append(body));
    std::optional<Result<std::string>> told;
    (*draft)->Submit([&](Result<std::string> result) { told = std::move(result); });
    Eventually([&] { return told.has_value(); });
    return *told;
  }
  struct Sent {
    std::string url;
    CallbackMessage message;
    std::function<void(CallbackEnd)> done;
  };
  Result<std::string> SubmitWithCallback(const std::string& id,
                                         const std::string& url = "http://a.example/done") {
    TaskOrder order = MakeOrder(id);
    order.callback = CallbackOrder{url, "f.openfaas-fn"};
    return Submit(std::move(order), "body");
  }
  const Sent& PostAt(size_t n) {
    EXPECT_TRUE(Eventually([&] { return posts.size() > n; }));
    return posts.at(n);
  }
  void AnswerPost(size_t n, const Result<int>& status) {
    const auto done = PostAt(n).done;  // which may begin others
    done({status, true, {}});
  }
  void CouldNotPost(size_t n) {
    const auto done = PostAt(n).done;
    done({Error{Code::kUnavailable, 0, "the launcher is gone"}, false, {}});
  }
  const TaskCallback& CallbackOf(const std::string& id) {
    callback_ = service->Find(id)->callback;
    return callback_;
  }
  TaskCallback callback_;
  TaskState StateOf(const std::string& id) { return service->Find(id)->state; }
  // The n-th call there was, once it began.
  ScriptedCall& CallAt(size_t n) {
    EXPECT_TRUE(Eventually([&] { return calls.size() > n && calls[n]->body_ended; }));
    return *calls[n];
  }
  Result<TaskAnswer> AnswerOf(const std::string& id) {
    std::optional<Result<TaskAnswer>> told;
    service->AnswerOf(id, [&](Result<TaskAnswer> answer) { told = std::move(answer); });
    Eventually([&] { return told.has_value(); });
    return *told;
  }
  Status Cancel(const std::string& id) {
    std::optional<Status> told;
    service->Cancel(id, [&](const Status& status) { told = status; });
    Eventually([&] { return told.has_value(); });
    return *told;
  }

  // As a full disk would; with "" they succeed again.
  void RefuseWrites(const std::string& what = "BEFORE UPDATE") {
    auto database = std::move(Database::Open(dir.path() + "/tasks.db")).value();
    ASSERT_TRUE(database->Execute("DROP TRIGGER IF EXISTS refuse").ok());
    if (what.empty()) return;
    const std::string refuse =
        "CREATE TRIGGER refuse " + what + " ON tasks BEGIN SELECT RAISE(ABORT, 'full'); END";
    ASSERT_TRUE(database->Execute(refuse).ok());
  }

  TempDir dir = std::move(TempDir::Create("/tmp/pulga-tasks-")).value();
  SettableClock clock;
  std::unique_ptr<EventLoop> loop;
  std::map<std::string, VersionPtr> functions{{"f", MakeVersion()}};
  BoardRoom room{4, PressureLevel::kCalm, 0, false};
  bool counts_open_calls = false;  // the tasks' own, as the dispatcher does
  uint32_t waiting_calls = 0;
  uint64_t reserve = 0;
  TaskLimits limits = [] {
    TaskLimits quick;
    quick.write_again = std::chrono::milliseconds(10);
    return quick;
  }();
  std::set<void*> open;
  std::vector<ScriptedCall*> calls;
  std::vector<Sent> posts;
  std::vector<NetworkPrefix> networks;
  std::string callback_key;
  std::vector<std::string> watched;  // began, ended with a status
  std::unique_ptr<TaskService> service;
};

}  // namespace pulga::testing
