"""Bad input: the documented status, a message that says what to do, and nothing left behind."""

import gzip
import json
import socket
import time
import unittest

from harness import image_archive as archive
import leaks
from harness import Case, IMAGES, image_of, in_parallel, probe_binary, wait_until
from image_archive import Entry, Image


def left_since(before, daemon):
    return [line for line in before.differences(leaks.Snapshot(daemon))
            if line.startswith(("data_files", "cgroups", "mounts", "launcher_mounts"))]


class Archives(Case):
    @classmethod
    def prepare(cls):
        cls.good = (IMAGES / "probe.tar").read_bytes()
        cls.daemon.import_archive(cls.good)
        cls.daemon.put("probe", {"image": "probe:1", "mode": "exec"})
        cls.daemon.call("probe", b"say first")
        cls.before = leaks.quiet_snapshot(cls.daemon)

    def send(self, data, query="", headers=None):
        return self.daemon.request("POST", "/v1/images" + query, data, headers, 60, True)

    def tearDown(self):
        super().tearDown()
        self.assertEqual(self.daemon.call("probe", b"say alive").text, "alive\n")
        wait_until(lambda: not left_since(self.before, self.daemon), 30,
                   lambda: left_since(self.before, self.daemon))

    def refused(self, data, statuses=(400, 415, 422), query=""):
        reply = self.send(data, query)
        self.assertIn(reply.status, statuses, repr(reply))
        error = reply.json()["error"]
        self.assertRegex(error["code"], "^[a-z_]+$")
        self.assertGreater(len(error["message"]), 10, repr(reply))
        self.assertNotIn(str(self.daemon.data), reply.text)
        return error

    def test_an_empty_body(self):
        self.assertIn("archive", self.refused(b"")["message"].lower())

    def test_things_that_are_no_archive(self):
        for data in (b"x", b"hello world\n" * 100, b"\x7fELF" + b"\0" * 5000, b"\0" * 10240,
                     b"\x1f\x8b", b"PK\x03\x04" + b"a" * 2000, json.dumps([1]).encode()):
            self.refused(data)

    def test_a_tar_of_something_else(self):
        error = self.refused(archive.pack([("README", b"hello")]))
        self.assertIn("manifest.json", error["message"])

    def test_truncated_at_many_places(self):
        for cut in list(range(512, len(self.good), 2048)) + [len(self.good) // 2 + 7]:
            reply = self.send(self.good[:cut], "?ref=cut:1")
            if reply.status in (200, 201):  # only the end-of-archive blocks were missing
                self.assertGreater(cut, len(self.good) - 12000)
            else:
                self.assertIn(reply.status, (400, 415, 422), repr(reply))
        self.daemon.api("DELETE", "/v1/images/cut:1")

    def test_truncated_gzip(self):
        packed = gzip.compress(self.good, mtime=0)
        for cut in (10, 100, len(packed) // 2, len(packed) - 4):
            self.refused(packed[:cut])

    def test_flipped_bits_are_noticed(self):
        """In a layer that is not there yet; what is there already is not read again."""
        image = image_of({"noise": bytes(range(256)) * 40}, "flipped:1", Entrypoint=["/noise"])
        good = archive.docker_archive([image])
        layer_at = good.index(image.layers[0])
        for at in range(layer_at, layer_at + len(image.layers[0]), 397):
            flipped = bytearray(good)
            flipped[at] ^= 0x10
            self.refused(bytes(flipped))
        self.daemon.import_archive(good)
        self.assertEqual(self.daemon.api("DELETE", "/v1/images/flipped:1").status, 204)

    def test_a_layer_that_does_not_match_its_diff_id(self):
        image = image_of({"probe": probe_binary()}, "lie:1", Entrypoint=["/probe"])
        config = json.loads(image.config_bytes())
        config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
        members = [("c.json", json.dumps(config).encode()), ("l/layer.tar", image.layers[0]),
                   ("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["lie:1"],
                                                  "Layers": ["l/layer.tar"]}]).encode())]
        error = self.refused(archive.pack(members))
        self.assertIn("digest", error["message"].lower() + "diff_id digest")

    def test_fewer_layers_than_diff_ids(self):
        image = Image(["few:1"], [archive.layer([Entry("a")]), archive.layer([Entry("b")])],
                      {"Cmd": ["/a"]})
        members = [("c.json", image.config_bytes()), ("l/layer.tar", image.layers[0]),
                   ("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": None,
                                                  "Layers": ["l/layer.tar"]}]).encode())]
        self.refused(archive.pack(members), query="?ref=few:1")

    def manifest_only(self, manifest, config=b"{}"):
        return archive.pack([("manifest.json", manifest), ("c.json", config)])

    def test_manifests_of_the_wrong_shape(self):
        for manifest in (b"null", b"{}", b"[]", b"[1]", b"[null]", b"", b"[", b"\xff\xfe",
                         b'[{"Config":5,"Layers":[]}]', b'[{"Config":"c.json","Layers":"x"}]',
                         b'[{"Config":"../../etc/shadow","Layers":[]}]',
                         b'[{"Config":"/etc/shadow","Layers":["/proc/self/environ"]}]',
                         b"[" * 100000, b'{"a":' * 50000):
            error = self.refused(self.manifest_only(manifest))
            self.assertNotIn("root:", error["message"])

    def test_configs_of_the_wrong_shape(self):
        for config in (b"null", b"[]", b'{"rootfs":5}', b'{"rootfs":{"diff_ids":{}}}',
                       b'{"config":{"Entrypoint":"a string"},"rootfs":{"type":"layers",'
                       b'"diff_ids":[]},"architecture":"amd64","os":"linux"}'):
            manifest = b'[{"Config":"c.json","RepoTags":["c:1"],"Layers":[]}]'
            self.refused(self.manifest_only(manifest, config))

    def test_symlinked_members_are_not_followed_out(self):
        for target in ("/etc/shadow", "../../../etc/shadow", "l/layer.tar"):
            image = image_of({"probe": probe_binary()}, "sym:1")
            members = [("c.json", image.config_bytes()), ("l/layer.tar", "symlink:" + target),
                       ("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": ["sym:1"],
                                                      "Layers": ["l/layer.tar"]}]).encode())]
            self.refused(archive.pack(members))

    def test_layers_that_climb_out_touch_nothing(self):
        canary = self.daemon.temp / "canary"
        canary.write_text("alive")
        up = "../" * 12
        entries = [Entry(up + str(canary)[1:], content=b"dead"),
                   Entry("l", "symlink", link=str(self.daemon.temp)),
                   Entry("l/canary", content=b"dead"), Entry("h", "hardlink", link=str(canary)),
                   Entry("etc/.wh..."), Entry("probe", content=probe_binary(), mode=0o755)]
        image = Image(["climb:1"], [archive.layer(entries)], {"Entrypoint": ["/probe"]})
        reply = self.send(archive.docker_archive([image]))
        self.assertIn(reply.status, (200, 201, 422), repr(reply))
        self.assertEqual(canary.read_text(), "alive")
        self.assertEqual(canary.stat().st_nlink, 1)
        self.daemon.api("DELETE", "/v1/images/climb:1")

    def test_another_architecture_names_both(self):
        image = image_of({"probe": probe_binary()}, "arm:1", Entrypoint=["/probe"])
        image.architecture = "s390x"
        reply = self.send(archive.docker_archive([image]))
        self.assertEqual(reply.status, 422, repr(reply))
        message = reply.json()["error"]["message"]
        self.assertIn("linux/s390x", message)
        self.assertIn("linux/" + archive.OWN_ARCHITECTURE, message)

    def test_another_architecture_may_be_stored_but_not_deployed(self):
        image = image_of({"only-arm": b"x"}, "armany:1", Entrypoint=["/only-arm"])
        image.architecture = "s390x"
        path = self.daemon.temp / "arm.tar"
        path.write_bytes(archive.docker_archive([image]))
        self.daemon.cli_ok("image", "import", str(path), "--any-platform")
        reply = self.daemon.api("PUT", "/v1/functions/armed", {"image": "armany:1"})
        self.assertEqual(reply.status, 422, repr(reply))
        self.assertIn("s390x", reply.json()["error"]["message"])
        self.daemon.cli_ok("image", "rm", "armany:1")
        path.unlink()

    def test_an_image_without_a_command(self):
        image = image_of({"data": b"only data"}, "nocmd:1")
        self.daemon.import_archive(archive.docker_archive([image]))
        reply = self.daemon.api("PUT", "/v1/functions/nocmd", {"image": "nocmd:1"})
        self.assertIn(reply.status, (400, 422), repr(reply))
        self.assertIn("command", reply.json()["error"]["message"])
        self.daemon.api("DELETE", "/v1/images/nocmd:1")

    def test_untagged_images_go_by_their_digest(self):
        image = image_of({"probe": probe_binary()}, "x:1", Entrypoint=["/probe"])
        image.tags = []
        report = self.daemon.import_archive(archive.docker_archive([image])).json()["images"][0]
        self.assertEqual(report["ref"], report["digest"])
        self.assertIn(self.send(archive.docker_archive([image]), "?ref=named:1").status, (200, 201))
        for reference in ("named:1", report["digest"]):
            self.daemon.api("DELETE", "/v1/images/" + reference)
        self.assertEqual(self.daemon.api("GET", "/v1/images/" + report["digest"]).status, 404)

    def test_bad_references(self):
        for reference in ("UPPER:1", "a%20b:1", "..%2f..:1", "a:b:c", "%00:1", "a" * 300 + ":1"):
            reply = self.send(self.good, "?ref=" + reference)
            self.assertEqual(reply.status, 400, f"{reference}: {reply}")

    def test_a_client_that_stops_in_the_middle(self):
        with self.daemon.connect() as s:
            s.sendall(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                      + self.daemon.key.encode() + b"\r\nContent-Length: 100000\r\n\r\n"
                      + self.good[:5000])
            time.sleep(0.3)


