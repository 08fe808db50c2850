"""Resumable uploads: the tus protocol against the daemon, and the command line through a proxy
that cuts its connections.

PULGA_TUS_MB=60 makes the largest archive, of 300 MB, smaller.
"""

import base64
import fcntl
import json
import os
import random
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
import unittest
from pathlib import Path

from harness import (PULGA, Case, Daemon, image_archive, image_of, in_parallel, probe_binary,
                     skip_unless, wait_until)

MEGABYTES = int(os.environ.get("PULGA_TUS_MB", "300"))
# Heads of requests, and what the kernels held when a connection was reset.
OVERHEAD = 512 * 1024


class CuttingProxy:
    """Passes bytes on; `cuts` are counts of bytes passed upstream at which the connection that
    carries them ends. `rate` limits upstream, in bytes a second."""

    def __init__(self, port, cuts=(), rate=None):
        self.port, self.cuts, self.rate = port, sorted(cuts), rate
        self.sent = 0  # by clients
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        except OSError:
            client.close()
            return
        back = threading.Thread(target=pass_on, args=(server, client), daemon=True)
        back.start()
        try:
            self.upstream(client, server)
        except OSError:
            pass
        for end in (client, server):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        back.join()
        client.close()
        server.close()

    def upstream(self, client, server):
        while True:
            room = self.cuts[0] - self.sent if self.cuts else 65536
            block = client.recv(max(1, min(65536, room)))
            if not block:
                server.shutdown(socket.SHUT_WR)
                return
            self.sent += len(block)
            server.sendall(block)
            if self.rate:
                time.sleep(len(block) / self.rate)
            if self.cuts and self.sent >= self.cuts[0]:
                self.cuts.pop(0)
                return


def pass_on(source, target):
    try:
        while block := source.recv(65536):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def archive_of(megabytes, tag):
    """Bytes that do not compress, beside the probe."""
    source = random.Random(tag)
    blob = b"".join(source.randbytes(1 << 20) for _ in range(megabytes))
    files = {"app": probe_binary(), "blob": blob}
    return image_archive.docker_archive([image_of(files, tag, Entrypoint=["/app"])])


class Tus:
    """One upload of an archive in memory, request by request."""

    def __init__(self, daemon, archive, **metadata):
        self.daemon, self.archive = daemon, archive
        pairs = [f"{key} {base64.b64encode(value.encode()).decode()}"
                 for key, value in metadata.items()]
        headers = {"Upload-Length": str(len(archive))}
        if pairs:
            headers["Upload-Metadata"] = ",".join(pairs)
        self.created = self.ask("POST", "/v1/uploads", headers)
        self.path = self.created.headers.get("location", "/v1/uploads/none")

    def ask(self, method, path=None, headers=None, body=b""):
        return self.daemon.request(method, path or self.path, body,
                                   {"Tus-Resumable": "1.0.0", **(headers or {})}, 120, True)

    def patch(self, offset, end=None, body=None):
        body = self.archive[offset:end] if body is None else body
        return self.ask("PATCH", headers={"Content-Type": "application/offset+octet-stream",
                                          "Upload-Offset": str(offset)}, body=body)

    def offset(self):
        return int(self.ask("HEAD").headers["upload-offset"])

    def begin_part(self, offset, size):
        """The socket of a PATCH of which `size` bytes were sent, and not more."""
        connection = self.daemon.connect()
        head = (f"PATCH {self.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.daemon.key}"
                f"\r\nTus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"
                f"Upload-Offset: {offset}\r\nContent-Length: {len(self.archive) - offset}\r\n\r\n")
        connection.sendall(head.encode() + self.archive[offset:offset + size])
        return connection

    def state(self):
        return self.daemon.request("GET", self.path, admin=True).json()


