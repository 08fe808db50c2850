// What goes to a spawner and to a parked instance, from a daemon gone bad: wrong sizes, kinds,
// slots and numbers of descriptors, random bytes. The spawner refuses by ending; a parked instance
// takes only itself along. And what a spawner holds while it serves.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "sandbox/secrets_mount.h"
#include "sandbox/spawn_protocol.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;

class HostileSpawner : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    std::ofstream(world_.data() + "/canary") << "untouched";
    canary_.Reset(open((world_.data() + "/canary").c_str(), O_RDWR | O_CLOEXEC));
    std::tie(launcher_, to_launcher_) = world_.StartBareLauncher();
    SetLimit(to_launcher_);
    BuildNext();
  }
  void TearDown() override {
    if (geteuid() != 0) return;
    to_launcher_ = MessageSocket();
    EXPECT_TRUE(launcher_.Reap().ok());
    std::ifstream in(world_.data() + "/canary");
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "untouched");
    EXPECT_THAT(world_.Leftovers(), IsEmpty());
  }
  static void SetLimit(const MessageSocket& socket) {
    timeval limit = {60, 0};
    setsockopt(socket.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  void BuildNext() {
    if (version_ > 0) {
      ASSERT_TRUE(
          to_launcher_.Send(EncodeSlot(LaunchKind::kDropVersion, 1, {version_, 0, 0}).bytes())
              .ok());
      ASSERT_TRUE(to_launcher_.Receive(16384).ok());
    }
    VersionSpec spec = world_.Spec();
    spec.version_id = ++version_;
    spec.secrets = secrets_;
    ASSERT_TRUE(to_launcher_.Send(EncodeBuildVersion(1, spec).bytes()).ok());
    auto reply = to_launcher_.Receive(16384);
    ASSERT_TRUE(reply.ok());
    ASSERT_EQ(reply->fds.size(), 2U);
    socket_ = MessageSocket(std::move(reply->fds[0]));
    SetLimit(socket_);
    ASSERT_EQ(Next().kind, SpawnEventKind::kMemoryFds);
    ASSERT_EQ(Next().kind, SpawnEventKind::kStatFds);
    spawner_ = FindSpawner();
    ASSERT_GT(spawner_, 0);
  }
  pid_t FindSpawner() const {
    for (const auto& process : fs::directory_iterator("/proc")) {
      std::ifstream in(process.path() / "status");
      const std::string status(std::istreambuf_iterator<char>(in), {});
      if (StatusField(status, "Name") != "pulga-spawner") continue;
      if (StatusField(status, "PPid") != std::to_string(launcher_.pid())) continue;
      if (StatusField(status, "State").rfind('Z', 0) == 0) continue;
      return std::stoi(process.path().filename());
    }
    return -1;
  }
  // {} when the spawner is gone. What came with it is in fds_.
  SpawnEvent Next() {
    SpawnEvent event = {};
    auto message = socket_.Receive(sizeof event);
    if (!message.ok() || message->bytes.size() != sizeof event) return {};
    memcpy(&event, message->bytes.data(), sizeof event);
    fds_ = std::move(message->fds);
    return event;
  }
  static std::string Request(SpawnKind kind, uint16_t slot = 0, uint16_t number = 0) {
    SpawnRequest request = {};
    request.kind = kind;
    request.slot = slot;
    request.number = number;
    return std::string(reinterpret_cast<const char*>(&request), sizeof request);
  }
  Status Send(const MessageSocket& to, const std::string& bytes, size_t fd_count = 0) {
    const std::vector<int> fds(fd_count, canary_.get());
    return to.Send(std::as_bytes(std::span(bytes)), fds);
  }
  // The spawner ends rather than serve; it says nothing before.
  ::testing::AssertionResult EndsSpawner(const std::string& bytes, size_t fd_count = 0) {
    if (!Send(socket_, bytes, fd_count).ok()) return ::testing::AssertionFailure() << "not sent";
    pollfd said = {socket_.fd(), POLLIN, 0};
    if (poll(&said, 1, 60000) != 1) return ::testing::AssertionFailure() << "it took that";
    if (Next().kind != SpawnEventKind{}) return ::testing::AssertionFailure() << "it answered";
    BuildNext();
    return ::testing::AssertionSuccess();
  }
  std::vector<std::string> HeldFds() const {
    std::vector<std::string> out;
    for (const auto& fd : fs::directory_iterator("/proc/" + std::to_string(spawner_) + "/fd")) {
      std::error_code gone;  // closed meanwhile
      const fs::path target = fs::read_symlink(fd.path(), gone);
      if (!gone) out.push_back(target);
    }
    return out;
  }
  // What it keeps in reserve is made again after its answer: the most and, later, the least.
  size_t MostFds() const {
    size_t most = 0;
    for (int i = 0; i < 20; ++i, usleep(10000)) most = std::max(most, HeldFds().size());
    return most;
  }
  bool HoldsAtMost(size_t count) const {
    for (int i = 0; i < 6000 && HeldFds().size() > count; ++i) usleep(10000);
    return HeldFds().size() <= count;
  }
  // A parked instance in slot 0 that has said it is ready.
  MessageSocket Park() {
    EXPECT_TRUE(Send(socket_, Request(SpawnKind::kPark)).ok());
    EXPECT_EQ(Next().kind, SpawnEventKind::kWakeSocket);
    if (fds_.size() != 1) return {};
    MessageSocket wake(std::move(fds_[0]));
    SetLimit(wake);
    EXPECT_TRUE(wake.Receive(1).ok());
    return wake;
  }

  LauncherWorld world_;
  UniqueFd canary_;
  PidFd launcher_;
  MessageSocket to_launcher_;
  MessageSocket socket_;
  std::vector<UniqueFd> fds_;
  std::vector<SecretFile> secrets_;  // of the next version
  uint64_t version_ = 0;
  pid_t spawner_ = -1;
};

TEST_F(HostileSpawner, RefusesAnyOtherNumberOfDescriptorsThanItsKindHas) {
  for (const size_t count : {0, 1, 2, 4, 5, 64, 253}) {
    EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kStart), count)) << count;
  }
  for (const size_t count : {1, 2, 3, 4, 253}) {
    EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kPark), count)) << count;
    EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kSignal, 0, SIGTERM), count)) << count;
    EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kSockets, 0, 1), count)) << count;
    EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kSecrets), count)) << count << ", without secrets";
  }
}

