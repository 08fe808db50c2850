#include "tests/support/call_fixture.h"

#include <utility>

#include "base/check.h"

namespace pulga::testing {

void Client::Start(Dispatcher& dispatcher, InvocationRequest request, std::string upload) {
  body_ = std::move(upload);
  const bool ends = request.has_body && (!body_.empty() || request.content_length);
  inside_front_call = true;
  call = dispatcher.Invoke(std::move(request), *this);
  inside_front_call = false;
  if (ends) end_body_ = true;
  Pump();
}

void Client::Pump() {
  if (call == nullptr) return;
  inside_front_call = true;
  while (sent < body_.size()) {
    const size_t n = call->Write(std::string_view(body_).substr(sent));
    sent += n;
    if (n == 0) break;
  }
  if (end_body_ && sent == body_.size() && !std::exchange(ended_body_, true)) call->EndBody();
  inside_front_call = false;
}

void Client::OnHead() {
  contract_broken |= inside_front_call || head_seen;
  head_seen = true;
  if (on_head) on_head();
  if (call == nullptr) return;
  whole = call->WholeBody().has_value();
  if (reading == Reading::kAll) ReadMore();
}

void Client::OnReadable() {
  contract_broken |= inside_front_call || !head_seen;
  if (reading == Reading::kAll) ReadMore();
}

void Client::OnWritable() {
  contract_broken |= inside_front_call;
  Pump();
}

void Client::ReadMore() {
  char buffer[7000];  // divides nothing
  inside_front_call = true;
  while (call != nullptr && !done()) {
    const ReadResult got = call->Read(buffer, sizeof buffer);
    if (got.state == ReadState::kData) {
      body.append(buffer, got.size);
    } else {
      end_ = got.state;
      if (got.state == ReadState::kWait) break;
    }
  }
  inside_front_call = false;
}

std::string Client::header(std::string_view name) const {
  for (const auto& [known, value] : call->head().headers) {
    if (known == name) return value;
  }
  return "(none)";
}

CallTest::CallTest() {
  auto made = EventLoop::Create();
  PULGA_CHECK(made.ok());
  loop = std::move(made).value();
  sandbox = std::make_unique<FakeSandbox>(*loop);
  config.memory_budget_bytes = 4ULL << 30;
  Restart();
}

CallTest::~CallTest() {
  dispatcher.reset();
  RunFor(Duration::zero());  // what was put off until the loop's next turn
  sandbox.reset();
}

void CallTest::Restart() {
  dispatcher.reset();
  dispatcher = Dispatcher::Create(config, *loop, clock, *sandbox, logs);
}

std::shared_ptr<Version> CallTest::MakeVersion(SandboxMode mode) {
  auto version = std::make_shared<Version>();
  version->key = key;
  version->id = next_id;
  version->number = static_cast<uint32_t>(next_id++);
  version->mode = mode;
  version->argv = {"/bin/f"};
  version->port = sandbox->port();
  version->concurrency = mode == SandboxMode::kExec ? 1 : 100;
  if (IsServer(mode)) {
    version->spec.limits.body_bytes = 0;
    version->spec.limits.output_bytes = 0;
  } else {
    version->spec.limits.body_bytes = 6 << 20;
    version->spec.limits.output_bytes = 6 << 20;
  }
  return version;
}

Status CallTest::Activate(std::shared_ptr<Version> version) {
  std::optional<Status> result;
  dispatcher->Activate(std::move(version), [&](Status status) { result = std::move(status); });
  PULGA_CHECK(RunUntil([&] { return result.has_value(); }));
  return *result;
}

void CallTest::Restore(std::shared_ptr<Version> version) {
  bool restored = false;
  dispatcher->Restore(std::move(version), [&] { restored = true; });
  PULGA_CHECK(RunUntil([&] { return restored; }));
}

InvocationRequest CallTest::Request(std::string method) const {
  InvocationRequest request;
  request.function = key;
  request.call_id = "call-1";
  request.method = std::move(method);
  request.client = "192.0.2.1:5";
  return request;
}

InvocationRequest CallTest::Post(std::optional<uint64_t> content_length) const {
  InvocationRequest request = Request("POST");
  request.has_body = true;
  request.content_length = content_length;
  return request;
}

bool CallTest::RunUntil(const std::function<bool()>& done) {
  const TimePoint deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    loop->RunOnce(std::chrono::milliseconds(20));
  }
  return true;
}

void CallTest::RunFor(Duration time) {
  const TimePoint deadline = std::chrono::steady_clock::now() + time;
  do {
    loop->RunOnce(std::chrono::milliseconds(1));
  } while (std::chrono::steady_clock::now() < deadline);
}

std::unique_ptr<Client> CallTest::Begin(InvocationRequest request, std::string body) {
  auto client = std::make_unique<Client>();
  client->Start(*dispatcher, std::move(request), std::move(body));
  return client;
}

std::unique_ptr<Client> CallTest::Call(InvocationRequest request, std::string body) {
  auto client = Begin(std::move(request), std::move(body));
  EXPECT_TRUE(RunUntil([&] { return client->done(); })) << "the call does not end";
  EXPECT_FALSE(client->contract_broken) << "an observer was called from inside a front call";
  return client;
}

std::string CallTest::LogText() const {
  std::string text;
  for (const LogLine& line : logs.Tail(key, 1000)) text += line.stream + ": " + line.text + "\n";
  return text;
}

uint64_t CallTest::Count(const std::string& outcome) const {
  const FunctionActivity activity = dispatcher->Activity(key);
  const auto it = activity.outcomes.find(outcome);
  return it == activity.outcomes.end() ? 0 : it->second;
}

}  // namespace pulga::testing
