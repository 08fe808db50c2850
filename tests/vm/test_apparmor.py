"""The AppArmor profile of packaging/ on a kernel that has AppArmor: loaded, it is on each start of
a function, what it refuses is refused, each of its lines does something, and what functions do goes
on. In the guest of scripts/vm-test, as test_pure_v2."""

import os
import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))

import test_runtimes  # noqa: E402 (the folder must be on the path first)
from harness import Case, Daemon, skip_unless  # noqa: E402

PROFILE = ROOT / "packaging/apparmor/pulga-function"
ENABLED = Path("/sys/module/apparmor/parameters/enabled")
SECURITY = Path("/sys/kernel/security")
PYTHON = "/usr/bin/python3"
EACCES, EPERM = 13, 1
# Modules that this program has loaded itself.
PROGRAM = """
import socket, subprocess, tempfile, threading
server = socket.create_server(("127.0.0.1", 0))
def serve(): server.accept()[0].sendall(b"from the thread")
threading.Thread(target=serve).start()
assert socket.create_connection(("localhost", server.getsockname()[1])).recv(64)
assert subprocess.run(["/bin/sh", "-c", "echo child"], capture_output=True).stdout == b"child\\n"
with tempfile.TemporaryFile() as f:
    f.write(b"x" * 100000)
print("python works")
"""


def parser(*words, profile):
    """Tells the kernel of a profile, or to forget it."""
    done = subprocess.run(["apparmor_parser", *words, "--skip-cache"], input=profile.encode(),
                          capture_output=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"apparmor_parser {words}: {done.stderr.decode()}\n{profile}")


def needs_apparmor():
    skip_unless(ENABLED.exists() and ENABLED.read_text().strip() == "Y", "no AppArmor")
    skip_unless(shutil.which("apparmor_parser"), "no apparmor_parser (package apparmor)")
    if not (SECURITY / "apparmor").exists():
        subprocess.run(["mount", "-t", "securityfs", "none", SECURITY], check=True)


class WithProfile(Case):
    """Functions of a daemon that starts none without it."""

    flags = ("--apparmor", "require")
    more = ""

    @classmethod
    def setUpClass(cls):
        needs_apparmor()
        cls.profile = PROFILE.read_text().rstrip().removesuffix("}") + cls.more + "}\n"
        parser("--replace", profile=cls.profile)
        cls.addClassCleanup(parser, "--remove", profile=cls.profile)
        super().setUpClass()


class Confined(WithProfile):
    """Ours forbids only what other walls forbid too: so that it shows, one file more is."""

    more = "  deny /tmp/forbidden w,\n"

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"timeout": "10s"})
        cls.daemon.deploy_http()

    def layer(self):
        described = self.daemon.api("GET", "/v1/functions/probe").json()
        return {row["layer"]: row for row in described["isolation"]}["apparmor"]

    def test_every_start_is_under_the_profile(self):
        for _ in range(2):  # cold, parked
            label = self.daemon.call("probe", b"cat /proc/self/attr/current").text
            self.assertIn("pulga-function (enforce)", label)
        self.assertEqual(self.daemon.call("web", path="/").status, 200)
        self.assertEqual(self.layer()["state"], "present")

    def test_what_the_profile_alone_forbids_is_refused(self):
        self.assertIn("ok", self.daemon.call("probe", b"write /tmp/allowed x").text)
        self.assertIn("errno 13", self.daemon.call("probe", b"write /tmp/forbidden x").text)

    def test_what_functions_do_is_not_refused(self):
        for deed in (b"say fine", b"ls /", b"cat /proc/self/status", b"orphan 1", b"ids",
                     b"cat /proc/self/maps", b"write /proc/self/comm flea"):
            with self.subTest(deed):
                self.assert_outcome(self.daemon.call("probe", deed), 200, "ok")
        self.assert_outcome(self.daemon.call("probe", b"sleep 60"), 504, "timed-out")


