"""Of the measurements, that which needs no machine to itself."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

import common
import peers

HERE = pathlib.Path(__file__).resolve().parent


class Sections(unittest.TestCase):
    def test_a_name_of_none_ends_with_2_and_all_the_names(self):
        for script, names in (
                ("run.py", "start, setup, filter, http, wrk, memory, import, leaks"),
                ("ladder_bench.py", "burst, churn, abuse, thaw, load, bodies"),
                ("many_bench.py", "functions, guest, idle"),
                ("import_bench.py", "tar, peers, again, one, memory")):
            out = subprocess.run([sys.executable, "-B", HERE / script, "--only", "nothing"],
                                 capture_output=True, text=True, check=False)
            self.assertEqual(out.returncode, 2, script)
            self.assertIn(f"--only knows {names}\n", out.stderr)


class Tables(unittest.TestCase):
    def test_what_was_printed_can_be_read_again(self):
        rows = [common.Row("a figure", "1.00 x; p50 3 us", "<= 2 x"), common.Row("b", "2", "")]
        self.assertEqual(common.rows_of("heading\n" + common.table(rows) + "\n"), rows)

    def test_a_section_has_a_place_in_the_figures(self):
        figures = (HERE / "figures.md").read_text()
        for name in ("peers", "load", "frames", "replay", "many-functions", "many-guest",
                     "many-idle"):
            self.assertEqual(figures.count(f"<!-- {name} -->\n"), 1, name)
            self.assertEqual(figures.count(f"<!-- /{name} -->\n"), 1, name)


class Peers(unittest.TestCase):
    def rows(self, left_out):
        ours = {"bare vfork+exec": 100, "cold, in daemon": 400, "parked, in daemon": 200}
        theirs = {name: 8000 for name, *_ in peers.PEERS if name not in left_out}
        results = [{"condition": "paced", "name": name, "p50_us": us, "p90_us": us, "n": 3}
                   for name, us in (ours | theirs).items()]
        return {row.figure: row for row in peers.rows_for("paced", results, left_out)}

    def test_each_stands_beside_our_cold_and_our_parked_start(self):
        row = self.rows({})["docker run, paced"]
        self.assertEqual(row.result, "20.0 x our cold start, 40 x our parked one; "
                                     "p50 8000 us, p90 8000 us (n=3)")
        self.assertEqual(row.wanted, ">= 500 x, >= 1500 x")

    def test_one_that_does_not_run_is_in_the_table_with_its_reason(self):
        rows = self.rows({"docker run": "dockerd did not start"})
        self.assertEqual(rows["docker run, paced"].result, "left out: dockerd did not start")
        self.assertEqual(len(rows), 3 + len(peers.PEERS))

    def test_their_cgroups_are_removed_and_nobody_elses(self):
        with tempfile.TemporaryDirectory() as root:
            for name in ("memory/pulga-bench/docker/one", "pids/pulga-bench/ctr", "pids/pulga-1",
                         "pulga-bench/podman"):
                pathlib.Path(root, name).mkdir(parents=True)
            peers.remove_cgroups(root)
            left = sorted(str(found.relative_to(root)) for found in pathlib.Path(root).rglob("*"))
            self.assertEqual(left, ["memory", "pids", "pids/pulga-1"])

    def test_a_cgroup_that_stays_is_told(self):
        with tempfile.TemporaryDirectory() as root:
            file = pathlib.Path(root, "memory/pulga-bench/held")
            file.parent.mkdir(parents=True)
            file.touch()
            with self.assertRaisesRegex(SystemExit, "memory/pulga-bench"):
                peers.remove_cgroups(root, seconds=0)


if __name__ == "__main__":
    unittest.main()
