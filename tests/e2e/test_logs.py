"""Functions' logs: kept on disk within their bound, told while they are written, and still there
after a restart and a kill."""

import base64
import http.client
import json
import os
import signal
import time
import unittest

from harness import Case, OwnDaemonCase, wait_until


def say(daemon, word, name="probe"):
    return daemon.call(name, b"stderr " + word.encode())


def lines(daemon, query="", name="probe"):
    reply = daemon.api("GET", f"/v1/functions/{name}/logs?tail=10000{query}")
    if reply.status != 200:
        raise AssertionError(repr(reply))
    return [json.loads(line) for line in reply.text.splitlines()]


def texts(daemon, query="", name="probe"):
    return [line["text"] for line in lines(daemon, query, name)]


class Logs(Case):
    flags = ("--log-bytes", "128Ki")

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()

    def gateway(self, query, name="probe"):
        password = (self.daemon.data / "secrets/basic-auth-password").read_text().strip()
        login = base64.b64encode(f"admin:{password}".encode()).decode()
        return self.daemon.request("GET", f"/system/logs?name={name}{query}", headers={
            "Authorization": "Basic " + login})

    def test_lines_are_told_at_once_with_who_wrote_them(self):
        before = time.time()
        reply = self.daemon.call("probe", b"stderr first", headers={"X-Call-Id": "my call"})
        self.assertEqual(reply.status, 200, repr(reply))
        line = lines(self.daemon)[-1]
        self.assertEqual((line["text"], line["stream"], line["version"]), ("first", "stderr", 1))
        self.assertRegex(line["instance"], r"^1-\d+$")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(before - 1))
        self.assertIn("first", texts(self.daemon, "&since=" + stamp))
        self.assertEqual(texts(self.daemon, "&since=2999-01-01T00:00:00Z"), [])
        refused = self.daemon.api("GET", "/v1/functions/probe/logs?since=tomorrow")
        self.assert_error(refused, 400, "invalid_argument", "since")

    def test_the_ring_keeps_the_newest_and_its_bound(self):
        self.daemon.deploy_probe("ring")
        for n in range(300):
            say(self.daemon, f"n{n}-" + "x" * 500, name="ring")
        kept = texts(self.daemon, name="ring")
        numbers = [int(text[1:].split("-")[0]) for text in kept]
        self.assertEqual(numbers[-1], 299)
        self.assertEqual(numbers, list(range(numbers[0], 300)), "a gap")
        self.assertGreater(len(kept), 20)
        files = [f for f in (self.daemon.data / "logs").iterdir() if ".ring." in f.name]
        self.assertLessEqual(sum(f.stat().st_size for f in files), 128 << 10)
        self.daemon.api("DELETE", "/v1/functions/ring")
        wait_until(lambda: not [f for f in (self.daemon.data / "logs").iterdir()
                                if ".ring." in f.name], 30, "the files to go")

    def test_a_call_writes_nothing_to_the_card(self):
        self.daemon.deploy_probe("quiet")
        path = self.daemon.data / "logs" / "admin.openfaas-fn.quiet.log"
        sizes = set()
        for n in range(50):
            say(self.daemon, f"n{n}", name="quiet")
            sizes.add(path.stat().st_size if path.exists() else 0)
        self.assertLess(len(sizes), 25, "a batch each few seconds, not a write for each call")
        wait_until(lambda: path.exists() and b"n49" in path.read_bytes(), 30, "the last batch")

    def test_the_gateway_tells_them_as_faas_cli_expects(self):
        say(self.daemon, "for-faas-cli")
        reply = self.gateway("&tail=1")
        self.assertEqual(reply.headers["content-type"], "application/x-ndjson")
        self.assertEqual(reply.headers.get("transfer-encoding"), "chunked")
        line = json.loads(reply.text)
        self.assertEqual(set(line), {"name", "namespace", "instance", "timestamp", "text"})
        self.assertEqual((line["name"], line["namespace"], line["text"]),
                         ("probe", "openfaas-fn", "for-faas-cli"))
        self.assertIn("for-faas-cli", self.gateway("&tail=-1").text)
        self.assertEqual(self.gateway("", name="unknown").text, "")
        self.assertEqual(self.gateway("&tail=x").status, 422)
        self.assertEqual(self.gateway("&tail=x&tail=1").status, 200)

    def test_a_follower_gets_the_head_at_once_and_every_line_once(self):
        self.daemon.deploy_probe("told")
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=120)
        connection.request("GET", "/system/logs?name=told&follow=true&tail=-1",
                           headers={"Authorization": "Bearer " + self.daemon.key})
        response = connection.getresponse()  # there is no line yet
        self.assertEqual(response.status, 200)
        for n in range(20):
            say(self.daemon, f"n{n}", name="told")
        seen = [json.loads(response.readline())["text"] for _ in range(20)]
        self.assertEqual(seen, [f"n{n}" for n in range(20)])
        connection.close()

    def test_the_command_line_shows_what_is_asked(self):
        say(self.daemon, "shown")
        self.assertIn("shown", self.daemon.cli_ok("logs", "probe"))
        self.assertIn("shown", self.daemon.cli_ok("logs", "probe", "--since", "10m"))
        self.assertNotIn("shown", self.daemon.cli_ok("logs", "probe", "--since",
                                                     "2999-01-01T00:00:00Z"))
        self.assertNotEqual(self.daemon.cli("logs", "probe", "--since", "soon").returncode, 0)


class Deaths(OwnDaemonCase):
    def test_they_outlive_a_stop_to_the_last_line(self):
        self.daemon.deploy_probe()
        say(self.daemon, "before")
        self.daemon.stop()
        self.daemon.start()
        say(self.daemon, "after")
        self.assertEqual(texts(self.daemon), ["before", "after"])

    def test_killed_the_daemon_loses_the_last_seconds_alone(self):
        self.daemon.deploy_probe()
        for n in range(5):
            say(self.daemon, f"kept-{n}")
            path = self.daemon.data / "logs" / "admin.openfaas-fn.probe.log"
            wait_until(lambda: path.exists() and f"kept-{n}\n".encode() in path.read_bytes(), 60,
                       "the batch")
            say(self.daemon, f"perhaps-{n}")
            pid = self.daemon.daemon_pid()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: self.daemon.daemon_now() not in (None, pid)
                       and self.daemon.healthy(), 60, "a new daemon")
            found = texts(self.daemon)
            for m in range(n + 1):
                self.assertEqual(found.count(f"kept-{m}"), 1, found)

    def test_logs_of_nobody_go_at_start(self):
        self.daemon.deploy_probe()
        say(self.daemon, "mine")
        self.daemon.stop()
        stray = self.daemon.data / "logs" / "admin.openfaas-fn.gone.log"
        stray.write_text("1 1 - - - x\n")
        self.daemon.start()
        wait_until(lambda: not stray.exists(), 30, "the stray file to go")
        self.assertEqual(texts(self.daemon), ["mine"])


if __name__ == "__main__":
    unittest.main()
