"""Pulling from registries: Debian's docker-registry with every kind of authentication, connections
that break, registries that lie, and what the fetching process can see."""

import json
import os
import re
import socket
import time
import unittest
from pathlib import Path

from harness import image_archive as archive
from harness import BIN, Case, Daemon, command_line, free_port, in_parallel, is_alive
from harness import probe_binary, skip_unless, status_of, wait_until
from registry_rig import Authority, FlakyProxy, INDEX, Registry, Server, TokenServer
from registry_rig import basic, need_registry, sha

CONFIG = {"Entrypoint": ["/probe"]}
LARGE = os.urandom(3 << 20)


def small_image(text="hello from a registry\n", **options):
    layers = [archive.layer([archive.Entry("probe", content=probe_binary(), mode=0o755)]),
              archive.layer([archive.Entry("greeting", content=text.encode())])]
    return archive.Image([], layers, CONFIG, **options)


def large_image():
    """Layers that take a while: four, of 3 MiB that do not compress."""
    layers = [archive.layer([archive.Entry(f"blob{n}", content=bytes([n]) + LARGE)])
              for n in range(4)]
    return archive.Image([], layers, CONFIG)


class Pulls(Case):
    """A daemon that may talk to the registries of its own loopback, as each test names them."""

    @classmethod
    def setUpClass(cls):
        need_registry()
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        cls.daemon = Daemon("--config", "")
        cls.config = cls.daemon.temp / "config"
        cls.daemon.flags = ["--config", str(cls.config)]
        cls.config.write_text("pull-stall-timeout = 2s\n")
        cls.config.chmod(0o644)
        cls.addClassCleanup(cls.daemon.__exit__, None, None, None)
        cls.daemon.start()

    def configure(self, **settings):
        """Settings by reload, with every test's own."""
        lines = ["pull-stall-timeout = 2s"]
        lines += [f"{key.replace('_', '-')} = {value}" for key, value in settings.items()]
        self.config.write_text("\n".join(lines) + "\n")
        before = self.daemon.log().count("settings reloaded")
        os.kill(self.daemon.daemon_pid(), 1)
        wait_until(lambda: self.daemon.log().count("settings reloaded") > before, 30, "a reload")

    def pull(self, ref, timeout=60, **fields):
        return self.daemon.api("POST", "/v1/images/pull", {"ref": ref, **fields}, timeout)

    def pull_ok(self, ref, **fields):
        reply = self.pull(ref, **fields)
        self.assertIn(reply.status, (200, 201), repr(reply))
        return reply

    def assert_runs(self, ref, text="hello from a registry\n"):
        self.daemon.put("pulled", {"image": ref, "mode": "exec", "pull": "never"})
        self.assertEqual(self.daemon.call("pulled", b"cat /greeting").text, text)

    def remove_all(self):
        self.daemon.api("DELETE", "/v1/functions/pulled")
        for image in self.daemon.api("GET", "/v1/images").json()["images"]:
            for ref in image["refs"] or [image["digest"]]:
                self.daemon.api("DELETE", "/v1/images/" + ref)

    def spool_files(self):
        """Open unnamed files of the daemon: what a pull holds while it runs."""
        fds = Path(f"/proc/{self.daemon.daemon_pid()}/fd").iterdir()
        return [link for link in (os.readlink(fd) for fd in fds if fd.is_symlink())
                if str(self.daemon.data) in link and "deleted" in link]

    def assert_nothing_left(self):
        wait_until(lambda: self.daemon.process_named("pulga-fetcher") is None, 30, "no fetcher")
        wait_until(lambda: not self.spool_files(), 30, self.spool_files)
        wait_until(lambda: not self.half_unpacked(), 30, self.half_unpacked)

    def half_unpacked(self):
        return [name for name in os.listdir(self.daemon.data / "layers")
                if name.startswith((".staging", ".trash"))]

    def tearDown(self):
        self.remove_all()
        self.assert_nothing_left()
        super().tearDown()