class Protocol(Case):
    flags = ("--upload-bytes", "200Mi", "--max-unfinished-uploads", "6")

    def tearDown(self):
        for upload in self.daemon.request("GET", "/v1/uploads", admin=True).json()["uploads"]:
            self.daemon.request("DELETE", "/v1/uploads/" + upload["id"], b"",
                                {"Tus-Resumable": "1.0.0"}, admin=True)
        super().tearDown()

    def test_an_archive_in_parts_becomes_an_image(self):
        upload = Tus(self.daemon, archive_of(1, "parts:1"), ref="parts:2", filename="p.tar")
        self.assertEqual(upload.created.status, 201, upload.created)
        third = len(upload.archive) // 3
        for start in (0, third):
            reply = upload.patch(start, start + third)
            self.assertEqual(reply.status, 204, reply)
            self.assertEqual(int(reply.headers["upload-offset"]), start + third)
        self.assertEqual(upload.state()["state"], "receiving")
        self.assertEqual(upload.patch(2 * third).status, 204)
        state = upload.state()
        self.assertEqual((state["state"], state["images"][0]["ref"]), ("imported", "parts:2"))
        self.daemon.put("parts", {"image": "parts:2", "mode": "exec"})
        self.assertEqual(self.daemon.call("parts", b"say hi").text, "hi\n")
        self.assertEqual(self.files(upload), [".info"], "the bytes are not kept twice")

    def files(self, upload):
        stem = upload.path.rsplit("/", 1)[1]
        return sorted(path.suffix for path in (self.daemon.data / "uploads").glob(stem + "*"))

    def test_a_lost_connection_loses_nothing_and_mixes_nothing(self):
        """Closed, all counts that the kernel had confirmed and the daemon had not read. Reset, it
        may not count, but what counts has no hole: the import compares digests."""
        upload = Tus(self.daemon, archive_of(4, "reset:1"))
        for reset in (True, False):
            at = upload.offset()
            connection = upload.begin_part(at, 10_000)
            wait_until(lambda want=at + 10_000: upload.offset() == want, 30, "the first bytes")
            os.kill(self.daemon.daemon_pid(), signal.SIGSTOP)
            try:
                connection.sendall(upload.archive[at + 10_000:at + 60_000])
                wait_until(lambda c=connection: unconfirmed(c) == 0, 30, "all is confirmed")
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                          struct.pack("ii", 1, 0))
                connection.close()
            finally:
                os.kill(self.daemon.daemon_pid(), signal.SIGCONT)
            wait_until(lambda: not upload.state()["busy"], 30, "its end")
            self.assertGreaterEqual(upload.offset(), at + (10_000 if reset else 60_000))
            self.assertLessEqual(upload.offset(), at + 60_000)
        self.assertEqual(upload.patch(upload.offset()).status, 204)
        self.assertEqual(upload.state()["state"], "imported")

    def test_wrong_offsets_change_nothing(self):
        upload = Tus(self.daemon, archive_of(1, "wrong:1"))
        self.assertEqual(upload.patch(0, 1000).status, 204)
        for offset in (0, 999, 1001, len(upload.archive)):
            self.assertEqual(upload.patch(offset, offset + 10).status, 409)
        self.assertEqual(upload.patch(1000, body=upload.archive).status, 413)
        self.assertEqual(upload.offset(), 1000)
        self.assertEqual(upload.patch(1000).status, 204)

    def test_parallel_parts_do_not_mix(self):
        upload = Tus(self.daemon, archive_of(1, "parallel:1"))
        with upload.begin_part(0, 100_000):
            wait_until(lambda: upload.offset() == 100_000, 30, "the first part's bytes")
            replies = in_parallel(4, lambda n: upload.patch(100_000).status)
            self.assertEqual(set(replies), {423})
        wait_until(lambda: upload.patch(100_000).status == 204, 30, "the lock is free")
        self.assertEqual(upload.state()["state"], "imported")

    def test_a_silent_part_gives_way(self):
        upload = Tus(self.daemon, archive_of(1, "silent:1"))
        with upload.begin_part(0, 100_000):
            wait_until(lambda: upload.offset() == 100_000, 30, "the first part's bytes")
            time.sleep(3.2)
            wait_until(lambda: upload.patch(100_000).status == 204, 30, "it gives way")
        self.assertEqual(upload.state()["state"], "imported")

    def test_removed_uploads_leave_nothing(self):
        upload = Tus(self.daemon, archive_of(1, "removed:1"))
        self.assertEqual(upload.patch(0, 5000).status, 204)
        with upload.begin_part(5000, 5000) as connection:
            wait_until(lambda: upload.offset() == 10_000, 30, "bytes")
            self.assertEqual(upload.ask("DELETE").status, 204)
            self.assertIn(b" 404 ", connection.recv(1000).split(b"\r\n")[0])
        self.assertEqual(upload.ask("HEAD").status, 410)
        wait_until(lambda: not self.files(upload), 30, "no files")

    def test_what_is_too_large_or_too_much_is_refused(self):
        self.assertEqual(Tus(self.daemon, b"x" * (201 << 20)).created.status, 413)
        kept = [Tus(self.daemon, b"y") for _ in range(6)]
        self.assertEqual({upload.created.status for upload in kept}, {201})
        self.assertEqual(Tus(self.daemon, b"y").created.status, 503)

    def test_garbage_is_refused_by_the_last_part_and_afterwards(self):
        upload = Tus(self.daemon, b"this is text\n" * 1000)
        reply = upload.patch(0)
        self.assertEqual(reply.status, 415, reply)
        self.assertEqual(reply.json()["error"]["code"], "not_an_archive")
        self.assertEqual(upload.state()["state"], "failed")
        self.assertEqual(upload.state()["error"]["status"], 415)
        self.assertEqual(self.files(upload), [".info"])


