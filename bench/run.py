#!/usr/bin/env python3
"""Measures the figures of bench/figures.md and writes their tables into it.

    bench/run.py [--build build/release] [--rounds 200] [--write] [--busy]
                 [--only start,setup,filter,http,wrk,memory,import,leaks]

Needs root, a release build, and the packages nginx-light and wrk (scripts/setup bench).
Everything is compared side by side: contenders take turns inside one loop. A machine that has
other work is refused, unless --busy is given. --write replaces the tables of what was measured.
"""
import collections
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from common import (Daemon, ROOT, Row, http_contenders, kernel_and_user_kib, run_json,
                    run_sections, section_options, smaps_kib, times)


def start_figures(build, rounds):
    """Cold, parked and parked over HTTP against a bare vfork+exec of the same program."""
    rows = []
    daemon = Daemon(build)
    program = build / "bin" / "rootfs" / "hello"
    try:
        daemon.cli("deploy", "hello", "--image", str(build / "images" / "hello.tar"),
                   "--mode", "exec", "--cpu", "1")
        daemon.get("/function/hello")
        for gap, wanted_cold in ((0, 3.0), (20, 3.2)):
            over_http = f"parked, over HTTP={daemon.port}/function/hello?stream=1"
            results = run_json([build / "bin" / "pulga-start-bench",
                                "--launcher", build / "bin" / "pulga-launcher",
                                "--program", program, "--rounds", str(rounds),
                                "--gap-ms", str(gap), "--http", over_http])
            condition = "paced, 20 ms idle gaps" if gap else "tight"
            wanted = {"bare vfork+exec": "the floor", "cold, in daemon": f"<= {wanted_cold} x",
                      "parked, in daemon": "<= 1.15 x", "parked, over HTTP": "<= 1.8 x"}
            for r in results:
                if r["condition"] == "cold, by step of set-up":
                    continue
                if r["condition"] == "cold, by step":
                    rows.append(Row(f"  of the cold start: {r['name']}, {condition}",
                                    times(r), ""))
                    continue
                rows.append(Row(f"{r['name']}, {condition}", f"{r['ratio']:.2f} x; {times(r)}",
                                wanted[r["name"]]))
    finally:
        daemon.stop()
    return rows


def setup_figures(build, rounds):
    """Where the time of a cold start goes, tight and paced."""
    steps = collections.OrderedDict()
    for gap in (0, 20):
        for r in run_json([build / "bin" / "pulga-start-bench",
                           "--launcher", build / "bin" / "pulga-launcher",
                           "--program", build / "bin" / "rootfs" / "hello",
                           "--rounds", str(rounds), "--gap-ms", str(gap)]):
            if r["condition"] == "cold, by step of set-up":
                steps.setdefault(r["name"], []).append(r)
    return [Row(name, f"tight p50 {tight['p50_us']:.0f} us, p90 {tight['p90_us']:.0f} us; "
                f"paced p50 {paced['p50_us']:.0f} us, p90 {paced['p90_us']:.0f} us "
                f"(n={paced['n']})", "") for name, (tight, paced) in steps.items()]


def filter_figures(build, rounds):
    """One system call under no filter, ours and Docker's default list."""
    results = run_json([build / "bin" / "pulga-filter-bench", str(rounds),
                        ROOT / "bench" / "docker_syscalls.txt"])
    sizes = results.pop(0)["instructions"]
    calls = collections.OrderedDict()
    for r in results:
        calls.setdefault(r["call"], {})[r["name"]] = r
    rows = [Row("instructions of the filters", "; ".join(f"{who} {n}" for who, n in sizes.items()),
                "")]
    for call, by in calls.items():
        bare = by["no filter"]["p50_ns"]
        rows.append(Row(call, f"no filter {bare:.0f} ns; " + "; ".join(
            f"{who} {by[who]['p50_ns'] - bare:+.0f} ns" for who in ("ours", "Docker's"))
            + f" (p50, n={by['ours']['n']})", ""))
    return rows


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
    with http_contenders(build) as (contenders, _):
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
    with http_contenders(build) as (contenders, _):
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


def main():
    sections = {
        "start": lambda o: start_figures(o.build, o.rounds),
        "setup": lambda o: setup_figures(o.build, o.rounds),
        "filter": lambda o: filter_figures(o.build, o.rounds),
        "http": lambda o: http_figures(o.build, o.rounds),
        "wrk": lambda o: wrk_figures(o.build, o.rounds),
        "memory": lambda o: memory_figures(o.build),
        "import": lambda o: import_figures(o.build),
        "leaks": lambda o: leak_figures(o.build)}
    parser = section_options(__doc__, sections)
    parser.add_argument("--rounds", default=200, type=int)
    run_sections(parser, sections)


if __name__ == "__main__":
    main()
