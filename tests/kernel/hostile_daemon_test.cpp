// A daemon gone bad: every message with every field wrong, random bytes, wrong descriptors. The
// launcher replies with an error or ends cleanly; nothing ever happens outside its data directory.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "base/file_io.h"
#include "sandbox/access_wire.h"
#include "tests/kernel/launcher_fixture.h"

namespace pulga::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class HostileDaemon : public ::testing::Test {
 protected:
  void SetUp() override {
    PULGA_NEEDS_ROOT();
    canary_ = world_.data() + "/canary";
    fs::create_directory(canary_);
    std::ofstream(canary_ + "/file") << "untouched";
    Restart();
  }
  void TearDown() override {
    if (geteuid() != 0) return;
    socket_ = MessageSocket();
    EXPECT_TRUE(!launcher_.valid() || EndedCleanly());
    std::ifstream in(canary_ + "/file");
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "untouched");
    EXPECT_THAT(world_.Leftovers(), IsEmpty());
  }
  void Restart() {
    std::tie(launcher_, socket_) = world_.StartBareLauncher();
    timeval limit = {60, 0};
    setsockopt(socket_.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  // A code, never a signal: it must not crash.
  bool EndedCleanly() {
    const auto info = launcher_.Reap();
    return info.ok() && WIFEXITED(info->wait_status) && WEXITSTATUS(info->wait_status) <= 1;
  }
  // Sends; true when an error reply came, or the launcher ended cleanly (and was started anew).
  ::testing::AssertionResult IsRefused(const std::string& bytes, std::span<const int> fds = {}) {
    if (!socket_.Send(std::as_bytes(std::span(bytes)), fds).ok()) {
      return ::testing::AssertionFailure() << "could not send";
    }
    const auto message = socket_.Receive(16384);
    if (message.ok() && !message->bytes.empty()) {
      const auto reply = DecodeReply(message->bytes);
      if (!reply.ok()) return ::testing::AssertionFailure() << "a malformed reply";
      if (reply->status.ok()) return ::testing::AssertionFailure() << "it was accepted";
      return ::testing::AssertionSuccess();
    }
    const bool clean = EndedCleanly();
    Restart();
    if (!clean) return ::testing::AssertionFailure() << "the launcher crashed";
    return ::testing::AssertionSuccess();
  }
  static std::string Text(const WireWriter& writer) {
    return std::string(reinterpret_cast<const char*>(writer.bytes().data()), writer.bytes().size());
  }
  // The message with one field of the body after the header set.
  template <typename Body, typename Field, typename Value>
  static std::string With(std::string message, Field Body::*field, Value value) {
    Body body;
    memcpy(&body, message.data() + sizeof(LaunchHeader), sizeof body);
    body.*field = static_cast<Field>(value);
    memcpy(message.data() + sizeof(LaunchHeader), &body, sizeof body);
    return message;
  }

  LauncherWorld world_;
  std::string canary_;
  PidFd launcher_;
  MessageSocket socket_;
};

TEST_F(HostileDaemon, IsRefusedWithAnyFieldOfBuildVersionWrong) {
  using B = BuildVersionBody;
  const std::string good = Text(EncodeBuildVersion(1, world_.Spec()));
  for (const uint64_t v : {uint64_t{0}, UINT64_MAX, uint64_t{1} << 60}) {
    EXPECT_TRUE(IsRefused(With(good, &B::memory_bytes, v))) << v;
  }
  EXPECT_TRUE(IsRefused(With(good, &B::version_id, 0)));
  EXPECT_TRUE(IsRefused(With(good, &B::swap_bytes, UINT64_MAX)));
  EXPECT_TRUE(IsRefused(With(good, &B::io_read_bps, UINT64_MAX)));
  EXPECT_TRUE(IsRefused(With(good, &B::io_write_bps, UINT64_MAX)));
  EXPECT_TRUE(IsRefused(With(good, &B::tmp_bytes, UINT64_MAX)));
  EXPECT_TRUE(IsRefused(With(good, &B::cpu_millis, UINT32_MAX)));
  EXPECT_TRUE(IsRefused(With(good, &B::cpu_weight, 0)));
  EXPECT_TRUE(IsRefused(With(good, &B::cpu_weight, 10001)));
  EXPECT_TRUE(IsRefused(With(good, &B::pids, 0)));
  EXPECT_TRUE(IsRefused(With(good, &B::pids, UINT32_MAX)));
  EXPECT_TRUE(IsRefused(With(good, &B::nofile, 0)));
  EXPECT_TRUE(IsRefused(With(good, &B::nofile, UINT32_MAX)));
  EXPECT_TRUE(IsRefused(With(good, &B::slots, 0)));
  EXPECT_TRUE(IsRefused(With(good, &B::slots, 257)));
  EXPECT_TRUE(IsRefused(With(good, &B::spare_netns, 65535)));
  EXPECT_TRUE(IsRefused(With(good, &B::mode, 7)));
  EXPECT_TRUE(IsRefused(With(good, &B::init, 7)));
  EXPECT_TRUE(IsRefused(With(good, &B::meter, 2)));
  for (const uint64_t v : {uint64_t{1} << 20, UINT64_MAX, uint64_t{1} << 60, uint64_t{1} << 45}) {
    EXPECT_TRUE(IsRefused(With(good, &B::most_memory_bytes, v))) << v;
  }
  EXPECT_TRUE(IsRefused(With(good, &B::most_cpu_millis, UINT32_MAX)));
  EXPECT_TRUE(IsRefused(With(good, &B::most_cpu_millis, 1)));
}

TEST_F(HostileDaemon, IsRefusedWithSecretsThatAreNone) {
  using B = BuildVersionBody;
  VersionSpec spec = world_.Spec();
  spec.secrets = {{"good", ""}};
  const std::string good = Text(EncodeBuildVersion(1, spec));
  for (const uint32_t v : {0U, 2U, 65U, 0x7fffffffU, UINT32_MAX}) {
    EXPECT_TRUE(IsRefused(With(good, &B::secrets, v))) << v;
    EXPECT_TRUE(IsRefused(With(good, &B::secret_name_bytes, v))) << v;
  }
  for (const std::string& name :
       {std::string(), std::string(".."), std::string("../../canary/file"), std::string("/etc/x"),
        std::string(254, 'a')}) {
    spec.secrets = {{name, ""}};
    EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec)))) << name;
  }
  spec.secrets = {{"twice", ""}, {"twice", ""}};
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
  spec.secrets.assign(65, {"a", ""});
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
}

