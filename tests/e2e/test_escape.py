"""What reaches out of a sandbox, and does not get there: the S cases about escapes, by number
(tests/sandbox-cases.md). Every deed runs in a parked and in a cold sandbox."""

import hashlib
import os
import re
import socket
import unittest
from pathlib import Path

import leaks
from harness import (BIN, ROOT, Case, Daemon, image_archive, image_of, in_parallel, probe_binary,
                     skip_unless, status_of, wait_until)

EPERM, ENOENT, ESRCH, EACCES, ETXTBSY, ENOSYS = 1, 2, 3, 13, 26, 38
EINVAL, EROFS, ENETUNREACH, EAFNOSUPPORT = 22, 30, 101, 97


def results(text):
    """{deed: errno, 0 for ok} of what the probe reports."""
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(.+): (?:ok|errno (\d+))", line)
        if match:
            found[match[1]] = int(match[2] or 0)
    return found


def listed_names():
    """The calls sandbox/syscalls.txt lets a function make, with or without conditions."""
    names, take = set(), False
    for line in (ROOT / "sandbox/syscalls.txt").read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("["):
            take = line.startswith(("[allow", "[conditional", "[errno 0"))
        elif take:
            names |= {word.rstrip(":") for word in re.findall(r"^\w+:|\b\w+\b", line)}
    return names


def listed_numbers():
    """{number: name} of listed_names() on this machine."""
    header = Path(f"/usr/include/{os.uname().machine}-linux-gnu/asm/unistd_64.h")
    skip_unless(header.exists(), "no list of system call numbers: " + str(header))
    numbers = {"fchmodat2": 452}  # newer than the headers
    numbers |= dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text()))
    names = listed_names()
    return {int(number): name for name, number in numbers.items() if name in names}


