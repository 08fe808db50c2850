"""Users and API keys: who gets where, by every route of the document; revoked at once; kept over
kills; an older database goes on as it was."""

import json
import signal
import sqlite3
import threading
import unittest

import openapi
from harness import Case, OwnDaemonCase, in_parallel, wait_until

# Of the permission table (docs/accounts.md): what others than administrators may ask at all.
STANDARD = {("get", "/v1/users"), ("get", "/v1/users/{name}"), ("get", "/v1/keys"),
            ("post", "/v1/keys"), ("delete", "/v1/keys/{name}"), ("get", "/v1/system"),
            ("put", "/v1/users/{name}/password"),
            ("get", "/system/info")}
LIMITED = STANDARD - {("post", "/v1/keys"), ("get", "/v1/system"), ("get", "/system/info")}
METHODS = {"get", "put", "post", "patch", "delete", "options"}


def managed_routes():
    """(method, path of the document, path to ask: of names nobody has, so that what is let in
    changes nothing)."""
    for path, operations in openapi.OPERATIONS.items():
        if path.startswith(("/v1/", "/system/")) and path != "/v1/sign-in":
            target = path.replace("{ref...}", "no-such-ref").replace("{name}", "no-such-name")
            for method in METHODS & operations.keys():
                yield method, path, target


