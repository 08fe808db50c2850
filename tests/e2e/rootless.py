"""A daemon of an ordinary user: a made-up one, whom a private copy of /etc/passwd knows in a mount
namespace of its own, with the subordinate ids a test gives it, and whose home is closed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import PULGA, Daemon, skip_unless, unused_uid

FIRST_SUBID = 2000000000
ENTER = """
set -e
mount --make-rprivate /
for file in passwd subuid subgid; do mount --bind "$ETC/$file" "/etc/$file"; done
[ -z "$WITHOUT" ] || mount --bind /dev/null "$WITHOUT"
[ -z "$CGROUP" ] || echo $$ >"$CGROUP/cgroup.procs"
unset ETC WITHOUT CGROUP
exec setpriv --reuid "$0" --regid "$0" --clear-groups "$@"
"""


class User:
    """Use as a context manager. `subids`: how many; `without`: a program the user does not have;
    `cgroup`: one to start in."""

    def __init__(self, subids=65536, without="", cgroup="", uid=None):
        self.folder = Path(tempfile.mkdtemp(prefix="pulga-user-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.uid, self.without, self.cgroup = uid or unused_uid(), without, cgroup
        self.home = self.folder / "home"
        self.home.mkdir()
        os.chown(self.home, self.uid, self.uid)
        self.home.chmod(0o700)
        others = [line for line in Path("/etc/passwd").read_text().splitlines(keepends=True)
                  if line.split(":")[2] != str(self.uid)]
        name = f"flea:x:{self.uid}:{self.uid}::{self.home}:/bin/sh\n"
        ids = f"flea:{FIRST_SUBID}:{subids}\n" if subids else ""
        for file, text in (("passwd", "".join(others) + name),
                           ("subuid", ids), ("subgid", ids)):
            (self.folder / file).write_text(text)
            (self.folder / file).chmod(0o644)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *words):
        return ["unshare", "--mount", "sh", "-c", ENTER, str(self.uid), *map(str, words)]

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "ETC": str(self.folder),
                "WITHOUT": self.without, "CGROUP": str(self.cgroup)}

    def run(self, *words, stdin=b""):
        return subprocess.run(self.command(*words), env=self.environment(), input=stdin, cwd="/",
                              capture_output=True, timeout=120, check=False)

    def pulga(self, *words, stdin=b""):
        return self.run(PULGA, *words, stdin=stdin)

    def skip_unless_possible(self):
        skip_unless(os.geteuid() == 0, "needs root to become somebody")
        skip_unless(shutil.which("newuidmap"), "no newuidmap: run scripts/setup test")
        skip_unless(self.run("test", "-x", PULGA).returncode == 0,
                    "a user cannot reach the build directory")


class RootlessDaemon(Daemon):
    """With the user's own data directory, where nobody is told of another."""

    def __init__(self, user, *flags):
        super().__init__(*flags)
        self.user = user
        self.data = user.home / ".local/share/pulga"

    def start(self, seconds=60):
        self.user.skip_unless_possible()
        before = dict(os.environ)
        os.environ.update(self.user.environment())
        try:
            return super().start(seconds)
        finally:
            os.environ.clear()
            os.environ.update(before)

    def command(self):
        return self.user.command(PULGA, "serve", "--listen", f"127.0.0.1:{self.port}", *self.flags)
