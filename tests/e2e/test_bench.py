"""pulga bench, with tiny counts: every step is there and measured, its parts fit into what the
client saw, and nothing of it is left. How fast anything is, is no test."""

import json
import os
import subprocess
import unittest
from pathlib import Path

from harness import PULGA, Case, is_alive

STEPS = ["bare vfork+exec, to the first byte", "bare vfork+exec, to its end", "unparked start",
         "parked start", "warm http call", "thaw and http call", "spawner build",
         "cold start, spawner built", "import of an image of 8 KiB"]
ONLY_CLIENT = (STEPS[0], STEPS[1], STEPS[8])


class Bench(Case):
    def check(self, document, runs):
        steps = {step["name"]: step for step in document["steps"]}
        self.assertEqual(list(steps), STEPS)
        lost = document["discarded"]
        for name, step in steps.items():
            for side in ("daemon", "client"):
                if (side == "daemon") == (name in ONLY_CLIENT) and side == "daemon":
                    self.assertIsNone(step[side], name)
                    continue
                if side == "client" and name == "spawner build":
                    self.assertIsNone(step[side])
                    continue
                self.assertIsNotNone(step[side], (name, side, document))
                samples = step[side]["samples_ms"]
                self.assertLessEqual(runs - lost, len(samples), (name, side))
                self.assertTrue(all(value > 0 for value in samples), (name, side, samples))
                self.assertGreater(step[side]["ratio_to_bare"], 0)
                self.assertLessEqual(step[side]["median_ms"], step[side]["p99_ms"])
        for name in STEPS[2:6] + [STEPS[7]]:
            pairs = zip(steps[name]["daemon"]["samples_ms"], steps[name]["client"]["samples_ms"])
            for inside, outside in pairs:
                self.assertLessEqual(inside, outside + 0.01, name)
        builds, colds = (steps[name]["daemon"]["samples_ms"] for name in STEPS[6:8])
        for build, cold in zip(builds, colds):
            self.assertLess(build, cold, "a build is a part of its cold start")

    def test_on_a_running_daemon_it_measures_each_step_and_removes_what_it_made(self):
        self.daemon.import_sample("hello")
        before = self.left()
        shown = self.daemon.cli_ok("bench", "--runs", "2", "--gap", "1ms", "--json")
        document = json.loads(shown)
        self.check(document, 2)
        self.assertIn("kernel", document["board"])
        self.assertEqual(self.left(), before)

    def left(self):
        system = self.daemon.api("GET", "/v1/system").json()
        return system["functions"], system["images"], self.directories()

    def directories(self):
        return sorted(p.name for p in Path("/tmp").glob("pulga-bench-*/image.tar"))

    def test_for_people_it_prints_a_table_to_paste(self):
        shown = self.daemon.cli_ok("bench", "--runs", "1", "--seconds", "1", "--gap", "1ms")
        lines = shown.splitlines()
        self.assertEqual(lines[0], "### pulga bench")
        for step in STEPS:
            rows = [line for line in lines if line.startswith(f"| {step} | ")]
            self.assertEqual(len(rows), 1, shown)
            self.assertEqual(rows[0].count("|"), 11, rows[0])

    def test_without_a_daemon_it_starts_one_of_its_own(self):
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(self.daemon.temp)}
        with subprocess.Popen([PULGA, "bench", "--runs", "1", "--gap", "1ms", "--json"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env=environment) as bench:
            out, err = bench.communicate(timeout=120)
        self.assertEqual(bench.returncode, 0, err.decode())
        self.check(json.loads(out), 1)
        self.assertFalse(is_alive(bench.pid))
        left = [p.name for p in self.daemon.temp.iterdir()
                if p.name.startswith(("pulga-run-", "pulga-bench-"))]
        self.assertEqual(left, [])

    def test_bad_numbers_are_refused_by_name(self):
        for option, value in (("--runs", "0"), ("--seconds", "x"), ("--gap", "1h")):
            done = self.daemon.cli("bench", option, value)
            self.assertEqual(done.returncode, 2)
            self.assertIn(option, done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
