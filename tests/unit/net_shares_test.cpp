// What bounds one function's use of the router: shares, pins; and what the router says of it.
#include <gtest/gtest.h>

#include "net/pin_table.h"
#include "net/router_wire.h"
#include "net/share_ledger.h"

namespace pulga {
namespace {

constexpr Holder kOne{{1}, 7};
constexpr Holder kItsTwin{{2}, 7};
constexpr Holder kOther{{3}, 8};

TEST(ShareLedger, AnInstanceGetsItsShareAndNoMore) {
  ShareLedger ledger({10, 5, 3});
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(ledger.HasRoom(kOne));
    ledger.Take(kOne);
  }
  EXPECT_FALSE(ledger.HasRoom(kOne));
  EXPECT_TRUE(ledger.HasRoom(kItsTwin));
  EXPECT_EQ(ledger.HeldBy(7), 3U);
}

TEST(ShareLedger, AllInstancesOfAVersionShareToo) {
  ShareLedger ledger({10, 5, 3});
  for (const Holder& holder : {kOne, kOne, kOne, kItsTwin, kItsTwin}) ledger.Take(holder);
  EXPECT_EQ(ledger.HeldBy(7), 5U);
  EXPECT_FALSE(ledger.HasRoom(kItsTwin));
  EXPECT_FALSE(ledger.HasRoom({{9}, 7}));
  EXPECT_TRUE(ledger.HasRoom(kOther));
}

TEST(ShareLedger, ThereIsOnlySoMuchForAll) {
  ShareLedger ledger({2, 2, 2});
  ledger.Take(kOne);
  ledger.Take(kOther);
  EXPECT_FALSE(ledger.HasRoom({{9}, 9}));
}

TEST(ShareLedger, WhatIsGivenBackIsThereAgain) {
  ShareLedger ledger({2, 1, 1});
  ledger.Take(kOne);
  EXPECT_FALSE(ledger.HasRoom(kOne));
  ledger.Give(kOne);
  EXPECT_TRUE(ledger.HasRoom(kOne));
  EXPECT_EQ(ledger.HeldBy(7), 0U);
}

class Pins : public testing::Test {
 protected:
  bool Set(uint32_t entry, uint32_t address, int seconds = 60) {
    return table_.Set(entry, {address}, now_ + std::chrono::seconds(seconds), now_);
  }
  PinTable table_;
  TimePoint now_{std::chrono::hours(1)};
};

TEST_F(Pins, AnAddressStaysOpenAsLongAsItWasAskedFor) {
  EXPECT_TRUE(Set(0, 5));
  EXPECT_TRUE(table_.IsSet(0, {5}, now_ + std::chrono::seconds(59)));
  EXPECT_FALSE(table_.IsSet(0, {5}, now_ + std::chrono::seconds(60)));
  EXPECT_FALSE(table_.IsSet(1, {5}, now_));
}

TEST_F(Pins, WhatHasExpiredIsForgotten) {
  for (uint32_t i = 0; i < 40; ++i) EXPECT_TRUE(Set(0, i));
  now_ += std::chrono::seconds(60);
  EXPECT_TRUE(Set(0, 100));
  EXPECT_EQ(table_.size(), 1U);
}

TEST_F(Pins, ANameThatChangesItsAddressesFillsItsOwnShareOnly) {
  for (uint32_t i = 0; i < kMaxPinsPerEntry; ++i) EXPECT_TRUE(Set(0, i));
  EXPECT_FALSE(Set(0, 1000));
  EXPECT_FALSE(table_.IsSet(0, {1000}, now_));
  EXPECT_TRUE(Set(0, 3, 90));  // one that it has is renewed
  EXPECT_TRUE(table_.IsSet(0, {3}, now_ + std::chrono::seconds(80)));
  EXPECT_TRUE(Set(1, 1000));
}

TEST_F(Pins, AFunctionHasOnlySoMany) {
  for (uint32_t i = 0; i < kMaxPins; ++i) EXPECT_TRUE(Set(i % 64, i));
  EXPECT_FALSE(Set(63, 9999));
  now_ += std::chrono::seconds(60);
  EXPECT_TRUE(Set(63, 9999));
}

TEST_F(Pins, WhatCouldNotBeOpenedTakesNoRoom) {
  for (uint32_t i = 0; i < kMaxPinsPerEntry; ++i) EXPECT_TRUE(Set(0, i));
  table_.Failed(0, {7}, now_ + std::chrono::seconds(60));
  EXPECT_FALSE(table_.IsSet(0, {7}, now_));
  EXPECT_TRUE(Set(0, 1000));
}

TEST_F(Pins, WhatCouldNotBeRenewedStaysAsLongAsItWas) {
  EXPECT_TRUE(Set(0, 5));
  table_.Opened(0, {5}, now_ + std::chrono::seconds(60));
  EXPECT_TRUE(Set(0, 5, 90));
  EXPECT_TRUE(Set(0, 5, 120));
  table_.Failed(0, {5}, now_ + std::chrono::seconds(90));  // the later one is still under way
  EXPECT_TRUE(table_.IsSet(0, {5}, now_ + std::chrono::seconds(119)));
  table_.Failed(0, {5}, now_ + std::chrono::seconds(120));
  EXPECT_TRUE(table_.IsSet(0, {5}, now_ + std::chrono::seconds(59)));
  EXPECT_FALSE(table_.IsSet(0, {5}, now_ + std::chrono::seconds(60)));
}

TEST(RouterNotice, CarriesEveryAddressOfTheHostAndRefusesWhatIsNone) {
  RouterNotice notice;
  notice.kind = NoticeKind::kHostAddresses;
  notice.count = kMaxHostAddresses;
  for (uint32_t i = 0; i < notice.count; ++i) notice.addresses[i] = i + 1;
  const std::string whole = EncodeNotice(notice);
  const auto back = DecodeNotice(whole);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->addresses[kMaxHostAddresses - 1], kMaxHostAddresses);
  for (const size_t size : {size_t{0}, size_t{8}, whole.size() - 1}) {
    EXPECT_FALSE(DecodeNotice(whole.substr(0, size))) << size;
  }
  EXPECT_FALSE(DecodeNotice(whole + "x"));
  notice.count = kMaxHostAddresses + 1;
  std::string lying = EncodeNotice(notice);
  EXPECT_FALSE(DecodeNotice(lying));
  EXPECT_FALSE(DecodeNotice(lying + std::string(4, '\0')));
}

}  // namespace
}  // namespace pulga