class Accounts(Case):
    @classmethod
    def prepare(cls):
        cls.keys = {}
        for role in ("administrator", "standard", "limited"):
            made = cls.daemon.api("POST", "/v1/users", {"name": role, "role": role})
            assert made.status == 201, made
            cls.keys[role] = cls.make_key(role, "sign-in", "deploy")
        cls.keys["disabled"] = cls.make_user_key("gone", "administrator")
        cls.daemon.api("PATCH", "/v1/users/gone", {"disabled": True})

    @classmethod
    def make_key(cls, user, *scopes, **more):
        made = cls.daemon.api("POST", "/v1/keys", {"user": user, "scopes": scopes, **more})
        assert made.status == 201, made
        return made.json()["key"]

    @classmethod
    def make_user_key(cls, name, role):
        made = cls.daemon.api("POST", "/v1/users", {"name": name, "role": role})
        assert made.status == 201, made
        return cls.make_key(name, "sign-in", "deploy")

    def ask(self, key, method, path, document=None):
        headers = {"Authorization": "Bearer " + key} if key else {}
        body = None if document is None else json.dumps(document)
        return self.daemon.request(method, path, body, headers)

    def test_every_route_lets_in_whom_the_table_says(self):
        routes = list(managed_routes())
        self.assertGreater(len(routes), 50)
        for method, path, target in routes:
            with self.subTest(method=method, path=path):
                for holder in ("", "disabled"):
                    reply = self.ask(self.keys.get(holder), method.upper(), target)
                    self.assertEqual(reply.status, 401, repr(reply))
                for holder, may in (("standard", STANDARD), ("limited", LIMITED)):
                    reply = self.ask(self.keys[holder], method.upper(), target)
                    self.assertEqual(reply.status == 403, (method, path) not in may,
                                     f"{holder}: {reply}")
                    self.assertNotEqual(reply.status, 401, repr(reply))

    def test_an_administrator_with_both_scopes_is_let_in_everywhere(self):
        for method, path, target in managed_routes():
            if method == "get":
                reply = self.ask(self.keys["administrator"], "GET", target)
                self.assertNotIn(reply.status, (401, 403), f"{path}: {reply}")

    def test_a_deploy_key_deploys_and_does_nothing_else(self):
        key = self.make_key("administrator", "deploy", label="the build server")
        self.daemon.import_sample("hello")
        put = self.ask(key, "PUT", "/v1/functions/made", {"image": "hello:1"})
        self.assertIn(put.status, (200, 201), repr(put))
        self.assertEqual(self.daemon.call("made").status, 200)
        self.assertEqual(self.ask(key, "DELETE", "/v1/functions/made").status, 204)
        for method, path in (("GET", "/v1/users"), ("GET", "/v1/system"), ("GET", "/metrics")):
            self.assertEqual(self.ask(key, method, path).status, 403, path)
        refused = self.ask(key, "POST", "/v1/keys", {"scopes": ["sign-in"]})
        self.assert_error(refused, 403, "not_permitted", "scope sign-in")

    def test_a_revoked_key_opens_nothing_from_the_answer_on(self):
        key = self.make_key("administrator", "sign-in")
        self.assertEqual(self.ask(key, "GET", "/v1/users").status, 200)
        gone = self.daemon.api("DELETE", "/v1/keys/" + key.split("_")[1])
        self.assertEqual(gone.status, 204)
        self.assertEqual(self.ask(key, "GET", "/v1/users").status, 401)

    def test_a_key_ends_by_itself(self):
        key = self.make_key("administrator", "sign-in", expires_in="1s")
        wait_until(lambda: self.ask(key, "GET", "/v1/users").status == 401, what="its end")

    def test_the_command_line_makes_users_and_keys(self):
        cli = self.daemon.cli_ok
        self.assertIn("user ada  standard", cli("user", "create", "ada", "--role", "standard"))
        key = cli("key", "create", "--user", "ada", "--scope", "sign-in", "--label", "a laptop")
        self.assertRegex(key, r"\Apulga_[0-9a-f]{16}_[0-9a-f]{64}\n\Z")
        mine = {"PULGA_KEY": key.strip()}
        self.assertIn("a laptop", cli("key", "ls", env=mine))
        self.assertNotIn("administrator", cli("user", "ls", env=mine))
        self.assertIn("disabled", cli("user", "update", "ada", "--disable"))
        shut = self.daemon.cli("key", "ls", env=mine)
        self.assertEqual(shut.returncode, 1)
        self.assertIn("removed ada", cli("user", "rm", "ada"))
        self.assertNotIn("a laptop", cli("key", "ls"))
        for words in (("user", "create", "../x"), ("user", "update", "bob")):
            self.assertEqual(self.daemon.cli(*words).returncode, 2, words)

    def test_a_password_signs_in_and_a_new_one_ends_that(self):
        cli = self.daemon.cli_ok
        cli("user", "create", "eve")
        cli("user", "password", "eve", stdin=b"correct horse battery\n")
        key = cli("sign-in", "eve", stdin=b"correct horse battery\n").strip()
        mine = {"PULGA_KEY": key}
        self.assertIn("signed in", cli("key", "ls", env=mine))
        without = self.daemon.cli("user", "password", "eve", env=mine,
                                  stdin=b"another horse battery\n")
        self.assertEqual(without.returncode, 1, without)
        cli("user", "password", "eve", "--current", env=mine,
            stdin=b"correct horse battery\nanother horse battery\n")
        self.assertEqual(self.ask(key, "GET", "/v1/keys").status, 401)
        old = self.daemon.cli("sign-in", "eve", stdin=b"correct horse battery\n")
        self.assertEqual(old.returncode, 1, old)
        self.assertIn("pulga_", cli("sign-in", "eve", stdin=b"another horse battery\n"))
        for file in self.daemon.data.glob("pulga.db*"):
            self.assertNotIn(b"horse battery", file.read_bytes(), file)
        self.assertNotIn("horse", self.daemon.log())

    def test_a_flood_of_sign_ins_leaves_calls_alone(self):
        self.daemon.deploy_probe()
        attempt = {"name": "ghost", "password": "a wrong password"}
        flood = threading.Thread(target=in_parallel, args=(
            30, lambda n: self.daemon.api("POST", "/v1/sign-in", attempt).status))
        flood.start()
        statuses = [self.daemon.call("probe", b"ls /").status for _ in range(20)]
        flood.join(60)
        self.assertEqual(set(statuses), {200})
        refused = self.daemon.api("POST", "/v1/sign-in", attempt)
        self.assertEqual(refused.status, 429, repr(refused))
        self.assertGreaterEqual(int(refused.headers["retry-after"]), 1)

    def test_secret_halves_are_nowhere_in_clear(self):
        secret = self.make_key("administrator", "sign-in").split("_")[2]
        self.assertNotIn(secret, self.daemon.api("GET", "/v1/keys").text)
        self.assertNotIn(secret, self.daemon.log())
        for file in self.daemon.data.glob("pulga.db*"):
            self.assertNotIn(secret.encode(), file.read_bytes(), file)


