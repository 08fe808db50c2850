#!/usr/bin/env python3
"""Measures the figures of bench/README.md and writes their tables into it.

    bench/run.py [--build build/release] [--rounds 200] [--write] [--busy]
                 [--only start,peers,http,wrk,memory,import,leaks]

Needs root, a release build, and the packages crun, runc, nginx-light, wrk (scripts/setup bench).
Everything is compared side by side: contenders take turns inside one loop. A machine that has
other work is refused, unless --busy is given. --write replaces the tables of what was measured.
"""
import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
OWNER_BASE = 0x7A000000
Row = collections.namedtuple("Row", "figure result wanted")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Daemon:
    """`pulga serve` on a temporary data directory."""

    def __init__(self, build):
        self.bin = build / "bin"
        self.data = tempfile.mkdtemp(prefix="pulga-bench-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [str(self.bin / "pulga"), "serve", "--data", self.data, "--listen",
                   f"127.0.0.1:{self.port}"]
        self.log = open(os.path.join(self.data + ".log"), "wb")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(self.url + "/healthz", timeout=1).read()
                break
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    sys.exit("the daemon did not start: " + open(self.log.name).read())
                time.sleep(0.05)

    def cli(self, *arguments, stdin=None):
        env = dict(os.environ, PULGA_URL=self.url,
                   PULGA_KEY=pathlib.Path(self.data, "admin.key").read_text().strip())
        out = subprocess.run([str(self.bin / "pulga"), *arguments], env=env, input=stdin,
                             capture_output=True)
        if out.returncode != 0:
            sys.exit(f"pulga {' '.join(arguments)}: {out.stderr.decode()}{out.stdout.decode()}")
        return out.stdout.decode()

    def get(self, path):
        return urllib.request.urlopen(self.url + path, timeout=30).read()

    def processes(self):
        """pid -> name of everything below the keeper, in every pid namespace."""
        children = collections.defaultdict(list)
        names = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                stat = pathlib.Path("/proc", entry, "stat").read_text()
            except OSError:
                continue
            names[int(entry)] = stat[stat.index("(") + 1:stat.rindex(")")]
            children[int(stat[stat.rindex(")") + 2:].split()[1])].append(int(entry))
        found, todo = {}, [self.process.pid]
        while todo:
            pid = todo.pop()
            found[pid] = names.get(pid, "")
            todo += children[pid]
        return found

    def pin(self, processor):
        """Every thread there is; what they start later inherits it."""
        for pid in self.processes():
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), {processor})

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        shutil.rmtree(self.data, ignore_errors=True)
        os.unlink(self.log.name)


def run_json(command):
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {out.stderr}")
    return [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]


def times(row):
    return f"p50 {row['p50_us']:.0f} us, p90 {row['p90_us']:.0f} us (n={row['n']})"


def start_figures(build, rounds):
    """Cold, parked and parked over HTTP against a bare vfork+exec of the same program."""
    rows = []
    daemon = Daemon(build)
    program = build / "bin" / "rootfs" / "hello"
    try:
        daemon.cli("deploy", "hello", "--image", str(build / "images" / "hello.tar"),
                   "--mode", "exec", "--cpu", "1")
        daemon.get("/function/hello")
        for gap, wanted_cold in ((0, 3.8), (20, 4.0)):
            over_http = f"parked, over HTTP={daemon.port}/function/hello?stream=1"
            results = run_json([build / "bin" / "pulga-start-bench",
                                "--launcher", build / "bin" / "pulga-launcher",
                                "--program", program, "--rounds", str(rounds),
                                "--gap-ms", str(gap), "--http", over_http])
            condition = "paced, 20 ms idle gaps" if gap else "tight"
            wanted = {"bare vfork+exec": "the floor", "cold, in daemon": f"<= {wanted_cold} x",
                      "parked, in daemon": "<= 1.5 x", "parked, over HTTP": "<= 2.5 x"}
            for r in results:
                if r["condition"] == "cold, by step":
                    rows.append(Row(f"  of the cold start: {r['name']}, {condition}",
                                    times(r), ""))
                    continue
                rows.append(Row(f"{r['name']}, {condition}", f"{r['ratio']:.2f} x; {times(r)}",
                                wanted[r["name"]]))
    finally:
        daemon.stop()
    return rows


