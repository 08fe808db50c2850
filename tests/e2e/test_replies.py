"""What every reply carries and says, whatever its status: receipts, documented statuses, queries,
Expect, and the words for functions that do not come up."""

import json
import re
import unittest

from harness import Case, quote, raw_exchange, wait_until

RECEIPT = ("x-call-id", "x-pulga-start", "server-timing", "x-pulga-outcome")


def head_of(received):
    """{lower-case name: value} of the raw reply's head, its status line as ''."""
    lines = received.split(b"\r\n\r\n")[0].decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in lines[1:])
    return {"": lines[0], **{name.lower(): value for name, value in pairs}}


class Receipts(Case):
    flags = ("--header-timeout", "2s", "--body-timeout", "2s", "--memory-budget", "64Mi")

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"memory": "32Mi", "body": "1Ki"},
                                scale={"max": 1, "queue": 0, "parked": 0})

    def instances(self, name):
        status = self.daemon.api("GET", "/v1/functions/" + name).json()
        return [instance["step"] for instance in status["instances"]]

    def assert_nothing_started(self, headers, outcome):
        for name in RECEIPT:
            self.assertIn(name, headers)
        self.assertRegex(headers["x-call-id"], r"^[0-9a-f-]{36}$")
        self.assertEqual((headers["x-pulga-start"], headers["x-pulga-outcome"]), ("none", outcome))
        self.assertRegex(headers["server-timing"], r"^queue;dur=\d+\.\d{3}$")

    def test_what_is_refused_before_a_call_carries_a_receipt(self):
        chunks = (b"x" * 1000 for _ in range(4))
        for reply, status, outcome in (
                (self.daemon.call("nobody", b""), 404, "rejected:unknown-function"),
                (self.daemon.call("nobody.other", b""), 404, "rejected:unknown-function"),
                (self.daemon.call("Odd_Name", b""), 400, "rejected:invalid-name"),
                (self.daemon.call("%zz", b""), 400, "rejected:invalid-path"),
                (self.daemon.call("", b""), 404, "rejected:not-found"),
                (self.daemon.request("GET", "/nothing"), 404, "rejected:not-found"),
                (self.daemon.call("probe", method="BREW"), 405, "rejected:method-not-allowed"),
                (self.daemon.call("probe", b"x" * 5000), 413, "rejected:body-limit"),
                (self.daemon.call("probe", chunks), 413, None)):
            self.assertEqual(reply.status, status, repr(reply))
            if outcome:
                self.assert_nothing_started(reply.headers, outcome)
            else:  # it had begun: the body told only in the end that it is too long
                self.assertEqual(reply.outcome, "rejected:body-limit")
                self.assertTrue(set(RECEIPT) <= set(reply.headers), repr(reply))

    def test_busy_and_memory_refusals_carry_a_receipt(self):
        with self.daemon.connect() as busy:
            busy.sendall(b"POST /function/probe HTTP/1.1\r\nHost: x\r\n"
                         b"Content-Length: 9\r\n\r\nsay")
            wait_until(lambda: self.instances("probe") == ["busy"], 30, "the call has begun")
            self.daemon.put("second", {"image": "probe:1", "mode": "exec",
                                       "limits": {"memory": "64Mi"},
                                       "scale": {"parked": 0, "queue_wait": "100ms"}})
            reply = self.daemon.call("probe", b"say hi")
            self.assertEqual(reply.status, 429, repr(reply))
            self.assert_nothing_started(reply.headers, "rejected:queue-full")
            reply = self.daemon.call("second", b"say hi")
            self.assertIn(reply.status, (429, 503), repr(reply))
            self.assert_nothing_started(reply.headers, reply.outcome)

    def test_requests_that_are_no_good_http_carry_a_receipt(self):
        start = b"GET /function/probe HTTP/1.1\r\n"
        for data, status, outcome in (
                (start + b"\r\n", 400, "malformed-request"),
                (start + b"Host: x\r\nHost: y\r\n\r\n", 400, "malformed-request"),
                (start + b"Host: x\r\nA: " + b"v" * (1 << 20) + b"\r\n\r\n", 431, "head-too-large"),
                (b"GET /function/" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414,
                 "uri-too-long"),
                (start + b"Ho", 408, "request-timeout")):
            received, _ = raw_exchange(self.daemon.port, data, 8)
            headers = head_of(received)
            self.assertIn(f" {status} ", headers[""], received[:300])
            self.assert_nothing_started(headers, "rejected:" + outcome)

    def test_a_callers_own_id_comes_back_with_a_refusal_too(self):
        for path in ("/function/nobody", "/function/Odd_Name", "/nothing", "/v1/functions",
                     "/v1/nothing"):
            reply = self.daemon.request("GET", path, None, {"X-Call-Id": "mine-7"})
            self.assertEqual(reply.headers["x-call-id"], "mine-7", path)

    def test_invoke_v_prints_the_table_of_a_refusal(self):
        for args, words in ((("nobody",), ("404", "rejected:unknown-function")),
                            (("probe", "-X", "BREW"), ("405", "rejected:method-not-allowed")),
                            (("probe", "-d", "x" * 5000), ("413", "rejected:body-limit"))):
            done = self.daemon.cli("invoke", "-v", *args)
            self.assertEqual(done.returncode, 1, done.stderr)
            table = dict(re.findall(r"^(\w+(?: id)?)  +(\S.*)$", done.stderr.decode(),
                                    re.MULTILINE))
            self.assertEqual((table["status"], table["outcome"], table["start"]),
                             (*words, "none"), done.stderr)
            self.assertRegex(table["call id"], r"^[0-9a-f-]{36}$")
            self.assertRegex(table["queue"], r"^\d+\.\d{3} ms$")


