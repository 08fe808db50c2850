"""Outbound network (docs/network.md): what a function with it reaches, what it never does, and that
nothing of it stays behind. The whole daemon runs on a board of its own (board.py)."""

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from board import (BOARD, BOARD_PUBLIC, FAR_PRIVATE, LAN, METADATA, OTHER_WEB, THIRD_WEB, WEB,
                   Board, ip)
from harness import (BIN, Case, Daemon, free_port, image_archive, image_of, is_alive,
                     probe_binary, skip_unless, wait_until)

BUSYBOX = Path("/bin/busybox")
ROUTER = "10.83.0.1"
BOARD_OF_TESTS = None
FORWARDING = {}


def setUpModule():
    global BOARD_OF_TESTS
    skip_unless(os.geteuid() == 0, "needs root")
    skip_unless(BUSYBOX.exists(), "needs busybox-static")
    skip_unless(Path("/usr/sbin/nft").exists(), "needs nftables")
    BOARD_OF_TESTS = Board()
    for name in ("ip_forward", "conf/up0/forwarding", "conf/all/forwarding"):
        FORWARDING[name] = Path("/proc/sys/net/ipv4/" + name).read_text()


def tearDownModule():
    if BOARD_OF_TESTS is not None:
        BOARD_OF_TESTS.close()


# Asks the router for a name's addresses: prints the code, and how many came.
ASK = f"""
import socket, struct, sys
name, way = sys.argv[1:]
labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
query = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack(">HH", 1, 1)
with socket.socket(type=socket.SOCK_DGRAM if way == "udp" else socket.SOCK_STREAM) as s:
    s.settimeout(30)
    s.connect(("{ROUTER}", 53))
    s.sendall(query if way == "udp" else struct.pack(">H", len(query)) + query)
    if way == "udp":
        reply = s.recv(65535)
    else:
        size, = struct.unpack(">H", s.recv(2, socket.MSG_WAITALL))
        reply = s.recv(size, socket.MSG_WAITALL)
flags, _, answers = struct.unpack(">HHH", reply[2:8])
print(flags & 15, "truncated" if flags & 0x200 else answers)
"""


# Says as much as it may; prints how much it was told.
TALK = """
import socket, sys
heard = 0
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) as peer:
    try:
        for _ in range(200):
            peer.sendall(b"u" * 65536)
    except OSError:
        pass
    try:
        while block := peer.recv(65536):
            heard += len(block)
    except ConnectionError:
        pass
print(heard)
"""

# Gives an interface the IPv6 address, or takes IPv6 away from it.
SET_IPV6 = """
import subprocess, sys
interface, *addresses = sys.argv[1:]
with open(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6", "w") as switch:
    switch.write("0" if addresses else "1")
for address in addresses:
    subprocess.run(["ip", "addr", "add", address, "dev", interface, "nodad"], check=True)
"""


