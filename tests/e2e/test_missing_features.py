"""A kernel that lacks something (S51), each made by refusing the calls of one that has it: without
what a sandbox must have, nothing runs and the reason is named; without what it may have, the report
says so and the walls are the same."""

import json
import subprocess
import unittest
from pathlib import Path

from harness import BIN, IMAGES, Case, Daemon, skip_unless
from test_sandbox import Inside

TOOL = BIN / "pretend-old-kernel"
# Bits of CLONE_NEW...; clone3 has its flags in memory, so that it has to be missing as a whole.
NEWNS, NEWUSER = 17, 28
LATER_CALLS = ("pidfd_open", "pidfd_send_signal", "pidfd_getfd", "clone3", "openat2", "faccessat2",
               "close_range", "epoll_pwait2", "open_tree", "move_mount", "mount_setattr",
               "seccomp+3")  # SECCOMP_FILTER_FLAG_NEW_LISTENER
LANDLOCK = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")


class LackingDaemon(Daemon):
    """`lacks`: what the kernel refuses, for the tool; or a shell's line to be run before it, in a
    mount namespace of its own."""

    lacks, line = (), ""

    def lacking(self, command):
        if self.lacks:
            command = [TOOL, *self.lacks, "--", *command]
        if self.line:
            line = f"mount --make-rprivate / && {self.line} && exec \"$@\""
            command = ["unshare", "--mount", "sh", "-c", line, "sh", *command]
        return [str(word) for word in command]

    def command(self):
        return self.lacking(super().command())


