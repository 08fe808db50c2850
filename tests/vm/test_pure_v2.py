"""The whole of Pulga on pure cgroup v2: import, both modes, limits, OOM, leaks. Runs in the guest
of scripts/vm-test, where the processor is emulated: no figures, generous waits."""

import os
import signal
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import leaks  # noqa: E402 (the folder must be on the path first)
from harness import Case, Daemon, skip_unless, status_of, wait_until  # noqa: E402

V2 = Path("/sys/fs/cgroup")


def slots_of(daemon):
    """The cgroup directories of instances."""
    return [Path(path) for path in leaks.cgroups_of(daemon.data) if "/slot-" in path]


def processes_in(slot):
    try:
        return (slot / "cgroup.procs").read_text().split()
    except OSError:  # it has just been removed
        return []


class PureV2(Case):
    flags = ("--idle", "1h")  # or what idles goes while leaks are looked for

    @classmethod
    def setUpClass(cls):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        skip_unless(len(lines) == 1 and (V2 / "cgroup.controllers").exists(),
                    "this is not pure cgroup v2: run scripts/vm-test")
        super().setUpClass()

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"memory": "16Mi", "pids": 20, "cpu": "500m"},
                                scale={"max": 4, "queue_wait": "60s"})
        # A thaw after a while drops what was kept alive: one socket less.
        cls.daemon.deploy_http(scale={"max": 1, "freeze_after": "never"})

    def test_images_are_listed_as_imported(self):
        listed = self.daemon.cli_ok("image", "ls")
        self.assertIn("probe:1", listed)
        self.assertIn("http-hello:1", listed)
        tree = self.daemon.cli_ok("image", "inspect", "probe:1", "--tree")
        self.assertRegex(tree, r"\|f\|0?755\||\|[a-z-]*\|0?755\|")

    def test_exec_functions_answer_and_fail_as_on_v1(self):
        self.assert_outcome(self.daemon.call("probe", b"say fine"), 200, "ok")
        self.assert_outcome(self.daemon.call("probe", b"exit 3"), 500, "exited:3")
        self.assert_outcome(self.daemon.call("probe", b"segv"), 500, "signaled:SIGSEGV")
        self.assert_outcome(self.daemon.call("probe", b"sigsys"), 500, "syscall-denied")

    def test_http_functions_answer(self):
        for _ in range(3):
            self.assertEqual(self.daemon.call("web", path="/").status, 200)

    def test_the_memory_limit_kills_and_the_slot_is_good_for_the_next(self):
        for _ in range(3):
            self.assert_outcome(self.daemon.call("probe", b"oom"), 500, "oom-killed")
            self.assert_outcome(self.daemon.call("probe", b"say fine"), 200, "ok")

    def test_limits_stand_in_the_live_cgroup(self):
        self.daemon.call("probe", b"say fine")
        probe = [slot for slot in slots_of(self.daemon)
                 if (slot / "memory.max").read_text() == f"{16 << 20}\n"]
        self.assertTrue(probe, "no slot of the probe")
        for file, value in (("pids.max", "20"), ("memory.swap.max", "0"), ("memory.oom.group", "1"),
                            ("cpu.max", "50000 100000")):
            self.assertEqual((probe[0] / file).read_text().strip(), value, file)
            self.assertEqual((probe[0] / file).stat().st_uid, 0, "limits are root's")

    def test_every_process_of_an_instance_is_in_its_slot(self):
        body = b"say begun; sleep 25"
        with self.daemon.connect() as call:  # closing it ends the call
            call.sendall(b"POST /function/probe?stream=1 HTTP/1.1\r\nHost: x\r\n"
                         b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            received = b""
            while b"begun" not in received:
                received += call.recv(4096) or self.fail("it ended: " + repr(received))
            # Its init and itself, and a parked one's beside them.
            pids = [pid for slot in slots_of(self.daemon) for pid in processes_in(slot)]
            self.assertGreaterEqual(len(pids), 2)
            for pid in leaks.our_processes(self.daemon):
                if status_of(pid).get("Name") == "probe":
                    self.assertIn(str(pid), pids)

    def test_fork_bombs_stay_in_their_slot(self):
        self.daemon.call("probe", b"forkbomb 50")
        self.assert_outcome(self.daemon.call("probe", b"say fine"), 200, "ok")

    def test_nothing_leaks(self):
        bodies = [b"say fine", b"exit 3", b"oom", b"segv", b"signal 9", b"sigsys"]
        for body in bodies:
            self.daemon.call("probe", body)
        self.daemon.call("web", path="/")
        before = leaks.quiet_snapshot(self.daemon, 60)
        for n in range(60):
            self.daemon.call("probe", bodies[n % len(bodies)])
            if n % 6 == 0:
                self.daemon.call("web", path="/")
        # A heap of so few MiB may get one page of 2 MiB meanwhile, which is no growth of 60 calls.
        difference = leaks.later_differences(before, self.daemon, slack_kib=4096)[0]
        self.assertFalse(difference, difference)


class LimitsOfAProgram(Case):
    """Those that no cgroup keeps, felt in the guest too."""

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"memory": "24Mi", "pids": 24, "tmp": "1Mi", "nofile": 64,
                                        "timeout": "3s", "grace": "300ms", "output": "64Ki"})

    def test_tmp_is_as_large_as_it_says(self):
        text = self.daemon.call("probe", b"tmpfill").text
        self.assertIn("errno 28", text)

    def test_descriptors_end_where_they_should(self):
        self.assertIn("errno 24", self.daemon.call("probe", b"nofile").text)

    def test_processes_end_where_they_should(self):
        self.assertIn("errno 11", self.daemon.call("probe", b"forkbomb 100").text)

    def test_time_runs_out(self):
        self.assert_outcome(self.daemon.call("probe", b"sleep 60"), 504, "timed-out")
        self.assert_outcome(self.daemon.call("probe", b"ignore-term 60"), 504, "timed-out")

    def test_output_is_cut(self):
        self.daemon.call("probe", b"output 200000")
        outcomes = self.daemon.api("GET", "/v1/functions/probe").json()
        self.assertIn("output-limit", repr(outcomes))


