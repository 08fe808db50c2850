"""Images made to do harm, through the daemon. Every case ends with the same questions: is the
canary beside the data directory as it was, is nothing left on disk, in cgroups or mounted, does a
good function still answer, did the daemon stay small, was the answer quick and fit to be read?

The numbers are those of tests/hostile-images.md, which names the tests of the other tiers too.
"""

import bz2
import gzip
import io
import itertools
import json
import lzma
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import unittest
from pathlib import Path

from harness import image_archive as archive
import leaks
from harness import (SANITIZED, Case, Daemon, IMAGES, image_of, in_parallel, probe_binary,
                     raw_exchange, skip_unless, status_of, wait_until)
from image_archive import Entry, Image

SECRET = b"not for images\n"
PATIENCE = 10 if SANITIZED else 1  # nothing is measured here, but a bomb must not take minutes
KINDS = ("processes", "zombies", "cgroups", "fds: ", "data_files")


def with_layer(blob, tar):
    """An archive of one image whose only layer is `blob`, though it promises `tar`."""
    image = Image(["z:1"], [tar], {})
    return archive.pack([
        ("c.json", image.config_bytes()), ("l", blob),
        ("manifest.json", json.dumps([{"Config": "c.json", "Layers": ["l"]}]).encode())])


class Hostile(Case):
    """The common oracle."""

    own_mounts = 0

    @classmethod
    def prepare(cls):
        cls.daemon.import_archive((IMAGES / "probe.tar").read_bytes())
        cls.daemon.put("good", {"image": "probe:1", "mode": "exec"})
        cls.daemon.call("good", b"say first")
        cls.canary = cls.daemon.temp / "canary"
        cls.canary.mkdir(mode=0o755)
        (cls.canary / "secret").write_bytes(SECRET)
        (cls.canary / "secret").chmod(0o640)
        cls.before = leaks.quiet_snapshot(cls.daemon)
        cls.pids = leaks.named_pids(cls.daemon)
        cls.outside = cls.files_outside()
        cls.kib = cls.memory()
        cls.untouched = cls.canary_state()

    @classmethod
    def files_outside(cls):
        """Beside the data directory: who may write there would be found out here."""
        return [(str(path), path.lstat().st_mtime_ns) for path in sorted(cls.daemon.temp.iterdir())
                if path not in (cls.daemon.data, cls.daemon.log_path)]

    @classmethod
    def canary_state(cls):
        found = []
        for path in [cls.canary, *sorted(cls.canary.rglob("*"))]:
            info = path.lstat()
            found.append((str(path), info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns))
        return found, (cls.canary / "secret").read_bytes()

    @classmethod
    def memory(cls):
        return int(status_of(cls.daemon.daemon_pid())["VmRSS"].split()[0])

    def setUp(self):
        self.names = []

    def tearDown(self):
        super().tearDown()
        for name in self.names:
            self.daemon.api("DELETE", "/v1/functions/" + name)
        for image in self.daemon.api("GET", "/v1/images").json()["images"]:
            if "probe:1" not in image.get("refs", []) and image.get("ref") != "probe:1":
                self.daemon.api("DELETE", "/v1/images/" + image["digest"])
        self.assertEqual(self.canary_state(), self.untouched, "the canary was touched")
        self.assertEqual(self.files_outside(), self.outside, "something beside the data changed")
        self.assertEqual(leaks.named_pids(self.daemon), self.pids, "something was restarted")
        self.assertEqual(self.daemon.call("good", b"say alive").text, "alive\n")
        wait_until(lambda: not self.left(), 20, lambda: self.left())
        if not SANITIZED:
            self.assertLess(self.memory() - self.kib, 64 << 10, "the daemon grew")

    def left(self):
        try:
            now = leaks.Snapshot(self.daemon)
        except FileNotFoundError as gone:  # while it was looked at
            return [str(gone)]
        found = [line for line in self.before.differences(now) if line.startswith(KINDS)]
        if now.launcher_mounts > self.before.launcher_mounts + 1:
            found.append(f"launcher_mounts: {self.before.launcher_mounts}, {now.launcher_mounts}")
        for kind in ("user", "pid", "net"):  # of the others the launcher keeps a spare one or none
            if self.before.namespaces[kind] != now.namespaces[kind]:
                found.append(f"{kind} namespaces: {self.before.namespaces} then {now.namespaces}")
        mounts = Path("/proc/self/mountinfo").read_text()
        if mounts.count(str(self.daemon.temp)) > self.own_mounts:
            found.append("a mount below the daemon's directory")
        return found

    def send(self, data, query=""):
        return self.daemon.request("POST", "/v1/images" + query, data, None, 300, True)

    def refused(self, data, *statuses, seconds=10):
        """The message of a refusal: quick, with a code, without a path of the host."""
        started = time.monotonic()
        reply = self.send(data)
        self.assertLess(time.monotonic() - started, seconds * PATIENCE)
        self.assertIn(reply.status, statuses or (400, 413, 415, 422), repr(reply))
        error = reply.json()["error"]
        self.assertRegex(error["code"], "^[a-z_]+$")
        self.assertNotIn(str(self.daemon.temp), reply.text)
        self.assertFalse(any(ord(c) < 0x20 or ord(c) == 0x7f for c in error["message"]))
        return error["message"]

    def taken(self, data):
        """Accepted or refused, but answered well; the reply."""
        reply = self.send(data)
        self.assertIn(reply.status, (200, 201, 413, 422), repr(reply))
        return reply

    def image(self, name, entries=(), probe="probe", **config):
        entries = [*entries, Entry(probe, content=probe_binary(), mode=0o755)]
        return Image([name + ":1"], [archive.layer(entries)], {"Entrypoint": ["/probe"], **config})

    def deploy(self, name, entries=(), **config):
        """The reply of the PUT; the image was accepted."""
        reply = self.send(archive.docker_archive([self.image(name, entries, **config)]))
        self.assertIn(reply.status, (200, 201), repr(reply))
        self.names.append(name)
        return self.daemon.api("PUT", "/v1/functions/" + name, {"image": name + ":1",
                                                               "mode": "exec"})

    def ask(self, name, deeds):
        return self.daemon.call(name, deeds.encode())


