// The resolver as a function at 127.0.0.1 sees it, with no resolver behind it.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "net/dns_stub.h"
#include "tests/support/dns_bytes.h"

namespace pulga {
namespace {

UniqueFd Bound(int type) {
  UniqueFd fd(socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in name = {};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  if (type == SOCK_STREAM) {
    EXPECT_EQ(listen(fd.get(), 64), 0);
  }
  return fd;
}

UniqueFd ConnectedTo(int fd, int type) {
  sockaddr_in name = {};
  socklen_t size = sizeof name;
  getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size);
  UniqueFd out(socket(AF_INET, type | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(out.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  return out;
}

using dns_bytes::QueryFor;

class Stub : public testing::Test {
 protected:
  Stub() : loop_(std::move(EventLoop::Create()).value()) {
    policy_.SetUp({{0x0A530000}, 16}, {8080});
    DnsStubOptions options;
    options.router = {0x0A530001};
    options.resolv_conf = "/nonexistent/resolv.conf";
    options.idle_timeout = std::chrono::milliseconds(50);
    options.refused = [this](Ipv4) { ++refused_; };
    stub_ = std::make_unique<DnsStub>(
        *loop_, policy_, options,
        [](const DnsStub::PinRequest&, const std::function<void(bool)>& done) { done(true); });
    UniqueFd udp = Bound(SOCK_DGRAM);
    UniqueFd tcp = Bound(SOCK_STREAM);
    client_ = ConnectedTo(udp.get(), SOCK_DGRAM);
    tcp_ = tcp.get();
    tcp_client_ = ConnectedTo(tcp_, SOCK_STREAM);
    EXPECT_TRUE(stub_->Serve(std::move(udp), std::move(tcp)).ok());
  }
  // The header's last four bits, or -1 when nothing came.
  int Ask(const std::string& message, size_t* answers = nullptr) {
    EXPECT_EQ(send(client_.get(), message.data(), message.size(), 0),
              static_cast<ssize_t>(message.size()));
    char reply[512];
    for (int turn = 0; turn < 20; ++turn) {
      loop_->RunOnce(std::chrono::milliseconds(10));
      const ssize_t n = recv(client_.get(), reply, sizeof reply, MSG_DONTWAIT);
      if (n < 12) continue;
      if (answers != nullptr) *answers = static_cast<uint8_t>(reply[7]);
      return reply[3] & 15;
    }
    return -1;
  }

  const Ipv4 kFunction{INADDR_LOOPBACK};
  std::unique_ptr<EventLoop> loop_;
  EgressPolicy policy_;
  std::unique_ptr<DnsStub> stub_;
  UniqueFd client_;
  bool IsClosed(const UniqueFd& client) {
    char byte;
    return recv(client.get(), &byte, 1, MSG_DONTWAIT) == 0;
  }

  int tcp_ = -1;
  UniqueFd tcp_client_;
  int refused_ = 0;
};

TEST_F(Stub, StrangersGetNoAnswer) { EXPECT_EQ(Ask(QueryFor("gateway", 1)), -1); }

TEST_F(Stub, FailsAtOnceWithoutAResolver) {
  policy_.Admit({kFunction, 1}, {});
  EXPECT_EQ(Ask(QueryFor("other.example", 1)), 2);
}

TEST_F(Stub, KnowsItsOwnNames) {
  policy_.Admit({kFunction, 1}, {});
  size_t answers = 0;
  EXPECT_EQ(Ask(QueryFor("gateway", 1), &answers), 0);
  EXPECT_EQ(answers, 1U);
  EXPECT_EQ(Ask(QueryFor("pulga", 28), &answers), 0);
  EXPECT_EQ(answers, 0U);
}

TEST_F(Stub, KnowsFunctionsByTheirNames) {
  AllowEntry entry;
  entry.name = "other.example";
  for (const std::vector<AllowEntry>& allow : {std::vector<AllowEntry>(), {entry}}) {
    policy_.Admit({kFunction, 1}, allow);
    for (const char* name : {"hello", "hello.openfaas-fn", "hello.dev.svc.cluster.local"}) {
      size_t answers = 0;
      EXPECT_EQ(Ask(QueryFor(name, 1), &answers), 0) << name;
      EXPECT_EQ(answers, 1U) << name;
      EXPECT_EQ(Ask(QueryFor(name, 28), &answers), 0) << name;
      EXPECT_EQ(answers, 0U) << name;
    }
  }
}

TEST_F(Stub, LeavesANameToWhomTheListMeans) {
  AllowEntry entry;
  entry.name = "printer";
  policy_.Admit({kFunction, 1}, {entry});
  EXPECT_EQ(Ask(QueryFor("printer", 1)), 2) << "there is no resolver to ask";
}

TEST_F(Stub, TheGatewayIsTheRouterWhateverTheListNames) {
  AllowEntry entry;
  entry.name = "gateway";
  policy_.Admit({kFunction, 1}, {entry});
  EXPECT_EQ(Ask(QueryFor("gateway", 1)), 0);
}

TEST_F(Stub, HasNoIPv6AddressForAnybody) {
  policy_.Admit({kFunction, 1}, {});
  size_t answers = 9;
  EXPECT_EQ(Ask(QueryFor("other.example", 28), &answers), 0);
  EXPECT_EQ(answers, 0U);
}

TEST_F(Stub, RefusesNamesThatAreNotOnTheList) {
  AllowEntry entry;
  entry.name = "listed";
  policy_.Admit({kFunction, 1}, {entry});
  EXPECT_EQ(Ask(QueryFor("other.example", 1)), 5);
  EXPECT_EQ(Ask(QueryFor("listed", 1)), 2);
}

TEST_F(Stub, TellsWhenItDoesNotUnderstand) {
  policy_.Admit({kFunction, 1}, {});
  EXPECT_EQ(Ask(QueryFor("other.example", 1).substr(0, 15)), 1);
}

TEST_F(Stub, AnswersByTcpToo) {
  policy_.Admit({kFunction, 1}, {});
  const std::string query = QueryFor("gateway", 1);
  const std::string framed = std::string(1, '\0') + static_cast<char>(query.size()) + query;
  EXPECT_EQ(send(tcp_client_.get(), framed.data(), framed.size(), 0),
            static_cast<ssize_t>(framed.size()));
  char reply[512];
  ssize_t n = -1;
  for (int turn = 0; turn < 20 && n <= 0; ++turn) {
    loop_->RunOnce(std::chrono::milliseconds(10));
    n = recv(tcp_client_.get(), reply, sizeof reply, MSG_DONTWAIT);
  }
  ASSERT_GT(n, 14);
  EXPECT_EQ(reply[1], n - 2);
  EXPECT_EQ(reply[5] & 15, 0);
}

TEST_F(Stub, OneFunctionHoldsItsShareOfConnectionsOnly) {
  policy_.Admit({kFunction, 1}, {});
  std::vector<UniqueFd> clients;  // with the fixture's, twice the share
  for (int i = 0; i < 15; ++i) clients.push_back(ConnectedTo(tcp_, SOCK_STREAM));
  loop_->RunOnce(std::chrono::milliseconds(10));
  EXPECT_EQ(refused_, 8);
  EXPECT_FALSE(IsClosed(clients[6]));
  EXPECT_TRUE(IsClosed(clients[7]));
}

TEST_F(Stub, AConnectionThatAsksNothingMakesRoomForAnother) {
  policy_.Admit({kFunction, 1}, {});
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 7; ++i) clients.push_back(ConnectedTo(tcp_, SOCK_STREAM));
  loop_->RunOnce(std::chrono::milliseconds(10));
  // Part of a question is none.
  EXPECT_EQ(send(tcp_client_.get(), "\0", 1, 0), 1);
  for (int turn = 0; turn < 500 && !IsClosed(tcp_client_); ++turn) {
    loop_->RunOnce(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(IsClosed(tcp_client_));
  for (int turn = 0; turn < 500 && !IsClosed(clients[6]); ++turn) {
    loop_->RunOnce(std::chrono::milliseconds(10));
  }
  const UniqueFd next = ConnectedTo(tcp_, SOCK_STREAM);
  loop_->RunOnce(std::chrono::milliseconds(10));
  EXPECT_FALSE(IsClosed(next));
  EXPECT_EQ(refused_, 0);
}

TEST_F(Stub, TheConnectionsOfAFunctionThatLeavesAreClosed) {
  policy_.Admit({kFunction, 1}, {});
  loop_->RunOnce(std::chrono::milliseconds(10));
  EXPECT_FALSE(IsClosed(tcp_client_));
  stub_->Drop(kFunction);
  EXPECT_TRUE(IsClosed(tcp_client_));
}

}  // namespace
}  // namespace pulga
