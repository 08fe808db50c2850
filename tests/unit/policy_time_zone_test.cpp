// Schedules by the clock of a time zone, over the days on which that clock jumps. The dates are
// those of the time zone database: 2026-03-29 and 2026-10-25 in Madrid, 2026-03-08 and 2026-11-01
// in New York, 2026-04-05 and 2026-10-04 on Lord Howe Island, by half an hour.
#include <gmock/gmock.h>

#include <chrono>

#include "base/time_zone.h"
#include "runtime/policy/cron_schedule.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// In UTC.
int64_t Minute(int year, unsigned month, unsigned day, int hour, int minute) {
  using namespace std::chrono;  // NOLINT: only here
  const sys_days date = std::chrono::year(year) / month / day;
  return duration_cast<minutes>(date.time_since_epoch()).count() + hour * 60 + minute;
}

std::string Text(int64_t minute) {
  const std::time_t seconds = minute * 60;
  std::tm utc = {};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%m-%d %H:%M", &utc);
  return text;
}

// The times after `minute`, in UTC.
std::vector<std::string> Next(int count, int64_t minute, const std::string& schedule) {
  const auto parsed = CronSchedule::Parse(schedule);
  if (!parsed.ok()) return {parsed.error().message};
  std::vector<std::string> out;
  while (count-- > 0) {
    const auto next = parsed->NextAfter(minute);
    if (!next || *next <= minute) break;
    out.push_back(Text(*next));
    minute = *next;
  }
  return out;
}

TEST(TimeZone, TellsWhatTheClockSaysAndWhereItJumps) {
  const auto madrid = TimeZone::Load("Europe/Madrid");
  ASSERT_TRUE(madrid.ok()) << madrid.error().message;
  const int64_t jump = Minute(2026, 3, 29, 1, 0);
  EXPECT_EQ(madrid->WallAt(jump - 1), Minute(2026, 3, 29, 1, 59));
  EXPECT_EQ(madrid->WallAt(jump), Minute(2026, 3, 29, 3, 0));
  for (const auto& shift : {madrid->NextShift(jump - 1), madrid->LastShift(jump)}) {
    ASSERT_TRUE(shift);
    EXPECT_EQ(shift->at, jump);
    EXPECT_EQ(shift->from, Minute(2026, 3, 29, 2, 0));
    EXPECT_EQ(shift->to, Minute(2026, 3, 29, 3, 0));
  }
  EXPECT_EQ(madrid->NextShift(jump)->at, Minute(2026, 10, 25, 1, 0));
  EXPECT_EQ(madrid->NextShift(Minute(2061, 1, 1, 0, 0))->at, Minute(2061, 3, 27, 1, 0))
      << "later than the list of a file goes";
  EXPECT_FALSE(TimeZone::Load("UTC")->NextShift(jump));
}

TEST(TimeZone, RefusesWhatIsNoneAndSaysSo) {
  for (const char* bad :
       {"", "Europe/Nowhere", "Europe", "../../../etc/passwd", "/etc/localtime", "a b", "CET\n",
        "right/Europe/Madrid", "Europe//Madrid", "zone.tab", "leapseconds"}) {
    const auto zone = TimeZone::Load(bad);
    ASSERT_FALSE(zone.ok()) << bad;
    EXPECT_EQ(zone.error().code, Code::kInvalidArgument);
    EXPECT_THAT(zone.error().message, HasSubstr("like Europe/Madrid")) << bad;
  }
  EXPECT_FALSE(TimeZone::Load(std::string(65, 'a')).ok());
}

TEST(TimeZone, OfABoardWithoutAnySaysWhatIsMissing) {
  ASSERT_EQ(setenv("TZDIR", "/nonexistent/zones", 1), 0);
  const auto zone = TimeZone::Load("Europe/Lisbon");
  const bool utc = TimeZone::Load("UTC").ok();
  unsetenv("TZDIR");
  ASSERT_FALSE(zone.ok());
  EXPECT_THAT(zone.error().message, HasSubstr("package tzdata"));
  EXPECT_TRUE(utc);
  EXPECT_TRUE(TimeZone::Load("Europe/Lisbon").ok()) << "once it is there";
}

