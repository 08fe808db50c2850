// The deeds of probe.c that want too much: processes, threads, memory of every kind, descriptors,
// and lives that no one can end. Included by probe_deeds.h only.
#pragma once

// S31: each child suspends its parent and shares its memory; one stack, ever deeper.
static int vfork_deeper(long depth) {
  const long child = sys(__NR_clone, 17 | CLONE_VM | CLONE_VFORK, 0, 0, 0);
  if (child == 0) vfork_deeper(depth + 1), sys_exit(0);
  if (child > 0) return 0;  // somebody below has reported
  say_number(1, depth);
  say(1, " deep, then ");
  return report("vfork", child);
}

static int do_vforkbomb(char** words, int count) {
  (void)words, (void)count;
  return vfork_deeper(1);
}

// A thread that sleeps for ever, on a stack that nobody may touch meanwhile.
static long start_sleeper(char* stack_top) {
  const long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
#if defined(__x86_64__)
  long ret;
  __asm__ volatile(
      "syscall\n test %%rax,%%rax\n jnz 2f\n1: mov $34,%%eax\n syscall\n jmp 1b\n2:"  // pause
      : "=a"(ret)
      : "a"(__NR_clone), "D"(flags), "S"(stack_top), "d"(0)
      : "rcx", "r11", "memory");
  return ret;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = __NR_clone;
  register long x0 __asm__("x0") = flags;
  register char* x1 __asm__("x1") = stack_top;
  __asm__ volatile(
      "svc #0\n cbnz x0,2f\n1: mov x0,#0\n mov x1,#0\n mov x2,#0\n mov x3,#0\n mov x8,#73\n"
      " svc #0\n b 1b\n2:"  // ppoll of nothing
      : "+r"(x0)
      : "r"(x8), "r"(x1)
      : "x2", "x3", "memory");
  return x0;
#else
  (void)stack_top, (void)flags;
  return -38;
#endif
}

static int do_threadbomb(char** words, int count) {
  const long most = number_or(words, count, 0, 100000);
  for (long made = 0; made < most; ++made) {
    char* stack = sys_map(16384);
    const long thread = stack == NULL ? -12 : start_sleeper(stack + 16384);
    if (thread >= 0) continue;
    say_number(1, made);
    say(1, " made, then ");
    return report("thread", thread);
  }
  say(1, "never stopped\n");
  return 1;
}

// --- S32: memory, by every way to have some ---

static int touch(char* at, size_t bytes) {
  for (size_t i = 0; at != NULL && i < bytes; i += 4096) at[i] = 1;
  return at == NULL ? -12 : 0;
}

static long eat_shm(long mib) {
  for (long eaten = 0; eaten < mib; ++eaten) {
    const long id = sys(__NR_shmget, 0, 1 << 20, 01600, 0);
    if (id < 0) return id;
    char* at = (char*)sys(__NR_shmat, id, 0, 0, 0);
    if ((long)at < 0 && (long)at > -4096) return (long)at;
    touch(at, 1 << 20);
  }
  return 0;
}

static long eat_memfd(long mib) {
  static char block[65536];
  const long fd = sys(__NR_memfd_create, "m", 0, 0, 0);
  for (long n = fd; n >= 0 && mib > 0; mib -= n > 0) {
    for (int part = 0; part < 16 && n >= 0; ++part) n = sys_write((int)fd, block, sizeof block);
    if (n < 0) return n;
  }
  return fd < 0 ? fd : 0;
}

static long eat_mlock(long mib) {
  char* at = sys_map((size_t)mib << 20);
  if (at == NULL) return -12;
  const long locked = sys(__NR_mlock, at, mib << 20, 0, 0);
  report("mlock", locked);
  return touch(at, (size_t)mib << 20);
}

// Many small ones: a child for each MiB, which says when it has it. One may be killed before that,
// or later for the sake of another.
static long eat_many(long mib) {
  int said[2];
  long got = sys(__NR_pipe2, said, 0, 0, 0);
  if (got < 0) return got;
  for (long made = 0; made < mib; ++made) {
    const long child = sys_fork();
    if (child < 0) return child;
    if (child > 0) continue;
    touch(sys_map(1 << 20), 1 << 20);
    sys_write(said[1], "x", 1);
    sys_close(said[0]), sys_close(said[1]);
    sleep_forever();
  }
  sys_close(said[1]);
  char byte;
  while (sys_read(said[0], &byte, 1) == 1) ++got;
  for (int tries = 0; got == mib && tries < 1000; ++tries) {
    if (sys(__NR_wait4, -1, 0, 1, 0) > 0) return -12;  // WNOHANG, ENOMEM
    sleep_ms(10);
  }
  return got == mib ? 0 : -12;
}

static long eat_sockets(void) {
  static char block[65536];
  while (1) {
    int pair[2];
    const long made = sys(__NR_socketpair, 1, 1 | 0x800, 0, pair);  // STREAM | NONBLOCK
    if (made < 0) return made;
    while (sys_write(pair[0], block, sizeof block) > 0) {
    }
  }
}

// Datagrams to oneself that nobody takes; MiB of them.
static long eat_udp(void) {
  static char block[8192];
  static int fds[900];
  long made = 0, held = 0;
  for (; made < 900; ++made) {
    struct {
      unsigned short family, port;
      unsigned address;
      char pad[8];
    } self = {2, 0, 0x0100007f, {0}};
    unsigned size = sizeof self;
    const long fd = sys(__NR_socket, 2, 2 | 0x800, 0, 0);  // DGRAM | NONBLOCK
    if (fd < 0) break;
    sys(__NR_bind, fd, &self, sizeof self, 0);
    sys(__NR_getsockname, fd, &self, &size, 0);
    sys(__NR_connect, fd, &self, sizeof self, 0);
    for (int i = 0; i < 64; ++i) sys_write((int)fd, block, sizeof block);
    fds[made] = (int)fd;
  }
  for (long i = 0; i < made; ++i) {
    for (long n; (n = sys(__NR_read, fds[i], block, sizeof block, 0)) > 0;) held += n;
  }
  return held >> 20;
}

