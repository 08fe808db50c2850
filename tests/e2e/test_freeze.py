"""S40: a server that works on after its answer. Idle for scale.freeze_after it is frozen, and from
then until the next request it gets no processor. Also runs in the guest, on pure cgroup v2."""

import os
import re
import signal
import time
import unittest
from pathlib import Path

import leaks
from harness import Case, Daemon, in_parallel, is_alive, skip_unless, wait_until

HELLO = "http-hello:1"


def cpu_ns(slot):
    """Nanoseconds of processor a slot's cgroup has had; None where this hierarchy counts none."""
    usage = Path(slot, "cpuacct.usage")
    if usage.exists():
        return int(usage.read_text())
    stat = Path(slot, "cpu.stat")
    found = re.search(r"^usage_usec (\d+)", stat.read_text(), re.M) if stat.exists() else None
    return int(found[1]) * 1000 if found else None


class Frozen(Case):
    @classmethod
    def prepare(cls):
        cls.daemon.deploy_http("web", scale={"max": 1, "freeze_after": "200ms"})

    def deploy(self, name, **scale):
        self.daemon.put(name, {"image": HELLO, "mode": "http", "scale": {"max": 1, **scale}})

    def instance(self, name):
        listed = self.daemon.api("GET", "/v1/functions/" + name).json()["instances"]
        return listed[0] if listed else {"step": "none"}

    def until_frozen(self, name):
        return wait_until(lambda: self.instance(name)["step"] == "frozen" and self.instance(name),
                          30, lambda: f"{name} is frozen: {self.instance(name)}")

    def rest(self, name):
        self.assertEqual(self.daemon.call(name, path="/").status, 200)
        self.until_frozen(name)

    def versions(self):
        return {Path(c).name for c in leaks.cgroups_of(self.daemon.data)
                if re.fullmatch(r"v\d+", Path(c).name)}

    def busiest(self):
        """(slot, ns) of the slot of this daemon that had most."""
        slots = [s for s in leaks.cgroups_of(self.daemon.data) if "/slot-" in s]
        return max(((s, cpu_ns(s) or 0) for s in slots), key=lambda pair: pair[1])

    def test_background_work_stops_until_the_next_request(self):
        self.deploy("miner", freeze_after="200ms")
        self.assertEqual(self.daemon.call("miner", path="/spin").status, 200)
        frozen = self.until_frozen("miner")
        self.assertEqual(frozen["children"], 1, frozen)
        parts = frozen["memory"]
        self.assertGreater(parts["kernel_bytes"], 0, frozen)
        self.assertGreater(parts["anon_bytes"], 0, frozen)
        self.assertLessEqual(parts["anon_bytes"], frozen["memory_bytes"], frozen)
        self.assertEqual(parts["swapped_bytes"], 0, frozen)
        slot, _ = self.busiest()
        time.sleep(0.2)  # the kernel stops each of them within a moment, and accounts at the tick
        before = cpu_ns(slot)
        time.sleep(1)
        self.assertEqual(cpu_ns(slot), before, "it worked while frozen")
        reply = self.daemon.call("miner", path="/sleep/300")
        self.assert_outcome(reply, 200, "ok")
        self.assertEqual(reply.headers["x-pulga-start"], "frozen")
        self.assertIn("sandbox;dur=", reply.headers["server-timing"])
        self.assertGreater(cpu_ns(slot), before, "the child works on once thawed")
        self.daemon.api("DELETE", "/v1/functions/miner")

    def test_a_frozen_server_answers_again_and_again(self):
        for _ in range(5):
            self.rest("web")
            reply = self.daemon.call("web", b"body", "/echo")
            self.assertEqual((reply.text, reply.headers["x-pulga-start"]), ("body", "frozen"))
            again = self.daemon.call("web", path="/")
            self.assertEqual(again.status, 200)

    def test_at_once_and_never(self):
        self.deploy("untrusted", freeze_after="0")
        self.deploy("trusted", freeze_after="never")
        for _ in range(20):  # each may meet the freeze of the one before
            self.assertEqual(self.daemon.call("untrusted", b"x", "/echo").text, "x")
            self.assertEqual(self.daemon.call("trusted", path="/").status, 200)
        self.until_frozen("untrusted")
        time.sleep(1.5)  # longer than the default
        self.assertEqual(self.instance("trusted")["step"], "warm")

    def test_no_instance_with_an_open_request_is_frozen(self):
        self.deploy("slow", freeze_after="50ms")
        reply = self.daemon.call("slow", path="/drip/10/100")
        self.assertEqual((reply.status, reply.broken), (200, None), repr(reply))

    def test_calls_from_many_clients_thaw_it_once_and_all_are_answered(self):
        for _ in range(3):
            self.rest("web")
            replies = in_parallel(20, lambda n: self.daemon.call("web", path=f"/sleep/{n}"))
            self.assertEqual([r.status for r in replies], [200] * 20, replies)

    def test_describe_and_the_list_say_frozen(self):
        self.rest("web")
        self.assertIn("frozen", self.daemon.cli_ok("describe", "web"))
        self.assertIn("1 frozen", self.daemon.cli_ok("ls"))

    def test_what_is_frozen_is_replaced_and_removed(self):
        before = self.versions()
        self.deploy("gone", freeze_after="0")
        self.daemon.call("gone", path="/spin")
        self.until_frozen("gone")
        self.deploy("gone", freeze_after="1ms")
        self.assertEqual(self.daemon.call("gone", path="/").status, 200)
        self.until_frozen("gone")
        self.assertEqual(self.daemon.api("DELETE", "/v1/functions/gone").status, 204)
        wait_until(lambda: self.versions() <= before, 60, "its cgroups are gone")

    def test_idle_ones_go_from_the_freezer_too(self):
        self.deploy("brief", freeze_after="0", idle="400ms")
        self.daemon.call("brief", path="/")
        wait_until(lambda: self.instance("brief")["step"] == "none", 30, "it went")

    def test_wrong_values_are_refused_by_name(self):
        for value in ("soon", 5, -1, "-1s", True, "999999h"):
            reply = self.daemon.api("PUT", "/v1/functions/bad", {
                "image": HELLO, "scale": {"freeze_after": value}})
            self.assertEqual(reply.status, 400, repr(reply))
            self.assertIn("scale.freeze_after", reply.text)