class Rules(Case):
    """The protocol's text, section by section; what a MUST says is asserted as such."""

    VERSION = {"Tus-Resumable": "1.0.0"}
    PART = {**VERSION, "Content-Type": "application/offset+octet-stream"}

    def setUp(self):
        self.upload = Tus(self.daemon, b"0123456789" * 100, filename="rules.tar")

    def tearDown(self):
        self.upload.ask("DELETE")
        super().tearDown()

    def ask(self, method, headers, path=None, body=b""):
        reply = self.daemon.request(method, path or self.upload.path, body, headers, 60, True)
        if method != "OPTIONS":
            self.assertEqual(reply.headers.get("tus-resumable"), "1.0.0", repr(reply))
        return reply

    def create(self, headers, body=b""):
        return self.ask("POST", {**self.VERSION, **headers}, "/v1/uploads", body)

    def test_head(self):
        for offset in (0, 4):
            if offset:
                self.assertEqual(self.upload.patch(0, offset).status, 204)
            reply = self.ask("HEAD", self.VERSION)
            self.assertEqual(reply.status, 200)
            self.assertEqual(reply.headers["upload-offset"], str(offset))
            self.assertEqual(reply.headers["upload-length"], "1000")
            self.assertEqual(reply.headers["upload-metadata"], "filename cnVsZXMudGFy")
            self.assertEqual(reply.headers["cache-control"], "no-store")
        for path in ("/v1/uploads/" + "0" * 32, "/v1/uploads/odd%20name"):
            reply = self.ask("HEAD", self.VERSION, path)
            self.assertIn(reply.status, (403, 404, 410))
            self.assertNotIn("upload-offset", reply.headers)
            self.assertEqual(reply.headers["cache-control"], "no-store")

    def test_patch(self):
        for kind in ("application/octet-stream", "text/plain", None):
            headers = {**self.VERSION, "Upload-Offset": "0"}
            if kind:
                headers["Content-Type"] = kind
            self.assertEqual(self.ask("PATCH", headers, body=b"x").status, 415, kind)
        for offset in ("5", "1000", "1001", str(2**63 - 1)):
            reply = self.ask("PATCH", {**self.PART, "Upload-Offset": offset}, body=b"x")
            self.assertEqual(reply.status, 409, offset)
            self.assertEqual(reply.headers["upload-offset"], "0", "where it is")
            self.assertIn("upload-expires", reply.headers)
        for offset in ("", "-1", "+0", "0x0", " 1e0", "0,0", "1.0", str(2**63), "9" * 40):
            reply = self.ask("PATCH", {**self.PART, "Upload-Offset": offset}, body=b"x")
            self.assertEqual(reply.status, 400, offset)
        self.assertEqual(self.ask("PATCH", self.PART, body=b"x").status, 400, "no offset")
        unknown = self.ask("PATCH", {**self.PART, "Upload-Offset": "0"}, "/v1/uploads/none", b"x")
        self.assertEqual(unknown.status, 404)
        self.assertEqual(self.upload.offset(), 0, "none of them changed it")
        reply = self.upload.patch(0, 10)
        self.assertEqual((reply.status, reply.headers["upload-offset"]), (204, "10"))
        self.assertIn("upload-expires", reply.headers)
        self.assertEqual(reply.body, b"")

    def test_the_version(self):
        for version in ("0.2.2", "1.0", "2.0.0", "", None):
            headers = {} if version is None else {"Tus-Resumable": version}
            for method, path in (("HEAD", None), ("PATCH", None), ("DELETE", None),
                                 ("POST", "/v1/uploads")):
                more = {"Upload-Length": "5", "Upload-Offset": "0",
                        "Content-Type": "application/offset+octet-stream"}
                reply = self.ask(method, {**more, **headers}, path, b"" if path else b"x")
                self.assertEqual(reply.status, 412, (method, version))
                self.assertEqual(reply.headers["tus-version"], "1.0.0")
        self.assertEqual(self.upload.offset(), 0, "none was processed")
        listed = self.daemon.request("GET", "/v1/uploads", admin=True).json()["uploads"]
        self.assertEqual(len(listed), 1, "none was begun")

    def test_options_tell_all_whatever_version_is_asked_for(self):
        for headers in ({}, self.VERSION, {"Tus-Resumable": "9.9.9"}):
            for path in ("/v1/uploads", None):
                reply = self.ask("OPTIONS", headers, path)
                self.assertIn(reply.status, (200, 204))
                self.assertEqual(reply.headers["tus-version"], "1.0.0")
                self.assertEqual(reply.headers["tus-extension"], "creation,termination,expiration")
                self.assertGreater(int(reply.headers["tus-max-size"]), 1 << 20)

    def test_creation(self):
        most = int(self.ask("OPTIONS", {}).headers["tus-max-size"])
        for length, status in (("", 400), ("-1", 400), ("1e3", 400), ("12 3", 400), ("0", 400),
                               (str(most + 1), 413), (str(2**63 - 1), 413), (str(2**63), 400),
                               ("9" * 40, 400)):
            reply = self.create({"Upload-Length": length})
            self.assertEqual(reply.status, status, f"{length}: {reply}")
            self.assertIn("message", reply.json()["error"])
        self.assertEqual(self.create({}).status, 400)
        for defer in ("1", "0", "2"):
            self.assertEqual(self.create({"Upload-Defer-Length": defer}).status, 400)
        for metadata in (",", "a b c", "a !", "a YQ==,a YQ==", "a" * 5000, "any_platform enp6"):
            reply = self.create({"Upload-Length": "5", "Upload-Metadata": metadata})
            self.assertEqual(reply.status, 400, metadata)
        # creation-with-upload is not among the extensions
        self.assertEqual(self.create({"Upload-Length": "5"}, b"12345").status, 413)
        reply = self.create({"Upload-Length": "5", "Upload-Metadata": "flag, empty ,name YQ=="})
        self.assertEqual(reply.status, 201)
        self.assertRegex(reply.headers["location"], r"^/v1/uploads/[0-9a-f]{32}$")
        self.assertRegex(reply.headers["upload-expires"], r"^\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT$")
        made = self.ask("HEAD", self.VERSION, reply.headers["location"])
        self.assertEqual(made.headers["upload-metadata"], "flag, empty ,name YQ==", "as it came")
        self.assertEqual(self.ask("DELETE", self.VERSION, reply.headers["location"]).status, 204)

    def test_termination(self):
        self.assertEqual(self.ask("DELETE", self.VERSION, "/v1/uploads/none").status, 404)
        self.assertEqual(self.ask("DELETE", self.VERSION).status, 204)
        for method, headers in (("HEAD", self.VERSION), ("DELETE", self.VERSION),
                                ("PATCH", {**self.PART, "Upload-Offset": "0"})):
            reply = self.ask(method, headers, body=b"x" if method == "PATCH" else b"")
            self.assertIn(reply.status, (404, 410), method)
            self.assertNotIn("upload-offset", reply.headers)

    def test_the_method_in_a_header(self):
        for method, more, status in (("HEAD", {}, 200), ("PATCH", {"Upload-Offset": "7"}, 409),
                                     ("DELETE", {}, 204)):
            headers = {**self.PART, **more, "X-HTTP-Method-Override": method}
            self.assertEqual(self.ask("POST", headers).status, status, method)

    def continue_of(self, offset, kind="application/offset+octet-stream", path=None):
        """What a part of ten bytes that waits for 100-continue hears, and the socket."""
        connection = self.daemon.connect(timeout=60)
        self.addCleanup(connection.close)
        connection.sendall(
            f"PATCH {path or self.upload.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
            f"Authorization: Bearer {self.daemon.key}\r\nTus-Resumable: 1.0.0\r\n"
            f"Content-Type: {kind}\r\nUpload-Offset: {offset}\r\n"
            "Expect: 100-continue\r\n\r\n".encode())
        return connection.recv(4096).split()[1], connection

    def test_expect_100_continue(self):
        self.assertEqual(self.continue_of(3)[0], b"409")
        self.assertEqual(self.continue_of(0, kind="text/plain")[0], b"415")
        self.assertEqual(self.continue_of(0, path="/v1/uploads/none")[0], b"404")
        with self.upload.begin_part(0, 10):
            wait_until(lambda: self.upload.offset() == 10, 30, "the first bytes")
            self.assertEqual(self.continue_of(10)[0], b"423")
        wait_until(lambda: not self.upload.state()["busy"], 30, "its end")
        status, connection = self.continue_of(10)
        self.assertEqual(status, b"100")
        connection.sendall(self.upload.archive[10:20])
        self.assertEqual(connection.recv(4096).split()[1], b"204")
        self.assertEqual(self.upload.offset(), 20)