class Plain(Pulls):
    def test_an_image_comes_whole_and_runs(self):
        with Registry() as registry:
            self.configure(plain_http_registries=registry.name)
            registry.push("team/app", "1", small_image())
            ref = f"{registry.name}/team/app:1"
            reply = self.pull_ok(ref)
            self.assertEqual(reply.status, 201)
            self.assertEqual(reply.json()["images"][0]["ref"], ref)
            self.assert_runs(ref)

    def test_pulling_again_fetches_no_layer(self):
        with Registry() as registry, FlakyProxy(registry.port, lambda n: None) as proxy:
            self.configure(plain_http_registries=proxy.name)
            registry.push("app", "1", large_image())
            self.pull_ok(f"{proxy.name}/app:1")
            before = proxy.bytes
            self.assertGreater(before, 12 << 20)
            reply = self.pull_ok(f"{proxy.name}/app:1")
            self.assertEqual(reply.status, 200)
            self.assertLess(proxy.bytes - before, 64 << 10)

    def test_layers_that_are_here_are_not_fetched_for_another_image(self):
        with Registry() as registry, FlakyProxy(registry.port, lambda n: None) as proxy:
            self.configure(plain_http_registries=proxy.name)
            image = large_image()
            registry.push("app", "1", image)
            image.layers.append(archive.layer([archive.Entry("more", content=b"more")]))
            registry.push("app", "2", image)
            self.pull_ok(f"{proxy.name}/app:1")
            before = proxy.bytes
            self.pull_ok(f"{proxy.name}/app:2")
            self.assertLess(proxy.bytes - before, 64 << 10)

    def test_several_at_once_make_each_layer_once(self):
        with Registry() as registry:
            self.configure(plain_http_registries=registry.name)
            registry.push("app", "1", large_image())
            replies = in_parallel(3, lambda n: self.pull(f"{registry.name}/app:1"))
            self.assertEqual({reply.status for reply in replies} - {200, 201}, set(), replies)
            made = [layer["diff_id"] for reply in replies for image in reply.json()["images"]
                    for layer in image["layers"] if not layer["reused"]]
            self.assertEqual(len(made), 4, made)

    def test_an_index_gives_this_boards_image(self):
        with Registry() as registry:
            self.configure(plain_http_registries=registry.name)
            foreign = small_image("wrong\n", architecture="s390x")
            digest = registry.push_index("app", "multi", [foreign, small_image()])
            self.pull_ok(f"{registry.name}/app:multi")
            self.assert_runs(f"{registry.name}/app:multi")
            by_digest = f"{registry.name}/app@{digest}"
            self.pull_ok(by_digest)
            self.assert_runs(by_digest)
            registry.push_index("app", "foreign", [foreign])
            self.assert_error(self.pull(f"{registry.name}/app:foreign"), 422, "bad_image",
                              "linux/s390x")

    def test_what_is_not_there_is_said(self):
        with Registry() as registry:
            self.configure(plain_http_registries=registry.name)
            self.assert_error(self.pull(f"{registry.name}/nobody:1"), 404, "image_not_found",
                              "nobody")

    def test_plain_http_only_where_it_is_named(self):
        with Registry() as registry:
            self.configure()
            registry.push("app", "1", small_image())
            self.assert_error(self.pull(f"{registry.name}/app:1"), 502, "registry_error",
                              "plain-http-registries")

    def test_names_and_bodies_are_checked(self):
        for ref in ("", "UPPER", "a b", "../x", "x@sha256:12"):
            reply = self.pull(ref)
            self.assertEqual(reply.status, 400, ref)
        for body in ("", "[]", '{"ref":"a","ref":"b"}', '{"ref":"a","x":1}',
                     '{"ref":"a","auth":"%%%"}', '{"ref":5}'):
            reply = self.daemon.request("POST", "/v1/images/pull", body, {}, 10, True)
            self.assertEqual(reply.status, 400, body)
        self.assertEqual(self.daemon.request("POST", "/v1/images/pull", "{}").status, 401)

    def test_progress_comes_as_lines(self):
        with Registry() as registry:
            self.configure(plain_http_registries=registry.name)
            registry.push("app", "1", large_image())
            reply = self.daemon.request(
                "POST", "/v1/images/pull", json.dumps({"ref": f"{registry.name}/app:1"}),
                {"Accept": "application/x-ndjson"}, 60, True)
            lines = [json.loads(line) for line in reply.text.splitlines()]
            self.assertEqual(reply.headers["content-type"], "application/x-ndjson")
            self.assertEqual(list(lines[-1]), ["result"])
            progress = [line["progress"] for line in lines[:-1]]
            whole = {p["layer"]: p["size"] for p in progress if p["bytes"] == p["size"]}
            self.assertEqual(len(whole), 4)
            self.assertEqual(sum(whole.values()), progress[0]["total_size"])
            missing = self.daemon.request(
                "POST", "/v1/images/pull", json.dumps({"ref": f"{registry.name}/no:1"}),
                {"Accept": "application/x-ndjson"}, 60, True)
            self.assertEqual(json.loads(missing.text)["error"]["code"], "image_not_found")

    def test_the_command_line_pulls(self):
        with Registry() as registry:
            self.configure(plain_http_registries=registry.name)
            registry.push("app", "1", small_image())
            ref = f"{registry.name}/app:1"
            self.assertIn("pulled " + ref, self.daemon.cli_ok("pull", ref))
            self.assertIn("2 already here", self.daemon.cli_ok("image", "pull", ref))
            failed = self.daemon.cli("pull", f"{registry.name}/app:2")
            self.assertEqual(failed.returncode, 1)
            self.assertIn("manifest unknown", failed.stderr.decode())


