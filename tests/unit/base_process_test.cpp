#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <vector>

#include "base/exit_event.h"
#include "base/file_io.h"
#include "base/message_socket.h"
#include "base/process.h"
#include "base/sys.h"

namespace pulga {
namespace {

SpawnOptions Shell(const std::string& script) {
  SpawnOptions options;
  options.argv = {"/bin/sh", "-c", script};
  options.env = {"PATH=/usr/bin:/bin", "GREETING=hello"};
  return options;
}

size_t OpenFds() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

// Runs the script with its stdout in a pipe; everything it wrote.
std::string OutputOf(SpawnOptions options) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return "pipe2 failed";
  const UniqueFd read_end(fds[0]);
  UniqueFd write_end(fds[1]);
  options.fds.emplace_back(write_end.get(), 1);
  auto child = SpawnProcess(options);
  write_end.Reset();
  if (!child.ok()) return child.error().message;
  auto output = ReadFd(read_end.get(), 1 << 20);
  (void)child->Reap();
  return output.ok() ? *output : output.error().message;
}

// True once `fd` is readable; a minute at most.
bool BecomesReadable(int fd) {
  pollfd wait = {fd, POLLIN, 0};
  int n;
  do {  // the handler of SIGCHLD interrupts it
    n = poll(&wait, 1, 60000);
  } while (n < 0 && errno == EINTR);
  return n == 1;
}

TEST(Process, TheChildGetsItsArgumentsAndOnlyItsEnvironment) {
  EXPECT_EQ(OutputOf(Shell("echo $GREETING $HOME")), "hello\n");
}

TEST(Process, TheChildGetsNoDescriptorButThoseGiven) {
  const UniqueFd extra(open("/dev/null", O_RDONLY));  // not CLOEXEC on purpose
  ASSERT_TRUE(extra.valid());
  SpawnOptions options = Shell("ls /proc/self/fd | wc -l");
  options.fds = {{0, 0}};
  EXPECT_EQ(OutputOf(options), "4\n");  // 0, 1, 2 and ls's own directory
}

TEST(Process, DescriptorsMaySwapNumbers) {
  int first[2];
  int second[2];
  ASSERT_EQ(pipe2(first, O_CLOEXEC), 0);
  ASSERT_EQ(pipe2(second, O_CLOEXEC), 0);
  const UniqueFd fds[] = {UniqueFd(first[0]), UniqueFd(first[1]), UniqueFd(second[0]),
                          UniqueFd(second[1])};
  SpawnOptions options;
  // Each write end lands on the other's number.
  options.argv = {"/bin/bash", "-c",
                  "printf first >&" + std::to_string(second[1]) + "; printf second >&" +
                      std::to_string(first[1])};
  options.fds = {{first[1], second[1]}, {second[1], first[1]}};
  auto child = SpawnProcess(options);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child->Reap()->wait_status, 0);
  char buffer[16];
  EXPECT_EQ(std::string(buffer, static_cast<size_t>(read(first[0], buffer, 16))), "first");
  EXPECT_EQ(std::string(buffer, static_cast<size_t>(read(second[0], buffer, 16))), "second");
}

TEST(Process, AMissingProgramIsReportedHereWithItsErrno) {
  SpawnOptions options;
  options.argv = {"/no/such/program"};
  const auto child = SpawnProcess(options);
  ASSERT_FALSE(child.ok());
  EXPECT_EQ(child.error().message, "start /no/such/program: No such file or directory");
}

TEST(Process, ADescriptorThatCannotBeHandedOverIsReportedBeforeAnythingRuns) {
  SpawnOptions options = Shell("exit 0");
  options.fds = {{-1, 3}};
  const size_t before = OpenFds();
  const auto started = SpawnProcess(options);
  ASSERT_FALSE(started.ok());
  EXPECT_EQ(started.error().sys_errno, EBADF);
  EXPECT_EQ(OpenFds(), before);
}

TEST(Process, ReapTellsHowItEnded) {
  auto child = SpawnProcess(Shell("exit 7"));
  ASSERT_TRUE(child.ok());
  const auto exit = child->Reap();
  ASSERT_TRUE(exit.ok());
  EXPECT_EQ(WEXITSTATUS(exit->wait_status), 7);
  EXPECT_FALSE(child->valid());
}

TEST(Process, ThePidFdBecomesReadableWhenTheProcessEnds) {
  auto child = SpawnProcess(Shell("exec sleep 60"));
  ASSERT_TRUE(child.ok());
  pollfd waiting = {child->fd(), POLLIN, 0};
  EXPECT_EQ(poll(&waiting, 1, 0), 0);
  ASSERT_TRUE(child->Signal(SIGKILL).ok());
  EXPECT_TRUE(BecomesReadable(child->fd()));
  EXPECT_EQ(WTERMSIG(child->Reap()->wait_status), SIGKILL);
}

TEST(Process, AReapedProcessCannotBeSignalled) {
  auto child = SpawnProcess(Shell("exit 0"));
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(child->Reap().ok());
  EXPECT_EQ(child->Signal(SIGTERM).error().code, Code::kNotFound);
  EXPECT_FALSE(child->Reap().ok());
}

