"""What OpenFaaS' clients send, in their order and with their headers, and what they must get; and
images as OpenFaaS' functions are: a watchdog's name as their command, a server on 8080."""

import base64
import json
import threading
import time
import unittest
from pathlib import Path

from harness import BIN, Case, image_archive, image_of, status_of, wait_until

CLI = {"User-Agent": "faas-cli/0.18.12", "Content-Type": "application/json"}
SDK = {"User-Agent": "openfaas-go-sdk", "Content-Type": "application/json"}


def watchdog_archive(tag):
    program = (BIN / "rootfs/http-hello").read_bytes()
    image = image_of({"usr/bin/fwatchdog": program}, tag, Cmd=["fwatchdog"],
                     Env=["PATH=/usr/bin", "exec_timeout=70s", "TAG=" + tag])
    return image_archive.docker_archive([image])


class OpenFaas(Case):
    @classmethod
    def prepare(cls):
        cls.password = (cls.daemon.data / "secrets/basic-auth-password").read_text()
        for tag in ("env:1", "env:2"):
            cls.daemon.import_archive(watchdog_archive(tag), query="?ref=functions/" + tag)

    def send(self, method, path, body=None, headers=None, chunked=False):
        login = base64.b64encode(f"admin:{self.password}".encode()).decode()
        text = None if body is None else json.dumps(body).encode()
        headers = {**CLI, "Authorization": "Basic " + login, **(headers or {})}
        return self.daemon.request(method, path, iter([text]) if chunked else text, headers)

    def expect(self, status, method, path, body=None, text=None, **options):
        reply = self.send(method, path, body, **options)
        self.assertEqual(reply.status, status, repr(reply))
        if text is not None:
            self.assertEqual(reply.text, text, repr(reply))
        if status >= 400 and reply.body:
            self.assertEqual(reply.headers["content-type"], "text/plain; charset=utf-8")
            self.assertEqual(reply.headers["x-content-type-options"], "nosniff")
        return reply

    def test_of_many_who_create_one_name_one_does(self):
        statuses = []
        body = {"service": "wanted", "image": "functions/env:1", "namespace": "openfaas-fn"}
        threads = [threading.Thread(target=lambda: statuses.append(
            self.send("POST", "/system/functions", body).status)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(statuses), [200] + 5 * [400])
        self.send("DELETE", "/system/functions", {"functionName": "wanted"})

    def deploy(self, name, **more):
        """As `faas-cli deploy` does it."""
        body = {"service": name, "image": "functions/env:1", **more}
        reply = self.send("PUT", "/system/functions", body)
        if reply.status == 404:
            reply = self.send("POST", "/system/functions", body)
        self.assertIn(reply.status, (200, 202), repr(reply))
        self.assertEqual(reply.body, b"")
        self.addCleanup(self.send, "DELETE", "/system/functions", {"functionName": name})

    def status(self, name, query=""):
        return self.expect(200, "GET", f"/system/function/{name}?usage=1{query}").json()

    def listed(self, name, query=""):
        functions = self.expect(200, "GET", "/system/functions" + query).json()
        return next((f for f in functions if f["name"] == name), None)

    def instances(self, name):
        return self.daemon.api("GET", "/v1/functions/" + name).json()["instances"]

    # --- login, version, ready

    def test_login_is_a_list_of_functions(self):
        self.assertEqual(self.expect(200, "GET", "/system/functions").json(), [])
        for key in ("Bearer ", "Basic " + base64.b64encode(b"admin:x").decode()):
            reply = self.daemon.request("GET", "/system/functions",
                                        headers={"Authorization": key})
            self.assertEqual((reply.status, reply.text), (401, "invalid credentials"))
            self.assertEqual(reply.headers["www-authenticate"], 'Basic realm="Restricted"')
        self.assertEqual(len(self.password), 63)

    def test_version_and_ready(self):
        info = self.expect(200, "GET", "/system/info").json()
        self.assertEqual(info["provider"]["provider"], "pulga")
        for version in (info["version"], info["provider"]["version"]):
            self.assertTrue(version["sha"] and version["release"])
        for method in ("GET", "HEAD"):
            self.assertEqual(self.daemon.request(method, "/healthz").status, 200)
        reply = self.daemon.request("GET", "/")
        self.assertEqual((reply.status, reply.headers["location"]), (301, "/ui/"))

    def test_what_is_not_there(self):
        self.expect(404, "GET", "/system/telemetry", text="404 page not found\n")
        self.expect(405, "PATCH", "/system/functions", text="")
        self.expect(404, "GET", "/system/function/absent", text="service absent not found\n")
        self.expect(200, "POST", "/system/alert", {"alerts": []})

    # --- deploy, diff, remove

    def test_what_was_deployed_comes_back_word_for_word(self):
        said = {"envVars": {"a": "1", "fprocess": "cat"}, "envProcess": "sha512sum",
                "constraints": ["node.platform.os == linux"],
                "labels": {"l": "x", "faas_function": "echo"},
                "annotations": {"a": "{\n\t\"multi\": \"line\"\n}"},
                "limits": {"memory": "40m", "cpu": "100m"}, "requests": {"memory": "10Mi"},
                "readOnlyRootFilesystem": True}
        self.deploy("echo", registryAuth="", network="", **said)
        for shown in (self.status("echo"), self.listed("echo")):
            for field, value in said.items():
                self.assertEqual(shown[field], value, field)
            self.assertEqual(shown["image"], "docker.io/functions/env:1")
            self.assertEqual(shown["namespace"], "openfaas-fn")
            self.assertIs(type(shown["replicas"]), int)
            self.assertRegex(shown["createdAt"], r"^\d{4}-\d\d-\d\dT[\d:.]+Z$")
        env = self.daemon.call("echo.openfaas-fn", path="/env").text.splitlines()
        self.assertIn("fprocess=cat", env)  # envVars wins
        self.assertIn("OPENFAAS_NAME=echo", env)
        self.assertIn("OPENFAAS_NAMESPACE=openfaas-fn", env)
        self.assertEqual(self.listed("echo")["invocationCount"], 1)

    def test_what_was_not_said_does_not_come_back(self):
        self.deploy("plain", labels={}, annotations=None)
        shown = self.listed("plain")
        for field in ("envVars", "envProcess", "limits", "requests", "constraints", "secrets",
                      "readOnlyRootFilesystem"):
            self.assertNotIn(field, shown)
        self.assertEqual((shown["labels"], shown["annotations"]), ({"faas_function": "plain"}, {}))

    def test_usage_is_told_in_millicores_and_bytes(self):
        self.deploy("used")
        self.assertEqual(self.daemon.call("used", path="/").status, 200)
        usage = self.status("used")["usage"]
        self.assertGreater(usage["totalMemoryBytes"], 0)
        self.assertIs(type(usage["cpu"]), int)
        self.assertNotIn("usage", self.expect(200, "GET", "/system/function/used").json())

    def test_absurd_limits_deploy(self):
        for number, memory in enumerate(("5Mi", "1", "900Gi", "40m")):
            self.deploy(f"limit{number}", limits={"memory": memory, "cpu": "1m"})
            self.assertEqual(self.listed(f"limit{number}")["limits"]["memory"], memory)

    def test_statuses_are_those_the_cli_takes_for_what_they_mean(self):
        body = {"service": "f", "image": "functions/env:1"}
        self.expect(404, "PUT", "/system/functions", body, text="service f not found\n")
        self.expect(200, "POST", "/system/functions", body, text="")
        self.expect(400, "POST", "/system/functions", body)
        self.expect(200, "PUT", "/system/functions", {**body, "image": "functions/env:2"}, text="")
        self.assertTrue(self.listed("f")["image"].endswith("env:2"))
        self.expect(200, "DELETE", "/system/functions", {"functionName": "f"}, text="")
        self.expect(404, "DELETE", "/system/functions", {"functionName": "f"},
                    text="service f not found\n")
        self.expect(400, "POST", "/system/functions", {"image": "x"})
        self.expect(400, "POST", "/system/functions", {**body, "secrets": ["key"]},
                    text="unable to find secret: key\n")
        self.expect(400, "POST", "/system/functions", {**body, "envVars": []})
        self.expect(400, "POST", "/system/functions", {**body, "namespace": "nowhere"},
                    text="namespace not valid\n")

    def test_a_missing_image_is_said_to_be_unpullable(self):
        body = {"service": "g", "image": "127.0.0.1:1/nothing:1"}
        reply = self.expect(400, "POST", "/system/functions", body)
        self.assertIn("unable to pull image 127.0.0.1:1/nothing:1: cannot pull: ", reply.text)

    def test_bodies_may_be_chunked(self):
        self.expect(200, "POST", "/system/functions", {"service": "c", "image": "functions/env:1"},
                    chunked=True)
        self.expect(200, "DELETE", "/system/functions", {"functionName": "c"}, chunked=True)

    def test_it_all_survives_a_restart(self):
        self.deploy("stays", constraints=["x"], limits={"memory": "30m"}, envProcess="cat")
        self.expect(201, "POST", "/system/namespace/",
                    {"name": "kept", "labels": {"openfaas": "1", "a": "b"}})
        before = self.listed("stays")
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.listed("stays"), before)
        self.assertEqual(self.expect(200, "GET", "/system/namespace/kept").json()["labels"],
                         {"openfaas": "1", "a": "b"})
        self.expect(202, "DELETE", "/system/namespace/kept", {"name": "kept"})

    def test_an_export_deploys_the_same_functions_again(self):
        said = {"envVars": {"a": "yes", "n": "3"}, "envProcess": "cat", "labels": {"l": "x"},
                "annotations": {"note": "{\n\t\"multi\": \"line\"\n}"},
                "limits": {"memory": "40Mi"}}
        self.deploy("moves", **said)
        stack = self.daemon.cli_ok("export", "--openfaas", "--gateway", "http://cluster:8080")
        self.assertIn('gateway: "http://cluster:8080"', stack)
        self.assertIn('  "moves":\n    lang: dockerfile\n    skip_build: true\n', stack)
        for text in ("docker.io/functions/env:1", said["annotations"]["note"], "40Mi"):
            self.assertIn(json.dumps(text), stack)
        self.assertNotIn("faas_function", stack)
        self.daemon.deploy_probe("stays")
        self.addCleanup(self.daemon.api, "DELETE", "/v1/functions/stays")
        done = self.daemon.cli("export", "--openfaas")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"left out: stays: mode exec", done.stderr)
        self.assertEqual(self.daemon.cli("export").returncode, 2)
        self.expect(201, "POST", "/system/namespace/",
                    {"name": "other", "labels": {"openfaas": "1"}})
        self.deploy("elsewhere", namespace="other")
        stack = self.daemon.cli("export", "--openfaas").stdout.decode()
        self.assertIn('  "moves":\n', stack)
        self.assertIn('    namespace: "other"\n', stack)
        self.assertNotIn('"moves"', self.daemon.cli_ok("export", "--openfaas", "-n", "other"))
        self.send("DELETE", "/system/functions",
                  {"functionName": "elsewhere", "namespace": "other"})
        self.expect(202, "DELETE", "/system/namespace/other", {"name": "other"})

    # --- namespaces

    def test_namespaces(self):
        made = {"name": "dev", "annotations": {"openfaas": "1"}, "labels": {"openfaas": "1"}}
        self.expect(201, "POST", "/system/namespace/", made, headers=SDK)
        self.expect(409, "POST", "/system/namespace/", made, headers=SDK,
                    text="namespace dev already exists\n")
        self.expect(400, "POST", "/system/namespace/", {"name": "e"}, headers=SDK,
                    text="request does not have openfaas=1 label\n")
        self.assertEqual(self.expect(200, "GET", "/system/namespaces").json(),
                         ["dev", "openfaas-fn"])
        self.assertEqual(self.expect(200, "GET", "/system/namespace/dev").json(), made)
        changed = {**made, "labels": {"openfaas": "1", "x": "y"}}
        self.expect(202, "PUT", "/system/namespace/dev", changed, headers=SDK)
        self.expect(400, "PUT", "/system/namespace/other", changed, headers=SDK)
        body = {"service": "n", "image": "functions/env:1", "namespace": "dev"}
        self.expect(200, "POST", "/system/functions", body)
        self.assertIsNone(self.listed("n"))
        self.assertEqual(self.listed("n", "?namespace=dev")["namespace"], "dev")
        self.assertEqual(self.daemon.call("n.dev", path="/").status, 200)
        self.assertEqual(self.daemon.call("n.openfaas-fn", path="/").status, 404)
        self.expect(409, "DELETE", "/system/namespace/dev", {"name": "dev"})
        # An older client names the namespace in the query alone.
        self.expect(200, "DELETE", "/system/functions?namespace=dev", {"functionName": "n"})
        secret = {"name": "key", "namespace": "dev", "value": "v"}
        self.expect(200, "POST", "/system/secrets", secret)
        self.expect(409, "DELETE", "/system/namespace/dev", {"name": "dev"})
        self.expect(200, "DELETE", "/system/secrets", secret)
        self.expect(202, "DELETE", "/system/namespace/dev", {"name": "dev"})
        self.expect(400, "POST", "/system/secrets", secret, text="namespace not valid\n")
        self.expect(404, "GET", "/system/namespace/dev")

    # --- scale

    def test_a_maximum_alone_scales_by_calls_per_second_as_the_community_edition_does(self):
        rates = {}
        scale = "com.openfaas.scale."
        for name, labels in (("ce", {scale + "max": "2"}),
                             ("fixed", {scale + "min": "2", scale + "max": "2"}),
                             ("pro", {scale + "type": "rps", scale + "target": "20"})):
            self.deploy(name, labels=labels)
            told = self.daemon.api("GET", "/v1/functions/" + name).json()
            rates[name] = told["spec"]["scale"].get("rps_target")
        self.assertEqual(rates, {"ce": 5, "fixed": None, "pro": 18})

    def test_scaled_to_zero_and_woken_by_a_call(self):
        self.deploy("s", labels={"com.openfaas.scale.min": "2", "com.openfaas.scale.max": "3"})
        self.assertEqual(self.status("s")["replicas"], 2)
        scale = "/system/scale-function/s"
        self.expect(202, "POST", scale, {"serviceName": "s", "replicas": 0}, text="")
        wait_until(lambda: self.status("s")["replicas"] == 0, 30, "no replica is left")
        self.assertEqual(self.daemon.call("s.openfaas-fn", path="/").status, 200)
        self.expect(202, "POST", scale, {"service": "ignored", "replicas": 9})
        self.assertEqual(self.status("s")["replicas"], 3)
        wait_until(lambda: len(self.instances("s")) == 3, 30, "three instances")
        self.expect(404, "POST", "/system/scale-function/absent", {"replicas": 1},
                    text="service absent not found\n")

    # --- invocation

    def test_headers_in_and_out(self):
        self.deploy("h")
        reply = self.daemon.call("h.openfaas-fn", b"hi", path="/headers?x=1",
                                 headers={"Content-Type": "text/plain", "Connection": "x"})
        for name in ("x-call-id", "x-start-time", "x-served-by"):
            self.assertIn(name, reply.headers)
        self.assertRegex(reply.headers["x-start-time"], r"^\d{19}$")
        inside = self.daemon.call("h", path="/headers?x=1", headers={"X-Call-Id": "mine"}).text
        self.assertIn("GET /headers?x=1 HTTP/1.1", inside)
        self.assertIn("X-Call-Id: mine", inside)
        self.assertRegex(inside, r"X-Start-Time: \d{19}\r")
        self.assertRegex(inside, r"X-Forwarded-For: 127.0.0.1:\d+\r")
        self.assertIn(f"X-Forwarded-Host: 127.0.0.1:{self.daemon.port}", inside)
        self.assertEqual(self.daemon.call("h", path="/status/302").status, 302)

    def test_names_that_are_none(self):
        self.assertEqual(self.daemon.call(".openfaas-fn", b"").status, 404)
        reply = self.daemon.call("nobody.openfaas-fn", b"")
        self.assertEqual(reply.status, 404)
        self.assertIn("error finding function nobody.openfaas-fn", reply.text)

    def test_a_watchdog_whose_server_is_not_there_yet_is_asked_again(self):
        self.deploy("cold", envVars={"COLD_MS": "1500"})
        begun = time.monotonic()
        reply = self.daemon.call("cold.openfaas-fn", b"body", path="/echo")
        self.assertEqual((reply.status, reply.body), (200, b"body"), repr(reply))
        self.assertGreater(time.monotonic() - begun, 1)

    def test_a_watchdog_without_its_lock_is_not_ready(self):
        self.deploy("locked", envVars={"LOCKED_MS": "1500"})
        begun = time.monotonic()
        self.assertEqual(self.daemon.call("locked", b"body", path="/echo").text, "body")
        self.assertGreater(time.monotonic() - begun, 1.4)

    def test_an_annotated_path_says_when_an_instance_is_ready(self):
        self.deploy("asked", envVars={"COLD_MS": "1500"},
                    annotations={"com.openfaas.ready.http.path": "/"})
        body = b"x" * 200000  # too large to be sent again
        reply = self.daemon.call("asked", body, path="/echo")
        self.assertEqual((reply.status, len(reply.body)), (200, len(body)), repr(reply))
        self.expect(400, "POST", "/system/functions",
                    {"service": "bad", "image": "functions/env:1",
                     "annotations": {"com.openfaas.ready.http.path": "none"}})

    def test_a_500_of_the_functions_own_is_passed_on(self):
        self.deploy("fails")
        reply = self.daemon.call("fails.openfaas-fn", path="/status/500")
        self.assertEqual((reply.status, reply.text), (500, "as asked\n"))

    def test_removing_a_watchdog_waits_for_nothing(self):
        before = set(self.daemon.processes())
        # It does not listen to SIGTERM, as a watchdog for half a minute.
        self.daemon.put("slow-end", {"image": "functions/env:1", "limits": {"grace": "10m"}})
        self.assertEqual(self.daemon.call("slow-end", path="/").status, 200)
        started = set(self.daemon.processes()) - before
        self.assertTrue(started)
        self.expect(200, "DELETE", "/system/functions", {"functionName": "slow-end"})
        wait_until(lambda: not started & set(self.daemon.processes()), 60,
                   "it is gone long before its grace is over")

    def test_the_images_user_is_found_by_name_and_its_health_check_is_ignored(self):
        files = {"usr/bin/fwatchdog": (BIN / "rootfs/http-hello").read_bytes(),
                 "etc/passwd": b"root:x:0:0::/:/bin/sh\napp:x:100:101::/srv:/bin/sh\n",
                 "srv/handler": b""}
        image = image_of(files, "user:1", Cmd=["fwatchdog"], User="app", WorkingDir="/srv",
                         Env=["PATH=/usr/bin"],
                         Healthcheck={"Test": ["CMD-SHELL", "exit 1"], "Interval": 1000000})
        self.daemon.import_archive(image_archive.docker_archive([image]),
                                   query="?ref=functions/user:1")
        self.deploy("user", image="functions/user:1")
        self.assertEqual(self.daemon.call("user", path="/").status, 200)
        self.assertEqual(self.ids_of("fwatchdog"), {(100, 101)})
        self.assertEqual(self.status("user")["availableReplicas"], 1)

    def ids_of(self, name):
        """As the processes of that name have them inside their user namespaces."""
        def inside(pid, kind, field):
            host = int(status_of(pid)[field].split()[1])
            for line in Path(f"/proc/{pid}/{kind}_map").read_text().splitlines():
                within, outside, count = map(int, line.split())
                if outside <= host < outside + count:
                    return within + host - outside
            return None
        return {(inside(pid, "uid", "Uid"), inside(pid, "gid", "Gid"))
                for pid, comm in self.daemon.processes().items() if comm == name}

    def test_an_update_fails_no_call(self):
        self.deploy("rolls", image="functions/env:1")
        stop, statuses, tags = threading.Event(), set(), set()

        def call():
            while not stop.is_set():
                reply = self.daemon.call("rolls", path="/env")
                statuses.add(reply.status)
                tags.update(line for line in reply.text.splitlines() if line.startswith("TAG="))

        caller = threading.Thread(target=call)
        caller.start()
        try:
            wait_until(lambda: statuses, 30, "the first call is answered")
            for tag in ("env:2", "env:1", "env:2"):
                self.expect(200, "PUT", "/system/functions",
                            {"service": "rolls", "image": "functions/" + tag})
            wait_until(lambda: len(tags) == 2, 30, "both versions have answered")
        finally:
            stop.set()
            caller.join()
        self.assertEqual(statuses, {200})

    def test_the_functions_own_timeout_is_the_longer_one(self):
        self.deploy("patient", envVars={"exec_timeout": "2m"})
        spec = self.daemon.api("GET", "/v1/functions/patient").json()["spec"]
        self.assertEqual(spec["limits"]["timeout"], "2m2s")


if __name__ == "__main__":
    unittest.main()
