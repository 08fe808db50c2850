"""Import: archives of every shape, the tree that comes out, sharing, deletion, refusal."""

import gzip
import hashlib
import http.server
import io
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
import unittest
from pathlib import Path

from harness import image_archive as archive
from harness import (Case, IMAGES, ROOT, command_line, image_of, in_parallel, memory_guard,
                     probe_binary, skip_unless, wait_until)
from image_archive import Entry, Image

PROBE_CONFIG = {"Entrypoint": ["/probe"]}


def layer_of_empty_files(count):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for n in range(count):
            tar.addfile(tarfile.TarInfo(f"d{n // 100:04d}/f{n}"))
    return packed.getvalue()


def base_layer():
    return archive.layer([
        Entry("etc", "dir", mode=0o755), Entry("etc/keep", content=b"keep\n"),
        Entry("etc/drop", content=b"drop\n"), Entry("data", "dir", mode=0o700, uid=5, gid=6),
        Entry("data/a", content=b"a"), Entry("data/b", content=b"b"),
        Entry("usr", "dir", mode=0o755), Entry("usr/bin", "dir", mode=0o755),
        Entry("bin", "symlink", mode=0o777, link="usr/bin"),
        Entry("probe", content=probe_binary(), mode=0o755)])


def top_layer():
    return archive.layer([
        Entry("etc/.wh.drop"), Entry("data/.wh..wh..opq"), Entry("data/c", content=b"c"),
        Entry("bin/tool", content=b"#!tool", mode=0o4755),
        Entry("etc/hard", "hardlink", link="etc/keep")])


EXPECTED_TREE = """\
bin|l|777|0:0|usr/bin
data|d|700|5:6|
data/c|f|644|0:0|
etc|d|755|0:0|
etc/hard|f|644|0:0|
etc/keep|f|644|0:0|
probe|f|755|0:0|
usr|d|755|0:0|
usr/bin|d|755|0:0|
usr/bin/tool|f|4755|0:0|
"""