class Layers(Hostile):
    def layer(self, *entries):
        image = Image(["evil:1"], [archive.layer(entries)], {"Cmd": ["/x"]})
        return archive.docker_archive([image])

    def test_u01_to_u22_no_entry_reaches_the_canary(self):
        up, secret = "../" * 15 + str(self.canary)[1:], str(self.canary / "secret")
        for entries in (
                [Entry(up + "/secret", content=b"x")], [Entry("a/../" + up + "/x")],
                [Entry(secret, content=b"x")], [Entry("/" + secret, content=b"x")],
                [Entry("l", "symlink", link=str(self.canary)), Entry("l/secret", content=b"x")],
                [Entry("l", "symlink", link=up), Entry("l/x", content=b"x", mode=0o777)],
                [Entry(".", "symlink", link=str(self.canary)), Entry("secret", content=b"x")],
                [Entry("./", "symlink", link=up), Entry("x")],
                [Entry("/", "symlink", link=up)], [Entry("", "symlink", link=up)],
                [Entry("h", "hardlink", link=secret), Entry("h", content=b"x")],
                [Entry("h", "hardlink", link=up + "/secret", mode=0o777)],
                [Entry("l", "symlink", link=str(self.canary)),
                 Entry("h", "hardlink", link="l/secret")],
                [Entry("s", "symlink", link=secret), Entry("h", "hardlink", link="s"),
                 Entry("h", mode=0o777, uid=7), Entry("s", mode=0o777)],
                [Entry("l", "symlink", link=str(self.canary)), Entry("l/.wh.secret"),
                 Entry("l/.wh..wh..opq"), Entry(".wh.l")],
                [Entry("d", "symlink", link=str(self.canary)), Entry("d", "dir", mode=0o777)],
                [Entry("x", pax={"path": up + "/y"})],
                [Entry("x", "symlink", link="y", pax={"linkpath": up}), Entry("x/z")]):
            self.taken(self.layer(*entries))
            self.assertEqual(self.canary_state(), self.untouched, entries)

    def test_u19_whiteouts_of_the_root_and_its_parent(self):
        for name in (".wh..", ".wh...", ".wh.", "etc/.wh...", ".wh./x", "a/.wh.b/c"):
            self.assertIn("whiteout", self.refused(self.layer(Entry(name))))

    def test_u33_very_long_names(self):
        for size in (256, 5000, 100_000, 1 << 20):
            self.assertRegex(self.refused(self.layer(Entry("n" * size))), "too (long|large)")
            self.taken(self.layer(Entry("x", "symlink", link="n" * size)))
        self.assertIn("too long", self.refused(self.layer(Entry("d/" * 5000 + "f"))))
        self.assertEqual(self.taken(self.layer(Entry("d/" * 2000 + "f"))).status, 201)

    def test_u34_names_with_escapes_are_shown_harmlessly(self):
        message = self.refused(self.layer(Entry("../\x1b]0;owned\x07/\x1b[31m/\nx")))
        self.assertIn("../\\x1b]0;owned\\x07/\\x1b[31m/\\x0ax", message)

    def pax_layer(self, **records):
        """One file whose PAX header says this."""
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
            info = tarfile.TarInfo("f")
            info.pax_headers = records
            tar.addfile(info)
        return data.getvalue()

    def test_u43_numbers_that_wrap(self):
        for key, value in (("size", "-1"), ("size", "1e9"), ("size", "9223372036854775808"),
                           ("mtime", "99999999999999999999"), ("mtime", "nan"),
                           ("uid", "4294967296"), ("uid", "18446744073709551615"),
                           ("uid", "abc"), ("gid", "-5"), ("path", "a\0b")):
            layer = self.pax_layer(**{key: value})
            for data in (archive.docker_archive([Image(["n:1"], [layer], {})]), layer):
                message = self.refused(data)
                self.assertIn("damaged tar", message)
                self.assertIn(key, message)

    def test_u43_numbers_larger_than_what_is_there(self):
        for size in ("60000", "9223372036854775807"):
            layer = self.pax_layer(size=size)
            message = self.refused(archive.docker_archive([Image(["n:1"], [layer], {})]), 413, 422)
            self.assertRegex(message, "truncated|damaged|more than")

    def test_u43_numbers_that_are_odd_but_right(self):
        layer = self.pax_layer(mtime="-1", uid="4294967295")
        reply = self.taken(archive.docker_archive([Image(["n:1"], [layer], {})]))
        self.assertEqual(reply.status, 201, repr(reply))
        self.assertIn("65534", reply.text)

    def test_u55_a_thousand_layers(self):
        tars = [archive.layer([Entry(f"f{n}")]) for n in range(1200)]
        message = self.refused(archive.docker_archive([Image(["many:1"], tars, {})]))
        self.assertIn("1200 layers", message)
        self.assertIn("128", message)


    def test_u41_entries_without_end(self):
        """Five million empty files and ten million hard links, sent as little: refused at the limit
        of entries, and no inode stays."""
        one = archive.layer([Entry("f")])[:512]
        link = archive.layer([Entry("h", "hardlink", link="f")])[:512]
        for first, entry, count in ((b"", one, 5_000_000), (one, link, 10_000_000)):
            part = gzip.compress(entry * 20_000, mtime=0)
            blob = gzip.compress(first, mtime=0) + part * (count // 20_000)
            self.assertLess(len(blob), 32 << 20)
            config = Image(["n:1"], [b""], {}).config_bytes()
            data = archive.pack([("c.json", config), ("l", blob), ("manifest.json", json.dumps(
                [{"Config": "c.json", "RepoTags": ["n:1"], "Layers": ["l"]}]).encode())])
            self.assertIn("more than 1000000 entries", self.refused(data, 413, seconds=300))

    def test_u41_links_and_files_of_a_layer_leave_no_inode(self):
        entries = [Entry(f"d{n % 50}/{n}") for n in range(5000)]
        entries += [Entry(f"h{n}", "hardlink", link="d0/0") for n in range(5000)]
        self.refused(self.layer(*entries, Entry("../out")))


class Documents(Hostile):
    def saved(self, manifest, config=b"{}", more=()):
        if not isinstance(manifest, bytes):
            manifest = json.dumps(manifest).encode()
        return archive.pack([("manifest.json", manifest), ("c.json", config), *more])

    def test_u45_bombs_of_json(self):
        deep = b"[" * 100_000
        many = b'{"x":[' + b"1," * 1_000_000 + b"1]}"
        for text in (deep, many, b'{"x":"' + b"a" * (6 << 20) + b'"}', b'[{"a":1,"a":2}]',
                     b"\xef\xbb\xbf[]", b'["\0"]', b'["\\ud800"]', b"[1" + b"0" * 400 + b"]"):
            self.refused(self.saved(text), seconds=3)
            self.refused(self.saved([{"Config": "c.json", "Layers": []}], text), seconds=3)
            index = archive.pack([("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
                                  ("index.json", text)])
            self.refused(index, seconds=3)

    def test_u47_no_file_of_the_host_is_read(self):
        for name in ("../../etc/passwd", "/etc/passwd", "/proc/self/environ", "c.json\0.x"):
            for manifest in ([{"Config": name, "Layers": []}],
                             [{"Config": "c.json", "Layers": [name]}]):
                self.assertNotIn("root:", self.refused(self.saved(manifest)))

    def test_u48_links_for_members(self):
        image = self.image("linked")
        config = image.config_bytes()
        manifest = [{"Config": "c.json", "RepoTags": ["linked:1"], "Layers": ["l/layer.tar"]}]
        for links in ([("l/layer.tar", "/etc/shadow")], [("l/layer.tar", "../../canary/secret")],
                      [("l/layer.tar", "layer.tar")], [("l/layer.tar", "..")],
                      [("l/layer.tar", "one"), ("l/one", "two"), ("l/two", "../real")]):
            members = [(name, "symlink:" + target) for name, target in links]
            self.refused(self.saved(manifest, config, [*members, ("real", image.layers[0])]))
        good = [("l/layer.tar", "symlink:../real"), ("real", image.layers[0])]
        self.assertEqual(self.taken(self.saved(manifest, config, good)).status, 201)
        self.refused(archive.pack([("manifest.json", "symlink:real"), ("c.json", config),
                                   ("real", json.dumps(manifest).encode())]))

    def test_u49_layers_that_are_not_what_the_configuration_says(self):
        one, two = (archive.layer([Entry(name)]) for name in "ab")
        image = Image(["order:1"], [one, two], {})
        for layers in (["b", "a"], ["a"], ["a", "b", "a"], [], ["a", "a"]):
            self.refused(self.saved([{"Config": "c.json", "Layers": layers}], image.config_bytes(),
                                    [("a", one), ("b", two)]))

    def test_u50_u51_digests_and_sizes_that_lie(self):
        image = self.image("digest")
        blobs, descriptor, _ = archive.oci_documents(image)
        members = [("blobs/sha256/" + digest, data) for digest, data in blobs.items()]

        def build(changed, more):
            index = archive.as_json({"schemaVersion": 2, "manifests": [changed]})
            return archive.pack([("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
                                 ("index.json", index), *more])
        digest = descriptor["digest"]
        for change in ({"size": descriptor["size"] + 1}, {"size": descriptor["size"] - 1},
                       {"size": -5}, {"size": 2**63}, {"size": 1.5}, {"digest": digest.upper()},
                       {"digest": "md5:" + "0" * 32}, {"digest": "sha256:../../../etc/shadow"},
                       {"digest": "sha512:" + digest[7:]}, {"digest": ""}, {"digest": None}):
            self.refused(build({**descriptor, **change}, members))
        for at in range(len(members)):
            name, data = members[at]
            damaged = data[:-1] + bytes([data[-1] ^ 1])
            self.refused(build(descriptor, [*members[:at], (name, damaged), *members[at + 1:]]))

    def test_u53_indexes_without_end(self):
        def blob(document):
            data = archive.as_json(document)
            return "blobs/sha256/" + archive.sha(data), data, {
                "mediaType": archive.MEDIA_INDEX, "digest": "sha256:" + archive.sha(data),
                "size": len(data)}
        members, descriptor = [], None
        for _ in range(1000):
            name, data, descriptor = blob({"schemaVersion": 2,
                                           "manifests": [descriptor] if descriptor else []})
            members.append((name, data))
        own = {"mediaType": archive.MEDIA_INDEX, "digest": "sha256:" + "0" * 64, "size": 2}
        for index in ([descriptor], [own], [descriptor] * 40_000):
            self.refused(archive.pack([
                ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), *members,
                ("index.json", archive.as_json({"schemaVersion": 2, "manifests": index})),
                ("blobs/sha256/" + "0" * 64, b"{}")]))

    def test_u62_u63_words_of_an_image_steer_nothing(self):
        labels = {"pulga/privileged": "true", "com.openfaas.scale.min": "50", "mounts": "/:/host"}
        reply = self.deploy("words", Labels=labels, Healthcheck={"Test": ["CMD", "/probe"]},
                            OnBuild=["RUN evil"], StopSignal="SIGKILL;reboot",
                            Volumes={"/etc": {}, str(self.canary): {}, "/../..": {}, "/proc": {}},
                            ExposedPorts={"99999999/tcp": {}, "-1/tcp": {}, "x": {}, "80/udp": {}})
        self.assertEqual(reply.status, 201, repr(reply))
        self.assertNotIn("not for images", self.ask("words", f"cat {self.canary}/secret").text)
        self.assertNotIn(str(self.canary), self.ask("words", "mounts").text)

    def test_u64_environments(self):
        reply = self.deploy("env", Env=[
            "LD_PRELOAD=/evil.so", "PATH=.:/bin", "novalue", "=nokey", "PULGA_KEY=stolen", "A=1",
            "A=2", "PULGA_CALL_ID=forged", "LONG=" + "x" * 10_000])
        self.assertEqual(reply.status, 201, repr(reply))
        seen = self.ask("env", "env").text
        self.assertNotIn(self.daemon.key, seen)
        self.assertIn("A=2", seen)
        self.assertEqual(self.deploy("longer", Env=["LONG=" + "x" * 100_000]).status, 400)
        for env in (["A=\0b"], ["X=" + "y" * (1 << 20)], [f"K{n}=v" for n in range(100_000)]):
            self.refused(archive.docker_archive([self.image("env2", Env=env)]))

    def test_u65_tags(self):
        for tag in ("../../x:latest", "a" * 65536 + ":1", "$(reboot):1", "", ":", "a:b:c", "/etc:1",
                    "UPPER:1", "x:\u202e1"):
            data = self.saved([{"Config": "c.json", "RepoTags": [tag], "Layers": ["l"]}],
                              self.image("t").config_bytes(), [("l", self.image("t").layers[0])])
            reply = self.taken(data)
            if reply.status == 201:
                self.assertNotIn(tag or "x:", reply.json()["images"][0]["ref"])
        one, two = self.image("same"), self.image("same", [Entry("other")])
        self.refused(archive.docker_archive([one, two]))

    def test_u56_files_that_are_no_archive(self):
        for path in ("/etc", "/dev/null", "/proc/self/mem", "/nowhere"):
            done = self.daemon.cli("image", "import", path)
            self.assertNotEqual(done.returncode, 0, path)
            self.assertGreater(len(done.stderr + done.stdout), 10)
        for text in (b"null", b"[]", b"{}", b"0"):
            self.refused(self.saved(text))


class Streams(Hostile):
    flags = ("--upload-bytes", "8Mi", "--image-bytes", "16Mi", "--body-timeout", "3s")

    def test_u38_bombs_of_gzip(self):
        zeros = archive.layer([Entry("z", content=b"\0" * (40 << 20))])
        inner = with_layer(gzip.compress(zeros, mtime=0), zeros)
        for data in (inner, gzip.compress(inner, mtime=0),
                     gzip.compress(b"\0" * (200 << 20), 9, mtime=0),
                     gzip.compress(gzip.compress(zeros, mtime=0), mtime=0)):
            self.refused(data, 413, 415, 422)

    def zstd(self, data, *options):
        return subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE,
                              check=True).stdout

    def test_u39_bombs_of_zstd(self):
        tar = archive.layer([Entry("f", content=b"f")])
        zeros = archive.layer([Entry("z", content=b"\0" * (64 << 20))])
        skip = b"\x50\x2a\x4d\x18"
        for blob in (self.zstd(zeros), self.zstd(zeros, "--long=27", "--ultra", "-22"),
                     skip + b"\xff\xff\xff\xff" + b"x" * 1000, skip + b"\xff\xff\xff\xff",
                     self.zstd(b"") * 50_000):
            self.refused(with_layer(blob, zeros), 413, 415, 422)
        tiny = b"".join(self.zstd(tar[at:at + 512]) + skip + b"\4\0\0\0skip"
                        for at in range(0, 2048, 512)) + self.zstd(tar[2048:])
        self.assertEqual(self.taken(with_layer(tiny, tar)).status, 201)

    def send_when_possible(self, data):
        """Only some uploads are taken at once; the others are told to come again."""
        for _ in range(300):
            reply = self.send(data)
            if reply.status != 503:
                break
            time.sleep(0.05)
        return reply

    def test_u70_the_same_image_twenty_times_at_once(self):
        image = image_of({"probe": probe_binary(), "u": os.urandom(1000)}, "twenty:1",
                         Entrypoint=["/probe"])
        data = archive.docker_archive([image])
        replies = in_parallel(20, lambda n: self.send_when_possible(data).status)
        self.assertEqual(set(replies) - {200, 201}, set(), replies)
        layers = len(list((self.daemon.data / "layers").iterdir()))
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/twenty:1").status, 204)
        wait_until(lambda: len(list((self.daemon.data / "layers").iterdir())) == layers - 1)

    def test_u37_u70_imports_deploys_and_deletions_at_once(self):
        data = archive.docker_archive([self.image("mixed", [Entry("m", content=os.urandom(9999))])])

        def deed(n):
            if n % 3 == 0:
                return self.send_when_possible(data).status
            if n % 3 == 1:
                return self.daemon.api("DELETE", "/v1/images/mixed:1").status
            return self.daemon.api("PUT", f"/v1/functions/mixed-{n}",
                                   {"image": "mixed:1", "pull": "never"}).status
        statuses = in_parallel(30, deed)
        self.names += [f"mixed-{n}" for n in range(2, 30, 3)]
        self.assertEqual(set(statuses) - {200, 201, 204, 404, 409, 422}, set(), statuses)

    def test_u71_uploads_that_end_anywhere(self):
        data = archive.docker_archive([self.image("cut", [Entry("c", content=os.urandom(50_000))])])
        for cut in range(0, len(data), len(data) // 12):
            with self.daemon.connect() as s:
                s.sendall(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                          + self.daemon.key.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(data)
                          + data[:cut])
        wait_until(lambda: not self.left(), 30, lambda: self.left())
        self.assertEqual(self.daemon.api("GET", "/v1/images/cut:1").status, 404)

    def test_u71_an_upload_that_drips_is_ended(self):
        """One byte now and then is no progress: the daemon ends it, with 408 or by closing, while
        the client still sends, and keeps nothing of it."""
        head = (b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                + self.daemon.key.encode() + b"\r\nContent-Length: 100000\r\n\r\n")
        good = archive.layer([Entry("z", content=b"z" * 90_000)])
        with self.daemon.connect(timeout=0.5) as s:
            s.sendall(head)
            answer = None
            deadline = time.monotonic() + 60
            for at in itertools.count():
                self.assertLess(time.monotonic(), deadline, "it was never ended")
                try:
                    s.sendall(good[at:at + 1])
                    answer = s.recv(1000)
                    break
                except TimeoutError:
                    continue
                except (BrokenPipeError, ConnectionResetError):
                    answer = b""
                    break
        self.assertLess(at, 1000, "the whole archive dripped in")
        self.assertTrue(answer == b"" or answer.startswith(b"HTTP/1.1 408 "), answer)
        wait_until(lambda: not self.left(), 30, lambda: self.left())

    def test_u71_a_wrong_length_is_no_archive(self):
        """Longer than said: what follows is no part of it. Shorter: it never was all."""
        data = archive.docker_archive([self.image("length")])
        for said in (len(data) - 40_000, 1, 0):
            reply = raw_exchange(self.daemon.port, (
                b"POST /v1/images HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"Authorization: Bearer " + self.daemon.key.encode()
                + b"\r\nContent-Length: %d\r\n\r\n" % said + data))[0]
            # What was sent too much may cost the answer, with a reset.
            self.assertRegex(reply, b"^(HTTP/1.1 4(00|15|22) |$)")
        for said in (b"-5", b"1e9", b"99999999999999999999999", b"0x10"):
            reply = raw_exchange(self.daemon.port, (
                b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                + self.daemon.key.encode() + b"\r\nContent-Length: " + said + b"\r\n\r\n"
                + data[:1000]))[0]
            self.assertRegex(reply, b"^(HTTP/1.1 4(00|13) |$)")
        self.assertEqual(self.daemon.api("GET", "/v1/images/length:1").status, 404)


class Compressors(Hostile):
    """Programs that unpack come first in the PATH of all our processes, and tell when they run."""

    names_of_programs = ("xz", "bzip2", "lz4", "lrzip", "lzop", "grzip", "gzip", "zstd", "lzip",
                         "uudecode", "rpm2cpio", "7z", "unzip", "unrar", "cpio", "compress", "tar")

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="pulga-e2e-path-")
        cls.addClassCleanup(folder.cleanup)
        cls.told = Path(folder.name) / "told"
        Path(folder.name).chmod(0o777)
        for name in cls.names_of_programs:
            path = Path(folder.name) / name
            path.write_text(f"#!/bin/sh\necho {name} >> {cls.told}\ncat\n")
            path.chmod(0o755)
        cls.fakes = [Entry("bin/" + name, content=b"#!/bin/sh\n", mode=0o755)
                     for name in cls.names_of_programs]
        before = os.environ["PATH"]
        os.environ["PATH"] = folder.name + ":" + before
        try:
            super().setUpClass()
        finally:
            os.environ["PATH"] = before

    def executed(self, deed):
        """The programs anybody of ours started while `deed` ran."""
        skip_unless(shutil.which("strace"), "needs strace")
        trace = self.daemon.temp.parent / f"{self.daemon.temp.name}.trace"
        pids = [word for pid in self.pids.values() for word in ("-p", str(pid))]
        with subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", trace,
                               *pids], stderr=subprocess.DEVNULL) as tracer:
            try:
                wait_until(lambda: all(status_of(pid).get("TracerPid", "0") != "0"
                                       for pid in self.pids.values()), 20, "strace has them all")
                deed()
            finally:
                tracer.terminate()
                tracer.wait(20)
        text = trace.read_text()
        trace.unlink()
        return re.findall(r'exec\w*\((?:\d+, )?"[^"]*", \["([^"]*)"', text)

    def try_all(self):
        tar = archive.layer([*self.fakes, Entry("f")])
        for name, blob in (("xz", lzma.compress(tar)), ("bzip2", bz2.compress(tar)),
                           ("lz4", b"\x04\x22\x4d\x18" + tar), ("lrzip", b"LRZI\0\6" + tar),
                           ("lzop", b"\x89LZO\0\r\n\x1a\n" + tar), ("lzip", b"LZIP\1" + tar),
                           ("grzip", b"GRZipII\0" + tar), ("7z", b"7z\xbc\xaf\x27\x1c" + tar),
                           ("zip", b"PK\3\4" + tar), ("rar", b"Rar!\x1a\7\0" + tar),
                           ("rpm", b"\xed\xab\xee\xdb" + tar), ("cpio", b"070701" + b"0" * 2000)):
            self.assertIn(name, self.refused(with_layer(blob, tar)))
            self.assertIn(name, self.refused(blob))
        for blob in (b"begin 644 x\n#0V%T\n`\nend\n", b"\0" * 32769 + b"CD001" + b"\0" * 2000):
            self.refused(blob)
        self.assertEqual(self.taken(with_layer(gzip.compress(tar), tar)).status, 201)

    def test_u40_other_compressors_run_nothing(self):
        self.try_all()
        self.assertFalse(self.told.exists(), self.told.exists() and self.told.read_text())

    @unittest.skipIf(SANITIZED, "a leak check can not run while it is traced")
    def test_u40_nothing_is_executed_but_the_unpacker(self):
        programs = self.executed(self.try_all)
        self.assertTrue(programs, "strace saw nothing")
        strange = {name for name in programs if not name.endswith("pulga-unpacker")}
        self.assertEqual(strange, set())


