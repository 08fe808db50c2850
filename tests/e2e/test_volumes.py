"""Volumes and data sets: what is written stays, where it may be written, and when they may go."""

import io
import os
import re
import signal
import sqlite3
import tarfile
import tempfile
import time
import unittest
from pathlib import Path

import leaks
from harness import (Case, OwnDaemonCase, image_archive, image_of, in_parallel, probe_binary,
                     status_of, wait_until)

SIZE = "8Mi"


def volume(name="data", path="/data", **more):
    return {"name": name, "path": path, **more}


def loop_devices(data_dir):
    """Those with a file of this daemon's behind them."""
    found = []
    for block in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if block.read_text().startswith(f"{data_dir}/"):
                found.append(block.parts[3])
        except OSError:
            pass  # it went while we looked
    return found


def files(data_dir):
    return sorted(path.name for path in (data_dir / "volumes").glob("*.ext4"))


class Volumes(Case):
    storage, loops_of_one, full_errno = "loop-file", 1, 28

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()

    def make(self, name, size=SIZE):
        reply = self.daemon.api("PUT", f"/v1/volumes/{name}", {"size": size})
        self.assertIn(reply.status, (200, 201), repr(reply))
        return reply.json()

    def deploy(self, name, *volumes, expect=(200, 201), **more):
        return self.daemon.put(name, {"image": "probe:1", "mode": "exec", "volumes": volumes,
                                      **more}, expect)

    def say(self, name, deed):
        return self.daemon.call(name, deed.encode()).text

    def drop(self, *names):
        for name in names:
            self.daemon.api("DELETE", f"/v1/functions/{name}")

    def remove(self, name):
        """Instances that are just ending may have it for a moment longer."""
        wait_until(lambda: self.daemon.api("DELETE", f"/v1/volumes/{name}").status == 204, 30,
                   f"{name} to go")

    def shown(self, name):
        reply = self.daemon.api("GET", f"/v1/volumes/{name}")
        self.assertEqual(reply.status, 200, repr(reply))
        return reply.json()

    def test_what_one_call_writes_the_next_one_reads(self):
        made = self.make("kept")
        self.assertEqual((made["kind"], made["size"], made["used_by"]), ("volume", SIZE, []))
        self.assertEqual((made["storage"], self.shown("kept")["storage"]), (self.storage,) * 2)
        self.deploy("keeper", volume("kept"))
        self.assertEqual(self.say("keeper", "write /data/note first"), "write: ok\n")
        self.assertEqual(self.say("keeper", "cat /data/note"), "first")
        self.deploy("keeper", volume("kept"), env={"AGAIN": "1"})
        self.assertEqual(self.say("keeper", "cat /data/note"), "first")
        self.drop("keeper")
        self.assertEqual(self.shown("kept")["used_by"], [])
        self.deploy("keeper", volume("kept", path="/srv/elsewhere"))
        self.assertEqual(self.say("keeper", "cat /srv/elsewhere/note"), "first")
        self.drop("keeper")
        self.remove("kept")
        self.assertEqual(self.daemon.api("GET", "/v1/volumes/kept").status, 404)

    def link(self, target):
        self.say("planter", "unlink /data/w")
        self.assertEqual(self.say("planter", f"symlink {target} /data/w"), "symlink: ok\n")

    def test_a_working_directory_inside_one_never_leads_outside(self):
        # As in CVE-2024-21626: a link to what the set-up still has open, some of it the host's.
        self.make("trap")
        self.deploy("planter", volume("trap"))
        walker = image_of({"probe": probe_binary()}, "walker:1", Entrypoint=["/probe"],
                          WorkingDir="/data/w")
        self.daemon.import_archive(image_archive.docker_archive([walker]))
        self.deploy("walker", volume("trap"), image="walker:1", scale={"parked": 0})
        for number in range(3, 48):
            self.link("/etc")  # after a failed start the next one has to succeed, or they back off
            wait_until(lambda: self.daemon.call("walker", b"cwd").text.strip() == "/etc", 30,
                       "a start in /etc")
            self.link(f"/proc/self/fd/{number}")
            reply = self.daemon.call("walker", b"cwd")
            if reply.status == 200:
                self.assertTrue(reply.text.startswith("/"), f"{number}: {reply.text}")
            else:
                self.assertEqual(reply.outcome, "setup-failed:workdir", f"{number}: {reply!r}")
        self.drop("planter", "walker")
        self.remove("trap")

    def test_a_deploy_with_a_size_makes_it_and_a_function_that_goes_leaves_it(self):
        self.deploy("maker", volume("made", size=SIZE))
        self.say("maker", "write /data/note x")
        self.assertEqual(self.shown("made")["used_by"], ["maker"])
        self.drop("maker")
        self.deploy("maker", volume("made", size=SIZE))
        self.assertEqual(self.say("maker", "cat /data/note"), "x")
        reply = self.deploy("maker", volume("made", size="16Mi"), expect=(400,))
        self.assert_error(reply, 400, "invalid_argument", "made", "8Mi", "16Mi")
        self.drop("maker")
        self.remove("made")

    def test_two_functions_share_one(self):
        self.make("shared")
        before = set(loop_devices(self.daemon.data))
        self.deploy("one", volume("shared"))
        self.deploy("two", volume("shared", path="/other"))
        self.deploy("reader", volume("shared", read_only=True))
        self.say("one", "write /data/note together")
        self.assertEqual(self.say("two", "cat /other/note"), "together")
        self.assertEqual(self.say("reader", "cat /data/note"), "together")
        self.assertIn("errno 30", self.say("reader", "write /data/note no"))
        self.assertEqual(len(set(loop_devices(self.daemon.data)) - before), self.loops_of_one)
        writes = in_parallel(8, lambda n: self.say("one", f"write /data/n{n} {n}"))
        self.assertEqual(set(writes), {"write: ok\n"})
        self.assertEqual(self.say("two", "cat /other/n7"), "7")
        self.assertEqual(self.shown("shared")["used_by"], ["one", "reader", "two"])
        self.drop("one", "two", "reader")
        self.remove("shared")

    def test_it_is_full_at_its_size(self):
        self.make("small")
        self.deploy("filler", volume("small"))
        full = self.say("filler", "tmpfill /data/fill")
        self.assertIn(f"errno {self.full_errno}", full)
        self.assertLessEqual(int(full.split()[0]), 8 << 20)
        shown = self.shown("small")
        self.assertGreater(shown["used_bytes"], shown["capacity_bytes"] * 0.9)
        self.assertIn("ok", self.say("filler", "unlink /data/fill"))
        self.drop("filler")
        self.remove("small")

    def can_grow(self):
        """A file system in a file only by a daemon whose root lacks nothing."""
        capabilities = int(status_of("self")["CapEff"], 16)
        return self.storage == "project-quota" or capabilities >> 24 & 1  # CAP_SYS_RESOURCE

    def test_it_grows_while_a_function_uses_it(self):
        self.make("grown")
        self.deploy("grower", volume("grown", size=SIZE))
        self.say("grower", "tmpfill /data/fill")
        refused = self.daemon.api("PATCH", "/v1/volumes/grown", {"size": "5Mi"})
        self.assert_error(refused, 400, "invalid_argument", "size")
        done = self.daemon.cli("volume", "resize", "grown", "32Mi")
        if not self.can_grow():
            self.assertIn("CAP_SYS_RESOURCE", done.stderr.decode())
            self.assertEqual(self.shown("grown")["size"], SIZE)
        else:
            self.assertIn("grown  32Mi", done.stdout.decode(), done.stderr)
            self.assertGreater(int(self.say("grower", "tmpfill /data/more").split()[0]), 16 << 20)
            self.assertGreater(self.shown("grown")["capacity_bytes"], 24 << 20)
        self.deploy("grower", volume("grown", size=SIZE), env={"AGAIN": "1"})
        self.drop("grower")
        self.remove("grown")

    def test_it_stays_while_a_function_has_it(self):
        self.make("wanted")
        self.deploy("user", volume("wanted"))
        reply = self.daemon.api("DELETE", "/v1/volumes/wanted")
        self.assert_error(reply, 409, "volume_in_use", "function user")
        self.say("user", "write /data/note still")
        self.assertEqual(self.say("user", "cat /data/note"), "still")
        self.drop("user")
        self.remove("wanted")

    def test_bad_input_is_refused_by_name(self):
        self.make("there")
        for name, body, status, code, *words in (
                ("UPPER", {"size": SIZE}, 400, "invalid_name"),
                ("x" * 64, {"size": SIZE}, 400, "invalid_name"),
                ("a..b", {"size": SIZE}, 400, "invalid_name"),
                ("new", {}, 400, "invalid_argument", "size", "image"),
                ("new", {"size": SIZE, "image": "probe:1"}, 400, "invalid_argument", "either"),
                ("new", {"size": 5}, 400, "invalid_argument", "size"),
                ("new", {"size": "1Ki"}, 400, "invalid_argument", "4Mi"),
                ("new", {"size": "2000Ti"}, 400, "invalid_argument", "1024Gi"),
                ("new", {"size": "1Ti"}, 507, "no_space"),
                ("new", {"sise": SIZE}, 400, "invalid_argument", "sise"),
                ("new", {"image": "absent:1"}, 404, "image_not_found", "absent"),
                ("there", {"size": "16Mi"}, 409, "volume_conflict", SIZE),
                ("there", {"image": "probe:1"}, 409, "volume_conflict")):
            with self.subTest(name=name, body=body):
                reply = self.daemon.api("PUT", f"/v1/volumes/{name}", body)
                self.assert_error(reply, status, code, *words)
        for name, body, status, code in (
                ("absent", {"size": SIZE}, 404, "volume_not_found"),
                ("there", {"size": "1Ki"}, 400, "invalid_argument"),
                ("there", {"size": "1Ti"}, 507, "no_space"),
                ("there", {"image": "probe:1"}, 400, "invalid_argument"),
                ("there", {}, 400, "invalid_argument")):
            with self.subTest(name=name, resize=body):
                reply = self.daemon.api("PATCH", f"/v1/volumes/{name}", body)
                self.assert_error(reply, status, code)
        for mounts, *words in (
                ([volume("absent")], "absent", "does not exist"),
                ([volume("there", path="data")], "volumes[0].path"),
                ([volume("there", path="/proc/x")], "volumes[0].path"),
                ([volume("there", path="/tmp/x")], "volumes[0].path"),
                ([volume("there", path="/")], "volumes[0].path"),
                ([volume("there", path="/a/../b")], "volumes[0].path"),
                ([volume("there"), volume("there", path="/data/inner")], "volumes[1].path"),
                ([volume("../there")], "volumes[0].name"),
                ([{"data_set": "there", "path": "/data"}], "is a volume"),
                ([volume("there", path="/probe")], "not a directory"),
                ([{"host": "/etc", "path": "/data"}], "grants.conf")):
            with self.subTest(mounts=mounts):
                reply = self.deploy("bad", *mounts, expect=(400, 422))
                for word in words:
                    self.assertIn(word, reply.text)
        self.remove("there")
        self.assertEqual(self.daemon.api("DELETE", "/v1/volumes/there").status, 404)

    def test_a_data_set_is_an_image_that_functions_read(self):
        image = image_of({"weights": b"one two three"}, tag="models:1")
        self.daemon.import_archive(image_archive.docker_archive([image]))
        reply = self.daemon.api("PUT", "/v1/volumes/models", {"image": "models:1"})
        self.assertEqual(reply.status, 201, repr(reply))
        self.assertEqual(reply.json()["kind"], "data_set")
        self.assertEqual(reply.json()["image"], "models:1")
        mount = {"data_set": "models", "path": "/models"}
        self.deploy("thinker", mount)
        self.assertEqual(self.say("thinker", "cat /models/weights"), "one two three")
        self.assertIn("errno 30", self.say("thinker", "write /models/weights no"))
        refused = self.daemon.api("DELETE", "/v1/images/models:1")
        self.assert_error(refused, 409, "image_in_use", "data set models")
        refused = self.daemon.api("DELETE", "/v1/volumes/models")
        self.assert_error(refused, 409, "volume_in_use", "thinker")
        self.drop("thinker")
        self.remove("models")
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/models:1").status, 204)

    def test_the_command_line(self):
        cli = self.daemon.cli_ok
        self.assertIn("created volume typed", cli("volume", "create", "typed", "--size", SIZE))
        self.assertIn("exists already", cli("volume", "create", "typed", "--size", SIZE))
        listed = cli("volume", "ls")
        self.assertRegex(listed, r"typed +volume +8Mi +[0-9.]+ ([KM]i)?B of [0-9.]+ MiB +"
                         + self.storage.replace("-", " ") + " +-")
        self.assertIn(self.storage.replace("-", " "), cli("volume", "inspect", "typed"))
        self.assertIn("removed typed", cli("volume", "rm", "typed"))
        self.assertNotIn("typed", cli("volume", "ls"))


    def test_a_data_set_can_be_made_of_a_tar(self):
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                entry = tarfile.TarInfo("./deep/er/weights")
                entry.size = 300_000
                tar.addfile(entry, io.BytesIO(b"w" * entry.size))
            file.flush()
            self.assertIn("created data set tarred",
                          self.daemon.cli_ok("volume", "create", "tarred", "--from", file.name))
        self.deploy("reader", {"data_set": "tarred", "path": "/set"})
        self.assertEqual(self.say("reader", "cat /set/deep/er/weights"), "w" * 300_000)
        self.drop("reader")
        self.remove("tarred")
        self.daemon.cli_ok("image", "rm", "data-sets/tarred")
        done = self.daemon.cli("volume", "create", "bad", "--from", __file__)
        self.assertIn("is no tar", done.stderr.decode())
        self.assertEqual(done.returncode, 1)


