"""`pulga run` and `pulga serve` of an ordinary user while strace makes the n-th call of a set fail
in each of their processes, for n = 1, 2, 3 ... until nobody has an n-th one left: it works all the
same, or an error says why, and no process and no file of the user is left. In between there is
nothing: never a program that runs without its walls. PULGA_SWEEP_STEP=1 tries every n.
"""

import errno
import os
import signal
import subprocess
import sys
import unittest
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from harness import (IMAGES, PULGA, free_port, parent_of, skip_unless, status_of,  # noqa: E402
                     wait_until)
from rootless import FIRST_SUBID, User  # noqa: E402

PATIENCE = 60
MOST = 400
WALLS = {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0" * 16, "CapEff": "0" * 16}
# name: calls, the error, every so many-th n
SETS = {
    "mounts": ("mount,umount2,pivot_root", "EPERM", 1),
    "namespaces": ("unshare,setns,?fork,?vfork,clone,clone3", "ENOSPC", 1),
    "privileges": ("setresuid,setresgid,setgroups,capset,prctl,seccomp,?setrlimit,prlimit64",
                   "EPERM", 7),
    "files": ("?open,openat,openat2", "EMFILE", 9),
    "trees": ("?mkdir,mkdirat,?mknod,mknodat,?symlink,symlinkat,?chown,fchown,fchownat,?chmod,"
              "fchmod,fchmodat,chdir,fchdir", "EIO", 2),
    "descriptors": ("pipe2,socketpair,socket,?dup2,dup3,memfd_create,eventfd2,signalfd4,"
                    "epoll_create1,epoll_ctl,pidfd_open,close_range", "EMFILE", 5),
}


def processes_of(user):
    """Everything that runs as the user or as an id that is the user's."""
    found = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        status = status_of(pid)
        ids = {int(word) for word in status.get("Uid", "").split()}
        if any(i == user.uid or FIRST_SUBID <= i < FIRST_SUBID + 65536 for i in ids):
            found[pid] = status.get("Name", "")
    return found


class Sweep(unittest.TestCase):
    def setUp(self):
        self.user = User()
        self.addCleanup(self.user.__exit__)
        self.user.skip_unless_possible()
        skip_unless(os.path.exists("/usr/bin/strace"), "no strace: run scripts/setup test")
        self.temp, self.log = self.user.home / "tmp", self.user.folder / "strace.log"
        made = self.user.run("mkdir", self.temp)
        self.assertEqual(made.returncode, 0, made.stderr)

    def traced(self, calls, error, n, *words):
        """The command of the user as strace runs it: newuidmap needs a tracer that is root."""
        command = self.user.command("env", f"TMPDIR={self.temp}", *words)
        at = command.index("-c")
        command[at + 1] = command[at + 1].replace(
            'exec setpriv --reuid "$0" --regid "$0" --clear-groups',
            f'exec strace -u flea -f -qq -o {self.log} -e trace={calls} '
            f'-e inject={calls}:error={error}:when={n}')
        return command

    def start(self, *how):
        return subprocess.Popen(self.traced(*how), env=self.user.environment(), cwd="/",
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def check_end(self, where, error, code, err):
        """Of one that failed: says why, and left nothing."""
        self.assertGreater(code, 0, where)  # not by a signal
        self.assertTrue(err.strip(), where)
        for wrong in ("disk is full", "Authorization", "terminate called"):
            self.assertNotIn(wrong, err, where)
        words = os.strerror(getattr(errno, error))
        self.told += words in err or f"error {getattr(errno, error)}" in err
        self.failed += 1

    def sweep(self, name, once):
        calls, error, step = SETS[name]
        step = int(os.environ.get("PULGA_SWEEP_STEP", step))
        self.failed = self.told = rounds = 0
        for n in range(1, MOST, step):
            once(calls, error, n, f"{name}, call {n} with {error}")
            rounds += 1
            wait_until(lambda: not processes_of(self.user), 20,
                       lambda: f"{name}, call {n}: left {processes_of(self.user)}")
            self.assertEqual(os.listdir(self.temp), [], f"{name}, call {n}")
            if "INJECTED" not in self.log.read_text():
                break
        else:
            self.fail(f"{name}: still failing after {MOST} calls")
        print(f"{name}: {rounds} rounds, {self.failed} failed, {self.told} told the errno")
        self.assertGreater(self.failed, 0)


class RunSweep(Sweep):
    def once(self, calls, error, n, where):
        run = self.start(calls, error, n, PULGA, "run", "--allow-unenforced", IMAGES / "probe.tar")
        out, err = run.communicate(b"cat /proc/self/status; exit 4", PATIENCE)
        out, err = out.decode(), err.decode()
        if out:  # it ran: then confined
            status = dict(line.split(":\t", 1) for line in out.splitlines() if ":\t" in line)
            for field, value in WALLS.items():
                self.assertEqual(status.get(field), value, where)
        if run.returncode != 4:
            self.check_end(where, error, run.returncode, err)


class ServeSweep(Sweep):
    """Up to the moment when it serves, or says why not; then it is stopped."""

    def healthy(self, port):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False

    def once(self, calls, error, n, where):
        port = free_port()
        serve = self.start(calls, error, n, PULGA, "serve", "--data", self.temp / "data",
                           "--listen", f"127.0.0.1:{port}")
        wait_until(lambda: self.healthy(port) or serve.poll() is not None, PATIENCE, where)
        if serve.poll() is None:
            for pid, name in processes_of(self.user).items():
                if name == "pulga-launcher" and parent_of(pid) == serve.pid:
                    os.kill(pid, signal.SIGTERM)  # the keeper; strace keeps signals to itself
        _, err = serve.communicate(timeout=PATIENCE)
        if serve.returncode != 0:
            self.check_end(where, error, serve.returncode, err.decode())
        removed = self.user.run("unshare", "--map-auto", "--map-root-user", "rm", "-rf",
                                self.temp / "data")
        self.assertEqual(removed.returncode, 0, removed.stderr)


for set_name in SETS:
    setattr(RunSweep, f"test_{set_name}",
            lambda self, name=set_name: self.sweep(name, self.once))
for set_name in ("mounts", "namespaces", "trees"):
    setattr(ServeSweep, f"test_{set_name}",
            lambda self, name=set_name: self.sweep(name, self.once))


if __name__ == "__main__":
    unittest.main()