class Deploys(Case):
    """Each status a PUT can answer, with a message that helps. harness compares all of them with
    api/openapi.yaml."""

    flags = ("--max-functions", "5")

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()
        cls.daemon.deploy_http()

    def put(self, name, **document):
        return self.daemon.api("PUT", "/v1/functions/" + name, {"image": "probe:1", **document})

    def test_what_is_wrong_with_the_request_itself(self):
        self.assert_error(self.put("UPPER"), 400, "invalid_name", "a-z, 0-9")
        self.assert_error(self.put("new", port=0), 400, "invalid_spec", "port: 0", "1 and 65535")
        self.assert_error(self.put("new", image="absent:1", pull="never"), 404, "image_not_found")
        self.assert_error(self.put("new", env={"A": "x" * 300_000}), 413, "too_large")
        self.assert_error(self.put("new", command=["/nowhere"]), 422, "cannot_run", "/nowhere")

    def test_a_server_that_ends_is_told_from_one_that_never_listens(self):
        self.assertEqual(self.daemon.call("web", path="/").status, 200)  # so a new one must listen
        for code in (0, 3):
            reply = self.put("web", mode="http", command=["/probe", "exit", str(code)])
            self.assert_error(reply, 503, "unavailable", f"exited with code {code}", "before it",
                              "port 8080", "pulga logs web")
            self.assertNotIn("start_timeout", reply.text)
        reply = self.put("web", mode="http", command=["/probe", "segv"])
        self.assert_error(reply, 503, "unavailable", "killed by SIGSEGV", "before it listened")
        reply = self.daemon.api("PUT", "/v1/functions/web", {
            "image": "http-hello:1", "mode": "http", "env": {"NEVER_LISTEN": "1"},
            "limits": {"start_timeout": "1s"}})
        self.assert_error(reply, 504, "timeout", "within 1s", "port 8080", "start_timeout")
        self.assertNotIn("exited", reply.text)
        self.assertEqual(self.daemon.call("web", path="/").status, 200, "the old one goes on")

    def test_a_call_of_a_server_that_ends_says_so_too(self):
        self.put("ending", mode="http", command=["/probe", "exit", "0"])
        reply = self.daemon.call("ending", path="/")
        self.assert_outcome(reply, 503, "not-ready")
        self.assertIn("exited with code 0 before it listened on port 8080; `pulga logs ending`",
                      reply.text)
        self.daemon.api("DELETE", "/v1/functions/ending")

    def test_too_many_functions(self):
        for n in range(3):
            self.assertEqual(self.put(f"more-{n}").status, 201)
        self.assert_error(self.put("one-more"), 507, "no_space", "max-functions")
        for n in range(3):
            self.daemon.api("DELETE", f"/v1/functions/more-{n}")

    def test_limits_that_are_wrong_name_field_value_and_range(self):
        for limits, field, words in (
                ({"swap": "1000Gi"}, "limits.swap", ("1000Gi", "this board has")),
                ({"swap": "2000Gi"}, "limits.swap", ("2000Gi", "between 0 and 1024Gi")),
                ({"swap": -1}, "limits.swap", ("-1",)),
                ({"swap": "lots"}, "limits.swap", ("lots", "64Mi")),
                ({"memory": "2000Gi"}, "limits.memory", ("2000Gi", "between 1Mi and 1024Gi")),
                ({"cpu": "99999"}, "limits.cpu", ("99999", "10m to 1024")),
                ({"pids": 10**12}, "limits.pids", (str(10**12), "between 4 and 32768")),
                ({"nofile": 1e300}, "limits.nofile", ("between 16 and 1048576",)),
                ({"body": 2**64 - 1}, "limits.body", (str(2**64 - 1),)),
                ({"timeout": "9999h"}, "limits.timeout", ("9999h", "between 1ms and 24h")),
                ({"tmp": "900Gi"}, "limits.tmp", ("900Gi", "this board has"))):
            reply = self.put("limits", limits=limits)
            message = reply.json()["error"]["message"]
            self.assertEqual(reply.status, 400, repr(reply))
            self.assertTrue(message.startswith(field + ": "), message)
            for word in words:
                self.assertIn(word, message)

    def test_a_function_file_with_a_repeated_field_is_refused(self):
        path = self.daemon.temp / "twice.json"
        path.write_text('{"image": "probe:1", "image": "http-hello:1"}')
        done = self.daemon.cli("deploy", "twice", "-f", str(path))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b'"image" is given twice', done.stderr)


