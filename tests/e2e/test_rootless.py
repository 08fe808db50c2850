"""`pulga serve` and `pulga run` of an ordinary user, with subordinate ids and without. Limits that
hold are tested where a cgroup can be given to a user: in the guest (tests/vm)."""

import json
import os
import signal
import unittest
from pathlib import Path

import leaks
from harness import (IMAGES, Case, image_archive, image_of, probe_binary, skip_unless, status_of,
                     wait_until)
from rootless import FIRST_SUBID, RootlessDaemon, User
from test_sandbox import Inside

WAIVED = {"allow_unenforced": True}
HOW = "systemd-run --user --scope -p Delegate=yes pulga serve"


def ids_of(pid, name="Uid"):
    return {int(word) for word in status_of(pid)[name].split()}


class OfUser(Case):
    subids = 65536

    @classmethod
    def make_daemon(cls):
        cls.user = User(cls.subids)
        cls.addClassCleanup(cls.user.__exit__)
        return RootlessDaemon(cls.user, *cls.flags)

    def running_probe(self):
        """The pid of a parked probe's program."""
        self.daemon.call("probe", b"say fine")
        return wait_until(lambda: next(filter(self.is_instance, leaks.our_processes(self.daemon)),
                                       None), 20, "a parked instance")

    def is_instance(self, pid):
        try:
            return os.readlink(f"/proc/{pid}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")
        except OSError:
            return False


class Walls(OfUser, Inside):
    """All that a function sees and may do is as it is under root."""

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"tmp": "1Mi", "nofile": 64}, **WAIVED)

    def test_limits_bite(self):
        self.assertIn("errno 24", self.ask("nofile"))


class WallsOfOneId(Walls):
    subids = 0


class Calls(OfUser):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(**WAIVED)
        cls.daemon.deploy_http(**WAIVED)

    def test_the_board_claims_what_a_function_has_and_no_more(self):
        board, version = (
            {layer["layer"]: layer for layer in self.daemon.api("GET", path).json()["isolation"]}
            for path in ("/v1/system", "/v1/functions/web"))
        for name in ("user_namespace", "cgroup_view", "cgroup.memory", "cgroup.pids", "cgroup.cpu",
                     "cgroup.io", "cgroup.devices", "cgroup.freezer", "no_new_privs", "seccomp",
                     "capabilities", "read_only_root", "keyring", "landlock", "apparmor"):
            self.assertEqual(board[name]["state"], version[name]["state"],
                             (board[name], version[name]))
        each = {row["state"] for name, row in version.items() if name.startswith("namespace.")}
        self.assertEqual({board["namespaces"]["state"]}, each, board["namespaces"])
        for row in board.values():
            self.assertTrue(row["state"] == "present" or row["why"], row)

    def test_what_only_root_can_is_absent_from_the_report_and_refused(self):
        doctor = json.loads(self.user.pulga("doctor", "--json").stdout)
        for features in (self.daemon.api("GET", "/v1/system").json()["features"],
                         doctor["features"]):
            found = {f["name"]: f for f in features}
            for name in ("network.egress", "volume.loop"):
                self.assertEqual(found[name]["state"], "absent", found[name])
                self.assertIn("started by root", found[name]["detail"])
        reply = self.daemon.put("out", {"image": "probe:1", "mode": "exec",
                                        "network": {"mode": "egress"}, **WAIVED}, (422, 503))
        self.assertIn("started by root", reply.text)

    def test_one_function_leaves_half_of_the_users_inotify(self):
        most = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
        skip_unless(most <= 2000, "more instances than a function may have descriptors")
        self.daemon.put("hoard", {"image": "probe:1", "mode": "exec",
                                  "limits": {"nofile": 4096}, **WAIVED})
        made = int(self.daemon.call("hoard", b"inotify").text.split()[0])
        self.assertLessEqual(made, most // 2)

    def test_both_modes_answer(self):
        self.assert_outcome(self.daemon.call("probe", b"say fine"), 200, "ok")
        self.assert_outcome(self.daemon.call("probe", b"exit 3"), 500, "exited:3")
        for _ in range(3):
            self.assertEqual(self.daemon.call("web", path="/").status, 200)

    def test_limits_nobody_can_enforce_are_refused_with_the_way_out(self):
        reply = self.daemon.put("strict", {"image": "probe:1", "mode": "exec"}, (422,))
        self.assert_error(reply, 422, "unsupported", "limits.memory", HOW, "allow_unenforced")
        reply = self.daemon.put("strict", {"image": "probe:1", "mode": "exec",
                                           "limits": {"cpu": "1"}}, (422,))
        self.assert_error(reply, 422, "unsupported", "limits.")

    def test_what_is_waived_is_said_wherever_one_looks(self):
        for text in (self.daemon.put("loose", {"image": "probe:1", "mode": "exec", **WAIVED}).text,
                     self.daemon.cli_ok("describe", "probe")):
            for limit in ("memory", "pids"):
                self.assertIn(f"the {limit} limit is not enforced: this daemon runs as a user",
                              text)

    def test_a_call_that_takes_too_long_is_ended(self):
        self.daemon.put("slow", {"image": "probe:1", "mode": "exec",
                                 "limits": {"timeout": "300ms"}, **WAIVED})
        self.assert_outcome(self.daemon.call("slow", b"sleep 60"), 504, "timed-out")

    def test_a_killed_launcher_is_replaced(self):
        killed = self.daemon.launcher_pid()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self.daemon.launcher_now() not in (None, killed), 60, "a new launcher")
        wait_until(lambda: self.daemon.call("probe", b"say fine").status == 200, 60, "it runs")


