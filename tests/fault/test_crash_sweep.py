"""The daemon, then the launcher, killed before its n-th change of a file, for every n, during an
import, a deploy, a deletion, a prune and the making and removal of a volume and of a secret with
its key; then started again.
Whatever was acknowledged is there, what was under way is there whole or not at all, and nothing
else is left: docs/security.md.
"""

import hashlib
import http.client
import itertools
import os
import sqlite3
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from harness import image_archive as archive  # noqa: E402
from harness import BIN, OwnDaemonCase, probe_binary, wait_until  # noqa: E402
from image_archive import Entry, Image  # noqa: E402

CONFIG = {"Entrypoint": ["/probe"]}
# For a quick look by hand: only every so many-th call.
STEP = int(os.environ.get("PULGA_SWEEP_STEP", "1"))


def base_layer():
    return archive.layer([Entry("probe", content=probe_binary(), mode=0o755),
                          Entry("etc", "dir", mode=0o755), Entry("etc/f", content=b"f" * 5000)])


def image(tag, content):
    own = archive.layer([Entry("own", content=content), Entry("etc/.wh.f")])
    return archive.docker_archive([Image([tag], [base_layer(), own], CONFIG)])


class CrashSweep(OwnDaemonCase):
    """One store through all crashes; each attempt begins with the image `kept` alone."""

    def setUp(self):
        super().setUp()
        self.daemon.import_archive(image("kept:1", b"kept"))
        self.serial = itertools.count()

    # --- what is done while the knife hangs

    def story(self):
        """(name, what to do, which images are there afterwards) one after the other."""
        number = next(self.serial)
        first, second = (image("a:1", b"%d-%d" % (number, n)) for n in (1, 2))
        post = lambda data: self.call("POST", "/v1/images", data, (201,))  # noqa: E731
        spec = b'{"image": "a:1", "mode": "exec", "scale": {"parked": 0}}'
        return [
            ("import", lambda: post(first), {"kept:1", "a:1"}),
            ("deploy", lambda: self.call("PUT", "/v1/functions/f", spec, (200, 201)), None),
            ("make a volume", lambda: self.call("PUT", "/v1/volumes/v", b'{"size": "4Mi"}',
                                                (201,)), None),
            ("remove it", lambda: self.call("DELETE", "/v1/volumes/v", None, (204,)), None),
            ("make a secret", lambda: self.call("PUT", "/v1/secrets/s", b"one", (201,)), None),
            ("change it", lambda: self.call("PUT", "/v1/secrets/s", b"two", (200,)), None),
            ("remove it", lambda: self.call("DELETE", "/v1/secrets/s", None, (204,)), None),
            ("undeploy", lambda: self.call("DELETE", "/v1/functions/f", None, (204,)), None),
            ("move the tag", lambda: post(second), {"kept:1", "a:1", "-"}),
            ("prune", lambda: self.call("POST", "/v1/images/prune", None, (200,)),
             {"kept:1", "a:1"}),
            ("delete", lambda: self.call("DELETE", "/v1/images/a:1", None, (204,)), {"kept:1"}),
        ]

    def call(self, method, path, body, expected):
        """Whether it was acknowledged; if not, `self.refusal` says how it ended."""
        try:
            reply = self.daemon.request(method, path, body, admin=True, timeout=60)
        except (OSError, http.client.HTTPException) as error:
            self.refusal = repr(error)
            return False
        if reply.broken or reply.status >= 500:
            self.refusal = repr(reply)
            return False
        self.assertIn(reply.status, expected, repr(reply))
        return True

    # --- what must hold

    def images(self):
        listed = self.daemon.api("GET", "/v1/images").json()["images"]
        return {i["refs"][0] if i["refs"] else "-" for i in listed}

    def check_store(self, where):
        data = self.daemon.data
        base = sqlite3.connect(f"file:{data}/pulga.db?mode=ro", uri=True)
        self.addCleanup(base.close)
        ask = lambda query: base.execute(query).fetchall()  # noqa: E731
        self.assertEqual(ask("PRAGMA integrity_check"), [("ok",)], where)
        self.assertEqual(ask("PRAGMA foreign_key_check"), [], where)
        self.assertEqual(ask("SELECT count(*) FROM layers WHERE chain_id NOT IN"
                             " (SELECT chain_id FROM image_layers)"), [(0,)], where)
        layers = {chain: (disk, record) for chain, disk, record in
                  ask("SELECT chain_id, disk_bytes, record_bytes FROM layers")}
        self.check_volumes(ask("SELECT id, state FROM volumes"), where)
        self.check_secrets(ask("SELECT key_id, length(sealed) FROM secrets"), where)
        base.close()
        wait_until(lambda: sorted(p.name for p in (data / "layers").iterdir())
                   == sorted([".mnt", *layers]), 30,
                   lambda: f"{where}: {sorted(os.listdir(data / 'layers'))}, rows {layers}")
        wait_until(lambda: {p.name: p.stat().st_size for p in (data / "layer-records").iterdir()}
                   == {chain: record for chain, (_, record) in layers.items()}, 30,
                   lambda: f"{where}: {os.listdir(data / 'layer-records')}, rows {layers}")
        for chain, (disk, _) in layers.items():
            used = subprocess.run(["du", "-s", "--block-size=1", data / "layers" / chain],
                                  capture_output=True, text=True, check=True).stdout
            self.assertEqual(int(used.split()[0]), disk, f"{where}: {chain}")
        known = {"pulga.db", "pulga.db-wal", "pulga.db-shm", "admin.key", "lock", "layers",
                 "layer-records", "logs", "secrets", "secrets.key", "spare-room", "tasks.db",
                 "tasks.db-wal", "tasks.db-shm", "volumes"}
        unknown = [p.name for p in data.iterdir() if p.name not in known and not self.empty(p)]
        self.assertEqual(unknown, [], where)
        done = self.daemon.cli("image", "verify")
        self.assertEqual(done.returncode, 0, (where, done.stdout.decode(), done.stderr.decode()))

    def check_volumes(self, rows, where):
        """Whole ones, each with its row; what was half made or half removed goes by itself."""
        listed = self.daemon.api("GET", "/v1/volumes").json()
        self.assertEqual([v["trouble"] for v in listed["volumes"] if v["trouble"]], [], where)
        self.assertEqual(listed["unclaimed"], [], where)
        ready = [f"{number:016x}.ext4" for number, state in rows if state == "ready"]
        folder = self.daemon.data / "volumes"
        wait_until(lambda: sorted(os.listdir(folder)) == sorted([".mnt", *ready]), 30,
                   lambda: f"{where}: {os.listdir(folder)}, rows {rows}")

    def check_secrets(self, rows, where):
        """One or none, whole (its value has three bytes), and the key that opens it."""
        if not rows:
            return
        raw = bytes.fromhex((self.daemon.data / "secrets.key").read_text())
        key_id = hashlib.sha256(b"pulga seal key " + raw).hexdigest()[:16]
        self.assertEqual((len(raw), rows), (32, [(key_id, 3 + 16)]), where)

    @staticmethod
    def empty(path):
        return path.is_dir() and not any(path.iterdir())

    def reset(self):
        self.daemon.api("DELETE", "/v1/functions/f")
        self.daemon.api("DELETE", "/v1/volumes/v")
        self.daemon.api("DELETE", "/v1/secrets/s")
        # So that each story makes the key, too.
        (self.daemon.data / "secrets.key").unlink(missing_ok=True)
        reply = self.daemon.api("DELETE", "/v1/images/a:1")
        self.assertIn(reply.status, (204, 404), repr(reply))
        self.daemon.api("POST", "/v1/images/prune")
        self.assertEqual(self.images(), {"kept:1"})

    # --- the sweep

    def attempt(self, nth, pid):
        """One story under the knife; what the knife said, or None when it never fell."""
        knife = subprocess.Popen([BIN / "crash_before", str(nth), str(pid)], text=True,
                                 stdout=subprocess.PIPE)
        self.addCleanup(knife.stdout.close)
        self.assertEqual(knife.stdout.readline(), "ready\n")
        before = {"kept:1"}
        possible = [before]
        where = ""
        for name, do, after in self.story():
            acknowledged = do()
            after = before if after is None else after
            if not acknowledged:
                possible, where = [before, after], name
                break
            before, possible = after, [after]
        # Only the knife may end a story early, and has then said so. What goes on behind the last
        # answer counts too.
        try:
            knife.wait(10 if where else 0.2)
        except subprocess.TimeoutExpired:
            pass
        knife.terminate()
        said = knife.stdout.read().strip()
        self.assertEqual(knife.wait(), 0)
        if where:
            self.assertTrue(said.startswith("killed"), f"call {nth}: {where!r} failed by itself: "
                            f"{self.refusal}\n{self.daemon.log()}")
        return said, possible, where

    def restart(self):
        # The keeper has started anew what died; that start is one of the two that are tested.
        wait_until(lambda: self.daemon.healthy() and self.daemon.launcher_now(), 20,
                   self.daemon.log)
        self.daemon.stop()
        self.daemon.start()

    def calls_of_a_story(self, pid):
        """How many calls there are to die before, when nothing is killed."""
        said, _, where = self.attempt(1 << 30, pid)
        self.assertRegex(said, "^untouched [0-9]+$")
        self.assertEqual(where, "")
        self.restart()
        self.reset()
        return int(said.split()[1])

    def sweep(self, victim, least):
        total = self.calls_of_a_story(victim())
        self.assertGreaterEqual(total, least, "or nothing is tried")
        nth = 1
        kinds = set()
        last = 0       # the highest call before which it was killed
        untouched = 0  # in a row: how much is cleaned up in how many calls varies a little
        while untouched < 3:
            said, possible, where = self.attempt(nth, victim())
            title = f"before call {nth} ({said}) in {where!r}"
            self.restart()
            self.assertIn(self.images(), possible, title)
            self.check_store(title)
            if said.startswith("untouched"):
                untouched += 1
            else:
                untouched = 0
                kinds.add(said.split()[1])
                last = nth
            self.reset()
            nth += STEP
            self.assertLess(nth, 2000, "it never ends")
        print(f"{last} calls, {total} when counted: {', '.join(sorted(kinds))}", file=sys.stderr)
        # Every number up to `last` was tried. The end must not have come before the story's end.
        self.assertGreaterEqual(last, total * 0.9 - STEP, "the sweep ended early")
        return kinds

    def test_the_daemon_is_killed_before_each_call(self):
        kinds = self.sweep(self.daemon.daemon_pid, 60)
        if STEP == 1:
            self.assertLessEqual({"pwrite", "fdatasync", "rename", "unlink", "syncfs"}, kinds)

    def test_the_launcher_is_killed_before_each_call(self):
        kinds = self.sweep(self.daemon.launcher_pid, 20)
        if STEP == 1:
            self.assertLessEqual({"mkdirat", "renameat2", "unlinkat"}, kinds)


if __name__ == "__main__":
    unittest.main()
