#!/usr/bin/env python3
"""Measures Pulga beside faasd: ten functions of one watchdog image, and calls of one of them.

    bench/openfaas_bench.py --faasd DIR --image FILE.tar [--build build/release] [--write] [--busy]

DIR has the programs `faasd` and `gateway`, built from their last MIT sources; FILE.tar is what
`docker save` made of functions/alpine or of something like it, with a classic watchdog. Needs root,
containerd, runc, iptables and containernetworking-plugins. faasd, its containerd and its bridge
live in mount, process and network namespaces that end with the run, on copies of /etc, /opt and
/usr/local that nobody else sees. method.md says the rest.
"""
import argparse
import base64
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from common import Daemon, Row, bench_options, require_quiet, smaps_kib, table, write_table
from peers import LeftOut, SYSTEM, checked, program, remove_cgroups, serving

FUNCTIONS = 10
NAMESPACE = "openfaas-fn"  # of containerd, and of the cgroups that faasd's tasks are in
BODY = b"hello"
GATEWAY_CACHE_S = 0.5  # the gateway believes for 250 ms what it last heard of a function's replicas
# faasd writes to paths that are compiled into it; what this machine has there stays as it is.
PREPARE = """
set -e
umount -l /sys/fs/cgroup/unified 2>/dev/null || true
mount -t tmpfs run /run
mount -t tmpfs over "$1/over"
for place in etc opt usr/local; do
  mkdir -p "$1/over/$place/upper" "$1/over/$place/work"
  mount -t overlay over -o \
    "lowerdir=/$place,upperdir=$1/over/$place/upper,workdir=$1/over/$place/work" "/$place"
done
ip link set lo up
shift
"$@"
exit $?
"""


