// The deeds of probe.c that reach for what is outside: programs, namespaces, mounts, netlink,
// kernel calls, priorities, other processes. Included by probe_deeds.h only. By S number of the
// sandbox cases: tests/sandbox-cases.md.
#pragma once

// S01: write to what runs us.
static int do_exe_write(char** words, int count) {
  (void)words, (void)count;
  for (int turn = 0; turn < 100; ++turn) {
    const long own = sys_open("/proc/self/exe", turn % 2 ? O_RDWR : O_WRONLY, 0);
    const long first = sys_open("/proc/1/exe", O_WRONLY, 0);
    if (own >= 0) return report("own", own);
    if (first >= 0) return report("first", first);
    if (turn == 99) report("own", own), report("first", first);
  }
  return 0;
}

// S13: clone3 with every namespace flag, and without any.
static int do_clone3(char** words, int count) {
  struct {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
  } args = {(uint64_t)(count > 0 ? namespace_flag(words[0]) : 0), 0, 0, 0, 17, 0, 0, 0};
  const long child = sys(__NR_clone3, &args, sizeof args, 0, 0);
  if (child == 0) sys_exit(0);
  return report("clone3", child);
}

// S13: the mount API of fds.
static int do_mount_api(char** words, int count) {
  uint64_t attributes[4] = {0, 1, 0, 0};
  (void)words, (void)count;
  report("fsopen", sys(__NR_fsopen, "proc", 0, 0, 0));
  report("open_tree", sys(__NR_open_tree, AT_FDCWD, "/", 1, 0));
  report("fspick", sys(__NR_fspick, AT_FDCWD, "/", 0, 0));
  report("fsmount", sys(__NR_fsmount, 0, 0, 0, 0));
  report("move_mount", sys6(__NR_move_mount, AT_FDCWD, (long)"/", AT_FDCWD, (long)"/tmp", 0, 0));
  report("mount_setattr",
         sys6(__NR_mount_setattr, AT_FDCWD, (long)"/", 0, (long)attributes, sizeof attributes, 0));
  report("umount", sys(__NR_umount2, "/proc", 2, 0, 0));
  return report("pivot_root", sys(__NR_pivot_root, "/tmp", "/tmp", 0, 0));
}

// S20: asks route netlink for a new link; prints the kernel's answer.
static int do_newlink(char** words, int count) {
  struct {
    uint32_t length;
    uint16_t type, flags;
    uint32_t sequence, port;
    uint8_t family, pad;
    uint16_t device;
    int32_t index;
    uint32_t state, change;
    uint16_t name_length, name_type;
    char name[8];
  } ask = {44, 16, 0x605, 1, 0, 0, 0, 0, 0, 0, 0, 12, 3, "flea0"};  // REQUEST ACK CREATE EXCL
  struct {
    uint32_t length;
    uint16_t type, flags;
    uint32_t sequence, port;
    int32_t error;
    char rest[512];
  } answer = {0, 0, 0, 0, 0, 0, {0}};
  (void)words, (void)count;
  const long fd = sys(__NR_socket, 16, 3, 0, 0);
  if (fd < 0) return report("socket", fd);
  const long sent = sys6(__NR_sendto, fd, (long)&ask, ask.length, 0, 0, 0);
  if (sent < 0) return report("newlink", sent);
  const long got = sys6(__NR_recvfrom, fd, (long)&answer, sizeof answer, 0, 0, 0);
  return report("newlink", got < 0 ? got : answer.error);
}

// S21
static int do_keys(char** words, int count) {
  (void)words, (void)count;
  report("add_key", sys6(__NR_add_key, (long)"user", (long)"k", (long)"v", 1, -3, 0));
  report("request_key", sys(__NR_request_key, "user", "k", 0, -3));
  report("keyctl-join", sys(__NR_keyctl, 1, 0, 0, 0));
  return report("keyctl-id", sys(__NR_keyctl, 0, -3, 0, 0));
}