class SmallLimits(Case):
    flags = ("--upload-bytes", "2Mi", "--image-bytes", "4Mi", "--body-timeout", "2s",
             "--header-timeout", "2s")

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()

    def test_an_oversized_upload_is_refused_early(self):
        with self.daemon.connect(timeout=60) as s:
            s.sendall(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                      + self.daemon.key.encode() + b"\r\nContent-Length: 107374182400\r\n\r\n")
            self.assertTrue(s.recv(1000).startswith(b"HTTP/1.1 413"))

    def test_an_oversized_chunked_upload_is_cut(self):
        # A file that never ends; what is no archive at all would be refused for that.
        data = archive.layer([archive.Entry("z", content=b"z" * (12 << 20))])
        blocks = (data[at:at + 65536] for at in range(0, len(data), 65536))
        try:
            reply = self.daemon.request("POST", "/v1/images", blocks, admin=True)
            self.assertEqual(reply.status, 413)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it closed while we were still sending

    def test_an_image_that_unpacks_too_large(self):
        image = image_of({"zeros": b"\0" * (6 << 20), "probe": probe_binary()}, "bomb:1")
        data = gzip.compress(archive.docker_archive([image]), mtime=0)
        self.assertLess(len(data), 1 << 20)
        reply = self.daemon.request("POST", "/v1/images", data, admin=True)
        self.assertIn(reply.status, (413, 422), repr(reply))

    def test_a_client_that_stalls_in_the_body_is_dropped(self):
        started = time.monotonic()
        with self.daemon.connect(timeout=60) as s:
            s.sendall(b"POST /function/probe HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx")
            received = s.recv(1000)
        self.assertLess(time.monotonic() - started, 10)
        self.assertTrue(received == b"" or received.split()[1] in (b"400", b"408", b"499"),
                        received)

    def test_a_client_that_stalls_in_the_head_is_dropped(self):
        started = time.monotonic()
        with self.daemon.connect(timeout=60) as s:
            s.sendall(b"GET /function/probe HTTP/1.1\r\nHo")
            try:
                for _ in range(40):  # one byte at a time does not help
                    time.sleep(0.25)
                    s.sendall(b"x")
            except (BrokenPipeError, ConnectionResetError):
                pass
        self.assertLess(time.monotonic() - started, 8)


