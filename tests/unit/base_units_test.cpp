#include <gtest/gtest.h>

#include "base/units.h"

namespace pulga {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST(Units, BytesAreWrittenAsInKubernetes) {
  EXPECT_EQ(*ParseBytes("0"), 0u);
  EXPECT_EQ(*ParseBytes("512"), 512u);
  EXPECT_EQ(*ParseBytes("64Mi"), 64u << 20);
  EXPECT_EQ(*ParseBytes("20M"), 20000000u);
  EXPECT_EQ(*ParseBytes("100k"), 100000u);
  EXPECT_EQ(*ParseBytes("1.5Gi"), 3u << 29);
}

TEST(Units, BytesRefuseSignsSpacesFractionsAndOverflow) {
  for (const char* bad : {"", "-1", "+1", " 1", "1 Mi", "1MB", "Mi", "1.3", "1..5Mi", ".5", "1e9",
                          "99999999999999999999", "9223372036854775808", "8388608Ti", "1.Mi",
                          "0x10", "1mi", "NaN", "inf"}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  }
}

TEST(Units, AWrongQuantityIsQuotedWithAnExample) {
  const auto bad = ParseBytes("64MB");
  ASSERT_FALSE(bad.ok());
  EXPECT_NE(bad.error().message.find("64MB"), std::string::npos);
  EXPECT_NE(bad.error().message.find("64Mi"), std::string::npos);
  EXPECT_EQ(bad.error().code, Code::kInvalidArgument);
}

TEST(Units, BytesAreFormattedSoThatTheyParseBack) {
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{1023}, uint64_t{1} << 10,
                               uint64_t{20000000}, uint64_t{64} << 20, uint64_t{3} << 30}) {
    EXPECT_EQ(*ParseBytes(FormatBytes(bytes)), bytes);
  }
  EXPECT_EQ(FormatBytes(64 << 20), "64Mi");
  EXPECT_EQ(HumanBytes(12 * 1024 * 1024 + 300000), "12.3 MiB");
  EXPECT_EQ(HumanBytes(17), "17 B");
}

TEST(Units, CpuIsCountedInThousandthsOfACore) {
  EXPECT_EQ(*ParseCpuMillis("500m"), 500u);
  EXPECT_EQ(*ParseCpuMillis("0.5"), 500u);
  EXPECT_EQ(*ParseCpuMillis("2"), 2000u);
  EXPECT_EQ(*ParseCpuMillis("0"), 0u);
  EXPECT_EQ(FormatCpuMillis(500), "500m");
  EXPECT_EQ(FormatCpuMillis(2000), "2");
}

TEST(Units, CpuRefusesWhatIsNotAThousandthOrIsAbsurd) {
  for (const char* bad : {"", "-1", "0.0001", "1025", "1.5m", "m", "1M", "999999999999m", "two"}) {
    EXPECT_FALSE(ParseCpuMillis(bad).ok()) << bad;
  }
}

TEST(Units, DurationsAddUp) {
  EXPECT_EQ(*ParseDuration("30s"), seconds(30));
  EXPECT_EQ(*ParseDuration("1.5s"), milliseconds(1500));
  EXPECT_EQ(*ParseDuration("250ms"), milliseconds(250));
  EXPECT_EQ(*ParseDuration("1m30s"), seconds(90));
  EXPECT_EQ(*ParseDuration("1h"), hours(1));
  EXPECT_EQ(*ParseDuration("0"), Duration::zero());
}

TEST(Units, DurationsRefuseBareNumbersSignsAndOverflow) {
  for (const char* bad : {"", "5", "-1s", "1 s", "s", "1x", "1s1", "99999999999h", "1.s", "1d"}) {
    EXPECT_FALSE(ParseDuration(bad).ok()) << bad;
  }
}

TEST(Units, DurationsAreFormattedForPeople) {
  EXPECT_EQ(FormatDuration(seconds(90)), "1m30s");
  EXPECT_EQ(FormatDuration(milliseconds(250)), "250ms");
  EXPECT_EQ(FormatDuration(Duration::zero()), "0s");
  EXPECT_EQ(FormatDuration(hours(1)), "1h");
  EXPECT_EQ(FormatDuration(hours(1) + minutes(5)), "1h5m");
}

}  // namespace
}  // namespace pulga