class Deaths(unittest.TestCase):
    """Frozen processes cannot die of a signal alone (v1): whoever survives must thaw them."""

    def setUp(self):
        skip_unless(os.geteuid() == 0, "needs root")

    def frozen_server(self, daemon):
        daemon.deploy_http("web", scale={"max": 1, "freeze_after": "0"})
        daemon.call("web", path="/spin")
        wait_until(lambda: daemon.api("GET", "/v1/functions/web").json()["instances"][0]["step"]
                   == "frozen", 30, "frozen")
        return [pid for pid, name in daemon.processes().items() if name == "http-hello"]

    def test_the_end_of_the_daemon_ends_them(self):
        for name in ("daemon_pid", "launcher_pid"):
            with self.subTest(name), Daemon() as daemon:
                pids = self.frozen_server(daemon)
                self.assertEqual(len(pids), 2)
                os.kill(getattr(daemon, name)(), signal.SIGKILL)
                wait_until(lambda: not any(is_alive(p) for p in pids), 30, "they are gone")
                wait_until(daemon.healthy, 30, "a successor")
                reply = wait_until(lambda: daemon.call("web", path="/").status == 200, 30, "serves")
                self.assertTrue(reply)

    def test_an_orderly_end_takes_them_along(self):
        with Daemon() as daemon:
            pids = self.frozen_server(daemon)
            self.assertEqual(daemon.stop(), 0)
            self.assertFalse(any(is_alive(p) for p in pids))
            self.assertEqual(leaks.nothing_left(daemon), [])

    def test_a_kill_of_everything_is_swept_by_the_next_start(self):
        with Daemon() as daemon:
            pids = self.frozen_server(daemon)
            for pid in (daemon.process.pid, daemon.launcher_pid(), daemon.daemon_pid()):
                os.kill(pid, signal.SIGKILL)
            daemon.process.wait(30)
            daemon.start()
            wait_until(lambda: not any(is_alive(p) for p in pids), 30, "they are gone")
            self.assertEqual(daemon.call("web", path="/").status, 200)


if __name__ == "__main__":
    unittest.main()
