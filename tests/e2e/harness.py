"""Runs the built daemon from outside: a Daemon in a temporary directory on a free port, its CLI,
an HTTP client, and the base class of every e2e case.

Needs root. The directories come from ctest (PULGA_BIN_DIR, PULGA_IMAGES_DIR) or, by hand,
from build/release.
"""

import http.client
import json
import os
import pwd
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
import urllib.parse
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("PULGA_BIN_DIR", ROOT / "build/release/bin"))
IMAGES = Path(os.environ.get("PULGA_IMAGES_DIR", ROOT / "build/release/images"))
PULGA = str(BIN / "pulga")
SANITIZED = b"__asan_init" in Path(PULGA).read_bytes()
MUST_RUN = os.environ.get("PULGA_TESTS_MUST_RUN") == "1"
# X-Pulga-Start of a call that found its instance there; a second of idleness freezes it.
WARM = ("warm", "frozen")
sys.path.insert(0, str(ROOT / "rootfs"))
import image_archive  # noqa: E402 (the folder must be on the path first)
import openapi  # noqa: E402


# How sanitizers (presets dev and tsan) begin what they have to say, in any of our processes.
FINDING = re.compile(r"^.*(?:(?:ERROR|WARNING): \w+Sanitizer|:\d+: runtime error: |"
                     r"Sanitizer has encountered).*$", re.MULTILINE)


def skip_unless(condition, why):
    """A skip says why; under PULGA_TESTS_MUST_RUN=1 it is a failure."""
    if condition:
        return
    if MUST_RUN:
        raise AssertionError("PULGA_TESTS_MUST_RUN=1, but: " + why)
    raise unittest.SkipTest(why)