class Lacking(unittest.TestCase):
    """The image and the function are from before the kernel was changed."""

    def setUp(self):
        self.daemon = LackingDaemon()
        self.addCleanup(self.daemon.__exit__, None, None, None)
        self.daemon.start()
        self.daemon.deploy_probe()
        self.assertEqual(self.daemon.call("probe", b"say fine").text, "fine\n")
        self.daemon.stop()

    def doctor(self):
        """What `pulga doctor` says of such a kernel: {name: feature}."""
        done = subprocess.run(self.daemon.lacking([BIN / "pulga", "doctor", "--json"]),
                              capture_output=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        return {f["name"]: f for f in json.loads(done.stdout)["features"]}

    def assert_nothing_runs(self, feature, *words):
        found = self.doctor()[feature]
        self.assertEqual(found["state"], "absent", found)
        self.assertIn("functions cannot run without it", found["advice"])
        self.daemon.start()
        reported = {f["name"]: f for f in self.daemon.api("GET", "/v1/system").json()["features"]}
        self.assertEqual(reported[feature]["state"], "absent", reported[feature])
        reply = self.daemon.call("probe", b"say fine")
        self.assertGreaterEqual(reply.status, 500, repr(reply))
        self.assertNotIn("fine", reply.text)
        said = reply.text + self.daemon.log()
        for word in words:
            self.assertIn(word, said)
        made = self.daemon.api("PUT", "/v1/functions/another", {"image": "probe:1", "mode": "exec"})
        self.assertGreaterEqual(made.status, 400, repr(made))

    def test_without_user_namespaces_nothing_runs(self):
        self.daemon.lacks = ("clone3", f"clone:{NEWUSER}", f"unshare:{NEWUSER}")
        self.assert_nothing_runs("namespace.user", "Invalid argument")

    def test_without_mount_namespaces_nothing_runs(self):
        self.daemon.lacks = ("clone3", f"clone:{NEWNS}", f"unshare:{NEWNS}")
        self.assert_nothing_runs("namespace.mount", "Invalid argument")

    def test_without_system_call_filters_nothing_runs(self):
        self.daemon.lacks = ("seccomp", "prctl=22")
        self.assert_nothing_runs("seccomp", "seccomp")


class NoMemoryController(unittest.TestCase):
    def test_no_memory_controller_is_a_named_reason(self):
        place = Path("/sys/fs/cgroup/memory")
        skip_unless(place.is_mount(), "memory is not a v1 hierarchy of its own here")
        daemon = LackingDaemon()
        self.addCleanup(daemon.__exit__, None, None, None)
        daemon.line = f"umount {place}"
        done = subprocess.run(daemon.command(), capture_output=True, timeout=60, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"cgroup_enable=memory", done.stderr)


class AppArmorDemanded(unittest.TestCase):
    """`--apparmor require` on a kernel without the profile: no function starts, and all say why."""

    def setUp(self):
        doctor = json.loads(subprocess.run([BIN / "pulga", "doctor", "--json"], timeout=60,
                                           capture_output=True, check=False).stdout)
        found = {f["name"]: f["state"] for f in doctor["features"]}["apparmor"]
        skip_unless(found == "absent", "the profile is loaded here")
        self.daemon = Daemon("--apparmor", "require")
        self.addCleanup(self.daemon.__exit__, None, None, None)
        self.daemon.start()

    def test_no_function_starts_and_the_report_says_why(self):
        layers = {row["layer"]: row
                  for row in self.daemon.api("GET", "/v1/system").json()["isolation"]}
        self.assertEqual(layers["apparmor"]["state"], "absent")
        self.assertIn("no function starts", layers["apparmor"]["why"])
        self.daemon.import_sample("probe")
        made = self.daemon.api("PUT", "/v1/functions/probe", {"image": "probe:1", "mode": "exec"})
        self.assertEqual(made.status, 422, repr(made))
        self.assertIn("apparmor: ", made.text)
        self.assertIn("--apparmor require", made.text)

    def test_what_was_deployed_before_starts_no_more(self):
        self.daemon.stop()
        self.daemon.flags = ["--apparmor", "auto"]
        self.daemon.start()
        self.daemon.deploy_probe()
        self.assertEqual(self.daemon.call("probe", b"say fine").text, "fine\n")
        self.daemon.stop()
        self.daemon.flags = ["--apparmor", "require"]
        self.daemon.start()
        reply = self.daemon.call("probe", b"say fine")
        self.assertGreaterEqual(reply.status, 500, repr(reply))
        self.assertIn("--apparmor require", reply.text + self.daemon.log())

    def test_doctor_counts_it_among_what_lacks(self):
        done = self.daemon.cli("doctor", "--apparmor", "require")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout.decode(), r"can not run here.*apparmor")
        refused = self.daemon.cli("doctor", "--apparmor", "required")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("auto, require or off", refused.stderr.decode())

    def test_a_single_run_is_refused_too(self):
        done = self.daemon.cli("run", "--apparmor", "require", IMAGES / "probe.tar", "say", "fine")
        self.assertNotEqual(done.returncode, 0)
        self.assertNotIn(b"fine", done.stdout)
        self.assertIn("--apparmor require", done.stderr.decode())


class WithoutLaterCalls(Inside):
    """The walls on a board's vendor kernel: paths walked, children cloned the old way."""

    @classmethod
    def make_daemon(cls):
        daemon = LackingDaemon(*cls.flags)
        daemon.lacks = LATER_CALLS + LANDLOCK
        return daemon

    def test_what_lacks_is_told(self):
        system = self.daemon.api("GET", "/v1/system").json()
        states = {f["name"]: f["state"] for f in system["features"]}
        for name in ("openat2", "clone3", "pidfd", "close_range"):
            self.assertEqual(states[name], "degraded", name)
        layers = {layer["layer"]: layer for layer in system["isolation"]}
        for layer in ("landlock", "seccomp.log"):
            self.assertEqual(layers[layer]["state"], "absent")
            self.assertTrue(layers[layer]["why"])
        self.assertRegex(self.ask("mount"), r"errno 1\b")
        described = self.daemon.api("GET", "/v1/functions/probe").json()
        self.assertEqual(described["refused_calls"], {"count": 0, "by_name": {}}, "not counted")


class Ordinary(Case):
    """The tool refuses nothing by itself."""

    @classmethod
    def make_daemon(cls):
        daemon = LackingDaemon()
        daemon.lacks = ("kexec_load",)
        return daemon

    def test_it_runs(self):
        self.daemon.deploy_probe()
        self.assertEqual(self.daemon.call("probe", b"say fine").text, "fine\n")


if __name__ == "__main__":
    unittest.main()
