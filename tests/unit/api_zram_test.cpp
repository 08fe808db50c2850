// pulga doctor --setup-zram: the plan. Carried out in the guest: tests/vm/test_reclaim.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/cli/zram_setup.h"

namespace pulga::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint64_t kMiB = 1 << 20;

TEST(ZramPlan, TakesHalfOfTheMemoryInWholeMebibytes) {
  EXPECT_EQ(PlanZram(512 * kMiB - 12345, "").bytes, 255 * kMiB);
  EXPECT_EQ(PlanZram(64ULL << 30, "").bytes, 4096 * kMiB);
}

TEST(ZramPlan, PrefersWhatUnpacksFastestWhereItIsThere) {
  EXPECT_EQ(PlanZram(512 * kMiB, "lzo [lzo-rle] lz4 zstd").algorithm, "lz4");
  EXPECT_EQ(PlanZram(512 * kMiB, "lzo [lz4]").algorithm, "lz4");
  EXPECT_EQ(PlanZram(512 * kMiB, "[lzo-rle] lz4hc").algorithm, "");
}

TEST(ZramPlan, SeesSwapThatIsThereAlready) {
  const std::string head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
  EXPECT_EQ(FindZramSwap(head), "");
  EXPECT_EQ(FindZramSwap(head + "/dev/sda2   partition\t1\t0\t-2\n"), "");
  EXPECT_EQ(FindZramSwap(head + "/dev/zram1    partition\t1\t0\t100\n"), "/dev/zram1");
}

TEST(ZramPlan, SaysEachStepAndHowToHaveItAtEachStart) {
  const std::string text = DescribeZram({256 * kMiB, "lz4", 100}, "/usr/bin/pulga");
  for (const char* step :
       {"modprobe zram", "echo lz4 > /sys/block/zram0/comp_algorithm", "echo 268435456 >",
        "mkswap /dev/zram0", "swapon --priority 100 /dev/zram0", "zram-tools",
        "ExecStart=/usr/bin/pulga doctor --setup-zram --yes"}) {
    EXPECT_THAT(text, HasSubstr(step));
  }
  EXPECT_THAT(DescribeZram({256 * kMiB, "", 100}, "pulga"), Not(HasSubstr("comp_algorithm")));
}

}  // namespace
}  // namespace pulga::cli
