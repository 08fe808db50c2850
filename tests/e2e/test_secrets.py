"""Secrets: kept sealed, seen by the functions that name them and by nobody else, changed while they
run, and back after every death."""

import base64
import http.client
import os
import signal
import sqlite3
import unittest
from pathlib import Path

from harness import Case, OwnDaemonCase, descendants, wait_until

HERE = "/var/openfaas/secrets"
BYTES = b"\x00\xff two\nlines \r\n\x80"


def rows(data_dir):
    with sqlite3.connect(data_dir / "pulga.db") as database:
        return database.execute("SELECT name, key_id, nonce, sealed FROM secrets").fetchall()


class Secrets(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe()

    def keep(self, name, value, expect=(200, 201), query=""):
        reply = self.daemon.request("PUT", f"/v1/secrets/{name}{query}", value, admin=True)
        self.assertIn(reply.status, expect, repr(reply))
        return reply

    def remove(self, name, query=""):
        return self.daemon.api("DELETE", f"/v1/secrets/{name}{query}")

    def deploy(self, name, *secrets, expect=(200, 201), **more):
        return self.daemon.put(name, {"image": "probe:1", "mode": "exec", "secrets": secrets,
                                      **more}, expect)

    def deploy_web(self, name, *secrets, **more):
        self.daemon.import_sample("http-hello")
        self.daemon.put(name, {"image": "http-hello:1", "mode": "http", "secrets": secrets, **more})
        self.assertEqual(self.daemon.call(name).status, 200)

    def drop(self, *names):
        for name in names:
            reply = self.daemon.api("DELETE", f"/v1/functions/{name}")
            self.assertEqual(reply.status, 204, reply.text)

    def say(self, name, deed):
        return self.daemon.call(name, deed.encode()).body

    def names(self):
        return [s["name"] for s in self.daemon.api("GET", "/v1/secrets").json()["secrets"]]

    def test_a_function_reads_exactly_the_bytes_at_both_places(self):
        self.keep("token", BYTES)
        self.keep("empty.one", b"")
        self.keep("big", b"x" * (1 << 20))
        self.deploy("reader", "token", "empty.one", "big")
        for place in (HERE, "/run/secrets"):
            self.assertEqual(self.say("reader", f"cat {place}/token"), BYTES)
            self.assertEqual(self.say("reader", f"cat {place}/empty.one"), b"")
        self.assertEqual(self.say("reader", f"cat {HERE}/big"), b"x" * (1 << 20))
        self.drop("reader")
        for name in ("token", "empty.one", "big"):
            self.assertEqual(self.remove(name).status, 204)
        self.assertEqual(self.names(), [])

    def test_any_user_reads_and_nobody_writes(self):
        self.keep("token", b"open sesame")
        for user in ("", "0", "1000:1000", "65534"):
            with self.subTest(user=user):
                self.deploy("reader", "token", user=user)
                self.assertEqual(self.say("reader", f"cat {HERE}/token"), b"open sesame")
                for deed in (f"write {HERE}/token x", f"write {HERE}/new x",
                             f"unlink {HERE}/token", f"mkdir {HERE}/d"):
                    self.assertRegex(self.say("reader", deed), rb"errno (13|30)", deed)
        self.drop("reader")
        self.remove("token")

    def test_functions_see_their_own_alone_and_others_nothing(self):
        self.keep("mine", b"1")
        self.keep("yours", b"2")
        self.deploy("me", "mine")
        self.deploy("you", "yours")
        self.assertIn(b"errno 2", self.say("me", f"cat {HERE}/yours"))
        self.assertEqual(self.say("you", f"cat {HERE}/yours"), b"2")
        self.assertIn(b"errno 2", self.say("probe", f"ls {HERE}"))
        self.assertIn(b"errno 2", self.say("probe", "ls /run/secrets"))
        self.deploy("me")
        self.assertIn(b"errno 2", self.say("me", f"cat {HERE}/mine"))
        self.drop("me", "you")
        self.remove("mine")
        self.remove("yours")

    def test_a_change_reaches_parked_running_and_frozen_instances(self):
        self.keep("token", b"old")
        self.deploy("parked", "token", scale={"parked": 1})
        self.assertEqual(self.say("parked", f"cat {HERE}/token"), b"old")
        self.deploy_web("web", "token", scale={"max": 1, "freeze_after": "200ms"})
        shown = lambda: self.daemon.api("GET", "/v1/functions/web").json()["instances"][0]
        wait_until(lambda: shown()["step"] == "frozen", 30, "a frozen server")
        steps = lambda: [i["step"] for i in
                         self.daemon.api("GET", "/v1/functions/parked").json()["instances"]]
        wait_until(lambda: "parked" in steps(), 30, "a parked sandbox")
        seen = self.seen_by_servers()
        self.assertEqual([path.read_bytes() for path in seen], [b"old"])
        self.keep("token", b"new value", expect=(200,))
        wait_until(lambda: self.say("parked", f"cat {HERE}/token") == b"new value", 30,
                   "the change, in a sandbox")
        wait_until(lambda: seen[0].read_bytes() == b"new value", 30, "the change, in the server")
        self.assertEqual(shown()["step"], "frozen")
        self.drop("parked", "web")
        self.remove("token")

    def seen_by_servers(self):
        """The file as each server sees it: root may look into their mounts, frozen or not."""
        found = []
        for pid in descendants(self.daemon.launcher_pid()):
            path = Path(f"/proc/{pid}/root{HERE}/token")
            if Path(f"/proc/{pid}/comm").read_text().strip() == "http-hello" and path.exists():
                found.append(path)
        return found

    def test_a_reader_never_meets_half_a_change(self):
        values = [bytes([65 + n]) * 500_000 for n in range(8)]
        self.keep("token", values[0])
        self.deploy_web("web", "token", scale={"min": 1})
        path = self.seen_by_servers()[0]
        for value in values[1:]:
            self.keep("token", value)
            for _ in range(20):
                self.assertIn(path.read_bytes(), values)
            wait_until(lambda: path.read_bytes() == value, 30, "the change")
        self.drop("web")
        self.remove("token")

    def test_what_is_missing_or_misnamed_is_refused_by_name(self):
        reply = self.deploy("reader", "absent", expect=(400,))
        self.assert_error(reply, 400, "invalid_argument", "unable to find secret: absent")
        for secrets in (["../x"], ["a/b"], [""], [".a"], ["a", "a"], [f"s{n}" for n in range(65)],
                        "a", [1], {"a": "b"}):
            reply = self.daemon.api("PUT", "/v1/functions/reader", {
                "image": "probe:1", "mode": "exec", "secrets": secrets})
            self.assert_error(reply, 400, "invalid_spec", "secrets")
        self.assertEqual(self.daemon.api("GET", "/v1/functions/reader").status, 404)

    def test_volumes_may_not_lie_over_them(self):
        self.keep("token", b"x")
        for path in (HERE, "/var/openfaas", HERE + "/more"):
            reply = self.deploy("reader", "token", expect=(400, 409, 422, 500, 503),
                                volumes=[{"name": "v", "path": path, "size": "8Mi"}])
            self.assertIn("secrets are in", reply.text, path)
        self.remove("token")
        self.daemon.api("DELETE", "/v1/volumes/v")

    def test_what_is_in_use_stays_unless_forced(self):
        self.keep("token", b"x")
        self.deploy("reader", "token", scale={"parked": 0})
        self.assert_error(self.remove("token"), 409, "secret_in_use", "function reader")
        self.assertEqual(self.remove("token", "?force=1").status, 204)
        self.assertEqual(self.say("reader", f"cat {HERE}/token"), b"x", "what lives keeps it")
        self.keep("token", b"again")
        self.drop("reader")
        self.assertEqual(self.remove("token").status, 204)

    def test_the_command_line_makes_changes_and_removes_them(self):
        self.daemon.cli_ok("secret", "create", "pass.word", stdin=b"hunter2\n")
        self.assertNotEqual(self.daemon.cli("secret", "create", "pass.word", stdin=b"x").returncode,
                            0)
        self.daemon.cli_ok("deploy", "reader", "--image", "probe:1", "--mode", "exec", "--secret",
                           "pass.word")
        self.assertEqual(self.say("reader", f"cat {HERE}/pass.word"), b"hunter2")
        path = self.daemon.data.parent / "value"
        path.write_bytes(BYTES)
        self.daemon.cli_ok("secret", "update", "pass.word", "--from-file", str(path))
        wait_until(lambda: self.say("reader", f"cat {HERE}/pass.word") == BYTES, 30, "the update")
        listed = self.daemon.cli_ok("secret", "ls")
        self.assertIn("pass.word", listed)
        self.assertIn("reader", listed)
        self.assertNotEqual(self.daemon.cli("secret", "rm", "pass.word").returncode, 0)
        self.drop("reader")
        self.daemon.cli_ok("secret", "rm", "pass.word")
        self.assertNotEqual(self.daemon.cli("secret", "update", "pass.word", stdin=b"x").returncode,
                            0)

    def test_values_are_nowhere_in_clear(self):
        value = base64.b64encode(os.urandom(48))
        self.keep("token", value)
        self.deploy("reader", "token", scale={"min": 0, "parked": 1})
        self.assertEqual(self.say("reader", f"cat {HERE}/token"), value)
        self.assertEqual((self.daemon.data / "secrets.key").stat().st_mode & 0o777, 0o600)
        for path in self.daemon.data.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.assertNotIn(value, path.read_bytes(), path)
        said = [self.daemon.log().encode()]
        for target in ("/v1/secrets", "/v1/functions/reader", "/v1/functions", "/v1/system"):
            said.append(self.daemon.api("GET", target).body)
        self.assertNotIn(value, b"".join(said))
        self.drop("reader")
        self.remove("token")


class Deaths(OwnDaemonCase):
    def keep(self, name, value):
        reply = self.daemon.request("PUT", f"/v1/secrets/{name}", value, admin=True)
        self.assertIn(reply.status, (200, 201), repr(reply))

    def read(self):
        return self.daemon.call("reader", f"cat {HERE}/token".encode())

    def deploy(self):
        self.keep("token", BYTES)
        self.daemon.deploy_probe("reader", secrets=["token"])
        self.assertEqual(self.read().body, BYTES)

    def test_they_come_back_after_the_daemon_and_the_launcher(self):
        self.deploy()
        os.kill(self.daemon.daemon_pid(), signal.SIGKILL)
        wait_until(lambda: self.daemon.daemon_now() and self.daemon.healthy(), 60, "a new daemon")
        wait_until(lambda: self.read().body == BYTES, 60, "the secret after the daemon's death")
        os.kill(self.daemon.launcher_pid(), signal.SIGKILL)
        wait_until(lambda: self.read().body == BYTES, 60, "the secret after the launcher's death")
        self.keep("token", b"changed")
        wait_until(lambda: self.read().body == b"changed", 60, "the change")
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.read().body, b"changed")

    def test_a_lost_key_is_said_and_costs_nothing(self):
        self.deploy()
        self.daemon.stop()
        key = self.daemon.data / "secrets.key"
        key.rename(key.with_suffix(".away"))
        self.daemon.start()
        reply = self.read()
        self.assertEqual(reply.status, 503, repr(reply))
        said = self.daemon.api("GET", "/v1/functions/reader/logs").text
        self.assertIn("secrets.key is missing", reply.text + said)
        refused = self.daemon.request("PUT", "/v1/secrets/other", b"x", admin=True)
        self.assertEqual(refused.status, 503, repr(refused))
        self.assertFalse(key.exists())
        key.with_suffix(".away").rename(key)
        wait_until(lambda: self.read().body == BYTES, 60, "the secret, its key put back")

    def test_killed_at_any_moment_the_old_value_or_the_new_one_is_there(self):
        self.deploy()
        for n in range(12):
            new = b"%d" % n * 1000
            before = self.read().body
            pid = self.daemon.daemon_pid()
            connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=120)
            try:
                connection.request("PUT", "/v1/secrets/token", new, {
                    "Authorization": "Bearer " + self.daemon.key})
                if n % 3:
                    self.assertEqual(connection.getresponse().status, 200)
                    before = new
            finally:
                os.kill(pid, signal.SIGKILL)
                connection.close()
            wait_until(lambda: self.daemon.daemon_now() not in (None, pid)
                       and self.daemon.healthy(), 60, "a new daemon")
            wait_until(lambda: self.read().status == 200, 60, "an answer")
            self.assertIn(self.read().body, (before, new))
        self.assertEqual(len(rows(self.daemon.data)), 1)


if __name__ == "__main__":
    unittest.main()