class Server:
    """One that speaks OpenFaaS's gateway API."""

    def __init__(self, name, port, user, password, scaler=None):
        self.name = name
        self.scaler = scaler or self  # who takes the number of replicas as it is said
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method, path, body=None):
        self.connection.request(method, path, body, self.headers)
        reply = self.connection.getresponse()
        return reply.status, reply.read()

    def administer(self, method, path, document):
        status, said = self.ask(method, path, json.dumps(document))
        if status not in (200, 202):
            raise LeftOut(f"{self.name}: {method} {path}: {status} {said[:200]!r}")

    def deploy(self, name, image):
        self.administer("POST", "/system/functions", {
            "service": name, "image": image, "envProcess": "cat",
            "labels": {"com.openfaas.scale.min": "1"}, "limits": {"memory": "64Mi"}})

    def call(self, name, seconds=30):
        """Seconds until the first right answer, and how many wrong ones came before it."""
        begin, wrong = time.monotonic(), 0
        while True:
            status, said = self.ask("POST", f"/function/{name}", BODY)
            if status == 200 and said == BODY:
                return time.monotonic() - begin, wrong
            wrong += 1
            if time.monotonic() - begin > seconds:
                raise LeftOut(f"{self.name}: {name} answers {status} {said[:200]!r}")
            time.sleep(0.01)

    def scale(self, name, replicas):
        self.scaler.administer("POST", f"/system/scale-function/{name}",
                               {"serviceName": name, "replicas": replicas})

    def wait_for_replicas(self, name, wanted, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            status, said = self.ask("GET", f"/system/function/{name}")
            if status == 200 and json.loads(said).get("availableReplicas", 0) == wanted:
                return
            if time.monotonic() > deadline:
                raise LeftOut(f"{self.name}: {name} did not come to {wanted} replicas: "
                              f"{status} {said[:300]!r}")
            time.sleep(0.05)


@contextlib.contextmanager
def private_containerd(directory, image):
    address = "/run/containerd/containerd.sock"
    config = directory / "config.toml"
    config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    client = [program("ctr"), "-a", address, "-n", NAMESPACE]
    with serving([program("containerd"), "--root", directory / "root", "--state",
                  directory / "state", "--address", address, "--config", config],
                 [*client, "version"], directory / "log"):
        checked([*client, "namespaces", "create", NAMESPACE, "openfaas=true"])
        checked([*client, "images", "import", image])
        yield client


@contextlib.contextmanager
def faasd(directory, programs, image):
    """containerd, the provider and the gateway; how ctr is called, and the gateway."""
    directory.mkdir()
    # The log shim of each function is started by this path.
    pathlib.Path("/usr/local/bin").mkdir(exist_ok=True)
    shutil.copy(programs / "faasd", "/usr/local/bin/faasd")
    shutil.copytree("/usr/lib/cni", "/opt/cni/bin")
    secrets = directory / "login"
    secrets.mkdir()
    (secrets / "basic-auth-user").write_text("admin")
    (secrets / "basic-auth-password").write_text("measured")
    os.environ.update(secret_mount_path=str(secrets), basic_auth="true", scale_from_zero="true",
                      functions_provider_url="http://127.0.0.1:8081/", direct_functions="false",
                      function_namespace=NAMESPACE, hosts_dir=str(directory),
                      read_timeout="60s", write_timeout="60s", upstream_timeout="65s")
    answers = ["/usr/bin/python3", "-c", "import socket, sys; "
               "socket.create_connection(('127.0.0.1', int(sys.argv[1])), 1)"]
    with private_containerd(directory, image) as client, contextlib.chdir(directory), \
            serving(["/usr/local/bin/faasd", "provider", "--pull-policy", "IfNotPresent"],
                    [*answers, "8081"], directory / "provider.log"), \
            serving([programs / "gateway"], [*answers, "8080"], directory / "gateway.log"):
        # The gateway makes 1 of a 0; the provider behind it pauses the function's process.
        provider = Server("faasd-provider", 8081, "admin", "measured")
        yield client, Server("faasd", 8080, "admin", "measured", provider)


@contextlib.contextmanager
def pulga(build, image):
    daemon = Daemon(build)
    try:
        daemon.cli("image", "import", str(image))
        secrets = pathlib.Path(daemon.data, "secrets")
        yield daemon, Server("Pulga", daemon.port,
                             *((secrets / f"basic-auth-{part}").read_text().strip()
                               for part in ("user", "password")))
    finally:
        daemon.stop()


def pss_by_program(pids):
    """Name -> how many processes, and the KiB of all of them."""
    found = {}
    for pid in pids:
        try:
            name = pathlib.Path("/proc", str(pid), "comm").read_text().strip()
        except OSError:
            continue
        count, kib = found.get(name, (0, 0))
        found[name] = (count + 1, kib + smaps_kib(pid, "Pss"))
    return found


def faasd_pids():
    """Every process of the namespace that is none of this program's, nor Pulga's."""
    names = ("containerd", "containerd-shim", "faasd", "gateway", "fwatchdog")
    return [int(p) for p in os.listdir("/proc") if p.isdigit()
            and pathlib.Path("/proc", p, "comm").read_text().strip() in names]


def memory_row(figure, pids):
    by = pss_by_program(pids)
    own = sum(kib for name, (_, kib) in by.items() if name != "fwatchdog")
    functions = by.get("fwatchdog", (0, 0))
    parts = ", ".join(f"{count} {name} {kib / 1024:.1f}" for name, (count, kib) in
                      sorted(by.items(), key=lambda item: -item[1][1]) if name != "fwatchdog")
    return Row(figure, f"{own / 1024:.1f} MiB ({parts}); and {functions[0]} functions' watchdogs "
               f"{functions[1] / 1024:.1f} MiB", "")


def milliseconds(samples):
    wrong = sum(count for _, count in samples)
    took = sorted(seconds * 1e3 for seconds, _ in samples)
    said = (f"p50 {statistics.median(took):.2f} ms, p90 {took[len(took) * 9 // 10]:.2f} ms "
            f"(n={len(took)})")
    return said + (f"; {wrong} wrong answers before the right ones" if wrong else "")


def from_zero(server, name):
    server.scale(name, 0)
    server.wait_for_replicas(name, 0)
    time.sleep(GATEWAY_CACHE_S)
    return server.call(name)


def from_no_process(client, server, name):
    checked([*client, "tasks", "kill", "-s", "SIGKILL", name])
    server.wait_for_replicas(name, 0)
    time.sleep(GATEWAY_CACHE_S)
    return server.call(name)


def figures(directory, options):
    (directory / "over").mkdir(exist_ok=True)
    rows = []
    with faasd(directory / "faasd", options.faasd, options.image) as (client, theirs), \
            pulga(options.build, options.image) as (daemon, ours):
        image = "docker.io/functions/alpine:latest"
        for server in (theirs, ours):
            for i in range(FUNCTIONS):
                server.deploy(f"function-{i}", image)
            for i in range(FUNCTIONS):
                server.call(f"function-{i}")
        rows.append(memory_row(f"faasd, {FUNCTIONS} functions running", faasd_pids_of(daemon)))
        rows.append(memory_row(f"Pulga, {FUNCTIONS} functions running", daemon.processes()))
        name = "function-0"
        warm = {server: [] for server in (theirs, ours)}
        for _ in range(options.rounds):
            for server, samples in warm.items():
                samples.append(server.call(name))
        for server, samples in warm.items():
            rows.append(Row(f"a warm call, {server.name}", milliseconds(samples), ""))
        zero, killed, our_zero = [], [], []
        for _ in range(options.colds):
            zero.append(from_zero(theirs, name))
            our_zero.append(from_zero(ours, name))
            killed.append(from_no_process(client, theirs, name))
        rows += [Row("first call after a scale to 0, Pulga (a new process)",
                     milliseconds(our_zero), ""),
                 Row("the same, faasd (the paused process goes on)", milliseconds(zero), ""),
                 Row("first call after its process was killed, faasd (a new process)",
                     milliseconds(killed), "")]
        for i in range(FUNCTIONS):
            theirs.scale(f"function-{i}", 0)
            ours.scale(f"function-{i}", 0)
        for i in range(FUNCTIONS):
            theirs.wait_for_replicas(f"function-{i}", 0)
            ours.wait_for_replicas(f"function-{i}", 0)
        time.sleep(2)
        rows.append(memory_row("faasd, all scaled to 0", faasd_pids_of(daemon)))
        rows.append(memory_row("Pulga, all scaled to 0", daemon.processes()))
    return rows


def faasd_pids_of(daemon):
    return sorted(set(faasd_pids()) - set(daemon.processes()))


def run_inside(directory):
    """This program again, in namespaces that end with it."""
    process = subprocess.Popen(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh",
         "-c", PREPARE, "sh", directory, sys.executable, "-B", __file__, *sys.argv[1:],
         "--inside", directory], env=dict(os.environ, HOME=directory, PATH=SYSTEM))
    try:
        return process.wait()
    finally:
        process.kill()
        process.wait()
        remove_cgroups(parent=NAMESPACE)


