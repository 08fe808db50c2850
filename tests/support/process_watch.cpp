#include "tests/support/process_watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>

#include "base/file_io.h"
#include "base/sys.h"
#include "base/text.h"

namespace pulga::testing {
namespace {

constexpr char kRecordEnd = '\0';

std::string LinkAt(const std::string& path) {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(path, error);
  return error ? "?" : target.string();
}

std::vector<std::string> NamesIn(const std::string& path) {
  std::vector<std::string> out;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(path.c_str()), &closedir);
  while (const dirent* entry = dir == nullptr ? nullptr : readdir(dir.get())) {
    if (entry->d_name[0] != '.') out.emplace_back(entry->d_name);
  }
  return out;
}

std::string Text(const std::string& path) {
  auto read = ReadFile(path);
  if (!read.ok()) return "?";
  while (!read->empty() && (read->back() == '\n' || read->back() == '\0')) read->pop_back();
  return *read;
}

std::string Fact(const std::string& key, const std::string& value) {
  return key + ":\t" + value + "\n";
}

// "Max open files   1024   4096   files": the name ends where two spaces begin.
std::string LimitFact(std::string_view line) {
  const size_t name = line.find("  ");
  if (name == std::string_view::npos) return "";
  std::string numbers;
  for (const std::string_view word : Split(line.substr(name), ' ')) {
    const bool number = !word.empty() && (isdigit(word[0]) != 0 || word == "unlimited");
    if (number) numbers += (numbers.empty() ? "" : " ") + std::string(word);
  }
  return Fact(std::string(line.substr(0, name)), numbers);
}

std::string FactsOf(const std::string& proc) {
  std::string out = Text(proc + "/status") + "\n";
  out += Fact("oom_score_adj", Text(proc + "/oom_score_adj"));
  out += Fact("cwd", LinkAt(proc + "/cwd")) + Fact("root", LinkAt(proc + "/root"));
  std::string environment = Text(proc + "/environ");
  std::replace(environment.begin(), environment.end(), '\0', ' ');
  out += Fact("environ", environment);
  for (const std::string& kind : NamesIn(proc + "/ns")) {
    out += Fact("ns." + kind, LinkAt(proc + "/ns/" + kind));
  }
  for (const std::string& fd : NamesIn(proc + "/fd")) {
    out += Fact("fd." + fd, LinkAt(proc + "/fd/" + fd));
  }
  const std::string cgroups = Text(proc + "/cgroup");
  for (const std::string_view line : Split(cgroups, '\n')) out += Fact("cgroup", std::string(line));
  const std::string limits = Text(proc + "/limits");
  for (const std::string_view line : Split(limits, '\n')) out += LimitFact(line);
  return out;
}

void Note(int notes_fd, pid_t pid, char when) {
  const std::string proc = "/proc/" + std::to_string(pid);
  const std::string exe = LinkAt(proc + "/exe");
  const std::string note = when + exe.substr(exe.rfind('/') + 1) + "\n" + FactsOf(proc);
  (void)WriteAll(notes_fd, note + kRecordEnd);
}

// Until nobody is left to be watched.
void Watch(int notes_fd) {
  int status = 0;
  pid_t pid = 0;
  while ((pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
    if (pid <= 0 || !WIFSTOPPED(status)) continue;
    const int event = status >> 16;
    if (event == PTRACE_EVENT_EXEC) Note(notes_fd, pid, 'x');
    if (event == PTRACE_EVENT_EXIT) Note(notes_fd, pid, 'e');
    const int signal = event == 0 ? WSTOPSIG(status) : 0;
    const bool stays = event == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP;
    ptrace(stays ? PTRACE_LISTEN : PTRACE_CONT, pid, nullptr, signal);
  }
}

}  // namespace

ProcessWatch::ProcessWatch(pid_t pid) : notes_(sys::MemfdCreate("seen", MFD_CLOEXEC)) {
  int ready[2];
  EXPECT_EQ(pipe(ready), 0);
  const pid_t watcher = fork();
  if (watcher == 0) {
    CloseAllBut({notes_.get(), ready[1]});
    constexpr long kOptions = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                              PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT;
    if (ptrace(PTRACE_SEIZE, pid, nullptr, kOptions) != 0) _exit(1);
    (void)!write(ready[1], "", 1);
    close(ready[1]);
    Watch(notes_.get());
    _exit(0);
  }
  close(ready[1]);
  char byte = 0;
  EXPECT_EQ(read(ready[0], &byte, 1), 1) << "ptrace is refused";
  close(ready[0]);
  watcher_ = std::move(PidFd::OfChild(watcher)).value();
}

// Who is watched then goes on alone.
ProcessWatch::~ProcessWatch() {
  (void)watcher_.Signal(SIGKILL);
  (void)watcher_.Reap();
}

std::vector<SeenProcess> ProcessWatch::Seen() const {
  const UniqueFd notes =
      OpenFile("/proc/self/fd/" + std::to_string(notes_.get()), O_RDONLY).value();
  const std::string text = ReadFd(notes.get(), 64 << 20).value();
  std::vector<SeenProcess> out;
  for (const std::string_view note : Split(text, kRecordEnd)) {
    const size_t line = note.find('\n');
    if (line == std::string_view::npos) continue;
    const auto when = note[0] == 'x' ? SeenProcess::When::kExec : SeenProcess::When::kEnd;
    out.push_back(
        {when, std::string(note.substr(1, line - 1)), std::string(note.substr(line + 1))});
  }
  return out;
}

}  // namespace pulga::testing
