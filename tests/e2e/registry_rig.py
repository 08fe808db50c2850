"""Registries for tests: Debian's docker-registry on loopback with every kind of authentication, a
token server, a proxy that cuts and stalls, a certificate authority, and a registry of a test's own
that misbehaves. Images are pushed by plain HTTP."""

import base64
import crypt
import hashlib
import http.client
import http.server
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

from harness import free_port, image_archive, skip_unless, wait_until

MANIFEST = image_archive.MEDIA_MANIFEST
INDEX = image_archive.MEDIA_INDEX


def need_registry():
    skip_unless(shutil.which("docker-registry"),
                "docker-registry is not installed: scripts/setup test")


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Authority:
    """A certificate authority and one server certificate for 127.0.0.1 and localhost."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.ca, self.key, self.cert = (self.folder / n for n in ("ca.pem", "key.pem", "cert.pem"))
        ca_key, request = self.folder / "ca.key", self.folder / "request"
        self.run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                 "/CN=test authority", "-keyout", ca_key, "-out", self.ca)
        self.run("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout",
                 self.key, "-out", request)
        names = self.folder / "names"
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self.run("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-days", "2",
                 "-CAcreateserial", "-extfile", names, "-out", self.cert)

    @staticmethod
    def run(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)


class Registry:
    """docker-registry with its own storage. Use as a context manager."""

    def __init__(self, users=None, token=None, tls=None):
        self.folder = Path(tempfile.mkdtemp(prefix="pulga-registry-", dir="/tmp"))
        self.port = free_port()
        self.name = f"127.0.0.1:{self.port}"
        self.tls = tls
        self.authorization = basic(*next(iter(users.items()))) if users else None
        self.token = token
        config = {
            "version": 0.1, "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}},
            "http": {"addr": self.name, "secret": "for tests"}}
        if users:
            lines = [f"{u}:{crypt.crypt(p, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))}"
                     for u, p in users.items()]
            (self.folder / "htpasswd").write_text("\n".join(lines) + "\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self.folder / "htpasswd")}}
        if token:
            config["auth"] = {"token": {"realm": token.realm, "service": token.service,
                                        "issuer": token.issuer,
                                        "rootcertbundle": str(token.authority.ca)}}
        if tls:
            config["http"]["tls"] = {"certificate": str(tls.cert), "key": str(tls.key)}
        (self.folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        self.process = None

    def __enter__(self):
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(self.folder / "config.yml")], stdout=log,
                stderr=log, stdin=subprocess.DEVNULL)
        wait_until(self.listens, 20, "docker-registry listens")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def listens(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def request(self, method, path, body=b"", headers=None, repository=""):
        headers = dict(headers or {})
        if self.token:
            headers["Authorization"] = "Bearer " + self.token.make(repository, ["pull", "push"])
        elif self.authorization:
            headers["Authorization"] = self.authorization
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if self.tls:
            import ssl  # pylint: disable=import-outside-toplevel
            context = ssl.create_default_context(cafile=self.tls.ca)
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30,
                                                     context=context)
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        data = reply.read()
        connection.close()
        if reply.status >= 300:
            raise AssertionError(f"{method} {path}: {reply.status} {data!r}")
        return reply

    def push_blob(self, repository, data):
        begun = self.request("POST", f"/v2/{repository}/blobs/uploads/", repository=repository)
        where = urllib.parse.urlsplit(begun.getheader("Location"))
        query = (where.query + "&" if where.query else "") + "digest=" + sha(data)
        self.request("PUT", f"{where.path}?{query}", data,
                     {"Content-Type": "application/octet-stream"}, repository)

    def push_manifest(self, repository, reference, data, kind=MANIFEST):
        self.request("PUT", f"/v2/{repository}/manifests/{reference}", data,
                     {"Content-Type": kind}, repository)

    def push(self, repository, tag, image, gzip_layers=True):
        """Pushes an image; its manifest's descriptor."""
        blobs, descriptor, _ = image_archive.oci_documents(image, gzip_layers)
        manifest = blobs.pop(descriptor["digest"].split(":")[1])
        for data in blobs.values():
            self.push_blob(repository, data)
        self.push_manifest(repository, tag, manifest)
        return descriptor

    def push_index(self, repository, tag, images, gzip_layers=True):
        descriptors = [self.push(repository, f"part{n}", image, gzip_layers)
                       for n, image in enumerate(images)]
        index = image_archive.as_json(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": descriptors})
        self.push_manifest(repository, tag, index, INDEX)
        return sha(index)


class Server(http.server.ThreadingHTTPServer):
    """`answer(handler)` gives (status, headers, body); every request is kept in `seen`."""

    daemon_threads = True

    def __init__(self, answer):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # pylint: disable=invalid-name
                server.seen.append((self.path, dict(self.headers)))
                status, headers, body = server.answer(self)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    pass

            def do_POST(self):  # pylint: disable=invalid-name
                self.form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                self.do_GET()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.seen = answer, []
        self.name = f"127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.thread.join()

    def asked(self, word):
        return [path for path, _ in self.seen if word in path]


class TokenServer(Server):
    """Signs tokens that docker-registry believes, for whoever has the password."""

    service, issuer = "test registry", "test issuer"

    def __init__(self, authority, user="tess", password="let-me-in"):
        super().__init__(self.give)
        self.authority, self.password = authority, basic(user, password)
        self.realm = f"http://{self.name}/token"
        pem = authority.cert.read_text().split("-----")
        self.certificate = pem[2].replace("\n", "")

    def make(self, repository, actions):
        now = int(time.time())
        parts = [{"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]},
                 {"iss": self.issuer, "aud": self.service, "sub": "tess", "exp": now + 300,
                  "nbf": now - 10, "iat": now, "jti": str(now),
                  "access": [{"type": "repository", "name": repository, "actions": actions}]}]
        text = ".".join(self.encode(json.dumps(part).encode()) for part in parts)
        signed = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(self.authority.key)],
                                input=text.encode(), capture_output=True, check=True).stdout
        return text + "." + self.encode(signed)

    @staticmethod
    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def give(self, handler):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        if handler.headers.get("Authorization") != self.password:
            return 401, {}, b"{}"
        kind, name, actions = query["scope"][0].rsplit(":", 2)
        assert kind.startswith("repository")
        name = f"{kind}:{name}".removeprefix("repository:")
        return 200, {}, json.dumps({"token": self.make(name, actions.split(","))}).encode()


class FlakyProxy:
    """TCP in front of a registry. `plan(n)` says for the n-th connection, from 0, after how many
    bytes of reply it is cut (an int), stalled (-int), or None: left alone."""

    def __init__(self, target_port, plan):
        self.target, self.plan = target_port, plan
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.name = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.count, self.open, self.stalled, self.bytes = 0, [], threading.Event(), 0
        self.thread = threading.Thread(target=self.accept, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for s in self.open:
            s.close()
        self.thread.join()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            limit, self.count = self.plan(self.count), self.count + 1
            self.open += [client, server]
            threading.Thread(target=self.copy, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, limit), daemon=True).start()

    def copy(self, source, sink, limit):
        left = None if limit is None else abs(limit)
        try:
            while left is None or left > 0:
                data = source.recv(65536 if left is None else min(left, 65536))
                if not data:
                    break
                sink.sendall(data)
                if limit is not None or source.getpeername()[1] == self.target:
                    self.bytes += len(data)
                left = None if left is None else left - len(data)
            if left == 0 and limit < 0:
                self.stalled.set()
                return  # both ends stay open, and silent
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