class Queries(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()

    def test_of_the_management_are_strict(self):
        for method, path, word in (
                ("POST", "/v1/images?ref=a:1&ref=b:1", '"ref" is there twice'),
                ("POST", "/v1/images?reference=a:1", '"reference" is not known'),
                ("POST", "/v1/images?any_platform=zzz", '"any_platform" must be 0 or 1'),
                ("POST", "/v1/images?any_platform", '"any_platform" must be 0 or 1'),
                ("POST", "/v1/images?skipped=yes", '"skipped" must be 0 or 1'),
                ("POST", "/v1/images?ref=%zz", '"ref" is badly'),
                ("GET", "/v1/images?all=1", '"all" is not known'),
                ("GET", "/v1/images/probe:1?view=tree&view=tree", '"view" is there twice'),
                ("GET", "/v1/functions/probe/logs?follow=true", '"follow" must be 0 or 1'),
                ("DELETE", "/v1/functions/probe?force=1", '"force" is not known'),
                ("GET", "/v1/uploads?x", '"x" is not known')):
            reply = self.daemon.request(method, path, b"" if method == "POST" else None, admin=True)
            self.assert_error(reply, 400, "invalid_query", word)
        reply = self.daemon.request("GET", "/v1/functions/probe/logs?tail=-1", admin=True)
        self.assert_error(reply, 400, "invalid_argument", "tail", "-1", "10000")
        reply = self.daemon.request("POST", "/v1/images?ref=", b"x", admin=True)
        self.assert_error(reply, 400, "invalid_ref")

    def test_of_a_call_are_the_functions_own(self):
        reply = self.daemon.call("probe", b"env", path="/?a=1&a=2&" + quote("ü") + "&stream=zzz")
        self.assertIn("Http_Query=a=1&a=2&%C3%BC&stream=zzz", reply.text)


class Continue(Case):
    """Expect: 100-continue: who is refused sends no body, who is not hears 100 first."""

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"body": "1Ki"})

    def ask(self, line, headers, size, body=b""):
        """The final reply's status and how many interim ones came. `body` follows a 100 only."""
        with self.daemon.connect(timeout=60) as connection:
            connection.sendall(f"{line} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {size}\r\n"
                               "Expect: 100-continue\r\n\r\n".encode())
            stream = connection.makefile("rb")
            status = stream.readline().split()[1]
            if status != b"100":
                return int(status), 0
            self.assertEqual(stream.readline(), b"\r\n")
            connection.sendall(body)
            return int(stream.readline().split()[1]), 1

    def test_refused_uploads_hear_no_continue(self):
        key = f"Authorization: Bearer {self.daemon.key}\r\n"
        form = key + "Content-Type: multipart/form-data\r\n"
        for line, headers, status in (
                ("POST /v1/images", "", 401), ("POST /v1/images", form, 415),
                ("POST /v1/images?ref=BAD", key, 400), ("POST /v1/images?ref=a&ref=b", key, 400),
                ("POST /v1/nothing", key, 404), ("PUT /v1/images", key, 405),
                ("POST /function/nobody", "", 404), ("POST /function/probe", "", 413)):
            self.assertEqual(self.ask(line, headers, 200_000), (status, 0), line)

    def test_others_hear_it(self):
        key = f"Authorization: Bearer {self.daemon.key}\r\n"
        body = json.dumps({"image": "probe:1", "mode": "exec"}).encode()
        self.assertEqual(self.ask("PUT /v1/functions/continued", key, len(body), body), (201, 1))
        self.assertEqual(self.ask("POST /v1/images", key, 4, b"text"), (415, 1))
        self.assertEqual(self.ask("POST /function/probe", "", 6, b"say hi"), (200, 1))


if __name__ == "__main__":
    unittest.main()
