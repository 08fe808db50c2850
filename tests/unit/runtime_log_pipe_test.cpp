// What functions write to their logs: lines, their limits, and floods.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <optional>

#include "runtime/log_pipe.h"
#include "runtime/pipe_io.h"

namespace pulga {
namespace {

class LogPipeTest : public ::testing::Test {
 protected:
  LogPipeTest() : loop(std::move(EventLoop::Create().value())) {
    FunctionPipe made = std::move(MakeOutputPipe().value());
    theirs = std::move(made.theirs);
    ours = std::move(made.ours);
  }
  void Open(LogRate rate = LogRate()) {
    log.emplace(*loop, clock, logs, LogSource{key, 1, "id", "stderr"}, rate);
    ASSERT_TRUE(log->Open(std::move(ours)).ok());
  }
  // Writes it all, reading the log's side whenever the pipe is full.
  void Write(std::string_view text) {
    ASSERT_TRUE(SetTheirsNonBlocking());
    while (!text.empty()) {
      const IoResult wrote = WriteSome(theirs.get(), text);
      text.remove_prefix(wrote.size);
      loop->RunOnce(Duration::zero());
    }
  }
  bool SetTheirsNonBlocking() { return fcntl(theirs.get(), F_SETFL, O_WRONLY | O_NONBLOCK) == 0; }
  std::vector<std::string> Lines() {
    log->Finish();
    std::vector<std::string> lines;
    for (const LogLine& line : logs.Tail(key, 10000)) lines.push_back(line.text);
    return lines;
  }
  std::unique_ptr<EventLoop> loop;
  SystemClock clock;
  FunctionLogs logs;
  FunctionKey key{"o", "n", "f"};
  UniqueFd theirs, ours;
  std::optional<LogPipe> log;
};

TEST_F(LogPipeTest, CutsLinesAtFourKibibytesAndKeepsZeroBytes) {
  Open();
  Write(std::string(5000, 'x') + "\n" + std::string("a\0b\n\nend", 8));
  const std::vector<std::string> lines = Lines();
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0].size(), 4096U);
  EXPECT_EQ(lines[1], std::string("a\0b", 3));
  EXPECT_EQ(lines[2], "");
  EXPECT_EQ(lines[3], "end");
}

TEST_F(LogPipeTest, HoldsFourKibibytesOfALineThatNeverEnds) {
  Open({1000, 64 << 20});
  for (int i = 0; i < 100; ++i) Write(std::string(100000, 'x'));
  EXPECT_EQ(Lines(), std::vector<std::string>{std::string(4096, 'x')});
  EXPECT_EQ(log->tail().size(), 4096U);
}

TEST_F(LogPipeTest, DropsLinesBeyondTheRateAndSaysHowMany) {
  Open({3, 1 << 20});
  Write("1\n2\n3\n4\n5\n6\n");
  EXPECT_EQ(Lines(), (std::vector<std::string>{
                         "1", "2", "3", "3 lines of stderr dropped: more than 3 in a second"}));
  EXPECT_EQ(log->tail(), "1\n2\n3\n4\n5\n6\n");
}

TEST_F(LogPipeTest, LeavesAFloodInThePipe) {
  Open({1000, 10000});
  ASSERT_TRUE(SetTheirsNonBlocking());
  size_t written = 0;
  for (int i = 0; i < 200; ++i) {
    written += WriteSome(theirs.get(), std::string(10000, 'y')).size;
    loop->RunOnce(Duration::zero());
  }
  EXPECT_LE(written, 10000U + 65536U) << "what the rate allows, and the pipe";
}

}  // namespace
}  // namespace pulga