TEST_F(HostileDaemon, IsRefusedWithAnySizeThatDoesNotFit) {
  using B = BuildVersionBody;
  const std::string good = Text(EncodeBuildVersion(1, world_.Spec()));
  for (const uint32_t v : {0U, 2U, 200U, 65536U, 0x7fffffffU, UINT32_MAX}) {
    EXPECT_TRUE(IsRefused(With(good, &B::layer_count, v))) << v;
    EXPECT_TRUE(IsRefused(With(good, &B::argc, v))) << v;
    EXPECT_TRUE(IsRefused(With(good, &B::argv_bytes, v))) << v;
    EXPECT_TRUE(IsRefused(With(good, &B::envc, v))) << v;
    EXPECT_TRUE(IsRefused(With(good, &B::env_bytes, v))) << v;
  }
  for (const uint16_t v : {uint16_t{1}, uint16_t{300}, uint16_t{65535}}) {
    EXPECT_TRUE(IsRefused(With(good, &B::user_bytes, v))) << v;
    EXPECT_TRUE(IsRefused(With(good, &B::working_dir_bytes, v + 1))) << v;
    EXPECT_TRUE(IsRefused(With(good, &B::hostname_bytes, v))) << v;
    EXPECT_TRUE(IsRefused(With(good, &B::owner_bytes, v))) << v;
    EXPECT_TRUE(IsRefused(With(good, &B::function_bytes, v))) << v;
  }
}

TEST_F(HostileDaemon, IsRefusedWhenAMessageIsCutOrTooLong) {
  const std::string good = Text(EncodeBuildVersion(1, world_.Spec()));
  for (size_t size = 1; size < good.size(); size += 7) {
    EXPECT_TRUE(IsRefused(good.substr(0, size))) << size;
  }
  EXPECT_TRUE(IsRefused(good + "x"));
  EXPECT_TRUE(IsRefused(good + std::string(100000, 'x')));
}