class FullDisk(Hostile):
    """The data directory is a disk of its own, and small."""

    flags = ("--reserve-bytes", "0", "--disk-high", "100")
    own_mounts = 1

    @classmethod
    def setUpClass(cls):
        skip_unless(os.geteuid() == 0, "needs root")
        cls.daemon = Daemon(*cls.flags)
        cls.daemon.data.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "none", cls.daemon.data],
                       check=True)
        cls.addClassCleanup(shutil.rmtree, cls.daemon.temp, True)  # the last one
        cls.addClassCleanup(subprocess.run, ["umount", "-l", cls.daemon.data], check=False)
        cls.addClassCleanup(cls.daemon.__exit__, None, None, None)
        cls.daemon.start()
        cls.prepare()

    def leave(self, free):
        """Fills the disk up to `free` bytes."""
        disk = os.statvfs(self.daemon.data)
        with open(self.daemon.data / "ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(disk.f_bavail * disk.f_bsize - free, 1))

    def full(self, data, free):
        """Sent with so much room; whether it was taken. If not: 507, and nothing stays."""
        self.leave(free)
        try:
            reply = self.send(data)
            self.assertIn(reply.status, (201, 507), f"{free}: {reply}")
            if reply.status == 507:
                self.assertEqual(reply.json()["error"]["code"], "no_space")
                self.assertNotIn(str(self.daemon.temp), reply.text)
        finally:
            (self.daemon.data / "ballast").unlink()
        if reply.status == 507:
            wait_until(lambda: not self.left(), 20, lambda: f"{free}: {self.left()}")
            self.assertEqual(self.daemon.api("GET", "/v1/images/full:1").status, 404)
        return reply.status == 201

    def works(self, data):
        self.assertEqual(self.send(data).status, 201)
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/full:1").status, 204)

    def noise(self, size, pack=lambda tar: tar):
        tar = archive.layer([Entry("noise", content=os.urandom(size))])
        image = Image(["full:1"], [tar], {"Cmd": ["/noise"]})
        return archive.pack([("c.json", image.config_bytes()), ("l", pack(tar)), (
            "manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["full:1"],
                                          "Layers": ["l"]}]).encode())])

    def test_u69_full_in_the_middle_of_the_upload(self):
        data = self.noise(8 << 20)
        self.assertFalse(self.full(data, 3 << 20))
        self.works(data)

    def test_u69_full_while_unpacking(self):
        zeros = archive.layer([Entry("zeros", content=b"0" * (8 << 20))])
        image = Image(["full:1"], [zeros], {"Cmd": ["/zeros"]})
        data = archive.pack([("c.json", image.config_bytes()), ("l", gzip.compress(zeros)), (
            "manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["full:1"],
                                          "Layers": ["l"]}]).encode())])
        self.assertLess(len(data), 1 << 20)
        self.assertFalse(self.full(data, 3 << 20))
        self.works(data)

    def test_u69_full_anywhere_up_to_publishing_it(self):
        """With ever more room, page by page near the end, until it is enough."""
        data = self.noise(100_000)
        room, taken = 4096, False
        while not taken and room < 4 << 20:
            taken = self.full(data, room)
            room += 24 << 10
        self.assertTrue(taken, "with 4 MiB it is taken")
        self.assertGreater(room, 200_000, "there was no room for spool and layer")
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/full:1").status, 204)


