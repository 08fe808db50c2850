// Who reads an image's /etc/passwd for the launcher, stopped as it answers: what is left to it.
#include "sandbox/confined_lookup.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "sandbox/cgroup.h"
#include "sandbox/id_ranges.h"
#include "tests/support/kernel_test.h"

namespace pulga {
namespace {

namespace fs = std::filesystem;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

constexpr uint64_t kLeastAnswer = 100;  // bytes; what else it writes are a few digits

class ConfinedLookup : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEED(geteuid() == 0, "giving privileges up needs some");
    root_ = std::make_unique<TempDir>(std::move(TempDir::Create("/tmp/pulga-lookup-")).value());
    ASSERT_EQ(chmod(root_->path().c_str(), 0755), 0);
    fs::create_directory(root_->path() + "/etc");
    std::ofstream(root_->path() + "/etc/passwd") << "app:x:1000:1001::/:\n";
    name_ = "pulga-test-" + std::to_string(getpid());
    tree_ =
        std::move(CgroupTree::Open(name_, PlanCgroupLayout(*ReadCgroupSnapshot()).value())).value();
    SandboxLimits limits;
    limits.memory_bytes = 16 << 20;
    cgroup_ = std::move(tree_->CreateJob("lookup", limits)).value();
    asker_ = fork();
    if (asker_ == 0) Ask();
    RunToTheAnswer();
    ASSERT_GT(reader_, 0) << "no reader, or no answer of it";
  }
  void TearDown() override {
    for (const pid_t pid : {reader_, asker_}) {
      if (pid <= 0) continue;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, __WALL);
    }
    EXPECT_TRUE(tree_ == nullptr || tree_->Remove().ok());
  }

  [[noreturn]] void Ask() {
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    const UniqueFd root(open(root_->path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const auto found = LookUpUser(root.get(), "app", kOwnerIdBase, cgroup_.join);
    _exit(found.ok() && found->uid == 1000 && found->gid == 1001 ? 0 : 1);
  }
  // Until the reader is about to write it.
  void RunToTheAnswer() {
    int status = 0;
    ASSERT_EQ(waitpid(asker_, &status, 0), asker_);
    constexpr long kOptions = PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD;
    ASSERT_EQ(ptrace(PTRACE_SETOPTIONS, asker_, 0, kOptions), 0);
    ASSERT_EQ(ptrace(PTRACE_CONT, asker_, 0, 0), 0);
    pid_t pid;
    while ((pid = waitpid(-1, &status, __WALL)) > 0) {
      if (!WIFSTOPPED(status)) return;
      if (pid != asker_ && IsAnswer(pid)) {
        reader_ = pid;
        return;
      }
      ptrace(pid == asker_ ? PTRACE_CONT : PTRACE_SYSCALL, pid, 0, 0);
    }
  }
  static bool IsAnswer(pid_t pid) {
    __ptrace_syscall_info info = {};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) <= 0) return false;
    return info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_write &&
           info.entry.args[2] > kLeastAnswer;
  }
  std::string Of(const std::string& file) {
    std::ifstream in("/proc/" + std::to_string(reader_) + "/" + file);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static ino_t Namespace(pid_t pid, const std::string& kind) {
    struct stat st = {};
    EXPECT_EQ(stat(("/proc/" + std::to_string(pid) + "/ns/" + kind).c_str(), &st), 0);
    return st.st_ino;
  }

  std::unique_ptr<TempDir> root_;
  std::string name_;
  std::unique_ptr<CgroupTree> tree_;
  JobCgroup cgroup_;
  pid_t asker_ = 0;
  pid_t reader_ = 0;
};

TEST_F(ConfinedLookup, IsNobodyInNamespacesOfItsOwn) {
  for (const char* kind : {"net", "pid", "ipc"}) {
    EXPECT_NE(Namespace(reader_, kind), Namespace(getpid(), kind)) << kind;
  }
  const std::string status = Of("status");
  const std::string id = std::to_string(kOwnerIdBase);
  EXPECT_THAT(status, ContainsRegex("Uid:\t" + id + "\t" + id + "\t" + id));
  EXPECT_THAT(status, ContainsRegex("Gid:\t" + id + "\t" + id + "\t" + id));
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_THAT(status, HasSubstr(std::string(set) + ":\t0000000000000000\n"));
  }
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1\n"));
  EXPECT_THAT(status, HasSubstr("Seccomp:\t2\n"));
  EXPECT_EQ(fs::read_symlink("/proc/" + std::to_string(reader_) + "/root"), root_->path());
}

TEST_F(ConfinedLookup, IsInTheCgroupItWasGiven) {
  EXPECT_THAT(Of("cgroup"),
              ContainsRegex("memory[^\n]*/" + name_ + "/lookup\n|^0::.*/" + name_ + "/lookup\n"));
}

TEST_F(ConfinedLookup, DiesWithWhoAsked) {
  ASSERT_EQ(kill(asker_, SIGKILL), 0);
  ASSERT_EQ(waitpid(asker_, nullptr, __WALL), asker_);
  asker_ = 0;
  int status = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  pid_t ended = 0;
  while ((ended = waitpid(reader_, &status, __WALL | WNOHANG)) == 0 || WIFSTOPPED(status)) {
    if (std::chrono::steady_clock::now() > end) break;
    usleep(1000);
  }
  ASSERT_EQ(ended, reader_) << "it is still there";
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
  reader_ = 0;
}

}  // namespace
}  // namespace pulga
