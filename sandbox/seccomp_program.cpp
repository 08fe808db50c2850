#include "sandbox/seccomp_program.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include <span>

namespace pulga {
namespace {

using Program = std::vector<sock_filter>;

// x32 calls come with the x86_64 architecture and this bit; -1 is what a tracer leaves behind.
constexpr uint32_t kX32Bit = 0x40000000;
constexpr uint32_t kNoCall = 0xffffffff;

// The calls from `first` up to the next range share `clauses`.
struct Range {
  uint32_t first = 0;
  std::vector<Clause> clauses;
};

sock_filter Load(size_t offset) {
  return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}

sock_filter Return(uint32_t action) { return BPF_STMT(BPF_RET | BPF_K, action); }

// seccomp_data is little-endian on all our machines: the low word comes first.
size_t ArgOffset(uint32_t arg) { return offsetof(seccomp_data, args) + 8 * arg; }

void Append(Program& program, const Program& more) {
  program.insert(program.end(), more.begin(), more.end());
}

// Falls out at its end when the test passes, else jumps `skip` instructions beyond it.
Program BuildTest(const ArgTest& test, size_t skip) {
  Program out = {Load(ArgOffset(test.arg))};
  if (test.mask != 0xffffffff) out.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, test.mask));
  const size_t count = test.values.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t rest = count - 1 - i;  // comparisons still to come
    out.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, test.values[i], static_cast<uint8_t>(rest),
                           static_cast<uint8_t>(rest == 0 ? skip : 0)));
  }
  return out;
}

Program BuildClause(const Clause& clause) {
  Program out = {Return(clause.action)};
  for (auto test = clause.tests.rbegin(); test != clause.tests.rend(); ++test) {
    Program with_test = BuildTest(*test, out.size());
    Append(with_test, out);
    out = std::move(with_test);
  }
  return out;
}

bool IsSimple(const std::vector<Clause>& clauses) {
  return clauses.size() == 1 && clauses[0].tests.empty();
}

// Starts a new range at `first` unless the one before does the same.
void AddRange(std::vector<Range>& ranges, uint32_t first, const std::vector<Clause>& clauses) {
  if (!ranges.empty() && IsSimple(clauses) && IsSimple(ranges.back().clauses) &&
      ranges.back().clauses[0].action == clauses[0].action) {
    return;
  }
  ranges.push_back({first, clauses});
}

std::vector<Range> MergeRanges(const NumberedRules& rules) {
  const std::vector<Clause> otherwise = {Clause{{}, rules.default_action}};
  const std::vector<Clause> kill = {Clause{{}, SECCOMP_RET_KILL_PROCESS}};
  std::vector<Range> ranges;
  uint32_t next = 0;  // first number not covered yet
  for (const auto& [number, clauses] : rules.rules) {
    if (number > next) AddRange(ranges, next, otherwise);
    AddRange(ranges, number, clauses);
    next = number + 1;
  }
  AddRange(ranges, next, otherwise);
  if (rules.audit_arch == AUDIT_ARCH_X86_64) {
    AddRange(ranges, kX32Bit, kill);
    AddRange(ranges, kNoCall, otherwise);
  }
  return ranges;
}

// Lays the search tree out first and what its leaves do behind it, each answer once.
class Assembler {
 public:
  explicit Assembler(Program head) : program_(std::move(head)) {}

  Result<Program> Assemble(std::span<const Range> ranges) {
    const Target root = AddTree(ranges);
    if (root.leaf) return Error{Code::kInvalidArgument, 0, "seccomp program: one action for all"};
    std::vector<size_t> leaf_at;
    for (const std::vector<Clause>& clauses : leaves_) {
      leaf_at.push_back(program_.size());
      for (const Clause& clause : clauses) Append(program_, BuildClause(clause));
    }
    for (const Jump& jump : jumps_) {
      const size_t high =
          (jump.high.leaf ? leaf_at[jump.high.index] : jump.high.index) - jump.at - 1;
      const size_t low = (jump.low.leaf ? leaf_at[jump.low.index] : jump.low.index) - jump.at - 1;
      if (high > 255 || low > 255) {
        return Error{Code::kTooLarge, 0, "seccomp program: a jump is longer than 255"};
      }
      program_[jump.at].jt = static_cast<uint8_t>(high);
      program_[jump.at].jf = static_cast<uint8_t>(low);
    }
    return std::move(program_);
  }

 private:
  struct Target {
    bool leaf = false;
    size_t index = 0;  // in leaves_, or in program_
  };
  struct Jump {
    size_t at = 0;
    Target high;
    Target low;
  };

  // The call number is in the accumulator.
  Target AddTree(std::span<const Range> ranges) {
    if (ranges.size() == 1) return AddLeaf(ranges[0].clauses);
    const size_t middle = ranges.size() / 2;
    const size_t at = program_.size();
    program_.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, ranges[middle].first, 0, 0));
    const Target low = AddTree(ranges.first(middle));
    const Target high = AddTree(ranges.subspan(middle));
    jumps_.push_back({at, high, low});
    return {false, at};
  }

  Target AddLeaf(const std::vector<Clause>& clauses) {
    for (size_t i = 0; i < leaves_.size(); ++i) {
      if (leaves_[i] == clauses) return {true, i};
    }
    leaves_.push_back(clauses);
    return {true, leaves_.size() - 1};
  }

  Program program_;
  std::vector<std::vector<Clause>> leaves_;
  std::vector<Jump> jumps_;
};

}  // namespace

Result<std::vector<sock_filter>> BuildSeccompProgram(const NumberedRules& rules) {
  Assembler assembler({
      Load(offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, rules.audit_arch, 1, 0),
      Return(SECCOMP_RET_KILL_PROCESS),
      Load(offsetof(seccomp_data, nr)),
  });
  return assembler.Assemble(MergeRanges(rules));
}

Program ByArchitecture(uint32_t audit_arch, const Program& of_it, const Program& otherwise) {
  Program out = {
      Load(offsetof(seccomp_data, arch)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, audit_arch, 0, 1),
      BPF_STMT(BPF_JMP | BPF_JA, static_cast<uint32_t>(otherwise.size())),  // as far as it takes
  };
  Append(out, otherwise);
  Append(out, of_it);
  return out;
}

}  // namespace pulga
