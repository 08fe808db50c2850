// Functions called by a schedule: which minutes are due, over restarts and clocks that jump.
#include <gmock/gmock.h>

#include "runtime/tasks/schedule_plan.h"
#include "runtime/tasks/task_rules.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Annotations Cron(const std::string& schedule, const std::string& missed = "") {
  Annotations annotations = {{"topic", "cron-function"}, {"schedule", schedule}};
  if (!missed.empty()) annotations["pulga.schedule.missed"] = missed;
  return annotations;
}

FunctionSchedule Schedule(const std::string& schedule, const std::string& missed = "") {
  return **ParseFunctionSchedule(Cron(schedule, missed));
}

TEST(FunctionSchedule, IsThereOnlyWithItsTopic) {
  EXPECT_FALSE(ParseFunctionSchedule({})->has_value());
  EXPECT_FALSE(ParseFunctionSchedule({{"schedule", "* * * * *"}})->has_value());
  EXPECT_FALSE(ParseFunctionSchedule({{"topic", "cron-function"}})->has_value());
  Annotations other = Cron("* * * * *");
  other["topic"] = "payments";
  EXPECT_FALSE(ParseFunctionSchedule(other)->has_value());
  EXPECT_TRUE(ParseFunctionSchedule(Cron("* * * * *"))->has_value());
}

TEST(FunctionSchedule, SeveralTimesAreSeparatedBySemicolons) {
  const FunctionSchedule schedule = Schedule("0 * * * *; 30 * * * *;");
  EXPECT_EQ(DueMinute(schedule, {59, 60}), 60);
  EXPECT_EQ(DueMinute(schedule, {89, 90}), 90);
  EXPECT_FALSE(DueMinute(schedule, {90, 91}));
}

TEST(FunctionSchedule, WhatIsWrongWithItIsNamed) {
  for (const char* bad : {"", ";", "* * * *", "61 * * * *; 0 * * * *", "0 * * * *; x"}) {
    ASSERT_FALSE(ParseFunctionSchedule(Cron(bad)).ok()) << bad;
    EXPECT_THAT(TaskWarnings(Cron(bad)), ElementsAre(HasSubstr("annotations.schedule"))) << bad;
  }
  EXPECT_FALSE(ParseFunctionSchedule(Cron("* * * * *", "often")).ok());
  EXPECT_THAT(TaskWarnings(Cron("* * * * *", "once")), IsEmpty());
}

TEST(DueMinute, NoMinuteComesTwice) {
  const FunctionSchedule schedule = Schedule("*/5 * * * *");
  EXPECT_EQ(DueMinute(schedule, {104, 105}), 105);
  EXPECT_FALSE(DueMinute(schedule, {105, 105})) << "the same minute";
  EXPECT_FALSE(DueMinute(schedule, {105, 103})) << "the clock was set back";
  EXPECT_FALSE(DueMinute(schedule, {105, 105}));
  EXPECT_EQ(DueMinute(schedule, {105, 110}), 110);
}

TEST(DueMinute, ALookThatComesALittleLateMissesNothing) {
  EXPECT_EQ(DueMinute(Schedule("0 * * * *"), {59, 61}), 60);
  EXPECT_FALSE(DueMinute(Schedule("0 * * * *"), {59, 62})) << "too late";
}

TEST(DueMinute, WhatWasMissedIsMadeUpForOnceWhereThatIsAskedFor) {
  EXPECT_FALSE(DueMinute(Schedule("0 * * * *"), {0, 1430}));
  const FunctionSchedule once = Schedule("0 * * * *", "once");
  EXPECT_EQ(DueMinute(once, {0, 1430}), 1380) << "the last of 23";
  EXPECT_FALSE(DueMinute(once, {1430, 1435}));
  // A clock that was not set: minute 0 is 1970.
  EXPECT_TRUE(DueMinute(once, {0, int64_t{56} * 365 * 24 * 60}).has_value());
}

Annotations InZone(const std::string& zone, const std::string& schedule) {
  Annotations annotations = Cron(schedule, "once");
  annotations["timezone"] = zone;
  return annotations;
}

TEST(FunctionSchedule, AZoneThatIsNoneIsRefusedByName) {
  EXPECT_TRUE(CheckTimeZones({}).ok());
  EXPECT_TRUE(CheckTimeZones({{"timezone", "of no matter"}}).ok()) << "it has no schedule";
  EXPECT_TRUE(CheckTimeZones(InZone("Europe/Madrid", "x; TZ=UTC 0 * * * *")).ok());
  EXPECT_THAT(CheckTimeZones(InZone("Europe/Nowhere", "0 * * * *")).error().message,
              HasSubstr("annotations.timezone: no time zone \"Europe/Nowhere\""));
  EXPECT_THAT(CheckTimeZones(Cron("0 * * * *; CRON_TZ=../x 1 * * * *")).error().message,
              HasSubstr("annotations.schedule: no time zone"));
}

// 2026-03-29 in Madrid: the clock goes from 2 to 3 at 01:00 UTC.
TEST(DueMinute, WhatAZoneSkippedIsMadeUpForLikeAnyOther) {
  const int64_t jump = 29'579'100;  // minutes from 1970 to 2026-03-29 01:00 UTC
  const auto schedule = **ParseFunctionSchedule(InZone("Europe/Madrid", "30 2 * * *"));
  EXPECT_EQ(NextMinute(schedule, jump - 60), jump);
  EXPECT_FALSE(DueMinute(schedule, {jump - 61, jump - 1}));
  EXPECT_EQ(DueMinute(schedule, {jump - 1, jump}), jump);
  EXPECT_EQ(DueMinute(schedule, {jump - 1, jump + 600}), jump) << "the board was off";
  EXPECT_FALSE(DueMinute(schedule, {jump, jump + 600})) << "and no time comes twice";
}

}  // namespace
}  // namespace pulga