TEST_F(HostileDaemon, GetsNowhereWithStringsThatLookLikePaths) {
  for (const std::string& dir : {std::string("relative"), std::string("/a\0b", 4),
                                 std::string("/proc/self/fd/8"), std::string(5000, '/')}) {
    VersionSpec spec = world_.Spec();
    spec.working_dir = dir;
    EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec)))) << dir;
  }
  VersionSpec spec = world_.Spec();
  spec.hostname = "../../etc";
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
  spec = world_.Spec({"../../../../" + canary_ + "/file"});
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
  spec = world_.Spec();
  spec.user = "4294967296";
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
  spec.user = "-1";
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
}

TEST_F(HostileDaemon, IsRefusedWithAnyFieldOfTheAccessWrong) {
  using H = AccessHeader;
  const VersionSpec spec = world_.Spec();
  const std::string good = Text(EncodeBuildVersion(1, spec));
  // It stands at the end: nothing asked for, nothing behind the header.
  const auto with = [&](auto H::*field, uint64_t value) {
    H header = {};
    header.*field = static_cast<std::remove_reference_t<decltype(header.*field)>>(value);
    std::string bytes = good.substr(0, good.size() - sizeof header);
    return bytes.append(reinterpret_cast<const char*>(&header), sizeof header);
  };
  for (const uint64_t v : {1, 2, 16, 17, 64, 65, 65535}) {
    EXPECT_TRUE(IsRefused(with(&H::rules, v))) << v;
    EXPECT_TRUE(IsRefused(with(&H::volumes, v))) << v;
    EXPECT_TRUE(IsRefused(with(&H::devices, v))) << v;
  }
  for (unsigned bit = 0; bit < 64; ++bit) {
    EXPECT_TRUE(IsRefused(with(&H::capabilities, 1ULL << bit))) << bit;
  }
  EXPECT_TRUE(IsRefused(with(&H::network_mode, 2)));
  EXPECT_TRUE(IsRefused(with(&H::network_mode, 3)));
  EXPECT_TRUE(IsRefused(with(&H::zero, 1)));
}

TEST_F(HostileDaemon, IsRefusedWhatWasNotGranted) {
  const std::function<void(AccessSpec&)> wishes[] = {
      [](AccessSpec& a) { a.network.mode = NetworkMode::kHost; },
      [](AccessSpec& a) { a.network.allow.resize(1); },
      [](AccessSpec& a) {
        a.volumes = {{VolumeKind::kHost, "/etc", "/x", true, 0}};
      },
      [](AccessSpec& a) {
        a.volumes = {{VolumeKind::kVolume, "../../etc", "/x", true, 0}};
      },
      [](AccessSpec& a) {
        a.volumes = {{VolumeKind::kVolume, "data", "/proc", true, 0}};
      },
      [](AccessSpec& a) {
        a.devices = {{"", "/dev/../etc/shadow", LeaseKind::kByGrant}};
      },
      [](AccessSpec& a) {
        a.devices = {{"", "/dev/mem", LeaseKind::kByGrant}};
      },
      [](AccessSpec& a) { a.capabilities = 1 << 21; },
  };
  for (const auto& wish : wishes) {
    VersionSpec spec = world_.Spec();
    wish(spec.access);
    EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
  }
}

TEST_F(HostileDaemon, IsRefusedWithAnyFieldOfAResizeWrong) {
  using B = ResizeBody;
  VersionSpec spec = world_.Spec();
  spec.limits.cpu_millis = 100;
  ASSERT_TRUE(socket_.Send(EncodeBuildVersion(1, spec).bytes()).ok());
  const auto built = socket_.Receive(16384);  // its descriptors keep the spawner
  ASSERT_TRUE(built.ok() && DecodeReply(built->bytes)->status.ok());
  const std::string good =
      Text(EncodeResize(2, {spec.version_id, spec.limits.memory_bytes, 100, 0}));
  EXPECT_TRUE(IsRefused(With(good, &B::version_id, 0)));
  EXPECT_TRUE(IsRefused(With(good, &B::version_id, 77)));
  for (const uint64_t v : {uint64_t{0}, uint64_t{4096}, spec.limits.memory_bytes + 1, UINT64_MAX}) {
    EXPECT_TRUE(IsRefused(With(good, &B::memory_bytes, v))) << v;
  }
  for (const uint32_t v : {0U, 9U, 101U, UINT32_MAX}) {
    EXPECT_TRUE(IsRefused(With(good, &B::cpu_millis, v))) << v;
  }
  EXPECT_TRUE(IsRefused(With(good, &B::zero, 1)));
  EXPECT_TRUE(IsRefused(good.substr(0, good.size() - 1)));
  EXPECT_TRUE(IsRefused(good + "x"));
  EXPECT_FALSE(IsRefused(good));
}