class Authenticated(Pulls):
    def test_a_password_file(self):
        with Registry(users={"tess": "let-me-in"}) as registry:
            self.configure(plain_http_registries=registry.name)
            registry.push("app", "1", small_image())
            ref = f"{registry.name}/app:1"
            self.assert_error(self.pull(ref), 403, "registry_denied", "credentials")
            wrong = basic("tess", "wrong").split()[1]
            self.assert_error(self.pull(ref, auth=wrong), 403, "registry_denied")
            self.pull_ok(ref, auth=basic("tess", "let-me-in").split()[1])
            self.remove_all()
            self.pull_ok(ref, auth={"username": "tess", "password": "let-me-in"})
            self.remove_all()
            done = self.daemon.cli("pull", ref, "--user", "tess", "--password-stdin",
                                   stdin=b"let-me-in\n")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotIn("let-me-in", self.daemon.log())

    def test_the_administrators_file(self):
        with Registry(users={"tess": "let-me-in"}) as registry:
            path = self.daemon.data / "registry-auth.json"
            path.write_text(json.dumps({"auths": {
                registry.name: {"auth": basic("tess", "let-me-in").split()[1]}}}))
            os.chown(path, self.daemon.uid, self.daemon.uid)
            path.chmod(0o600)
            self.addCleanup(path.unlink)
            self.configure(plain_http_registries=registry.name)
            registry.push("app", "1", small_image())
            self.pull_ok(f"{registry.name}/app:1")
            path.write_text("{broken")
            self.assert_error(self.pull(f"{registry.name}/app:1"), 500, "internal_error",
                              "credentials")

    def test_a_token_server(self):
        authority = self.authority()
        with TokenServer(authority) as tokens, Registry(token=tokens) as registry:
            self.configure(plain_http_registries=f"{registry.name},{tokens.name}")
            registry.push("team/app", "1", large_image())
            ref = f"{registry.name}/team/app:1"
            self.assert_error(self.pull(ref), 403, "registry_denied", tokens.name)
            self.pull_ok(ref, auth=basic("tess", "let-me-in").split()[1])
            asked = tokens.asked("scope=repository%3Ateam%2Fapp%3Apull")
            # One for the refused pull, one for the documents, one for all layers together.
            self.assertEqual(len(asked), 3, tokens.seen)
            self.assertNotIn("let-me-in", self.daemon.log())

    def test_tls_by_an_authority_of_ones_own(self):
        authority = self.authority()
        with Registry(tls=authority) as registry:
            registry.push("app", "1", small_image())
            ref = f"localhost:{registry.port}/app:1"
            self.configure()
            self.assert_error(self.pull(ref), 502, "registry_error", "certificate")
            self.configure(plain_http_registries=registry.name)
            self.assertEqual(self.pull(ref).status, 502)
            self.configure(registry_ca=authority.ca)
            self.pull_ok(ref)
            self.assert_runs(ref)

    def authority(self):
        folder = self.daemon.temp / f"ca{time.monotonic_ns()}"
        folder.mkdir()
        authority = Authority(folder)
        authority.ca.chmod(0o644)
        return authority


