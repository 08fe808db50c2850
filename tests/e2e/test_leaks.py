"""Thousands of calls, half of them failing in every way of the outcome table: nothing stays.

PULGA_LEAK_CALLS sets how many (2,000; the full check is 20,000).
"""

import os
import select
import threading
import unittest
from collections import Counter

import leaks
from harness import Case, broken_program_archive, wait_until

CALLS = int(os.environ.get("PULGA_LEAK_CALLS", "2000"))
THREADS = 8

# (function, path, body), all ok.
GOOD = [("probe", "", b"say fine"), ("web", "/", None), ("web", "/echo", b"e" * 3000),
        ("probe", "/stdin-hash", b"q" * 50000), ("probe", "", b"orphan 5 50; say fine")]
# Every other row of the table "outcomes" in docs/api.md, by what the outcome begins with: the
# status, and the calls that end so. A method's name stands for what takes more than one call.
BAD = {
    "exited": (500, [("probe", "", b"exit 3"), ("probe", "", b"forkbomb 30; exit 3")]),
    "signaled": (500, [("probe", "", b"segv"), ("probe", "", b"signal 9"),
                       ("probe", "", b"signal 6")]),
    "oom-killed": (500, [("probe", "", b"oom")]),
    "timed-out": (504, [("short", "", b"sleep 5"), ("short", "", b"ignore-term 5")]),
    "syscall-denied": (500, [("probe", "", b"sigsys")]),
    "output-limit": (502, [("probe", "", b"output 50000")]),
    "bad-response": (502, [("web", "/bad/" + how, None)
                           for how in ("status", "length", "early", "header", "all")]),
    "not-ready": (503, [("never", "/", None)]),
    "setup-failed:exec": (503, [("broken", "", b"")]),
    "rejected:queue-full": (429, ["too_many"]),
    "rejected:memory": (503, ["too_large"]),
    "cancelled": (499, ["cancel"]),
    "unknown function": (404, [("nobody", "", b"")]),
}
WAYS = list(BAD)