class Reach(Case):
    parked = 1

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(scale={"parked": cls.parked, "max": 4})

    def ask(self, *deeds, name="probe"):
        reply = self.daemon.call(name, "; ".join(deeds).encode())
        self.assertEqual(reply.status, 200, repr(reply))
        return reply.text

    def assert_denied(self, text, *allowed, least=1):
        answers = results(text)
        self.assertGreaterEqual(len(answers), least, text)
        for deed, errno in answers.items():
            self.assertIn(errno, allowed, f"{deed}: {text}")

    def test_s01_our_programs_cannot_be_written(self):
        before = {f: hashlib.sha256(f.read_bytes()).digest()
                  for f in BIN.glob("pulga*") if f.is_file()}

        def start_and_write(_):
            for _ in range(20):  # each tries a hundred times, from its first moment on
                self.assert_denied(self.ask("exe-write"), EROFS, ETXTBSY, EACCES, ENOENT, least=2)

        self.assertEqual(in_parallel(3, start_and_write), [None] * 3)  # while others start
        for file, digest in before.items():
            self.assertEqual(hashlib.sha256(file.read_bytes()).digest(), digest, file)

    def test_s01_a_script_that_names_our_program(self):
        image = image_of({"run": b"#!/proc/self/exe\n"}, "exe:1", Entrypoint=["/run"])
        self.daemon.import_archive(image_archive.docker_archive([image]))
        reply = self.daemon.api("PUT", "/v1/functions/exe", {"image": "exe:1", "mode": "exec"})
        if reply.status < 300:
            reply = self.daemon.call("exe", b"")
            self.assertNotEqual(reply.status, 200, "one of our programs ran: " + repr(reply))
            self.daemon.api("DELETE", "/v1/functions/exe")
        self.assertGreaterEqual(reply.status, 400, repr(reply))

    def test_s13_no_namespace_can_be_made_or_entered(self):
        for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"):
            with self.subTest(kind):
                self.assert_denied(self.ask(f"unshare {kind}"), EPERM, EINVAL, ENOSYS)
                self.assert_denied(self.ask(f"clone3 {kind}"), EPERM, ENOSYS)
                link = {"mnt": "mnt"}.get(kind, kind)
                self.assert_denied(self.ask(f"setns /proc/1/ns/{link}"), EPERM, EACCES, ENOENT)
        self.assert_denied(self.ask("clone3"), ENOSYS)  # so that libc falls back to clone
        self.assert_denied(self.ask("mount-api"), EPERM, ENOSYS, least=8)

    def test_s14_the_daemon_reads_pipes_not_files_of_an_instance(self):
        text = self.ask("own-output", "say fine")
        answers = results(text)
        self.assertEqual(answers["truncate"], EINVAL, text)
        self.assertEqual(answers["seek"], 29, text)  # ESPIPE
        self.assertEqual(self.ask("say next"), "next\n")
        held = {}
        with self.daemon.connect() as call:
            body = b"say begun; symlink /etc/shadow /tmp/out; sleep 20"
            call.sendall(b"POST /function/probe?stream=1 HTTP/1.1\r\nHost: x\r\n"
                         b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            received = b""
            while b"begun" not in received:
                received += call.recv(4096) or self.fail("it ended: " + repr(received))
            held = leaks.links_in(f"/proc/{self.daemon.daemon_pid()}/fd")
        self.assertGreater(len(held), 5)
        for target in held.values():
            self.assertNotIn(str(self.daemon.data / "layers"), target)
            self.assertFalse(target.startswith("/tmp/out"), target)

    def test_s18_the_filter_lets_through_what_the_list_says(self):
        listed = listed_numbers()
        text = self.ask("syscalls 0 170") + self.ask("syscalls 171 335") + self.ask(
            "syscalls 336 600")
        answered = {}
        for line in text.splitlines():
            number, how, value = line.split()
            answered[int(number)] = (how, int(value))
        self.assertGreater(len(answered), 590, text[-500:])
        passed = {n for n, (how, v) in answered.items()
                  if not (how == "errno" and v in (EPERM, ENOSYS))}
        # uretprobe and uprobe: Linux 6.13 lets them past every filter, for probes alone.
        passed -= {n for n in (335, 336) if answered[n] in (("signal", 4), ("errno", 6))}
        self.assertEqual({n for n in passed if n not in listed}, set())
        self.assertGreater(len(passed), 150, "the probe's calls do not arrive")
        self.assertIn("Seccomp:\t2", self.ask("caps"))

    def test_s18_another_abi_is_death(self):
        skip_unless(os.uname().machine == "x86_64", "the ABIs of x86_64")
        for deed in (b"sigsys", b"syscall %d" % (0x40000000 | 39)):
            self.assert_outcome(self.daemon.call("probe", deed), 500, "syscall-denied")

    def test_s19_socket_families_and_types(self):
        for kind in (1, 2, 3, 5):  # SOCK_STREAM, DGRAM, RAW, SEQPACKET
            text = self.ask(*(f"socket {family} {kind} 0" for family in range(0, 16)))
            text += self.ask(*(f"socket {family} {kind} 0" for family in range(16, 32)))
            text += self.ask(*(f"socket {family} {kind} 0" for family in range(32, 47)))
            answers = [int(m) if m else 0 for m in re.findall(r"socket: (?:ok|errno (\d+))", text)]
            self.assertEqual(len(answers), 47)
            for family, errno in enumerate(answers):
                if family not in (1, 2, 10, 16):
                    self.assertEqual(errno, EAFNOSUPPORT, f"family {family}, type {kind}")
            if kind == 3:  # raw sockets need a capability, whatever the family
                self.assertEqual((answers[2], answers[10]), (93, 93))  # EPROTONOSUPPORT

    def test_s20_netlink_is_for_looking_at_routes(self):
        for protocol in range(0, 32):
            answer = results(self.ask(f"socket 16 3 {protocol}"))["socket"]
            self.assertEqual(answer, 0 if protocol == 0 else EAFNOSUPPORT, protocol)
        self.assert_denied(self.ask("newlink"), EPERM)

    def test_s21_no_keyring(self):
        self.assert_denied(self.ask("keys"), EPERM, ENOSYS, least=4)
        text = self.ask("cat /proc/keys")
        self.assertTrue(text == "" or results(text).get("/proc/keys"), text)

    def test_s22_s48_calls_for_the_kernel_itself(self):
        self.assert_denied(self.ask("kernel-calls"), EPERM, ENOSYS, least=35)
        self.assert_denied(self.ask("cat /dev/rtc", "cat /dev/rtc0"), ENOENT, least=2)

    def test_s26_the_old_root_is_gone(self):
        lines = [tuple(line.rsplit(": ", 1)) for line in self.ask("old-root").splitlines()]
        # From five directories, all of which can be opened, by both ways.
        for way in ("loop", "up"):
            self.assertEqual([how for name, how in lines if name == way], ["inside"] * 5, lines)
        found = dict(lines)
        for name in ("/..", "/proc/self/root/.."):
            self.assertEqual(found[name], "inside", lines)
        for name in ("/.old_root", "/old_root", "/.pivot_root", "/oldroot"):
            self.assertEqual(found[name], f"errno {ENOENT}", lines)
        for name in ("/proc/1/root", "/proc/1/root/..", "/proc/1/cwd/../../.."):
            self.assertIn(found[name], ("inside", f"errno {EACCES}"), lines)
        self.assertEqual(len(lines), 19, lines)  # chroot is no line: it was refused

    def test_s46_the_network_of_mode_none(self):
        self.daemon.deploy_http("web", scale={"max": 1})
        self.assertEqual(self.daemon.call("web", path="/").status, 200)
        with socket.socket() as listener:
            listener.bind(("0.0.0.0", 0))
            listener.listen(1)
            port = listener.getsockname()[1]
            deeds = [f"connect {p} {a}" for p in (port, self.daemon.port, 8080)
                     for a in ("127 0 0 1", "10 0 0 1", "192 168 0 1", "169 254 169 254")]
            for deed in deeds:
                self.assert_denied(self.ask(deed), ENETUNREACH, 111)  # nothing, or nobody
        for address in ("255 255 255 255", "8 8 8 8", "224 0 0 1", "169 254 169 254"):
            self.assert_denied(self.ask("udp 53 " + address), ENETUNREACH)
        self.assert_denied(self.ask("connect6 80 1"), ENETUNREACH, 19, EINVAL, least=2)
        self.assert_denied(self.ask("socket 2 3 1", "socket 2 2 1"), EPERM, EACCES)
        names = re.findall(r"^\s*(\w+):", self.ask("cat /proc/net/dev"), re.M)
        self.assertEqual(names, ["lo"])
        self.daemon.api("DELETE", "/v1/functions/web")

    def test_s54_signals_stay_inside(self):
        # A process of the host beside it, by a number that is none inside.
        self.assert_denied(self.ask(f"kill {self.daemon.process.pid} 9",
                                    f"pidfd-signal {self.daemon.process.pid} 9"), ESRCH, EINVAL)
        # Everybody but itself and its init: the init is protected, and there is nobody else.
        self.assertIn("alive", self.ask("kill 1 9", "pidfd-signal 1 9", "kill -1 9", "say alive"))
        self.assertTrue(self.daemon.healthy())

    def test_s55_no_better_treatment_than_others(self):
        answers = results(self.ask("priority"))
        self.assertGreaterEqual(len(answers), 8, answers)
        for deed, errno in answers.items():
            self.assertIn(errno, (EPERM, EACCES, EROFS, ENOSYS, ENOENT), f"{deed}: {answers}")


class ReachCold(Reach):
    parked = 0


class AfterRecovery(unittest.TestCase):
    """R53: what S03, S11, S15, S18 and S46 find is the same after every death of ours."""

    DEEDS = ("fds", "caps", "ids", "cgroup", "mounts", "ls /dev", "ls /sys", "ls /proc/self/ns",
             "mount cgroup /tmp", "write /sys/fs/cgroup/release_agent x", "cat /proc/net/dev",
             "connect 80 169 254 169 254", "syscalls 0 40", "priority", "keys", "mount-api")

    def findings(self, daemon, name="probe"):
        def once():
            reply = daemon.call(name, "; ".join(self.DEEDS).encode())
            return reply.status == 200 and reply.text
        text = wait_until(once, 60, "an answer")
        text = re.sub(r"\[\d+\]", "[N]", text)          # inode numbers of namespaces and pipes
        text = re.sub(r"^(\d+) (\d+) \d+:\d+ ", "", text, flags=re.M)  # numbers of mounts
        text = re.sub(r"lowerdir=\S+|pid \d+|size=\w+", "", text)
        return re.sub(r"^ *lo:.*$", "lo", text, flags=re.M)

    def test_the_walls_are_as_before(self):
        skip_unless(os.geteuid() == 0, "needs root")
        with Daemon() as daemon:
            daemon.deploy_probe(scale={"parked": 1})
            fresh = self.findings(daemon)
            self.assertIn("NoNewPrivs:\t1", fresh)
            for victim in ("launcher_pid", "daemon_pid"):
                with self.subTest(victim):
                    os.kill(getattr(daemon, victim)(), 9)
                    wait_until(daemon.healthy, 60, "healthy")
                    self.assertEqual(self.findings(daemon), fresh)
            with self.subTest("everything, then a start"):
                for pid in (daemon.process.pid, daemon.launcher_pid(), daemon.daemon_pid()):
                    os.kill(pid, 9)
                daemon.process.wait(30)
                daemon.start()
                self.assertEqual(self.findings(daemon), fresh)


if __name__ == "__main__":
    unittest.main()