class Functions(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()

    def put(self, name, document):
        return self.daemon.api("PUT", "/v1/functions/" + name, document)

    def test_odd_names_are_refused_with_the_rule(self):
        for name in ("UPPER", "-a", "a-", "a_b", "a" * 64, "%61%2fb", "a%00", "%c3%a4", "a%20b",
                     "%2e%2e", "a%0ab"):
            reply = self.put(name, {"image": "probe:1"})
            self.assertEqual(reply.status, 400, f"{name}: {reply}")
        self.assertIn("a-z, 0-9", self.put("UPPER", {"image": "probe:1"}).text)

    def test_odd_names_in_calls_are_no_way_out(self):
        for path in ("/function/..%2f..%2fv1%2fimages", "/function/%2e%2e/v1/functions",
                     "/function/" + "a" * 10000, "/function/%00", "/function//", "/function/"):
            reply = self.daemon.request("GET", path)
            self.assertIn(reply.status, (400, 404, 414), f"{path[:40]}: {reply}")

    def test_absurd_limits_name_their_field(self):
        for field, value in (("memory", "-1"), ("memory", "0"), ("memory", "lots"),
                             ("memory", "1Ki"), ("memory", 64), ("memory", "900Ti"),
                             ("cpu", "-5"), ("cpu", "1m"), ("cpu", "NaN"), ("cpu", "99999"),
                             ("pids", -1), ("pids", 0), ("pids", 10**12), ("pids", 1.5),
                             ("timeout", "0s"), ("timeout", "-1s"), ("timeout", "5"),
                             ("timeout", "9999h"), ("tmp", "-1Mi"), ("nofile", 0),
                             ("body", "-1"), ("output", "x"), ("cpu_weight", 0)):
            reply = self.put("limits", {"image": "probe:1", "limits": {field: value}})
            self.assertEqual(reply.status, 400, f"{field}={value}: {reply}")
            self.assertIn(field, reply.json()["error"]["message"])

    def test_limits_over_the_board_are_refused(self):
        reply = self.put("board", {"image": "probe:1", "limits": {"memory": "700Gi"}})
        self.assertIn(reply.status, (400, 422), repr(reply))
        self.assertIn("memory", reply.json()["error"]["message"])

    def test_unknown_and_repeated_fields_are_refused(self):
        reply = self.put("fields", {"image": "probe:1", "imagee": "typo"})
        self.assertEqual(reply.status, 400)
        self.assertIn("imagee", reply.json()["error"]["message"])
        reply = self.daemon.request("PUT", "/v1/functions/fields",
                                    b'{"image":"probe:1","image":"other:1"}', admin=True)
        self.assertEqual(reply.status, 400)

    def test_fields_of_the_wrong_type(self):
        for document in ({"image": 5}, {"image": None}, {"image": "probe:1", "env": []},
                         {"image": "probe:1", "env": {"A": 1}}, {"image": "probe:1", "args": "x"},
                         {"image": "probe:1", "mode": "magic"}, {"image": "probe:1", "port": 70000},
                         {"image": "probe:1", "limits": []},
                         {"image": "probe:1", "scale": {"max": 0}},
                         {"image": "probe:1", "scale": {"min": 5, "max": 2}}, [], "x", 7, {}):
            reply = self.put("types", document)
            self.assertEqual(reply.status, 400, f"{document}: {reply}")

    def test_json_bombs_are_refused_fast(self):
        for body in (b"[" * 100000, b'{"image":' * 20000, b'{"image":"\xff"}', b"{" + b" " * 10**6,
                     b'{"image":"x"} trailing', b'{"port":1e999999}', b'{"image":NaN}', b""):
            started = time.monotonic()
            reply = self.daemon.request("PUT", "/v1/functions/bomb", body, admin=True)
            self.assertIn(reply.status, (400, 413), f"{body[:20]}: {reply}")
            self.assertLess(time.monotonic() - started, 2)

    def test_an_unknown_image_says_how_to_get_it(self):
        reply = self.put("noimage", {"image": "absent:1", "pull": "never"})
        self.assert_error(reply, 404, "image_not_found", "absent:1", "import")

    def test_hostile_users_are_refused(self):
        for user in ("4294967296", "-1", "0x0", "+0", " 0", "1:-1", "a b", "99999999999999999999"):
            reply = self.put("users", {"image": "probe:1", "mode": "exec", "user": user})
            self.assertIn(reply.status, (400, 422), f"{user}: {reply}")
        self.assertEqual(self.daemon.api("GET", "/v1/functions/users").status, 404)

    def test_a_command_the_image_lacks_is_refused_at_deploy(self):
        before = leaks.quiet_snapshot(self.daemon)
        lacking = {"/not/there": "no such file", "nowhere": "PATH", "/tmp": "not a regular file"}
        for command, word in lacking.items():
            reply = self.put("lacking", {"image": "probe:1", "mode": "exec", "command": [command]})
            self.assert_error(reply, 422, "cannot_run", command, word)
        self.assertEqual(self.daemon.api("GET", "/v1/functions/lacking").status, 404)
        self.assertEqual(self.daemon.call("lacking", b"").status, 404)
        wait_until(lambda: not left_since(before, self.daemon), 30,
                   lambda: left_since(before, self.daemon))

    def test_a_command_the_image_lacks_replaces_nothing(self):
        good = {"image": "probe:1", "mode": "exec"}
        self.assertEqual(self.put("kept", good).status, 201)
        reply = self.put("kept", {**good, "command": ["/not/there"]})
        self.assert_error(reply, 422, "cannot_run", "/not/there")
        self.assertEqual(self.daemon.call("kept", b"say hi").text, "hi\n")
        self.daemon.api("DELETE", "/v1/functions/kept")

    def test_management_wants_the_key(self):
        for method, path in (("GET", "/v1/images"), ("GET", "/v1/functions"), ("GET", "/v1/system"),
                             ("PUT", "/v1/functions/x"), ("DELETE", "/v1/functions/probe"),
                             ("POST", "/v1/images"), ("GET", "/v1/functions/probe")):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"},
                            {"Authorization": "Bearer "},
                            {"Authorization": "Bearer " + self.daemon.key[:-1]}):
                reply = self.daemon.request(method, path, None, headers)
                self.assertEqual(reply.status, 401, f"{method} {path} {headers}: {reply}")
        self.assertEqual(self.daemon.call("probe", b"say hi").text, "hi\n")

    def test_routes_are_not_confused(self):
        for path in ("//v1/functions", "/v1/../v1/functions", "/V1/functions", "/v1/functions;x",
                     "/v1/functions/", "/v1", "/nothing", "/v1/functions/a/b/c",
                     "/%76%31/functions"):
            reply = self.daemon.request("GET", path)
            self.assertIn(reply.status, (400, 401, 404, 405), f"{path}: {reply}")
        for method in ("TRACE", "CONNECT", "BREW"):
            self.assertIn(self.daemon.request(method, "/function/probe").status,
                          (400, 404, 405, 501), method)
        reply = self.daemon.request("GET", "/v1/functions",
                                    headers={"X-HTTP-Method-Override": "DELETE"}, admin=True)
        self.assertEqual(reply.status, 200)

    def test_a_wrong_method_names_the_right_ones(self):
        reply = self.daemon.request("PATCH", "/v1/functions", admin=True)
        self.assertEqual(reply.status, 405)
        self.assertIn("GET", reply.headers["allow"])

    def test_two_hundred_calls_against_max_two(self):
        self.daemon.put("crowd", {"image": "probe:1", "mode": "exec",
                                  "scale": {"max": 2, "queue": 20, "queue_wait": "60s"}})
        replies = in_parallel(200, lambda n: self.daemon.call("crowd", b"sleep-ms 500; say ok"))
        statuses = [getattr(r, "status", repr(r)) for r in replies]
        self.assertEqual(set(statuses) - {200, 429}, set())
        self.assertGreaterEqual(statuses.count(200), 22)  # two under way, twenty in the queue
        self.assertGreaterEqual(statuses.count(429), 100)
        for reply in replies:
            if reply.status == 429:
                self.assertEqual(reply.outcome, "rejected:queue-full")
                self.assertIn("retry-after", reply.headers)
        self.assertEqual(self.daemon.call("crowd", b"say ok").text, "ok\n")

    def test_the_daemon_stays_up_when_clients_vanish(self):
        for _ in range(50):
            with self.daemon.connect() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                s.sendall(b"POST /function/probe HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
                          b"say hello"[:4])


if __name__ == "__main__":
    unittest.main()
