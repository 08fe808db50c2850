"""Verify, prune, sizes on disk, and collection when the disk fills."""

import json
import os
import shutil
import sqlite3
import subprocess
import time
import unittest
from pathlib import Path

from harness import image_archive as archive
from harness import Case, Daemon, image_of, probe_binary, skip_unless, wait_until
from image_archive import Entry, Image

CONFIG = {"Entrypoint": ["/probe"]}


def with_file(tag, content):
    return image_of({"probe": probe_binary(), "f": content}, tag, **CONFIG)


def rows(daemon, query):
    base = sqlite3.connect(f"file:{daemon.data}/pulga.db?mode=ro", uri=True)
    try:
        return base.execute(query).fetchall()
    finally:
        base.close()


class Verify(Case):
    """Each kind of change in a layer's directory is found, and named."""

    @classmethod
    def prepare(cls):
        base = archive.layer([
            Entry("etc", "dir", mode=0o755), Entry("etc/keep", content=b"keep\n"),
            Entry("bin", "symlink", mode=0o777, link="usr/bin"),
            Entry("usr", "dir", mode=0o755), Entry("usr/bin", "dir", mode=0o755),
            Entry("data", content=b"d" * 100_000, uid=7, pax={"SCHILY.xattr.user.x": "y"}),
            Entry("probe", content=probe_binary(), mode=0o755)])
        top = archive.layer([Entry("etc/.wh.keep"), Entry("bin/tool", content=b"#!", mode=0o4755)])
        cls.archive = archive.docker_archive([Image(["v:1"], [base, top], CONFIG)])

    def setUp(self):
        self.daemon.import_archive(self.archive)
        self.addCleanup(self.daemon.api, "DELETE", "/v1/images/v:1")
        layers = self.daemon.api("GET", "/v1/images/v:1").json()["layers"]
        ids = [layer["chain_id"][7:] for layer in layers]
        self.base, self.top = (self.daemon.data / "layers" / name for name in ids)

    def found(self):
        done = self.daemon.cli("image", "verify", "v:1", "--json")
        report = json.loads(done.stdout)
        self.assertEqual(done.returncode, 0 if report["intact"] else 1)
        return [[(d["path"], d["what"]) for d in layer["differences"]]
                for layer in report["images"][0]["layers"]]

    def touching(self, path, change):
        """Changes something, but for the times of `path`."""
        before = os.stat(path, follow_symlinks=False)
        change()
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns), follow_symlinks=False)

    def test_what_was_imported_is_intact(self):
        self.assertEqual(self.found(), [[], []])
        self.assertIn("intact", self.daemon.cli_ok("image", "verify", "v:1"))
        self.assertIn("intact", self.daemon.cli_ok("image", "verify"), "all of them")

    def test_after_a_restart_and_a_run_it_is_still_intact(self):
        self.daemon.put("verified", {"image": "v:1", "mode": "exec"})
        self.assertEqual(self.daemon.call("verified", b"ls /").status, 200)
        self.assertEqual(self.found(), [[], []])
        self.assertEqual(self.daemon.api("DELETE", "/v1/functions/verified").status, 204)

    def test_a_flipped_byte(self):
        path = self.base / "data"

        def flip():
            with open(path, "r+b") as file:
                file.seek(77_777)
                file.write(b"D")
        self.touching(path, flip)
        self.assertEqual(self.found(), [[("data", "content")], []])
        done = self.daemon.cli("image", "verify", "v:1")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"DAMAGED", done.stdout)
        self.assertIn(b"data  content", done.stdout)

    def test_a_changed_mode(self):
        os.chmod(self.top / "usr/bin/tool", 0o755)
        self.assertEqual(self.found(), [[], [("usr/bin/tool", "mode")]])

    def test_a_changed_owner(self):
        host = os.stat(self.base / "data").st_uid - 7
        os.chown(self.base / "data", host + 8, host)
        self.assertEqual(self.found(), [[("data", "owner")], []])

    def test_a_changed_attribute(self):
        os.setxattr(self.base / "data", "user.x", b"z")
        self.assertEqual(self.found(), [[("data", "extended attributes")], []])

    def test_a_changed_time(self):
        os.utime(self.base / "data", (5, 5))
        self.assertEqual(self.found(), [[("data", "modification time")], []])

    def test_a_deleted_file(self):
        self.touching(self.base, lambda: os.unlink(self.base / "data"))
        self.assertEqual(self.found(), [[("data", "missing")], []])

    def test_a_deleted_whiteout(self):
        self.touching(self.top / "etc", lambda: os.unlink(self.top / "etc/keep"))
        self.assertEqual(self.found(), [[], [("etc/keep", "missing")]])

    def test_an_added_file(self):
        self.touching(self.base / "etc", lambda: (self.base / "etc/new").write_text("n"))
        self.assertEqual(self.found(), [[("etc/new", "added")], []])

    def test_a_link_that_leads_elsewhere(self):
        def relink():
            os.unlink(self.base / "bin")
            os.symlink("usr/sbin", self.base / "bin")
            host = os.stat(self.base).st_uid
            os.chown(self.base / "bin", host, host, follow_symlinks=False)
        before = os.stat(self.base / "bin", follow_symlinks=False)
        self.touching(self.base, relink)
        os.utime(self.base / "bin", ns=(before.st_atime_ns, before.st_mtime_ns),
                 follow_symlinks=False)
        self.assertEqual(self.found(), [[("bin", "link target")], []])

    def test_a_directory_that_became_a_file_and_one_that_is_gone(self):
        def swap():
            (self.base / "etc/keep").unlink()
            (self.base / "etc").rmdir()
            (self.base / "etc").write_text("no directory")
        self.touching(self.base, swap)
        found = dict(self.found()[0])
        self.assertEqual(found["etc/keep"], "missing")
        self.assertIn("etc", found)
        (self.base / "etc").unlink()
        self.assertEqual(dict(self.found()[0])["etc"], "missing")

    def test_a_shorter_and_a_longer_file(self):
        for size in (99_999, 100_001):
            self.touching(self.base / "data", lambda: os.truncate(self.base / "data", size))
            self.assertEqual(self.found()[0][0][0], "data", size)

    def test_two_layers_in_each_others_place(self):
        aside = self.base.with_name("aside")
        self.base.rename(aside)
        self.top.rename(self.base)
        aside.rename(self.top)
        base, top = self.found()
        self.assertIn(("data", "missing"), base)
        self.assertIn(("usr/bin/tool", "added"), base)
        self.assertIn(("data", "added"), top)
        self.assertIn(("usr/bin/tool", "missing"), top)
        reply = self.daemon.api("GET", "/v1/images/v:1/export")
        self.assertTrue(reply.broken or reply.status >= 400, "it is not given out as the image")

    def test_records_in_each_others_place(self):
        records = self.daemon.data / "layer-records"
        one, other = (records / layer.name for layer in (self.base, self.top))
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(kept)
        self.assertTrue(all(self.found()), "neither layer is what its record tells")

    def test_a_layer_whose_directory_is_gone(self):
        shutil.rmtree(self.top)
        done = self.daemon.cli("image", "verify", "v:1")
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stdout or done.stderr)
        self.daemon.stop()
        self.daemon.start()
        self.assert_error(self.daemon.api("POST", "/v1/images/v:1/verify"), 503,
                          "unavailable", "missing")
        self.daemon.import_archive(self.archive)
        self.assertEqual(self.found(), [[], []])

    def test_a_lost_or_damaged_record(self):
        record = self.daemon.data / "layer-records" / self.top.name
        bytes_before = record.read_bytes()
        record.write_bytes(bytes_before[:20] + b"?" + bytes_before[21:])
        self.assertIn("record", self.found()[1][0][1])
        record.unlink()
        self.assertEqual(self.found()[1], [("", "the layer's record is missing")])

    def test_an_unknown_image(self):
        reply = self.daemon.api("POST", "/v1/images/nobody:1/verify")
        self.assert_error(reply, 404, "image_not_found", "nobody:1")