class Programs(Hostile):
    def test_u30_nothing_of_an_image_is_within_reach_of_the_host(self):
        self.deploy("suid", [Entry("bin/sh", content=probe_binary(), mode=0o4755)])
        done = subprocess.run(["find", str(self.daemon.data), "-perm", "-4000"], user=65534,
                              group=65534, capture_output=True, check=False)
        self.assertEqual(done.stdout, b"")
        self.assertNotEqual(done.returncode, 0, "the data directory is open to everybody")

    def test_u31_file_capabilities_are_not_kept(self):
        capability = b"\1\0\0\2" + b"\xff" * 4 + bytes(4) + b"\xff" * 4 + bytes(4)
        entry = Entry("probe", content=probe_binary(), mode=0o755,
                      pax={"SCHILY.xattr.security.capability": capability.decode("latin-1")})
        image = Image(["caps:1"], [archive.layer([entry])], {"Entrypoint": ["/probe"]})
        self.assertEqual(self.send(archive.docker_archive([image])).status, 201)
        self.names.append("caps")
        self.daemon.put("caps", {"image": "caps:1", "mode": "exec"})
        self.assertIn("CapEff:\t0000000000000000", self.ask("caps", "status").text)

    def test_u58_users_never_become_root_by_accident(self):
        for number, user in enumerate(("4294967295", "4294967296", "2147483648", "-1", "0x0", "+0",
                                       " 0", "1:-1", "99999999999999999999", "1:", ":1", "65536")):
            name = f"user{number}"
            if self.deploy(name, User=user).status in (200, 201):
                reply = self.ask(name, "ids")
                self.assertFalse(reply.status == 200 and "uid 0 " in reply.text
                                 and user not in (":1",), f"{user}: {reply}")

    def test_u60_working_directories_lead_nowhere(self):
        entries = [Entry("file", content=b"f"), Entry("out", "symlink", link=str(self.canary))]
        for number, folder in enumerate(("/proc/self/fd/7", "/proc/1/cwd", "../../..", "/out",
                                         "/file", "/" + "d" * 10_000, "/proc/self/root/../..")):
            name = f"cwd{number}"
            image = self.image(name, entries, WorkingDir=folder)
            reply = self.send(archive.docker_archive([image]))
            if reply.status == 422:
                continue
            self.names.append(name)
            self.daemon.api("PUT", "/v1/functions/" + name, {"image": name + ":1", "mode": "exec"})
            seen = self.ask(name, "cwd; cat secret; cat ../../../../etc/shadow").text
            self.assertNotIn("not for images", seen)
            self.assertNotIn("root:", seen)

    def test_u67_places_where_mounts_go(self):
        for kind, link in (("symlink", "/canary"), ("file", ""), ("fifo", ""), (None, "")):
            name = f"mounts-{kind}".lower()
            entries = [] if kind is None else [Entry(place, kind, link=link) for place in (
                "proc", "dev", "sys", "tmp", "run", "etc")]
            if self.deploy(name, entries).status in (200, 201):
                reply = self.ask(name, "status; ls /dev; write /tmp/f")
                self.assertIn("NoNewPrivs:\t1", reply.text)

    def test_u68_entry_points(self):
        loop = [Entry(f"s{n}", content=b"#!/s%d\n" % ((n + 1) % 5), mode=0o755) for n in range(5)]
        entries = [*loop, Entry("dir", "dir", mode=0o755), Entry("text", content=b"x", mode=0o755),
                   Entry("host", "symlink", link="../../../../bin/sh"),
                   Entry("self", content=b"#!/proc/self/exe\n", mode=0o755),
                   Entry("elf", content=b"\x7fELF" + b"\0" * 100, mode=0o755)]
        for number, argv in enumerate((["/host"], ["/dir"], ["/s0"], ["/self"], ["/text"], ["/elf"],
                                       [""], ["nowhere"], ["/probe/x"], ["./../host"])):
            name = f"entry{number}"
            reply = self.deploy(name, entries, Entrypoint=argv)
            if reply.status in (200, 201):
                reply = self.ask(name, "say harm")
                self.assertNotEqual(reply.status, 200, f"{argv}: {reply}")
            self.assertGreater(len(reply.text), 10, f"{argv}: {reply}")
        self.refused(archive.docker_archive([self.image("long", Entrypoint=["/probe"],
                                                        Cmd=["x" * (2 << 20)])]))


if __name__ == "__main__":
    unittest.main()
