// The deeds of probe.c, a table by name. Each gets the words after its name and returns an exit
// code; those that ask the kernel print "NAME: ok" or "NAME: errno N" and return 0.
#pragma once

#include <linux/fcntl.h>
#include <linux/sched.h>

#include "tiny.h"

struct deed {
  const char* name;
  int (*run)(char** words, int count);
};

static int probe_argc;
static char** probe_argv;
static char** probe_envp;

static long number_or(char** words, int count, int at, long otherwise) {
  return at < count ? to_number(words[at]) : otherwise;
}

static int report(const char* what, long result) {
  say(1, what);
  if (result < 0) {
    say(1, ": errno ");
    say_number(1, -result);
  } else {
    say(1, ": ok");
  }
  say(1, "\n");
  return 0;
}

static void raise_signal(long number) {
  const long me = sys(__NR_getpid, 0, 0, 0, 0);
  sys(__NR_tgkill, me, sys(__NR_gettid, 0, 0, 0, 0), number, 0);
}

// --- ways to end ---

static int do_exit(char** words, int count) { sys_exit((int)number_or(words, count, 0, 0)); }

static int do_signal(char** words, int count) {
  raise_signal(number_or(words, count, 0, 6));
  return 0;
}

static int do_segv(char** words, int count) {
  (void)words, (void)count;
  char* volatile nowhere = (char*)8;
  *nowhere = 1;
  return 0;
}

// A system call of another ABI, which the filter answers by killing; elsewhere, the bare signal.
static int do_sigsys(char** words, int count) {
  (void)words, (void)count;
#if defined(__x86_64__)
  long ret;
  __asm__ volatile("int $0x80" : "=a"(ret) : "a"(20) : "memory");  // getpid of i386
  report("int80", ret);
#else
  raise_signal(31);
#endif
  return 0;
}

static int do_sleep(char** words, int count) {
  sleep_ms(number_or(words, count, 0, 1) * 1000);
  return 0;
}

static int do_sleep_ms(char** words, int count) {
  sleep_ms(number_or(words, count, 0, 1));
  return 0;
}

static int do_ignore_term(char** words, int count) {
  struct {
    void* handler;
    unsigned long flags;
    void* restorer;
    uint64_t mask;
  } action = {(void*)1, 0, NULL, 0};  // SIG_IGN
  for (long signo = 1; signo <= 15; ++signo) {
    sys6(__NR_rt_sigaction, signo, (long)&action, 0, 8, 0, 0);
  }
  sleep_ms(number_or(words, count, 0, 1000) * 1000);
  return 0;
}

// --- appetite ---

static long eat_memory(long mib) {
  for (long eaten = 0; mib < 0 || eaten < mib; ++eaten) {
    char* at = sys_map(1 << 20);
    if (at == NULL) return -12;
    for (size_t i = 0; i < 1 << 20; i += 4096) at[i] = 1;
  }
  return 0;
}

static int do_oom(char** words, int count) {
  return report("oom", eat_memory(number_or(words, count, 0, -1)));
}

// Words that differ from page to page and do not compress away.
static uint64_t held_word(uint64_t at) {
  at ^= at >> 31;
  return (at + 1) * 0x9e3779b97f4a7c15ULL;
}

// Takes memory, writes into it, and looks whether it is as it was for each line it reads.
static int do_hold(char** words, int count) {
  const size_t size = (size_t)number_or(words, count, 0, 1) << 20;
  uint64_t* at = sys_map(size);
  if (at == NULL) return 1;
  for (size_t i = 0; i < size / 8; ++i) at[i] = held_word(i);
  say(1, "held\n");
  for (char byte; sys_read(0, &byte, 1) == 1;) {
    if (byte != '\n') continue;
    int intact = 1;
    for (size_t i = 0; i < size / 8; ++i) intact &= at[i] == held_word(i);
    say(1, intact ? "intact\n" : "damaged\n");
  }
  return 0;
}

// A child eats; the parent lives on and says so, unless the kernel takes the whole group.
static int do_oom_child(char** words, int count) {
  const long child = sys_fork();
  if (child == 0) sys_exit(eat_memory(number_or(words, count, 0, -1)) < 0 ? 3 : 0);
  int status = 0;
  sys(__NR_wait4, child, &status, 0, 0);
  say(1, "child status ");
  say_number(1, status);
  say(1, "\n");
  return 0;
}

static int do_forkbomb(char** words, int count) {
  const long most = number_or(words, count, 0, 100000);
  for (long made = 0; made < most; ++made) {
    const long child = sys_fork();
    if (child == 0) sleep_forever();
    if (child < 0) {
      say(1, "forked ");
      say_number(1, made);
      return say(1, ", then "), report("fork", child);
    }
  }
  say(1, "never stopped\n");
  return 1;
}

static int do_cpu(char** words, int count) {
  const int64_t until = now_ms() + number_or(words, count, 0, 1) * 1000;
  volatile unsigned long turns = 0;
  while (now_ms() < until) ++turns;
  say_number(1, (long)turns);
  say(1, " turns\n");
  return 0;
}