TEST_F(HostileDaemon, IsRefusedForSlotsAndVersionsThatAreNotThere) {
  for (const LaunchKind kind : {LaunchKind::kDropVersion, LaunchKind::kKill, LaunchKind::kReclaim,
                                LaunchKind::kCancelReclaim}) {
    const std::string good = Text(EncodeSlot(kind, 1, {77, 0, 0}));
    EXPECT_TRUE(IsRefused(good));
    EXPECT_TRUE(IsRefused(With(good, &SlotBody::version_id, 0)));
    EXPECT_TRUE(IsRefused(With(good, &SlotBody::version_id, UINT64_MAX)));
    EXPECT_TRUE(IsRefused(With(good, &SlotBody::slot, UINT32_MAX)));
    EXPECT_TRUE(IsRefused(With(good, &SlotBody::zero, 1)));
    EXPECT_TRUE(IsRefused(good.substr(0, good.size() - 1)));
  }
}

TEST_F(HostileDaemon, IsRefusedWithAnyFieldOfAnUnpackJobWrong) {
  UnpackJob job;
  job.kind = UnpackKind::kList;
  job.parents = {world_.base_layer()};
  job.request = "request";
  const std::string good = Text(EncodeUnpack(1, job));
  for (const uint32_t v : {0U, 9U, UINT32_MAX}) {
    EXPECT_TRUE(IsRefused(With(good, &UnpackBody::kind, v))) << v;
  }
  for (const uint32_t v : {0U, 2U, 129U, UINT32_MAX}) {
    EXPECT_TRUE(IsRefused(With(good, &UnpackBody::parent_count, v))) << v;
  }
  EXPECT_TRUE(IsRefused(With(good, &UnpackBody::request_bytes, UINT32_MAX)));
  EXPECT_TRUE(IsRefused(With(good, &UnpackBody::flags, 8)));
  EXPECT_TRUE(IsRefused(With(good, &UnpackBody::flags, kUnpackHasInput)));  // and no fd beside it
  for (const uint32_t flag : {kUnpackHasOutput, kUnpackHasChannel}) {
    EXPECT_TRUE(IsRefused(With(good, &UnpackBody::flags, flag))) << flag;
  }
  job.kind = UnpackKind::kRemove;  // of a layer that is not there
  EXPECT_TRUE(IsRefused(Text(EncodeUnpack(1, job))));
}

