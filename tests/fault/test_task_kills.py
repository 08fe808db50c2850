"""kill -9 of the daemon and of its keeper, again and again while tasks are taken and run: none that
was acknowledged is lost, and none runs twice at a time. PULGA_TASK_KILLS says how often
(10); 1000 takes an hour.
"""

import collections
import http.client
import os
import random
import signal
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from harness import OwnDaemonCase, wait_until  # noqa: E402

KILLS = int(os.environ.get("PULGA_TASK_KILLS", "10"))
SEED = int(os.environ.get("PULGA_KILLER_SEED", str(time.time_ns() % 1_000_000)))
LOST = (OSError, http.client.HTTPException)


class Takers:
    """Submit tasks on threads until stopped; remember what was acknowledged."""

    def __init__(self, daemon, count=3):
        self.daemon, self.acknowledged, self.stopping = daemon, [], threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True)
                        for n in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, thread):
        n = 0
        while not self.stopping.is_set():
            n += 1
            name = f"t{thread}-{n}"
            body = b"sleep-ms %d; say %s" % (random.choice((0, 20, 150)), name.encode())
            try:
                reply = self.daemon.request("POST", "/async-function/probe", body,
                                            {"X-Call-Id": name}, timeout=20)
                if reply.status == 202:
                    self.acknowledged.append((reply.headers["x-call-id"], name))
                time.sleep(0.1 if reply.status == 202 else 0.3)
            except LOST:
                time.sleep(0.05)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)


class Watcher:
    """Looks at every process for tasks that run, as their environment tells, twice at a time."""

    def __init__(self):
        self.twice, self.seen, self.stopping = [], set(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            running = collections.Counter(self.running())
            self.seen.update(running)
            # A process may be on its way out while its environment is read: look once more.
            doubles = {name for name, count in running.items() if count > 1}
            if doubles:
                again = collections.Counter(self.running())
                self.twice += [name for name in doubles if again[name] > 1]
            time.sleep(0.01)

    @staticmethod
    def running():
        for pid in os.listdir("/proc"):
            if not pid.isdigit():
                continue
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    environment = file.read()
            except OSError:
                continue
            for entry in environment.split(b"\0"):
                if entry.startswith(b"PULGA_CALL_ID=t"):
                    yield entry.decode()

    def stop(self):
        self.stopping.set()
        self.thread.join(60)


class TaskKills(OwnDaemonCase):
    def setUp(self):
        super().setUp()
        self.daemon.stop()
        self.daemon.flags += ["--tasks-at-once", "4", "--max-tasks", "100000", "--task-bytes",
                              "1Gi", "--log-level", "warning"]
        self.daemon.start()
        self.daemon.deploy_probe(scale={"max": 8})

    def counts(self):
        try:
            return self.daemon.api("GET", "/v1/tasks?limit=1").json()
        except LOST:
            return None

    def test_no_acknowledged_task_is_lost_and_none_runs_twice_at_a_time(self):
        print(f"PULGA_KILLER_SEED={SEED} PULGA_TASK_KILLS={KILLS}", file=sys.stderr)
        random.seed(SEED)
        watcher, takers, checked, bad = Watcher(), Takers(self.daemon), 0, []
        try:
            for _ in range(KILLS):
                time.sleep(random.uniform(0.0, 0.8))
                os.kill(self.daemon.daemon_pid(), signal.SIGKILL)
                # And the keeper, which would wait longer from time to time before it starts anew.
                self.daemon.stop(signal.SIGKILL)
                self.daemon.start()
                # While the daemon still knows them: it keeps a thousand that have ended.
                checked += self.take_ended(takers, bad)
        finally:
            takers.stop()
        wait_until(self.daemon.healthy, 90, "the daemon is back")
        deadline = time.monotonic() + 300
        while takers.acknowledged and time.monotonic() < deadline:
            checked += self.take_ended(takers, bad)
            time.sleep(0.1)
        watcher.stop()
        print(f"{checked} tasks acknowledged and answered, {len(watcher.seen)} seen running",
              file=sys.stderr)
        self.assertEqual(bad, [])
        self.assertEqual(takers.acknowledged, [], "acknowledged, and not run")
        self.assertEqual(watcher.twice, [])
        self.assertGreater(checked, KILLS)
        self.assertGreater(len(watcher.seen), 0, "the watcher sees tasks at all")

    def take_ended(self, takers, bad):
        """Checks those acknowledged tasks that have ended, and the answer of one of them."""
        waiting = list(takers.acknowledged)
        try:
            listed = self.daemon.api("GET", "/v1/tasks?limit=1000", timeout=20).json()["tasks"]
            states = {task["id"]: task for task in listed}
            ended = [entry for entry in waiting
                     if states.get(entry[0], {}).get("state") not in (None, "queued", "running")]
            if ended:
                task_id, name = random.choice(ended)
                answer = self.daemon.api("GET", f"/v1/tasks/{task_id}/result", timeout=20)
                if name not in answer.text:
                    bad.append((name, answer.text))
        except LOST:
            return 0
        bad += [(name, "lost") for task_id, name in waiting if task_id not in states]
        bad += [(name, states[task_id]) for task_id, name in ended
                if states[task_id]["state"] != "done"]
        for entry in waiting:  # in place: threads add to it
            if entry in ended or entry[0] not in states:
                takers.acknowledged.remove(entry)
        return len(ended)


if __name__ == "__main__":
    unittest.main()