TEST_F(HostileSpawner, RefusesWrongKindsSlotsNumbersAndSizes) {
  for (const uint32_t kind : {0U, 3U, 6U, UINT32_MAX}) {
    EXPECT_TRUE(EndsSpawner(Request(static_cast<SpawnKind>(kind)))) << kind;
  }
  for (const uint16_t slot : {uint16_t{1000}, uint16_t{65535}}) {
    EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kPark, slot))) << slot;
    EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kStart, slot), 3)) << slot;
  }
  EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kSignal, 0, 65)));
  EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kSockets, 0, 65)));
  EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kStart).substr(0, 20), 3));
  EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kStart) + "surplus", 3));
  EXPECT_TRUE(EndsSpawner(std::string(kMaxSpawnMessage + 1, 'x'), 3));
}

TEST_F(HostileSpawner, TakesNoSecretsThatDoNotAddUp) {
  secrets_ = {{"a", ""}, {"b", ""}};
  BuildNext();
  for (const size_t count : {0, 2, 3, 4}) {
    EXPECT_TRUE(EndsSpawner(Request(SpawnKind::kSecrets), count)) << count;
  }
  const auto one = MakeSecretBundle({{"a", "1"}});
  const auto three = MakeSecretBundle({{"a", "1"}, {"b", "2"}, {"c", "3"}});
  const auto large = MakeSecretBundle({{"a", std::string(kMaxSecretBytes + 1, 'x')}, {"b", ""}});
  const auto good = MakeSecretBundle({{"a", "1"}, {"b", "2"}});
  const std::string request = Request(SpawnKind::kSecrets);
  for (const int fd :
       {canary_.get(), one->get(), three->get(), large->get(), socket_.fd(), good->get()}) {
    ASSERT_TRUE(socket_.Send(std::as_bytes(std::span(request)), std::span(&fd, 1)).ok());
    const SpawnEvent answer = Next();
    ASSERT_EQ(answer.kind, SpawnEventKind::kSecrets);
    EXPECT_EQ(answer.sys_errno == 0, fd == good->get()) << answer.sys_errno;
  }
}

TEST_F(HostileSpawner, EndsOrStaysButNeverLeaksWithRandomBytes) {
  std::mt19937 random(20260102);
  for (int i = 0; i < 20; ++i) {
    std::string bytes(random() % 60 + 1, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_TRUE(EndsSpawner(bytes, random() % 6)) << i;
  }
}

TEST_F(HostileSpawner, LosesOnlyTheInstanceToABadWakeMessage) {
  (void)Park();
  ASSERT_EQ(Next().kind, SpawnEventKind::kExit);  // let go of: whatever is opened lazily is open
  const size_t before = MostFds();
  const std::string wake = Request(SpawnKind::kWake);
  std::mt19937 random(20260103);
  std::vector<std::pair<std::string, size_t>> messages = {{Request(SpawnKind::kStart), 3},
                                                          {wake.substr(0, 8), 3},
                                                          {wake + "surplus", 3},
                                                          {std::string(40, '\xff'), 3},
                                                          {std::string(40, '\xff'), 0}};
  for (const size_t count : {0, 1, 2, 4, 5, 64, 253}) messages.emplace_back(wake, count);
  for (const auto& [bytes, count] : messages) {
    const MessageSocket socket = Park();
    ASSERT_TRUE(Send(socket, bytes, count).ok());
    const SpawnEvent end = Next();
    ASSERT_EQ(end.kind, SpawnEventKind::kExit);
    EXPECT_STREQ(end.step, "wake") << bytes.size() << " bytes, fds: " << count;
  }
  EXPECT_TRUE(HoldsAtMost(before)) << HeldFds().size() << " fds, " << before << " before";
  EXPECT_EQ(FindSpawner(), spawner_);
}

TEST_F(HostileSpawner, HoldsNothingOfTheHostButCgroupFiles) {
  (void)Park();
  ASSERT_EQ(Next().kind, SpawnEventKind::kExit);
  for (const std::string& name : HeldFds()) {
    bool known = false;
    for (const char* kind : {"socket:[", "pipe:[", "net:[", "mnt:[", "anon_inode:[signalfd]",
                             "anon_inode:[landlock-ruleset]", "anon_inode:seccomp notify",
                             "/memfd:", "/dev/null", "/null"}) {
      known = known || name.rfind(kind, 0) == 0;
    }
    known = known || name.find(world_.tree()) != std::string::npos;
    EXPECT_TRUE(known) << name;
  }
}

}  // namespace
}  // namespace pulga::testing