class Runtimes(WithProfile, test_runtimes.Runtimes):
    """Real ones do their ordinary work under it; of what they have beside them only what they need,
    as the guest's processor is emulated."""

    memory = "512Mi"

    def test_python(self):
        tree = test_runtimes.Tree()
        tree.program(os.path.realpath(PYTHON))
        for module in list(sys.modules.values()):
            path = getattr(module, "__file__", None)
            if path and path.startswith("/usr/lib/python3"):
                tree.add(path)
                for library in test_runtimes.libraries_of(path) if ".so" in path else ():
                    tree.add(library)
        self.runs("python", tree, [os.path.realpath(PYTHON), "-ISc", PROGRAM], "python works\n")

    def test_node(self):
        path = self.machine_has("node")
        if not path:
            return
        tree = test_runtimes.Tree()
        tree.program(path)
        self.runs("node", tree, [path, "-e", test_runtimes.NODE], "node works\n")


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite(map(loader.loadTestsFromTestCase, (Confined, Settings, Lines)))
    suite.addTests([Runtimes("test_python"), Runtimes("test_node")])
    return suite


class Settings(unittest.TestCase):
    """--apparmor where the kernel has it and the profile is not loaded, or is."""

    def setUp(self):
        needs_apparmor()
        self.daemon = Daemon()
        self.addCleanup(self.daemon.__exit__, None, None, None)

    def start(self, use):
        if self.daemon.process is not None:
            self.daemon.stop()
        self.daemon.flags = ["--apparmor", use]
        self.daemon.start()

    def label(self):
        return self.daemon.call("probe", b"cat /proc/self/attr/current").text

    def test_each_does_what_it_says(self):
        self.start("auto")
        self.daemon.deploy_probe()
        self.assertIn("unconfined", self.label())
        self.start("require")
        reply = self.daemon.call("probe", b"say fine")
        self.assertGreaterEqual(reply.status, 500, repr(reply))
        self.assertIn("profile pulga-function is not loaded, but required",
                      reply.text + self.daemon.log())
        profile = PROFILE.read_text()
        parser("--replace", profile=profile)
        self.addCleanup(parser, "--remove", profile=profile)
        for use in ("auto", "require"):
            self.start(use)
            self.assertIn("pulga-function (enforce)", self.label(), use)
        self.start("off")
        self.assertIn("unconfined", self.label())


