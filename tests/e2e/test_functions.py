"""Functions over time: restarts, replacement without a failed request, scaling, roll-back."""

import os
import threading
import time
import unittest

import leaks
from harness import (WARM, Case, OwnDaemonCase, image_archive, image_of, in_parallel, probe_binary,
                     wait_until)


def instances(daemon, name):
    status = daemon.api("GET", "/v1/functions/" + name).json()
    return status["instances"] if "instances" in status else status["status"]["instances"]


class Survival(OwnDaemonCase):
    def restart(self):
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()

    def test_functions_images_and_keys_survive_a_restart(self):
        self.daemon.deploy_probe(env={"KEEP": "me"}, limits={"memory": "48Mi"})
        self.daemon.deploy_http()
        key = self.daemon.key
        before = self.daemon.api("GET", "/v1/functions/probe").json()["spec"]
        self.restart()
        self.assertEqual(self.daemon.key, key)
        self.assertEqual(self.daemon.api("GET", "/v1/functions/probe").json()["spec"], before)
        self.assertIn("KEEP=me", self.daemon.call("probe", b"env").text)
        self.assertEqual(self.daemon.call("web", path="/").status, 200)
        self.assertEqual(len(self.daemon.api("GET", "/v1/images").json()["images"]), 2)

    def test_a_start_builds_nothing_for_functions_without_a_minimum(self):
        self.daemon.deploy_probe()
        for n in range(4):
            self.daemon.put(f"more-{n}", {"image": "probe:1", "mode": "exec"})
        self.restart()
        time.sleep(0.3)
        self.assertEqual(len(self.daemon.processes()), 3, "keeper, launcher, daemon; no spawner")
        self.assertEqual(self.daemon.call("more-3", b"say hi").text, "hi\n")

    def test_a_deleted_function_stays_deleted(self):
        self.daemon.deploy_probe()
        self.daemon.api("DELETE", "/v1/functions/probe")
        self.restart()
        self.assertEqual(self.daemon.call("probe", b"exit 0").status, 404)

    def test_garbage_in_the_data_directory_is_swept_or_ignored(self):
        self.daemon.deploy_probe()
        self.assertEqual(self.daemon.stop(), 0)
        layers = self.daemon.data / "layers"
        (layers / ("f" * 64)).mkdir()
        (layers / ".staging-1").mkdir()
        (layers / ".staging-1" / "half").write_text("half a file")
        (layers / ("e" * 64)).symlink_to("/etc")
        self.daemon.start()
        wait_until(lambda: not (layers / ("f" * 64)).exists()
                   and not (layers / ".staging-1").exists(), 30, "the sweep")
        self.assertTrue(os.path.exists("/etc/passwd"))
        self.assertEqual(self.daemon.call("probe", b"say hi").text, "hi\n")

    def test_a_corrupted_database_is_never_silently_replaced(self):
        self.daemon.deploy_probe()
        self.assertEqual(self.daemon.stop(), 0)
        database = self.daemon.data / "pulga.db"
        database.write_bytes(b"this is not a database" * 100)
        with self.assertRaises(AssertionError):
            self.daemon.start(seconds=6)
        if self.daemon.process.poll() is None:
            self.daemon.stop()
        self.assertTrue(database.read_bytes().startswith(b"this is not"))
        self.assertIn("pulga.db", self.daemon.log())