class Prune(Case):
    """What goes, what stays, and what it was worth."""

    def names(self):
        images = self.daemon.api("GET", "/v1/images").json()["images"]
        return sorted(image["refs"][0] if image["refs"] else "-" for image in images)

    def disk_use(self):
        """(by the rows, by the disk), layers and records, in bytes."""
        by_rows = rows(self.daemon, "SELECT sum(disk_bytes), sum(record_bytes) FROM layers")[0]
        folders = [p for p in (self.daemon.data / "layers").iterdir() if p.name[0] != "."]
        used = subprocess.run(["du", "-s", "--block-size=1", "--total", *folders, "/dev/null"],
                              capture_output=True, text=True, check=True).stdout
        records = (self.daemon.data / "layer-records").iterdir()
        by_disk = (int(used.splitlines()[-1].split()[0]), sum(p.stat().st_size for p in records))
        return tuple(n or 0 for n in by_rows), by_disk

    def test_untagged_images_go_and_with_all_every_unused_one(self):
        shared = archive.layer([Entry("shared", content=b"s" * 200_000)])
        probe = archive.layer([Entry("probe", content=probe_binary(), mode=0o755)])
        old = Image(["p:1"], [probe, shared, archive.layer([Entry("o", content=b"o" * 50_000)])],
                    CONFIG)
        new = Image(["p:1"], [probe, shared, archive.layer([Entry("n", content=b"n" * 9_000)])],
                    CONFIG)
        used = Image(["used:1"], [probe], CONFIG)
        for image in (old, new, used):
            self.daemon.import_archive(archive.docker_archive([image]))
        self.assertEqual(self.names(), ["-", "p:1", "used:1"])
        self.daemon.put("user", {"image": "used:1", "mode": "exec"})
        shown = self.daemon.api("GET", "/v1/images/p:1").json()
        self.assertEqual(shown["owner"], "admin")
        layers = [layer["disk_bytes"] for layer in shown["layers"]]
        self.assertEqual(shown["disk_bytes"], sum(layers))
        self.assertEqual(shown["shared_bytes"], layers[0] + layers[1])
        self.assertEqual(shown["unique_bytes"], layers[2])
        self.assertEqual(*self.disk_use())

        freed = self.daemon.api("POST", "/v1/images/prune").json()
        self.assertEqual((len(freed["images"]), freed["layers"]), (1, 1))
        self.assertGreater(freed["freed_bytes"], 50_000)
        self.assertLess(freed["freed_bytes"], 70_000)
        self.assertEqual(self.names(), ["p:1", "used:1"])
        self.assertEqual(*self.disk_use())

        self.assertIn("no unused image", self.daemon.cli_ok("image", "prune"))
        said = self.daemon.cli_ok("image", "prune", "--all")
        self.assertIn("removed p:1", said)
        self.assertIn("freed", said)
        self.assertEqual(self.names(), ["used:1"])
        self.assertEqual(*self.disk_use())
        self.assertEqual(self.daemon.call("user", b"ls /").status, 200)
        self.assertIn("every image is in use", self.daemon.cli_ok("image", "prune", "-a"))
        self.assertEqual(self.daemon.api("DELETE", "/v1/functions/user").status, 204)
        report = json.loads(self.daemon.cli_ok("image", "prune", "--all", "--json"))
        self.assertEqual(report["images"][0]["refs"], ["used:1"])
        self.assertEqual(*self.disk_use())

    def test_a_body_that_makes_no_sense_is_refused(self):
        for body in (b'{"all": 1}', b'{"some": true}', b"[]"):
            reply = self.daemon.request("POST", "/v1/images/prune", body, admin=True)
            self.assert_error(reply, 400, "invalid_argument")