static int write_many(int fd, long bytes) {
  static char block[4096];
  memset(block, 'x', sizeof block);
  while (bytes > 0) {
    const size_t n = bytes < (long)sizeof block ? (size_t)bytes : sizeof block;
    if (write_all(fd, block, n) != 0) return 1;
    bytes -= (long)n;
  }
  return 0;
}

static int do_output(char** words, int count) {
  return write_many(1, number_or(words, count, 0, 1));
}

static int do_stderr(char** words, int count) {
  if (count > 0 && (words[0][0] < '0' || words[0][0] > '9')) {
    say(2, words[0]);
    say(2, "\n");
    return 0;
  }
  return write_many(2, number_or(words, count, 0, 1));
}

static int do_say(char** words, int count) {
  for (int i = 0; i < count; ++i) {
    say(1, words[i]);
    say(1, i + 1 < count ? " " : "\n");
  }
  return 0;
}

static int do_orphan(char** words, int count) {
  for (long n = number_or(words, count, 0, 1); n > 0; --n) {
    const long child = sys_fork();
    if (child < 0) return report("orphan", child);
    if (child == 0) {
      if (sys_fork() == 0) sleep_ms(count > 1 ? to_number(words[1]) : 10);
      sys_exit(0);
    }
    sys(__NR_wait4, child, 0, 0, 0);
  }
  return report("orphan", 0);
}

static int do_nofile(char** words, int count) {
  long made = 0, fd = 0;
  (void)words, (void)count;
  while ((fd = sys_open("/", O_RDONLY, 0)) >= 0) ++made;
  say_number(1, made);
  say(1, " opened, then ");
  return report("open", fd);
}

static int fill(const char* path, long limit) {
  static char block[65536];
  const long fd = sys_open(path, O_WRONLY | O_CREAT, 0600);
  long done = 0, n = fd;
  memset(block, 't', sizeof block);
  while (fd >= 0 && done < limit && (n = sys_write((int)fd, block, sizeof block)) > 0) done += n;
  say_number(1, done);
  say(1, " bytes, then ");
  return report("write", n);
}

static int do_tmpfill(char** words, int count) {
  return fill(count > 0 ? words[0] : "/tmp/fill", 1L << 30);
}

// --- questions ---

static int copy_file(const char* path) {
  static char block[4096];
  long n;
  const long fd = sys_open(path, O_RDONLY, 0);
  if (fd < 0) return report(path, fd);
  while ((n = sys_read((int)fd, block, sizeof block)) > 0) write_all(1, block, (size_t)n);
  sys_close((int)fd);
  return n < 0 ? report(path, n) : 0;
}

static int do_cat(char** words, int count) { return count > 0 ? copy_file(words[0]) : 2; }

static int do_status(char** words, int count) {
  (void)words, (void)count;
  return copy_file("/proc/self/status");
}

static int do_cgroup(char** words, int count) {
  (void)words, (void)count;
  return copy_file("/proc/self/cgroup");
}

static int do_mounts(char** words, int count) {
  (void)words, (void)count;
  return copy_file("/proc/self/mountinfo");
}

struct dir_entry {
  uint64_t inode;
  int64_t offset;
  uint16_t size;
  uint8_t type;
  char name[];
};

static int list(const char* path, int with_target) {
  static char block[8192];
  char target[512], full[600];
  const long fd = sys_open(path, O_RDONLY | O_DIRECTORY, 0);
  if (fd < 0) return report(path, fd);
  long n;
  while ((n = sys(__NR_getdents64, fd, block, sizeof block, 0)) > 0) {
    for (long at = 0; at < n;) {
      const struct dir_entry* e = (const struct dir_entry*)(block + at);
      at += e->size;
      if (equal(e->name, ".") || equal(e->name, "..")) continue;
      if (with_target && to_number(e->name) == fd) continue;
      say(1, e->name);
      struct text t = {full, 0, sizeof full - 1};
      put(&t, path);
      put(&t, "/");
      put(&t, e->name);
      full[t.size] = '\0';
      const long got = sys(__NR_readlinkat, AT_FDCWD, full, target, sizeof target);
      if (got > 0) say(1, " -> "), write_all(1, target, (size_t)got);
      say(1, "\n");
    }
  }
  return n < 0 ? report(path, n) : 0;
}

static int do_ls(char** words, int count) { return list(count > 0 ? words[0] : "/", 0); }

// "0:0 755"
static int do_stat(char** words, int count) {
  static char block[256] __attribute__((aligned(8)));  // struct statx
  if (count < 1) return 2;
  const long got = sys6(__NR_statx, AT_FDCWD, (long)words[0], 0, 0x7ff, (long)block, 0);
  if (got < 0) return report("stat", got);
  say_number(1, *(const uint32_t*)(block + 20));
  say(1, ":");
  say_number(1, *(const uint32_t*)(block + 24));
  say(1, " ");
  const long mode = *(const uint16_t*)(block + 28) & 07777;
  for (int shift = mode > 0777 ? 9 : 6; shift >= 0; shift -= 3) say_number(1, mode >> shift & 7);
  say(1, "\n");
  return 0;
}