TEST_F(HostileDaemon, IsRefusedWithFilesAJobMayNotHave) {
  int pipes[2];
  ASSERT_EQ(pipe2(pipes, O_CLOEXEC), 0);
  const UniqueFd read_end(pipes[0]);
  const UniqueFd write_end(pipes[1]);
  const UniqueFd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  const UniqueFd readable(open((canary_ + "/file").c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd path_only(open((canary_ + "/file").c_str(), O_PATH | O_CLOEXEC));
  // Refused for what the file is, and not by the helper later on.
  const auto why = [&](UnpackKind kind, uint32_t flag, int fd) -> std::string {
    UnpackJob job;
    job.kind = kind;
    const std::string bytes = With(Text(EncodeUnpack(1, job)), &UnpackBody::flags, flag);
    EXPECT_TRUE(socket_.Send(std::as_bytes(std::span(bytes)), std::array{fd}).ok());
    const auto message = socket_.Receive(16384);
    if (!message.ok()) return message.error().message;
    const auto reply = DecodeReply(message->bytes);
    return reply.ok() && !reply->status.ok() ? reply->status.error().message : "accepted";
  };
  EXPECT_THAT(why(UnpackKind::kList, kUnpackHasInput, readable.get()), HasSubstr("not expected"));
  EXPECT_THAT(why(UnpackKind::kFetch, kUnpackHasInput, read_end.get()), HasSubstr("no regular"));
  EXPECT_THAT(why(UnpackKind::kList, kUnpackHasOutput, write_end.get()), HasSubstr("no regular"));
  EXPECT_THAT(why(UnpackKind::kIngest, kUnpackHasOutput, null.get()), HasSubstr("no regular"));
  EXPECT_THAT(why(UnpackKind::kIngest, kUnpackHasInput, null.get()), HasSubstr("no pipe"));
  EXPECT_THAT(why(UnpackKind::kIngest, kUnpackHasInput, write_end.get()), HasSubstr("for reading"));
  EXPECT_THAT(why(UnpackKind::kList, kUnpackHasOutput, readable.get()), HasSubstr("for writing"));
  EXPECT_THAT(why(UnpackKind::kList, kUnpackHasOutput, path_only.get()), HasSubstr("for writing"));
  EXPECT_THAT(why(UnpackKind::kList, kUnpackHasChannel, read_end.get()), HasSubstr("for writing"));
  for (const int fd : {null.get(), readable.get(), socket_.fd()}) {
    EXPECT_THAT(why(UnpackKind::kIngest, kUnpackHasChannel, fd), HasSubstr("no pipe"));
  }
}

TEST_F(HostileDaemon, IsRefusedWithAnyFieldOfAVolumeWrong) {
  VolumeRequestBody body = {};
  body.id = 77;
  for (const LaunchKind kind : {LaunchKind::kRemoveVolume, LaunchKind::kCreateVolume}) {
    const std::string bad = Text(EncodeVolume(kind, 1, body));  // not there; without a size
    EXPECT_TRUE(IsRefused(bad));
    EXPECT_TRUE(IsRefused(bad + "x"));
    EXPECT_TRUE(IsRefused(With(bad, &VolumeRequestBody::id, 0)));
  }
  EXPECT_TRUE(IsRefused(Text(EncodeVolume(LaunchKind::kListVolumes, 1, body))));
  body.bytes = 8 << 20;
  const std::string good = Text(EncodeVolume(LaunchKind::kCreateVolume, 1, body));
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{1} << 50, UINT64_MAX}) {
    EXPECT_TRUE(IsRefused(With(good, &VolumeRequestBody::bytes, bytes))) << bytes;
  }
  for (const char* label : {"../../etc/x", "-L\n", "Data", "a\0b"}) {
    VolumeRequestBody named = body;
    memcpy(named.label, label, 4);
    EXPECT_TRUE(IsRefused(Text(EncodeVolume(LaunchKind::kCreateVolume, 1, named)))) << label;
  }
  EXPECT_TRUE(IsRefused(Text(EncodeVolume(LaunchKind::kRemoveVolume, 1, body))));
  const std::string resize = Text(EncodeVolume(LaunchKind::kResizeVolume, 1, body));
  for (const uint64_t bytes : {uint64_t{0}, kMinVolumeBytes - 1, kMaxVolumeBytes + 1}) {
    EXPECT_TRUE(IsRefused(With(resize, &VolumeRequestBody::bytes, bytes))) << bytes;
  }
  EXPECT_TRUE(IsRefused(resize));  // not there
}

TEST_F(HostileDaemon, IsRefusedWithVolumesThatAreNotResolved) {
  VersionSpec spec = world_.Spec();
  VolumeMount volume;
  volume.path = "/data";
  for (const char* source : {"data", "0000000000000000", "../../../etc/pass", "00000000000000FF"}) {
    volume.source = source;
    spec.access.volumes = {volume};
    EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec)))) << source;
  }
  volume.source = VolumeSource(77);  // not there
  spec.access.volumes = {volume};
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
  volume.layers = {world_.base_layer()};  // a volume has none
  spec.access.volumes = {volume};
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
  volume.kind = VolumeKind::kDataSet;  // which is never written to
  spec.access.volumes = {volume};
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
  volume.read_only = true;
  volume.layers = {LayerId()};
  spec.access.volumes = {volume};
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
}

TEST_F(HostileDaemon, IsRefusedWhenItCancelsWhatIsNotThere) {
  const std::string good = Text(EncodeCancelUnpack(1, {77}));
  EXPECT_TRUE(IsRefused(good));
  EXPECT_TRUE(IsRefused(With(good, &CancelUnpackBody::job, 0)));
  EXPECT_TRUE(IsRefused(good.substr(0, good.size() - 1)));
  EXPECT_TRUE(IsRefused(good + "x"));
}