class CallsWithAKey(OwnDaemonCase):
    def test_a_call_needs_a_key_that_its_function_never_sees_until_the_setting_is_open(self):
        settings = self.daemon.temp / "pulga.conf"
        settings.write_text("call-access = key\n")
        settings.chmod(0o644)
        self.daemon.stop()
        self.daemon.flags += ["--config", str(settings)]
        self.daemon.start()
        self.daemon.deploy_probe()
        self.daemon.api("POST", "/v1/users", {"name": "bob", "role": "limited"})
        made = self.daemon.api("POST", "/v1/keys", {"user": "bob", "scopes": ["invoke"]})
        key = made.json()["key"]
        refused = self.daemon.call("probe", b"env")
        self.assertEqual((refused.status, refused.outcome), (401, "rejected:unauthorized"))
        seen = self.daemon.call("probe", b"env", headers={"Authorization": "Bearer " + key})
        self.assertEqual(seen.status, 200, repr(seen))
        self.assertIn("Http_", seen.text)
        self.assertNotIn(key, seen.text)
        shut = self.daemon.cli("invoke", "probe", stdin=b"env")
        self.assertEqual(shut.returncode, 1, shut)
        self.assertIn("Http_", self.daemon.cli_ok("invoke", "probe", "--send-key", stdin=b"env",
                                                  env={"PULGA_KEY": key}))
        settings.write_text("call-access = open\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.daemon.call("probe", b"env").status == 200, what="the reload")


class Restarts(OwnDaemonCase):
    def test_users_and_keys_survive_a_kill_and_revocations_too(self):
        self.daemon.api("POST", "/v1/users", {"name": "ada", "role": "administrator"})
        kept, revoked = (self.daemon.api("POST", "/v1/keys", {"user": "ada", "scopes": ["sign-in"]})
                         .json() for _ in range(2))
        self.daemon.api("DELETE", "/v1/keys/" + revoked["id"])
        self.daemon.stop(signal.SIGKILL)
        self.daemon.start()
        for key, status in ((kept, 200), (revoked, 401)):
            reply = self.daemon.request("GET", "/v1/users",
                                        headers={"Authorization": "Bearer " + key["key"]})
            self.assertEqual(reply.status, status, repr(reply))

    def test_last_use_survives_a_stop(self):
        key = self.daemon.api("POST", "/v1/keys", {"scopes": ["sign-in"]}).json()
        self.assertIsNone(key["last_used_at"])
        self.daemon.request("GET", "/v1/users", headers={"Authorization": "Bearer " + key["key"]})
        used = self.daemon.api("GET", "/v1/keys").json()["keys"][0]["last_used_at"]
        self.assertIsNotNone(used)
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(self.daemon.api("GET", "/v1/keys").json()["keys"][0]["last_used_at"], used)

    def test_a_database_from_before_accounts_goes_on_with_its_administrator(self):
        self.daemon.deploy_probe()
        self.daemon.stop()
        with sqlite3.connect(self.daemon.data / "pulga.db") as database:
            database.executescript("DROP TABLE api_keys; DROP TABLE users; PRAGMA user_version = 7")
        self.daemon.start()
        self.assertEqual(self.daemon.call("probe", b"ls /").status, 200)
        users = self.daemon.api("GET", "/v1/users").json()["users"]
        self.assertEqual([(u["name"], u["role"]) for u in users], [("admin", "administrator")])
        made = self.daemon.api("POST", "/v1/keys", {"scopes": ["sign-in"]})
        self.assertEqual(made.status, 201, repr(made))


if __name__ == "__main__":
    unittest.main()
