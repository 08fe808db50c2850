"""What one function can take of the outbound network (docs/network.md): so much and no more, and
the others do not feel it. On the board of test_network.py."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

import leaks
from board import WEB
from harness import SANITIZED, Daemon, is_alive, skip_unless, wait_until
from test_network import (ASK, ROUTER, NetworkCase, in_background, serving,
                          setUpModule, tearDownModule)  # noqa: F401


# Opens connections to who neither reads nor answers, and fills them for some seconds; prints how
# many stayed, and keeps them until its stdin ends.
FILL = """
import resource, socket, struct, sys, time
address, port, wanted, seconds = sys.argv[1], *map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
held = []
for _ in range(wanted):
    try:
        held.append(socket.create_connection((address, port), timeout=60))
    except ConnectionError:
        pass
time.sleep(0.2)
end, gone = time.monotonic() + seconds, set()
for s in held:
    s.setblocking(False)
while True:
    for s in held:
        try:
            if s.recv(1) == b"":
                gone.add(s)
        except BlockingIOError:
            pass
        except OSError:
            gone.add(s)
        try:
            if seconds:
                s.send(b"x" * 65536)
        except OSError:
            pass
    if time.monotonic() > end:
        break
print(len(held) - len(gone), flush=True)
sys.stdin.read()
for s in held:  # half-closed, then reset
    try:
        s.shutdown(socket.SHUT_WR)
    except OSError:
        pass
time.sleep(0.2)
for s in held:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""

# Says something from so many ports; prints how many were answered.
SAY = """
import select, socket, sys
held = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(int(sys.argv[2]))]
heard = set()
for s in held:
    s.connect((sys.argv[1], 9000))
    s.send(b"ping")
    heard |= set(select.select(held, [], [], 0)[0])
while len(heard) < len(held):
    ready = set(select.select([s for s in held if s not in heard], [], [], 2)[0])
    if not ready:
        break
    heard |= ready
print(len(heard), flush=True)
sys.stdin.read()
"""

# Asks for the addresses of all names at once; prints how many addresses each answer has.
ASK_ALL = f"""
import select, socket, struct, sys
asked = []
for name in sys.argv[1:]:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    s = socket.socket(type=socket.SOCK_DGRAM)
    s.connect(("{ROUTER}", 53))
    head = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0)
    s.send(head + labels + b"\\0" + struct.pack(">HH", 1, 1))
    asked.append(s)
for s in asked:
    s.settimeout(30)
    print(struct.unpack(">H", s.recv(65535)[6:8])[0])
"""

# An exchange in two halves, the second one when its stdin ends.
HALVES = """
import socket, sys
s = socket.create_connection((sys.argv[1], 80), timeout=60)
s.sendall(b"GET / HTTP/1.0\\r\\n")
print("open", flush=True)
sys.stdin.read()
s.sendall(b"\\r\\n")
print(b"".join(iter(lambda: s.recv(65536), b"")).decode(), flush=True)
"""


