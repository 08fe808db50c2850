#include "sandbox/device_program.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "base/sys.h"
#include "base/unique_fd.h"

namespace pulga {
namespace {

bpf_insn Instruction(unsigned code, unsigned to, unsigned from, int offset, uint32_t value) {
  bpf_insn out = {};
  out.code = static_cast<uint8_t>(code);
  out.dst_reg = to & 0xf;
  out.src_reg = from & 0xf;
  out.off = static_cast<int16_t>(offset);
  out.imm = static_cast<int32_t>(value);
  return out;
}

bpf_insn Load(unsigned to, size_t offset) {
  return Instruction(BPF_LDX | BPF_MEM | BPF_W, to, BPF_REG_1, static_cast<int>(offset), 0);
}

bpf_insn SkipUnless(unsigned reg, uint32_t value, int skip) {
  return Instruction(BPF_JMP | BPF_JNE | BPF_K, reg, 0, skip, value);
}

void Return(std::vector<bpf_insn>& program, uint32_t value) {
  program.push_back(Instruction(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, value));
  program.push_back(Instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
}

int Bpf(bpf_cmd command, bpf_attr& attr) {
  return static_cast<int>(PULGA_SYS(syscall, SYS_bpf, command, &attr, sizeof attr));
}

uint64_t Address(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

Error Failed(const char* step) {
  Error error = LastError(step);
  const bool absent = errno == ENOSYS || errno == EPERM || errno == EINVAL;
  if (absent) error.code = Code::kUnsupported;
  return error;
}

}  // namespace

std::vector<DeviceRule> HarmlessDevices() {
  std::vector<DeviceRule> rules;
  for (const uint32_t minor : {3U, 5U, 7U, 8U, 9U}) {
    rules.push_back({DeviceKind::kCharacter, 1, minor});
  }
  return rules;
}

std::vector<bpf_insn> MakeDeviceProgram(std::span<const DeviceRule> rules) {
  constexpr unsigned kKind = BPF_REG_2, kAccess = BPF_REG_3, kMajor = BPF_REG_4, kMinor = BPF_REG_5;
  std::vector<bpf_insn> program = {
      Load(kKind, offsetof(bpf_cgroup_dev_ctx, access_type)),
      Instruction(BPF_ALU64 | BPF_MOV | BPF_X, kAccess, kKind, 0, 0),
      Instruction(BPF_ALU64 | BPF_AND | BPF_K, kKind, 0, 0, 0xffff),
      Instruction(BPF_ALU64 | BPF_RSH | BPF_K, kAccess, 0, 0, 16),
      Load(kMajor, offsetof(bpf_cgroup_dev_ctx, major)),
      Load(kMinor, offsetof(bpf_cgroup_dev_ctx, minor)),
      // Making one is nobody's right; all other questions skip the two instructions of "no".
      Instruction(BPF_ALU64 | BPF_AND | BPF_K, kAccess, 0, 0, BPF_DEVCG_ACC_MKNOD),
      Instruction(BPF_JMP | BPF_JEQ | BPF_K, kAccess, 0, 2, 0),
  };
  Return(program, 0);
  for (const DeviceRule& rule : rules) {
    const bool block = rule.kind == DeviceKind::kBlock;
    program.push_back(SkipUnless(kKind, block ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR, 4));
    program.push_back(SkipUnless(kMajor, rule.major, 3));
    program.push_back(SkipUnless(kMinor, rule.minor, 2));
    Return(program, 1);
  }
  Return(program, 0);
  return program;
}

Status AttachDeviceProgram(int cgroup_dir, std::span<const bpf_insn> program) {
  bpf_attr attr = {};
  attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  attr.insns = Address(program.data());
  attr.insn_cnt = static_cast<uint32_t>(program.size());
  attr.license = Address("MIT");
  const UniqueFd loaded(Bpf(BPF_PROG_LOAD, attr));
  if (!loaded.valid()) return Failed("device-cgroup: load");
  attr = {};
  attr.target_fd = static_cast<uint32_t>(cgroup_dir);
  attr.attach_bpf_fd = static_cast<uint32_t>(loaded.get());
  attr.attach_type = BPF_CGROUP_DEVICE;
  attr.attach_flags = BPF_F_ALLOW_MULTI;  // beside what stands above us: all must agree
  if (Bpf(BPF_PROG_ATTACH, attr) != 0) return Failed("device-cgroup: attach");
  return OkStatus();
}

}  // namespace pulga
