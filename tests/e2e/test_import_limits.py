"""What an archive may cost those who did not send it: the daemon's memory, its time, the places
for imports. The numbers of docs/images.md, "What one archive may ask".
"""

import gzip
import json
import os
import signal
import stat
import subprocess
import time
import unittest
from pathlib import Path

from harness import image_archive as archive
from harness import SANITIZED, Case, Daemon, command_line, image_of, status_of, wait_until
from image_archive import Entry, Image
from test_tus import Tus

# A sanitizer keeps what was freed for a while.
MOST_KIB = (1024 if SANITIZED else 64) << 10
INPUT_AND_STAGING = 4, 6  # base/unpack_job.h


def with_label(tag, size, layer):
    return Image([tag], [layer], {"Cmd": ["/x"], "Labels": {"k": "v" * size, "tag": tag}})


def saved(images):
    members = [(f"{n}.json", image.config_bytes()) for n, image in enumerate(images)]
    members.append(("l", images[0].layers[0]))
    members.append(("manifest.json", json.dumps(
        [{"Config": f"{n}.json", "RepoTags": image.tags, "Layers": ["l"]}
         for n, image in enumerate(images)]).encode()))
    return gzip.compress(archive.pack(members))


class Documents(unittest.TestCase):
    """A daemon for each, since its peak is what is looked at."""

    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.__exit__, None, None, None)
        self.daemon.__enter__()
        self.layer = archive.layer([Entry("x", content=b"x", mode=0o755)])

    def peak(self):
        return int(status_of(self.daemon.daemon_pid())["VmHWM"].split()[0])

    def send(self, data):
        return self.daemon.request("POST", "/v1/images", data, None, 300, True)

    def refused(self, data, *words):
        reply = self.send(data)
        self.assertEqual(reply.status, 413, repr(reply))
        self.assertEqual(reply.json()["error"]["code"], "too_large")
        for word in words:
            self.assertIn(word, reply.json()["error"]["message"])
        self.assertLess(self.peak(), MOST_KIB)

    def test_thirty_large_configurations(self):
        images = [with_label(f"a:{n}", 4_000_000, self.layer) for n in range(30)]
        self.refused(saved(images), "1.0 MiB is the limit")
        images = [with_label(f"a:{n}", 1_000_000, self.layer) for n in range(30)]
        self.refused(saved(images), "together")

    def test_what_is_taken_is_not_kept_in_memory(self):
        before = int(status_of(self.daemon.daemon_pid())["VmRSS"].split()[0])
        for turn in range(6):
            images = [with_label(f"t{turn}:{n}", 1_000_000, self.layer) for n in range(8)]
            self.assertEqual(self.send(saved(images)).status, 201)
        self.assertLess(self.peak(), MOST_KIB)
        # 48 MB of configurations came, and they are all there.
        whole = self.daemon.api("GET", "/v1/images/t3:5/export").body
        self.assertIn(images[5].config_bytes().replace(b"t5:5", b"t3:5"), whole)
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(len(self.daemon.api("GET", "/v1/images").json()["images"]), 48)
        self.assertLess(self.peak(), MOST_KIB)
        self.assertLess(int(status_of(self.daemon.daemon_pid())["VmRSS"].split()[0]) - before,
                        MOST_KIB // 3)

    def test_names_without_end(self):
        image = with_label("a:1", 1, self.layer)
        image.tags = [f"a:{n}" for n in range(49_000)]
        self.refused(saved([image]), "256 names")

    def test_manifests_of_blanks(self):
        members, descriptors = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')], []
        for n in range(20):
            blobs, descriptor, _ = archive.oci_documents(with_label(f"a:{n}", n, self.layer))
            name = "blobs/sha256/" + descriptor["digest"][7:]
            padded = blobs.pop(descriptor["digest"][7:]) + b" " * 1_000_000
            digest = archive.sha(padded)
            members += [("blobs/sha256/" + key, data) for key, data in blobs.items()]
            members.append(("blobs/sha256/" + digest, padded))
            descriptors.append({**descriptor, "digest": "sha256:" + digest, "size": len(padded)})
            self.assertNotIn(name, dict(members))
        index = archive.as_json({"schemaVersion": 2, "manifests": descriptors})
        members.insert(1, ("index.json", index))
        unique = list(dict(members).items())
        self.refused(gzip.compress(archive.pack(unique)), "together")


class Places(Case):
    """One import at a time, and one that does not come to its end."""

    flags = ("--max-uploads", "1")

    @classmethod
    def prepare(cls):
        entries = [Entry(f"f{n}") for n in range(20_000)]
        layer = archive.layer(entries)
        image = Image(["slow:1"], [layer], {"Cmd": ["/f1"]})
        documents = [("c.json", image.config_bytes()), ("manifest.json", json.dumps(
            [{"Config": "c.json", "RepoTags": image.tags, "Layers": ["l"]}]).encode())]
        cls.slow = archive.pack([*documents, ("l", layer)])
        cls.good = archive.docker_archive([image_of({"x": b"x"}, "good:1", Cmd=["/x"])])

    def unpackers(self):
        return {pid for pid in self.daemon.processes() if "pulga-unpacker" in command_line(pid)}

    def hold(self):
        """Stops the unpacker of a layer: the one with a file to read and a staging directory, which
        an upload's has not. Its pid."""
        def found():
            for pid in self.unpackers():
                os.kill(pid, signal.SIGSTOP)
                try:
                    modes = [os.stat(f"/proc/{pid}/fd/{fd}").st_mode for fd in INPUT_AND_STAGING]
                    if stat.S_ISREG(modes[0]) and stat.S_ISDIR(modes[1]):
                        return pid
                except OSError:
                    pass  # not yet, or gone
                os.kill(pid, signal.SIGCONT)
            return None
        deadline = time.monotonic() + 60
        while (pid := found()) is None:
            self.assertLess(time.monotonic(), deadline, "no unpacker of a layer")
        return pid

    def free(self, pid):
        """The held one is gone, nothing of its import is left, and others have its place."""
        wait_until(lambda: pid not in self.unpackers(), 20, "the held unpacker is still there")

        def taken():
            return self.daemon.request("POST", "/v1/images", self.good, None, 60,
                                       True).status in (200, 201)
        wait_until(taken, 20, "its place is not free")
        self.assertEqual(self.daemon.api("GET", "/v1/images/slow:1").status, 404)
        layers = self.daemon.api("GET", "/v1/images/good:1").json()["layers"]
        ids = {layer["chain_id"][7:] for layer in layers}
        wait_until(lambda: {path.name for path in (self.daemon.data / "layers").iterdir()
                            if not path.name.startswith(".")} == ids, 20, "its layer is there")

    def denied(self):
        reply = self.daemon.request("POST", "/v1/images", self.good, None, 60, True)
        self.assertEqual(reply.status, 503, repr(reply))

    def test_an_import_without_a_thread_is_refused_and_nothing_else_ends(self):
        with Daemon() as daemon:
            def upload():
                return daemon.request("POST", "/v1/images", self.good, None, 60, True)
            pid = daemon.daemon_pid()

            def allow(processes):  # as its own user: root may lack CAP_SYS_RESOURCE
                subprocess.run(["prlimit", f"--pid={pid}", f"--nproc={processes}:"], check=True,
                               user=daemon.uid, group=daemon.uid, extra_groups=[])
            most = Path(f"/proc/{pid}/limits").read_text().split("Max processes")[1].split()[1]
            allow(1)
            for begin in (upload, lambda: Tus(daemon, self.good).created):
                reply = begin()
                self.assertEqual(reply.status, 503, repr(reply))
                self.assertIn("start the thread", reply.text)
            self.assertEqual(daemon.daemon_pid(), pid)
            allow(most)
            self.assertIn(upload().status, (200, 201))

    def test_a_client_that_leaves_takes_its_import_along(self):
        with self.daemon.connect() as s:
            s.sendall(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                      + self.daemon.key.encode()
                      + b"\r\nContent-Length: %d\r\n\r\n" % len(self.slow) + self.slow)
            pid = self.hold()
            self.denied()
        self.free(pid)

    def test_a_removed_upload_takes_its_import_along(self):
        upload = Tus(self.daemon, self.slow)
        with upload.begin_part(0, len(self.slow)):
            pid = self.hold()
            self.denied()
            self.assertEqual(upload.ask("DELETE").status, 204)
            self.free(pid)

    def test_stopping_does_not_wait_for_it(self):
        with Daemon(*self.flags) as daemon:
            self.daemon, kept = daemon, self.daemon
            try:
                upload = Tus(daemon, self.slow)
                with upload.begin_part(0, len(self.slow)):
                    self.hold()
                    self.assertEqual(daemon.stop(), 0, daemon.log()[-2000:])
            finally:
                self.daemon = kept


if __name__ == "__main__":
    unittest.main()
