// Runs a program as on a kernel that lacks system calls: pretend-old-kernel CALL... -- PROGRAM
// ARG... The calls answer ENOSYS in it and in all it starts; nothing else changes (no no_new_privs:
// the program may do what it could). CALL:N answers EINVAL where bit N of its first argument is
// set, as for a kind of namespace the kernel was built without, CALL+N where bit N of its second
// is, CALL=N where the first is N.
// Needs: root.
#include <seccomp.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

// One CALL; false when there is none of that name, or the filter cannot have it.
bool Refuse(scmp_filter_ctx filter, const char* wanted) {
  char name[64] = "";
  const size_t length = strcspn(wanted, ":=+");
  if (length >= sizeof name) return false;
  memcpy(name, wanted, length);
  const int call = seccomp_syscall_resolve_name(name);
  if (call == __NR_SCMP_ERROR) return false;
  if (wanted[length] == '\0') {
    return seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), call, 0) == 0;
  }
  const uint64_t number = strtoull(wanted + length + 1, nullptr, 0);
  const uint64_t bit = uint64_t{1} << (number & 63);
  const scmp_arg_cmp which = wanted[length] == ':'   ? SCMP_A0(SCMP_CMP_MASKED_EQ, bit, bit)
                             : wanted[length] == '+' ? SCMP_A1(SCMP_CMP_MASKED_EQ, bit, bit)
                                                     : SCMP_A0(SCMP_CMP_EQ, number);
  return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EINVAL), call, 1, which) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  int at = 1;
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  if (filter == nullptr || seccomp_attr_set(filter, SCMP_FLTATR_CTL_NNP, 0) != 0) return 125;
  for (; at < argc && strcmp(argv[at], "--") != 0; ++at) {
    if (!Refuse(filter, argv[at])) {
      fprintf(stderr, "pretend-old-kernel: no such system call: %s\n", argv[at]);
      return 125;
    }
  }
  if (at + 1 >= argc) {
    fprintf(stderr, "usage: pretend-old-kernel CALL... -- PROGRAM ARG...\n");
    return 125;
  }
  const int loaded = seccomp_load(filter);
  if (loaded != 0) {
    fprintf(stderr, "pretend-old-kernel: load the filter: %s\n", strerror(-loaded));
    return 125;
  }
  execvp(argv[at + 1], argv + at + 1);
  perror(argv[at + 1]);
  return 127;
}
