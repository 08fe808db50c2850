// Granted devices: what a cgroup is told of them, what appears in /dev, who holds them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <cerrno>

#include "base/file_io.h"
#include "base/temp_dir.h"
#include "sandbox/cgroup_dialect.h"
#include "sandbox/granted_device.h"

namespace pulga {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const DeviceRule kGpio = {DeviceKind::kCharacter, 254, 0};
const DeviceRule kDisk = {DeviceKind::kBlock, 7, 300};

constexpr uint32_t kRead = BPF_DEVCG_ACC_READ;
constexpr uint32_t kWrite = BPF_DEVCG_ACC_WRITE;
constexpr uint32_t kMake = BPF_DEVCG_ACC_MKNOD;

// The few instructions MakeDeviceProgram uses; -1 for any other, and for running off the end.
int Run(const std::vector<bpf_insn>& program, const bpf_cgroup_dev_ctx& context) {
  uint64_t regs[11] = {};
  for (size_t at = 0; at < program.size(); ++at) {
    const bpf_insn& i = program[at];
    uint64_t& to = regs[i.dst_reg];
    const auto value = static_cast<uint64_t>(int64_t{i.imm});
    switch (i.code) {
      case BPF_LDX | BPF_MEM | BPF_W: {
        uint32_t word = 0;
        memcpy(&word, reinterpret_cast<const char*>(&context) + i.off, sizeof word);
        to = word;
        break;
      }
      case BPF_ALU64 | BPF_MOV | BPF_X:
        to = regs[i.src_reg];
        break;
      case BPF_ALU64 | BPF_MOV | BPF_K:
        to = value;
        break;
      case BPF_ALU64 | BPF_AND | BPF_K:
        to &= value;
        break;
      case BPF_ALU64 | BPF_RSH | BPF_K:
        to >>= value;
        break;
      case BPF_JMP | BPF_JNE | BPF_K:
        if (to != value) at += static_cast<size_t>(i.off);
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        if (to == value) at += static_cast<size_t>(i.off);
        break;
      case BPF_JMP | BPF_EXIT:
        return static_cast<int>(regs[0]);
      default:
        return -1;
    }
  }
  return -1;
}

int Ask(const std::vector<bpf_insn>& program, DeviceRule rule, uint32_t access) {
  const uint32_t kind = rule.kind == DeviceKind::kBlock ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR;
  return Run(program, {access << 16 | kind, rule.major, rule.minor});
}

TEST(DeviceProgram, LetsWhatARuleNamesBeOpenedAndNothingElse) {
  std::vector<DeviceRule> rules = HarmlessDevices();
  rules.push_back(kGpio);
  rules.push_back(kDisk);
  const auto program = MakeDeviceProgram(rules);
  for (const DeviceRule& rule : rules) {
    for (const uint32_t access : {kRead, kWrite, kRead | kWrite}) {
      EXPECT_EQ(Ask(program, rule, access), 1) << rule.major << ":" << rule.minor;
      EXPECT_EQ(Ask(program, rule, access | kMake), 0);
    }
    EXPECT_EQ(Ask(program, rule, kMake), 0);
    DeviceRule other = rule;
    other.kind = rule.kind == DeviceKind::kBlock ? DeviceKind::kCharacter : DeviceKind::kBlock;
    EXPECT_EQ(Ask(program, other, kRead), 0);
  }
  for (uint32_t major = 0; major < 260; ++major) {
    for (uint32_t minor = 0; minor < 310; ++minor) {
      const DeviceRule rule = {DeviceKind::kCharacter, major, minor};
      const bool allowed = std::find(rules.begin(), rules.end(), rule) != rules.end();
      EXPECT_EQ(Ask(program, rule, kRead), allowed ? 1 : 0) << major << ":" << minor;
    }
  }
  EXPECT_EQ(Ask(MakeDeviceProgram({}), kGpio, kRead), 0);
}

TEST(DeviceList, OfV1BeginsWithNothing) {
  std::vector<std::string> lines;
  const DeviceRule rules[] = {kGpio, kDisk};
  for (const CgroupWrite& write : DeviceLimitsFor(CgroupVersion::kV1, rules).writes) {
    lines.push_back(write.file + " " + write.value);
  }
  EXPECT_THAT(
      lines, ElementsAre("devices.deny a", "devices.allow c 254:0 rw", "devices.allow b 7:300 rw"));
  EXPECT_THAT(DeviceLimitsFor(CgroupVersion::kV2, rules).writes, IsEmpty());
  EXPECT_FALSE(DeviceLimitsFor(CgroupVersion::kV2, rules).program.empty());
}

TEST(GrantedDevices, AppearUnderTheirOwnPathsBeforeDevIsLocked) {
  const GrantedDevice devices[] = {
      {"/dev/snd/pcm", DeviceKind::kCharacter, makedev(116, 1), LeaseKind::kShared},
      {"/dev/snd/ctl", DeviceKind::kCharacter, makedev(116, 2), LeaseKind::kShared},
      {"/dev/loop9", DeviceKind::kBlock, makedev(7, 9), LeaseKind::kExclusive}};
  const auto mounts = DeviceMounts(devices);
  std::vector<std::string> targets;
  for (const MountEntry& entry : mounts) targets.push_back(entry.target);
  EXPECT_THAT(targets, ElementsAre("dev/snd", "dev/snd/pcm", "dev/snd/ctl", "dev/loop9"));
  EXPECT_EQ(mounts[3].device_type, mode_t{S_IFBLK});
  EXPECT_EQ(mounts[3].device, makedev(7, 9));
  TemplateMountOptions options;
  const size_t without = TemplateMounts(options).size();
  options.devices = mounts;
  const auto plan = TemplateMounts(options);
  EXPECT_EQ(plan.size(), without + 4);
  const auto at = [&](const char* step) {
    return std::find_if(plan.begin(), plan.end(), [&](const auto& e) { return e.step == step; });
  };
  EXPECT_LT(at("make-device"), at("lock-dev"));
  EXPECT_EQ(DeviceRules(devices).size(), HarmlessDevices().size() + 3);
}

std::vector<GrantedDevice> Holding(dev_t number, LeaseKind lease) {
  return {{"/dev/gpiochip0", DeviceKind::kCharacter, number, lease}};
}

TEST(DeviceLeases, ConflictWhenEitherSideIsExclusiveAndNameTheHolder) {
  using enum LeaseKind;
  const auto conflict = [](LeaseKind held, LeaseKind wanted) {
    const auto theirs = Holding(5, held);
    const auto ours = Holding(5, wanted);
    const DeviceHolder holders[] = {{"a/led", theirs}};
    return CheckLeases({"a/blink", ours}, holders);
  };
  EXPECT_TRUE(conflict(kShared, kShared).ok());
  for (const auto& [held, wanted] :
       {std::pair(kExclusive, kExclusive), {kExclusive, kShared}, {kShared, kExclusive}}) {
    const Status status = conflict(held, wanted);
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, Code::kAlreadyExists);
    EXPECT_EQ(status.error().sys_errno, EBUSY);
    EXPECT_THAT(status.error().message, HasSubstr("devices[0]: /dev/gpiochip0 is held by a/led"));
  }
}