def wait_until(condition, seconds=30.0, what="condition"):
    """Returns the condition's first true value; fails loudly after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def unused_uid():
    used = {p.pw_uid for p in pwd.getpwall()}
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                used.add(os.stat("/proc/" + pid).st_uid)
            except OSError:
                pass
    first = 62000 + os.getpid() % 1000
    return next(uid for uid in range(first, 65000) if uid not in used)


class Reply:
    """status, headers (lower-case names), body, trailers; `broken` when the stream was cut."""

    def __init__(self, status, headers, body, broken=None):
        self.status, self.body, self.broken = status, body, broken
        self.headers = {name.lower(): value for name, value in headers}

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    @property
    def outcome(self):
        return self.headers.get("x-pulga-outcome")

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} outcome={self.outcome} {self.body[:300]!r} broken={self.broken}>"


class Daemon:
    """One `pulga serve` with its own data directory. Use as a context manager."""

    def __init__(self, *flags):
        self.temp = Path(tempfile.mkdtemp(prefix="pulga-e2e-", dir="/tmp"))
        self.temp.chmod(0o711)  # the daemon's own user has to pass through
        self.data = self.temp / "data"
        self.log_path = self.temp / "log"
        self.port = free_port()
        self.uid = unused_uid()
        self.flags = list(flags)
        self.before_exec = None  # run in the child that becomes the keeper
        self.process = None
        self.key = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        if self.process is not None and self.process.poll() is None:
            self.stop()
        if error[0] is not None:
            print("--- daemon log ---\n" + self.log()[-6000:], file=sys.stderr)
        log = self.log()
        shutil.rmtree(self.temp, ignore_errors=True)
        check_findings(log)

    def command(self):
        return [PULGA, "serve", "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}",
                "--user", str(self.uid),
                # What else this machine runs is no part of a test; test_pressure.py has its own.
                *([] if "--board-root" in self.flags else ["--pressure", "off"]), *self.flags]

    def start(self, seconds=60):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log,
                                            preexec_fn=self.before_exec)
        wait_until(lambda: self.healthy() or self.process.poll() is not None, seconds,
                   "the daemon answers /healthz")
        if self.process.poll() is not None:
            raise AssertionError("the daemon did not start:\n" + self.log())
        self.key = (self.data / "admin.key").read_text().strip()
        return self

    def healthy(self):
        try:
            return self.request("GET", "/healthz", timeout=2).status == 200
        except OSError:
            return False

    def stop(self, signo=signal.SIGTERM, seconds=40):
        """Ends it and returns the exit status."""
        self.process.send_signal(signo)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the daemon did not stop:\n{self.log()[-3000:]}") from None

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # --- its processes ---

    def processes(self):
        """{pid: name} of the keeper and everything below it."""
        return descendants(self.process.pid)

    def process_named(self, *words):
        """The pid whose command line holds all words, among ours."""
        for pid in self.processes():
            line = command_line(pid)
            if all(word in line for word in words):
                return pid
        return None

    def daemon_now(self):
        return self.process_named("serve-daemon")

    def daemon_pid(self):
        return wait_until(self.daemon_now, 30, "a daemon process")

    def launcher_now(self):
        """The keeper's child, or None; spawners are forked from it and carry the same words."""
        keeper = self.process.pid
        if " keeper " not in command_line(keeper):  # under sudo and the like
            keeper = self.process_named(" keeper ")
        return next((pid for pid in self.processes() if parent_of(pid) == keeper
                     and "pulga-launcher launcher" in command_line(pid)), None)

    def launcher_pid(self):
        return wait_until(self.launcher_now, 30, "a launcher process")

    # --- HTTP ---

    def connect(self, timeout=120):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def request(self, method, path, body=None, headers=None, timeout=120, admin=False):
        """One request on its own connection. An iterable body is sent chunked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = dict(headers or {})
        if admin:
            headers["Authorization"] = "Bearer " + self.key
        try:
            connection.request(method, path, body=body, headers=headers)
            reply = read_reply(connection.getresponse())
        finally:
            connection.close()
        openapi.check(method, path, headers, reply.status)
        return reply

    def call(self, name, body=None, path="", method=None, headers=None, timeout=120):
        method = method or ("GET" if body is None else "POST")
        return self.request(method, f"/function/{name}{path}", body, headers, timeout)

    def api(self, method, path, document=None, timeout=120):
        body = None if document is None else json.dumps(document)
        return self.request(method, path, body, {"Content-Type": "application/json"}, timeout, True)

    def put(self, name, document, expect=(200, 201)):
        reply = self.api("PUT", "/v1/functions/" + name, document)
        if reply.status not in expect:
            raise AssertionError(f"PUT {name}: {reply}")
        return reply

    def open_calls(self, name):
        """How many calls its instances have right now."""
        status = self.api("GET", "/v1/functions/" + name).json()
        return sum(instance["open_calls"] for instance in status["instances"])

    def queued(self, name):
        return self.api("GET", "/v1/functions/" + name).json()["queued"]

    def deploy_probe(self, name="probe", **spec):
        self.import_sample("probe")
        return self.put(name, {"image": "probe:1", "mode": "exec", **spec})

    def deploy_http(self, name="web", **spec):
        self.import_sample("http-hello")
        return self.put(name, {"image": "http-hello:1", "mode": "http", **spec})

    def import_sample(self, name):
        return self.import_archive((IMAGES / (name + ".tar")).read_bytes())

    def import_archive(self, data, expect=(200, 201), query=""):
        reply = self.request("POST", "/v1/images" + query, data,
                             {"Content-Type": "application/x-tar"}, 400, True)
        if reply.status not in expect:
            raise AssertionError(f"import: {reply}")
        return reply

    # --- CLI ---

    def cli(self, *args, stdin=b"", timeout=120, env=None):
        """Runs `pulga ARGS`; a CompletedProcess with bytes."""
        environment = {"PATH": os.environ["PATH"], "PULGA_URL": f"http://127.0.0.1:{self.port}",
                       "PULGA_KEY": self.key or "", **(env or {})}
        done = subprocess.run([PULGA, *args], input=stdin, capture_output=True, timeout=timeout,
                              env=environment, check=False)
        check_findings(done.stderr.decode("utf-8", "replace"))
        return done

    def cli_ok(self, *args, **options):
        done = self.cli(*args, **options)
        if done.returncode != 0:
            raise AssertionError(f"pulga {' '.join(args)}: {done.returncode}\n"
                                 f"{done.stdout.decode()}{done.stderr.decode()}")
        return done.stdout.decode()


def check_findings(log):
    """A sanitizer's report in `log` is a failure of the test that made the daemon write it."""
    found = FINDING.search(log)
    if found:
        raise AssertionError("a sanitizer reports:\n" + log[found.start():found.start() + 6000])


def read_reply(response):
    body, broken = b"", None
    try:
        body = response.read()
    except http.client.IncompleteRead as error:
        body, broken = error.partial, "incomplete"
    except (ConnectionError, http.client.HTTPException) as error:
        broken = repr(error)
    return Reply(response.status, response.getheaders(), body, broken)