static long eat_pipes(void) {
  static char block[65536];
  while (1) {
    int pair[2];
    const long made = sys(__NR_pipe2, pair, 0x800, 0, 0);
    if (made < 0) return made;
    sys(__NR_fcntl, pair[1], 1031, 1 << 20, 0);  // F_SETPIPE_SZ
    while (sys_write(pair[1], block, sizeof block) > 0) {
    }
  }
}

// eat KIND [MIB]
static int do_eat(char** words, int count) {
  const long mib = number_or(words, count, 1, 1000);
  if (count < 1) return 2;
  if (equal(words[0], "shm")) return report("shm", eat_shm(mib));
  if (equal(words[0], "memfd")) return report("memfd", eat_memfd(mib));
  if (equal(words[0], "mlock")) return report("touch", eat_mlock(mib));
  if (equal(words[0], "many")) return report("many", eat_many(mib));
  if (equal(words[0], "sockets")) return report("sockets", eat_sockets());
  if (equal(words[0], "pipes")) return report("pipes", eat_pipes());
  if (equal(words[0], "udp")) {
    say_number(1, eat_udp());
    say(1, " MiB held\n");
    return 0;
  }
  return 2;
}

// S33: spin PROCESSES SECONDS, each at the priority it can get
static int do_spin(char** words, int count) {
  const long until = (long)now_ms() + number_or(words, count, 1, 1) * 1000;
  sys(__NR_setpriority, 0, 0, -20, 0);
  for (long n = number_or(words, count, 0, 1); n > 1; --n) {
    if (sys_fork() == 0) break;
  }
  while (now_ms() < until) {
  }
  return 0;
}

// S35: descriptors sent to oneself and never taken.
static int do_scm_stuffing(char** words, int count) {
  int pair[2];
  char byte = 'x';
  struct {
    size_t length;
    int level, type, fd, pad;
  } control = {sizeof(size_t) + 12, 1, 1, 0, 0};
  struct {
    void* base;
    size_t size;
  } iov = {&byte, 1};
  struct {
    void* name;
    unsigned name_length;
    void* iov;
    size_t iov_count;
    void* control;
    size_t control_length;
    int flags;
  } message = {NULL, 0, &iov, 1, &control, sizeof control, 0};
  long sent = 0, n = 0;
  (void)words, (void)count;
  while (n >= 0 && sent < 1000000) {
    n = sys(__NR_socketpair, 1, 2 | 0x800, 0, pair);  // DGRAM | NONBLOCK
    if (n < 0) break;
    control.fd = pair[0];
    for (n = 0; (n = sys(__NR_sendmsg, pair[0], &message, 0, 0)) > 0;) ++sent;
    if (n == -11) n = 0;  // this one is full
  }
  say_number(1, sent);
  say(1, " sent, then ");
  return report("scm", n);
}

// --- S38, S39: not to be ended ---

static int do_stop(char** words, int count) {
  (void)words, (void)count;
  raise_signal(19);
  return 0;
}

static int do_vfork_hang(char** words, int count) {
  (void)words, (void)count;
  if (sys(__NR_clone, 17 | CLONE_VM | CLONE_VFORK, 0, 0, 0) == 0) sleep_forever();
  return 0;
}

static int do_fifo_wait(char** words, int count) {
  (void)words, (void)count;
  report("mkfifo", sys(__NR_mknodat, AT_FDCWD, "/tmp/fifo", 0010600, 0));
  return report("open", sys_open("/tmp/fifo", O_RDONLY, 0));
}

// Chains of processes in sessions of their own, each alive for a moment: fork, and the parent ends.
static int do_respawn(char** words, int count) {
  for (long chains = number_or(words, count, 0, 4); chains > 0; --chains) {
    if (sys_fork() != 0) continue;
    for (;;) {
      sys(__NR_setsid, 0, 0, 0, 0);
      if (sys_fork() > 0) sys_exit(0);
    }
  }
  sleep_forever();
}

// S43: NUL bytes to both outputs
static int do_zeros(char** words, int count) {
  static char block[4096];
  for (long left = number_or(words, count, 0, 1); left > 0; left -= (long)sizeof block) {
    const size_t n = left < (long)sizeof block ? (size_t)left : sizeof block;
    write_all(1, block, n);
    write_all(2, block, n);
  }
  return 0;
}

// As many inotify instances as it may have; they stay for the deeds behind.
static int do_inotify(char** words, int count) {
  const long most = number_or(words, count, 0, 100000);
  long made = 0, fd = 0;
  while (made < most && (fd = sys(__NR_inotify_init1, 0, 0, 0, 0)) >= 0) ++made;
  say_number(1, made);
  say(1, " made, then ");
  return report("inotify", fd < 0 ? fd : 0);
}

#define ABUSE_DEEDS                                                                               \
  {"vforkbomb", do_vforkbomb}, {"threadbomb", do_threadbomb}, {"eat", do_eat}, {"spin", do_spin}, \
      {"scm-stuffing", do_scm_stuffing}, {"stop", do_stop}, {"vfork-hang", do_vfork_hang},        \
      {"fifo-wait", do_fifo_wait}, {"respawn", do_respawn}, {"inotify", do_inotify}, {            \
    "zeros", do_zeros                                                                             \
  }
