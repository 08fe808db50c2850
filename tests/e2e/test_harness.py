"""The harness itself: what a sanitizer reports fails the test, whichever process wrote it."""

import os
import signal
import unittest
from pathlib import Path

from harness import PULGA, Daemon, check_findings, wait_until

REPORTS = ("==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x6020 at pc 0x55d0",
           "==7==ERROR: LeakSanitizer: detected memory leaks",
           "WARNING: ThreadSanitizer: data race (pid=7)",
           "base/text.cpp:12:34: runtime error: signed integer overflow",
           "==7==LeakSanitizer has encountered a fatal error.")


class Findings(unittest.TestCase):
    def test_every_kind_of_report_is_a_failure_that_shows_it(self):
        for report in REPORTS:
            with self.assertRaisesRegex(AssertionError, "sanitizer reports"):
                check_findings("12:00 info daemon: stopping\n" + report + "\n    #0 0x1 in f\n")

    def test_an_ordinary_log_is_none(self):
        check_findings("12:00 warning daemon: request failed: a runtime error of the function\n")

    def test_a_daemon_that_leaves_one_in_its_log_fails(self):
        daemon = Daemon()
        daemon.log_path.write_text(REPORTS[0] + "\n")
        with self.assertRaises(AssertionError):
            daemon.__exit__(None, None, None)
        self.assertFalse(daemon.temp.exists())


if Path(PULGA).exists() and b"__asan_init" in Path(PULGA).read_bytes():

    class RealReports(unittest.TestCase):
        """ASan reports a SIGSEGV from outside like one of its own process."""

        def assert_seen(self, find):
            daemon = Daemon()
            daemon.start()
            os.kill(find(daemon), signal.SIGSEGV)
            wait_until(lambda: "AddressSanitizer: SEGV" in daemon.log(), 20, "the report")
            with self.assertRaisesRegex(AssertionError, "sanitizer reports"):
                daemon.__exit__(None, None, None)

        def test_of_the_daemon(self):
            self.assert_seen(Daemon.daemon_pid)

        def test_of_the_launcher(self):
            self.assert_seen(Daemon.launcher_pid)


if __name__ == "__main__":
    unittest.main()
