// The deeds of probe.c that a sandbox must refuse. Included by probe_deeds.h only.
#pragma once

static int do_write(char** words, int count) {
  if (count < 1) return 2;
  const long fd = sys_open(words[0], O_WRONLY | O_CREAT, 0644);
  if (fd < 0) return report("open", fd);
  const char* what = count > 1 ? words[1] : "probe was here";
  return report("write", sys_write((int)fd, what, length(what)));
}

// inodes [DIR]: empty files until there are no more to be had
static int do_inodes(char** words, int count) {
  static char room[256];
  long fd = 0, made = -1;
  for (; fd >= 0; ++made) {
    struct text path = {room, 0, sizeof room - 1};
    put(&path, count > 0 ? words[0] : "/tmp");
    put(&path, "/inode-");
    put_number(&path, made + 1);
    room[path.size] = '\0';
    fd = sys_open(room, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd >= 0) sys_close((int)fd);
  }
  say_number(1, made);
  say(1, " files, then ");
  return report("open", fd);
}

// run-copy PATH: this program copied there and executed, which then says "ran"
static int do_run_copy(char** words, int count) {
  static char block[65536];
  static char* argv[] = {"probe", "say ran", NULL};
  long n;
  if (count < 1) return 2;
  const long from = sys_open("/proc/self/exe", O_RDONLY, 0);
  const long to = sys_open(words[0], O_WRONLY | O_CREAT, 0755);
  if (to < 0) return report("open", to);
  while ((n = sys_read((int)from, block, sizeof block)) > 0) write_all((int)to, block, (size_t)n);
  sys_close((int)to);
  return report("execve", sys(__NR_execve, words[0], argv, probe_envp, 0));
}

// exec PATH: another program of the image in its place, which is asked to say "ran"
static int do_exec(char** words, int count) {
  static char* argv[] = {"other", "say ran", NULL};
  if (count < 1) return 2;
  return report("execve", sys(__NR_execve, words[0], argv, probe_envp, 0));
}

// landlock-layers: how many more fences the kernel lets it put around itself; of 16 in all
static int do_landlock_layers(char** words, int count) {
  const uint64_t refuse_block_devices = 1 << 11;
  long result = 0, layers = -1;
  (void)words, (void)count;
  for (; result == 0; ++layers) {
    result = sys(444, &refuse_block_devices, sizeof refuse_block_devices, 0, 0);
    if (result < 0) continue;
    const int ruleset = (int)result;
    result = sys(446, ruleset, 0, 0, 0);
    sys_close(ruleset);
  }
  say_number(1, layers);
  say(1, " layers, then ");
  return report("landlock", result);
}

// rename FROM TO
static int do_rename(char** words, int count) {
  if (count < 2) return 2;
  return report("rename",
                sys6(__NR_renameat2, AT_FDCWD, (long)words[0], AT_FDCWD, (long)words[1], 0, 0));
}

// link FROM TO
static int do_link(char** words, int count) {
  if (count < 2) return 2;
  return report("link",
                sys6(__NR_linkat, AT_FDCWD, (long)words[0], AT_FDCWD, (long)words[1], 0, 0));
}

// leave-project PATH: out of its quota project, by its number, by no longer handing it on, and by
// the flag alone
static int do_leave_project(char** words, int count) {
  const long get = 0x801c581f, set = 0x401c5820, inherit = 0x200;  // FS_IOC_FS[GS]ETXATTR
  const long set_flags = 0x40086602;                               // FS_IOC_SETFLAGS
  uint32_t attributes[7] = {0};
  const long no_flags = 0;
  if (count < 1) return 2;
  const long fd = sys_open(words[0], O_RDONLY, 0);
  if (fd < 0) return report("open", fd);
  report("read-project", sys(__NR_ioctl, fd, get, (long)attributes, 0));
  const uint32_t project = attributes[3];
  attributes[3] = 0;
  report("no-project", sys(__NR_ioctl, fd, set, (long)attributes, 0));
  attributes[3] = project + 1;
  report("other-project", sys(__NR_ioctl, fd, set, (long)attributes, 0));
  attributes[3] = project;
  attributes[0] &= ~(uint32_t)inherit;
  report("no-inherit", sys(__NR_ioctl, fd, set, (long)attributes, 0));
  return report("no-flags", sys(__NR_ioctl, fd, set_flags, (long)&no_flags, 0));
}

// mount [TYPE [TARGET [SOURCE]]]
static int do_mount(char** words, int count) {
  const char* type = count > 0 ? words[0] : "tmpfs";
  const char* target = count > 1 ? words[1] : "/tmp";
  const char* source = count > 2 ? words[2] : "none";
  return report("mount", sys6(__NR_mount, (long)source, (long)target, (long)type, 0, 0, 0));
}

// The CLONE_NEW flag of a namespace's short name, or the number itself.
static long namespace_flag(const char* name) {
  static const struct {
    const char* name;
    long flag;
  } kFlags[] = {{"user", CLONE_NEWUSER},     {"mnt", CLONE_NEWNS},   {"pid", CLONE_NEWPID},
                {"net", CLONE_NEWNET},       {"ipc", CLONE_NEWIPC},  {"uts", CLONE_NEWUTS},
                {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}};
  for (size_t i = 0; i < sizeof kFlags / sizeof kFlags[0]; ++i) {
    if (equal(name, kFlags[i].name)) return kFlags[i].flag;
  }
  return to_number(name);
}

static int do_unshare(char** words, int count) {
  const long flag = count > 0 ? namespace_flag(words[0]) : CLONE_NEWUSER;
  report("unshare", sys(__NR_unshare, flag, 0, 0, 0));
  if (flag == CLONE_NEWTIME) return 0;  // clone takes that bit for a signal number
  const long child = sys(__NR_clone, flag | 17, 0, 0, 0);
  if (child == 0) sys_exit(0);
  return report("clone", child);
}