class Held(NetworkCase):
    """Programs in the network namespace of a function, as many as it takes."""

    def pid_inside(self, name):
        """A process of the function, which lives as long as the test."""
        mark = "36" + "".join(str(ord(letter)) for letter in name)
        script = f"/bin/busybox sleep {mark}"
        sleeper = in_background(lambda: self.sh(script, name))
        pid = wait_until(lambda: self.daemon.process_named("busybox", "sleep", mark), 20, "sleeper")

        def end():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            sleeper.join()
        self.addCleanup(end)
        return pid

    def start(self, pid, program, *arguments):
        """Its process, and the first line it said."""
        process = subprocess.Popen(["nsenter", "-t", str(pid), "-n", sys.executable, "-c", program,
                                    *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True)
        self.addCleanup(self.finish, process)
        return process, process.stdout.readline().strip()

    @staticmethod
    def finish(process):
        """What else it says when it may end."""
        if process.stdin.closed:
            return ""
        process.stdin.close()
        with process.stdout:
            text = process.stdout.read()
        process.wait(60)
        return text

    def assert_reset(self, address, name="out"):
        """Accepted by the kernel, which knows no shares, and ended by the router at once."""
        code, text = self.sh("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 8 /bin/busybox nc "
                             f"{address} 80", name)
        self.assertNotIn("web", text)
        self.assertNotEqual(code, 143, f"{address} was not refused but ignored")


class Shares(Held):
    def setUp(self):
        self.deploy("other")

    def test_an_instance_has_256_connections_and_128_conversations(self):
        self.deploy()
        pid = self.pid_inside("out")
        held, kept = self.start(pid, FILL, WEB, "7777", "300", "0")
        self.assertEqual(kept, "256")
        self.assert_reset(WEB)
        self.assert_reaches(WEB, "other")
        self.assertEqual(self.start(pid, SAY, WEB, "150")[1], "128")
        self.assertEqual(self.udp(WEB)[1], "")
        self.assertEqual(self.udp(WEB, "other")[1], "echo ping")
        self.finish(held)
        wait_until(lambda: self.start(pid, FILL, WEB, "7777", "5", "0")[1] == "5", 20, "room again")
        wait_until(lambda: re.search(r"version \d+ at 10\.83\.\d+\.\d+ has its share: \d+ ",
                                     self.daemon.log()), what="it is told")

    def test_the_instances_of_a_version_have_512_together(self):
        self.daemon.import_sample("http-hello")
        self.addCleanup(self.daemon.api, "DELETE", "/v1/functions/web")
        self.daemon.put("web", {"image": "http-hello:1", "mode": "http",
                                "network": {"mode": "egress"}, "scale": {"min": 3, "max": 3}})
        ours = os.readlink("/proc/self/ns/net")

        def instances():
            out = {}
            for pid in self.daemon.processes():
                with contextlib.suppress(OSError):
                    if "http-hello" in Path(f"/proc/{pid}/cmdline").read_text():
                        out[os.readlink(f"/proc/{pid}/ns/net")] = pid
            out.pop(ours, None)
            return list(out.values()) if len(out) >= 3 else None
        pids = wait_until(instances, 30, "three instances")
        kept = [int(self.start(pid, FILL, WEB, "7777", "220", "0")[1]) for pid in pids[:3]]
        self.assertEqual(kept, [220, 220, 72])
        self.assert_reaches(WEB, "other")

    def test_all_functions_have_2048_and_1024_together(self):
        names = [f"f{n}" for n in range(8)]
        pids = []
        for name in names:
            self.deploy(name)
            pids.append(self.pid_inside(name))
        held = [self.start(pid, FILL, WEB, "7777", "256", "0") for pid in pids]
        self.assertEqual([kept for _, kept in held], ["256"] * 8)
        said = [self.start(pid, SAY, WEB, "128") for pid in pids]
        self.assertEqual([kept for _, kept in said], ["128"] * 8)
        self.assert_reset(WEB, "other")
        self.assertEqual(self.udp(WEB, "other")[1], "")
        os.kill(pids[0], signal.SIGKILL)  # or its call would be waited for
        self.daemon.api("DELETE", "/v1/functions/f0")
        wait_until(lambda: self.udp(WEB, "other")[1] == "echo ping", 20, "room for conversations")
        self.assert_reaches(WEB, "other")

    def test_a_function_has_8_connections_to_the_resolver(self):
        self.board.set_names({"www.example": {"addresses": [WEB]}})
        self.deploy()
        pid = self.pid_inside("out")
        self.assertEqual(self.start(pid, FILL, ROUTER, "53", "70", "0")[1], "8")
        other = self.pid_inside("other")
        self.assertEqual(self.start(other, ASK, "www.example", "tcp")[1], "0 1")


class Waiting(Held):
    def test_what_waits_for_a_peer_that_does_not_read_is_bounded(self):
        skip_unless(not SANITIZED, "a sanitizer keeps what was given back")
        self.deploy()

        def own_memory():
            status = Path(f"/proc/{self.router_pid()}/status").read_text()
            return int(re.search(r"RssAnon:\s*(\d+) kB", status)[1]) << 10
        before = own_memory()
        self.start(self.pid_inside("out"), FILL, WEB, "7777", "200", "4")
        # 1 MiB, and a small step for each; without the bound 64 KiB for each.
        self.assertLess(own_memory() - before, 5 << 20)


class Pins(Held):
    def test_many_names_at_once_are_opened_by_few_jobs(self):
        names = {f"n{n}.example": {"addresses": [f"203.0.113.{100 + 6 * n + i}" for i in range(6)]}
                 for n in range(20)}
        self.board.set_names(names)
        self.deploy(allow=list(names))
        pid = self.pid_inside("out")
        place = next(p for p in leaks.cgroups_of(self.daemon.data) if p.endswith("/netadmin"))
        seen, stop = set(), threading.Event()

        def look():
            while not stop.is_set():
                seen.update(Path(place, "cgroup.procs").read_text().split())
                time.sleep(0.002)
        looker = in_background(look)
        process, first = self.start(pid, ASK_ALL, *names)
        rest = self.finish(process).split()
        stop.set()
        looker.join()
        self.assertEqual([first, *rest], ["6"] * 20)
        self.assertLess(len(seen), 40, "a job for each address")
        rules = self.ruleset()
        self.assertIn("203.0.113.100 timeout", rules)
        self.assertIn("203.0.113.219 timeout", rules)

    def test_a_name_has_64_addresses_at_most_and_another_its_own(self):
        self.deploy(allow=["wild.example:80", "calm.example:80"])
        pid = self.pid_inside("out")
        told = []
        for turn in range(5):
            self.board.set_names({"wild.example": {"addresses": [
                f"203.0.113.{20 + 16 * turn + i}" for i in range(16)]},
                "calm.example": {"addresses": [WEB]}})
            told.append(self.start(pid, ASK_ALL, "wild.example")[1])
        self.assertEqual(told, ["16"] * 4 + ["0"])
        self.assertNotIn("203.0.113.84 timeout", self.ruleset())
        self.assertEqual(self.start(pid, ASK_ALL, "calm.example")[1], "1")
        self.assert_reaches(WEB)

    def test_addresses_that_could_not_be_opened_take_no_room(self):
        self.deploy(allow=["wild.example:80"])
        pid = self.pid_inside("out")

        def ask(turn):
            self.board.set_names({"wild.example": {"addresses": [
                f"203.0.113.{20 + 16 * turn + i}" for i in range(16)]}})
            return self.start(pid, ASK_ALL, "wild.example")[1]
        self.assertEqual(ask(0), "16")
        table = self.in_router("nft", "-s", "list", "table", "inet", "pulga")
        self.in_router("nft", "delete", "table", "inet", "pulga")
        self.assertEqual([ask(turn) for turn in range(1, 5)], ["0"] * 4)
        self.in_router("nft", table)
        self.assertEqual([ask(turn) for turn in range(5, 8)], ["16"] * 3)

    def test_an_open_connection_outlives_the_address_it_was_opened_for(self):
        self.board.set_names({"api.example": {"addresses": [WEB]}})
        self.deploy(allow=["api.example:80"])
        pid = self.pid_inside("out")
        self.assertEqual(self.start(pid, ASK_ALL, "api.example")[1], "1")
        half, said = self.start(pid, HALVES, WEB)
        self.assertEqual(said, "open")
        pins = re.search(r"set (pins\d+_0)", self.ruleset())[1]
        self.in_router("nft", "flush", "set", "inet", "pulga", pins)
        self.assert_refused(WEB)
        self.assertIn("web " + WEB, self.finish(half))


class HostAddresses(unittest.TestCase):
    """All of the host's addresses are closed, or there is no outbound network."""

    @contextlib.contextmanager
    def many(self, count):
        addresses = [f"198.51.{100 + n // 250}.{1 + n % 250}" for n in range(count)]

        def each(verb):
            lines = "".join(f"addr {verb} {address}/32 dev lo\n" for address in addresses)
            subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)
        each("add")
        try:
            yield addresses
        finally:
            each("del")

    def test_hundreds_are_held_one_by_one(self):
        class Once(NetworkCase):
            def runTest(self):
                pass
        with self.many(300) as addresses:
            Once.setUpClass()
            self.addCleanup(Once.doClassCleanups)
            case = Once()
            self.addCleanup(case.doCleanups)
            case.daemon = Once.daemon
            case.deploy()
            rules = case.ruleset()
            for address in addresses:
                self.assertIn(address, rules)
            with serving(addresses[-1], 7001):
                case.assert_refused(addresses[-1], port=7001)

    def test_more_than_can_be_held_are_refused(self):
        with self.many(1100), Daemon() as daemon:
            daemon.import_sample("probe")
            reply = daemon.api("PUT", "/v1/functions/out",
                               {"image": "probe:1", "network": {"mode": "egress"}})
            self.assertEqual(reply.status, 422, repr(reply))
            self.assertIn("addresses, and outbound network can close at most 1024", reply.text)