class Leaks(Case):
    maxDiff = None  # what leaked, whole
    flags = ("--idle", "1s", "--memory-budget", "800Mi")

    @classmethod
    def prepare(cls):
        small = {"memory": "16Mi", "output": "20k", "pids": 16}
        probe = {"image": "probe:1", "mode": "exec", "limits": small}
        cls.daemon.deploy_probe(limits=small, scale={"max": 8, "queue_wait": "60s", "queue": 1000})
        cls.daemon.put("short", {**probe, "limits": {**small, "timeout": "200ms",
                                                     "grace": "50ms"}})
        cls.daemon.import_archive(broken_program_archive())
        cls.daemon.put("broken", {"image": "broken:1", "mode": "exec", "limits": small})
        cls.daemon.put("cancelled", {**probe, "scale": {"max": 8, "queue_wait": "60s"}})
        cls.daemon.put("one", {**probe, "scale": {"max": 1, "queue": 1, "queue_wait": "60s",
                                                  "parked": 0}})
        for name, memory, wait in (("hog", "400Mi", "60s"),  # either, never both
                                   ("large", "500Mi", "200ms")):
            cls.daemon.put(name, {**probe, "limits": {"memory": memory},
                                  "scale": {"max": 1, "queue_wait": wait, "parked": 0}})
        cls.daemon.deploy_http(scale={"max": 2}, limits={"memory": "32Mi"})
        cls.daemon.put("never", {"image": "http-hello:1", "mode": "http",
                                 "env": {"NEVER_LISTEN": "1"},
                                 "limits": {"memory": "16Mi", "start_timeout": "100ms"}})
        cls.alone = {"one": threading.Lock(), "hog": threading.Lock()}

    # --- one call each; what it returns is the outcome ---

    def good_call(self, number):
        function, path, body = GOOD[number % len(GOOD)]
        reply = self.daemon.call(function, body, path)
        self.assertEqual((reply.status, reply.outcome), (200, "ok"), f"{function} {body}: {reply}")
        return "ok"

    def bad_call(self, number):
        way = WAYS[number % len(WAYS)]
        status, calls = BAD[way]
        call = calls[number // len(WAYS) % len(calls)]
        if isinstance(call, str):
            getattr(self, call)()
            return way
        function, path, body = call
        reply = self.daemon.call(function, body, path)
        self.assertEqual(reply.status, status, f"{function}{path} {body}: {reply}")
        if way != "unknown function":
            self.assertEqual(reply.outcome[:len(way)], way, f"{function}{path} {body}: {reply}")
        return way

    def send(self, function, body):
        connection = self.daemon.connect()
        connection.sendall(b"POST /function/%s?stream=1 HTTP/1.1\r\nHost: x\r\n"
                           b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
                           % (function, len(body), body))
        return connection

    def running(self, function):
        """A connection whose call has begun, and goes on until it is closed."""
        connection = self.send(function, b"say begun; sleep 60")
        self.assertIn(b"begun", self.read_until(connection, b"begun"))
        return connection

    @staticmethod
    def read_until(connection, word):
        """Up to `word`; None: to the end."""
        received = b""
        while word is None or word not in received:
            block = connection.recv(65536)
            if not block:
                break
            received += block
        return received

    def cancel(self):
        self.running(b"cancelled").close()

    def too_many(self):
        """One runs, one waits, and there is no room for the third."""
        with self.alone["one"]:
            first = self.running(b"one")
            others = [self.send(b"one", b"say begun") for _ in range(2)]
            refused = select.select(others, [], [], 60)[0][0]
            reply = self.read_until(refused, b"\r\n\r\n")
            self.assertTrue(reply.startswith(b"HTTP/1.1 429 "), reply)
            self.assertIn(b"x-pulga-outcome: rejected:queue-full\r\n", reply.lower())
            first.close()
            others.remove(refused)
            refused.close()
            self.assertIn(b"begun", self.read_until(others[0], None))
            others[0].close()

    def too_large(self):
        with self.alone["hog"]:
            with self.running(b"hog"):
                reply = self.daemon.call("large", b"say fine")
            self.assertEqual((reply.status, reply.outcome), (503, "rejected:memory"), repr(reply))

    # --- many ---

    def one_call(self, number):
        return self.good_call(number // 2) if number % 2 == 0 else self.bad_call(number // 2)

    def burst(self, count):
        outcomes, errors = Counter(), []

        def run(first):
            for number in range(first, count, THREADS):
                try:
                    outcomes[self.one_call(number)] += 1
                except (AssertionError, OSError) as error:
                    errors.append(error)

        threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors[:3], [], f"{len(errors)} wrong answers")
        return outcomes

    def told(self):
        """{outcome: how many} by the daemon's own count, all functions together."""
        found = Counter()
        for function in self.daemon.api("GET", "/v1/functions").json()["functions"]:
            found.update(function["outcomes"])
        return found

    def quiet(self):
        """A snapshot once nobody has called for so long that every spawner and helper is gone."""
        wait_until(lambda: len(self.daemon.processes()) == 3, 60,
                   lambda: f"keeper, launcher and daemon alone: {self.daemon.processes()}")
        return leaks.quiet_snapshot(self.daemon, 60)

    def as_before(self, before):
        wait_until(lambda: len(self.daemon.processes()) == 3, 60,
                   lambda: f"keeper, launcher and daemon alone: {self.daemon.processes()}")
        lines, after = leaks.later_differences(before, self.daemon)
        self.assertEqual(lines, "")
        return after

    def test_nothing_leaks(self):
        self.burst(300)  # first use of everything: pools, allocator, database
        before, told = self.quiet(), self.told()
        outcomes = self.burst(CALLS)
        after = self.as_before(before)
        print(f"{sum(outcomes.values())} calls: {dict(outcomes)}\nbefore: {before.figures()}\n"
              f"after:  {after.figures()}")
        self.assert_every_outcome(outcomes, self.told() - told)

    def assert_every_outcome(self, outcomes, told):
        """Half succeed, the others fail in equal shares; and the daemon says the same."""
        self.assertEqual(outcomes["ok"], (CALLS + 1) // 2)
        shares = [outcomes[way] for way in WAYS]
        self.assertLessEqual(max(shares) - min(shares), 1, outcomes)
        self.assertGreater(min(shares), 0, outcomes)
        for way in set(WAYS) - {"unknown function", "rejected:queue-full", "rejected:memory"}:
            self.assertGreaterEqual(told[way.split(":")[0]], outcomes[way], told)
        self.assertEqual(told["rejected"], outcomes["rejected:queue-full"]
                         + outcomes["rejected:memory"], told)

    def test_deploying_and_deleting_leaves_nothing(self):
        def cycle(n):
            name = f"cycle-{n}"
            self.daemon.put(name, {"image": "probe:1", "mode": "exec"})
            self.assertEqual(self.daemon.call(name, b"say hi").text, "hi\n")
            self.assertIn(self.daemon.api("DELETE", "/v1/functions/" + name).status, (200, 204))

        cycle(0)
        before = self.quiet()
        for n in range(1, max(50, CALLS // 40)):
            cycle(n)
        self.as_before(before)

    def test_importing_and_deleting_leaves_nothing(self):
        from harness import image_archive as archive
        from harness import image_of, probe_binary

        def cycle(n):
            image = image_of({"probe": probe_binary(), f"f{n}": b"x" * 10000}, f"cycle:{n}")
            self.daemon.import_archive(archive.docker_archive([image]))
            self.assertIn(self.daemon.api("DELETE", f"/v1/images/cycle:{n}").status, (200, 204))

        cycle(0)
        before = self.quiet()
        for n in range(1, 30):
            cycle(n)
        self.as_before(before)


if __name__ == "__main__":
    unittest.main()
