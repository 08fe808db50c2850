#include <gtest/gtest.h>

#include <random>

#include "net/dns_message.h"
#include "tests/support/dns_bytes.h"

namespace pulga {
namespace {

using namespace dns_bytes;  // NOLINT: helpers of these tests alone

const std::string kPointer = Bytes({0xc0, 12});
const std::string kAddress = Bytes({203, 0, 113, 5});

TEST(DnsQuery, IsReadInLowerCaseWithoutItsLastDot) {
  const auto query = ParseDnsQuery(QueryFor("API.Example.com", 28));
  ASSERT_TRUE(query);
  EXPECT_EQ(query->name, "api.example.com");
  EXPECT_EQ(query->type, kDnsTypeAaaa);
  EXPECT_EQ(query->id, 0x1234);
  EXPECT_TRUE(query->recursion_desired);
}

TEST(DnsQuery, WithANameThatPointsIntoTheHeaderIsNone) {
  // Of the header "\x01a..." a pointer to its start would make the name "a".
  const std::string message = Bytes({1, 'a', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 1, 0, 1});
  EXPECT_FALSE(ParseDnsQuery(message));
  EXPECT_TRUE(ParseDnsQuery(QueryFor("")));
}

TEST(DnsQuery, OfAnotherShapeIsNone) {
  const std::string good = QueryFor("a.example");
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(ParseDnsQuery(good.substr(0, size))) << size;
  }
  std::string reply = good;
  reply[2] = static_cast<char>(0x81);
  EXPECT_FALSE(ParseDnsQuery(reply));
  std::string two = good;
  two[5] = 2;
  EXPECT_FALSE(ParseDnsQuery(two));
  EXPECT_FALSE(ParseDnsQuery(QueryFor("a\nb.example")));
  // A pointer to itself, and one ahead.
  const std::string head = good.substr(0, kDnsHeaderBytes);
  EXPECT_FALSE(ParseDnsQuery(head + Bytes({0xc0, 12, 0, 1, 0, 1})));
  EXPECT_FALSE(ParseDnsQuery(head + Bytes({0xc0, 20, 0, 1, 0, 1})));
}

TEST(DnsReply, RepeatsTheQuestionAndGivesTheAddresses) {
  const std::string wire = QueryFor("a.example");
  const auto query = ParseDnsQuery(wire);
  const std::string reply = MakeDnsReply(*query, DnsCode::kOk, {{0xCB007105}}, 60);
  const auto back = ParseDnsReply(reply, *query);
  ASSERT_TRUE(back);
  ASSERT_EQ(back->addresses.size(), 1U);
  EXPECT_EQ(back->addresses[0].address.value, 0xCB007105U);
  EXPECT_EQ(back->addresses[0].ttl, 60U);
  EXPECT_EQ(back->id, 0x1234);
}

TEST(DnsReply, FollowsAliasesAndTakesTheLeastTtl) {
  const std::string wire = QueryFor("a.example");
  const auto query = ParseDnsQuery(wire);
  const std::string target = Wire("b.other");
  const auto reply = ParseDnsReply(ReplyTo(wire, 2,
                                           Record(kPointer, kDnsTypeCname, 7, target) +
                                               Record(target, kDnsTypeA, 200, kAddress)),
                                   *query);
  ASSERT_TRUE(reply);
  ASSERT_EQ(reply->addresses.size(), 1U);
  EXPECT_EQ(reply->addresses[0].ttl, 7U);
}

TEST(DnsReply, AddressesOfOtherNamesDoNotCount) {
  const std::string wire = QueryFor("a.example");
  const auto query = ParseDnsQuery(wire);
  const auto reply = ParseDnsReply(
      ReplyTo(wire, 1, Record(Wire("evil.example"), kDnsTypeA, 60, kAddress)), *query);
  ASSERT_TRUE(reply);
  EXPECT_TRUE(reply->addresses.empty());
}

TEST(DnsReply, ToAnotherQuestionIsNone) {
  const auto query = ParseDnsQuery(QueryFor("a.example"));
  const std::string other = QueryFor("b.example");
  EXPECT_FALSE(ParseDnsReply(ReplyTo(other, 1, Record(kPointer, 1, 60, kAddress)), *query));
  const std::string type = QueryFor("a.example", 16);
  EXPECT_FALSE(ParseDnsReply(ReplyTo(type, 0, ""), *query));
}

TEST(DnsReply, CutAnywhereIsNone) {
  const std::string wire = QueryFor("a.example");
  const auto query = ParseDnsQuery(wire);
  const std::string whole = ReplyTo(wire, 2,
                                    Record(kPointer, kDnsTypeCname, 7, Wire("b.other")) +
                                        Record(Wire("b.other"), 1, 60, kAddress));
  ASSERT_TRUE(ParseDnsReply(whole, *query));
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(ParseDnsReply(whole.substr(0, size), *query)) << size;
  }
}

TEST(DnsReply, NothingInATruncatedOneIsUsed) {
  const std::string wire = QueryFor("a.example");
  const auto query = ParseDnsQuery(wire);
  std::string reply = ReplyTo(wire, 2, Record(kPointer, 1, 60, kAddress));
  reply[2] = static_cast<char>(reply[2] | 2);
  const auto parsed = ParseDnsReply(reply, *query);
  ASSERT_TRUE(parsed);
  EXPECT_TRUE(parsed->truncated);
  EXPECT_TRUE(parsed->addresses.empty());
}

TEST(DnsMessage, AnyBytesAreReadWithoutHarm) {
  std::mt19937 random(4);
  const std::string wire = QueryFor("a.example");
  const auto query = ParseDnsQuery(wire);
  const std::string whole = ReplyTo(wire, 2,
                                    Record(kPointer, kDnsTypeCname, 7, Wire("b.other")) +
                                        Record(Wire("b.other"), 1, 60, kAddress));
  for (int i = 0; i < 50000; ++i) {
    std::string bytes = i % 2 == 0 ? whole : wire;
    for (unsigned n = random() % 4 + 1; n > 0; --n) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    bytes.resize(random() % 8 == 0 ? random() % (bytes.size() + 1) : bytes.size());
    (void)ParseDnsQuery(bytes);
    (void)MakeDnsFormatError(bytes);
    const auto reply = ParseDnsReply(bytes, *query);
    EXPECT_LE(reply ? reply->addresses.size() : 0, 2U);
  }
}

TEST(DnsMessage, WhatIsNoQuestionIsToldSo) {
  const auto error = MakeDnsFormatError(QueryFor("a.example").substr(0, 14));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->size(), kDnsHeaderBytes);
  EXPECT_EQ((*error)[3] & 15, 1);
  EXPECT_FALSE(MakeDnsFormatError("short"));
}

}  // namespace
}  // namespace pulga