def syscall_list():
    """The unconditional names of sandbox/syscalls.txt, for the peers' seccomp list."""
    names, section = [], None
    for line in (ROOT / "sandbox" / "syscalls.txt").read_text().splitlines():
        if line.startswith("["):
            section = line.split("]")[0][1:]
        elif section in ("allow", "allow: x86_64 only") and not line.startswith("#"):
            names += line.split()
    return names + ["clone", "socket", "ioctl", "personality", "mknod", "mknodat"]


def make_bundle(directory, program, cgroup):
    """An OCI bundle with the limits and the profile our functions have."""
    root = pathlib.Path(directory, "rootfs")
    for name in ("dev", "proc", "tmp", "sys"):
        (root / name).mkdir(parents=True)
    shutil.copy(program, root / "program")
    capabilities = {s: [] for s in ("bounding", "effective", "inheritable", "permitted", "ambient")}
    config = {
        "ociVersion": "1.0.2",
        "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/program"],
                    "env": ["PATH=/"], "cwd": "/", "capabilities": capabilities,
                    "noNewPrivileges": True},
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "hello",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "nodev", "size=16m"]}],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {"memory": {"limit": 64 << 20}, "pids": {"limit": 128},
                          "cpu": {"quota": 100000, "period": 100000, "shares": 1024}},
            "namespaces": [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/interrupts", "/proc/keys", "/proc/kcore"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
                        "architectures": ["SCMP_ARCH_X86_64"],
                        "syscalls": [{"names": syscall_list(), "action": "SCMP_ACT_ALLOW"}]}}}
    pathlib.Path(directory, "config.json").write_text(json.dumps(config))


def peer_figures(build, rounds):
    """crun and runc on the same root with the same limits, in turn with ours."""
    rows = []
    program = build / "bin" / "rootfs" / "hello"
    with tempfile.TemporaryDirectory(prefix="pulga-peers-") as directory:
        peers = []
        for name in ("crun", "runc"):
            if not shutil.which(name):
                sys.exit(f"{name} is not installed: scripts/setup bench")
            bundle = pathlib.Path(directory, name)
            bundle.mkdir()
            make_bundle(bundle, program, f"/pulga-bench-{name}")
            peers += ["--peer", f"{name} run={shutil.which(name)} --root {directory}/{name}-state "
                                f"run --bundle {bundle} pulga-bench-{name}"]
        # crun refuses a hybrid cgroup layout: hide the empty v2 hierarchy from this one process.
        command = ["unshare", "-m", "sh", "-c",
                   'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh",
                   str(build / "bin" / "pulga-start-bench"),
                   "--launcher", str(build / "bin" / "pulga-launcher"),
                   "--program", str(program), "--rounds", str(rounds), *peers]
        results = run_json(command) + run_json([*command, "--gap-ms", "20"])
    by = {(r["condition"], r["name"]): r for r in results}
    for condition in ("tight", "paced"):
        cold = by[condition, "cold, in daemon"]
        rows.append(Row(f"our cold start beside them, {condition}", times(cold), ""))
        for name, wanted in (("crun run", 15), ("runc run", 35)):
            r = by[condition, name]
            rows.append(Row(f"{name}, same root and limits, {condition}",
                            f"{r['p50_us'] / cold['p50_us']:.1f} x slower; {times(r)}",
                            f">= {wanted} x"))
    return rows


NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  keepalive_requests 100000000;
  upstream function {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://function; proxy_http_version 1.1;
                  proxy_set_header Connection ""; }}
    location /headers/ {{ proxy_pass http://function/; proxy_http_version 1.1;
                  proxy_set_header Connection ""; proxy_set_header X-Call-Id $request_id;
                  proxy_set_header X-Start-Time $msec;
                  proxy_set_header X-Forwarded-For $remote_addr:$remote_port;
                  proxy_set_header X-Forwarded-Host $host;
                  add_header X-Call-Id $request_id; add_header X-Start-Time $msec;
                  add_header X-Pulga-Start warm; add_header X-Pulga-Outcome ok;
                  add_header Server-Timing "function;dur=$upstream_response_time"; }} }}
}}
"""


@contextlib.contextmanager
def http_contenders(build):
    """A warm http function: its server directly, through us, and through nginx; with the client
    all on one core. Yields {name: "PORT/PATH"}."""
    upstream, nginx_port = free_port(), free_port()
    daemon = Daemon(build)
    daemon.pin(0)
    os.sched_setaffinity(0, {0})
    server = subprocess.Popen([build / "bin" / "rootfs" / "http-hello"],
                              env={"PORT": str(upstream), "PATH": "/"}, stdout=subprocess.DEVNULL)
    directory = tempfile.mkdtemp(prefix="pulga-nginx-")
    pathlib.Path(directory, "nginx.conf").write_text(
        NGINX.format(dir=directory, upstream=upstream, port=nginx_port))
    nginx = subprocess.Popen(["nginx", "-c", f"{directory}/nginx.conf", "-p", directory],
                             stderr=subprocess.DEVNULL)
    try:
        daemon.cli("deploy", "web", "--image", str(build / "images" / "http-hello.tar"),
                   "--mode", "http", "--cpu", "2", "--max", "1", "--concurrency", "64",
                   "--min", "1")
        time.sleep(1)
        daemon.get("/function/web/")
        yield {"direct": f"{upstream}/", "pulga": f"{daemon.port}/function/web/",
               "nginx": f"{nginx_port}/", "nginx, our headers": f"{nginx_port}/headers/"}
    finally:
        for process in (server, nginx):
            process.terminate()
            process.wait()
        daemon.stop()
        shutil.rmtree(directory)
        os.sched_setaffinity(0, range(os.cpu_count()))


def throughput_rows(client, per_second):
    """Our share of everybody's requests per second."""
    ours = per_second["pulga"]
    for name, wanted in (("direct", ">= 35 %"), ("nginx", ">= 85 %"), ("nginx, our headers", "")):
        yield Row(f"{client}, 32 connections, share of {name}",
                  f"{100 * ours / per_second[name]:.0f} %; {ours:.0f} against "
                  f"{per_second[name]:.0f} requests/s", wanted)


def http_figures(build, rounds):
    """By our own light client, whose share of a request is smaller than the function's."""
    rows = []
    with http_contenders(build) as contenders:
        targets = [f"{name}={target}" for name, target in contenders.items()]
        load = build / "bin" / "pulga-http-load"
        for gap in (0, 20):
            for r in run_json([load, "latency", str(rounds * (10 if gap == 0 else 1)), str(gap),
                               *targets]):
                rows.append(Row(f"light client, 1 connection, {r['condition']}: {r['name']}",
                                f"{r['ratio']:.2f} x; {times(r)}",
                                "<= 3.0 x" if r["name"] == "pulga" else ""))
        results = run_json([load, "throughput", "32", "10", *targets])
    return rows + list(throughput_rows("light client",
                                       {r["name"]: r["rps_p50"] for r in results}))