TEST(CronZone, IsThatOfTheScheduleOrElseOfTheFunction) {
  const int64_t day = Minute(2026, 7, 1, 0, 0);
  EXPECT_THAT(Next(1, day, "CRON_TZ=Europe/Madrid 30 8 * * *"), ElementsAre("07-01 06:30"));
  EXPECT_THAT(Next(1, day, "TZ=America/New_York  30 8 * * *"), ElementsAre("07-01 12:30"));
  EXPECT_THAT(Next(1, day, "TZ=Europe/Madrid @daily"), ElementsAre("07-01 22:00"));
  EXPECT_THAT(Next(1, day, "TZ=Europe/Nowhere * * * * *"),
              ElementsAre(HasSubstr("no time zone \"Europe/Nowhere\"")));
  const auto next = [day](std::map<std::string, std::string> more, const char* schedule) {
    more.insert({{"topic", "cron-function"}, {"schedule", schedule}});
    const CronSchedules of = SchedulesOf(more);
    return of.empty() ? "none" : Text(NextAfter(of, day).value_or(0));
  };
  EXPECT_EQ(next({{"timezone", "Europe/Madrid"}}, "30 8 * * *"), "07-01 06:30");
  EXPECT_EQ(next({{"timezone", "Europe/Madrid"}}, "TZ=UTC 30 8 * * *"), "07-01 08:30");
  EXPECT_EQ(next({}, "30 8 * * *"), "07-01 08:30");
  EXPECT_EQ(next({{"timezone", "Nowhere"}}, "30 8 * * *"), "none");
  EXPECT_EQ(next({}, "30 8 * * *; TZ=Europe/Madrid 0 9 * * *;"), "07-01 07:00");
  EXPECT_EQ(next({}, "30 8 * * *; soon"), "none");
  // Days are those of the place: a Sunday there is not yet over here.
  EXPECT_THAT(Next(1, Minute(2026, 7, 4, 0, 0), "TZ=Australia/Sydney 0 7 * * 0"),
              ElementsAre("07-04 21:00"));
}

TEST(CronZone, WhatTheClockSkipsComesRightAfterTheJump) {
  const int64_t saturday = Minute(2026, 3, 28, 12, 0);
  EXPECT_THAT(Next(3, saturday, "TZ=Europe/Madrid 30 2 * * *"),
              ElementsAre("03-29 01:00", "03-30 00:30", "03-31 00:30"));
  EXPECT_THAT(Next(3, saturday, "TZ=Europe/Madrid */20 2 * * *"),
              ElementsAre("03-29 01:00", "03-30 00:00", "03-30 00:20"))
      << "once, however many it skipped";
  EXPECT_THAT(Next(2, Minute(2026, 3, 29, 0, 59), "TZ=Europe/Madrid 15 2,3 * * *"),
              ElementsAre("03-29 01:00", "03-29 01:15"));
  EXPECT_THAT(Next(2, saturday, "TZ=Europe/Madrid 0 3 * * *"),
              ElementsAre("03-29 01:00", "03-30 01:00"))
      << "the jump ends where it would come anyway";
  EXPECT_THAT(Next(2, Minute(2026, 3, 7, 12, 0), "TZ=America/New_York 0 2 * * *"),
              ElementsAre("03-08 07:00", "03-09 06:00"));
  EXPECT_THAT(Next(2, Minute(2026, 10, 3, 0, 0), "TZ=Australia/Lord_Howe 15 2 * * *"),
              ElementsAre("10-03 15:30", "10-04 15:15"))
      << "half an hour";
}

TEST(CronZone, WhatTheClockSaysTwiceComesTheFirstTime) {
  EXPECT_THAT(Next(3, Minute(2026, 10, 24, 12, 0), "TZ=Europe/Madrid 30 2 * * *"),
              ElementsAre("10-25 00:30", "10-26 01:30", "10-27 01:30"));
  EXPECT_THAT(Next(1, Minute(2026, 10, 25, 1, 10), "TZ=Europe/Madrid 30 2 * * *"),
              ElementsAre("10-26 01:30"))
      << "asked in the second of the two hours";
  EXPECT_THAT(Next(3, Minute(2026, 10, 25, 0, 30), "TZ=Europe/Madrid */30 2 * * *"),
              ElementsAre("10-26 01:00", "10-26 01:30", "10-27 01:00"));
  EXPECT_THAT(Next(2, Minute(2026, 10, 31, 12, 0), "TZ=America/New_York 30 1 * * *"),
              ElementsAre("11-01 05:30", "11-02 06:30"));
  EXPECT_THAT(Next(2, Minute(2026, 4, 4, 0, 0), "TZ=Australia/Lord_Howe 45 1 * * *"),
              ElementsAre("04-04 14:45", "04-05 15:15"));
  EXPECT_THAT(Next(1, Minute(2026, 10, 25, 0, 59), "TZ=Europe/Madrid 0 3 * * *"),
              ElementsAre("10-25 02:00"));
}

