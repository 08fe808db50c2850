"""Callbacks of asynchronous calls: the answer goes to X-Callback-Url, at least once, and nowhere
it must not."""

import base64
import hmac
import http.server
import os
import signal
import threading
import time
import unittest
from pathlib import Path

from harness import Case, OwnDaemonCase, free_port, wait_until

NETWORKS = ("--callback-networks", "127.0.0.0/8")
KEY = bytes(range(32))
OURS = ("x-call-id", "x-duration-seconds", "x-function-name", "x-function-status")


class Receiver:
    """A server on loopback. What came, in order: path, headers, body; answers as told."""

    def __init__(self, port=0):
        self.got = []
        self.answers = []  # statuses of the next ones; then 200
        self.missing = 0  # bytes of a body that is announced, and cut off

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self, receiver=self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                receiver.got.append((self.path, dict(
                    (name.lower(), value) for name, value in self.headers.items()), body))
                status = receiver.answers.pop(0) if receiver.answers else 200
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(receiver.missing))
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def submit(daemon, url, name="probe", body=b"say hello", headers=None):
    return daemon.request("POST", f"/async-function/{name}", body,
                          {"X-Callback-Url": url, **(headers or {})})


def callback_of(daemon, task_id):
    return daemon.api("GET", "/v1/tasks/" + task_id).json()["callback"]


class Delivers(Case):
    @classmethod
    def make_daemon(cls):
        daemon = super().make_daemon()
        daemon.flags += NETWORKS + ("--callback-key", str(daemon.data / "callback.key"))
        return daemon

    @classmethod
    def prepare(cls):
        Path(cls.daemon.data, "callback.key").write_bytes(b"whsec_" + base64.b64encode(KEY))
        cls.daemon.deploy_probe()
        cls.daemon.deploy_http()
        cls.daemon.import_sample("echo")
        cls.daemon.put("echo", {"image": "echo:1", "mode": "exec"})

    def setUp(self):
        super().setUp()
        self.receiver = Receiver()
        self.addCleanup(self.receiver.stop)

    def settled(self, task_id):
        def look():
            callback = callback_of(self.daemon, task_id)
            return callback if callback["state"] in ("delivered", "given-up") else None
        return wait_until(look, 90, lambda: f"{task_id}: {callback_of(self.daemon, task_id)}")

    def send(self, *args, **options):
        reply = submit(self.daemon, *args, **options)
        self.assertEqual(reply.status, 202, reply)
        return reply.headers["x-call-id"]

    def test_the_answer_comes_with_the_originals_headers(self):
        task_id = self.send(self.receiver.url("/done?a=1"), "echo.openfaas-fn", b"ping")
        self.assertEqual(self.settled(task_id),
                         {"state": "delivered", "tries": 1, "not_before": None, "error": None})
        [(path, headers, body)] = self.receiver.got
        self.assertEqual((path, body), ("/done?a=1", b"ping"))
        self.assertEqual(headers["x-call-id"], task_id)
        self.assertEqual(headers["x-function-name"], "echo.openfaas-fn")
        self.assertEqual(headers["x-function-status"], "200")
        self.assertRegex(headers["x-duration-seconds"], r"^\d+\.\d{6}$")
        self.assertEqual(headers["host"], f"127.0.0.1:{self.receiver.port}")

    def test_a_servers_headers_and_status_are_passed_on(self):
        self.settled(self.send(self.receiver.url(), "web/status/418", b"x"))
        [(_, headers, body)] = self.receiver.got
        self.assertEqual((headers["x-function-status"], body), ("418", b"as asked\n"))
        self.assertEqual(headers["content-type"], "text/plain")
        self.assertEqual(headers["x-function-name"], "web")

    def test_it_is_signed_by_the_key_there_is(self):
        self.settled(self.send(self.receiver.url(), "echo", b"ping"))
        [(_, headers, body)] = self.receiver.got
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        mac = base64.b64encode(hmac.digest(KEY, signed, "sha256")).decode()
        self.assertEqual(headers["webhook-signature"], "v1," + mac)
        self.assertEqual(headers["webhook-id"], headers["x-call-id"])
        self.assertLess(abs(time.time() - int(headers["webhook-timestamp"])), 60)

    def test_a_status_is_enough_of_an_answer(self):
        self.receiver.missing = 5
        callback = self.settled(self.send(self.receiver.url()))
        self.assertEqual((callback["state"], callback["tries"]), ("delivered", 1), callback)
        self.assertEqual(len(self.receiver.got), 1)

    def test_a_failed_call_is_told_too(self):
        self.settled(self.send(self.receiver.url(), body=b"exit 3"))
        [(_, headers, body)] = self.receiver.got
        self.assertEqual(headers["x-function-status"], "500")
        self.assertIn(b"3", body)

    def test_large_answers_come_whole_and_too_large_ones_say_so(self):
        body = bytes(range(256)) * 3000
        self.settled(self.send(self.receiver.url(), "echo", body))
        self.assertEqual(self.receiver.got[0][2], body)
        self.settled(self.send(self.receiver.url(), body=b"output 3000000"))
        self.assertEqual(self.receiver.got[1][1]["x-function-status"], "502")
        self.assertIn(b"task-message-bytes", self.receiver.got[1][2])

    def test_a_receiver_that_fails_is_asked_again(self):
        self.receiver.answers = [500, 503]
        task_id = self.send(self.receiver.url())
        self.assertEqual(self.settled(task_id)["tries"], 3)
        self.assertEqual(len(self.receiver.got), 3)
        self.assertEqual(len({tuple(headers[name] for name in OURS)
                              for _, headers, _ in self.receiver.got}), 1, "the same each time")

    def test_redirects_are_not_followed(self):
        self.receiver.answers = [302]
        callback = self.settled(self.send(self.receiver.url()))
        self.assertEqual((callback["state"], callback["tries"]), ("given-up", 1))
        self.assertIn("redirects are not followed", callback["error"])
        self.assertEqual([path for path, _, _ in self.receiver.got], ["/"])

    def test_a_refusal_is_final_and_seen_from_the_command_line(self):
        self.receiver.answers = [404]
        task_id = self.send(self.receiver.url())
        self.settled(task_id)
        self.assertIn("given-up", self.daemon.cli_ok("tasks", "ls"))
        shown = self.daemon.cli_ok("tasks", "show", task_id)
        self.assertIn("the receiver answered 404", shown)

    def test_a_function_of_this_board_may_be_the_receiver(self):
        task_id = self.send("http://gateway.openfaas:8080/function/web/received?q=1")
        self.assertEqual(self.settled(task_id)["state"], "delivered")
        failing = self.send("http://gateway:8080/function/absent")
        self.assertEqual(self.settled(failing)["error"], "the receiver answered 404")

    def test_an_answer_may_become_a_task_of_its_own(self):
        task_id = self.send("http://gateway:8080/async-function/echo")
        self.assertEqual(self.settled(task_id)["state"], "delivered")

        def the_next():
            tasks = self.daemon.api("GET", "/v1/tasks?function=echo").json()["tasks"]
            return [task for task in tasks if task["state"] == "done"]
        wait_until(the_next, 30, "the task that the answer made has run")
        self.assertNotEqual(the_next()[0]["id"], task_id)

    def test_names_are_judged_by_the_address_they_have(self):
        # A name of loopback, within what is allowed here; and one that nobody has.
        name = f"http://localhost:{self.receiver.port}/"
        self.assertEqual(self.settled(self.send(name))["state"], "delivered")
        task_id = self.send("http://no-such-host.invalid/")
        wait_until(lambda: callback_of(self.daemon, task_id)["tries"] >= 1, 60, "it was tried")
        self.assertEqual(callback_of(self.daemon, task_id)["state"], "owed")
        self.assertEqual(self.daemon.api("DELETE", "/v1/tasks/" + task_id).status, 204)

    def test_what_is_no_callback_is_refused_at_once(self):
        for url in ("", "ftp://a.example/", "http://user@a.example/", "http://10.0.0.1/",
                    "http://[::1]/", "http://169.254.169.254/latest", "http://0x7f.1/",
                    "http://2130706433/", "http://gateway:8080/system/functions",
                    "http://gateway/function/web", "http://a.example/" + "x" * 3000):
            reply = submit(self.daemon, url)
            self.assertEqual((reply.status, reply.outcome), (400, "rejected:bad-callback"), url)
            self.assertIn("X-Callback-Url", reply.text)


