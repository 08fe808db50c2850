// frames mode: the one descriptor beside stdio that an instance inherits, and only in this mode.
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class LauncherFrames : public LauncherTest {
 protected:
  VersionSpec FramesSpec() {
    VersionSpec spec = world_.Spec();
    spec.mode = SandboxMode::kFrames;
    return spec;
  }
  StartOptions WithChannel() {
    StartOptions options = world_.WithPipes(stdio_);
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    ours_.Reset(pair[0]);
    options.channel_fd.Reset(pair[1]);
    return options;
  }
  std::string Ended() {
    EXPECT_TRUE(world_.Until([&] { return !events_.exits.empty(); }));
    char text[4096];
    const ssize_t n = read(stdio_.out.get(), text, sizeof text);
    return n > 0 ? std::string(text, static_cast<size_t>(n)) : "";
  }
  Stdio stdio_;
  UniqueFd ours_;
};

TEST_F(LauncherFrames, GivesTheChannelAndNothingElse) {
  Build(FramesSpec());
  StartOptions options = WithChannel();
  options.extra_args = {"fds"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  const std::string seen = Ended();
  EXPECT_THAT(seen, HasSubstr("\n3 -> socket:"));
  EXPECT_EQ(seen.find("\n4 "), std::string::npos) << seen;
}

TEST_F(LauncherFrames, TheInstanceIsTheOnlyOneThatHoldsItsEnd) {
  Build(FramesSpec());
  StartOptions options = WithChannel();
  options.extra_args = {"fds"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  Ended();
  char byte;
  EXPECT_EQ(recv(ours_.get(), &byte, 1, 0), 0) << "the spawner kept a copy";
}

TEST_F(LauncherFrames, ItsProgramIsPidOneAsAServerIs) {
  Build(FramesSpec());
  StartOptions options = WithChannel();
  options.extra_args = {"status"};
  ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
  EXPECT_EQ(StatusField(Ended(), "Pid"), "1");
}

TEST_F(LauncherFrames, ASpawnerServesNoStartWithoutAChannelOrWithOneTooMany) {
  for (const SandboxMode mode : {SandboxMode::kFrames, SandboxMode::kExec, SandboxMode::kHttp}) {
    events_.gone.clear();
    VersionSpec spec = FramesSpec();
    spec.mode = mode;
    Build(spec);
    StartOptions options = WithChannel();
    if (mode == SandboxMode::kFrames) options.channel_fd.Reset();
    ASSERT_TRUE(spawner_->Start(0, std::move(options)).ok());
    EXPECT_TRUE(world_.Until([&] { return !events_.gone.empty(); }));
    EXPECT_THAT(events_.exits, IsEmpty());
    spawner_.reset();
  }
}

}  // namespace
}  // namespace pulga::testing
