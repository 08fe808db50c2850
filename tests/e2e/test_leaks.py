"""Thousands of calls, half of them failing in every way of the outcome table: nothing stays.

PULGA_LEAK_CALLS sets how many (2,000; the full check is 20,000).
"""

import os
import threading
import unittest
from collections import Counter

import leaks
from harness import Case, broken_program_archive, wait_until

CALLS = int(os.environ.get("PULGA_LEAK_CALLS", "2000"))
THREADS = 8

# (function, path, body, the outcomes it may have); one in two succeeds.
GOOD = [("probe", "", b"say fine", {"ok"}), ("web", "/", None, {"ok"}),
        ("web", "/echo", b"e" * 3000, {"ok"}), ("probe", "/stdin-hash", b"q" * 50000, {"ok"})]
BAD = [("probe", "", b"exit 3", {"exited:3"}), ("probe", "", b"segv", {"signaled:SIGSEGV"}),
       ("probe", "", b"signal 9", {"signaled:SIGKILL"}), ("probe", "", b"oom", {"oom-killed"}),
       ("probe", "", b"sigsys", {"syscall-denied"}), ("short", "", b"sleep 5", {"timed-out"}),
       ("probe", "", b"output 50000", {"output-limit"}), ("web", "/bad", None, {"bad-response"}),
       ("broken", "", b"", {"setup-failed"}), ("never", "/", None, {"not-ready"}),
       ("tight", "", b"sleep-ms 300", {"ok", "rejected:queue-full", "rejected:queue-timeout"}),
       ("probe", "", b"orphan 5 50; forkbomb 3", {"ok", "exited:1"}),
       ("cancel", "", b"sleep 3", {"cancelled"}), ("nobody", "", b"", {None, "rejected"})]
RARE = {"never", "short", "cancel"}  # slow by nature: one in ten of their turns


class Leaks(Case):
    flags = ("--idle", "1s")

    @classmethod
    def prepare(cls):
        probe = {"image": "probe:1", "mode": "exec"}
        cls.daemon.deploy_probe(limits={"memory": "16Mi", "output": "20k", "pids": 16},
                                scale={"max": 8, "queue_wait": "60s", "queue": 1000})
        cls.daemon.put("short", {**probe, "limits": {"timeout": "200ms", "grace": "100ms"}})
        cls.daemon.import_archive(broken_program_archive())
        cls.daemon.put("broken", {"image": "broken:1", "mode": "exec"})
        cls.daemon.put("tight", {**probe, "scale": {"max": 1, "queue": 1, "queue_wait": "100ms"}})
        cls.daemon.put("cancel", probe)
        cls.daemon.deploy_http(scale={"max": 2})
        cls.daemon.put("never", {"image": "http-hello:1", "mode": "http",
                                 "env": {"NEVER_LISTEN": "1"},
                                 "limits": {"start_timeout": "200ms"}})

    def one_call(self, number):
        function, path, body, allowed = GOOD[number // 2 % len(GOOD)] if number % 2 == 0 else \
            BAD[number // 2 % len(BAD)]
        if function in RARE and number // 2 // len(BAD) % 10 != 0:
            function, path, body, allowed = BAD[0]
        if function == "cancel":
            return self.cancelled_call(body)
        reply = self.daemon.call(function, body, path)
        outcome = reply.outcome
        if outcome is not None and outcome.split(":")[0] in ("setup-failed", "rejected"):
            outcome = outcome if outcome in allowed else outcome.split(":")[0]
        self.assertIn(outcome, allowed, f"{function}{path} {body}: {reply}")
        return outcome

    def cancelled_call(self, body):
        with self.daemon.connect() as s:
            s.sendall(b"POST /function/cancel HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                      % len(body) + body)
        return "cancelled"

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

    def quiet(self):
        """A snapshot once nobody has called for so long that every spawner is gone."""
        wait_until(lambda: "pulga-spawner" not in self.daemon.processes().values(), 60,
                   lambda: f"idle spawners go: {self.daemon.processes()}")
        return leaks.quiet_snapshot(self.daemon, 30)

    def test_nothing_leaks(self):
        self.burst(200)  # first use of everything: pools, allocator, database
        before = self.quiet()
        outcomes = self.burst(CALLS)
        print(f"{sum(outcomes.values())} calls: {dict(outcomes)}")
        self.assertGreaterEqual(len(outcomes), 9)
        after = self.quiet()
        self.assertEqual("\n".join(before.differences(after)), "")

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
        self.assertEqual("\n".join(before.differences(self.quiet())), "")

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
        self.assertEqual("\n".join(before.differences(self.quiet())), "")


if __name__ == "__main__":
    unittest.main()