TEST(CronZone, WhatComesEachHourGoesOnWithoutAPause) {
  EXPECT_THAT(Next(4, Minute(2026, 10, 24, 23, 30), "TZ=Europe/Madrid 0 * * * *"),
              ElementsAre("10-25 00:00", "10-25 01:00", "10-25 02:00", "10-25 03:00"));
  EXPECT_THAT(Next(3, Minute(2026, 3, 28, 23, 30), "TZ=Europe/Madrid 0 * * * *"),
              ElementsAre("03-29 00:00", "03-29 01:00", "03-29 02:00"));
  const std::string every = "TZ=America/New_York */5 * * * *";
  const auto parsed = CronSchedule::Parse(every);
  for (const int64_t day : {Minute(2026, 3, 8, 0, 0), Minute(2026, 11, 1, 0, 0)}) {
    for (int64_t minute = day; minute < day + 24 * 60; minute += 5) {
      ASSERT_EQ(parsed->NextAfter(minute), minute + 5) << Text(minute);
    }
  }
  // By half an hour: what comes at each full hour of the clock waits longer, or less.
  EXPECT_THAT(Next(3, Minute(2026, 10, 3, 13, 40), "TZ=Australia/Lord_Howe 0 * * * *"),
              ElementsAre("10-03 14:30", "10-03 16:00", "10-03 17:00"));
}

// Whatever minute it is asked in, the answer is that of a walk through all minutes.
TEST(CronZone, SaysTheSameFromWhereverItIsAsked) {
  struct Walk {
    const char* schedule;
    int64_t from;
  };
  for (const auto& [text, from] :
       {Walk{"TZ=Europe/Madrid 30 2 * * *", Minute(2026, 3, 27, 0, 0)},
        Walk{"TZ=Europe/Madrid 30 2 * * *", Minute(2026, 10, 24, 0, 0)},
        Walk{"TZ=America/New_York */20 1,2 * * *", Minute(2026, 3, 7, 0, 0)},
        Walk{"TZ=America/New_York */20 1,2 * * *", Minute(2026, 10, 31, 0, 0)},
        Walk{"TZ=Australia/Lord_Howe 10-50/20 1 * * *", Minute(2026, 4, 3, 0, 0)},
        Walk{"TZ=Australia/Lord_Howe 10-50/20 2 * * *", Minute(2026, 10, 2, 0, 0)},
        Walk{"TZ=Africa/Casablanca 15 2,3 * * *", Minute(2026, 2, 14, 0, 0)},
        Walk{"TZ=Asia/Kolkata 0 3 * * 1", Minute(2026, 5, 1, 0, 0)}}) {
    const auto schedule = CronSchedule::Parse(text);
    ASSERT_TRUE(schedule.ok()) << schedule.error().message;
    std::optional<int64_t> expected;
    for (int64_t minute = from; minute < from + 3 * 1440; ++minute) {
      const auto next = schedule->NextAfter(minute);
      ASSERT_TRUE(next && *next > minute) << text << " " << Text(minute);
      if (expected && *expected > minute) {
        ASSERT_EQ(*next, *expected) << text << Text(minute);
      }
      expected = next;
    }
  }
}

TEST(CronZone, IsRememberedLikeAnyOther) {
  const auto schedule = CronSchedule::Parse("TZ=Europe/Madrid 30 2 * * *");
  ScheduleMemo memo({*schedule});
  const int64_t begin = Minute(2026, 3, 28, 0, 0);
  for (int64_t minute = begin; minute < begin + 3 * 1440; ++minute) {
    ASSERT_EQ(memo.NextAfter(minute), schedule->NextAfter(minute)) << Text(minute);
  }
  EXPECT_LE(memo.searches(), 4U);
}

}  // namespace
}  // namespace pulga