TEST(DeviceLeases, AreTheFunctionsOwnAndGoByTheDeviceNotItsName) {
  const auto ours = Holding(5, LeaseKind::kExclusive);
  const auto same =
      std::vector<GrantedDevice>{{"/dev/alias", DeviceKind::kCharacter, 5, LeaseKind::kExclusive}};
  const auto other = std::vector<GrantedDevice>{
      {"/dev/gpiochip0", DeviceKind::kBlock, 5, LeaseKind::kExclusive},
      {"/dev/gpiochip0", DeviceKind::kCharacter, 6, LeaseKind::kExclusive}};
  const DeviceHolder own[] = {{"a/blink", same}};
  const DeviceHolder alias[] = {{"a/led", same}};
  const DeviceHolder different[] = {{"a/led", other}};
  EXPECT_TRUE(CheckLeases({"a/blink", ours}, own).ok());
  EXPECT_FALSE(CheckLeases({"a/blink", ours}, alias).ok());
  EXPECT_TRUE(CheckLeases({"a/blink", ours}, different).ok());
}

TEST(GrantedDevices, AreFoundOnTheHostOrNamedWhenTheyAreNot) {
  const auto dir = std::move(TempDir::Create("/tmp/pulga-device-test-")).value();
  ASSERT_TRUE(MakeDirs(dir.path() + "/dev").ok());
  ASSERT_TRUE(WriteFile(dir.path() + "/dev/file", "").ok());
  Wishes wishes;
  wishes.function = "a/blink";
  Grants grants;
  grants.devices = {{"tty", "/dev/tty", LeaseKind::kShared, {true, {}}}};
  for (const auto& [path, why] : {std::pair("/dev/gone", "devices[0]: /dev/gone: No such file"),
                                  {"/dev/file", "devices[0]: /dev/file is no device"}}) {
    wishes.access.devices = {{"", path, LeaseKind::kByGrant}};
    const auto found = FindDevices(wishes, grants, dir.path());
    ASSERT_FALSE(found.ok());
    EXPECT_EQ(found.error().code, Code::kUnsupported);
    EXPECT_THAT(found.error().message, HasSubstr(why));
  }
  wishes.access.devices = {{"", "/dev/tty", LeaseKind::kByGrant}};
  const auto found = FindDevices(wishes, grants);
  ASSERT_TRUE(found.ok()) << found.error().message;
  EXPECT_EQ(found->at(0).number, makedev(5, 0));
  EXPECT_EQ(found->at(0).lease, LeaseKind::kShared);
  wishes.access.devices[0].lease = LeaseKind::kExclusive;
  EXPECT_EQ(FindDevices(wishes, grants)->at(0).lease, LeaseKind::kExclusive);
}

}  // namespace
}  // namespace pulga
