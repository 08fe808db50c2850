#include <gtest/gtest.h>

#include "net/address_plan.h"
#include "net/egress_policy.h"
#include "net/nft_rules.h"
#include "net/resolv_conf.h"
#include "net/router_wire.h"
#include "net/udp_packet.h"

namespace pulga {
namespace {

Ipv4 Address(const char* text) { return ParseIpv4(text).value(); }

AllowEntry Range(const char* range, uint16_t first = 0, uint16_t last = 0,
                 IpProtocol protocol = IpProtocol::kTcp) {
  return {"", ParseIpv4Range(range).value(), protocol, first, last};
}

AllowEntry Name(const char* name, uint16_t port = 0) {
  return {name, {}, IpProtocol::kTcp, port, port};
}

TEST(Ipv4Text, ReadsFourPlainNumbersOnly) {
  EXPECT_EQ(FormatIpv4(Address("203.0.113.5")), "203.0.113.5");
  for (const char* bad : {"", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "1.2..4",
                          "0x1.2.3.4", "1.2.3.+4"}) {
    EXPECT_FALSE(ParseIpv4(bad)) << bad;
  }
}

TEST(Ipv4Text, ARangeHasNoBitsBehindItsMask) {
  EXPECT_EQ(FormatIpv4Range(ParseIpv4Range("10.0.0.0/8").value()), "10.0.0.0/8");
  EXPECT_EQ(ParseIpv4Range("1.2.3.4").value().bits, 32);
  for (const char* bad : {"10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "/8"}) {
    EXPECT_FALSE(ParseIpv4Range(bad)) << bad;
  }
}

TEST(Ipv4Kinds, WhatIsNotOutThereIsNotPublic) {
  for (const char* inside :
       {"0.0.0.0", "10.255.255.255", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.255.1",
        "192.168.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.0.9"}) {
    EXPECT_FALSE(IsPublic(Address(inside))) << inside;
  }
  for (const char* outside :
       {"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255",
        "172.32.0.0", "192.167.255.255", "192.169.0.0", "223.255.255.255"}) {
    EXPECT_TRUE(IsPublic(Address(outside))) << outside;
  }
}

TEST(Ipv4Kinds, ARangeIsNeverReachableWhenAllOfItIs) {
  for (const char* never : {"127.0.0.1", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255"}) {
    EXPECT_TRUE(IsNeverReachable(ParseIpv4Range(never).value())) << never;
  }
  for (const char* some : {"0.0.0.0/0", "126.0.0.0/7", "10.0.0.0/8"}) {
    EXPECT_FALSE(IsNeverReachable(ParseIpv4Range(some).value())) << some;
  }
}

TEST(AddressPlan, TakesPrivateRangesOfASaneSize) {
  for (const char* good : {"10.83.0.0/16", "172.16.0.0/12", "192.168.9.0/24"}) {
    EXPECT_TRUE(CheckNetworkRange(ParseIpv4Range(good).value()).ok()) << good;
  }
  for (const char* bad : {"10.0.0.0/8", "10.83.0.0/25", "203.0.113.0/24", "172.16.0.0/11"}) {
    const auto range = ParseIpv4Range(bad);
    EXPECT_FALSE(range && CheckNetworkRange(*range).ok()) << bad;
  }
}

TEST(AddressPlan, AnAddressComesBackToUseLast) {
  PortPool pool(ParseIpv4Range("192.168.9.0/24").value());
  const NetworkPort first = pool.Take().value();
  EXPECT_EQ(FormatIpv4(first.address), "192.168.9.16");
  EXPECT_EQ(FormatMac(first.mac), "02:50:c0:a8:09:10");
  pool.Give(first.index);
  size_t taken = 0;
  uint32_t last = ~0U;
  while (const auto port = pool.Take()) {
    last = port->index;
    ++taken;
    EXPECT_LT(port->address, Address("192.168.9.255"));
  }
  EXPECT_EQ(taken, 239U);
  EXPECT_EQ(last, first.index);
}

TEST(NftRules, NothingIsForwardedAndEveryHookDropsByDefault) {
  const std::string rules = BaseRules({ParseIpv4Range("10.83.0.0/16").value(), {8080}});
  EXPECT_NE(rules.find("hook forward priority 0; policy drop;"), std::string::npos);
  EXPECT_EQ(rules.find("policy accept"), std::string::npos);
  EXPECT_NE(rules.find("ip daddr 10.83.0.1 udp dport 53 accept"), std::string::npos);
  for (const char* word : {"ROUTER", "RANGE", "RELAY", "GATEWAY", "MARK", "MANAGEMENT"}) {
    EXPECT_EQ(rules.find(word), std::string::npos) << word;
  }
}

TEST(NftRules, EveryManagementPortIsRefusedBeforeAnyList) {
  const Ipv4Range range = ParseIpv4Range("10.83.0.0/16").value();
  const std::string rules = BaseRules({range, {8080, 9443}});
  const size_t refused = rules.find("ip daddr @host tcp dport { 8080, 9443 } goto refuse\n");
  ASSERT_NE(refused, std::string::npos) << rules;
  EXPECT_LT(refused, rules.find("vmap @functions"));
  EXPECT_EQ(BaseRules({range, {}}).find("tcp dport {  }"), std::string::npos);
}

TEST(NftRules, AnEmptyListIsThePublicInternetAndAnyOtherEndsInRefusal) {
  const NetworkPort port = PortOf(ParseIpv4Range("10.83.0.0/16").value(), 4);
  EXPECT_NE(AttachRules(port, {}).find("port4 goto public\n"), std::string::npos);
  const std::string rules =
      AttachRules(port, {Range("192.168.1.0/24", 80, 81), Name("a.example", 443)});
  EXPECT_EQ(rules.find("goto public"), std::string::npos);
  const size_t listed =
      rules.find("port4 ip daddr 192.168.1.0/24 meta l4proto tcp th dport 80-81 goto relay\n");
  const size_t named =
      rules.find("port4 ip daddr @pins4_1 meta l4proto tcp th dport 443-443 goto relay\n");
  const size_t refused = rules.find("port4 goto refuse\n");
  EXPECT_LT(listed, named);
  EXPECT_LT(named, refused);
  EXPECT_NE(refused, std::string::npos);
}

TEST(NftRules, DetachingNamesAllThatAttachingMade) {
  const NetworkPort port = PortOf(ParseIpv4Range("10.83.0.0/16").value(), 4);
  const std::string gone = DetachRules(port, {Range("1.2.3.4"), Name("a.example")});
  for (const char* part :
       {"delete element bridge pulga ports { \"p4\" . 02:50:0a:53:00:14 . 10.83.0.20 }",
        "delete element inet pulga functions { 10.83.0.20 : goto port4 }",
        "delete chain inet pulga port4", "delete set inet pulga pins4_1"}) {
    EXPECT_NE(gone.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(gone.find("pins4_0"), std::string::npos);
}

class Policy : public testing::Test {
 protected:
  Policy() { policy_.SetUp(ParseIpv4Range("10.83.0.0/16").value(), {8080, 9443}); }
  bool May(const char* to, uint16_t port, RouteKind route = RouteKind::kFar,
           IpProtocol protocol = IpProtocol::kTcp) const {
    return policy_.MayConnect(kFunction, {protocol, Address(to), port}, route, now_);
  }
  TimePoint Soon() const { return now_ + std::chrono::seconds(60); }
  const Ipv4 kFunction = Address("10.83.0.16");
  EgressPolicy policy_;
  TimePoint now_{std::chrono::hours(1)};
};

TEST_F(Policy, StrangersReachNothing) { EXPECT_FALSE(May("203.0.113.5", 80)); }

TEST_F(Policy, WithoutAListOnlyWhatIsFarAndPublic) {
  policy_.Admit({kFunction, 1}, {});
  EXPECT_TRUE(May("203.0.113.5", 80));
  EXPECT_TRUE(May("203.0.113.5", 53, RouteKind::kFar, IpProtocol::kUdp));
  EXPECT_FALSE(May("203.0.113.5", 80, RouteKind::kHost));
  EXPECT_FALSE(May("203.0.113.5", 80, RouteKind::kNeighbour));
  EXPECT_FALSE(May("203.0.113.5", 80, RouteKind::kNone));
  EXPECT_FALSE(May("192.168.1.1", 80));
  EXPECT_FALSE(May("169.254.169.254", 80));
}

TEST_F(Policy, AListOpensWhatItNamesAndNothingElse) {
  policy_.Admit({kFunction, 1}, {Range("192.168.1.0/24", 80, 81)});
  EXPECT_TRUE(May("192.168.1.9", 81, RouteKind::kNeighbour));
  EXPECT_TRUE(May("192.168.1.9", 80, RouteKind::kHost));
  EXPECT_FALSE(May("192.168.1.9", 82));
  EXPECT_FALSE(May("192.168.2.9", 80));
  EXPECT_FALSE(May("192.168.1.9", 80, RouteKind::kNeighbour, IpProtocol::kUdp));
  EXPECT_FALSE(May("203.0.113.5", 80));
}

TEST_F(Policy, NoListOpensOtherFunctionsOrAManagementPort) {
  policy_.Admit({kFunction, 1}, {Range("0.0.0.0/0")});
  EXPECT_FALSE(May("10.83.0.17", 80));
  EXPECT_FALSE(May("127.0.0.1", 80, RouteKind::kHost));
  EXPECT_FALSE(May("192.168.1.2", 8080, RouteKind::kHost));
  EXPECT_FALSE(May("192.168.1.2", 9443, RouteKind::kHost));
  EXPECT_TRUE(May("192.168.1.2", 8081, RouteKind::kHost));
  EXPECT_TRUE(May("192.168.1.3", 8080, RouteKind::kNeighbour));
}

TEST_F(Policy, ANameOpensItsAddressForAWhile) {
  policy_.Admit({kFunction, 1}, {Name("a.example", 443)});
  EXPECT_FALSE(May("203.0.113.5", 443));
  EXPECT_TRUE(policy_.Pin({kFunction, 0, Address("203.0.113.5"), Soon()}, now_));
  EXPECT_TRUE(May("203.0.113.5", 443));
  EXPECT_FALSE(May("203.0.113.5", 80));
  EXPECT_FALSE(May("203.0.113.5", 443, RouteKind::kNeighbour));
  now_ += std::chrono::seconds(61);
  EXPECT_FALSE(May("203.0.113.5", 443));
}

TEST_F(Policy, ANameNeverLeadsIntoTheHouse) {
  policy_.Admit({kFunction, 1}, {Name("a.example")});
  EXPECT_FALSE(policy_.Pin({kFunction, 0, Address("192.168.1.1"), Soon()}, now_));
  EXPECT_FALSE(May("192.168.1.1", 80));
}

TEST_F(Policy, AListSaysWhichNamesMayBeAskedFor) {
  policy_.Admit({kFunction, 1}, {Name("a.example")});
  EXPECT_TRUE(policy_.MayResolve(kFunction, "a.example"));
  EXPECT_FALSE(policy_.MayResolve(kFunction, "secret.b.example"));
  policy_.Admit({kFunction, 1}, {});
  EXPECT_TRUE(policy_.MayResolve(kFunction, "b.example"));
}

TEST_F(Policy, AForgottenFunctionsPinsAreForgottenToo) {
  policy_.Admit({kFunction, 1}, {Name("a.example")});
  EXPECT_TRUE(policy_.Pin({kFunction, 0, Address("203.0.113.5"), Soon()}, now_));
  policy_.Forget(kFunction);
  policy_.Admit({kFunction, 1}, {Name("b.example")});
  EXPECT_FALSE(May("203.0.113.5", 443));
}

TEST(RouterWire, CarriesAListThereAndRefusesWhatIsNone) {
  const std::vector<AllowEntry> allow = {Range("192.168.1.0/24", 80, 81), Name("a.example", 443)};
  const std::string message = EncodeAdmission({Address("10.83.0.16"), 7}, allow);
  const auto back = DecodeOrder(message);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->allow, allow);
  EXPECT_EQ(back->order.version, 7U);
  for (size_t size = 0; size < message.size(); ++size) {
    EXPECT_FALSE(DecodeOrder(message.substr(0, size))) << size;
  }
  EXPECT_FALSE(DecodeOrder(message + "x"));
}

TEST(ResolvConf, ReadsNameserversAndSkipsTheRest) {
  const auto found = ParseResolvConf(
      "# nameserver 9.9.9.9\nsearch lan\nnameserver 127.0.0.53 # stub\n nameserver\tfd00::1\n"
      "nameserverx 1.1.1.1\nnameserver nonsense\noptions edns0\nnameserver 1.1.1.1\n"
      "nameserver 8.8.8.8\n");
  ASSERT_EQ(found.size(), 3U);
  EXPECT_EQ(found[0].address.ss_family, AF_INET);
  EXPECT_EQ(found[1].address.ss_family, AF_INET6);
}

TEST(UdpPacket, IsWhatTheKernelWouldSend) {
  const std::string packet =
      MakeUdpPacket({Address("203.0.113.5"), 53}, {Address("10.83.0.16"), 4242}, "abc");
  ASSERT_EQ(packet.size(), 31U);
  uint32_t sum = 17 + 11;  // protocol and length of the pseudo header
  for (size_t i = 12; i < packet.size(); ++i) {
    sum += static_cast<uint32_t>(static_cast<uint8_t>(packet[i])) << (i % 2 == 0 ? 8 : 0);
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  EXPECT_EQ(sum, 0xffffU);  // sums to all ones with its checksum in
}

}  // namespace
}  // namespace pulga
