"""What faas-cli 0.18.12 sends, with its method, path, headers and body: invoke, invoke --async,
logs, secret and deploy --replace."""

import base64
import http.client
import json
import unittest

from harness import BIN, Case, image_archive, image_of, wait_until

CLI = "faas-cli/0.18.12"
INVOKE = {"User-Agent": CLI + " (openfaas; linux; amd64)", "Content-Type": "text/plain"}
SECRETS = "/system/secrets"


class FaasCli(Case):
    @classmethod
    def prepare(cls):
        password = (cls.daemon.data / "secrets/basic-auth-password").read_text()
        login = base64.b64encode(f"admin:{password}".encode()).decode()
        cls.login = {"Authorization": "Basic " + login}
        program = (BIN / "rootfs/http-hello").read_bytes()
        image = image_of({"usr/bin/fwatchdog": program}, "cli:1", Cmd=["fwatchdog"],
                         Env=["PATH=/usr/bin"])
        cls.daemon.import_archive(image_archive.docker_archive([image]),
                                  query="?ref=functions/cli:1")

    def send(self, method, path, body=None):
        """With the login and the headers of all commands but invoke."""
        headers = {"User-Agent": CLI, "Content-Type": "application/json", **self.login}
        text = None if body is None else json.dumps(body).encode()
        return self.daemon.request(method, path, text, headers)

    def deploy(self, name):
        document = {"service": name, "image": "functions/cli:1", "namespace": "openfaas-fn",
                    "envProcess": "", "envVars": {}, "constraints": None, "secrets": [],
                    "labels": {}, "annotations": {}, "readOnlyRootFilesystem": False}
        return self.send("POST", "/system/functions", document)

    def deployed(self, name):
        self.addCleanup(self.send, "DELETE", "/system/functions",
                        {"functionName": name, "namespace": "openfaas-fn"})
        self.assertEqual(self.deploy(name).status, 200)

    def test_login_and_ready_are_asked_by_a_bare_client(self):
        bare = {"User-Agent": "Go-http-client/1.1"}
        reply = self.daemon.request("GET", "/system/functions", headers={**bare, **self.login})
        self.assertEqual((reply.status, reply.json()), (200, []))
        self.assertEqual(self.daemon.request("GET", "/healthz", headers=bare).status, 200)

    def test_invoke(self):
        self.deployed("said")
        reply = self.daemon.request("POST", "/function/said.openfaas-fn", b"a body", INVOKE)
        self.assertEqual(reply.status, 200, repr(reply))
        inside = self.daemon.request("POST", "/function/said.openfaas-fn/headers", b"", INVOKE)
        for name, value in INVOKE.items():
            self.assertIn(f"{name}: {value}\r", inside.text)

    def test_invoke_async(self):
        self.deployed("later")
        reply = self.daemon.request("POST", "/async-function/later.openfaas-fn", b"a body", INVOKE)
        self.assertEqual((reply.status, reply.body), (202, b""), repr(reply))
        self.assertIn("x-call-id", reply.headers)
        status = "/system/function/later?usage=1&namespace=openfaas-fn"
        wait_until(lambda: self.send("GET", status).json()["invocationCount"] == 1, 60,
                   "the call is made")

    def test_logs_follow_from_the_first_line(self):
        self.daemon.deploy_probe("heard")
        self.addCleanup(self.daemon.api, "DELETE", "/v1/functions/heard")
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=120)
        self.addCleanup(connection.close)
        connection.request("GET", "/system/logs?follow=true&name=heard&tail=-1",
                           headers={"User-Agent": CLI, **self.login})
        response = connection.getresponse()  # before there is a line
        self.assertEqual((response.status, response.headers["content-type"]),
                         (200, "application/x-ndjson"))
        self.daemon.request("POST", "/function/heard.openfaas-fn", b"stderr line", INVOKE)
        line = json.loads(response.readline())
        self.assertEqual((line["name"], line["namespace"], line["text"]),
                         ("heard", "openfaas-fn", "line"))

    def test_secrets_are_made_listed_updated_and_removed(self):
        raw = bytes(range(256))
        secret = {"name": "cli-key", "namespace": "openfaas-fn"}
        # --from-file sends both; what is no text is broken in the first.
        made = {**secret, "value": raw.decode("utf-8", "replace"),
                "rawValue": base64.b64encode(raw).decode()}
        self.assertIn(self.send("POST", SECRETS, made).status, (200, 201, 202))
        listed = self.send("GET", SECRETS + "?namespace=openfaas-fn")
        self.assertEqual((listed.status, listed.json()), (200, [secret]))
        self.assertIn(self.send("PUT", SECRETS, {**secret, "value": "new"}).status, (200, 202))
        self.assertIn(self.send("DELETE", SECRETS, secret).status, (200, 202))
        for method in ("PUT", "DELETE"):
            self.assertEqual(self.send(method, SECRETS, {**secret, "value": "v"}).status, 404)
        self.assertEqual(self.send("GET", SECRETS + "?namespace=openfaas-fn").json(), [])

    def test_replace_removes_and_deploys(self):
        self.deployed("again")
        named = {"functionName": "again", "namespace": "openfaas-fn"}
        self.assertEqual(self.send("DELETE", "/system/functions", named).status, 200)
        # At once: a name that is being removed is free.
        self.assertEqual(self.deploy("again").status, 200)
        reply = self.daemon.request("POST", "/function/again.openfaas-fn", b"x", INVOKE)
        self.assertEqual(reply.status, 200, repr(reply))


if __name__ == "__main__":
    unittest.main()