#define NAMED(call) \
  { #call, __NR_##call }

// S22, S48 and the rest of what no function may ask: each with arguments a kernel could accept.
static int do_kernel_calls(char** words, int count) {
  static char zeros[512];
  static const struct {
    const char* name;
    long nr;
  } kCalls[] = {
    NAMED(bpf),
    NAMED(perf_event_open),
    NAMED(userfaultfd),
    NAMED(io_uring_setup),
    NAMED(io_uring_enter),
    NAMED(io_uring_register),
    NAMED(ptrace),
    NAMED(process_vm_readv),
    NAMED(process_vm_writev),
    NAMED(kcmp),
    NAMED(pidfd_getfd),
    NAMED(open_by_handle_at),
    NAMED(process_madvise),
    NAMED(move_pages),
    NAMED(mbind),
    NAMED(clock_settime),
    NAMED(settimeofday),
    NAMED(adjtimex),
    NAMED(clock_adjtime),
    NAMED(init_module),
    NAMED(finit_module),
    NAMED(delete_module),
    NAMED(kexec_load),
    NAMED(reboot),
    NAMED(swapon),
    NAMED(swapoff),
    NAMED(acct),
    NAMED(quotactl),
    NAMED(syslog),
    NAMED(sethostname),
    NAMED(setdomainname),
    NAMED(vhangup),
    NAMED(fanotify_init),
    NAMED(vmsplice),
#if defined(__NR_memfd_secret)
    NAMED(memfd_secret),
#endif
    NAMED(name_to_handle_at),
#if defined(__x86_64__)
    NAMED(modify_ldt),
    NAMED(iopl),
    NAMED(ioperm),
#endif
  };
  (void)words, (void)count;
  for (size_t i = 0; i < sizeof kCalls / sizeof kCalls[0]; ++i) {
    report(kCalls[i].name, sys6(kCalls[i].nr, 0, (long)zeros, 0, (long)zeros, 0, 0));
  }
  return 0;
}

// Is `path` the root we see? Prints "NAME: inside", "NAME: OUTSIDE" or "NAME: errno N".
static int is_root(const char* name, const char* path) {
  static char root[256] __attribute__((aligned(8)));  // struct statx
  static char block[256] __attribute__((aligned(8)));
  const long seen = sys6(__NR_statx, AT_FDCWD, (long)"/", 0, 0x7ff, (long)root, 0);
  const long got = sys6(__NR_statx, AT_FDCWD, (long)path, 0, 0x7ff, (long)block, 0);
  if (seen < 0 || got < 0) return report(name, seen < 0 ? seen : got);
  const int same = *(const uint64_t*)(root + 32) == *(const uint64_t*)(block + 32) &&  // ino
                   *(const uint64_t*)(root + 136) == *(const uint64_t*)(block + 136);  // device
  say(1, name);
  say(1, same ? ": inside\n" : ": OUTSIDE\n");
  return 0;
}

// S26: up from the directory `from`, step by step and at once, through a descriptor that was opened
// before the chroot of the classic, which needs a capability to be one.
static void climb(const char* from) {
  const long fd = sys_open(from, O_RDONLY | O_DIRECTORY, 0);
  sys(__NR_mkdirat, AT_FDCWD, "/tmp/jail", 0700, 0);
  const long jailed = sys(__NR_chroot, "/tmp/jail", 0, 0, 0);
  if (jailed >= 0) report("chroot", jailed);
  sys(__NR_chdir, "/tmp/jail", 0, 0, 0);
  if (fd < 0 || sys(__NR_fchdir, fd, 0, 0, 0) < 0) report(from, fd);
  for (int i = 0; i < 64; ++i) sys(__NR_chdir, "..", 0, 0, 0);
  is_root("loop", ".");
  const long up =
      sys6(__NR_openat, fd, (long)"../../../../../../../..", O_PATH | O_DIRECTORY, 0, 0, 0);
  const long there = up < 0 ? up : sys(__NR_fchdir, up, 0, 0, 0);
  if (there < 0)
    report("up", there);
  else
    is_root("up", ".");
  sys(__NR_chdir, "/", 0, 0, 0);
}

static int do_old_root(char** words, int count) {
  static const char* const kPlaces[] = {
      "/..",        "/proc/self/root/..", "/proc/1/root", "/proc/1/root/..", "/proc/1/cwd/../../..",
      "/.old_root", "/old_root",          "/.pivot_root", "/oldroot"};
  static const char* const kMounts[] = {"/", "/proc", "/dev", "/tmp", "/proc/self/fd"};
  (void)words, (void)count;
  for (size_t i = 0; i < sizeof kMounts / sizeof kMounts[0]; ++i) climb(kMounts[i]);
  for (size_t i = 0; i < sizeof kPlaces / sizeof kPlaces[0]; ++i) is_root(kPlaces[i], kPlaces[i]);
  return 0;
}

// S54: PID 1 and everybody, in every way; whoever still speaks was not hit.
static int do_pidfd_signal(char** words, int count) {
  const long fd = sys(__NR_pidfd_open, number_or(words, count, 0, 1), 0, 0, 0);
  if (fd < 0) return report("pidfd_open", fd);
  return report("pidfd_send_signal",
                sys(__NR_pidfd_send_signal, fd, number_or(words, count, 1, 9), 0, 0));
}

static int write_text(const char* path, const char* text) {
  const long fd = sys_open(path, O_WRONLY, 0);
  return report(path, fd < 0 ? fd : sys_write((int)fd, text, length(text)));
}

// S55: better treatment than others get.
static int do_priority(char** words, int count) {
  const int fifo = 1;
  const uint64_t more[2] = {1 << 20, 1 << 20};
  (void)words, (void)count;
  report("setpriority", sys(__NR_setpriority, 0, 0, -20, 0));
  report("ioprio_set", sys(__NR_ioprio_set, 1, 0, 1 << 13, 0));
  report("sched_setscheduler", sys(__NR_sched_setscheduler, 0, 1, &fifo, 0));
  report("sched_setparam", sys(__NR_sched_setparam, 0, &fifo, 0, 0));
  report("nofile", sys(__NR_prlimit64, 0, 7, more, 0));
  report("rtprio", sys(__NR_prlimit64, 0, 14, more, 0));
  write_text("/proc/self/oom_score_adj", "-1000");
  return write_text("/proc/1/oom_score_adj", "-1000");
}

// udp PORT A B C D: one datagram
static int do_udp(char** words, int count) {
  const long port = number_or(words, count, 0, 53);
  unsigned char address[16] = {2, 0, (unsigned char)(port >> 8), (unsigned char)port, 127, 0, 0, 1};
  const int broadcast = 1;
  for (int i = 1; i < 5 && count == 5; ++i) address[3 + i] = (unsigned char)to_number(words[i]);
  const long fd = sys(__NR_socket, 2, 2, 0, 0);
  if (fd < 0) return report("socket", fd);
  sys6(__NR_setsockopt, fd, 1, 6, (long)&broadcast, sizeof broadcast, 0);
  return report("udp", sys6(__NR_sendto, fd, (long)"x", 1, 0, (long)address, sizeof address));
}

// connect6 PORT LAST: to fe80::LAST on the first link that is not lo, and to 2001:db8::LAST
static int do_connect6(char** words, int count) {
  const long port = number_or(words, count, 0, 80);
  unsigned char address[28] = {10, 0, (unsigned char)(port >> 8), (unsigned char)port};
  address[23] = (unsigned char)number_or(words, count, 1, 1);
  address[8] = 0xfe, address[9] = 0x80, address[24] = 2;
  const long local = sys(__NR_socket, 10, 1, 0, 0);
  report("link-local", sys(__NR_connect, local, address, sizeof address, 0));
  address[8] = 0x20, address[9] = 1, address[10] = 0xd, address[11] = 0xb8, address[24] = 0;
  const long global = sys(__NR_socket, 10, 1, 0, 0);
  return report("global", sys(__NR_connect, global, address, sizeof address, 0));
}

// S14: reads back what goes to the daemon, and cuts and seeks in it.
static int do_own_output(char** words, int count) {
  char room[16];
  (void)words, (void)count;
  report("truncate", sys(__NR_ftruncate, 1, 1 << 30, 0, 0));
  report("seek", sys(__NR_lseek, 1, 1 << 30, 0, 0));
  say(2, "secret of the log\n");
  const long fd = sys_open("/proc/self/fd/2", O_RDONLY | O_NONBLOCK, 0);
  report("reopen", fd < 0 ? fd : sys_read((int)fd, room, sizeof room));
  return report("dup", sys(__NR_dup3, 1, 2, 0, 0));
}

#define ESCAPE_DEEDS                                                                 \
  {"exe-write", do_exe_write}, {"clone3", do_clone3}, {"mount-api", do_mount_api},   \
      {"newlink", do_newlink}, {"keys", do_keys}, {"kernel-calls", do_kernel_calls}, \
      {"pidfd-signal", do_pidfd_signal}, {"priority", do_priority}, {"udp", do_udp}, \
      {"connect6", do_connect6}, {"own-output", do_own_output}, {                    \
    "old-root", do_old_root                                                          \
  }
