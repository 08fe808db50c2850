#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "sandbox/default_signal.h"

namespace pulga {
namespace {

// As /proc/PID/status has them; bit 14 is SIGTERM.
constexpr char kNothing[] =
    "Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000002\n";

TEST(DefaultSignal, IsWhatIsNeitherBlockedNorIgnoredNorCaught) {
  EXPECT_TRUE(LeavesToDefault(kNothing, SIGTERM));
  EXPECT_FALSE(LeavesToDefault(kNothing, SIGINT));
  for (const char* mask : {"SigBlk:\t", "SigIgn:\t", "SigCgt:\t"}) {
    std::string status = kNothing;
    status.replace(status.find(mask) + strlen(mask), 16, "0000000000004000");
    EXPECT_FALSE(LeavesToDefault(status, SIGTERM)) << mask;
  }
}

TEST(DefaultSignal, IsNotGuessedFromAnIncompleteStatus) {
  const std::string whole = kNothing;
  EXPECT_FALSE(LeavesToDefault("", SIGTERM));
  EXPECT_FALSE(LeavesToDefault(whole.substr(0, whole.find("SigCgt")), SIGTERM));
  std::string garbled = whole;
  garbled.replace(garbled.find("SigIgn:\t") + 8, 2, "zz");
  EXPECT_FALSE(LeavesToDefault(garbled, SIGTERM));
  EXPECT_FALSE(LeavesToDefault(whole, 0));
  EXPECT_FALSE(LeavesToDefault(whole, 65));
}

TEST(DefaultSignal, IsReadFromTheProcessItself) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGTERM, SIG_DFL);
    while (true) pause();
  }
  struct sigaction before = {};
  struct sigaction mine = {};
  mine.sa_handler = SIG_IGN;
  ASSERT_EQ(sigaction(SIGTERM, &mine, &before), 0);
  EXPECT_EQ(AsOrdinarySignal(getpid(), SIGTERM), SIGTERM);
  ASSERT_EQ(sigaction(SIGTERM, &before, nullptr), 0);
  EXPECT_EQ(AsOrdinarySignal(child, SIGTERM), SIGKILL);
  EXPECT_EQ(AsOrdinarySignal(child, SIGINT), SIGINT);
  EXPECT_EQ(AsOrdinarySignal(-1, SIGTERM), SIGTERM);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace pulga