class Troubled(Pulls):
    def test_cut_connections_go_on_where_they_were_cut(self):
        with Registry() as registry:
            # Each connection of the first nine carries a megabyte and a half, then it breaks.
            with FlakyProxy(registry.port, lambda n: 1_500_000 if n < 9 else None) as proxy:
                self.configure(plain_http_registries=proxy.name)
                registry.push("app", "1", large_image())
                self.pull_ok(f"{proxy.name}/app:1")
                self.assertGreater(proxy.count, 5)
                self.assertLess(proxy.bytes, 14 << 20)  # of 12 MiB: nothing came twice

    def test_stalled_connections_are_given_up(self):
        with Registry() as registry:
            with FlakyProxy(registry.port, lambda n: -1_000_000 if n == 1 else None) as proxy:
                self.configure(plain_http_registries=proxy.name)
                registry.push("app", "1", large_image())
                begun = time.monotonic()
                self.pull_ok(f"{proxy.name}/app:1")
                self.assertTrue(proxy.stalled.is_set())
                self.assertGreater(time.monotonic() - begun, 2)

    def test_a_daemon_that_dies_in_the_middle_leaves_nothing(self):
        with Registry() as registry:
            with FlakyProxy(registry.port, lambda n: -4_000_000 if n > 0 else None) as proxy:
                self.config.write_text(f"plain-http-registries = {proxy.name}\n")
                self.reload()
                registry.push("app", "1", large_image())
                with self.begin(f"{proxy.name}/app:1"):
                    self.stalled_fetcher(proxy)
                    ours = list(self.daemon.processes())
                    self.daemon.process.kill()
                    self.daemon.process.wait()
                wait_until(lambda: not any(map(is_alive, ours)), 20,
                           lambda: [command_line(pid) for pid in ours if is_alive(pid)])
                self.daemon.start()
                self.assertEqual(self.daemon.api("GET", "/v1/images").json()["images"], [])
                layers = self.daemon.data / "layers"
                wait_until(lambda: os.listdir(layers) in ([], [".mnt"]), 20,
                           lambda: os.listdir(layers))
            registry.push("app", "2", small_image())
            self.configure(plain_http_registries=registry.name)
            self.pull_ok(f"{registry.name}/app:2")

    def reload(self):
        before = self.daemon.log().count("settings reloaded")
        os.kill(self.daemon.daemon_pid(), 1)
        wait_until(lambda: self.daemon.log().count("settings reloaded") > before, 30, "a reload")

    def begin(self, ref):
        """Sends a pull and does not wait for its answer."""
        body = json.dumps({"ref": ref})
        connection = self.daemon.connect()
        connection.sendall((f"POST /v1/images/pull HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                            f"{self.daemon.key}\r\nContent-Length: {len(body)}\r\n\r\n"
                            + body).encode())
        return connection

    def stalled_fetcher(self, proxy):
        self.assertTrue(proxy.stalled.wait(20))
        return wait_until(lambda: self.daemon.process_named("pulga-fetcher"), 30, "a fetcher")

    def test_a_client_that_leaves_ends_the_pull(self):
        with Registry() as registry:
            with FlakyProxy(registry.port, lambda n: -4_000_000 if n > 0 else None) as proxy:
                self.config.write_text(f"plain-http-registries = {proxy.name}\n")
                self.reload()
                registry.push("app", "1", large_image())
                with self.begin(f"{proxy.name}/app:1"):
                    self.stalled_fetcher(proxy)
                self.assert_nothing_left()
                self.assertEqual(self.daemon.api("GET", "/v1/images").json()["images"], [])

    def test_a_stop_does_not_wait_for_a_registry(self):
        with Registry() as registry:
            with FlakyProxy(registry.port, lambda n: -4_000_000 if n > 0 else None) as proxy:
                self.config.write_text(f"plain-http-registries = {proxy.name}\n")
                self.reload()
                registry.push("app", "1", large_image())
                with self.begin(f"{proxy.name}/app:1") as client:
                    fetcher = self.stalled_fetcher(proxy)
                    begun = time.monotonic()
                    self.assertEqual(self.daemon.stop(), 0)
                    self.assertLess(time.monotonic() - begun, 10)
                    self.assertIn(b"503", client.recv(4096))
                self.assertFalse(is_alive(fetcher))
                self.daemon.start()

    def test_the_fetcher_sees_next_to_nothing(self):
        with Registry() as registry:
            with FlakyProxy(registry.port, lambda n: -4_000_000 if n > 0 else None) as proxy:
                self.config.write_text(f"plain-http-registries = {proxy.name}\n")
                self.reload()
                registry.push("app", "1", large_image())
                with self.begin(f"{proxy.name}/app:1"):
                    self.check_walls(self.stalled_fetcher(proxy))

    def check_walls(self, pid):
        status = status_of(pid)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[name], 16), 0, name)
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        self.assertEqual(Path(f"/proc/{pid}/oom_score_adj").read_text(), "0\n")  # the keeper: -900
        self.assertEqual(set(status["Uid"].split()), {str(0x79FE0000)})
        self.assertEqual(status["Groups"], "")
        own = os.stat("/proc/self/ns/user").st_ino
        for name in ("user", "mnt", "pid", "ipc", "uts"):
            inside, outside = (os.stat(f"/proc/{p}/ns/{name}").st_ino for p in (pid, "self"))
            self.assertNotEqual(inside, outside, name)
        self.assertNotEqual(own, os.stat(f"/proc/{pid}/ns/user").st_ino)
        # Its whole world: a handful of small files, on one read-only mount.
        seen = [str(path.relative_to(f"/proc/{pid}/root"))
                for path in Path(f"/proc/{pid}/root").rglob("*")]
        self.assertLess(len(seen), 14, seen)
        self.assertTrue(all(path.startswith("etc") for path in seen), seen)
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        self.assertEqual(len(mounts), 1, mounts)
        self.assertIn(" ro,", mounts[0])
        # What it holds: its order, its output, its channel, sockets; no directory of the host.
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            if int(fd.name) > 2:  # those are the daemon's own log
                self.assertRegex(os.readlink(fd), r"^(socket:|pipe:|anon_inode:|/dev/null|"
                                                  r"/memfd:request|/.*\(deleted\)$)")
        resident = int(status["VmRSS"].split()[0])
        print(f"the fetcher holds {resident} KiB resident, {status['VmHWM']} at most")
        self.assertLess(resident, 32 << 10)

    def test_a_proxy_is_used_and_asked_by_name(self):
        lines = []
        with Server(lambda handler: (404, {}, b"")) as proxy:
            # What it was asked to connect to is all we want to know.
            def do_connect(handler):
                lines.append(handler.path)
                handler.send_error(403)
            proxy.RequestHandlerClass.do_CONNECT = do_connect
            self.configure(https_proxy=f"http://{proxy.name}", no_proxy="127.0.0.1")
            self.assert_error(self.pull("somebody/app:1"), 502, "registry_error")
            self.assertTrue(lines and lines[0].endswith(":443"), lines)
            self.assertTrue(lines[0].startswith("registry"), lines)
            count = len(lines)
            self.pull(f"127.0.0.1:{free_port()}/app:1")
            self.assertEqual(len(lines), count)