# What each line of the profile is for, tried by root without any other wall: lines, what shows
# them, what a profile has to allow beside for it to show, and the errno where the line decides. A
# line that begins with deny has it as it stands, any other one when it is gone.
PRELUDE = """
import ctypes, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *words):
    if getattr(libc, name)(*words) != 0: raise OSError(ctypes.get_errno(), name)
def opened(path, how): os.close(os.open(path, how))
def sleeper():
    pid = os.fork()
    if pid == 0: os.closerange(0, 3); time.sleep(9); os._exit(0)
    return pid
def with_sleeper(deed):
    pid = sleeper()
    try: deed(pid)
    finally:
        try: os.kill(pid, signal.SIGKILL)
        except OSError: pass
def mount_at(flags=0):
    call("mount", b"none", b"/mnt", b"tmpfs", flags, None)
def stat_exe(pid): os.readlink(f"/proc/{pid}/exe")
"""
LINES = [
    (["file,"], "pass", "", EACCES),
    (["network inet,"], "socket.socket(socket.AF_INET)", "", EACCES),
    (["network inet6,"], "socket.socket(socket.AF_INET6)", "", EACCES),
    # A kernel without rules for single addresses takes either for both.
    (["network unix,", "unix,"], "socket.socket(socket.AF_UNIX)", "", EACCES),
    (["network netlink,"], "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "", EACCES),
    (["signal (send, receive) peer=pulga-function,"],
     "with_sleeper(lambda pid: os.kill(pid, signal.SIGTERM))", "", EACCES),
    (["signal (receive) peer=unconfined,"], None, "", EACCES),  # from outside: below
    (["capability,"], "os.setgroups([5])", "", EPERM),
    (["deny mount,"], "mount_at()", "mount,", EACCES),
    # The line before is for every kind of mount.
    (["deny remount,", "deny mount,"], "mount_at(32)", "mount,\n  remount,", EACCES),
    (["deny umount,"], "call('umount2', b'/mnt', 0)", "umount,", EACCES),
    (["deny pivot_root,"], "call('syscall', 155, b'/mnt', b'/mnt')", "pivot_root,", EACCES),
    (["ptrace (read, readby) peer=pulga-function,"], "with_sleeper(stat_exe)", "", EACCES),
    (["deny ptrace (trace, tracedby),"],
     "with_sleeper(lambda pid: call('ptrace', 16, pid, 0, 0))", "ptrace,", EACCES),
    (["deny /proc/[^1-9]* w,"], "opened('/proc/sysrq-trigger', os.O_WRONLY)", "", EACCES),
    (["deny /proc/[^1-9]*/** w,"], "opened('/proc/sys/kernel/panic', os.O_WRONLY)", "", EACCES),
    (["deny /proc/{acpi,asound,interrupts,kcore,keys,latency_stats,sched_debug,scsi}{,/**} r,"],
     "opened('/proc/interrupts', os.O_RDONLY)", "", EACCES),
    (["deny /proc/timer_{list,stats} r,"], "opened('/proc/timer_list', os.O_RDONLY)", "", EACCES),
    (["deny /sys/** wl,"], "opened('/sys/kernel/profiling', os.O_WRONLY)", "", EACCES),
]


class Lines(unittest.TestCase):
    """Each is taken away once, and something else happens then."""

    NAME = "pulga-line"

    def setUp(self):
        needs_apparmor()
        self.whole = PROFILE.read_text().replace("pulga-function", self.NAME)

    def load(self, profile):
        parser("--replace", profile=profile)
        self.addCleanup(subprocess.run, ["apparmor_parser", "--remove", "--skip-cache"],
                        input=profile.encode(), capture_output=True, check=False)

    def start(self, deed):
        """A program of root's under the profile as it is loaded, in mounts of its own."""
        line = (f"mount -t tmpfs none /mnt && echo 'exec {self.NAME}' "
                '>/proc/self/attr/apparmor/exec && exec "$@"')
        code = PRELUDE + f"try:\n  {deed}\n  print('ok')\nexcept OSError as e: print(e.errno)"
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", line, "sh", PYTHON, "-ISc", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def outcome(self, deed):
        """0 or an errno."""
        with self.start(deed) as child:
            out, err = child.communicate(timeout=60)
        if child.returncode in (126, 127):  # not even itself or a library could be read
            return EACCES
        self.assertRegex(out, r"^(ok|\d+)\n$", err)
        return 0 if out == "ok\n" else int(out)

    def signalled(self, _deed):
        """What comes of a signal from outside."""
        with self.start("print('here', flush=True); sys.stdin.read()") as child:
            self.assertEqual(child.stdout.readline(), "here\n")
            try:
                child.terminate()
                return 0
            except PermissionError:
                return EACCES
            finally:
                child.communicate(timeout=60)

    def test_each_line_does_something(self):
        for lines, deed, beside, errno in LINES:
            with self.subTest(lines[0]):
                ask = self.outcome if deed else self.signalled
                whole = self.whole.replace("  file,\n", f"  file,\n  {beside}\n", 1)
                without = whole
                for line in lines:
                    self.assertEqual(without.count(f"  {self.named(line)}\n"), 1, line)
                    without = without.replace(f"  {self.named(line)}\n", "", 1)
                self.load(whole)
                with_it = ask(deed)
                self.load(without)
                if lines[0].startswith("deny"):
                    self.assertEqual(with_it, errno)
                    self.assertNotEqual(ask(deed), errno)
                else:
                    self.assertEqual(with_it, 0)
                    self.assertEqual(ask(deed), errno)

    def named(self, line):
        return line.replace("pulga-function", self.NAME)

    def test_no_line_is_forgotten(self):
        body = PROFILE.read_text().split("{\n", 1)[1].rsplit("}", 1)[0]
        rules = {line.strip() for line in body.splitlines() if not re.match(r"\s*(#|$)", line)}
        self.assertEqual(rules, {line for lines, *_ in LINES for line in lines})


if __name__ == "__main__":
    unittest.main()