@contextlib.contextmanager
def serving(address, port):
    """A server of the board's own there, which says so."""
    with socket.create_server((address, port)) as server:
        def serve():
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.sendall(b"served\n")
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def in_background(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def namespaces():
    """The network namespaces that any process or descriptor on this machine holds."""
    out = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            out.add(os.readlink(f"/proc/{pid}/ns/net"))
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    out.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return out


class NetworkCase(Case):
    """Functions here are shells: a call's body is the script."""

    @classmethod
    def prepare(cls):
        cls.board = BOARD_OF_TESTS
        tools = image_of({"bin/busybox": BUSYBOX.read_bytes(), "probe": probe_binary()}, "tools:1",
                         Entrypoint=["/bin/busybox", "sh"])
        cls.daemon.import_archive(image_archive.docker_archive([tools]))

    def deploy(self, name="out", allow=None, expect=(200, 201), **spec):
        network = {"mode": "egress"}
        if allow is not None:
            network["allow"] = allow
        self.addCleanup(self.daemon.api, "DELETE", "/v1/functions/" + name)
        return self.daemon.put(name, {"image": "tools:1", "mode": "exec", "network": network,
                                      **spec}, expect)

    def sh(self, script, name="out"):
        """Exit code and output of `script`, with busybox's tools by their names."""
        names = "for t in nc nslookup ping arping ip timeout cat udhcpc ifconfig; do " \
                "alias $t=\"/bin/busybox $t\"; done\n"
        reply = self.daemon.call(name, (names + "{ " + script + "\n} 2>&1; echo \"=$?\"").encode())
        self.assertEqual(reply.status, 200, repr(reply))
        text, _, code = reply.text.rpartition("=")
        return int(code), text

    # --- the router, from outside

    def router_pid(self):
        found = self.daemon.process_named("pulga-router")
        return found

    def router_fd(self):
        """The launcher's descriptor of the router's network namespace."""
        launcher = self.daemon.launcher_pid()
        own = os.readlink(f"/proc/{launcher}/ns/net")
        for fd in os.listdir(f"/proc/{launcher}/fd"):
            path = f"/proc/{launcher}/fd/{fd}"
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                if os.readlink(path).startswith("net:") and os.readlink(path) != own:
                    # It may hold that of an instance for a moment, too.
                    subprocess.run(["nsenter", "--net=" + path, "ip", "link", "show", "pulga0"],
                                   check=True, capture_output=True)
                    return path
        raise AssertionError("the launcher holds no router")

    def router_namespace(self):
        return os.readlink(self.router_fd())

    def in_router(self, *command):
        return subprocess.run(["nsenter", "--net=" + self.router_fd(), *command], check=True,
                              capture_output=True, text=True).stdout

    def ports(self):
        # The kernel's own list: `ip link` fails when an interface goes away while it is printed.
        return re.findall(r"^ *(p\d+):", self.in_router("cat", "/proc/net/dev"), re.MULTILINE)

    def ruleset(self):
        return self.in_router("nft", "list", "ruleset")

    # --- what a function does

    @contextlib.contextmanager
    def inside(self, name="out"):
        """run(program, arguments...): Python as root in the function's network namespace."""
        sleeper = in_background(lambda: self.sh("/bin/busybox sleep 3600", name))
        pid = wait_until(lambda: self.daemon.process_named("busybox", "sleep"), what="the sleeper")

        def run(program, *arguments):
            done = subprocess.run(["nsenter", "-t", str(pid), "-n", sys.executable, "-c", program,
                                   *arguments], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.strip()
        try:
            yield run
        finally:
            os.kill(pid, signal.SIGKILL)
            sleeper.join()

    def udp(self, address, name="out"):
        """The answer to "ping" sent to the echo there."""
        return self.sh(f"/probe udp-ask {address} 9000 ping", name)

    def assert_reaches(self, address, name="out", port=80, says=None):
        # Not wget: a static program's getaddrinfo wants libraries that the image has not.
        ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 8 "
        code, text = self.sh(ask + f"{address} {port}", name)
        self.assertEqual(code, 0, text)
        self.assertIn(f"web {says or address}", text)

    def assert_refused(self, address, name="out", port=80):
        code, text = self.sh(f"timeout 5 nc -w 3 {address} {port} </dev/null", name)
        self.assertNotEqual(code, 0, f"{address}:{port} answered: {text}")
        # At once: a silent drop would let a client wait for minutes.
        self.assertNotEqual(code, 143, f"{address}:{port} was not refused but ignored: {text}")


class PublicInternet(NetworkCase):
    """The empty list."""

    def setUp(self):
        self.board.set_names({"www.example": {"addresses": [WEB]},
                              "alias.example": {"alias": "www.example"},
                              "inside.example": {"addresses": [FAR_PRIVATE]},
                              "many.example": {"addresses": [f"203.0.113.{n}"
                                                             for n in range(100, 150)]}})
        self.deploy()

    def test_reaches_what_is_out_there(self):
        for address in (WEB, OTHER_WEB):
            self.assert_reaches(address)
        self.assert_reaches(WEB, port=8443)

    def test_reaches_nothing_of_the_house(self):
        """Case S46. The board's second address may look as public as it likes."""
        with serving(BOARD, 7001), serving(BOARD_PUBLIC, 7002), serving("127.0.0.1", 7003):
            for address, port in ((BOARD, 7001), (BOARD_PUBLIC, 7002), ("127.0.0.1", 7003)):
                self.assert_refused(address, port=port)
        for address in (BOARD, BOARD_PUBLIC, ROUTER):
            for port in (self.daemon.port, 22, 15001):
                self.assert_refused(address, port=port)
        for address in (LAN, FAR_PRIVATE, METADATA, "192.168.77.255", "100.64.0.1", "172.16.0.1",
                        "0.0.0.0", "224.0.0.1", "255.255.255.255"):
            self.assert_refused(address)

    def test_a_neighbour_with_a_public_address_is_still_a_neighbour(self):
        ip("route", "add", THIRD_WEB + "/32", "dev", "up0")
        self.addCleanup(ip, "route", "del", THIRD_WEB + "/32", "dev", "up0")
        code, text = self.sh(f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {THIRD_WEB} 80")
        self.assertNotIn("web", text)

    def test_an_address_the_host_gets_later_is_closed_at_once(self):
        code, text = self.sh("true")
        ip("addr", "add", THIRD_WEB + "/32", "dev", "up0")
        self.addCleanup(ip, "addr", "del", THIRD_WEB + "/32", "dev", "up0")
        with serving(THIRD_WEB, 7004):
            code, text = self.sh(f"nc -w 3 {THIRD_WEB} 7004 </dev/null")
            self.assertNotIn("served", text)
            # The rules follow as soon as the router has heard of it.
            wait_until(lambda: self.sh(f"nc -w 3 {THIRD_WEB} 7004 </dev/null")[0] != 0,
                       what="the host's new address is refused")

    def test_no_raw_packets_and_no_other_families(self):
        for command in ("ping -c 1 -W 1 " + WEB, "arping -c 1 -I eth0 " + ROUTER,
                        "ip link set eth0 down", "ip addr add 10.83.0.99/16 dev eth0",
                        "ip route add 10.1.0.0/16 via " + ROUTER,
                        "udhcpc -i eth0 -n -t 1 -T 1 -s /bin/busybox"):
            code, text = self.sh(command)
            self.assertNotEqual(code, 0, f"{command}: {text}")
        code, text = self.sh("ip -6 addr show dev eth0; ip -6 route")
        self.assertEqual(text, "", "it has IPv6")

    def test_there_is_no_way_out_by_ipv6(self):
        code, text = self.sh("cat /proc/net/if_inet6")
        self.assertNotIn("eth0", text)
        self.assertEqual(self.in_router("ip", "-6", "addr"), "")
        connect = ("import socket, sys; s = socket.socket(socket.AF_INET6); s.settimeout(3); "
                   "print(s.connect_ex((sys.argv[1], int(sys.argv[2]))))")
        with self.inside() as run:
            self.assertIn(run(connect, "2001:db8::5", "80"),
                          (str(errno.ENETUNREACH), str(errno.EADDRNOTAVAIL)))
            self.assertNotEqual(run(connect, "::ffff:" + LAN, "80"), "0")
            # Nor would an address on either side help, which nobody but root could give it.
            run(SET_IPV6, "eth0", "fd00:53::2/64")
            router = ["nsenter", "--net=" + self.router_fd(), sys.executable, "-c"]
            for interface, address in (("lo", "fd00:53::9/128"), ("pulga0", "fd00:53::1/64")):
                subprocess.run([*router, SET_IPV6, interface, address], check=True)
                self.addCleanup(self.in_router, sys.executable, "-c", SET_IPV6, interface)
            serve = ("import socket; s = socket.create_server(('::', 7005), "
                     "family=socket.AF_INET6); print('ready', flush=True)\nwhile True: s.accept()")
            server = subprocess.Popen([*router, serve], stdout=subprocess.PIPE)
            try:
                self.assertEqual(server.stdout.readline(), b"ready\n")
                self.assertNotEqual(run(connect, "fd00:53::1", "7005"), "0")
                rules = self.ruleset()
                self.in_router("nft", "flush", "ruleset")
                # The neighbour was not found while the rules stood, and is looked for again.
                wait_until(lambda: run(connect, "fd00:53::1", "7005") == "0", 20,
                           "it was the rules that did it")
                subprocess.run(["nsenter", "--net=" + self.router_fd(), "nft", "-f", "-"],
                               input=rules, text=True, check=True)
            finally:
                server.kill()
                server.wait()
                server.stdout.close()

    def test_a_forged_sender_gets_nowhere(self):
        """As root in the function's namespace, which the function never is."""
        connect = ("import socket, sys; s = socket.socket(); s.settimeout(1.5); "
                   "s.bind((sys.argv[1], 0)); print(s.connect_ex((sys.argv[2], 80)))")
        with self.inside() as run:
            shown = run("import subprocess; subprocess.run(['ip', '-4', 'addr', 'show', 'eth0'])")
            own = re.search(r"inet ([0-9.]+)/", shown)[1]
            self.assertEqual(run(connect, own, WEB), "0")
            change = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"
            run(change, "ip", "addr", "add", "10.83.0.200/16", "dev", "eth0")
            self.assertNotEqual(run(connect, "10.83.0.200", WEB), "0", "a forged address")
            run(change, "ip", "link", "set", "eth0", "address", "02:50:0a:53:00:77")
            self.assertNotEqual(run(connect, own, WEB), "0", "a forged hardware address")

    def test_datagrams(self):
        code, text = self.udp(WEB)
        self.assertEqual(text, "echo ping")
        for address in (LAN, FAR_PRIVATE, METADATA, BOARD):
            self.assertEqual(self.udp(address)[1], "", address)

    def test_large_bodies_both_ways_and_half_closed_connections(self):
        script = ("{ printf 'POST / HTTP/1.0\\r\\nContent-Length: 8000000\\r\\n\\r\\n'; "
                  "/bin/busybox head -c 8000000 /dev/zero; } | nc -w 20 " + WEB + " 80")
        code, text = self.sh(script)
        self.assertIn("took 8000000", text)

    def test_an_answer_arrives_though_its_sender_resets_the_connection(self):
        with self.inside("out") as run:
            self.assertEqual(run(TALK, WEB, "7778"), "20000")

    def test_a_closed_port_ends_the_connection(self):
        code, text = self.sh(f"timeout 5 nc -w 3 {WEB} 81 </dev/null")
        self.assertNotEqual(code, 143, "it hung")
        self.assertEqual(text.replace("nc: read: Connection reset by peer\n", "")
                         .replace(f"nc: can't connect to remote host ({WEB}): Connection refused\n",
                                  ""), "")

    def test_names(self):
        code, text = self.sh("nslookup www.example; nslookup alias.example")
        self.assertEqual(text.count("Address: " + WEB), 2, text)
        code, text = self.sh("nslookup nothing.example")
        self.assertIn("NXDOMAIN", text)
        with self.inside() as run:  # too large for a datagram
            self.assertEqual(run(ASK, "many.example", "tcp"), "0 50")
            self.assertEqual(run(ASK, "many.example", "udp"), "0 truncated")
        self.assertNotIn("www.example 28", self.board.questions(), "it asked for IPv6")

    def test_names_without_a_resolver_fail_at_once(self):
        self.addCleanup(self.board.set_resolvers, LAN)
        for resolvers in ((), ("192.0.2.77",), (BOARD,)):
            self.board.set_resolvers(*resolvers)
            with self.inside() as run:
                self.assertEqual(run(ASK, "www.example", "udp"), "2 0", resolvers)
                self.assertEqual(run(ASK, "www.example", "tcp"), "2 0", resolvers)
        self.board.set_resolvers("192.0.2.77", LAN)
        code, text = self.sh("nslookup www.example")
        self.assertIn("Address: " + WEB, text, "the second resolver was not asked")

    def test_the_router_comes_back_when_it_is_killed(self):
        before = self.router_pid()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: self.router_pid() not in (None, before), what="another router")
        wait_until(lambda: self.sh("nslookup www.example")[0] == 0, what="names are found again")
        self.assert_reaches(WEB)


class Lists(NetworkCase):
    def test_addresses_and_ports(self):
        self.deploy(allow=[WEB + ":80", LAN, "10.9.9.0/24:80-81", BOARD + ":7001",
                           "udp:" + WEB + ":9000"])
        self.assert_reaches(WEB)
        self.assert_reaches(LAN)
        self.assert_reaches(LAN, port=8443)
        self.assert_reaches(FAR_PRIVATE)
        with serving(BOARD, 7001):
            code, text = self.sh(f"nc -w 3 {BOARD} 7001 </dev/null")
            self.assertIn("served", text)
        self.assert_refused(WEB, port=8443)
        self.assert_refused(FAR_PRIVATE, port=8443)
        self.assert_refused(OTHER_WEB)
        self.assert_refused(METADATA)
        self.assertEqual(self.udp(WEB)[1], "echo ping")
        self.assertEqual(self.udp(OTHER_WEB)[1], "")

    def test_not_even_the_whole_world_is_the_management_port_or_another_function(self):
        self.deploy(allow=["0.0.0.0/0"])
        self.assert_reaches(LAN)
        for address in (BOARD, BOARD_PUBLIC, "127.0.0.1", ROUTER):
            self.assert_refused(address, port=self.daemon.port)
        self.assert_refused("10.83.0.17", port=8080)

    def test_a_name_opens_its_addresses_and_no_others(self):
        self.board.set_names({"api.example": {"addresses": [WEB]},
                              "more.example": {"addresses": [OTHER_WEB]}})
        self.deploy(allow=["api.example:80"])
        self.assert_refused(WEB)  # nobody has asked for the name yet
        code, text = self.sh("nslookup api.example")
        self.assertIn("Address: " + WEB, text)
        self.assert_reaches(WEB)
        self.assert_refused(WEB, port=8443)
        asked = len(self.board.questions())
        code, text = self.sh("nslookup more.example; nslookup data-out.evil.example")
        self.assertEqual(text.count("REFUSED"), 4, text)
        self.assertEqual(self.board.questions()[asked:], [], "an unlisted question got out")
        self.assert_refused(OTHER_WEB)

    def test_a_name_is_not_rebound_into_the_house(self):
        self.board.set_names({"api.example": {"addresses": [WEB], "ttl": 1}})
        self.deploy(allow=["api.example"])
        self.sh("nslookup api.example")
        self.assert_reaches(WEB)
        for inside in (LAN, FAR_PRIVATE, METADATA, BOARD, BOARD_PUBLIC, "127.0.0.1", ROUTER):
            self.board.set_names({"api.example": {"addresses": [inside, OTHER_WEB], "ttl": 1}})
            code, text = self.sh("nslookup api.example")
            self.assertNotIn("Address: " + inside + "\n", text)
            self.assertIn("Address: " + OTHER_WEB, text)
            self.assert_refused(inside)

    def test_what_cannot_be_allowed_is_refused_at_deploy(self):
        for entry in ("[2001:db8::1]:443", "127.0.0.1", "224.0.0.0/4"):
            reply = self.deploy(allow=[entry], expect=(400, 422))
            self.assertIn("network.allow", reply.text)


class SeveralListeners(NetworkCase):
    @classmethod
    def make_daemon(cls):
        cls.second = free_port()
        return Daemon("--listen", f"{BOARD}:{cls.second}", "--insecure-listen")

    def test_no_list_opens_any_port_of_the_management(self):
        socket.create_connection((BOARD, self.second), timeout=60).close()
        self.deploy(allow=["0.0.0.0/0", BOARD])
        for address in (BOARD, BOARD_PUBLIC):
            for port in (self.daemon.port, self.second):
                self.assert_refused(address, port=port)
        with serving(BOARD, 7001):  # what else is there is open
            self.assertIn("served", self.sh(f"nc -w 3 {BOARD} 7001 </dev/null")[1])


class AnyPort(NetworkCase):
    @classmethod
    def make_daemon(cls):
        return Daemon("--listen", f"{BOARD}:0", "--insecure-listen")

    def test_a_port_that_the_kernel_chose_for_the_management_is_refused_too(self):
        chosen = int(re.search(rf"listening on {BOARD}:(\d+)", self.daemon.log())[1])
        socket.create_connection((BOARD, chosen), timeout=60).close()
        self.deploy(allow=["0.0.0.0/0", BOARD])
        for address in (BOARD, BOARD_PUBLIC):
            self.assert_refused(address, port=chosen)
        with serving(BOARD, 7001):
            self.assertIn("served", self.sh(f"nc -w 3 {BOARD} 7001 </dev/null")[1])


class Functions(NetworkCase):
    """Functions among themselves."""

    def test_do_not_see_each_other(self):
        self.deploy("one")
        self.deploy("two", allow=["0.0.0.0/0"])
        code, first = self.sh("ip -4 addr show dev eth0", "one")
        address = re.search(r"inet ([0-9.]+)/", first)[1]
        listening = in_background(lambda: self.sh("timeout 6 nc -l -p 9999 </dev/null", "one"))
        time.sleep(0.3)
        self.assert_refused(address, "two", 9999)
        listening.join()
        code, text = self.sh("ip neigh; arping -c 1 -I eth0 " + address, "two")
        self.assertNotIn(address + " dev eth0 lladdr", text)

    def test_call_each_other_through_the_gateway_and_nothing_else(self):
        self.daemon.import_sample("hello")
        self.daemon.put("hello", {"image": "hello:1", "mode": "exec"})
        self.addCleanup(self.daemon.api, "DELETE", "/v1/functions/hello")
        self.deploy()
        code, text = self.gateway("GET /function/hello HTTP/1.0")
        self.assertTrue(text.startswith("HTTP/1.1 200") or text.startswith("HTTP/1.0 200"), text)
        for path in ("/", "/healthz", "/v1/system", "/v1/functions", "/system/functions",
                     "/metrics", "/function", "//v1/system", "/function/../v1/system"):
            code, text = self.gateway(f"GET {path} HTTP/1.0\\r\\nAuthorization: Bearer "
                                      + self.daemon.key)
            self.assertRegex(text, "HTTP/1.[01] (404|400)", path)
            self.assertNotIn("version", text.lower().replace("http/1", ""), path)
        for name in ("gateway", "gateway.openfaas", "pulga"):
            code, text = self.sh("nslookup " + name)
            self.assertIn("Address: " + ROUTER, text)
        for name in ("hello", "hello.openfaas-fn", "hello.openfaas-fn.svc.cluster.local"):
            code, text = self.sh("nslookup " + name)
            self.assertIn("Address: " + ROUTER, text)
            code, text = self.gateway("GET /any/path HTTP/1.0", name)
            self.assertRegex(text, "^HTTP/1.[01] 200", name)
        code, text = self.gateway("GET /v1/system HTTP/1.0\\r\\nAuthorization: Bearer "
                                  + self.daemon.key, "nosuch")
        self.assertRegex(text, "^HTTP/1.[01] 404")
        self.assertIn("rejected:unknown-function", text)
        hosts = self.sh("cat /etc/hosts")[1]
        self.assertIn(ROUTER + "\tgateway gateway.openfaas pulga", hosts)

    def test_may_have_answers_sent_to_functions_and_nowhere_else(self):
        self.daemon.import_sample("hello")
        self.daemon.put("hello", {"image": "hello:1", "mode": "exec"})
        self.addCleanup(self.daemon.api, "DELETE", "/v1/functions/hello")
        self.deploy()
        for url, status in ((f"http://{WEB}/", 400), ("http://api.example/", 400),
                            ("http://gateway:8080/function/hello", 202),
                            ("http://gateway:8080/async-function/hello", 202)):
            code, text = self.gateway("POST /async-function/hello HTTP/1.0\\r\\n"
                                      "X-Callback-Url: " + url)
            self.assertRegex(text, f"^HTTP/1.[01] {status}", url)
        # Who is no function may name a server that anybody reaches.
        reply = self.daemon.request("POST", "/async-function/hello", b"",
                                    {"X-Callback-Url": "http://api.example/"})
        self.assertEqual(reply.status, 202)

    def gateway(self, head, host="gateway"):
        # Its stdin stays open: a caller that closes its end takes its call back.
        return self.sh(f"/bin/busybox mkfifo /tmp/in; nc -w 30 {ROUTER} 8080 </tmp/in & "
                       f"exec 3>/tmp/in; printf '{head}\\r\\nHost: {host}\\r\\n\\r\\n' >&3; "
                       "wait $!")

    def test_without_a_network_there_is_none(self):
        self.daemon.put("alone", {"image": "tools:1", "mode": "exec"})
        self.addCleanup(self.daemon.api, "DELETE", "/v1/functions/alone")
        code, text = self.sh("ip -o link | wc -l; cat /etc/resolv.conf", "alone")
        for address in (WEB, LAN, BOARD, ROUTER, METADATA):
            self.assert_refused(address, "alone")

    def test_servers_have_it_too(self):
        self.daemon.import_sample("http-hello")
        self.daemon.put("web", {"image": "http-hello:1", "mode": "http",
                                "network": {"mode": "egress"}, "scale": {"max": 3}})
        self.addCleanup(self.daemon.api, "DELETE", "/v1/functions/web")
        self.assertEqual(self.daemon.call("web").status, 200)
        self.assertGreaterEqual(len(self.ports()), 1)


class Teardown(NetworkCase):
    def test_a_deleted_function_leaves_no_interface_and_no_rule(self):
        self.deploy("gone", allow=[WEB, "api.example:80"])
        self.sh("nslookup api.example", "gone")
        self.assertEqual(len(self.ports()), 1)
        self.assertIn("chain port", self.ruleset())
        self.daemon.api("DELETE", "/v1/functions/gone")
        wait_until(lambda: not self.ports(), what="the interface is gone")
        wait_until(lambda: "chain port" not in self.ruleset(), what="its rules are gone")
        rules = self.ruleset()
        for word in ("pins", "10.83.0.16", WEB):
            self.assertNotIn(word, rules)

    def test_replacing_versions_over_and_over_leaves_nothing(self):
        for turn in range(12):
            self.deploy("again", allow=[WEB], env={"TURN": str(turn)})
        self.assert_reaches(WEB, "again")
        wait_until(lambda: len(self.ports()) == 1, what="one interface")

    def test_nothing_of_the_hosts_changes(self):
        self.deploy()
        self.assert_reaches(WEB)
        self.assertEqual(Board.links(), ["lo", "up0"])
        self.assertEqual(Board.tables(), [])
        for name in ("ip_forward", "conf/up0/forwarding", "conf/all/forwarding"):
            self.assertEqual(Path("/proc/sys/net/ipv4/" + name).read_text(), FORWARDING[name])


class Deaths(NetworkCase):
    """Whoever is killed: what served goes on or ends, and nothing stays behind."""

    def test_launcher(self):
        self.deploy()
        self.assert_reaches(WEB)
        old_router, old = self.router_pid(), self.daemon.launcher_pid()
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: not is_alive(old_router), what="the old router is gone")
        wait_until(lambda: self.daemon.launcher_now() not in (None, old), what="a new launcher")
        wait_until(lambda: self.daemon.call("out", b"true\n").status == 200, 30, "calls again")
        self.assert_reaches(WEB)
        self.assertEqual(len(self.ports()), 1)
        code, text = self.sh(f"nc -w 3 {ROUTER} 8080 </dev/null")
        self.assertEqual(code, 0, "no gateway at the new router")

    def test_daemon(self):
        self.deploy()
        self.assert_reaches(WEB)
        old_router, old = self.router_pid(), self.daemon.daemon_pid()
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: not is_alive(old_router), what="the old router is gone")
        wait_until(lambda: self.daemon.healthy(), 30, "the daemon is back")
        wait_until(lambda: self.daemon.call("out", b"true\n").status == 200, 30, "calls again")
        self.assert_reaches(WEB)