def main():
    parser = bench_options(__doc__)
    parser.add_argument("--faasd", type=pathlib.Path, help="where its programs are")
    parser.add_argument("--image", type=pathlib.Path, help="an archive of functions/alpine")
    parser.add_argument("--rounds", default=300, type=int)
    parser.add_argument("--colds", default=10, type=int)
    parser.add_argument("--inside", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for given, what in ((options.faasd and options.faasd / "faasd", "--faasd: no faasd in it"),
                        (options.faasd and options.faasd / "gateway", "--faasd: no gateway in it"),
                        (options.image, "--image: no archive there")):
        if not given or not given.is_file():
            sys.exit(f"openfaas_bench: left out: {what}")
    options.build, options.faasd = options.build.resolve(), options.faasd.resolve()
    if options.inside is None:
        if any(pathlib.Path("/sys/fs/cgroup").glob(f"*/{NAMESPACE}")) or \
                pathlib.Path("/sys/fs/cgroup", NAMESPACE).exists():
            sys.exit("openfaas_bench: a faasd runs here already: its cgroups are there")
        require_quiet(options.busy)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        with tempfile.TemporaryDirectory(prefix="pulga-openfaas-") as directory:
            os.chmod(directory, 0o755)
            os.mkdir(os.path.join(directory, "over"))
            sys.exit(run_inside(directory))
    try:
        found = table(figures(options.inside, options))
    except LeftOut as why:
        sys.exit(f"openfaas_bench: {why}")
    print(found)
    if options.write:
        write_table("openfaas", found)


if __name__ == "__main__":
    main()