def unconfirmed(connection):
    """Bytes the peer's kernel has not confirmed."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0]


class Restarts(unittest.TestCase):
    """What is on disk, after every kind of end."""

    def setUp(self):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        self.daemon = Daemon()
        self.addCleanup(self.daemon.__exit__, None, None, None)

    def info(self, upload):
        return self.daemon.data / "uploads" / (upload.path.rsplit("/", 1)[1] + ".info")

    def kill(self):
        killed = self.daemon.daemon_pid()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self.daemon.daemon_pid() != killed and self.daemon.healthy(), 20,
                   "the next daemon")

    def test_a_killed_daemon_keeps_all_that_was_written(self):
        self.daemon.start()
        upload = Tus(self.daemon, archive_of(3, "killed:1"), ref="killed:1")
        with upload.begin_part(0, 1_000_000):
            wait_until(lambda: upload.offset() == 1_000_000, 30, "bytes")
            self.kill()
        self.assertEqual(upload.offset(), 1_000_000)
        self.assertEqual(upload.patch(1_000_000).status, 204)
        self.assertEqual(upload.state()["images"][0]["ref"], "killed:1")
        self.kill()
        self.assertEqual(upload.state()["images"][0]["ref"], "killed:1", "told after a restart")

    def test_an_orderly_stop_tells_the_sender_and_keeps_the_bytes(self):
        self.daemon.start()
        upload = Tus(self.daemon, archive_of(1, "stopped:1"))
        with upload.begin_part(0, 500_000) as connection:
            wait_until(lambda: upload.offset() == 500_000, 30, "bytes")
            self.assertEqual(self.daemon.stop(seconds=10), 0)
            self.assertIn(b" 503 ", connection.recv(1000).split(b"\r\n")[0])
        self.daemon.start()
        self.assertEqual(upload.offset(), 500_000)
        self.assertEqual(upload.patch(500_000).status, 204)

    def test_after_a_power_cut_only_what_was_synced_counts(self):
        self.daemon.start()
        upload = Tus(self.daemon, archive_of(2, "power:1"))
        self.assertEqual(upload.patch(0, 300_000).status, 204)
        with upload.begin_part(300_000, 200_000):
            wait_until(lambda: upload.offset() == 500_000, 30, "bytes")
            daemon = self.daemon.daemon_pid()
            os.kill(daemon, signal.SIGSTOP)  # or it would stop in good order
            os.kill(self.daemon.process.pid, signal.SIGKILL)
            os.kill(daemon, signal.SIGKILL)
            self.daemon.process.wait()
            wait_until(lambda: not self.daemon.healthy(), 30, "its end")
        time.sleep(0.5)
        # As if the machine had been started since.
        info = self.info(upload)
        head, journal = info.read_text().split("\n", 1)
        document = json.loads(head)
        document["boot"] = "another"
        info.write_text(json.dumps(document) + "\n" + journal + "0000000000000099")
        self.daemon.start()
        self.assertEqual(upload.offset(), 300_000)
        self.assertEqual(info.with_suffix(".data").stat().st_size, 300_000)
        self.assertEqual(upload.patch(300_000).status, 204)

    def test_an_import_that_a_restart_interrupted_is_done_after_it(self):
        self.daemon.start()
        upload = Tus(self.daemon, archive_of(1, "interrupted:1"))
        self.assertEqual(upload.patch(0, 1000).status, 204)
        self.assertEqual(self.daemon.stop(), 0)
        info = self.info(upload)
        info.with_suffix(".data").write_bytes(upload.archive)
        self.daemon.start()
        wait_until(lambda: upload.state()["state"] == "imported", 30, upload.state)

    def test_expired_uploads_and_leftovers_go(self):
        self.daemon.flags = ["--upload-expiry", "1s"]
        self.daemon.start()
        upload = Tus(self.daemon, archive_of(1, "expired:1"))
        self.assertEqual(upload.patch(0, 1000).status, 204)
        wait_until(lambda: upload.ask("HEAD").status == 410, 30, "its end")
        self.assertEqual(upload.patch(1000).status, 410)
        folder = self.daemon.data / "uploads"
        wait_until(lambda: not list(folder.iterdir()), 30, "no files")
        self.assertEqual(self.daemon.stop(), 0)
        for name in ("a" * 32 + ".data", "b" * 32 + ".info.new", "c" * 32 + ".info", "odd"):
            (folder / name).write_text("{")
        self.daemon.start()
        self.assertEqual(list(folder.iterdir()), [])

    def test_a_full_disk_keeps_what_came_before(self):
        self.daemon.data.mkdir(mode=0o711)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=711", "tmpfs",
                        str(self.daemon.data)], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.daemon.data)], check=True)
        os.chown(self.daemon.data, self.daemon.uid, self.daemon.uid)
        self.daemon.flags = ["--reserve-bytes", "1Mi"]
        self.daemon.start()
        self.assertEqual(Tus(self.daemon, b"x" * (60 << 20)).created.status, 507)
        upload = Tus(self.daemon, archive_of(10, "full:1"))
        self.assertEqual(upload.created.status, 201, upload.created)
        self.assertEqual(Tus(self.daemon, b"x" * (40 << 20)).created.status, 507,
                         "what is announced is spoken for")
        stuffing = self.daemon.data / "stuffing"
        stuffing.write_bytes(bytes(42 << 20))
        reply = upload.patch(0)
        self.assertEqual(reply.status, 507, reply)
        kept = upload.offset()
        self.assertLess(kept, len(upload.archive))
        self.assertGreater(kept, 1 << 20)
        stuffing.unlink()
        self.assertEqual(upload.patch(kept).status, 204)
        self.assertEqual(upload.state()["state"], "imported")


class CommandLine(Case):
    def setUp(self):
        self.file = Path(self.daemon.temp) / "archive.tar"
        self.addCleanup(self.file.unlink, missing_ok=True)

    def write(self, tag, megabytes=MEGABYTES):
        archive = archive_of(megabytes, tag)
        self.file.write_bytes(archive)
        return len(archive)

    def command(self, proxy, *more):
        return subprocess.Popen([PULGA, "image", "import", str(self.file), "--resumable", *more],
                                env={"PATH": os.environ["PATH"], "PULGA_URL": proxy.url,
                                     "PULGA_KEY": self.daemon.key},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def finish(self, process):
        out, err = process.communicate(timeout=300)
        self.assertEqual(process.returncode, 0, out + err)
        return out.decode(), err.decode()

    def test_an_import_cut_five_times_sends_nothing_twice(self):
        size = self.write("cut:1")
        cuts = random.Random(MEGABYTES).sample(range(size // 20, size * 19 // 20), 5)
        with CuttingProxy(self.daemon.port, cuts) as proxy:
            out, err = self.finish(self.command(proxy))
            self.assertIn("imported cut:1", out)
            self.assertEqual(err.count("trying again"), 5, err)
            self.assertEqual(proxy.cuts, [])
            print(f"sent {proxy.sent} for {size}: {proxy.sent - size} more", flush=True)
            self.assertLessEqual(proxy.sent, size + OVERHEAD)
        self.daemon.put("cut", {"image": "cut:1", "mode": "exec"})
        self.assertEqual(self.daemon.call("cut", b"say hi").text, "hi\n")

    def test_without_the_option_a_lost_local_connection_is_gone_on_with(self):
        size = self.write("plain:1", 8)
        with CuttingProxy(self.daemon.port, [size // 2, size]) as proxy:
            done = self.daemon.cli("image", "import", str(self.file),
                                   env={"PULGA_URL": proxy.url})
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(b"sending it in parts", done.stderr)
            self.assertIn(b"imported plain:1", done.stdout)

    def test_the_same_command_after_an_interrupt_goes_on(self):
        size = self.write("interrupted:2", 16)
        with CuttingProxy(self.daemon.port, rate=8 << 20) as proxy:
            first = self.command(proxy)
            wait_until(lambda: proxy.sent > size // 2, 30, "half of it")
            first.send_signal(signal.SIGINT)
            first.communicate(timeout=60)
            self.assertNotEqual(first.returncode, 0)
            proxy.rate = None
            out, err = self.finish(self.command(proxy, "--json"))
            self.assertIn("going on at", err)
            self.assertEqual(json.loads(out)["images"][0]["ref"], "interrupted:2")
            self.assertLessEqual(proxy.sent, size + OVERHEAD)

    def test_a_daemon_that_is_killed_meanwhile_is_waited_for(self):
        size = self.write("restarted:1", 16)
        with CuttingProxy(self.daemon.port, rate=8 << 20) as proxy:
            process = self.command(proxy)
            wait_until(lambda: proxy.sent > size // 2, 30, "half of it")
            os.kill(self.daemon.daemon_pid(), signal.SIGKILL)
            out, err = self.finish(process)
            self.assertIn("imported restarted:1", out)
            self.assertIn("trying again", err)
            # What the killed process had not read yet is lost.
            self.assertLessEqual(proxy.sent, size + OVERHEAD + (4 << 20))

    def test_without_the_option_a_killed_daemon_is_waited_for(self):
        self.write("killed:1", 64)
        # To it directly: what the kernel says of a process that is gone is not what a proxy does.
        for n in range(3):
            process = subprocess.Popen(
                [PULGA, "image", "import", str(self.file), "--ref", f"killed:{n}"],
                env={"PATH": os.environ["PATH"], "PULGA_KEY": self.daemon.key,
                     "PULGA_URL": f"http://127.0.0.1:{self.daemon.port}"},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            io = Path(f"/proc/{process.pid}/io")
            while int(io.read_text().split()[1]) < (4 + 16 * n) << 20:
                self.assertIsNone(process.poll())
            process.send_signal(signal.SIGSTOP)
            os.kill(self.daemon.daemon_pid(), signal.SIGKILL)
            process.send_signal(signal.SIGCONT)
            out, err = self.finish(process)
            self.assertIn("sending it in parts", err)
            self.assertIn(f"imported killed:{n}", out)
            self.daemon.cli_ok("image", "rm", f"killed:{n}")

    def test_a_bad_archive_is_not_tried_again(self):
        self.file.write_bytes(b"text " * 1000)
        with CuttingProxy(self.daemon.port) as proxy:
            process = self.command(proxy)
            _, err = process.communicate(timeout=30)
            self.assertNotEqual(process.returncode, 0)
            self.assertNotIn(b"trying again", err)
            self.assertLess(proxy.connections, 6)


if __name__ == "__main__":
    unittest.main()