def raw_exchange(port, data, seconds=10):
    """Sends bytes as they are; everything that comes back until the peer closes or time is up."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as s:
        s.sendall(data)
        received = b""
        try:
            while True:
                block = s.recv(65536)
                if not block:
                    return received, True
                received += block
        except socket.timeout:
            return received, False
        except ConnectionResetError:
            return received, True


def in_parallel(count, job):
    """job(n) for n in range(count), each on a thread; results in order, exceptions included."""
    results = [None] * count

    def run(n):
        try:
            results[n] = job(n)
        except Exception as error:  # pylint: disable=broad-except
            results[n] = error

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


# --- /proc ---

def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return None


def descendants(root):
    """{pid: name} of root and all below it that are alive (no zombies)."""
    parents = {int(p): parent_of(p) for p in os.listdir("/proc") if p.isdigit()}
    found, added = {root}, True
    while added:
        added = {p for p, parent in parents.items() if parent in found} - found
        found |= added
    return {p: status_of(p).get("Name", "") for p in found
            if not status_of(p).get("State", "X").startswith(("Z", "X"))}


def status_of(pid):
    """/proc/PID/status as a dictionary; empty when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def command_line(pid):
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace")


def is_alive(pid):
    return not status_of(pid).get("State", "X").startswith(("Z", "X"))


class background:
    """Its method watch() runs in a thread beside the block, until self.stopping is set."""

    def __init__(self):
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()


class memory_guard(background):
    """Watches all processes of a daemon while its block runs; .kib is the highest sum of their
    proportional memory, pages of the page cache aside (but our own program text counted)."""

    def __init__(self, daemon):
        super().__init__()
        self.daemon, self.kib, self.worst = daemon, 0, {}

    def watch(self):
        while not self.stopping.wait(0.01):
            sizes = {pid: proportional_kib(pid) for pid in self.daemon.processes()}
            if sum(sizes.values()) > self.kib:
                self.kib = sum(sizes.values())
                self.worst = {command_line(pid)[:60]: size for pid, size in sizes.items()}


def proportional_kib(pid):
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


# --- images ---

def probe_binary():
    return (BIN / "rootfs/probe").read_bytes()


def image_of(files, tag="made:1", **config):
    """An Image of one layer: {path: bytes}, executable."""
    entries = [image_archive.Entry(path, content=data, mode=0o755) for path, data in files.items()]
    return image_archive.Image([tag], [image_archive.layer(entries)], config)


def broken_program_archive():
    """broken:1, a program by its head alone: a deploy takes it, and execve does not."""
    image = image_of({"broken": probe_binary()[:64]}, "broken:1", Entrypoint=["/broken"])
    return image_archive.docker_archive([image])


def quote(text):
    return urllib.parse.quote(text, safe="")


class OwnDaemonCase(unittest.TestCase):
    """A daemon for each test, which may break it."""

    def setUp(self):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        self.daemon = Daemon()
        self.addCleanup(self.daemon.__exit__, None, None, None)
        self.daemon.start()


class Case(unittest.TestCase):
    """One daemon for all tests of a class; every test leaves it healthy."""

    flags = ()

    @classmethod
    def setUpClass(cls):
        skip_unless(os.geteuid() == 0, "needs root: the keeper and the launcher run as root")
        cls.daemon = cls.make_daemon()
        cls.addClassCleanup(cls.daemon.__exit__, None, None, None)
        cls.daemon.start()
        cls.prepare()

    @classmethod
    def make_daemon(cls):
        return Daemon(*cls.flags)

    @classmethod
    def prepare(cls):
        """Imports and deploys what the class needs."""

    def tearDown(self):
        check_findings(self.daemon.log())
        self.assertTrue(self.daemon.healthy(), "the daemon is not healthy:\n"
                        + self.daemon.log()[-4000:])

    def run(self, result=None):
        before = 0 if result is None else len(result.failures) + len(result.errors)
        super().run(result)
        if result is not None and len(result.failures) + len(result.errors) > before:
            print(f"--- daemon log at the end of {self.id()} ---\n"
                  + self.daemon.log()[-3000:], file=sys.stderr)

    def assert_outcome(self, reply, status, outcome):
        self.assertEqual((reply.status, reply.outcome), (status, outcome), repr(reply))
        self.assertIn("x-call-id", reply.headers, repr(reply))

    def assert_error(self, reply, status, code, *words):
        """A /v1 error: the documented status and stable code, and a message that helps."""
        self.assertEqual(reply.status, status, repr(reply))
        error = reply.json()["error"]
        self.assertEqual(error["code"], code, repr(reply))
        for word in words:
            self.assertIn(word, error["message"], repr(reply))
        self.assertNotIn(str(self.daemon.temp), reply.text, "a host path in an answer")