class HelpersCgroups(Held):
    """The router and pulga-netadmin work for functions, and are held apart from the launcher."""

    def setUp(self):
        self.deploy()

    def cgroup_file(self, name, *files):
        for place in leaks.cgroups_of(self.daemon.data):
            for file in files:
                path = Path(place, file)
                if place.endswith("/" + name) and path.exists():
                    return path
        raise AssertionError(f"no {files} of cgroup {name}")

    def processors(self, name):
        """As many as its cgroup may keep busy."""
        file = self.cgroup_file(name, "cpu.max", "cpu.cfs_quota_us")
        words = file.read_text().split()
        if file.name == "cpu.cfs_quota_us":
            words.append(file.with_name("cpu.cfs_period_us").read_text())
        return int(words[0]) / int(words[1])

    def test_they_are_bounded_and_go_before_the_daemon(self):
        self.assert_reaches(WEB)
        pid = self.router_pid()
        for name in ("router", "netadmin"):
            limit = self.cgroup_file(name, "memory.max", "memory.limit_in_bytes").read_text()
            self.assertEqual(int(limit), 256 << 20, name)
            self.assertEqual(self.cgroup_file(name, "pids.max").read_text(), "8\n", name)
            self.assertEqual(self.processors(name), 1.0, name)
        self.assertIn(str(pid), self.cgroup_file("router", "cgroup.procs").read_text().split())
        self.assertEqual(Path(f"/proc/{pid}/oom_score_adj").read_text(), "250\n")
        self.assertGreater(int(self.cgroup_file("netadmin", "memory.peak",
                                                "memory.max_usage_in_bytes").read_text()), 100000)

    def test_a_router_past_its_memory_is_replaced_and_nobody_else_ends(self):
        before, launcher = self.router_pid(), self.daemon.launcher_pid()
        limit = self.cgroup_file("router", "memory.max", "memory.limit_in_bytes")
        use = self.cgroup_file("router", "memory.current", "memory.usage_in_bytes")
        normal = limit.read_text()
        self.addCleanup(limit.write_text, normal)
        limit.write_text(str(int(use.read_text()) + (512 << 10)))
        self.start(self.pid_inside("out"), FILL, WEB, "7777", "200", "8")
        wait_until(lambda: not is_alive(before), what="it passed its limit")
        limit.write_text(normal)
        wait_until(lambda: self.router_pid() not in (None, before), what="another router")
        wait_until(lambda: self.sh("nslookup gateway")[0] == 0, what="names are found again")
        self.assert_reaches(WEB)
        self.assertEqual(self.daemon.launcher_pid(), launcher)


if __name__ == "__main__":
    unittest.main()