class Hostile(Pulls):
    """Registries that lie, from the standard library's HTTP server."""

    def serve(self, documents, blobs=None, answer=None):
        """A registry of one image: documents by path, blobs by digest."""
        blobs = blobs or {}

        def give(handler):
            if answer is not None:
                special = answer(handler)
                if special is not None:
                    return special
            leaf = handler.path.rsplit("/", 1)[1]
            for table in (documents, blobs):
                if leaf in table:
                    return 200, {}, table[leaf]
            return 404, {}, b'{"errors":[{"code":"UNKNOWN"}]}'

        server = Server(give)
        server.__enter__()
        self.addCleanup(server.__exit__)
        self.configure(plain_http_registries=server.name)
        return server

    def documents(self, image=None):
        image = image or small_image()
        blobs, descriptor, layers = archive.oci_documents(image)
        by_digest = {"sha256:" + digest: data for digest, data in blobs.items()}
        return {"1": by_digest[descriptor["digest"]]}, by_digest, layers

    def test_wrong_bytes_are_refused(self):
        documents, blobs, layers = self.documents()
        digest = layers[1]["digest"]
        blobs[digest] = bytes(reversed(blobs[digest]))
        server = self.serve(documents, blobs)
        self.assert_error(self.pull(f"{server.name}/app:1"), 422, "bad_image", digest)
        self.assertEqual(self.daemon.api("GET", "/v1/images").json()["images"], [])

    def test_more_bytes_than_promised_are_refused(self):
        documents, blobs, layers = self.documents()
        blobs[layers[1]["digest"]] += b"x" * 1000
        server = self.serve(documents, blobs)
        self.assert_error(self.pull(f"{server.name}/app:1"), 422, "bad_image", "manifest says")

    def test_sizes_beyond_the_quota_are_refused_before_a_byte_comes(self):
        documents, blobs, layers = self.documents()
        manifest = json.loads(documents["1"])
        manifest["layers"][0]["size"] = 1 << 40
        server = self.serve({"1": json.dumps(manifest).encode()}, blobs)
        self.assert_error(self.pull(f"{server.name}/app:1"), 413, "too_large", "upload-bytes")
        self.assertEqual(server.asked(layers[0]["digest"]), [])

    def test_hostile_documents_are_refused(self):
        deep = b'{"manifests":' + b"[" * 5000 + b"]" * 5000 + b"}"
        both = b'{"manifests":[],"layers":[],"config":{}}'
        loop = b'{"schemaVersion":2,"manifests":[]}'
        wide = b'{"x":[' + b"0," * 100000 + b"0]}"
        for data in (b"", b"{", b"[]", b"null", b"\xff" * 100, deep, both, loop, wide,
                     b"{" + b" " * (4 << 20) + b"}",
                     b'{"schemaVersion":1,"fsLayers":[]}',
                     b'{"config":{"digest":"sha256:../../etc","size":1},"layers":[]}',
                     b'{"config":{"digest":"' + sha(b"x").encode() + b'","size":-1},"layers":[]}'):
            with self.subTest(data[:60]):
                server = self.serve({"1": data})
                reply = self.pull(f"{server.name}/app:1")
                self.assertIn(reply.status, (413, 422, 404), repr(reply))
                self.assertIn(reply.json()["error"]["code"], ("bad_image", "too_large"))

    def test_manifests_of_schema_1_are_named(self):
        old = (b'{"schemaVersion":1,"name":"app","tag":"1","architecture":"amd64","fsLayers":'
               b'[{"blobSum":"' + sha(b"x").encode() + b'"}],"history":[]}')
        server = self.serve({"1": old})
        self.assert_error(self.pull(f"{server.name}/app:1"), 422, "bad_image", "schema 1")
        self.assertEqual(server.asked("/blobs/"), [])

    def test_what_a_manifest_is_called_does_not_matter(self):
        """Only what it holds does: some registries say octet-stream, some text/html."""
        documents, blobs, _ = self.documents()

        def answer(handler):
            if "/manifests/" in handler.path:
                return 200, {"Content-Type": "text/html", "ETag": '"x"',
                             "Docker-Content-Digest": sha(b"a lie")}, documents["1"]
            return None
        server = self.serve(documents, blobs, answer)
        self.pull_ok(f"{server.name}/app:1")

    def test_another_manifest_than_the_named_one_is_refused(self):
        documents, blobs, _ = self.documents()
        wrong = sha(b"another")
        server = self.serve({wrong: documents["1"]}, blobs)
        self.assert_error(self.pull(f"{server.name}/app@{wrong}"), 422, "bad_image", wrong)

    def test_an_html_page_is_no_manifest(self):
        """What a captive portal answers to everything."""
        server = self.serve({}, {}, lambda _: (200, {"Content-Type": "text/html"},
                                               b"<html>Please log in</html>"))
        self.assert_error(self.pull(f"{server.name}/app:1"), 422, "bad_image")

    def test_redirects_lose_the_credentials(self):
        documents, blobs, _ = self.documents()
        with Server(lambda handler: (200, {}, blobs[handler.path[1:]])) as storage:
            def answer(handler):
                if "Authorization" not in handler.headers:
                    return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
                if "/blobs/" in handler.path:
                    where = f"http://{storage.name}/" + handler.path.rsplit("/", 1)[1]
                    return 307, {"Location": where}, b""
                return None
            server = self.serve(documents, blobs, answer)
            self.configure(plain_http_registries=f"{server.name},{storage.name}")
            self.pull_ok(f"{server.name}/app:1", auth=basic("u", "p").split()[1])
            self.assertEqual(len(storage.seen), 3)
            self.assertEqual([h for _, h in storage.seen if "Authorization" in h], [])

    def test_redirects_to_where_nobody_should_look_are_refused(self):
        documents, blobs, _ = self.documents()
        where = {}

        def answer(handler):
            if "/blobs/" in handler.path:
                return 302, {"Location": where["to"]}, b""
            return None
        server = self.serve(documents, blobs, answer)
        for target in ("http://127.0.0.1:1/x", "https://169.254.169.254/latest",
                       "file:///etc/passwd", "gopher://x/", "https://user@127.0.0.1/"):
            where["to"] = target
            reply = self.pull(f"{server.name}/app:1")
            self.assertIn(reply.status, (403, 422), repr(reply))

    def test_a_busy_registry_is_asked_again(self):
        documents, blobs, _ = self.documents()
        asked = []

        def answer(handler):
            asked.append(time.monotonic())
            if len(asked) == 1:
                return 429, {"Retry-After": "1"}, b""
            return (503, {}, b"") if len(asked) == 2 else None
        server = self.serve(documents, blobs, answer)
        self.pull_ok(f"{server.name}/app:1")
        self.assertGreater(asked[1] - asked[0], 0.9)