static int do_fds(char** words, int count) {
  (void)words, (void)count;
  return list("/proc/self/fd", 1);
}

static int do_env(char** words, int count) {
  (void)words, (void)count;
  for (char** at = probe_envp; *at != NULL; ++at) {
    say(1, *at);
    say(1, "\n");
  }
  return 0;
}

static int do_args(char** words, int count) {
  (void)words, (void)count;
  for (int i = 0; i < probe_argc; ++i) {
    say(1, probe_argv[i]);
    say(1, "\n");
  }
  return 0;
}

static int do_cwd(char** words, int count) {
  char room[1024];
  (void)words, (void)count;
  const long n = sys(__NR_getcwd, room, sizeof room, 0, 0);
  if (n < 0) return report("getcwd", n);
  say(1, room);
  say(1, "\n");
  return 0;
}

static int do_ids(char** words, int count) {
  uint32_t groups[64], u[3], g[3];
  (void)words, (void)count;
  sys(__NR_getresuid, &u[0], &u[1], &u[2], 0);
  sys(__NR_getresgid, &g[0], &g[1], &g[2], 0);
  const long n = sys(__NR_getgroups, 64, groups, 0, 0);
  say(1, "uid ");
  for (int i = 0; i < 3; ++i) say_number(1, (long)u[i]), say(1, " ");
  say(1, "gid ");
  for (int i = 0; i < 3; ++i) say_number(1, (long)g[i]), say(1, " ");
  say(1, "groups");
  for (long i = 0; i < n; ++i) say(1, " "), say_number(1, (long)groups[i]);
  say(1, " pid ");
  say_number(1, sys(__NR_getpid, 0, 0, 0, 0));
  say(1, "\n");
  return 0;
}

// FNV-1a 64 and the number of bytes of what stdin still holds.
static int do_stdin_hash(char** words, int count) {
  static unsigned char block[16384];
  uint64_t hash = 0xcbf29ce484222325ULL;
  long n, total = 0;
  (void)words, (void)count;
  while ((n = sys_read(0, block, sizeof block)) > 0) {
    for (long i = 0; i < n; ++i) hash = (hash ^ block[i]) * 0x100000001b3ULL;
    total += n;
  }
  say_number(1, total);
  say(1, " bytes ");
  char room[24];
  struct text t = {room, 0, sizeof room};
  put_unsigned(&t, (unsigned long)(hash >> 32), 16);
  put(&t, " ");
  put_unsigned(&t, (unsigned long)(hash & 0xffffffffU), 16);
  put(&t, "\n");
  write_all(1, t.at, t.size);
  return n < 0 ? 1 : 0;
}

#include "probe_abuse.h"
#include "probe_attacks.h"
#include "probe_escape.h"
#include "probe_network.h"

static const struct deed deeds[] = {
    {"exit", do_exit},
    {"signal", do_signal},
    {"segv", do_segv},
    {"sigsys", do_sigsys},
    {"sleep", do_sleep},
    {"sleep-ms", do_sleep_ms},
    {"ignore-term", do_ignore_term},
    {"oom", do_oom},
    {"oom-child", do_oom_child},
    {"hold", do_hold},
    {"forkbomb", do_forkbomb},
    {"cpu", do_cpu},
    {"output", do_output},
    {"stderr", do_stderr},
    {"say", do_say},
    {"orphan", do_orphan},
    {"nofile", do_nofile},
    {"tmpfill", do_tmpfill},
    {"cat", do_cat},
    {"status", do_status},
    {"caps", do_caps},
    {"cgroup", do_cgroup},
    {"mounts", do_mounts},
    {"ls", do_ls},
    {"stat", do_stat},
    {"fds", do_fds},
    {"env", do_env},
    {"args", do_args},
    {"cwd", do_cwd},
    {"ids", do_ids},
    {"stdin-hash", do_stdin_hash},
    {"write", do_write},
    {"mount", do_mount},
    {"unshare", do_unshare},
    {"refused", do_refused},
    {"setns", do_setns},
    {"ptrace", do_ptrace},
    {"chroot", do_chroot},
    {"syscall", do_syscall},
    {"syscalls", do_syscalls},
    {"socket", do_socket},
    {"connect", do_connect},
    {"udp-ask", do_udp_ask},
    {"mknod", do_mknod},
    {"kill", do_kill},
    {"mkdir", do_mkdir},
    {"symlink", do_symlink},
    {"unlink", do_unlink},
    ESCAPE_DEEDS,
    ABUSE_DEEDS,
    {"inodes", do_inodes},
    {"run-copy", do_run_copy},
    {"exec", do_exec},
    {"rename", do_rename},
    {"link", do_link},
    {"leave-project", do_leave_project},
    {"landlock-layers", do_landlock_layers},
    {NULL, NULL},
};