class IoLimits(OwnDaemonCase):
    """What comes from the disk through a volume, felt by the function and counted by its cgroup."""

    def block_device(self):
        place = self.daemon.data.stat().st_dev
        return Path(f"/sys/dev/block/{os.major(place)}:{os.minor(place)}")

    def read_from_disk(self):
        """As much as the cgroup of one instance counts."""
        device = self.block_device().resolve()
        if (device / "partition").exists():
            device = device.parent
        number = (device / "dev").read_text().strip()
        counted = re.compile(rf"^{number} (?:Read |rbytes=)(\d+)", re.M)
        found = [0]
        for place in leaks.cgroups_of(self.daemon.data):
            for file in ("blkio.throttle.io_service_bytes", "io.stat"):
                path = Path(place, file)
                if path.exists():
                    found += [int(count) for count in counted.findall(path.read_text())]
        return max(found)

    def forget(self):
        """Nothing of the volume is in memory any more."""
        wait_until(lambda: not loop_devices(self.daemon.data), 60, "loop devices to go")
        for name in files(self.daemon.data):
            fd = os.open(self.daemon.data / "volumes" / name, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)

    def deploy(self, **limits):
        return self.daemon.put("reader", {
            "image": "probe:1", "mode": "exec", "volumes": [volume(size=SIZE)],
            "limits": {"timeout": "2m", "output": "8Mi", **limits}})

    def test_a_limit_on_reads_binds_a_volume(self):
        if not self.block_device().exists():
            self.skipTest("the data lies on no disk that can be limited")
        self.daemon.import_sample("probe")
        self.deploy()
        self.daemon.call("reader", b"tmpfill /data/fill")
        self.daemon.api("DELETE", "/v1/functions/reader")
        self.forget()
        self.deploy(io_read_bps="1Mi")
        begun = time.monotonic()
        whole = self.daemon.call("reader", b"cat /data/fill", timeout=150)
        took = time.monotonic() - begun
        self.assertEqual(whole.status, 200, whole.text[:200])
        self.assertGreater(len(whole.body), 4 << 20)
        self.assertGreaterEqual(self.read_from_disk(), len(whole.body) * 9 // 10)
        # A slow machine only takes longer.
        self.assertGreater(took, len(whole.body) / (1 << 20) - 1.5)


class Crashes(OwnDaemonCase):
    def deploy(self):
        self.daemon.deploy_probe()
        self.daemon.put("keeper", {"image": "probe:1", "mode": "exec",
                                   "volumes": [volume("kept", size=SIZE)]})
        return self.daemon.call("keeper", b"write /data/note first").text

    def reads(self):
        try:
            return self.daemon.call("keeper", b"cat /data/note").text
        except OSError:
            return ""  # it is being started anew

    def test_volumes_outlive_every_process_of_ours(self):
        self.assertEqual(self.deploy(), "write: ok\n")
        for pid in (self.daemon.daemon_pid, self.daemon.launcher_pid):
            os.kill(pid(), signal.SIGKILL)
            wait_until(lambda: self.reads() == "first", 60, "the note, after a kill")
        self.assertEqual(self.daemon.stop(), 0)
        wait_until(lambda: not loop_devices(self.daemon.data), 30, "loop devices to go")
        self.daemon.start()
        wait_until(lambda: self.reads() == "first", 60, "the note, after a restart")

    def test_a_file_without_a_row_is_kept_and_reported(self):
        self.deploy()
        self.assertEqual(self.daemon.stop(), 0)
        with sqlite3.connect(self.daemon.data / "pulga.db") as database:
            database.execute("DELETE FROM volumes")
        database.close()
        before = files(self.daemon.data)
        self.daemon.start()
        wait_until(lambda: "it is kept" in self.daemon.log(), 30, "the report")
        self.assertEqual(files(self.daemon.data), before)
        listed = self.daemon.api("GET", "/v1/volumes").json()
        self.assertEqual(listed["volumes"], [])
        self.assertEqual([f["file"] + ".ext4" for f in listed["unclaimed"]], before)
        self.assertIn("does not exist", self.daemon.call("keeper", b"cat /data/note").text)

    def test_what_a_crash_left_half_done_goes_at_the_next_start(self):
        self.daemon.api("PUT", "/v1/volumes/one", {"size": SIZE})
        self.daemon.api("PUT", "/v1/volumes/two", {"size": SIZE})
        self.daemon.api("PUT", "/v1/volumes/whole", {"size": SIZE})
        self.assertEqual(self.daemon.stop(), 0)
        with sqlite3.connect(self.daemon.data / "pulga.db") as database:
            database.execute("UPDATE volumes SET state = 'pending' WHERE name = 'one'")
            database.execute("UPDATE volumes SET state = 'removing' WHERE name = 'two'")
        database.close()
        (self.daemon.data / "volumes" / ".new-0000000000000001.ext4").write_bytes(b"half")
        self.daemon.start()
        wait_until(lambda: len(files(self.daemon.data)) == 1, 30, "both files to go")
        listed = self.daemon.api("GET", "/v1/volumes").json()
        self.assertEqual([v["name"] for v in listed["volumes"]], ["whole"])
        self.assertEqual(listed["unclaimed"], [])
        self.assertEqual(list((self.daemon.data / "volumes").glob(".new-*")), [])

    def test_a_directory_that_others_could_write_to_is_refused(self):
        self.assertEqual(self.daemon.stop(), 0)
        os.chown(self.daemon.data / "volumes", 1000, 1000)
        with self.assertRaisesRegex(AssertionError, "did not start"):
            self.daemon.start(seconds=60)
        self.assertIn("is not root's alone", self.daemon.log())


if __name__ == "__main__":
    unittest.main()