class CallsOfOneId(Calls):
    subids = 0


class Ids(OfUser):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(**WAIVED)

    def test_keeper_and_launcher_are_the_user_the_daemon_is_not(self):
        for pid in (self.daemon.process.pid, self.daemon.launcher_pid()):
            self.assertEqual(ids_of(pid), {self.user.uid})
        daemon = self.daemon.daemon_pid()
        self.assertEqual(ids_of(daemon), {FIRST_SUBID})
        self.assertEqual(status_of(daemon)["Groups"], "")
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status_of(daemon)[name], 16), 0, name)
        self.assertEqual(status_of(daemon)["NoNewPrivs"], "1")

    def test_instances_are_neither_the_user_nor_the_daemon(self):
        for kind in ("Uid", "Gid"):
            ids = ids_of(self.running_probe(), kind)
            self.assertTrue(ids.isdisjoint({0, self.user.uid, FIRST_SUBID}), ids)
            self.assertTrue(all(FIRST_SUBID < i < FIRST_SUBID + 65536 for i in ids), ids)

    def test_the_daemon_sees_of_a_closed_home_only_its_data(self):
        (self.user.home / "letter").write_text("private")
        root = Path(f"/proc/{self.daemon.daemon_pid()}/root")
        self.assertEqual(os.listdir(f"{root}{self.user.home}"), [".local"])
        self.assertIn("pulga.db", os.listdir(f"{root}{self.daemon.data}"))

    def test_the_key_is_for_the_user_and_nobody_else(self):
        key = str(self.daemon.data / "admin.key")
        self.assertEqual(self.user.run("cat", key).stdout.decode().strip(), self.daemon.key)
        self.assertEqual(self.daemon.data.stat().st_mode & 0o007, 0)
        listed = self.user.pulga("ls", "--url", f"http://127.0.0.1:{self.daemon.port}")
        self.assertEqual(listed.returncode, 0, listed.stderr)  # the key is found by itself

    def test_a_unix_socket_in_the_data_directory_is_the_users(self):
        with User() as user:
            url = f"unix:{user.home}/.local/share/pulga/pulga.sock"
            with RootlessDaemon(user, "--listen", url):
                listed = user.pulga("ls", "--url", url)
                self.assertEqual(listed.returncode, 0, listed.stderr)

    def test_users_of_images_are_who_they_are(self):
        for user in ("0", "1000:1000", "65532", "65534"):
            self.daemon.put("who", {"image": "probe:1", "mode": "exec", "user": user, **WAIVED})
            self.assertIn(f"Uid:\t{user.split(':')[0]}\t",
                          self.daemon.call("who", b"cat /proc/self/status").text)

    def test_an_id_that_is_not_mapped_is_a_named_failure(self):
        reply = self.daemon.put("who", {"image": "probe:1", "mode": "exec", "user": "65530",
                                        **WAIVED}, (400, 422))
        self.assertIn("/etc/subuid", reply.text)

    def test_owners_of_files_are_kept_as_far_as_there_are_ids(self):
        entries = [image_archive.Entry("probe", content=probe_binary(), mode=0o755, uid=1000),
                   image_archive.Entry("far", content=b"x", uid=65530)]
        image = image_archive.Image(["owned:1"], [image_archive.layer(entries)],
                                    {"Entrypoint": ["/probe"]})
        reply = self.daemon.import_archive(image_archive.docker_archive([image]))
        self.assertIn("1 entries with an owner that has no id here", reply.text)
        tree = self.daemon.cli_ok("image", "inspect", "owned:1", "--tree")
        self.assertRegex(tree, r"probe\|f\|0?755\|1000:")
        self.assertRegex(tree, r"far\|f\|0?644\|65534:")