class Owes(OwnDaemonCase):
    def setUp(self):
        super().setUp()
        self.daemon.deploy_probe()

    def restart(self, *flags, signo=signal.SIGTERM):
        self.daemon.stop(signo)
        self.daemon.flags += flags
        self.daemon.start()

    def test_private_networks_are_closed_unless_opened(self):
        receiver = Receiver()
        self.addCleanup(receiver.stop)
        reply = submit(self.daemon, receiver.url())
        self.assertEqual(reply.status, 400)
        self.assertIn("callback-networks", reply.text)
        # What it may reach is looked at when it connects: a setting that closed meanwhile holds.
        self.restart(*NETWORKS)
        receiver.answers = [500] * 10
        task_id = submit(self.daemon, receiver.url()).headers["x-call-id"]
        wait_until(lambda: receiver.got, 60, "the first try")
        self.daemon.flags = [flag for flag in self.daemon.flags if flag not in NETWORKS]
        self.restart()
        def given_up():
            callback = callback_of(self.daemon, task_id)
            return callback if callback["state"] == "given-up" else None
        self.assertIn("public", wait_until(given_up, 60, "it is given up")["error"])

    def test_what_is_owed_outlives_a_kill(self):
        port = free_port()
        self.restart(*NETWORKS)
        task_id = submit(self.daemon, f"http://127.0.0.1:{port}/").headers["x-call-id"]
        wait_until(lambda: callback_of(self.daemon, task_id)["tries"] >= 1, 60, "nobody was there")
        self.assertEqual(self.daemon.api("GET", "/v1/tasks/" + task_id).json()["state"], "done")
        self.assertEqual(self.daemon.api("GET", "/v1/tasks").json()["callbacks"], 1)
        os.kill(self.daemon.daemon_pid(), signal.SIGKILL)
        receiver = Receiver(port)
        self.addCleanup(receiver.stop)
        wait_until(lambda: receiver.got, 120, "it was delivered by the next daemon")
        self.assertEqual(receiver.got[0][1]["x-call-id"], task_id)
        self.assertEqual(receiver.got[0][2], b"hello\n")


if __name__ == "__main__":
    unittest.main()