class WithoutNetfilter(unittest.TestCase):
    def test_only_outbound_network_is_refused_and_says_why(self):
        """A copy of our programs, without the one that needs nftables."""
        directory = Path(tempfile.mkdtemp(prefix="pulga-bin-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, directory)
        directory.chmod(0o755)
        for name in ("pulga", "pulga-launcher", "pulga-unpacker"):
            shutil.copy2(BIN / name, directory)
        daemon = Daemon()
        full = daemon.command()
        daemon.command = lambda: [str(directory / "pulga"), *full[1:]]
        with daemon:
            daemon.deploy_probe("alone")
            self.assertEqual(daemon.call("alone", b"exit 0").status, 200)
            reply = daemon.api("PUT", "/v1/functions/out",
                               {"image": "probe:1", "network": {"mode": "egress"}})
            self.assertEqual(reply.status, 422, repr(reply))
            self.assertIn("pulga-netadmin", reply.text)
            features = daemon.api("GET", "/v1/system").text
            self.assertIn("network.egress", features)
            self.assertIn("pulga-netadmin is not installed", features)


class Range(unittest.TestCase):
    def test_one_that_the_host_has_a_route_to_is_refused(self):
        ip("route", "add", "10.83.7.0/24", "via", LAN)
        self.addCleanup(ip, "route", "del", "10.83.7.0/24", "via", LAN)
        with Daemon() as daemon:
            daemon.import_sample("probe")
            spec = {"image": "probe:1", "network": {"mode": "egress"}}
            reply = daemon.api("PUT", "/v1/functions/out", spec)
            self.assertEqual(reply.status, 422, repr(reply))
            self.assertIn("10.83.7.0/24", reply.text)
        with Daemon("--network-range", "172.20.0.0/20") as daemon:
            daemon.deploy_probe("out", network={"mode": "egress"})
            reply = daemon.call("out", b"cat /etc/resolv.conf")
            self.assertIn("nameserver 172.20.0.1\n", reply.text)


class Stop(unittest.TestCase):
    def test_a_stop_leaves_no_namespace_process_or_interface(self):
        class Once(NetworkCase):
            def runTest(self):
                pass
        Once.setUpClass()
        case = Once()
        case.daemon, case.board = Once.daemon, BOARD_OF_TESTS
        case.deploy()
        case.assert_reaches(WEB)
        router = case.router_pid()
        namespace = os.readlink(f"/proc/{router}/ns/net")
        inside = case.router_namespace()
        Once.daemon.stop()
        Once.doClassCleanups()
        self.assertFalse(is_alive(router))
        wait_until(lambda: inside not in namespaces(), what="the router's namespace is gone")
        self.assertEqual(Board.links(), ["lo", "up0"])
        self.assertEqual(namespace, os.readlink("/proc/self/ns/net"))


if __name__ == "__main__":
    unittest.main()