TEST(Process, AFailingCallLeavesNoDescriptorAndNoChild) {
  const size_t before = OpenFds();
  int n = 1;
  for (; n < 10; ++n) {
    sys::FailNthCall(n, ENOMEM);
    auto child = SpawnProcess(Shell("exit 0"));
    sys::FailNthCall(0, 0);
    if (child.ok()) {
      (void)child->Reap();
      break;
    }
    EXPECT_EQ(OpenFds(), before) << "call " << n;
  }
  EXPECT_GT(n, 2);
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a child was left";
}

TEST(MessageSocket, CarriesWholeMessages) {
  const auto pair = *MessageSocket::Pair();
  ASSERT_TRUE(pair.first.SendPod(uint32_t{1}).ok());
  ASSERT_TRUE(pair.first.SendPod(uint64_t{2}).ok());
  EXPECT_EQ(pair.second.Receive(64)->bytes.size(), sizeof(uint32_t));
  EXPECT_EQ(pair.second.Receive(64)->bytes.size(), sizeof(uint64_t));
}

TEST(MessageSocket, PassesDescriptorsCloseOnExec) {
  const auto pair = *MessageSocket::Pair();
  const UniqueFd null_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fds[] = {null_fd.get(), null_fd.get()};
  ASSERT_TRUE(pair.first.SendPod('x', fds).ok());
  const auto message = pair.second.Receive(64);
  ASSERT_TRUE(message.ok());
  ASSERT_EQ(message->fds.size(), 2u);
  EXPECT_EQ(fcntl(message->fds[0].get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(MessageSocket, ATooLongMessageIsDroppedWithItsDescriptors) {
  const auto pair = *MessageSocket::Pair();
  const UniqueFd null_fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int fds[] = {null_fd.get()};
  const size_t before = OpenFds();
  ASSERT_TRUE(pair.first.Send(std::as_bytes(std::span("too long", 8)), fds).ok());
  EXPECT_EQ(pair.second.Receive(4).error().code, Code::kTooLarge);
  EXPECT_EQ(OpenFds(), before);
  ASSERT_TRUE(pair.first.SendPod('y').ok());
  EXPECT_EQ(pair.second.Receive(4)->bytes, "y");
}

TEST(MessageSocket, AClosedPeerIsEndOfFileAndThenUnavailable) {
  auto pair = *MessageSocket::Pair();
  pair.first = MessageSocket();
  EXPECT_EQ(pair.second.Receive(64)->bytes, "");
  EXPECT_EQ(pair.second.SendPod('x').error().code, Code::kUnavailable);
}

TEST(MessageSocket, AnEmptyQueueIsUnavailableWhenNonBlocking) {
  const auto pair = *MessageSocket::Pair();
  ASSERT_TRUE(SetNonBlocking(pair.second.fd()).ok());
  const auto nothing = pair.second.Receive(64);
  EXPECT_EQ(nothing.error().sys_errno, EAGAIN);
  EXPECT_EQ(nothing.error().code, Code::kUnavailable);
}

TEST(ExitEvent, TellsOfEachChildByItself) {
  constexpr size_t kChildren = 20;
  std::vector<pid_t> pids;
  std::vector<ExitEvent> events;
  for (size_t i = 0; i < kChildren; ++i) {
    const pid_t pid = fork();
    if (pid == 0) _exit(pause());
    pids.push_back(pid);
    events.push_back(std::move(ExitEvent::OfChild(pid)).value());
  }
  for (size_t i = 0; i < kChildren; ++i) {
    pollfd silent = {events[i].fd(), POLLIN, 0};
    EXPECT_EQ(poll(&silent, 1, 0), 0) << "child " << i << " is alive";
    kill(pids[i], SIGKILL);
    EXPECT_TRUE(BecomesReadable(events[i].fd()));
    EXPECT_EQ(waitpid(pids[i], nullptr, 0), pids[i]) << "the event reaps nobody";
  }
}

TEST(ExitEvent, TellsOfOneThatHasEndedBefore) {
  const pid_t pid = fork();
  if (pid == 0) _exit(3);
  siginfo_t info = {};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
  const ExitEvent event = std::move(ExitEvent::OfChild(pid)).value();
  EXPECT_TRUE(BecomesReadable(event.fd()));
  EXPECT_EQ(waitpid(pid, nullptr, 0), pid);
}

TEST(ExitEvent, IsRefusedOfWhatIsNoChild) {
  const pid_t pid = fork();
  if (pid == 0) _exit(0);
  ASSERT_EQ(waitpid(pid, nullptr, 0), pid);
  const auto event = ExitEvent::OfChild(pid);  // of which nothing would ever be heard
  ASSERT_FALSE(event.ok());
  EXPECT_EQ(event.error().sys_errno, ESRCH);
}

TEST(ExitEvent, IsNoBusinessOfAForkedProcess) {
  const pid_t child = fork();
  if (child == 0) _exit(pause());
  const ExitEvent event = std::move(ExitEvent::OfChild(child)).value();
  const pid_t fork_of_us = fork();
  if (fork_of_us == 0) {  // a child of its own ends: its handler must leave our descriptor alone
    const pid_t own = fork();
    if (own == 0) _exit(0);
    _exit(waitpid(own, nullptr, 0) == own ? 0 : 1);
  }
  EXPECT_EQ(waitpid(fork_of_us, nullptr, 0), fork_of_us);
  pollfd silent = {event.fd(), POLLIN, 0};
  EXPECT_EQ(poll(&silent, 1, 0), 0);
  kill(child, SIGKILL);
  EXPECT_TRUE(BecomesReadable(event.fd()));
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

}  // namespace
}  // namespace pulga
