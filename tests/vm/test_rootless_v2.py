"""A daemon of uid 1000 in a cgroup that was given to it: its limits hold. Runs in the guest of
scripts/vm-test, as test_pure_v2. Given as systemd gives it (Delegate=yes): by making it the user's;
and by a real systemd --user, where there is one."""

import json
import os
import shutil
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import leaks  # noqa: E402 (the folder must be on the path first)
from harness import IMAGES, PULGA, Case, skip_unless, wait_until  # noqa: E402
from rootless import RootlessDaemon, User  # noqa: E402

V2 = Path("/sys/fs/cgroup")
UID = 1000


class GivenCgroup:
    """Of a user, for a time."""

    def __init__(self, name):
        skip_unless((V2 / "cgroup.controllers").exists(), "no cgroup v2 at " + str(V2))
        (V2 / "cgroup.subtree_control").write_text("+memory +pids +cpu +io")
        self.path = V2 / name
        self.path.mkdir()
        for file in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
            os.chown(self.path / file, UID, UID)

    def remove(self):
        for folder in sorted((p for p in self.path.rglob("*") if p.is_dir()), reverse=True):
            folder.rmdir()
        self.path.rmdir()


def slots_below(cgroup):
    """The cgroup directories of instances."""
    return [Path(at) for at, _, _ in os.walk(cgroup) if "/slot-" in at]


class Delegated(Case):
    @classmethod
    def make_daemon(cls):
        given = GivenCgroup("user-1000.scope")
        cls.addClassCleanup(given.remove)
        cls.cgroup = given.path
        cls.user = User(uid=UID, cgroup=given.path)
        cls.addClassCleanup(cls.user.__exit__)
        return RootlessDaemon(cls.user)

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"memory": "16Mi", "pids": 20, "cpu": "500m"})
        cls.daemon.deploy_http()

    def test_nothing_needs_to_be_waived(self):
        self.assert_outcome(self.daemon.call("probe", b"say fine"), 200, "ok")
        self.assertEqual(self.daemon.call("web", path="/").status, 200)
        described = self.daemon.cli_ok("describe", "probe")
        self.assertNotIn("not enforced", described)

    def test_the_memory_limit_is_felt(self):
        for _ in range(2):
            self.assert_outcome(self.daemon.call("probe", b"oom"), 500, "oom-killed")
            self.assert_outcome(self.daemon.call("probe", b"say fine"), 200, "ok")

    def test_the_pids_limit_is_felt(self):
        self.assertIn("errno 11", self.daemon.call("probe", b"forkbomb 50").text)

    def test_limits_stand_in_the_live_cgroup_below_the_given_one(self):
        self.daemon.call("probe", b"say fine")
        slots = slots_below(self.cgroup)
        probe = [slot for slot in slots
                 if (slot / "memory.max").read_text() == f"{16 << 20}\n"]
        self.assertTrue(probe, slots)
        for file, value in (("pids.max", "20"), ("cpu.max", "50000 100000")):
            self.assertEqual((probe[0] / file).read_text().strip(), value, file)
            self.assertEqual((probe[0] / file).stat().st_uid, UID, "not the spawner's")

    def test_our_own_processes_are_in_a_leaf_of_it(self):
        for pid in (self.daemon.process.pid, self.daemon.daemon_pid(), self.daemon.launcher_pid()):
            own = Path(f"/proc/{pid}/cgroup").read_text().strip()
            self.assertEqual(own, f"0::/{self.cgroup.name}/pulga-main")


class Others(unittest.TestCase):
    def setUp(self):
        self.given = GivenCgroup("user-1000-other.scope")
        self.addCleanup(self.given.remove)
        self.user = User(uid=UID, cgroup=self.given.path)
        self.addCleanup(self.user.__exit__)
        self.user.skip_unless_possible()

    def test_a_stopped_daemon_leaves_nothing(self):
        with RootlessDaemon(self.user) as daemon:
            daemon.deploy_probe()
            self.assertEqual(daemon.call("probe", b"say fine").status, 200)
            self.assertTrue(slots_below(self.given.path))
            self.assertEqual(daemon.stop(), 0)
            self.assertEqual(leaks.nothing_left(daemon), [])
            left = [path.name for path in self.given.path.iterdir() if path.is_dir()]
            self.assertEqual(left, ["pulga-main"])  # the keeper's own: systemd removes it

    def test_one_shot_runs_are_limited_too(self):
        done = self.user.pulga("run", "--memory", "16Mi", IMAGES / "probe.tar", stdin=b"oom")
        self.assertEqual(done.returncode, 128 + 9, done.stderr)
        self.assertIn(b"oom-killed", done.stderr)

    def test_doctor_finds_the_cgroup(self):
        done = self.user.pulga("doctor", "--json")
        found = {f["name"]: f for f in json.loads(done.stdout)["features"]}
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(found["cgroup.delegation"]["state"], "present")
        self.assertEqual(found["cgroup.delegation"]["detail"], str(self.given.path))

    def test_a_cgroup_that_is_somebody_elses_is_not_used(self):
        os.chown(self.given.path / "cgroup.subtree_control", 0, 0)
        done = self.user.pulga("run", IMAGES / "probe.tar", stdin=b"say hi")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"systemd-run --user --scope -p Delegate=yes", done.stderr)


# A user's service manager without the system's: enough for scopes.
MANAGER = """
export XDG_RUNTIME_DIR=$1; shift
/lib/systemd/systemd --user --log-target=console >"$XDG_RUNTIME_DIR/log" 2>&1 &
manager=$!
for i in $(seq 600); do [ -S "$XDG_RUNTIME_DIR/systemd/private" ] && break; sleep 0.1; done
systemd-run --user --scope -p Delegate=yes -q "$@"
status=$?
kill $manager; wait $manager
exit $status
"""


class Systemd(unittest.TestCase):
    def test_the_command_we_advise_gives_limits(self):
        skip_unless(shutil.which("systemd-run") and Path("/lib/systemd/systemd").exists(),
                    "no systemd here")
        given = GivenCgroup("user@1000.service")
        self.addCleanup(given.remove)
        os.setxattr(given.path, "trusted.delegate", b"1")
        Path("/run/systemd/system").mkdir(parents=True, exist_ok=True)
        with User(uid=UID, cgroup=given.path) as user:
            user.skip_unless_possible()
            runtime = user.home / "run"
            self.assertEqual(user.run("mkdir", "-m", "700", runtime).returncode, 0)
            done = user.run("sh", "-c", MANAGER, "sh", runtime, PULGA, "run", "--memory", "16Mi",
                            IMAGES / "probe.tar", stdin=b"oom")
            log = (runtime / "log").read_text(errors="replace")
            self.assertEqual(done.returncode, 128 + 9, (done.stderr, log[-3000:]))
            self.assertIn(b"oom-killed", done.stderr)
        wait_until(lambda: not (given.path / "cgroup.procs").read_text(), 30, "the manager's end")


if __name__ == "__main__":
    unittest.main()
