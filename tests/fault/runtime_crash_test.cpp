// The daemon is killed before its n-th write to the database's files, for n = 1, 2, 3 ... until the
// story is told to its end. Whatever was acknowledged is there afterwards; what was under way is
// there whole or not at all.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "base/temp_dir.h"
#include "runtime/state_store.h"

namespace pulga {
namespace {

const FunctionKey kKey{"admin", "openfaas-fn", "f"};

ImageRecord Image(char letter) {
  ImageRecord image;
  image.digest = "sha256:" + std::string(64, letter);
  image.refs = {"hello"};
  LayerRecord layer;
  layer.chain_id.bytes.fill(static_cast<uint8_t>(letter));
  image.layers = {layer};
  return image;
}

Status Deploy(StateStore& store, char image, uint32_t number) {
  StoredVersion version;
  version.number = number;
  version.spec_json = "{}";
  version.image_digest = Image(image).digest;
  PULGA_ASSIGN_OR_RETURN(const StoredVersion pending, store.AddPending(kKey, version));
  return Status(store.Activate(pending.id, 2));
}

using Step = std::function<Status(StateStore&)>;

const std::vector<Step>& Story() {
  static const std::vector<Step> story = {
      [](StateStore& s) { return s.StoreImages({Image('a')}, 1); },
      [](StateStore& s) { return Deploy(s, 'a', 0); },
      [](StateStore& s) { return s.StoreImages({Image('b')}, 2); },
      [](StateStore& s) { return Deploy(s, 'b', 0); },
      [](StateStore& s) { return Deploy(s, 'a', 1); },
      [](StateStore& s) { return Deploy(s, 'b', 0); },
      [](StateStore& s) { return s.DeleteFunction(kKey); },
      [](StateStore& s) {
        return Status(s.RemoveImages({{kDefaultOwner, Image('a').digest}}));
      },
  };
  return story;
}

std::string Summary(StateStore& store) {
  const auto state = store.Load();
  if (!state.ok()) return state.error().message;
  std::string out;
  for (const ImageRecord& image : state->images) {
    out += "image " + image.digest.substr(7, 1) + (image.refs.empty() ? "" : " named") + ", " +
           std::to_string(image.layers.size()) + " layers; ";
  }
  for (const StoredFunction& function : state->functions) {
    for (const StoredVersion& version : function.versions) {
      out += function.key.name + " " + std::to_string(version.number) + " on " +
             version.image_digest.substr(7, 1) +
             (version.state == StoredVersion::State::kActive ? " active; " : "; ");
    }
  }
  return out;
}

// What the store holds after each number of steps.
std::vector<std::string> Chapters() {
  const auto dir = TempDir::Create("/tmp/pulga-crash-");
  auto store = StateStore::Open(dir->path());
  std::vector<std::string> chapters = {Summary(**store)};
  for (const Step& step : Story()) {
    EXPECT_TRUE(step(**store).ok());
    chapters.push_back(Summary(**store));
  }
  return chapters;
}

// The child: tells the story, one byte into `acks` for each step done.
[[noreturn]] void Tell(const std::string& dir, int acks) {
  ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  raise(SIGSTOP);
  {
    auto store = StateStore::Open(dir);
    if (!store.ok()) _exit(2);
    for (const Step& step : Story()) {
      if (!step(**store).ok()) _exit(3);
      if (write(acks, "x", 1) != 1) _exit(4);
    }
  }
  _exit(0);
}

bool ChangesFiles(uint64_t number) {
#ifdef SYS_unlink  // newer architectures have unlinkat alone
  if (number == SYS_unlink) return true;
#endif
  return number == SYS_pwrite64 || number == SYS_fdatasync || number == SYS_fsync ||
         number == SYS_ftruncate || number == SYS_unlinkat;
}

enum class Ending { kKilled, kTold, kFailed };

// Lets the stopped child run until before its n-th change of a file.
Ending KillBefore(pid_t child, int nth) {
  int status = 0;
  int seen = 0;
  bool entering = true;
  ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  while (true) {
    ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    if (waitpid(child, &status, 0) != child) return Ending::kFailed;
    if (WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? Ending::kTold : Ending::kFailed;
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80)) return Ending::kFailed;
    if (!std::exchange(entering, !entering)) continue;
    __ptrace_syscall_info info = {};
    ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info);
    if (!ChangesFiles(info.entry.nr) || ++seen < nth) continue;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return Ending::kKilled;
  }
}

struct Attempt {
  Ending ending = Ending::kFailed;
  size_t acknowledged = 0;
};

Attempt RunAndKill(const std::string& dir, int nth) {
  int acks[2];
  if (pipe2(acks, O_CLOEXEC) != 0) return {};
  const pid_t child = fork();
  if (child == 0) Tell(dir, acks[1]);
  close(acks[1]);
  int status = 0;
  Attempt attempt;
  if (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
    attempt.ending = KillBefore(child, nth);
  }
  char byte;
  while (read(acks[0], &byte, 1) == 1) ++attempt.acknowledged;
  close(acks[0]);
  return attempt;
}

TEST(StateStoreCrash, KeepsWhatWasAcknowledgedAndNothingByHalves) {
  const std::vector<std::string> chapters = Chapters();
  int nth = 1;
  for (Ending ending = Ending::kKilled; ending == Ending::kKilled; ++nth) {
    const auto dir = TempDir::Create("/tmp/pulga-crash-");
    ASSERT_TRUE(dir.ok());
    const Attempt attempt = RunAndKill(dir->path(), nth);
    ending = attempt.ending;
    ASSERT_NE(ending, Ending::kFailed) << "before change " << nth;
    auto store = StateStore::Open(dir->path());
    ASSERT_TRUE(store.ok()) << "before change " << nth << ": " << store.error().message;
    const std::string now = Summary(**store);
    const size_t next = std::min(attempt.acknowledged + 1, Story().size());
    EXPECT_TRUE(now == chapters[attempt.acknowledged] || now == chapters[next])
        << "before change " << nth << ", " << attempt.acknowledged << " acknowledged: " << now;
  }
  EXPECT_GT(nth, 30);  // or nothing was tried
}

}  // namespace
}  // namespace pulga
