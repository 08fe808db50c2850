"""Of what the measurements share, that which needs no machine to itself."""
import pathlib
import subprocess
import sys
import unittest

import common

HERE = pathlib.Path(__file__).resolve().parent


class Sections(unittest.TestCase):
    def test_a_name_of_none_ends_with_2_and_all_the_names(self):
        for script, names in (
                ("run.py", "start, setup, filter, peers, http, wrk, memory, import, leaks"),
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
        for name in ("peers", "load", "replay", "many-functions", "many-guest", "many-idle"):
            self.assertEqual(figures.count(f"<!-- {name} -->\n"), 1, name)
            self.assertEqual(figures.count(f"<!-- /{name} -->\n"), 1, name)


if __name__ == "__main__":
    unittest.main()
