"""Swap in compressed memory as `pulga doctor --setup-zram` sets it up, frozen instances that are
pushed out to it and come back intact, and a daemon that outlives a function which eats the board.
In the guest of scripts/vm-test: it changes the swap of the machine, and needs a root that lacks
nothing."""

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

# The folder must be on the path first.
from harness import Case, skip_unless, wait_until  # noqa: E402

BIN = Path(os.environ["PULGA_BIN_DIR"])
IMAGES = Path(os.environ["PULGA_IMAGES_DIR"])
IN_GUEST = "rdinit=/init" in Path("/proc/cmdline").read_text()
# More than the board has left: it is not the function's own limit that ends it.
MOST = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGESIZE') * 98 // 100 >> 20}Mi"
WHY = "it changes the machine's swap: run scripts/vm-test"


def doctor(*words):
    return subprocess.run([BIN / "pulga", "doctor", *words], capture_output=True, text=True,
                          check=False)


def swaps():
    return Path("/proc/swaps").read_text().splitlines()[1:]


class Zram(unittest.TestCase):
    def setUp(self):
        skip_unless(IN_GUEST, WHY)

    def test_1_it_says_what_it_would_do_and_does_nothing(self):
        told = doctor("--setup-zram")
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn("mkswap /dev/zram0", told.stdout)
        self.assertEqual(swaps(), [])
        self.assertEqual(doctor("--yes").returncode, 2)

    def test_2_with_consent_it_does_it_once(self):
        done = doctor("--setup-zram", "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(swaps()), 1, swaps())
        self.assertRegex(swaps()[0], r"^/dev/zram0\s.*\b100$")
        again = doctor("--setup-zram", "--yes")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("already", again.stdout)
        self.assertEqual(len(swaps()), 1)

    def test_3_frozen_instances_go_to_it_and_come_back_intact(self):
        tests = subprocess.run(
            [BIN / "launcher_kernel_tests",
             "--gtest_filter=LauncherReclaim.*:ByProcesses.*:LauncherSwap.*"],
            capture_output=True, text=True, check=False)
        print("\n".join(re.findall("^figure:.*", tests.stdout, re.M)))
        self.assertEqual(tests.returncode, 0, tests.stdout[-4000:])
        self.assertNotIn("SKIPPED", tests.stdout)


class Spared(Case):
    flags = ("--memory-budget", MOST)

    @classmethod
    def setUpClass(cls):
        skip_unless(IN_GUEST, WHY)
        super().setUpClass()

    @classmethod
    def prepare(cls):
        cls.daemon.deploy_probe(limits={"memory": MOST, "timeout": "100s"})

    def processes(self):
        """The keeper, the launcher and the daemon."""
        keeper = self.daemon.process.pid
        found = [keeper]
        for entry in sorted(Path("/proc").glob("[0-9]*/stat")):
            try:
                fields = entry.read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has just ended
                continue
            if int(fields[1]) == keeper:
                found.append(int(entry.parent.name))
        return found

    def test_they_are_the_last_to_go_and_functions_the_first(self):
        before = self.processes()
        self.assertEqual(len(before), 3)
        for pid in before:
            self.assertEqual(Path(f"/proc/{pid}/oom_score_adj").read_text(), "-900\n")
        score = self.daemon.call("probe", b"cat /proc/self/oom_score_adj")
        self.assertEqual(score.text.strip(), "500")
        spawner = next(p for p, name in self.daemon.processes().items() if name == "pulga-spawner")
        self.assertEqual(Path(f"/proc/{spawner}/oom_score_adj").read_text(), "500\n")
        ended = self.daemon.call("probe", b"oom")
        self.assertGreaterEqual(ended.status, 500, ended.text)
        self.assertEqual(self.processes(), before)
        self.assertEqual(self.daemon.call("probe", b"say still here").text.strip(), "still here")

    def test_who_reads_an_archive_is_not_spared(self):
        whole = (IMAGES / "probe.tar").read_bytes()
        with self.daemon.connect() as upload:
            upload.sendall(b"POST /v1/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                           + self.daemon.key.encode()
                           + b"\r\nContent-Length: %d\r\n\r\n" % len(whole) + whole[:5000])
            reader = wait_until(lambda: self.daemon.process_named("pulga-unpacker"), 60, "a reader")
            self.assertEqual(Path(f"/proc/{reader}/oom_score_adj").read_text(), "0\n")


if __name__ == "__main__":
    unittest.main()
