#include <gtest/gtest.h>

#include <set>

#include "base/ids.h"
#include "base/layer_id.h"
#include "base/root_switch.h"
#include "base/text.h"

namespace pulga {
namespace {

TEST(Text, HexGoesThereAndBack) {
  const std::string bytes("\x00\x7f\xff\x10", 4);
  EXPECT_EQ(HexEncode(bytes), "007fff10");
  EXPECT_EQ(HexDecode("007fff10"), bytes);
}

TEST(Text, HexDecodeRefusesUpperCaseAndOddLength) {
  EXPECT_FALSE(HexDecode("AB"));
  EXPECT_FALSE(HexDecode("abc"));
  EXPECT_FALSE(HexDecode("zz"));
  EXPECT_EQ(HexDecode(""), "");
}

TEST(Text, SplitKeepsEmptyParts) {
  const auto parts = Split("a::b:", ':');
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_EQ(parts[1], "");
  EXPECT_EQ(parts[3], "");
  EXPECT_EQ(Split("", ':').size(), 1u);
}

TEST(Text, JoinIsTheInverseOfSplit) {
  EXPECT_EQ(Join({"a", "", "b"}, ", "), "a, , b");
  EXPECT_EQ(Join({}, ","), "");
}

TEST(Text, TrimTakesSpacesAndTabsOnly) {
  EXPECT_EQ(Trim(" \t a b\t "), "a b");
  EXPECT_EQ(Trim("\n"), "\n");
  EXPECT_EQ(Trim("   "), "");
}

TEST(Text, CaseFoldingLeavesOtherBytesAlone) {
  EXPECT_EQ(ToLower("AZ\xc3\x84"), "az\xc3\x84");
  EXPECT_TRUE(EqualsIgnoreCase("Content-Length", "content-length"));
  EXPECT_FALSE(EqualsIgnoreCase("abc", "abcd"));
}

TEST(Text, ParseUintTakesDigitsOnly) {
  EXPECT_EQ(ParseUint("0"), 0u);
  EXPECT_EQ(ParseUint("18446744073709551615"), UINT64_MAX);
  for (const char* bad : {"", "+1", "-1", " 1", "1 ", "0x1", "1e3", "18446744073709551616"}) {
    EXPECT_FALSE(ParseUint(bad)) << bad;
  }
}

TEST(Text, ParseUintHonoursItsMaximum) {
  EXPECT_EQ(ParseUint("65535", 65535), 65535u);
  EXPECT_FALSE(ParseUint("65536", 65535));
}

TEST(Text, PrintableEscapesEverythingATerminalCouldObey) {
  EXPECT_EQ(Printable("a\x1b[31m\n\\"), "a\\x1b[31m\\x0a\\x5c");
  EXPECT_EQ(Printable("abcdef", 3), "abc...");
  EXPECT_EQ(Printable("\xff"), "\\xff");
}

TEST(Text, ConstantTimeComparisonComparesAllBytes) {
  EXPECT_TRUE(EqualsConstantTime("key", "key"));
  EXPECT_FALSE(EqualsConstantTime("key", "kez"));
  EXPECT_FALSE(EqualsConstantTime("key", "keys"));
}

TEST(Text, UnescapesWhatTheKernelWritesForBlanks) {
  EXPECT_EQ(UnescapeOctal("/mnt/usb\\040stick"), "/mnt/usb stick");
  EXPECT_EQ(UnescapeOctal("a\\134b\\09\\04"), "a\\b\\09\\04");
}

// "/" is mount 1, which is its own parent; 40 was moved over it, with 41 on it; 30 hangs on 29,
// which came later.
constexpr char kInitramfs[] =
    "1 1 0:2 / / rw - rootfs none rw\n"
    "20 1 0:20 / /proc rw - proc proc rw\n"
    "41 40 0:41 / /proc rw - proc proc rw\n"
    "30 29 0:30 / /data/a\\040b rw - ext4 /dev/sdb rw\n"
    "29 1 0:29 / /data rw - ext4 /dev/sda rw\n"
    "40 1 0:40 / / ro - overlay overlay ro\n";

TEST(RootSwitch, KnowsTheFirstRootByItsMissingParent) {
  EXPECT_TRUE(IsFirstRoot(kInitramfs));
  EXPECT_FALSE(IsFirstRoot("25 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 25 0:30 / /proc rw - proc\n"));
  EXPECT_FALSE(IsFirstRoot("1 1 0:2 / /elsewhere rw - rootfs none rw\n"));
  EXPECT_FALSE(IsFirstRoot(""));
  EXPECT_FALSE(IsFirstRoot("junk\n1 1\n"));
}

TEST(RootSwitch, DetachesWhatHangsBesideTheNewRootDeepestFirst) {
  EXPECT_EQ(MountsBeside(kInitramfs), (std::vector<std::string>{"/data", "/data/a b", "/proc"}));
}

TEST(Ids, UuidsAreVersionFourAndDiffer) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const std::string id = RandomUuid();
    ASSERT_EQ(id.size(), 36u);
    EXPECT_EQ(id[8], '-');
    EXPECT_EQ(id[14], '4');
    EXPECT_TRUE(seen.insert(id).second);
  }
}

TEST(Ids, RandomHexHasTwoDigitsPerByte) { EXPECT_EQ(RandomHex(16).size(), 32u); }

TEST(LayerId, IsSixtyFourLowerCaseDigits) {
  const std::string hex(64, 'a');
  const auto id = LayerId::FromHex(hex);
  ASSERT_TRUE(id);
  EXPECT_EQ(id->Hex(), hex);
  EXPECT_FALSE(LayerId::FromHex(std::string(64, 'A')));
  EXPECT_FALSE(LayerId::FromHex(std::string(62, 'a')));
  EXPECT_FALSE(LayerId::FromHex("../../../etc/passwd"));
}

}  // namespace
}  // namespace pulga