class Replacement(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_http()
        cls.daemon.deploy_probe()

    def hammer(self, call, change):
        """Calls without pause on four threads while `change()` runs; every reply."""
        replies, stop = [], threading.Event()

        def run(_):
            while not stop.is_set():
                replies.append(call())

        threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        try:
            change()
            time.sleep(0.5)
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        return replies

    def test_put_switches_an_http_function_without_a_failed_request(self):
        def change():
            for n in range(4):
                self.daemon.put("web", {"image": "http-hello:1", "mode": "http",
                                        "env": {"ROUND": str(n), "START_DELAY_MS": "300"}})
        replies = self.hammer(lambda: self.daemon.call("web", path="/sleep/20"), change)
        self.assertGreater(len(replies), 20)
        self.assertEqual({r.status for r in replies}, {200},
                         [r for r in replies if r.status != 200][:3])
        wait_until(lambda: "ROUND=3" in self.daemon.call("web", path="/env").text, 30, "version 5")

    def test_put_switches_an_exec_function_without_a_failed_request(self):
        def change():
            for n in range(6):
                self.daemon.put("probe", {"image": "probe:1", "mode": "exec",
                                          "env": {"ROUND": str(n)}})
                time.sleep(0.1)
        replies = self.hammer(lambda: self.daemon.call("probe", b"sleep-ms 20; env"), change)
        self.assertEqual({r.status for r in replies}, {200},
                         [r for r in replies if r.status != 200][:3])
        self.assertIn("ROUND=5", self.daemon.call("probe", b"env").text)

    def test_a_new_image_of_the_same_tag_needs_a_new_put(self):
        for word in ("one", "two"):
            image = image_of({"probe": probe_binary(), "word": word.encode()}, "tagged:1",
                             Entrypoint=["/probe"])
            self.daemon.import_archive(image_archive.docker_archive([image]))
            self.daemon.put("tagged", {"image": "tagged:1", "mode": "exec"})
            self.assertEqual(self.daemon.call("tagged", b"cat /word").text, word)

    def test_a_version_that_cannot_start_does_not_replace_a_working_one(self):
        self.daemon.put("safe", {"image": "http-hello:1", "mode": "http"})
        self.assertEqual(self.daemon.call("safe", path="/").status, 200)
        reply = self.daemon.api("PUT", "/v1/functions/safe", {
            "image": "http-hello:1", "mode": "http", "env": {"NEVER_LISTEN": "1"},
            "limits": {"start_timeout": "1s"}})
        for _ in range(20):
            self.assertEqual(self.daemon.call("safe", path="/").status, 200, repr(reply))
            time.sleep(0.1)

    def test_an_idle_function_is_not_replaced_by_one_that_cannot_start(self):
        spec = {"image": "http-hello:1", "mode": "http", "limits": {"start_timeout": "1s"}}
        self.daemon.put("idle", spec)
        self.assertEqual(self.daemon.api("GET", "/v1/functions/idle").json()["instances"], [])
        for change, status in (({"env": {"NEVER_LISTEN": "1"}}, 504),
                               ({"image": "probe:1", "command": ["/probe", "exit", "3"]}, 503)):
            reply = self.daemon.api("PUT", "/v1/functions/idle", {**spec, **change})
            self.assertEqual(reply.status, status, repr(reply))
        self.assertEqual(self.daemon.call("idle", path="/").status, 200, "the old one goes on")

    def test_a_minimum_of_a_first_version_must_come_up(self):
        reply = self.daemon.api("PUT", "/v1/functions/never", {
            "image": "probe:1", "mode": "http", "command": ["/probe", "exit", "3"],
            "scale": {"min": 1}})
        self.assert_error(reply, 503, "unavailable", "exited with code 3")
        self.assertEqual(self.daemon.api("GET", "/v1/functions/never").status, 404)

    def test_rollback_brings_the_last_version_back(self):
        for word in ("one", "two"):
            self.daemon.put("back", {"image": "probe:1", "mode": "exec", "env": {"WORD": word}})
        self.assertIn("WORD=two", self.daemon.call("back", b"env").text)
        reply = self.daemon.api("POST", "/v1/functions/back/rollback")
        self.assertEqual(reply.status, 200, repr(reply))
        self.assertIn("WORD=one", self.daemon.call("back", b"env").text)
        reply = self.daemon.api("POST", "/v1/functions/back/rollback", {"version": 2})
        self.assertEqual(reply.status, 200, repr(reply))
        self.assertIn("WORD=two", self.daemon.call("back", b"env").text)
        reply = self.daemon.api("POST", "/v1/functions/back/rollback", {"version": 77})
        self.assertEqual(reply.status, 404, repr(reply))

    def test_auto_mode_says_what_it_picked_and_why(self):
        picked = self.daemon.put("auto-web", {"image": "http-hello:1"}).json()
        self.assertEqual(picked["mode"], "http")
        self.assertIn("8080", picked["mode_reason"])
        picked = self.daemon.put("auto-probe", {"image": "probe:1"}).json()
        self.assertEqual(picked["mode"], "exec")
        self.assertTrue(picked["mode_reason"])


class Unchanged(Case):
    """The only function of its daemon: all its processes but three are the function's."""

    def own(self):
        ours = {self.daemon.process.pid, self.daemon.launcher_pid(), self.daemon.daemon_pid()}
        return {pid for pid in self.daemon.processes() if pid not in ours}

    def test_the_same_spec_again_makes_no_new_version(self):
        self.daemon.import_sample("http-hello")
        spec = {"image": "http-hello:1", "mode": "http", "env": {"SAME": "1"}}
        first = self.daemon.put("same", spec).json()["version"]
        self.assertEqual(self.daemon.call("same", path="/").status, 200)
        before, server = self.own(), instances(self.daemon, "same")
        self.assertGreaterEqual(len(before), 2, "a spawner and a server")
        again = self.daemon.put("same", spec)
        self.assertEqual((again.status, again.json()["version"]), (200, first))
        self.assertIn(f"version {first} stays active", again.text)
        self.assertEqual(len(again.json()["versions"]), 1)
        self.assertEqual(self.own(), before, "the same spawner, the same server")
        self.assertEqual([i["slot"] for i in instances(self.daemon, "same")],
                         [i["slot"] for i in server])
        self.assertIn(self.daemon.call("same", path="/").headers["x-pulga-start"], WARM)
        changed = self.daemon.put("same", {**spec, "env": {"SAME": "2"}})
        self.assertEqual(changed.json()["version"], first + 1, "another spec is another version")
        wait_until(lambda: not before & self.own(), 20, "the old ones go")


class Scaling(Case):
    flags = ("--idle", "2s")

    @classmethod
    def prepare(cls):
        cls.daemon.import_sample("probe")
        cls.daemon.import_sample("http-hello")

    def put(self, name, **spec):
        return self.daemon.put(name, {"image": "http-hello:1", "mode": "http", **spec})

    def test_instances_start_on_demand_up_to_the_maximum(self):
        self.put("scaled", scale={"max": 3, "concurrency": 1, "queue_wait": "20s"})
        self.assertEqual(len(instances(self.daemon, "scaled")), 0)
        replies = in_parallel(9, lambda n: self.daemon.call("scaled", path="/sleep/500"))
        self.assertEqual({r.status for r in replies}, {200})
        self.assertLessEqual(len(instances(self.daemon, "scaled")), 3)
        self.assertGreaterEqual(len(instances(self.daemon, "scaled")), 2)

    def test_exec_calls_never_pass_the_maximum(self):
        self.daemon.put("narrow", {"image": "probe:1", "mode": "exec",
                                   "scale": {"max": 2, "queue_wait": "20s"}})
        started = time.monotonic()
        replies = in_parallel(6, lambda n: self.daemon.call("narrow", b"sleep-ms 500"))
        self.assertEqual({r.status for r in replies}, {200})
        self.assertGreater(time.monotonic() - started, 1.4, "more than two ran at once")

    def test_a_burst_of_starts_is_more_than_the_spawner_takes_at_once(self):
        # Their messages do not fit its socket's buffer while it is still making the first ones.
        self.daemon.put("burst", {
            "image": "probe:1", "mode": "exec", "limits": {"memory": "16Mi"},
            "scale": {"max": 250, "parked": 0, "queue": 250, "queue_wait": "60s"}})
        connections = [self.daemon.connect() for _ in range(250)]
        for connection in connections:
            connection.sendall(b"POST /function/burst HTTP/1.1\r\nHost: x\r\n"
                               b"Content-Length: 6\r\nConnection: close\r\n\r\nsay hi")
        for connection in connections:
            with connection:
                head = connection.recv(4096)
                self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)

    def test_idle_instances_go_away_and_come_back(self):
        self.put("idler")
        self.daemon.call("idler", path="/")
        self.assertEqual(len(instances(self.daemon, "idler")), 1)
        wait_until(lambda: not instances(self.daemon, "idler"), 30, "the idle instance goes")
        reply = self.daemon.call("idler", path="/")
        self.assertEqual((reply.status, reply.headers["x-pulga-start"]), (200, "cold"))

    def test_min_instances_stay_and_are_there_before_the_first_call(self):
        self.put("ready", scale={"min": 1})
        wait_until(lambda: len(instances(self.daemon, "ready")) == 1, 30, "min is reached")
        time.sleep(3)
        self.assertEqual(len(instances(self.daemon, "ready")), 1)
        self.assertIn(self.daemon.call("ready", path="/").headers["x-pulga-start"], WARM)

    def test_scale_sets_the_number_by_hand(self):
        self.put("byhand", scale={"max": 4})
        self.daemon.cli_ok("scale", "byhand", "3")
        wait_until(lambda: len(instances(self.daemon, "byhand")) == 3, 30, "three instances")

    def test_the_status_tells_the_reason_of_the_last_decision(self):
        self.put("reasons")
        self.daemon.call("reasons", path="/")
        status = self.daemon.api("GET", "/v1/functions/reasons").json()
        self.assertIn("last_decision", repr(status))

    def test_limits_are_what_the_cgroup_says(self):
        self.put("limited", limits={"memory": "40Mi", "cpu": "250m", "pids": 33})
        self.daemon.call("limited", path="/")
        values = {}
        for folder in leaks.cgroups_of(self.daemon.data):
            for name in ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max",
                         "pids.max"):
                try:
                    with open(f"{folder}/{name}", encoding="ascii") as f:
                        values.setdefault(name.split(".")[0], set()).add(f.read().strip())
                except OSError:
                    pass
        self.assertIn(str(40 << 20), values["memory"])
        self.assertIn("33", values["pids"])
        self.assertTrue({"25000", "25000 100000"} & values["cpu"], values)

    def test_a_cpu_quota_holds(self):
        self.daemon.put("quota", {"image": "probe:1", "mode": "exec", "limits": {"cpu": "100m"}})

        def throttled():
            self.daemon.call("quota", b"cpu 1")  # about ten periods, if it gets as much as it may
            most = 0
            for folder in leaks.cgroups_of(self.daemon.data):
                try:
                    with open(folder + "/cpu.stat", encoding="ascii") as file:
                        stat = dict(line.split() for line in file)
                except OSError:
                    continue
                most = max(most, int(stat.get("nr_throttled", 0)))
            return most

        wait_until(lambda: throttled() >= 5, 30, "it is held up at the end of its quota")


if __name__ == "__main__":
    unittest.main()