class Relay(http.server.ThreadingHTTPServer):
    """Passes requests on to the daemon and counts what bodies hold."""

    def __init__(self, daemon):
        relay = self
        self.posts, self.during = [], None

        class Handler(http.server.BaseHTTPRequestHandler):
            def pass_on(self):
                if self.command == "POST" and relay.during is not None:
                    relay.during()
                    relay.during = None
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.command == "POST":
                    relay.posts.append(len(body))
                reply = daemon.request(self.command, self.path, body, admin=True)
                self.send_response(reply.status)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_POST = pass_on

            def log_message(self, *_):
                pass
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Import(Case):
    def image(self, tag):
        return Image([tag], [base_layer(), top_layer()], PROBE_CONFIG)

    def paths(self, reference):
        tree = self.daemon.cli_ok("image", "inspect", reference, "--tree")
        return {line.split("|")[0].removeprefix("./"): line for line in tree.splitlines()}

    def check_shape(self, tag, data):
        reply = self.daemon.import_archive(data)
        report = reply.json()["images"][0]
        self.assertEqual(report["ref"], tag)
        self.assertEqual([layer["reused"] for layer in report["layers"]].count(None), 0)
        paths = self.paths(tag)
        self.assertEqual(len(paths), len(EXPECTED_TREE.splitlines()), "\n".join(paths.values()))
        self.assertIn("usr/bin/tool", paths)
        self.assertNotIn("etc/drop", paths)
        self.assertNotIn("data/a", paths)
        sums = self.daemon.cli_ok("image", "inspect", tag, "--sums")
        self.assertIn(hashlib.sha256(b"keep\n").hexdigest() + "  ./etc/keep", sums)
        self.assertIn(hashlib.sha256(probe_binary()).hexdigest() + "  ./probe", sums)
        self.daemon.put("shape", {"image": tag, "mode": "exec"})
        self.assertEqual(self.daemon.call("shape", b"cat /etc/hard").text, "keep\n")

    def test_a_layer_of_very_many_empty_files(self):
        # Their inodes and names stay in the unpacker's memory limit until the disk has them.
        image = Image(["many:1"], [layer_of_empty_files(150_000)], PROBE_CONFIG)
        self.daemon.import_archive(archive.docker_archive([image]))
        self.daemon.api("DELETE", "/v1/images/many:1")

    def test_docker_25_archives(self):
        self.check_shape("shape25:1", archive.docker_archive([self.image("shape25:1")]))

    def test_docker_25_archives_with_gzip_layers(self):
        image = self.image("shape25z:1")
        self.check_shape("shape25z:1", archive.docker_archive([image], gzip_layers=True))

    def test_legacy_archives(self):
        self.check_shape("legacy:1", archive.legacy_archive([self.image("legacy:1")]))

    def test_archives_compressed_as_a_whole(self):
        plain = archive.legacy_archive([self.image("outer:1")])
        self.check_shape("outer:1", gzip.compress(plain, mtime=0))

    def test_oci_archives(self):
        data = archive.oci_archive([self.image("library/shapeoci:1")])
        reply = self.daemon.import_archive(data, query="?ref=shapeoci:1")
        self.assertEqual(reply.json()["images"][0]["ref"], "shapeoci:1")
        self.assertIn("usr/bin/tool", self.paths("shapeoci:1"))

    def test_a_repeated_layer_is_a_symlink_in_legacy_archives(self):
        empty = archive.layer([Entry("again", "dir", mode=0o755)])
        image = Image(["twice:1"], [base_layer(), empty, empty], PROBE_CONFIG)
        self.daemon.import_archive(archive.legacy_archive([image]))
        self.assertIn("again", self.paths("twice:1"))

    def test_two_images_in_one_archive(self):
        images = [self.image("multi-a:1"), image_of({"probe": probe_binary()}, "multi-b:1",
                                                    **PROBE_CONFIG)]
        reply = self.daemon.import_archive(archive.docker_archive(images))
        self.assertEqual(sorted(i["ref"] for i in reply.json()["images"]),
                         ["multi-a:1", "multi-b:1"])

    def test_the_body_may_come_in_chunks(self):
        data = archive.docker_archive([self.image("chunky:1")])
        blocks = (data[at:at + 777] for at in range(0, len(data), 777))
        reply = self.daemon.request("POST", "/v1/images", blocks, admin=True)
        self.assertIn(reply.status, (200, 201), repr(reply))

    def test_importing_again_reuses_every_layer(self):
        data = archive.docker_archive([self.image("again:1")])
        self.daemon.import_archive(data)
        reply = self.daemon.import_archive(data, expect=(200,))
        self.assertTrue(all(la["reused"] for la in reply.json()["images"][0]["layers"]))

    def test_images_share_layers_and_deleting_one_keeps_the_other(self):
        unique = archive.layer([Entry("unique", content=b"u")])
        shared = archive.layer([Entry("shared", content=b"s" * 5000),
                                Entry("probe", content=probe_binary(), mode=0o755)])
        one = Image(["share:one"], [shared, unique], PROBE_CONFIG)
        two = Image(["share:two"], [shared], PROBE_CONFIG)
        self.daemon.import_archive(archive.docker_archive([one]))
        reply = self.daemon.import_archive(archive.docker_archive([two]))
        self.assertTrue(reply.json()["images"][0]["layers"][0]["reused"])
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/share:one").status, 204)
        self.daemon.put("sharer", {"image": "share:two", "mode": "exec"})
        self.assertEqual(self.daemon.call("sharer", b"ls /").status, 200)
        self.assertNotIn("unique", self.daemon.call("sharer", b"ls /").text)

    def test_an_image_in_use_is_not_deleted(self):
        self.daemon.import_archive(archive.docker_archive([self.image("inuse:1")]))
        self.daemon.put("user", {"image": "inuse:1", "mode": "exec"})
        reply = self.daemon.api("DELETE", "/v1/images/inuse:1")
        self.assert_error(reply, 409, reply.json()["error"]["code"], "user")
        self.assertEqual(self.daemon.api("DELETE", "/v1/functions/user").status, 204)
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/inuse:1").status, 204)
        self.assertEqual(self.daemon.api("GET", "/v1/images/inuse:1").status, 404)

    def test_a_deleted_image_leaves_no_layer_on_disk(self):
        layers = self.daemon.data / "layers"
        before = sorted(p.name for p in layers.iterdir())
        image = image_of({"probe": probe_binary(), "only": b"here"}, "gone:1", **PROBE_CONFIG)
        self.daemon.import_archive(archive.docker_archive([image]))
        self.assertGreater(len(list(layers.iterdir())), len(before))
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/gone:1").status, 204)
        for _ in range(100):
            if sorted(p.name for p in layers.iterdir()) == before:
                break
            time.sleep(0.05)
        self.assertEqual(sorted(p.name for p in layers.iterdir()), before)

    def test_a_tag_that_moves_names_the_new_image(self):
        for content in (b"first", b"second"):
            image = image_of({"probe": probe_binary(), "f": content}, "moving:1", **PROBE_CONFIG)
            self.daemon.import_archive(archive.docker_archive([image]))
        sums = self.daemon.cli_ok("image", "inspect", "moving:1", "--sums")
        self.assertIn(hashlib.sha256(b"second").hexdigest(), sums)

    def begin_upload(self, length, data=b""):
        connection = self.daemon.connect(timeout=60)
        self.addCleanup(connection.close)
        connection.sendall(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                           + self.daemon.key.encode()
                           + b"\r\nContent-Length: %d\r\n\r\n" % length + data)
        return connection

    def spools(self):
        """Unnamed files the daemon or a helper of it has open in the data directory."""
        found = []
        for pid in self.daemon.processes():
            try:
                links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
            except OSError:
                continue
            found += [str(link) for link in links if str(link).startswith(str(self.daemon.data))
                      and str(link).endswith("(deleted)") and "#" in str(link)]
        return found

    def unpackers(self):
        return [pid for pid in self.daemon.processes() if "pulga-unpacker" in command_line(pid)]

    def test_an_interrupted_upload_leaves_nothing(self):
        image = image_of({"probe": probe_binary(), "f": b"x" * (2 << 20)}, "cut:1", **PROBE_CONFIG)
        data = archive.docker_archive([image])
        layers = Path(self.daemon.data) / "layers"
        before = sorted(p.name for p in layers.iterdir())
        for at in (0, 1, 600, 4096, len(data) // 3, len(data) // 2, len(data) - 1, len(data)):
            # Once everything has arrived the announced length still says that there is more.
            connection = self.begin_upload(len(data) + 1, data[:at])
            wait_until(self.unpackers, what="a job that reads the upload")
            connection.close()
            wait_until(lambda: not self.unpackers() and not self.spools(),
                       what="the end of the upload")
        self.assertEqual(self.daemon.api("GET", "/v1/images/cut:1").status, 404)
        wait_until(lambda: sorted(p.name for p in layers.iterdir()) == before,
                   what="the removal of what was unpacked")

    def test_layers_are_unpacked_while_the_rest_still_comes(self):
        image = image_of({"probe": probe_binary(), "f": b"early"}, "early:1", **PROBE_CONFIG)
        image.layers.append(archive.layer([Entry("late", content=b"y" * (1 << 20))]))
        with tarfile.open(fileobj=io.BytesIO(archive.docker_archive([image]))) as tar:
            members = [(m.name, tar.extractfile(m).read()) for m in tar if m.isfile()]
        # Documents, then layers, the late one last.
        members.sort(key=lambda m: (m[1][:1] not in (b"{", b"["), b"yyyy" in m[1]))
        data = archive.pack(members)
        layers = Path(self.daemon.data) / "layers"
        before = {p.name for p in layers.iterdir()}
        connection = self.begin_upload(len(data), data[:-(1 << 19)])
        wait_until(lambda: [name for name in {p.name for p in layers.iterdir()} - before
                            if not name.startswith(".")], what="the first layer")
        connection.sendall(data[-(1 << 19):])
        reply = connection.recv(4096)
        self.assertTrue(reply.startswith(b"HTTP/1.1 201"), reply)

    def test_a_stalled_upload_holds_up_nobody(self):
        stalled = self.begin_upload(1 << 20, b"")
        image = image_of({"probe": probe_binary()}, "quick:1", **PROBE_CONFIG)
        began = time.monotonic()
        self.daemon.import_archive(archive.docker_archive([image]))
        self.daemon.cli_ok("image", "inspect", "quick:1", "--tree")
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/quick:1").status, 204)
        self.assertLess(time.monotonic() - began, 10)
        stalled.close()

    def test_of_many_imports_of_one_image_one_brings_it(self):
        files = {"probe": probe_binary(), "f": b"m" * (4 << 20)}
        data = archive.docker_archive([image_of(files, "many:1", **PROBE_CONFIG)])
        layers = Path(self.daemon.data) / "layers"
        before = {p.name for p in layers.iterdir()}

        def upload(_):
            while True:
                reply = self.daemon.request("POST", "/v1/images", data, admin=True)
                if reply.status != 503:  # so many at once and no more
                    return reply.status
                time.sleep(0.05)
        self.assertEqual(sorted(in_parallel(8, upload)), [200] * 7 + [201])
        made = lambda: {p.name for p in layers.iterdir()} - before
        wait_until(lambda: len(made()) <= 1, what="what the others unpacked is gone")
        self.assertEqual(len(made()), 1)

    def test_what_is_no_archive_is_refused_while_it_still_comes(self):
        connection = self.begin_upload(100 << 20, b"this is text\n" * 100)
        reply = connection.recv(4096)
        self.assertTrue(reply.startswith(b"HTTP/1.1 415"), reply)

    def import_counted(self, data, during=None):
        """`pulga image import` of a file through a proxy: (bytes of each POST's body, stderr).
        `during`: called when the first one arrives."""
        counts = []
        with tempfile.NamedTemporaryFile(suffix=".tar") as file, Relay(self.daemon) as relay:
            file.write(data)
            file.flush()
            relay.during = during
            done = self.daemon.cli("image", "import", file.name,
                                   env={"PULGA_URL": f"http://127.0.0.1:{relay.port}"})
            counts = relay.posts
        self.assertEqual(done.returncode, 0, done.stderr)
        return counts, done.stderr.decode()

    def fifteen_layers(self, tag, last):
        series = tag.split(":")[0]  # its own layers: those of other tests may be here
        layers = [archive.layer([Entry(f"{series}-{n}", content=bytes([n]) * 200_000)])
                  for n in range(14)]
        return Image([tag], [*layers, archive.layer([Entry("last", content=last * 200_000)])],
                     PROBE_CONFIG)

    def test_layers_that_are_here_are_not_sent(self):
        first = archive.docker_archive([self.fifteen_layers("parts:1", b"1")])
        second = archive.docker_archive([self.fifteen_layers("parts:2", b"2")])
        self.assertEqual(self.import_counted(first)[0], [len(first)])
        self.assertLess(sum(self.import_counted(first)[0]), 100_000)
        counts, _ = self.import_counted(second)
        self.assertEqual(len(counts), 1)
        self.assertLess(counts[0], 300_000)
        skipped = self.daemon.cli_ok("image", "inspect", "parts:2", "--sums")
        digest = self.daemon.api("GET", "/v1/images/parts:2").json()["digest"]
        for tag in ("parts:1", "parts:2"):
            self.assertEqual(self.daemon.api("DELETE", f"/v1/images/{tag}").status, 204)
        self.daemon.import_archive(second)
        self.assertEqual(self.daemon.cli_ok("image", "inspect", "parts:2", "--sums"), skipped)
        self.assertEqual(self.daemon.api("GET", "/v1/images/parts:2").json()["digest"], digest)

    def test_a_layer_that_is_gone_is_sent_after_all(self):
        data = archive.docker_archive([self.fifteen_layers("vanish:1", b"v")])
        self.daemon.import_archive(data)

        def remove():
            self.assertEqual(self.daemon.api("DELETE", "/v1/images/vanish:1").status, 204)
        counts, errors = self.import_counted(data, remove)
        self.assertEqual(len(counts), 2)
        self.assertLess(counts[0], 100_000)
        self.assertEqual(counts[1], len(data))
        self.assertIn("sending all of it", errors)
        self.assertIn("last", self.paths("vanish:1"))

    def test_a_layer_on_other_parents_is_sent(self):
        one = self.fifteen_layers("upright:1", b"p")
        self.daemon.import_archive(archive.docker_archive([one]))
        turned = Image(["turned:1"], [one.layers[0], *one.layers[:0:-1]], PROBE_CONFIG)
        data = archive.docker_archive([turned])
        counts, _ = self.import_counted(data)
        self.assertEqual(counts[1:], [len(data)])
        self.assertIn("last", self.paths("turned:1"))

    def test_a_sparse_archive_is_refused_unless_said_so(self):
        image = self.image("sparse:1")
        data = archive.docker_archive([image])
        self.daemon.import_archive(data)
        left_out = hashlib.sha256(image.layers[0]).hexdigest()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            sparse = archive.pack([(m.name, tar.extractfile(m).read()) for m in tar
                                   if m.isfile() and left_out not in m.name])
        self.assertLess(len(sparse), len(data))
        refused = self.daemon.request("POST", "/v1/images", sparse, admin=True)
        self.assert_error(refused, 422, "bad_image", "layer 1")
        self.daemon.import_archive(sparse, query="?skipped=1", expect=(200,))
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/sparse:1").status, 204)
        other = self.image("sparse:1")
        other.layers[0] = archive.layer([Entry("nowhere", content=b"n")])
        data = archive.docker_archive([other])
        left_out = hashlib.sha256(other.layers[0]).hexdigest()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            sparse = archive.pack([(m.name, tar.extractfile(m).read()) for m in tar
                                   if m.isfile() and left_out not in m.name])
        gone = self.daemon.request("POST", "/v1/images?skipped=1", sparse, admin=True)
        self.assert_error(gone, 412, "layer_gone", "send the whole archive")

    def test_a_large_import_stays_small_in_memory(self):
        size = 300 << 20
        content = b"\0" * (1 << 20) * 300
        image = image_of({"probe": probe_binary(), "big": content}, "big:1", **PROBE_CONFIG)
        data = archive.docker_archive([image])
        with memory_guard(self.daemon) as peak:
            self.daemon.import_archive(data)
        self.assertLess(peak.kib, 32 << 10, f"{size >> 20} MiB image: {peak.worst}")
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/big:1").status, 204)


class Recipes(unittest.TestCase):
    """What rootfs/make-image writes is what other tools read."""

    def setUp(self):
        skip_unless(shutil.which("skopeo"), "needs skopeo, the second reader of archives")
        self.temp = tempfile.TemporaryDirectory(prefix="pulga-recipes-")
        self.addCleanup(self.temp.cleanup)

    def make(self, *options):
        output = Path(self.temp.name) / "made.tar"
        subprocess.run([ROOT / "rootfs/make-image", "--output", output, "--tag", "made:1",
                        "--file", f"{__file__}:/opt/self:644", "--file", "/bin/true:/bin/true",
                        "--entrypoint", "/bin/true", "--layers", "2", *options], check=True)
        return output

    def skopeo(self, transport, path):
        done = subprocess.run(["skopeo", "inspect", "--config", f"{transport}:{path}"],
                              capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode()

    def test_skopeo_reads_every_layout(self):
        for options, transport in (((), "docker-archive"), (("--legacy",), "docker-archive"),
                                   (("--oci",), "oci-archive")):
            config = self.skopeo(transport, self.make(*options))
            self.assertIn('"/bin/true"', config)
            self.assertEqual(config.count("sha256:"), 2)

    def test_the_sample_images_are_readable(self):
        for name in ("hello", "echo", "http-hello", "probe"):
            self.skopeo("docker-archive", IMAGES / (name + ".tar"))

    def test_the_same_input_gives_the_same_bytes(self):
        first = self.make().read_bytes()
        self.assertEqual(first, self.make().read_bytes())


if __name__ == "__main__":
    unittest.main()