class Collection(unittest.TestCase):
    """A disk of 64 MiB that fills."""

    def setUp(self):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        self.daemon = Daemon("--disk-high", "70", "--disk-low", "40", "--reserve-bytes", "1Mi")
        self.addCleanup(self.daemon.__exit__, None, None, None)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=711", "tmpfs",
                        self.daemon.temp], check=True)
        self.addCleanup(subprocess.run, ["umount", self.daemon.temp], check=False)
        # Cleanups run last first: the daemon must stop before its disk goes.
        self.addCleanup(self.stop)
        self.daemon.start()

    def stop(self):
        if self.daemon.process.poll() is None:
            self.daemon.stop()

    def names(self):
        images = self.daemon.api("GET", "/v1/images").json()["images"]
        return sorted(image["refs"][0] for image in images)

    def fill(self, *tags):
        for tag in tags:
            self.daemon.import_archive(archive.docker_archive(
                [with_file(tag, os.urandom(9 << 20))]))

    def long_ago(self, *tags):
        """As if these had last been used in 1970, in this order."""
        self.daemon.stop()
        base = sqlite3.connect(self.daemon.data / "pulga.db")
        for number, tag in enumerate(tags):
            base.execute("UPDATE images SET last_used_unix_ms = ? WHERE digest IN"
                         " (SELECT digest FROM refs WHERE ref LIKE ?)", (1000 + number, "%/" + tag))
        base.commit()
        base.close()
        self.daemon.start()

    def test_the_longest_unused_images_go_and_nothing_that_is_used(self):
        self.fill("used:1", "b:1", "a:1")
        self.daemon.put("f", {"image": "used:1", "mode": "exec"})
        self.assertEqual(self.names(), ["a:1", "b:1", "used:1"])
        self.long_ago("used:1", "b:1", "a:1")
        self.fill("new:1", "newer:1")
        wait_until(lambda: "b:1" not in self.names(), 30, self.daemon.log)
        wait_until(lambda: "collected" in self.daemon.log(), 30, self.daemon.log)
        # 45 of 64 MiB were used, 40 % are 25: both old ones had to go, the new ones are too new.
        self.assertEqual(self.names(), ["new:1", "newer:1", "used:1"])
        self.assertIn("above the mark of 70 %", self.daemon.log())
        self.assertEqual(self.daemon.call("f", b"ls /").status, 200)
        layers = [p for p in (self.daemon.data / "layers").iterdir() if p.name[0] != "."]
        self.assertEqual(len(layers), 3)
        self.assertEqual(len(list((self.daemon.data / "layer-records").iterdir())), 3)

    def begin_upload(self, size):
        """One that stops half way; its path."""
        made = self.daemon.request("POST", "/v1/uploads", b"", {
            "Tus-Resumable": "1.0.0", "Upload-Length": str(size)}, 60, True)
        self.assertEqual(made.status, 201, made)
        path = made.headers["location"]
        sent = self.daemon.request("PATCH", path, os.urandom(size // 2), {
            "Tus-Resumable": "1.0.0", "Upload-Offset": "0",
            "Content-Type": "application/offset+octet-stream"}, 60, True)
        self.assertEqual(sent.status, 204, sent)
        return path

    def ask_upload(self, path):
        return self.daemon.request("HEAD", path, b"", {"Tus-Resumable": "1.0.0"}, 60, True).status

    def test_uploads_that_stopped_long_ago_go_before_any_image(self):
        self.fill("a:1", "b:1")
        old, newer, fresh = (self.begin_upload(12 << 20) for _ in range(3))
        self.long_ago("a:1", "b:1")
        self.daemon.stop()
        for path, hours in ((old, 3), (newer, 2)):
            when = time.time() - hours * 3600
            os.utime(self.daemon.data / "uploads" / (path.rsplit("/", 1)[1] + ".data"),
                     (when, when))
        self.daemon.start()
        self.assertEqual([self.ask_upload(path) for path in (old, newer, fresh)], [200] * 3)
        self.fill("c:1")
        # 46 of 64 MiB were used, 40 % are 25: both old ones, then the older image go.
        wait_until(lambda: self.ask_upload(old) == 410 and self.ask_upload(newer) == 410, 30,
                   self.daemon.log)
        wait_until(lambda: "collected" in self.daemon.log(), 30, self.daemon.log)
        self.assertEqual(self.ask_upload(fresh), 200, "it may still be going on")
        self.assertNotIn("a:1", self.names())
        self.assertIn("c:1", self.names())
        self.assertIn("2 uploads that stopped half way", self.daemon.log())
        left = [p.name for p in (self.daemon.data / "uploads").glob("*.data")]
        self.assertEqual(left, [fresh.rsplit("/", 1)[1] + ".data"])

    def test_below_the_mark_nothing_goes(self):
        self.fill("a:1", "b:1", "c:1")
        self.long_ago("a:1", "b:1", "c:1")
        self.fill("d:1")
        self.assertEqual(self.names(), ["a:1", "b:1", "c:1", "d:1"])
        self.assertNotIn("above the mark", self.daemon.log())


class OldDatabase(unittest.TestCase):
    """A store from before owners and records: it works on, and says what it cannot do."""

    def test_images_without_records_run_and_are_refused_politely(self):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        with Daemon() as daemon:
            daemon.import_archive(archive.docker_archive([with_file("old:1", b"o")]))
            daemon.stop()
            base = sqlite3.connect(daemon.data / "pulga.db")
            base.execute("UPDATE layers SET stream_bytes = 0, disk_bytes = 0, record_bytes = 0")
            base.commit()
            base.close()
            for record in Path(daemon.data / "layer-records").iterdir():
                record.unlink()
            daemon.start()
            daemon.put("f", {"image": "old:1", "mode": "exec"})
            self.assertEqual(daemon.call("f", b"ls /").status, 200)
            reply = daemon.api("GET", "/v1/images/old:1/export")
            self.assertEqual((reply.status, reply.json()["error"]["code"]), (422, "unsupported"))
            self.assertIn("import it again", reply.text)
            done = daemon.cli("image", "verify", "old:1")
            self.assertEqual(done.returncode, 1)
            self.assertIn(b"has no record", done.stdout)


if __name__ == "__main__":
    unittest.main()
