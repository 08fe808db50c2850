"""A board with a network of its own, for tests of outbound network: this process and all it starts
move into new network and mount namespaces, which a veth joins to another namespace that plays the
neighbourhood and the Internet. Nothing of the machine's own network is touched.

    BOARD 192.168.77.2 and 198.51.100.2 -- 192.168.77.1 ROUTER = DNS -- the addresses of FAR
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import wait_until

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_REC, MS_PRIVATE, MS_BIND = 0x4000, 0x40000, 0x1000
LIBC = ctypes.CDLL(None, use_errno=True)

BOARD = "192.168.77.2"
BOARD_PUBLIC = "198.51.100.2"  # the board's own, though it looks public
LAN = "192.168.77.1"
WEB, OTHER_WEB, THIRD_WEB = "203.0.113.5", "203.0.113.6", "203.0.113.7"
FAR_PRIVATE = "10.9.9.9"
METADATA = "169.254.169.254"
FAR = [WEB, OTHER_WEB, THIRD_WEB, FAR_PRIVATE, METADATA]


def check(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what + ": " + os.strerror(ctypes.get_errno()))


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Board:
    """Enters the new namespaces for good. One for each process."""

    def __init__(self):
        check(LIBC.unshare(CLONE_NEWNS | CLONE_NEWNET), "unshare")
        check(LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "private mounts")
        self.temp = Path(tempfile.mkdtemp(prefix="pulga-board-", dir="/tmp"))
        self.temp.chmod(0o755)
        self.names = self.temp / "names.json"
        self.asked = self.temp / "asked"
        self.set_names({})
        here = Path(__file__).resolve().parent
        # Its stdin is its life: it ends with this process.
        self.far = subprocess.Popen(
            [sys.executable, "-B", here / "internet.py", LAN, self.names, self.asked],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=lambda: check(LIBC.unshare(CLONE_NEWNET), "unshare"))
        ip("link", "set", "lo", "up")
        ip("link", "add", "up0", "type", "veth", "peer", "name", "lan0",
           "netns", str(self.far.pid))
        for address in (BOARD + "/24", BOARD_PUBLIC + "/32"):
            ip("addr", "add", address, "dev", "up0")
        ip("link", "set", "up0", "up")
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("ip", "addr", "add", LAN + "/24", "dev", "lan0")
        for address in FAR:
            self.inside("ip", "addr", "add", address + "/32", "dev", "lo")
        self.inside("ip", "link", "set", "lan0", "up")
        self.inside("ip", "route", "add", BOARD_PUBLIC + "/32", "dev", "lan0")
        ip("route", "add", "default", "via", LAN)
        self.far.stdin.write(b"go\n")
        self.far.stdin.flush()
        if self.far.stdout.readline() != b"ready\n":
            raise AssertionError("the Internet did not start")
        self.resolv = self.temp / "resolv.conf"
        self.set_resolvers(LAN)
        check(LIBC.mount(str(self.resolv).encode(), os.path.realpath("/etc/resolv.conf").encode(),
                         None, MS_BIND, None), "bind resolv.conf")

    def inside(self, *command):
        """Runs it in the namespace of the Internet."""
        return subprocess.run(["nsenter", "-t", str(self.far.pid), "-n", *command], check=True,
                              capture_output=True, text=True).stdout

    def set_names(self, table):
        """{"name": {"addresses": [...], "ttl": 60}}; "alias": another name."""
        fresh = self.names.with_suffix(".new")
        fresh.write_text(json.dumps(table))
        fresh.rename(self.names)

    def set_resolvers(self, *addresses):
        # In place: it is bound over the real one.
        with open(self.resolv, "w") as out:
            out.write("".join(f"nameserver {address}\n" for address in addresses))

    def questions(self):
        """What the resolver was asked, as "name type", in order."""
        return self.asked.read_text().split("\n")[:-1] if self.asked.exists() else []

    def close(self):
        self.far.stdin.close()
        self.far.stdout.close()
        self.far.wait(10)
        shutil.rmtree(self.temp)

    @staticmethod
    def links():
        listed = subprocess.run(["ip", "-j", "link"], check=True, capture_output=True).stdout
        return sorted(link["ifname"] for link in json.loads(listed))

    @staticmethod
    def tables():
        listed = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True)
        return listed.stdout.decode().splitlines()
