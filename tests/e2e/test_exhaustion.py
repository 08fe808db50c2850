"""Everything of one kind taken: file descriptors in the daemon and in the keeper, room on the disk;
and the keeper gone while calls run."""

import os
import resource
import shutil
import signal
import subprocess
import threading
import unittest
from pathlib import Path

from harness import Daemon, in_parallel, is_alive, skip_unless, status_of, wait_until

STALLED = b"POST /function/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun"


def works(daemon):
    try:
        return (daemon.call("probe", b"say hi").text == "hi\n"
                and daemon.call("web", path="/").status == 200)
    except OSError:
        return False


def open_files_of(pid):
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return int(line.split()[3])
    raise AssertionError("no limit of open files")


def limit_open_files(pid, soft):
    """As the daemon's own user: root without CAP_SYS_RESOURCE may not."""
    uid, gid = (int(status_of(pid)[key].split()[0]) for key in ("Uid", "Gid"))
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={soft}:"], check=True, user=uid,
                   group=gid, extra_groups=[], cwd="/")


class Exhaustion(unittest.TestCase):
    def setUp(self):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        self.daemon = Daemon()
        self.addCleanup(self.daemon.__exit__, None, None, None)

    def start(self, **limits):
        self.daemon.start()
        self.daemon.deploy_probe(limits=limits)
        self.daemon.deploy_http(limits=limits)
        self.assertTrue(works(self.daemon))

    def stalled(self, name):
        """A connection with half a request; None when it is not taken."""
        try:
            connection = self.daemon.connect(timeout=60)
            connection.sendall(STALLED % name)
            return connection
        except OSError:
            return None

    def call_quietly(self, name, body):
        try:
            return self.daemon.call(name, body, path="/" if name == "web" else "",
                                    timeout=60).status
        except OSError:
            return None

    def test_no_descriptor_left_for_anything_ends_nothing(self):
        limit = 256
        self.daemon.before_exec = lambda: resource.setrlimit(resource.RLIMIT_NOFILE,
                                                             (limit, limit))
        self.start(nofile=limit)
        self.assertIn("max-connections is 64 instead of 1024", self.daemon.log())
        daemon, launcher = self.daemon.daemon_pid(), self.daemon.launcher_pid()
        self.assert_served_on(daemon, launcher, self.load(400))

    def test_a_limit_lowered_below_what_is_open_ends_nothing(self):
        """So low that no cap helps: every message that brings a descriptor loses it."""
        self.start()
        daemon, launcher = self.daemon.daemon_pid(), self.daemon.launcher_pid()
        usual = open_files_of(daemon)
        taken = max(int(n) for n in os.listdir(f"/proc/{daemon}/fd")) + 1
        for room in (12, 6, 4, 2):
            limit_open_files(daemon, taken + room)
            held = self.load(60)
            limit_open_files(daemon, usual)
            self.assert_served_on(daemon, launcher, held)
        limit_open_files(daemon, 3)
        os.kill(launcher, signal.SIGKILL)  # the keeper's message with the next one's socket
        wait_until(lambda: self.daemon.launcher_now() not in (None, launcher)
                   or self.daemon.log().count("the launcher ended") > 1, 60, "another, if briefly")
        limit_open_files(daemon, usual)
        wait_until(lambda: works(self.daemon), 60, "both functions work")
        self.assertEqual(self.daemon.daemon_pid(), daemon)

    def load(self, count):
        """Half-sent calls that stay open, and whole ones beside them; the former."""
        held = [self.stalled((b"probe", b"web/")[n % 2]) for n in range(count)]
        in_parallel(40, lambda n: [self.call_quietly(name, b"say hi")
                                   for name in ("probe", "web") for _ in range(2)])
        return held

    def assert_served_on(self, daemon, launcher, held):
        for connection in held:
            if connection is not None:
                connection.close()
        wait_until(lambda: works(self.daemon), 60, "both functions work")
        self.assertEqual(self.daemon.daemon_pid(), daemon)
        self.assertEqual(self.daemon.launcher_pid(), launcher)
        self.assertIsNone(self.daemon.process.poll())

    def test_calls_under_way_when_the_keeper_is_killed_get_a_status(self):
        self.start()
        self.daemon.put("slow", {"image": "probe:1", "mode": "exec"})
        replies = []
        pids = list(self.daemon.processes())

        def call_slowly(_):
            replies.append(self.daemon.call("slow", b"sleep 2; say done"))

        caller = threading.Thread(target=lambda: in_parallel(6, call_slowly))
        caller.start()
        wait_until(lambda: self.daemon.open_calls("slow") == 4 and self.daemon.queued("slow") == 2,
                   30, "four run and two wait")
        self.daemon.process.kill()
        self.daemon.process.wait()
        caller.join(60)
        self.assertEqual(len(replies), 6, "a call got no answer")
        for reply in replies:
            self.assertIn(reply.status, (200, 503), repr(reply))
            self.assertIsNone(reply.broken, repr(reply))
        wait_until(lambda: not any(is_alive(pid) for pid in pids), 60, "everything is gone")
        self.assertNotIn("told to stop twice", self.daemon.log())

    def test_a_keeper_that_cannot_start_a_launcher_tries_again(self):
        self.start()
        keeper, daemon = self.daemon.process.pid, self.daemon.daemon_pid()
        usual = resource.prlimit(keeper, resource.RLIMIT_NOFILE)
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, (3, usual[1]))
        os.kill(self.daemon.launcher_pid(), signal.SIGKILL)
        wait_until(lambda: self.daemon.log().count(": once more") >= 2, 60, "it tries again")
        resource.prlimit(keeper, resource.RLIMIT_NOFILE, usual)
        wait_until(lambda: works(self.daemon), 60, "the launcher comes back")
        self.assertEqual(self.daemon.daemon_pid(), daemon)


