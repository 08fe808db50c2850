// What /proc/swaps says, and whose pages may go where it says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sandbox/swap_devices.h"

namespace pulga {
namespace {

using ::testing::HasSubstr;

constexpr const char* kHead = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

ActiveSwap Parsed(const std::string& lines) {
  const auto swap = ParseSwaps(kHead + lines);
  EXPECT_TRUE(swap.ok()) << swap.error().message;
  return swap.ok() ? *swap : ActiveSwap();
}

TEST(Swaps, NoneAtAll) {
  EXPECT_FALSE(Parsed("").any);
  EXPECT_THAT(MayPushOut(Parsed(""), 1).error().message, HasSubstr("no swap"));
}

TEST(Swaps, ZramIsForEveryFunction) {
  const ActiveSwap swap = Parsed(
      "/dev/zram0                              partition\t524284\t\t0\t\t100\n"
      "/dev/zram1                              partition\t524284\t\t0\t\t100\n");
  EXPECT_TRUE(swap.any);
  EXPECT_EQ(swap.elsewhere, "");
  EXPECT_TRUE(MayPushOut(swap, 0).ok());
}

TEST(Swaps, AnythingElseIsForWhoAskedForSwap) {
  for (const char* line : {"/swapfile file\t102396\t0\t-2\n", "/dev/sda2 partition\t1\t0\t-2\n",
                           "/dev/zram0 file\t1\t0\t-2\n", "/dev/zram partition\t1\t0\t-2\n",
                           "/dev/zram0p1 partition\t1\t0\t-2\n", "/mnt/dev/zram0 partition\t1\t0\n",
                           "/dev/zram0\\040(deleted) partition\t1\t0\t-2\n"}) {
    const ActiveSwap swap = Parsed(line);
    EXPECT_TRUE(swap.any) << line;
    EXPECT_NE(swap.elsewhere, "") << line;
    EXPECT_FALSE(MayPushOut(swap, 0).ok()) << line;
    EXPECT_TRUE(MayPushOut(swap, 4096).ok()) << line;
  }
}

TEST(Swaps, OneOfThemIsEnoughToBeInTheWay) {
  const std::string zram = "/dev/zram0 partition\t1\t0\t100\n";
  const std::string file = "/var/swap file\t1\t0\t-2\n";
  for (const std::string& lines : {zram + file, file + zram}) {
    EXPECT_EQ(Parsed(lines).elsewhere, "/var/swap");
    EXPECT_THAT(MayPushOut(Parsed(lines), 0).error().message, HasSubstr("the swap /var/swap is"));
  }
}

TEST(Swaps, ZramIsNotForNothing) {
  EXPECT_EQ(Parsed("/dev/zram0 partition 1 0 1\n/f file 1 0 1\n/dev/zram7 partition 1 0 1\n").zram,
            (std::vector<std::string>{"zram0", "zram7"}));
  const ZramUse use = ParseZramUse(
      "  40960000  9000000 10240000        0 10240000     1234        0        0        0\n");
  EXPECT_EQ(use.stored_bytes, 40960000U);
  EXPECT_EQ(use.taken_bytes, 10240000U);
  EXPECT_EQ(TakenInZram(8 << 20, use), 2U << 20);
  EXPECT_EQ(TakenInZram(6 << 20, ZramUse()), 2U << 20) << "nothing is stored yet: a guess";
  EXPECT_EQ(TakenInZram(4096, {4096, 12288}), 4096U) << "the allocator's pages are not this one's";
  for (const char* text : {"", "\n", "4096", "4096 1", "x 1 2\n", "1 2 -3\n"}) {
    EXPECT_EQ(ParseZramUse(text).stored_bytes, 0U) << text;
  }
}

TEST(Swaps, NamesAreReadable) {
  EXPECT_EQ(Parsed("/my\\040swap\\134\\012\\04 file 1 0 -2\n").elsewhere, "/my swap\\\\012\\04");
}

TEST(Swaps, WhatNobodyUnderstandsIsAnError) {
  for (const std::string& text :
       {std::string(), std::string("\n"), std::string("/dev/zram0 partition 1 0 100\n"),
        kHead + std::string("/dev/zram0\n"), kHead + std::string("zram0 partition 1 0 1\n")}) {
    EXPECT_FALSE(ParseSwaps(text).ok()) << text;
  }
}

}  // namespace
}  // namespace pulga