TEST_F(HostileDaemon, IsRefusedWhenItOpensANetworkThatIsNotOurs) {
  NetworkPlan plan;
  plan.range = {{0x0A530000}, 16};
  const std::string good = Text(EncodeOpenNetwork(1, plan));
  for (const uint32_t base : {0x00000000U, 0xCB007100U, 0x7F000000U, 0xE0000000U, 0x0A530001U}) {
    EXPECT_TRUE(IsRefused(With(good, &OpenNetworkBody::range_base, base))) << base;
  }
  for (const uint32_t bits : {0U, 8U, 11U, 25U, 32U, 33U, 256U + 16U, UINT32_MAX}) {
    EXPECT_TRUE(IsRefused(With(good, &OpenNetworkBody::range_bits, bits))) << bits;
  }
  using Ports = std::array<uint16_t, kMaxManagementPorts>;
  for (const Ports& ports : {Ports{9, 8}, Ports{8, 8}, Ports{0, 8}, Ports{8, 0, 9}}) {
    std::string bad = good;
    memcpy(bad.data() + sizeof(LaunchHeader) + offsetof(OpenNetworkBody, management_ports),
           ports.data(), sizeof ports);
    EXPECT_TRUE(IsRefused(bad)) << ports[0] << " " << ports[1];
  }
  EXPECT_TRUE(IsRefused(good.substr(0, good.size() - 1)));
  EXPECT_TRUE(IsRefused(good + "x"));
}

TEST_F(HostileDaemon, IsRefusedOutboundNetworkBeforeItIsOpen) {
  VersionSpec spec = world_.Spec();
  spec.access.network.mode = NetworkMode::kEgress;
  EXPECT_TRUE(IsRefused(Text(EncodeBuildVersion(1, spec))));
}

TEST_F(HostileDaemon, IsRefusedWithDescriptorsNobodyAskedFor) {
  const UniqueFd canary(open((canary_ + "/file").c_str(), O_RDWR | O_CLOEXEC));
  const std::vector<int> many(200, canary.get());
  for (const std::string& message :
       {Text(EncodeBuildVersion(1, world_.Spec())), Text(EncodeListLayers(1)),
        Text(EncodeVolume(LaunchKind::kListVolumes, 1, {})),
        Text(EncodeSlot(LaunchKind::kKill, 1, {77, 0, 0})), Text(EncodeUnpack(1, UnpackJob()))}) {
    EXPECT_TRUE(IsRefused(message, many));
  }
}

TEST_F(HostileDaemon, IsRefusedWithUnknownKindsAndReplies) {
  for (const uint32_t kind : {0U, 3U, 4U, 9U, 99U, 100U, UINT32_MAX}) {
    WireWriter writer;
    writer.Put(LaunchHeader{kLaunchMagic, static_cast<LaunchKind>(kind), 1});
    EXPECT_TRUE(IsRefused(Text(writer))) << kind;
  }
}

TEST_F(HostileDaemon, ChangesNothingWithRandomBytes) {
  std::mt19937 random(20260101);
  const std::string good = Text(EncodeBuildVersion(1, world_.Spec()));
  for (int i = 0; i < 300; ++i) {
    std::string bytes(random() % 400 + 1, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    if (i % 2 == 0) {  // a valid header in front
      const LaunchHeader header{kLaunchMagic, static_cast<LaunchKind>(random() % 16), 1};
      bytes.insert(0, reinterpret_cast<const char*>(&header), sizeof header);
    }
    EXPECT_TRUE(IsRefused(bytes)) << i;
  }
}

TEST_F(HostileDaemon, EndsTheLauncherByNotReading) {
  const std::string message = Text(EncodeSlot(LaunchKind::kKill, 1, {77, 0, 0}));
  fcntl(socket_.fd(), F_SETFL, O_NONBLOCK);
  pollfd gone = {launcher_.fd(), POLLIN, 0};
  for (int i = 0; i < 200000 && poll(&gone, 1, 0) == 0; ++i) {
    if (!socket_.Send(std::as_bytes(std::span(message))).ok()) usleep(1000);
  }
  EXPECT_EQ(poll(&gone, 1, 60000), 1);
}

}  // namespace
}  // namespace pulga::testing
