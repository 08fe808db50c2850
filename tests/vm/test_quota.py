"""Volumes where the data directory's file system has project quotas on, from outside: the tests of
tests/e2e/test_volumes.py again, on an ext4 mounted for it. Runs in the guest of scripts/vm-test,
whose kernel knows quotas (CONFIG_QFMT_V2)."""

import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

import test_volumes  # noqa: E402 (the folder must be on the path first)
from harness import Daemon  # noqa: E402


def run(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise AssertionError(f"{words}: {done.stderr}")


class QuotaDaemon(Daemon):
    """One whose data lies on such a file system."""

    def __init__(self):
        super().__init__()
        self.disk = self.temp.with_name(self.temp.name + ".disk")
        with open(self.disk, "wb") as disk:
            disk.truncate(512 << 20)
        run("mke2fs", "-q", "-t", "ext4", "-O", "project,quota", "-E", "quotatype=prjquota",
            self.disk)
        run("mount", "-o", "loop,prjquota", self.disk, self.temp)
        self.temp.chmod(0o711)

    def __exit__(self, *error):
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
            return super().__exit__(*error)
        finally:
            run("umount", self.temp)
            self.disk.unlink()
            self.temp.rmdir()


class QuotaVolumes(test_volumes.Volumes):
    storage, loops_of_one, full_errno = "project-quota", 0, 122  # EDQUOT

    @classmethod
    def make_daemon(cls):
        return QuotaDaemon()


class GrowingVolumes(test_volumes.Volumes):
    """In a file, and by a root that lacks no capability."""


def load_tests(loader, _tests, _pattern):
    suite = loader.loadTestsFromTestCase(QuotaVolumes)
    suite.addTest(GrowingVolumes("test_it_grows_while_a_function_uses_it"))
    return suite


if __name__ == "__main__":
    unittest.main()
