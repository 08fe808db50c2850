// A real ApiFront over a FakeEngine on a loopback port, its loop on a thread of its own, and a raw
// client. Nothing of the test's thread touches loop state but through OnLoop.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>

#include <chrono>
#include <future>
#include <string>
#include <thread>

#include "api/front.h"
#include "base/text.h"
#include "tests/support/fake_engine.h"

namespace pulga::testing {

class RawClient {
 public:
  explicit RawClient(uint16_t port, const char* from = "127.0.0.1")
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in own = {};
    own.sin_family = AF_INET;
    EXPECT_EQ(inet_pton(AF_INET, from, &own.sin_addr), 1);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&own), sizeof own), 0);
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  }
  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
  // Until the peer closes, or `limit` passes without a byte.
  std::string ReadAll(std::chrono::milliseconds limit = std::chrono::milliseconds(3000)) {
    std::string out;
    while (ReadMore(&out, limit)) {
    }
    return out;
  }
  // Until `wanted` has come.
  std::string ReadUntil(std::string_view wanted) {
    std::string out;
    while (out.find(wanted) == std::string::npos &&
           ReadMore(&out, std::chrono::milliseconds(3000))) {
    }
    return out;
  }
  // True when the peer has closed within `limit`.
  bool ClosedWithin(std::chrono::milliseconds limit) {
    std::string rest;
    const auto until = std::chrono::steady_clock::now() + limit;
    while (std::chrono::steady_clock::now() < until) {
      if (!ReadMore(&rest, std::chrono::milliseconds(20)) && closed_) return true;
    }
    return false;
  }
  void Close() { fd_.Reset(); }
  int fd() const { return fd_.get(); }

 private:
  bool ReadMore(std::string* out, std::chrono::milliseconds limit) {
    pollfd ready = {fd_.get(), POLLIN, 0};
    if (poll(&ready, 1, static_cast<int>(limit.count())) <= 0) return false;
    char buffer[16384];
    const ssize_t n = recv(fd_.get(), buffer, sizeof buffer, 0);
    closed_ = n <= 0;
    if (n <= 0) return false;
    out->append(buffer, static_cast<size_t>(n));
    return true;
  }
  UniqueFd fd_;
  bool closed_ = false;
};

class Loopback : public ::testing::Test {
 protected:
  void Start(DaemonConfig config = {}) {
    signal(SIGPIPE, SIG_IGN);
    loop_ = std::move(EventLoop::Create()).value();
    engine_ = std::make_unique<FakeEngine>(*loop_);
    engine_->images["hello"] = SampleImage("hello:1");
    config.listen = {"127.0.0.1:0"};
    auto front = ApiFront::Create(*loop_, *engine_, config);
    ASSERT_TRUE(front.ok()) << front.error().message;
    front_ = std::move(*front);
    const std::string bound = static_cast<ApiFront&>(*front_).bound()[0];
    port_ = static_cast<uint16_t>(*ParseUint(bound.substr(bound.rfind(':') + 1)));
    thread_ = std::thread([this] { loop_->Run(); });
  }
  template <typename F>
  auto OnLoop(F f) {
    std::promise<decltype(f())> answer;
    loop_->Post([&] { answer.set_value(f()); });
    return answer.get_future().get();
  }
  void TearDown() override {
    if (!thread_.joinable()) return;
    OnLoop([this] {
      front_.reset();
      loop_->Stop();
      return 0;
    });
    thread_.join();
  }
  // Polls `f` on the loop until it is true or a second has passed.
  template <typename F>
  bool Eventually(F f) {
    for (int i = 0; i < 300; ++i) {
      if (OnLoop(f)) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  RawClient Connect() { return RawClient(port_); }
  // One exchange on a connection of its own.
  std::string Ask(const std::string& head, const std::string& body = "") {
    RawClient client = Connect();
    client.Send(head + "Connection: close\r\n\r\n" + body);
    return client.ReadAll();
  }
  // With Host and the admin key.
  std::string Admin(const std::string& request_line, const std::string& body = "") {
    return Ask(request_line +
                   " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sesame\r\nContent-Length: " +
                   std::to_string(body.size()) + "\r\n",
               body);
  }
  std::string Call(const std::string& request_line, const std::string& body = "") {
    return Ask(request_line + " HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                   std::to_string(body.size()) + "\r\n",
               body);
  }
  std::shared_ptr<CallRecord> LastCall() {
    return OnLoop([this] { return engine_->calls.empty() ? nullptr : engine_->calls.back(); });
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<FakeEngine> engine_;
  std::unique_ptr<Front> front_;
  uint16_t port_ = 0;
  std::thread thread_;
};

inline int StatusOf(const std::string& reply) {
  return reply.size() < 12 ? 0 : static_cast<int>(ParseUint(reply.substr(9, 3)).value_or(0));
}
inline std::string BodyOf(const std::string& reply) {
  const size_t end = reply.find("\r\n\r\n");
  return end == std::string::npos ? "" : reply.substr(end + 4);
}

}  // namespace pulga::testing
