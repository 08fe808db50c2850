// The whole C library of the programs in this folder: start code, system calls, a text buffer.
// No libc, because a static libc adds 0.4 ms of page faults before the first byte
// (docs/architecture.md, "Laws of the kernel"). x86_64, aarch64 and arm (EABI).
// A program includes this once and defines `int run(int argc, char** argv, char** envp)`.
#pragma once

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
__asm__(
    ".globl _start\n_start: xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call tiny_start\n hlt");
static long sys6(long nr, long a, long b, long c, long d, long e, long f) {
  long ret;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(ret)
                   : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return ret;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x29,#0\n mov x0,sp\n and sp,x0,#-16\n bl tiny_start\n brk #0");
static long sys6(long nr, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = nr;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc #0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
  return x0;
}
#elif defined(__arm__)
__asm__(".globl _start\n_start: mov fp,#0\n mov r0,sp\n bic sp,sp,#7\n bl tiny_start\n udf #0");
static long sys6(long nr, long a, long b, long c, long d, long e, long f) {
  register long r7 __asm__("r7") = nr;
  register long r0 __asm__("r0") = a;
  register long r1 __asm__("r1") = b;
  register long r2 __asm__("r2") = c;
  register long r3 __asm__("r3") = d;
  register long r4 __asm__("r4") = e;
  register long r5 __asm__("r5") = f;
  __asm__ volatile("svc #0"
                   : "+r"(r0)
                   : "r"(r7), "r"(r1), "r"(r2), "r"(r3), "r"(r4), "r"(r5)
                   : "memory");
  return r0;
}
#else
#error "tiny.h: no start code for this processor"
#endif

#define TINY_FN static __attribute__((unused))

// System calls return -errno, as the kernel does. Pointers go in as they are.
#define sys(nr, a, b, c, d) sys6(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
TINY_FN long sys_open(const char* path, int flags, int mode) {
  return sys(__NR_openat, -100, path, flags, mode);
}
TINY_FN long sys_read(int fd, void* to, size_t n) { return sys(__NR_read, fd, to, n, 0); }
TINY_FN long sys_write(int fd, const void* from, size_t n) {
  return sys(__NR_write, fd, from, n, 0);
}
TINY_FN void sys_close(int fd) { sys(__NR_close, fd, 0, 0, 0); }
TINY_FN long sys_fork(void) { return sys(__NR_clone, 17, 0, 0, 0); }  // 17 = SIGCHLD
TINY_FN _Noreturn void sys_exit(int code) {
  while (1) sys(__NR_exit_group, code, 0, 0, 0);
}
TINY_FN void* sys_map(size_t bytes) {
#ifdef __NR_mmap2
  const long at = sys6(__NR_mmap2, 0, (long)bytes, 3, 0x22, -1, 0);
#else
  const long at = sys6(__NR_mmap, 0, (long)bytes, 3, 0x22, -1, 0);
#endif
  return at < 0 && at > -4096 ? NULL : (void*)at;
}

struct tiny_time {
  long sec;
  long nsec;
};
TINY_FN int64_t now_ms(void) {
  struct tiny_time t = {0, 0};
  sys(__NR_clock_gettime, 1, &t, 0, 0);
  return (int64_t)t.sec * 1000 + t.nsec / 1000000;
}
TINY_FN void sleep_ms(long ms) {
  struct tiny_time t = {ms / 1000, ms % 1000 * 1000000};
  sys(__NR_nanosleep, &t, 0, 0, 0);
}
_Noreturn TINY_FN void sleep_forever(void) {
  while (1) sleep_ms(1000 * 1000);
}

// The compiler calls these by name, and must not turn their loops into calls to themselves. Clang,
// which has no such attribute, leaves loops alone under -ffreestanding.
#ifdef __clang__
#define TINY_LOOP __attribute__((used))
#else
#define TINY_LOOP __attribute__((used, optimize("no-tree-loop-distribute-patterns")))
#endif
TINY_LOOP void* memcpy(void* to, const void* from, size_t n) {
  char* d = to;
  const char* s = from;
  while (n-- > 0) *d++ = *s++;
  return to;
}
TINY_LOOP void* memset(void* to, int c, size_t n) {
  char* d = to;
  while (n-- > 0) *d++ = (char)c;
  return to;
}
TINY_LOOP void* memmove(void* to, const void* from, size_t n) {
  char* d = to;
  const char* s = from;
  if (d < s) return memcpy(to, from, n);
  while (n-- > 0) d[n] = s[n];
  return to;
}

TINY_FN size_t length(const char* s) {
  size_t n = 0;
  while (s[n] != '\0') ++n;
  return n;
}
TINY_FN int starts_with(const char* s, const char* prefix) {
  while (*prefix != '\0') {
    if (*s++ != *prefix++) return 0;
  }
  return 1;
}
TINY_FN int equal(const char* a, const char* b) {
  return length(a) == length(b) && starts_with(a, b);
}
TINY_FN long to_number(const char* s) {
  long value = 0;
  const int negative = *s == '-';
  for (s += negative; *s >= '0' && *s <= '9'; ++s) value = value * 10 + (*s - '0');
  return negative ? -value : value;
}
// The value of NAME, or NULL.
TINY_FN const char* env_value(char** envp, const char* name) {
  for (; *envp != NULL; ++envp) {
    if (starts_with(*envp, name) && (*envp)[length(name)] == '=') return *envp + length(name) + 1;
  }
  return NULL;
}

// Bytes gathered for one write; what does not fit is dropped.
struct text {
  char* at;
  size_t size;
  size_t capacity;
};
TINY_FN void put_bytes(struct text* t, const char* from, size_t n) {
  if (n > t->capacity - t->size) n = t->capacity - t->size;
  memcpy(t->at + t->size, from, n);
  t->size += n;
}
TINY_FN void put(struct text* t, const char* s) { put_bytes(t, s, length(s)); }
TINY_FN void put_unsigned(struct text* t, unsigned long value, unsigned base) {
  char digits[24];
  size_t n = sizeof digits;
  do {
    digits[--n] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value != 0);
  put_bytes(t, digits + n, sizeof digits - n);
}
TINY_FN void put_number(struct text* t, long value) {
  if (value < 0) put(t, "-");
  put_unsigned(t, value < 0 ? 0UL - (unsigned long)value : (unsigned long)value, 10);
}

// Writes everything; stops at the first error, which it returns.
TINY_FN long write_all(int fd, const char* from, size_t n) {
  while (n > 0) {
    const long wrote = sys_write(fd, from, n);
    if (wrote == -4) continue;  // EINTR
    if (wrote <= 0) return wrote;
    from += wrote;
    n -= (size_t)wrote;
  }
  return 0;
}
TINY_FN void say(int fd, const char* s) { write_all(fd, s, length(s)); }
TINY_FN void say_number(int fd, long value) {
  char room[24];
  struct text t = {room, 0, sizeof room};
  put_number(&t, value);
  write_all(fd, t.at, t.size);
}

int run(int argc, char** argv, char** envp);
__attribute__((used)) _Noreturn void tiny_start(long* stack) {
  const int argc = (int)stack[0];
  char** argv = (char**)(stack + 1);
  sys_exit(run(argc, argv, argv + argc + 1));
}

#if defined(__arm__)
// libgcc's division calls it for n / 0.
__attribute__((used)) int raise(int number) { sys_exit(128 + number); }
#endif
