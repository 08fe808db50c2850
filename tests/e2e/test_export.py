"""Export: an image leaves as an archive that everybody reads, and comes back as the same image."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
from pathlib import Path

import registry_rig
from harness import image_archive as archive
from harness import (Case, Daemon, ROOT, image_of, memory_guard, probe_binary, skip_unless,
                     wait_until)
from image_archive import Entry, Image

sys.path.insert(0, str(ROOT / "tests/formats"))

CONFIG = {"Entrypoint": ["/probe"], "Env": ["A=1"], "Labels": {"who": "nobody"}}


def sha(data):
    return hashlib.sha256(data).hexdigest()


def noise(size, seed):
    return hashlib.shake_128(str(seed).encode()).digest(size)


def base_layer():
    return archive.layer([
        Entry("etc", "dir", mode=0o755), Entry("etc/keep", content=b"keep\n"),
        Entry("etc/drop", content=b"drop\n"), Entry("data", "dir", mode=0o700, uid=5, gid=6),
        Entry("data/a", content=noise(100_000, 1), pax={"SCHILY.xattr.user.colour": "red"}),
        Entry("usr", "dir", mode=0o755), Entry("usr/bin", "dir", mode=0o755),
        Entry("bin", "symlink", mode=0o777, link="usr/bin"),
        Entry("probe", content=probe_binary(), mode=0o755), Entry("pipe", "fifo", mode=0o600),
        Entry("dev/null", "char", mode=0o666), Entry("x" * 90 + "/" + "y" * 90, content=b"long")])


def top_layer():
    return archive.layer([
        Entry("etc/.wh.drop"), Entry("data/.wh..wh..opq"), Entry("data/c", content=b"c"),
        Entry("bin/tool", content=noise(70_000, 2), mode=0o4755),
        Entry("etc/hard", "hardlink", link="etc/keep")])


def awkward_layer():
    """Members that come twice, a directory that becomes a file, bytes behind the end."""
    return archive.layer([
        Entry("twice", content=b"first " * 1000), Entry("d", "dir", mode=0o755),
        Entry("d/gone", content=noise(5000, 3)), Entry("twice", content=b"second"),
        Entry("d", content=b"a file now"), Entry("empty")]) + noise(3000, 4)


def sparse_layer():
    """As GNU tar writes a file with a hole."""
    with tempfile.TemporaryDirectory(prefix="pulga-sparse-") as folder:
        with open(Path(folder) / "holes", "wb") as file:
            file.seek(1 << 20)
            file.write(noise(5000, 5))
            file.truncate(3 << 20)
        return subprocess.run(["tar", "--sparse", "--format=posix", "--owner=0", "--group=0",
                               "-C", folder, "-c", "holes"], capture_output=True,
                              check=True).stdout


def sample_image():
    return Image(["sample:1.2"], [base_layer(), top_layer(), awkward_layer(),
                                       sparse_layer(), base_layer()], CONFIG)


def members_of(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar if m.isfile()]


class Export(Case):
    """Everything that needs no other tool."""

    @classmethod
    def prepare(cls):
        cls.image = sample_image()
        cls.daemon.import_archive(archive.docker_archive([cls.image]), query="?ref=team/sample:1.2")
        cls.digest = "sha256:" + sha(cls.image.config_bytes())

    def export(self, name="team/sample:1.2", daemon=None):
        reply = (daemon or self.daemon).api("GET", f"/v1/images/{name}/export")
        self.assertEqual(reply.status, 200, repr(reply))
        self.assertEqual(int(reply.headers["content-length"]), len(reply.body))
        return reply.body

    def test_every_layer_has_its_own_bytes_again(self):
        blobs = {sha(content): content for _, content in members_of(self.export())}
        for number, layer in enumerate(self.image.layers):
            self.assertTrue(blobs.get(sha(layer)) == layer, f"layer {number}")

    def test_the_documents_come_first(self):
        names = [name for name, _ in members_of(self.export())]
        self.assertEqual(names[:3], ["oci-layout", "index.json", "manifest.json"])
        self.assertEqual(names[4], "blobs/sha256/" + self.digest[7:])
        self.assertEqual(len(names), len(set(names)), "a layer that comes twice is one blob")

    def test_the_same_image_gives_the_same_bytes(self):
        self.assertTrue(self.export() == self.export())

    def test_by_digest_it_carries_no_name(self):
        members = dict(members_of(self.export(self.digest)))
        self.assertIsNone(json.loads(members["manifest.json"])[0]["RepoTags"])
        members = dict(members_of(self.export()))
        self.assertEqual(json.loads(members["manifest.json"])[0]["RepoTags"], ["team/sample:1.2"])

    def test_of_several_names_it_carries_the_one_asked_for(self):
        again = archive.docker_archive([self.image])
        self.daemon.import_archive(again, query="?ref=other/name:2")
        self.addCleanup(self.daemon.api, "DELETE", "/v1/images/other/name:2")
        plain = dict(members_of(self.export()))
        for name in ("team/sample:1.2", "other/name:2"):
            members = dict(members_of(self.export(name)))
            self.assertEqual(json.loads(members["manifest.json"])[0]["RepoTags"], [name])
            index = json.loads(members["index.json"])["manifests"][0]["annotations"]
            self.assertTrue(any(name in value for value in index.values()), index)
            blobs = {key for key in members if key.startswith("blobs/")}
            self.assertEqual(blobs, {key for key in plain if key.startswith("blobs/")})

    def test_another_pulga_makes_the_same_image_of_it(self):
        data = self.export()
        with Daemon() as other:
            reply = other.import_archive(data)
            self.assertEqual(reply.json()["images"][0]["ref"], "team/sample:1.2")
            self.assertEqual(reply.json()["images"][0]["digest"], self.digest)
            for view in ("--tree", "--sums"):
                self.assertEqual(other.cli_ok("image", "inspect", self.digest, view),
                                 self.daemon.cli_ok("image", "inspect", self.digest, view))
            self.assertTrue(self.export(daemon=other) == data, "and the same archive again")

    def test_the_command_writes_a_file_or_stdout(self):
        whole = self.export()
        file = self.daemon.temp / "out.tar"
        said = self.daemon.cli_ok("image", "export", "team/sample:1.2", "-o", str(file))
        self.assertIn("exported team/sample:1.2", said)
        self.assertTrue(file.read_bytes() == whole)
        done = self.daemon.cli("image", "export", "team/sample:1.2", "-o", "-")
        self.assertEqual((done.returncode, done.stdout == whole), (0, True), done.stderr)
        said = self.daemon.cli_ok("image", "export", "team/sample:1.2", "-o", str(file), "--json")
        self.assertEqual(json.loads(said), {"file": str(file), "bytes": len(whole)})

    def test_refusals_leave_no_file(self):
        file = self.daemon.temp / "none.tar"
        done = self.daemon.cli("image", "export", "nobody:1", "-o", str(file))
        self.assertEqual(done.returncode, 1, done)
        self.assertIn(b"nobody:1 is not here", done.stderr)
        self.assertEqual(self.daemon.cli("image", "export", "nobody:1").returncode, 2)
        self.assertEqual([p.name for p in self.daemon.temp.glob("none*")], [])

    def test_who_leaves_ends_the_unpacker_and_lets_go_of_the_image(self):
        big = image_of({"probe": probe_binary(), "big": noise(32 << 20, 6)}, "leaver:1", **CONFIG)
        self.daemon.import_archive(archive.docker_archive([big]))
        with self.daemon.connect() as client:
            client.sendall(b"GET /v1/images/leaver:1/export HTTP/1.1\r\nHost: x\r\n"
                           b"Authorization: Bearer " + self.daemon.key.encode() + b"\r\n\r\n")
            client.recv(1000)
            wait_until(lambda: self.daemon.process_named("pulga-unpacker"), 30, "an unpacker")
            refused = self.daemon.api("DELETE", "/v1/images/leaver:1")
            self.assert_error(refused, 409, "image_in_use", "an export")
        wait_until(lambda: not self.daemon.process_named("pulga-unpacker"), 30,
                   "the unpacker is gone")
        wait_until(lambda: self.daemon.api("DELETE", "/v1/images/leaver:1").status == 204, 30,
                   "the image can go")

    def test_a_large_image_stays_small_in_memory_even_when_read_slowly(self):
        big = image_of({"probe": probe_binary(), "big": b"\0" * (200 << 20)}, "big:1", **CONFIG)
        self.daemon.import_archive(archive.docker_archive([big]))
        received = 0
        with memory_guard(self.daemon) as peak, self.daemon.connect() as client:
            client.sendall(b"GET /v1/images/big:1/export HTTP/1.1\r\nHost: x\r\n"
                           b"Connection: close\r\n"
                           b"Authorization: Bearer " + self.daemon.key.encode() + b"\r\n\r\n")
            time.sleep(1)
            while block := client.recv(1 << 20):
                received += len(block)
        self.assertGreater(received, 200 << 20)
        self.assertLess(peak.kib, 32 << 10, peak.worst)
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/big:1").status, 204)

    def test_a_damaged_layer_breaks_the_archive_off(self):
        image = image_of({"probe": probe_binary(), "f": noise(300_000, 7)}, "broken:1", **CONFIG)
        self.daemon.import_archive(archive.docker_archive([image]))
        layer = self.daemon.api("GET", "/v1/images/broken:1").json()["layers"][0]["chain_id"][7:]
        with open(self.daemon.data / "layers" / layer / "f", "r+b") as file:
            file.seek(150_000)
            file.write(b"?")
        file = self.daemon.temp / "broken.tar"
        done = self.daemon.cli("image", "export", "broken:1", "-o", str(file))
        self.assertEqual(done.returncode, 1, done)
        self.assertIn(b"broke off", done.stderr)
        self.assertEqual([p.name for p in self.daemon.temp.glob("broken*")], [])
        self.assertIn("not what was imported: f: content", self.daemon.log())
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/broken:1").status, 204)


def compressed_by_skopeo(image, temp):
    skip_unless(shutil.which("skopeo"), "needs skopeo")
    source, target = temp / "plain.tar", temp / "zstd.tar"
    source.write_bytes(archive.docker_archive([image]))
    subprocess.run(["skopeo", "copy", "--quiet", "--dest-compress", "--dest-compress-format",
                    "zstd", f"docker-archive:{source}", f"oci-archive:{target}"], check=True)
    with tarfile.open(target) as tar:
        heads = [tar.extractfile(m).read(4) for m in tar if m.isfile()]
    assert b"\x28\xb5\x2f\xfd" in heads, "no layer is zstd"
    return target.read_bytes()


class OtherTools(unittest.TestCase):
    """docker load, podman load and skopeo take what we write, wherever the image came from, and see
    the same image in it."""

    @classmethod
    def setUpClass(cls):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        # Without the layer that others refuse as such: "duplicates of file paths".
        cls.image = Image(["sample:1.2"], [base_layer(), top_layer(), sparse_layer(),
                                           base_layer()], CONFIG)
        cls.digest = "sha256:" + sha(cls.image.config_bytes())
        cls.temp = Path(tempfile.mkdtemp(prefix="pulga-export-"))
        cls.addClassCleanup(shutil.rmtree, cls.temp, ignore_errors=True)
        cls.file = cls.temp / "sample.tar"
        registry_rig.need_registry()
        with registry_rig.Registry() as registry, \
                Daemon("--plain-http-registries", registry.name) as daemon:
            daemon.import_archive(archive.docker_archive([cls.image]), query="?ref=team/sample:1.2")
            daemon.cli_ok("image", "export", "team/sample:1.2", "-o", str(cls.file))
            cls.exports = [("docker save", "team/sample:1.2", cls.digest, cls.image, cls.file)]
            cls.export_from_everywhere(daemon, registry)

    @classmethod
    def export_from_everywhere(cls, daemon, registry):
        """One image of each origin: they differ by a file, so that no layer is there before."""
        makers = {"gzip in docker save": lambda i: archive.docker_archive([i], True),
                  "oci": lambda i: archive.oci_archive([i], False),
                  "gzip in oci": lambda i: archive.oci_archive([i]),
                  "legacy": lambda i: archive.legacy_archive([i]),
                  "zstd": lambda i: compressed_by_skopeo(i, cls.temp)}
        for number, (origin, make) in enumerate(makers.items()):
            image, ref = cls.variant(origin), f"team/origin{number}:1"
            daemon.import_archive(make(image), query="?ref=" + ref)
            cls.export_as(daemon, origin, ref, image)
        image, ref = cls.variant("registry"), f"{registry.name}/team/pulled:1"
        registry.push("team/pulled", "1", image)
        daemon.cli_ok("image", "pull", ref)
        cls.export_as(daemon, "registry", ref, image)

    @classmethod
    def variant(cls, origin):
        first = archive.layer([Entry("origin", content=origin.encode()),
                               Entry("usr", "dir", mode=0o755)])
        return Image(["x:1"], [first, base_layer(), top_layer(), first], CONFIG)

    @classmethod
    def export_as(cls, daemon, origin, ref, image):
        file = cls.temp / f"export{len(cls.exports)}.tar"
        daemon.cli_ok("image", "export", ref, "-o", str(file))
        digest = daemon.api("GET", "/v1/images/" + ref).json()["digest"]
        # skopeo writes the configuration anew where it compresses.
        assert origin == "zstd" or digest == "sha256:" + sha(image.config_bytes()), origin
        cls.exports.append((origin, ref, digest, image, file))

    def each(self, check):
        """`check` gets every export's reference, ImageID, diff-ids and file."""
        for origin, ref, digest, image, file in self.exports:
            with self.subTest(origin):
                check(ref, digest, ["sha256:" + sha(layer) for layer in image.layers], file)

    def run_tool(self, *words):
        skip_unless(shutil.which(words[0]), f"needs {words[0]}")
        done = subprocess.run([str(w) for w in words], capture_output=True, check=False)
        self.assertEqual(done.returncode, 0, (words, done.stderr.decode()))
        return done.stdout.decode()

    def check_copy(self, source, digest, layers):
        with tempfile.TemporaryDirectory(dir=self.temp) as folder:
            self.run_tool("skopeo", "copy", source, f"dir:{folder}")
            manifest = json.loads((Path(folder) / "manifest.json").read_text())
        self.assertEqual(manifest["config"]["digest"], digest)
        self.assertEqual([layer["digest"] for layer in manifest["layers"]], layers)

    def test_skopeo_reads_it_as_docker_archive(self):
        self.each(lambda ref, digest, layers, file: self.check_copy(
            f"docker-archive:{file}:{ref}", digest, layers))

    def test_skopeo_reads_it_as_oci_archive(self):
        self.each(lambda _, digest, layers, file: self.check_copy(
            f"oci-archive:{file}", digest, layers))

    def test_podman_loads_it(self):
        podman = ["podman", "--root", self.temp / "podman", "--runroot", self.temp / "podman-run",
                  "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend",
                  "none"]
        def check(ref, digest, layers, file):
            self.assertIn(ref, self.run_tool(*podman, "load", "-i", file))
            known = json.loads(self.run_tool(*podman, "inspect", "--type", "image", ref))[0]
            self.assertEqual("sha256:" + known["Id"], digest)
            self.assertEqual(known["RootFS"]["Layers"], layers)
        self.each(check)

    def test_docker_loads_it(self):
        skip_unless(shutil.which("docker") and shutil.which("dockerd"), "needs docker and dockerd")
        from make_archives import PrivateDocker  # pylint: disable=import-outside-toplevel
        folder = self.temp / "docker-home"
        folder.mkdir()
        with PrivateDocker(folder) as docker:
            def check(ref, digest, layers, file):
                self.assertIn(ref, docker("load", "-i", str(file)))
                self.assertEqual(docker("inspect", "-f", "{{.Id}}", ref), digest)
                known = docker("inspect", "-f", "{{json .RootFS.Layers}}", ref)
                self.assertEqual(json.loads(known), layers)
            self.each(check)


if __name__ == "__main__":
    unittest.main()
