// Runs a seccomp program in user space: what would the kernel answer to this call? Knows the
// instructions that seccomp programs consist of; anything else, a jump out of the program or a load
// beside seccomp_data is a test failure of its own (nothing returned).
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace pulga::testing {

class BpfEvaluator {
 public:
  explicit BpfEvaluator(std::span<const sock_filter> program) : program_(program) {}

  // The SECCOMP_RET_* value.
  std::optional<uint32_t> Run(const seccomp_data& data) const {
    uint32_t a = 0;
    for (size_t pc = 0; pc < program_.size(); ++pc) {
      const sock_filter& f = program_[pc];
      if (f.code == (BPF_RET | BPF_K)) return f.k;
      if (f.code == (BPF_LD | BPF_W | BPF_ABS)) {
        if (f.k % 4 != 0 || f.k + 4 > sizeof data) return std::nullopt;
        memcpy(&a, reinterpret_cast<const char*>(&data) + f.k, 4);
      } else if (f.code == (BPF_ALU | BPF_AND | BPF_K)) {
        a &= f.k;
      } else if (f.code == (BPF_JMP | BPF_JA)) {
        pc += f.k;
      } else if (BPF_CLASS(f.code) == BPF_JMP) {
        const auto taken = Compare(f, a);
        if (!taken) return std::nullopt;
        pc += *taken ? f.jt : f.jf;
      } else {
        return std::nullopt;
      }
    }
    return std::nullopt;  // fell off the end
  }

 private:
  static std::optional<bool> Compare(const sock_filter& f, uint32_t a) {
    switch (BPF_OP(f.code)) {
      case BPF_JEQ:
        return a == f.k;
      case BPF_JGE:
        return a >= f.k;
      case BPF_JGT:
        return a > f.k;
      case BPF_JSET:
        return (a & f.k) != 0;
      default:
        return std::nullopt;
    }
  }

  std::span<const sock_filter> program_;
};

}  // namespace pulga::testing