class Policy(Pulls):
    def test_deploying_pulls_what_is_not_here(self):
        with Registry() as registry:
            self.configure(plain_http_registries=registry.name)
            registry.push("app", "1", small_image())
            ref = f"{registry.name}/app:1"
            self.daemon.put("pulled", {"image": ref, "mode": "exec"}, expect=(201,))
            self.assertEqual(self.daemon.call("pulled", b"cat /greeting").text,
                             "hello from a registry\n")
            out = self.daemon.cli_ok("deploy", "pulled", "--image", ref, "--mode", "exec")
            self.assertNotIn("pulled " + ref, out)

    def test_the_command_line_shows_what_it_pulls(self):
        with Registry() as registry:
            self.configure(plain_http_registries=registry.name)
            registry.push("app", "1", small_image())
            ref = f"{registry.name}/app:1"
            out = self.daemon.cli_ok("deploy", "pulled", "--image", ref, "--mode", "exec")
            self.assertIn("pulled " + ref, out)

    def test_nothing_is_asked_when_the_image_is_here(self):
        with Server(lambda handler: (500, {}, b"")) as server:
            self.configure(plain_http_registries=server.name)
            image = small_image("local\n")
            image.tags = ["app:1"]
            self.daemon.import_archive(archive.docker_archive([image]),
                                       query=f"?ref={server.name}/app:1")
            for policy in ("if-not-present", "never"):
                self.daemon.put("pulled", {"image": f"{server.name}/app:1", "mode": "exec",
                                           "pull": policy})
            self.assertEqual(self.daemon.call("pulled", b"cat /greeting").text, "local\n")
            self.assertEqual(server.seen, [])

    def test_always_asks_and_takes_what_is_new(self):
        with Registry() as registry:
            self.configure(plain_http_registries=registry.name)
            ref = f"{registry.name}/app:1"
            spec = {"image": ref, "mode": "exec", "pull": "always"}
            registry.push("app", "1", small_image("old\n"))
            self.daemon.put("pulled", spec)
            registry.push("app", "1", small_image("new\n"))
            self.daemon.put("pulled", {**spec, "pull": "if-not-present"})
            self.assertEqual(self.daemon.call("pulled", b"cat /greeting").text, "old\n")
            self.daemon.put("pulled", spec)
            self.assertEqual(self.daemon.call("pulled", b"cat /greeting").text, "new\n")
        # Gone now: whoever says "always" is told, and what runs goes on running.
        reply = self.daemon.api("PUT", "/v1/functions/pulled", {**spec, "env": {"A": "b"}})
        self.assertEqual(reply.status, 503, repr(reply))
        self.assertIn("always", reply.json()["error"]["message"])
        self.assertEqual(self.daemon.call("pulled", b"cat /greeting").text, "new\n")

    def test_never_and_offline_say_what_is_the_matter(self):
        ref = f"127.0.0.1:{free_port()}/app:1"
        self.configure(plain_http_registries=ref.split("/")[0])
        reply = self.daemon.api("PUT", "/v1/functions/pulled", {"image": ref, "pull": "never"})
        self.assertEqual(reply.status, 404, repr(reply))
        self.assertIn("never", reply.json()["error"]["message"])
        begun = time.monotonic()
        reply = self.daemon.api("PUT", "/v1/functions/pulled", {"image": ref})
        self.assertEqual(reply.status, 503, repr(reply))
        self.assertIn("not here", reply.json()["error"]["message"])
        self.assertIn("connect", reply.json()["error"]["message"])
        self.assertLess(time.monotonic() - begun, 10)
        done = self.daemon.cli("deploy", "pulled", "--image", ref)
        self.assertEqual(done.returncode, 1)
        self.assertIn("not here", done.stderr.decode())


class Linking(unittest.TestCase):
    def test_the_daemon_knows_no_libcurl(self):
        for name, expected in (("pulga", False), ("pulga-launcher", False),
                               ("pulga-unpacker", False), ("pulga-fetcher", True)):
            data = (BIN / name).read_bytes()
            self.assertEqual(b"libcurl" in data, expected, name)
            self.assertEqual(bool(re.search(rb"curl_(easy|multi)_", data)), expected, name)


if __name__ == "__main__":
    unittest.main()
