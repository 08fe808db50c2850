"""pulga import --faasd: functions, images and secrets out of the files a faasd leaves."""

import gzip
import hashlib
import json
import shutil
import struct
import tempfile
import unittest
from pathlib import Path

from harness import Case, probe_binary
from harness import image_archive as archive
from image_archive import Entry

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
SPEC = b"types.containerd.io/opencontainers/runtime-spec/1/Spec"
IMAGE = "docker.io/library/probe:7"
SECRET = b"\0three\n bytes and more\xff"


def leaf(tree):
    """A page of bbolt with all of a dict: bytes are values, dicts are buckets within it."""
    entries = [(key.encode(), value if isinstance(value, bytes) else bytes(16) + leaf(value),
                not isinstance(value, bytes)) for key, value in sorted(tree.items())]
    index, data = b"", b""
    for number, (key, value, is_bucket) in enumerate(entries):
        index += struct.pack("<IIII", is_bucket, (len(entries) - number) * 16 + len(data),
                             len(key), len(value))
        data += key + value
    return struct.pack("<QHHI", 0, 2, len(entries), 0) + index + data


def database(tree):
    page = bytearray(leaf(tree))
    page[12:16] = struct.pack("<I", -(-len(page) // 4096) - 1)
    metas = b""
    for number in range(2):
        meta = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, 4096, 0, 3, 0, 2, 4, number)
        total = 0xcbf29ce484222325
        for byte in meta:
            total = (total ^ byte) * 0x100000001b3 % 2**64
        metas += (struct.pack("<QHHI", number, 4, 0, 0) + meta
                  + struct.pack("<Q", total)).ljust(4096, b"\0")
    free = struct.pack("<QHHI", 2, 16, 0, 0).ljust(4096, b"\0")
    return metas + free + bytes(page) + bytes(-len(page) % 4096)


def any_of(spec):
    def field(tag, value):
        size, out = len(value), b""
        while size > 127:
            out, size = out + bytes([size & 127 | 128]), size >> 7
        return tag + out + bytes([size]) + value
    return field(b"\x0a", SPEC) + field(b"\x12", json.dumps(spec).encode())


def container(image, env, secrets=("api-key",), **labels):
    return {"image": image.encode(), "createdat": b"\x01",
            "labels": {name: value.encode() for name, value in labels.items()},
            "spec": any_of({
                "process": {"args": ["/probe"], "env": env},
                "mounts": [{"destination": f"/var/openfaas/secrets/{name}", "type": "bind"}
                           for name in secrets],
                "linux": {"resources": {"memory": {"limit": 33554432}}}})}


class Store:
    """The tree below / of a board with a faasd."""

    def __init__(self, root):
        self.root = Path(root)
        self.blobs = self.root / "var/lib/containerd/io.containerd.content.v1.content/blobs/sha256"
        self.blobs.mkdir(parents=True)
        secrets = self.root / "var/lib/faasd-provider/secrets/openfaas-fn"
        secrets.mkdir(parents=True)
        (secrets / "api-key").write_bytes(SECRET)

    def blob(self, data):
        name = hashlib.sha256(data).hexdigest()
        (self.blobs / name).write_bytes(data)
        return {"digest": "sha256:" + name, "size": len(data)}

    def image(self):
        layer = archive.layer([Entry("probe", content=probe_binary(), mode=0o755)])
        config = self.blob(json.dumps({
            "architecture": archive.OWN_ARCHITECTURE, "os": "linux",
            "config": {"Entrypoint": ["/probe"], "Env": ["PATH=/bin", "FROM=image"]},
            "rootfs": {"type": "layers",
                       "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}).encode())
        packed = self.blob(gzip.compress(layer, mtime=0))
        kind = "application/vnd.docker."
        manifest = self.blob(json.dumps({
            "schemaVersion": 2, "mediaType": DOCKER,
            "config": {"mediaType": kind + "container.image.v1+json", **config},
            "layers": [{"mediaType": kind + "image.rootfs.diff.tar.gzip", **packed}]}).encode())
        absent = {"digest": "sha256:" + "0" * 64, "size": 7}
        index = self.blob(json.dumps({"schemaVersion": 2, "manifests": [
            {"mediaType": DOCKER, **absent, "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": DOCKER, **manifest}]}).encode())
        return {"target": {"digest": index["digest"].encode(), "mediatype": b"x"}}

    def save(self, tree):
        path = self.root / "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(database({"v1": tree, "version": b"\x03"}))


class ImportFaasd(Case):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="pulga-faasd-")
        self.addCleanup(shutil.rmtree, self.root)
        self.store = Store(self.root)
        image = self.store.image()
        note = {"com.openfaas.annotations.topic": "greetings"}
        self.store.save({
            "openfaas": {"containers": {"gateway": container("docker.io/x/gateway:1", [])}},
            "openfaas-fn": {
                "images": {IMAGE: image},
                "containers": {
                    "hello": container(IMAGE, ["PATH=/bin", "FROM=image", "WHO=me",
                                               "fprocess=/probe"], tier="gold", **note),
                    "lost": container("docker.io/library/lost:1", []),
                    "odd": {"image": b"x"}}},
            "staging": {"labels": {"openfaas": b"1"}, "images": {IMAGE: image},
                        "containers": {"hello": container(IMAGE, ["WHO=staging"], ())}}})

    def tearDown(self):
        for name, space in (("hello", "openfaas-fn"), ("hello", "staging")):
            self.daemon.request("DELETE", "/system/functions", json.dumps(
                {"functionName": name, "namespace": space}), admin=True)
        super().tearDown()

    def run_import(self, *flags):
        done = self.daemon.cli("import", "--faasd", self.root, *flags)
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    def function(self, name, space="openfaas-fn"):
        reply = self.daemon.request("GET", f"/system/function/{name}?namespace={space}", admin=True)
        return json.loads(reply.text) if reply.status == 200 else None

    def test_functions_images_and_secrets_come_along(self):
        code, told = self.run_import("--dry-run")
        self.assertEqual(code, 1, "one of them is damaged")
        for line in ("secret api-key.openfaas-fn: would be kept",
                     f"image {IMAGE}: would be imported",
                     "function hello.openfaas-fn: would be deployed",
                     "namespace staging: would be"):
            self.assertIn(line, told)
        self.assertIsNone(self.function("hello"))

        code, told = self.run_import()
        self.assertEqual(code, 1)
        self.assertIn("odd.openfaas-fn", told)
        self.assertIn("image docker.io/library/lost:1: to be pulled", told)
        self.assertIn("function lost.openfaas-fn: failed", told)
        self.assertNotIn("gateway", told)
        self.assertNotIn("three", told)
        found = self.function("hello")
        self.assertEqual(found["image"], IMAGE)
        self.assertEqual(found["envProcess"], "/probe")
        self.assertEqual(found["envVars"], {"WHO": "me"})
        self.assertEqual(found["annotations"], {"topic": "greetings"})
        self.assertEqual(found["labels"]["tier"], "gold")
        self.assertEqual(found["limits"]["memory"], "32Mi")
        self.assertEqual(found["secrets"], ["api-key"])
        self.assertEqual(self.function("hello", "staging")["envVars"]["WHO"], "staging")

    def test_what_a_run_will_refuse_a_dry_one_tells(self):
        scale = {"com.openfaas.scale.min": "abc"}
        unlimited = container(IMAGE, [], ())
        unlimited["spec"] = any_of({"process": {"args": ["/probe"], "env": []}})
        self.store.save({
            "openfaas-fn": {"images": {IMAGE: self.store.image()},
                            "containers": {"my_fun": container(IMAGE, [], ()),
                                           "scaled": container(IMAGE, [], (), **scale),
                                           "hello": unlimited}},
            "staging": {"labels": {"openfaas": b"1", "owner": b"me"}}})
        for flags, outcome in ((("--dry-run",), "would be deployed"), ((), "deployed")):
            code, told = self.run_import(*flags)
            self.assertEqual(code, 1, told)
            self.assertIn('function my_fun.openfaas-fn: failed ("my_fun" is no function name', told)
            self.assertIn("function scaled.openfaas-fn: failed", told)
            self.assertIn("function hello.openfaas-fn: note (it had no memory limit", told)
            self.assertIn(f"function hello.openfaas-fn: {outcome}\n", told)
            self.assertIn("namespace staging: note (its labels and annotations are not", told)
            self.assertIn("owner=me", told)

    def test_what_is_there_stays_unless_told_otherwise(self):
        self.run_import()
        secrets = self.store.root / "var/lib/faasd-provider/secrets/openfaas-fn"
        (secrets / "api-key").write_bytes(b"new")
        _, told = self.run_import()
        self.assertIn("function hello.openfaas-fn: left alone", told)
        self.assertIn("secret api-key.openfaas-fn: left alone", told)
        _, told = self.run_import("--replace")
        self.assertIn("function hello.openfaas-fn: replaced", told)
        self.assertIn("secret api-key.openfaas-fn: replaced", told)

    def test_no_faasd_and_bad_words(self):
        done = self.daemon.cli("import", "--faasd", "/nowhere")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"no faasd below /nowhere", done.stderr)
        self.assertEqual(self.daemon.cli("import", "x.tar").returncode, 2)
        path = self.store.root / "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db"
        path.write_bytes(b"x" * 9000)
        code, told = self.run_import()
        self.assertEqual(code, 1)
        self.assertIn("no database of bbolt", told)


if __name__ == "__main__":
    unittest.main()