class FullDisk(unittest.TestCase):
    """The data directory is a disk of its own, small and filled up to the last byte."""

    def setUp(self):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        self.daemon = Daemon("--reserve-bytes", "0", "--disk-high", "100")
        self.addCleanup(shutil.rmtree, self.daemon.temp, True)
        self.daemon.data.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "none",
                        self.daemon.data], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", self.daemon.data], check=False)
        self.addCleanup(self.daemon.__exit__, None, None, None)
        self.daemon.start()
        self.daemon.deploy_probe()
        self.daemon.import_sample("http-hello")
        self.spare = self.daemon.data / "spare-room"
        self.assertEqual(self.spare.stat().st_blocks * 512, 1 << 20)

    def fill(self):
        with open(self.daemon.data / "filler", "ab", buffering=0) as filler:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        filler.write(b"f" * size)
                except OSError:
                    pass
        disk = os.statvfs(self.daemon.data)
        self.assertEqual(disk.f_bavail, 0)

    def test_what_frees_space_works(self):
        self.fill()
        self.assertEqual(self.daemon.api("DELETE", "/v1/functions/probe").status, 204)
        self.fill()
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/http-hello:1").status, 204)
        self.fill()
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/probe:1").status, 204)
        self.assertEqual(self.daemon.api("GET", "/v1/images").json()["images"], [])
        (self.daemon.data / "filler").unlink()
        self.daemon.deploy_probe()
        self.assertEqual(self.daemon.api("DELETE", "/v1/functions/probe").status, 204)
        self.assertEqual(self.spare.stat().st_blocks * 512, 1 << 20, "room is in hand again")

    def test_a_restart_works_and_without_room_in_hand_it_says_what_is_missing(self):
        self.fill()
        self.assertEqual(self.daemon.stop(), 0)
        self.fill()
        self.daemon.start()
        self.assertEqual(self.daemon.call("probe", b"say hi").text, "hi\n")
        self.assertEqual(self.daemon.stop(), 0)
        self.spare.unlink(missing_ok=True)
        self.fill()
        with self.assertRaisesRegex(AssertionError, "free some space"):
            self.daemon.start()
        self.assertNotIn("damaged", self.daemon.log())
        (self.daemon.data / "filler").unlink()
        self.daemon.start()
        self.assertEqual(self.daemon.call("probe", b"say hi").text, "hi\n")


if __name__ == "__main__":
    unittest.main()
