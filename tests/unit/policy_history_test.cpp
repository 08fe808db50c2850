// Who was called when: as it is stored, and as a replay reads it.
#include <gtest/gtest.h>

#include "runtime/policy/cron_schedule.h"
#include "runtime/policy/hour_of_calls.h"
#include "runtime/policy/trace.h"

namespace pulga {
namespace {

TEST(HourOfCalls, IsWrittenAsRunsOfEqualCounts) {
  HourOfCalls hour;
  EXPECT_EQ(hour.Serialise(), "");
  for (uint32_t minute = 0; minute < 15; ++minute) hour.Add(minute, 1);
  hour.Add(20, 2);
  hour.Add(20, 1);
  hour.Add(59, 70000);
  EXPECT_EQ(hour.Serialise(), "0-14*1 20*3 59*9999");
  const auto read = HourOfCalls::Parse(hour.Serialise());
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, hour);
  EXPECT_EQ(HourOfCalls::Parse("")->Serialise(), "");
}

TEST(HourOfCalls, TakesNothingElse) {
  for (const char* bad : {" ", "1", "60*1", "3-2*1", "0*0", "0*10000", "1*1 1*1", "2*1 1*1",
                          "0-1-2*1", "1*1 ", "-1*1", "1-*2", "a*1"}) {
    EXPECT_FALSE(HourOfCalls::Parse(bad).ok()) << bad;
  }
}

// Minutes since 1970, which began on a Thursday.
int64_t At(int64_t day, int64_t hour, int64_t minute) { return (day * 24 + hour) * 60 + minute; }

int64_t NextOf(const std::string& text, int64_t after) {
  const auto schedule = CronSchedule::Parse(text);
  if (!schedule.ok()) {
    ADD_FAILURE() << text << ": " << schedule.error().message;
    return -2;
  }
  return schedule->NextAfter(after).value_or(-1);
}

TEST(CronSchedule, TellsTheNextTime) {
  EXPECT_EQ(NextOf("*/5 * * * *", At(0, 0, 0)), At(0, 0, 5));
  EXPECT_EQ(NextOf("*/5 * * * *", At(0, 0, 4)), At(0, 0, 5));
  EXPECT_EQ(NextOf("* * * * *", At(0, 23, 59)), At(1, 0, 0));
  EXPECT_EQ(NextOf("30 8 * * *", At(3, 9, 0)), At(4, 8, 30));
  EXPECT_EQ(NextOf("10-40/10,55 * * * *", At(0, 3, 40)), At(0, 3, 55));
  EXPECT_EQ(NextOf("5/20 * * * *", At(0, 0, 5)), At(0, 0, 25));
  EXPECT_EQ(NextOf("0 0 1 * *", At(0, 0, 0)), At(31, 0, 0));
  EXPECT_EQ(NextOf("0 0 29 2 *", At(0, 0, 0)), At(789, 0, 0)) << "1972";
  EXPECT_EQ(NextOf("0 0 * * 0", At(0, 0, 0)), At(3, 0, 0));
  EXPECT_EQ(NextOf("0 0 * * 7", At(0, 0, 0)), At(3, 0, 0));
  EXPECT_EQ(NextOf("0 0 13 * 1-5", At(1, 1, 0)), At(4, 0, 0)) << "either day will do";
  EXPECT_EQ(NextOf("@hourly", At(0, 1, 1)), At(0, 2, 0));
  EXPECT_EQ(NextOf("0 0 31 2 *", At(0, 0, 0)), -1) << "never";
}

TEST(ScheduleMemo, SaysTheSameAndSearchesOncePerCallOfTheSchedule) {
  const CronSchedule schedule = CronSchedule::Parse("*/20 3 * * *").value();
  ScheduleMemo memo({schedule});
  for (int64_t minute = 0; minute < 3 * 1440; ++minute) {
    ASSERT_EQ(memo.NextAfter(minute), schedule.NextAfter(minute)) << minute;
  }
  EXPECT_LE(memo.searches(), 10U);
  EXPECT_EQ(memo.NextAfter(7), schedule.NextAfter(7)) << "a clock that was set back";
  ScheduleMemo never({CronSchedule::Parse("0 0 31 2 *").value()});
  for (int64_t minute = 0; minute < 3 * 1440; ++minute) EXPECT_FALSE(never.NextAfter(minute));
  EXPECT_EQ(never.searches(), 3U);
}

TEST(CronSchedule, TakesNothingElse) {
  for (const char* bad :
       {"", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *",
        "* * * * 8", "*/0 * * * *", "5-3 * * * *", "a * * * *", "1,, * * * *", "1-2-3 * * * *",
        "*/5/5 * * * *", "@often", "-1 * * * *"}) {
    EXPECT_FALSE(CronSchedule::Parse(bad).ok()) << bad;
  }
  const auto count = [](const std::map<std::string, std::string>& annotations) {
    return SchedulesOf(annotations).size();
  };
  EXPECT_EQ(count({{"topic", "cron-function"}, {"schedule", "*/5 * * * *"}}), 1U);
  EXPECT_EQ(count({{"topic", "cron-function"}, {"schedule", "0 6 * * 1-5; 0 9 * * 6"}}), 2U);
  EXPECT_EQ(count({{"topic", "other"}, {"schedule", "*/5 * * * *"}}), 0U);
  EXPECT_EQ(count({{"topic", "cron-function"}, {"schedule", "soon"}}), 0U);
  EXPECT_EQ(count({{"schedule", "*/5 * * * *"}}), 0U);
}

TEST(ScheduleMemo, OfSeveralTheFirstToComeCounts) {
  const CronSchedule hourly = CronSchedule::Parse("0 * * * *").value();
  const CronSchedule daily = CronSchedule::Parse("30 3 * * *").value();
  ScheduleMemo memo({hourly, daily});
  for (int64_t minute = 0; minute < 2 * 1440; ++minute) {
    ASSERT_EQ(memo.NextAfter(minute),
              std::min(*hourly.NextAfter(minute), *daily.NextAfter(minute)));
  }
}

constexpr const char* kHead = "function,trigger,bytes,init_ms,hour,minutes\n";

TEST(History, IsATraceOfMinutes) {
  const auto trace = ParseHistory(std::string(kHead) +
                                  "default/a,caller,1048576,70,495360,3-4*2 59*1\n"
                                  "default/b,timer,2097152,0,495360,0*1\n"
                                  "default/a,caller,1048576,70,495362,0*5\n");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  EXPECT_EQ(trace->tick, std::chrono::minutes(1));
  EXPECT_EQ(trace->ticks, 180U);
  ASSERT_EQ(trace->functions.size(), 2U);
  EXPECT_EQ(trace->functions[0].name, "default/a");
  EXPECT_EQ(trace->functions[0].bytes, 1U << 20);
  EXPECT_EQ(trace->functions[0].init, std::chrono::milliseconds(70));
  EXPECT_EQ(trace->functions[1].trigger, TraceFunction::Trigger::kTimer);
  ASSERT_EQ(trace->calls.size(), 5U);
  EXPECT_EQ(trace->calls[0].function, 1U);
  EXPECT_EQ(trace->calls[1].tick, 3U);
  EXPECT_EQ(trace->calls[1].calls, 2U);
  EXPECT_EQ(trace->calls[4].tick, 120U);
  EXPECT_TRUE(ParseHistory(kHead)->calls.empty());
}

TEST(History, IsRefusedWhereItIsNoneAndSaysWhere) {
  for (const char* bad : {"a,caller,1,1,1", "a,caller,x,1,1,0*1", "a,caller,1,1,x,0*1",
                          "a,caller,1,1,1,60*1", "a,caller,1,1,5,0*1\nb,caller,1,1,4,0*1",
                          "a,caller,1,1,1,0*1\na,caller,1,1,99999999,0*1"}) {
    const auto trace = ParseHistory(std::string(kHead) + bad);
    ASSERT_FALSE(trace.ok()) << bad;
    EXPECT_EQ(trace.error().message.rfind("line ", 0), 0U) << trace.error().message;
  }
  EXPECT_FALSE(ParseHistory("a,b\n").ok());
  EXPECT_FALSE(ParseHistory("").ok());
}

}  // namespace
}  // namespace pulga