static int do_setns(char** words, int count) {
  const long fd = sys_open(count > 0 ? words[0] : "/proc/self/ns/user", O_RDONLY, 0);
  if (fd < 0) return report("open", fd);
  return report("setns", sys(__NR_setns, fd, 0, 0, 0));
}

static int do_ptrace(char** words, int count) {
  (void)words, (void)count;
  report("ptrace-traceme", sys(__NR_ptrace, 0, 0, 0, 0));
  return report("ptrace-attach-1", sys(__NR_ptrace, 16, 1, 0, 0));
}

// refused [TIMES]: a refused call so often; how many ended otherwise
static int do_refused(char** words, int count) {
  const long times = number_or(words, count, 0, 1);
  long other = 0;
  say(1, "begins\n");
  for (long i = 0; i < times; ++i) other += sys(__NR_ptrace, 0, 0, 0, 0) != -1;
  say_number(1, other);
  say(1, " answered otherwise\n");
  return 0;
}

static int do_chroot(char** words, int count) {
  return report("chroot", sys(__NR_chroot, count > 0 ? words[0] : "/tmp", 0, 0, 0));
}

// syscall NR [A [B [C [D]]]] with numbers
static int do_syscall(char** words, int count) {
  const long nr = number_or(words, count, 0, 0);
  return report("syscall", sys(nr, number_or(words, count, 1, 0), number_or(words, count, 2, 0),
                               number_or(words, count, 3, 0), number_or(words, count, 4, 0)));
}

// How one call number ends when called with arguments that no kernel accepts.
static void try_syscall(long nr) {
  const long child = sys_fork();
  if (child < 0) return;
  if (child == 0) {
    const long result = sys6(nr, -1, -1, -1, -1, -1, -1);
    sys_exit(result < 0 && result > -200 ? (int)-result : 0);
  }
  int status = 0;
  for (int turn = 0; turn < 50; ++turn) {
    if (sys(__NR_wait4, child, &status, 1 /* WNOHANG */, 0) == child) break;
    sleep_ms(2);
    if (turn == 49) {
      sys(__NR_kill, child, 9, 0, 0);
      sys(__NR_wait4, child, &status, 0, 0);
      status = 0;  // it blocked: it was allowed
    }
  }
  say_number(1, nr);
  say(1, status & 0x7f ? " signal " : " errno ");
  say_number(1, status & 0x7f ? status & 0x7f : status >> 8 & 0xff);
  say(1, "\n");
}

// syscalls [FROM [TO]]: one line for each call number
static int do_syscalls(char** words, int count) {
  const long last = number_or(words, count, 1, 600);
  for (long nr = number_or(words, count, 0, 0); nr <= last; ++nr) try_syscall(nr);
  return 0;
}

// socket FAMILY [TYPE [PROTOCOL]]
static int do_socket(char** words, int count) {
  return report("socket", sys(__NR_socket, number_or(words, count, 0, 2),
                              number_or(words, count, 1, 1), number_or(words, count, 2, 0), 0));
}

// connect PORT [A B C D]: TCP over IPv4, to 127.0.0.1 unless told
static int do_connect(char** words, int count) {
  const long port = number_or(words, count, 0, 80);
  unsigned char address[16] = {2, 0, (unsigned char)(port >> 8), (unsigned char)port, 127, 0, 0, 1};
  for (int i = 1; i < 5 && count == 5; ++i) address[3 + i] = (unsigned char)to_number(words[i]);
  const long fd = sys(__NR_socket, 2, 1, 0, 0);
  if (fd < 0) return report("socket", fd);
  return report("connect", sys(__NR_connect, fd, address, sizeof address, 0));
}

// mknod [PATH]: a character device 1:1 and a block device 8:0
static int do_mknod(char** words, int count) {
  const char* path = count > 0 ? words[0] : "/tmp/node";
  report("mknod-char", sys(__NR_mknodat, AT_FDCWD, path, 0020666, 0x101));
  return report("mknod-block", sys(__NR_mknodat, AT_FDCWD, path, 0060666, 0x800));
}

static int do_kill(char** words, int count) {
  return report("kill",
                sys(__NR_kill, number_or(words, count, 0, 1), number_or(words, count, 1, 9), 0, 0));
}

static int do_mkdir(char** words, int count) {
  return count < 1 ? 2 : report("mkdir", sys(__NR_mkdirat, AT_FDCWD, words[0], 0755, 0));
}

static int do_symlink(char** words, int count) {
  return count < 2 ? 2 : report("symlink", sys(__NR_symlinkat, words[0], AT_FDCWD, words[1], 0));
}

static int do_unlink(char** words, int count) {
  return count < 1 ? 2 : report("unlink", sys(__NR_unlinkat, AT_FDCWD, words[0], 0, 0));
}

// The five capability sets and no_new_privs, as the status file prints them.
static int do_caps(char** words, int count) {
  static char room[8192];
  (void)words, (void)count;
  const long fd = sys_open("/proc/self/status", O_RDONLY, 0);
  const long n = fd < 0 ? fd : sys_read((int)fd, room, sizeof room - 1);
  if (n < 0) return report("status", n);
  room[n] = '\0';
  for (const char* line = room; *line != '\0';) {
    size_t end = 0;
    while (line[end] != '\0' && line[end] != '\n') ++end;
    if (starts_with(line, "Cap") || starts_with(line, "NoNewPrivs") ||
        starts_with(line, "Seccomp")) {
      write_all(1, line, end);
      say(1, "\n");
    }
    line += end + (line[end] == '\n');
  }
  return 0;
}