class Service(Daemon):
    """A daemon inside a cgroup given to it, as systemd does with Delegate=yes."""

    def __init__(self, cgroup):
        super().__init__()
        self.cgroup = cgroup

    def command(self):
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", enter, str(self.cgroup), *super().command()]


class Delegated(unittest.TestCase):
    def setUp(self):
        skip_unless((V2 / "cgroup.controllers").exists(), "no cgroup v2 at " + str(V2))
        (V2 / "cgroup.subtree_control").write_text("+memory +pids +cpu +io")
        self.cgroup = V2 / "pulga-test.service"
        self.cgroup.mkdir()
        os.setxattr(self.cgroup, "trusted.delegate", b"1")

    def tearDown(self):
        for folder in (self.cgroup / "pulga-main", self.cgroup):
            if folder.exists():
                folder.rmdir()

    def test_everything_stays_inside_the_given_cgroup(self):
        with Service(self.cgroup) as daemon:
            daemon.deploy_probe(limits={"memory": "16Mi"})
            self.assertEqual(daemon.call("probe", b"say fine").text, "fine\n")
            self.assertEqual(daemon.call("probe", b"oom").outcome, "oom-killed")
            name = leaks.cgroup_tree_name(daemon.data)
            self.assertEqual(list(V2.rglob(name)), [self.cgroup / name])
            for pid in (daemon.process.pid, daemon.daemon_pid(), daemon.launcher_pid()):
                own = Path(f"/proc/{pid}/cgroup").read_text().strip()
                self.assertEqual(own, "0::/pulga-test.service/pulga-main")
            daemon.stop()
            self.assertEqual(leaks.nothing_left(daemon), [])
            self.assertEqual(list(V2.rglob(name)), [])


    def feature(self, daemon):
        features = daemon.api("GET", "/v1/system").json()["features"]
        return next(f for f in features if f["name"] == "privilege.memory_min")

    def test_the_memory_that_was_given_is_kept_for_the_daemon(self):
        (self.cgroup / "memory.min").write_text("32M")
        with Service(self.cgroup) as daemon:
            daemon.deploy_probe(limits={"memory": "16Mi"})
            self.assertEqual(daemon.call("probe", b"say fine").text, "fine\n")
            kept = (self.cgroup / "pulga-main/memory.min").read_text()
            self.assertEqual(kept, f"{32 << 20}\n")
            tree = self.cgroup / leaks.cgroup_tree_name(daemon.data)
            self.assertEqual({p.read_text() for p in tree.rglob("memory.min")}, {"0\n"})
            row = self.feature(daemon)
            self.assertEqual(row["state"], "present", row)
            self.assertIn("32", row["detail"])

    def test_where_none_was_given_it_says_so(self):
        with Service(self.cgroup) as daemon:
            row = self.feature(daemon)
            self.assertEqual(row["state"], "degraded", row)
            self.assertIn("MemoryMin", row["advice"])


class Ends(unittest.TestCase):
    def test_a_stopped_daemon_leaves_nothing(self):
        with Daemon() as daemon:
            daemon.deploy_probe()
            self.assertEqual(daemon.call("probe", b"say fine").status, 200)
            self.assertTrue(leaks.cgroups_of(daemon.data))
            daemon.stop()
            self.assertEqual(leaks.nothing_left(daemon), [])

    def test_a_killed_launcher_is_replaced_and_swept_after(self):
        with Daemon() as daemon:
            daemon.deploy_probe()
            daemon.call("probe", b"say fine")
            killed = daemon.launcher_pid()
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: daemon.launcher_now() not in (None, killed), 60, "a new launcher")
            wait_until(lambda: daemon.call("probe", b"say fine").status == 200, 60,
                       "functions run again")
            daemon.stop()
            self.assertEqual(leaks.nothing_left(daemon), [])


if __name__ == "__main__":
    unittest.main()