class OneId(OfUser):
    subids = 0

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(user="1000", **WAIVED)

    def test_it_is_said_at_the_start_and_in_the_report(self):
        self.assertIn("/etc/subuid names no ids for flea", self.daemon.log())
        features = self.daemon.api("GET", "/v1/system").json()["features"]
        found = next(f for f in features if f["name"] == "rootless.ids")
        self.assertEqual(found["state"], "degraded")

    def test_everybody_of_an_image_is_the_one_id_and_the_deploy_says_so(self):
        self.assertIn("Uid:\t0\t", self.daemon.call("probe", b"cat /proc/self/status").text)
        self.assertIn("runs as id 0", self.daemon.cli_ok("describe", "probe"))

    def test_the_daemon_has_no_power_over_the_namespaces_of_functions(self):
        daemon, launcher = self.daemon.daemon_pid(), self.daemon.launcher_pid()
        self.assertEqual(ids_of(daemon), {self.user.uid})
        self.assertNotEqual(*(os.readlink(f"/proc/{pid}/ns/user") for pid in (daemon, launcher)))
        self.assertEqual(int(status_of(daemon)["CapEff"], 16), 0)


class Ends(unittest.TestCase):
    def test_a_stopped_daemon_leaves_nothing_and_starts_again(self):
        for subids in (65536, 0):
            with User(subids) as user, RootlessDaemon(user) as daemon:
                daemon.deploy_probe(**WAIVED)
                self.assertEqual(daemon.call("probe", b"say fine").status, 200)
                self.assertEqual(daemon.stop(), 0)
                self.assertEqual(leaks.nothing_left(daemon), [])
                daemon.start()
                self.assertEqual(daemon.call("probe", b"say fine").status, 200)

    def test_the_daemons_own_user_and_grants_are_roots_choice(self):
        with User() as user:
            user.skip_unless_possible()
            done = user.pulga("serve", "--user", "nobody")
            self.assertEqual(done.returncode, 2)
            self.assertIn(b"only root", done.stderr)
            done = user.pulga("serve", "--grants", "/etc/pulga/grants.conf")
            self.assertEqual(done.returncode, 2)
            self.assertIn(b"only root", done.stderr)


class Run(unittest.TestCase):
    def test_a_program_runs_once_and_leaves_nothing(self):
        for subids in (65536, 0):
            with User(subids) as user:
                user.skip_unless_possible()
                temp = user.home / "tmp"
                made = user.run("mkdir", temp)
                self.assertEqual(made.returncode, 0, made.stderr)
                done = user.run("env", f"TMPDIR={temp}", str(self.pulga()), "run",
                                "--allow-unenforced", IMAGES / "probe.tar", stdin=b"say hi; exit 4")
                self.assertEqual((done.returncode, done.stdout), (4, b"hi\n"), done.stderr)
                self.assertEqual(os.listdir(temp), [])
                self.assertEqual(b"one id" in done.stderr, subids == 0, done.stderr)

    def test_without_a_cgroup_the_limits_have_to_be_waived(self):
        with User() as user:
            user.skip_unless_possible()
            done = user.pulga("run", IMAGES / "probe.tar", stdin=b"say hi")
            self.assertEqual((done.returncode, done.stdout), (1, b""))
            self.assertIn(HOW.encode(), done.stderr)

    @staticmethod
    def pulga():
        return Path(os.environ["PULGA_BIN_DIR"]) / "pulga"


class Doctor(unittest.TestCase):
    def features(self, user, *before):
        user.skip_unless_possible()
        done = user.run(*before, Run.pulga(), "doctor", "--json")
        self.assertEqual(done.returncode, 1, done.stderr)
        return {f["name"]: f for f in json.loads(done.stdout)["features"]}

    def test_what_is_missing_for_a_user_is_explained(self):
        with User() as user:
            found = self.features(user)
            self.assertEqual(found["rootless.ids"]["state"], "present")
            self.assertEqual(found["cgroup.delegation"]["state"], "absent")
            self.assertIn(HOW, found["cgroup.delegation"]["advice"])
            self.assertEqual(found["overlay.userns"]["state"], "present")
            self.assertIn("allow_unenforced", user.pulga("doctor").stdout.decode())

    def test_missing_ids_and_tools_are_named(self):
        with User(0) as user:
            self.assertIn("--add-subuids", self.features(user)["rootless.ids"]["advice"])
        with User(without="/usr/bin/newgidmap") as user:
            self.assertIn("no newgidmap", self.features(user)["rootless.ids"]["advice"])

    def test_forbidden_user_namespaces_are_explained(self):
        forbid = "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$@\""
        with User() as user:
            found = self.features(user, "unshare", "--user", f"--map-user={user.uid}",
                                  "--keep-caps", "sh", "-c", forbid, "sh")
            self.assertEqual(found["namespace.user"]["state"], "absent")
            self.assertIn("user.max_user_namespaces", found["namespace.user"]["advice"])
            done = user.run("unshare", "--user", f"--map-user={user.uid}", "--keep-caps", "sh",
                            "-c", forbid, "sh", Run.pulga(), "serve")
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"user.max_user_namespaces", done.stderr)


if __name__ == "__main__":
    unittest.main()