def run_wrk(connections, target):
    """One second of wrk: (p50 in microseconds, requests per second)."""
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", "-d1s", "--latency",
                          f"http://127.0.0.1:{target}"], capture_output=True, text=True).stdout
    half = re.search(r"^\s*50%\s+([\d.]+)(us|ms|s)", out, re.M)
    per_second = re.search(r"^Requests/sec:\s+([\d.]+)", out, re.M)
    if not half or not per_second or "Non-2xx" in out or "Socket errors" in out:
        sys.exit(f"wrk against {target}: {out}")
    return float(half[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[half[2]], float(per_second[1])


def wrk_figures(build, rounds):
    """By wrk, a client as heavy as the usual ones."""
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed: scripts/setup bench")
    rows = []
    with http_contenders(build) as contenders:
        for connections in (1, 32):
            taken = collections.defaultdict(list)
            for _ in range(max(3, rounds // 40)):
                for name, target in contenders.items():
                    taken[name].append(run_wrk(connections, target))
            half = {name: statistics.median(t[0] for t in runs) for name, runs in taken.items()}
            per_second = {name: statistics.median(t[1] for t in runs)
                          for name, runs in taken.items()}
            plural = "s" if connections > 1 else ""
            for name, runs in taken.items():
                rows.append(Row(f"wrk, {connections} connection{plural}: {name}",
                                f"{half[name] / half['direct']:.2f} x; p50 {half[name]:.0f} us, "
                                f"{per_second[name]:.0f} requests/s (median of {len(runs)})",
                                "<= 3.0 x" if (name, connections) == ("pulga", 1) else ""))
    return rows + list(throughput_rows("wrk", per_second))


def smaps_kib(pid, field):
    try:
        text = pathlib.Path("/proc", str(pid), "smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{field}:\s+(\d+)", text, re.M)
    return int(found.group(1)) if found else 0


def meminfo():
    return {line.split(":")[0]: int(line.split()[1])
            for line in pathlib.Path("/proc/meminfo").read_text().splitlines()}


def memory_figures(build):
    rows = []
    daemon = Daemon(build)
    try:
        time.sleep(2)
        names = daemon.processes()
        pss = [(name, smaps_kib(pid, "Pss")) for pid, name in names.items()]
        total = sum(kib for _, kib in pss) / 1024
        each = ", ".join(f"{name} {kib} KiB" for name, kib in pss)
        rows.append(Row("keeper + launcher + daemon idle, PSS", f"{total:.1f} MiB ({each})",
                        "<= 10 MB"))
        daemon.cli("deploy", "hello", "--image", str(build / "images" / "hello.tar"), "--mode",
                   "exec", "--max", "100", "--parked", "1", "--pids", "16")
        daemon.get("/function/hello")
        rows.append(parked_figure(daemon, build))
    finally:
        daemon.stop()
    return rows


def kernel_and_user_kib(daemon):
    info = meminfo()
    kernel = info["SUnreclaim"] + info["SReclaimable"] + info["KernelStack"] + info["PageTables"] \
        + info["Percpu"]
    user = sum(smaps_kib(pid, "Pss") for pid in daemon.processes())
    return kernel, user


def parked_figure(daemon, build, count=100):
    time.sleep(1)
    samples = []
    for _ in range(3):
        daemon.cli("deploy", "hello", "--image", "hello:1", "--mode", "exec", "--max",
                   str(count + 1), "--parked", "1", "--pids", "16")
        daemon.get("/function/hello")
        time.sleep(2)
        before = kernel_and_user_kib(daemon)
        daemon.cli("deploy", "hello", "--image", "hello:1", "--mode", "exec", "--max",
                   str(count + 1), "--parked", str(count + 1), "--pids", "16")
        daemon.get("/function/hello")
        time.sleep(4)
        after = kernel_and_user_kib(daemon)
        samples.append(((after[0] - before[0]) / count, (after[1] - before[1]) / count))
    samples.sort(key=sum)
    kernel, user = samples[1]
    return Row("idle parked instance (exec, with its init and cgroup slot)",
               f"{kernel + user:.0f} KiB ({kernel:.0f} kernel + {user:.0f} user, median of 3 x "
               f"{count})", "<= 350 KB")


def import_figures(build):
    """Peak memory of all our processes together, the CLI too, while a 300 MB image is imported."""
    with tempfile.TemporaryDirectory(prefix="pulga-import-") as directory:
        tree = pathlib.Path(directory, "tree")
        tree.mkdir()
        for i in range(300):
            (tree / f"file{i}").write_bytes(os.urandom(1 << 20))
        shutil.copy(build / "bin" / "rootfs" / "hello", tree / "hello")
        archive = pathlib.Path(directory, "big.tar")
        subprocess.run([ROOT / "rootfs" / "make-image", "--output", archive, "--tag", "big:1",
                        "--cmd", "/hello", "--dir", tree], check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)
        daemon = Daemon(build)
        try:
            env = dict(os.environ, PULGA_URL=daemon.url,
                       PULGA_KEY=pathlib.Path(daemon.data, "admin.key").read_text().strip())
            begin = time.monotonic()
            client = subprocess.Popen([daemon.bin / "pulga", "image", "import", archive], env=env,
                                      stdout=subprocess.DEVNULL)
            peak_rss = peak_pss = 0
            while client.poll() is None:
                pids = list(daemon.processes()) + [client.pid]
                peak_rss = max(peak_rss, sum(smaps_kib(pid, "Rss") for pid in pids))
                peak_pss = max(peak_pss, sum(smaps_kib(pid, "Pss") for pid in pids))
                time.sleep(0.005)
            took = time.monotonic() - begin
            if client.returncode != 0:
                sys.exit("the import failed")
        finally:
            daemon.stop()
    return [Row("import of a 300 MB image, peak memory of all our processes, the CLI too",
                f"{peak_pss / 1024:.1f} MiB (each process' RSS added up, shared pages many times: "
                f"{peak_rss / 1024:.1f} MiB); {took:.1f} s", "<= 32 MiB")]


def leak_figures(build, calls=20000):
    """The e2e leak check at its full size; it fails when anything stays."""
    env = dict(os.environ, PULGA_LEAK_CALLS=str(calls), PULGA_BIN_DIR=str(build / "bin"),
               PULGA_IMAGES_DIR=str(build / "images"), PYTHONDONTWRITEBYTECODE="1")
    begin = time.monotonic()
    out = subprocess.run([sys.executable, "-m", "unittest", "test_leaks"], env=env,
                         cwd=ROOT / "tests" / "e2e", capture_output=True, text=True)
    took = time.monotonic() - begin
    if out.returncode != 0:
        sys.exit("the leak check failed:\n" + out.stderr)
    return [Row(f"leak check, {calls} invocations, half failing in every way",
                "fds, sockets, processes, mounts, cgroups, namespaces of every kind, bytes on disk "
                "and RSS as before; "
                f"{took:.0f} s", "as before")]


def table(rows):
    lines = ["| figure | measured | wanted |", "| --- | --- | --- |"]
    lines += [f"| {r.figure} | {r.result} | {r.wanted} |" for r in rows]
    return "\n".join(lines)


def busy_processors(seconds=1.0):
    """How many processors' worth of work the machine has without us."""
    def busy():
        fields = pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
        user, nice, system, _, _, irq, softirq, steal = map(int, fields)
        return user + nice + system + irq + softirq + steal
    before = busy()
    time.sleep(seconds)
    return (busy() - before) / os.sysconf("SC_CLK_TCK") / seconds


def require_quiet(allow_busy):
    """The load average remembers a minute of the past, so that it is a warning; work going on now
    is a refusal."""
    now, average = busy_processors(), os.getloadavg()[0]
    if now <= 0.3 and average <= 1.5:
        return
    what = f"{now:.2f} processors are busy and the load average is {average:.2f}"
    if now > 0.3 and not allow_busy:
        sys.exit(f"run.py: {what}: wait until the machine is quiet, or give --busy")
    print(f"run.py: WARNING: {what}; wall times below may be wrong", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=ROOT / "build" / "release", type=pathlib.Path)
    parser.add_argument("--rounds", default=200, type=int)
    parser.add_argument("--only", default="start,peers,http,wrk,memory,import,leaks")
    parser.add_argument("--write", action="store_true", help="put the tables into bench/README.md")
    parser.add_argument("--busy", action="store_true", help="measure although others work")
    options = parser.parse_args()
    build = options.build.resolve()
    sections = {"start": lambda: start_figures(build, options.rounds),
                "peers": lambda: peer_figures(build, options.rounds),
                "http": lambda: http_figures(build, options.rounds),
                "wrk": lambda: wrk_figures(build, options.rounds),
                "memory": lambda: memory_figures(build),
                "import": lambda: import_figures(build),
                "leaks": lambda: leak_figures(build)}
    wanted = options.only.split(",")
    if set(wanted) - set(sections):
        parser.error(f"--only knows {', '.join(sections)}")
    require_quiet(options.busy)
    for name in wanted:
        found = table(sections[name]())
        print(f"{name}\n{found}", flush=True)
        if options.write:
            readme = ROOT / "bench" / "README.md"
            begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
            head, rest = readme.read_text().split(begin)
            readme.write_text(f"{head}{begin}{found}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main()
